"""The page of a blind study: orders, blinding, what is written, what is refused. test_study_browser has the page."""

import collections
import itertools
import json
import re

import numpy as np
import pytest
import summaries
from PIL import Image

from vqm_jax import errors
from vqm_jax.report.study import making, trials

METHODS, CLIPS = ['a', 'b', 'c', 'd'], [f'clip{k}' for k in range(6)]
PAIRS = list(itertools.combinations(METHODS, 2))


def orders(mode, methods=METHODS, clips=CLIPS, slots=12, seed=0, max_trials=60):
  return trials.orders(methods, clips, mode, methods[0], slots, seed, max_trials)


def of(order, *kinds):
  return [trial for trial in order if trial.kind in kinds]


def shown(order):
  return [trial for trial in order if trial.kind != 'training']


# Orders.


@pytest.mark.parametrize('mode', trials.MODES)
def test_a_seed_gives_the_same_orders_and_slots_differ(mode):
  assert orders(mode) == orders(mode) != orders(mode, seed=1)
  assert len(set(map(tuple, orders(mode)))) == 12


@pytest.mark.parametrize('max_trials', [60, 20])
def test_pairs_are_complete_and_balanced(max_trials):
  made = orders('pair', slots=18, max_trials=max_trials)
  cells = collections.Counter()
  for order in made:
    main = of(order, 'main')
    assert len(main) == min(max_trials, 36)
    hand = [(t.clip, *sorted((t.left, t.right))) for t in main]
    assert len(set(hand)) == len(hand)
    cells.update(hand)
    sides = collections.Counter()
    for trial in main:
      sides[trial.left] += 1
      sides[trial.right] -= 1
    assert all(abs(ahead) <= 3 for ahead in sides.values())
    for a, b in PAIRS:
      ahead = sum((t.left == a) - (t.left == b) for t in main if {t.left, t.right} == {a, b})
      assert abs(ahead) <= 1
  assert len(cells) == 36 and max(cells.values()) - min(cells.values()) <= 1
  # Over all raters each pair on each clip is on either side about as often.
  lefts = collections.Counter((t.clip, t.left, t.right) for order in made for t in of(order, 'main'))
  assert all(abs(lefts[clip, a, b] - lefts[clip, b, a]) <= 4 for clip in CLIPS for a, b in PAIRS)


def test_ratings_come_in_blocks_of_all_methods():
  for order in orders('mos'):
    main = of(order, 'main')
    assert len(main) == 24 == len({(t.clip, t.left) for t in main}) and not any(t.right for t in order)
    for k in range(0, 24, 4):
      assert {t.left for t in main[k : k + 4]} == set(METHODS)
  for order in orders('mos', max_trials=9):  # two whole clips, so that the hidden reference is beside each
    main = of(order, 'main')
    assert len(main) == 8 and len({t.clip for t in main}) == 2
  dealt = collections.Counter(t.clip for order in orders('mos', max_trials=9) for t in of(order, 'main'))
  assert set(dealt.values()) == {16}


@pytest.mark.parametrize('mode', trials.MODES)
@pytest.mark.parametrize('clips', [2, 3, 6])
def test_no_clip_twice_in_a_row(mode, clips):
  broken = 0
  for order in orders(mode, clips=CLIPS[:clips], slots=30):
    names = [trial.clip for trial in shown(order)]
    broken += sum(a == b for a, b in zip(names, names[1:], strict=False))
    assert [t.kind for t in order[:2]] == ['training'] * 2 and not of(order[2:], 'training')
  # With two clips, checks and repeats have no place of their own between two others.
  assert broken <= (0 if clips == 6 else 30 * len(of(order, 'repeat', 'obvious', 'same')))


@pytest.mark.parametrize('mode', trials.MODES)
def test_checks_and_repeats(mode):
  for order in orders(mode):
    counted = shown(order)
    main, repeats = of(order, 'main'), of(order, 'repeat')
    assert 0.05 <= len(repeats) / len(main) <= 0.11
    for trial in repeats:
      [before] = [t for t in main if (t.clip, {t.left, t.right}) == (trial.clip, {trial.left, trial.right})]
      assert counted.index(trial) - counted.index(before) >= len(counted) // 6
      assert (trial.left, trial.right) == ((before.right, before.left) if mode == 'pair' else (before.left, None))
    obvious = of(order, 'obvious')
    assert len(obvious) == 2
    if mode == 'pair':
      assert sorted((t.left, t.right).index(trials.DAMAGED) for t in obvious) == [0, 1]
      assert all(t.left == t.right for t in of(order, 'same')) and of(order, 'same')
    else:
      assert all(t.left == trials.DAMAGED for t in obvious)


def test_one_clip_and_two_methods_are_enough():
  [order] = orders('pair', ['a', 'b'], ['x'], slots=1)
  assert collections.Counter(t.kind for t in order) == {'training': 2, 'main': 1, 'repeat': 1, 'obvious': 2, 'same': 1}


def test_digests():
  # FNV-1a with 64 bits, the values that its authors give.
  assert trials.digest('') == 'cbf29ce484222325' and trials.digest('a') == 'af63dc4c8601ec8c'
  assert trials.digest('foobar') == '85944171f73967e8'
  assert trials.order_digest('s', 1, [['a', 'b'], ['c']]) == trials.digest('s\n1\na b\nc')
  answer = {'trial': 0, 'media': ['a', 'b'], 'answer': 'left', 'ms': 1200, 'plays': 1}
  assert trials.answers_digest('s', 'P', 'o', [answer]) == trials.digest('s\nP\no\n0 a b left 1200 1')
  assert len({trials.slot_of(f'P{k}', 60) for k in range(60)}) > 30


# The folder.


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
