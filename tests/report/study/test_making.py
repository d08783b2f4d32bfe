"""Studies as they are written: pictures, key, page, flags."""

import json
import re

import numpy as np
import pytest
import summaries
from full_disk import no_file_beyond
from PIL import Image

from vqm_jax import errors
from vqm_jax.report.study import making, trials


def make_frames(folder, methods, clips=('x', 'y'), frames=3, size=(20, 24)):
  for clip in clips:
    rng = np.random.default_rng([len(clip), ord(clip[-1])])
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for k in range(frames):
      for m, method in enumerate(methods):
        path = folder / method / clip / f'{k:06d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(picture, (k, m), (0, 1))).save(path)
  return folder


BLOCKED = ['av', 'cv2', 'tensorflow', 'tensorflow_datasets', 'matplotlib']


def run(binary, *args, code=0):
  process = binary('report.study', *args, blocked=BLOCKED)
  output = process.communicate(timeout=60)[0]
  assert process.returncode == code, output
  return output


def test_on_a_full_disk_neither_study_nor_key_is_left(tmp_path):
  folders = make_frames(tmp_path / 'frames', ['a', 'b'])
  frames = {name: {clip: sorted((folders / name / clip).iterdir()) for clip in ('x', 'y')} for name in ('a', 'b')}
  study = making.Study(frames, None, 'pair', 'a', 'b', 'c', 25.0, 0, 3, (16, 10), 2, 10, 0)
  for size in (100, 3000):
    with pytest.raises(errors.DiskFullError, match=f'^{tmp_path}/.*: no room to write this; .* are free'):
      with no_file_beyond(size):
        making.build(study, tmp_path / 'out' / 'study', tmp_path / 'out' / 'key.json')
    assert not [path for path in tmp_path.rglob('*') if path.is_file() and folders not in path.parents]


def test_what_is_written(binary, tmp_path):
  make_frames(tmp_path, ['ours', 'theirs', 'input', 'target'])
  out = tmp_path / 'study'
  given = [f'--methods=ours={tmp_path}/ours,theirs={tmp_path}/theirs', f'--input={tmp_path}/input', '--crop=16x10']
  output = run(
    binary, *given, f'--target={tmp_path}/target', f'--out={out}', '--slots=5', '--question=Which, </script>?'
  )
  key_path = tmp_path / 'study_KEY_keep_private.json'
  assert '3 methods, 2 clips' in output and f'The key: {key_path}.' in output
  assert sorted(p.name for p in out.iterdir()) == ['index.html', 'media', 'study.css', 'study.js', 'trials.js']
  key = json.loads(key_path.read_text())
  assert key['methods'] == ['ours', 'theirs', 'input'] and key['clips'] == ['x', 'y'] and len(key['orders']) == 5
  text = (out / 'trials.js').read_text()
  page = json.loads(re.fullmatch(r'window.STUDY = (.*);\n', text).group(1))
  # Nothing on the page tells methods or clips apart, nor checks from questions.
  for name in ('ours', 'theirs', 'input', 'target', 'damaged', 'obvious', 'repeat', 'main', '"x"', 'seed'):
    assert name not in text
  assert '</script' not in text and page['question'] == 'Which, </script>?'
  assert page['orders'] == [[trial['media'] for trial in order] for order in key['orders']]
  assert set(page['media']) == set(key['media']) == {folder.name for folder in (out / 'media').iterdir()}
  for token, entry in key['media'].items():
    assert re.fullmatch('[0-9a-f]{16}', token)
    files = sorted((out / 'media' / token).iterdir())
    assert [file.name for file in files] == ['0000.webp', '0001.webp', '0002.webp']
    reference = key['media'][page['media'][token]['reference']]
    assert reference == {'method': 'target', 'clip': entry['clip']}
    if entry['method'] != trials.DAMAGED:  # the very pixels, out of the middle
      original = np.asarray(Image.open(tmp_path / entry['method'] / entry['clip'] / '000001.png'))
      np.testing.assert_array_equal(np.asarray(Image.open(files[1])), original[5:15, 4:20])


def test_page_loads_nothing_from_elsewhere():
  texts = {name: (making.ASSETS / name).read_text() for name in making._FILES}
  for text in texts.values():
    assert not re.search(r'https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest|sendBeacon|WebSocket|cookie\b', text)
  html, script = texts['study.html'], texts['study.js']
  assert "connect-src 'none'" in html
  assert set(re.findall(r'(?:src|href)="([^"]*)"', html)) == {'data:,', 'study.css', 'trials.js', 'study.js'}
  ids = set(re.findall(r' id="([^"]*)"', html))
  assert set(re.findall(r"\$\('([a-z-]+)'\)", script)) <= ids
  for words in ('voluntary', 'What is stored', 'Please not your real name', 'sends nothing'):
    assert words in html


def test_ratings_hide_the_target_among_the_rest(binary, tmp_path):
  make_frames(tmp_path, ['only', 'target'])
  run(binary, f'--methods=only={tmp_path}/only', f'--target={tmp_path}/target', '--mode=mos', f'--out={tmp_path}/study')
  key = json.loads((tmp_path / 'study_KEY_keep_private.json').read_text())
  assert key['target'] == 'target' and key['methods'] == ['only']
  rated = {key['media'][token]['method'] for trial in key['orders'][0] for token in trial['media']}
  assert rated == {'only', 'target', trials.DAMAGED}
  assert 'reference' not in (tmp_path / 'study' / 'trials.js').read_text()


def test_evaluations_bring_their_frames(binary, tmp_path):
  for name in ('one', 'two'):
    folder = make_frames(tmp_path / name / 'eval' / 'f', ['output', 'input', 'target'])
    folders = {side: f'../f/{side}' for side in ('output', 'input', 'target')}
    summaries.write(tmp_path / name / 'eval' / 'test', method=name, folders=folders, frame_indices={})
    assert folder.is_dir()
  run(binary, f'--results={tmp_path}/one,{tmp_path}/two', '--clips=y', f'--out={tmp_path}/study', '--slots=2')
  key = json.loads((tmp_path / 'study_KEY_keep_private.json').read_text())
  assert key['methods'] == ['one', 'two', 'No processing'] and key['clips'] == ['y']
  assert 'target' in {entry['method'] for entry in key['media'].values()}


@pytest.fixture
def study(tmp_path):
  """Makes the study of folders below tmp_path in this process."""
  from vqm_jax.report import frame_folders

  def make(*methods, target=None, key='key.json', out='study', **changes):
    found = {method: frame_folders.find(tmp_path / method, method) for method in methods}
    found = {method: frame_folders.wanted(clips, found[methods[0]], method) for method, clips in found.items()}
    fields = dict(mode='pair', title='', question='', contact='', fps=24, first=0, frames=3, crop=(99, 99))
    fields |= dict(slots=2, max_trials=9, seed=0) | changes
    return making.build(making.Study(methods=found, target=target, **fields), tmp_path / out, tmp_path / key)

  return make


def test_methods_that_do_not_fit(study, tmp_path):
  make_frames(tmp_path, ['a', 'b'])
  make_frames(tmp_path, ['small'], size=(20, 22))
  make_frames(tmp_path, ['short'], frames=2)
  make_frames(tmp_path, ['lacking'], clips=('x',))
  refused = [
    (('a', 'small'), 'clip x: small is 22x20, a 24x20; frames must have one size'),
    (('a', 'short'), 'clip x: short has 2 frames, a 3; show the same frames'),
    (('a', 'lacking'), 'lacking lacks 1 of 2 clips: y; it has x'),
  ]
  for methods, message in refused:
    with pytest.raises(errors.DataError, match=message):
      study(*methods)
  with pytest.raises(errors.DataError, match='clip x of a has 3 frames, 9 are needed; lower --max_frames'):
    study('a', 'b', frames=9)
  with pytest.raises(errors.ConfigError, match='--mode=pair needs two methods, found a'):
    study('a')
  with pytest.raises(errors.ConfigError, match='--key=.* is inside of --out'):
    study('a', 'b', key='study/key.json')
  odd = tmp_path / 'b' / 'x' / '000002.png'
  Image.fromarray(np.zeros((20, 26, 3), np.uint8)).save(odd)
  with pytest.raises(errors.DataError, match='000002.png is 26x20, others of the clip 24x20'):
    study('a', 'b')
  odd.write_bytes(odd.read_bytes()[:-30])
  with pytest.raises(errors.DataError, match='000002.png is damaged'):
    study('a', 'b')
  odd.unlink()
  (tmp_path / 'b' / 'y' / '000002.png').unlink()
  with pytest.raises(errors.DataError, match='clip x: b has 2 frames'):
    study('a', 'b')
  assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(('study', '.study', 'key'))]  # nothing is left


def test_nothing_is_overwritten(study, tmp_path):
  make_frames(tmp_path, ['a', 'b'])
  first, second = study('a', 'b'), study('a', 'b', key='key2.json', out='study2')
  # The same questions under other names: neither the seed nor a folder of before unmasks a method.
  assert not first['media'].keys() & second['media'].keys() and first['study'] != second['study']
  kinds = [[[trial['kind'] for trial in order] for order in key['orders']] for key in (first, second)]
  assert kinds[0] == kinds[1]
  with pytest.raises(errors.ConfigError, match='--out=.*study exists already; a study is never overwritten'):
    study('a', 'b', key='key3.json')
  with pytest.raises(errors.ConfigError, match='--key=.*key.json exists already'):
    study('a', 'b', out='study3')


def test_flags(binary, tmp_path):
  given = f'--methods=a={tmp_path},a={tmp_path}', f'--out={tmp_path}/study'
  assert 'expected NAME=DIR,NAME=DIR with different names' in run(binary, *given, code=2)
