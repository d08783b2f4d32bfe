"""The results page as a whole: exact frames, size, two cameras, seeds, what is refused; the binary."""

import json
import re

import numpy as np
import pytest
from report.page.runs import EVIL, INPUTS, ODD, TARGETS, frames_of, make, workdir
from report.parsed_page import Parsed, pixels

from vqm_jax import errors, metrics
from vqm_jax.report import panels
from vqm_jax.report.figures import plots
from vqm_jax.report.page import build


def test_frames_are_exact(no_plots, tmp_path, pair):
  data = make(tmp_path / 'x.html', *pair, frames='at:2', extremes=0).data
  assert data['sides'] == ['Input', 'ecnu', EVIL, 'Target'] and data['clips'] == ['a', ODD]
  assert [(one['clip'], one['frame']) for one in data['stills']] == [(0, 2), (1, 2)]
  for still, clip in zip(data['stills'], TARGETS, strict=True):
    sides = [INPUTS, frames_of(12), frames_of(6), TARGETS]
    for uri, frames in zip(still['pictures'], sides, strict=True):
      np.testing.assert_array_equal(pixels(uri), frames[clip][2])
    assert len(still['errors']) == 3 and (still['width'], still['height']) == (60, 40)
    for uri, frames in zip(still['errors'], sides, strict=False):
      colours = panels.error_colours(panels.error_map(frames[clip][2], TARGETS[clip][2])).astype(int)
      assert np.abs(pixels(uri) - colours).mean() < 25  # noise with loss
    scores = [float(metrics.psnr(frames[clip][2], TARGETS[clip][2])) for frames in sides[:3]]
    assert still['scores'] == [f'{score:.2f} dB' for score in scores] + ['']
  [first, second] = data['motion']
  assert first['frames'] == [0, 1, 2, 3] and [len(side) for side in second['pictures']] == [4] * 4
  assert pixels(first['pictures'][3][1]).shape == (40, 60, 3)


def test_frames_that_equal_their_targets(no_plots, tmp_path):
  run = workdir(tmp_path / 'x', TARGETS, 'perfect')
  parsed = make(tmp_path / 'x.html', run)
  assert {still['scores'][1] for still in parsed.data['stills']} == {'identical'}
  assert 'There are no worst and best frames' in parsed.text and 'NaN' not in ''.join(parsed.scripts[1:2])


def test_page_keeps_its_size(no_plots, tmp_path, pair):
  out = tmp_path / 'x.html'
  full = make(out, *pair)
  whole = out.stat().st_size
  assert len(full.data['stills']) == 8 and 'exact (lossless WebP)' in full.text and 'To stay' not in full.text
  sizes = [whole * part for part in (0.8, 0.5, 0.35)]
  for size in sizes:
    parsed = make(out, *pair, max_mb=size / 1e6)
    assert out.stat().st_size <= size
    assert 'MB, the page has frames to compare with loss instead of exact ones' in parsed.text
  assert len(parsed.data['stills']) < 8 and 'instead of 4 worst and best ones of each method' in parsed.text
  before = out.read_text()
  with pytest.raises(
    errors.ConfigError, match=r'^--max_mb=0.06 is too small: the page needs 0.\d+ MB with the'
  ) as caught:
    make(out, *pair, max_mb=0.06)
  with pytest.raises(errors.ConfigError, match='^--max_mb=0.001 is too small: without any picture'):
    make(out, *pair, max_mb=0.001)
  assert out.read_text() == before
  make(out, *pair, max_mb=float(re.search(r'needs (\S+) MB', str(caught.value))[1]))  # as promised
  assert [path.name for path in tmp_path.iterdir()] == ['x.html']


def test_dates():
  assert build.dates(['2026-11-26T03:37:05+00:00', None, 'x']) == '26 November 2026'
  assert build.dates([None]) == ''
  assert build.dates(['2026-11-26', '2026-02-01T00:00:00']) == '1 February 2026 to 26 November 2026'


def test_two_cameras(no_plots, tmp_path):
  values = {clip: [-0.1, 0.2, 0.0, 0.1] for clip in TARGETS}
  sharpness = {'sharpness': {'mean': 0.05, 'per_clip': dict.fromkeys(TARGETS, 0.05), 'per_frame': values}}
  sides = {'metrics': sharpness, 'no_processing': sharpness}
  run = workdir(tmp_path / 'x', frames_of(6), 'wespe', aligned=False, **sides)
  parsed = make(tmp_path / 'x.html', run)
  data = parsed.data
  assert data['sides'] == ['Input', 'wespe', 'target (not aligned)'] and not data['errors']
  assert all(still['errors'] == [] and set(still['scores']) == {''} for still in data['stills'])
  assert 'not aligned. Errors and PSNR against them would mean nothing' in parsed.text
  assert 'There are no worst and best frames: targets are not aligned' in parsed.text
  assert 'extremes' not in parsed.ids and 'PSNR' not in parsed.rows[0] and 'weakly aligned' in parsed.text


def test_without_inputs_there_is_no_gain(no_plots, tmp_path, pair):
  summary = json.loads((pair[0] / 'eval/test/summary.json').read_text())
  folders = {side: path for side, path in summary['folders'].items() if side != 'input'}
  run = workdir(tmp_path / 'x', frames_of(6), 'm', no_processing=None, folders=folders)
  parsed = make(tmp_path / 'x.html', run)
  assert parsed.data['sides'] == ['m', 'Target'] and 'extremes' not in parsed.ids
  assert 'no gain of single frames is known' in parsed.text


def test_several_seeds_show_the_first(no_plots, tmp_path):
  runs = [
    workdir(tmp_path / str(seed), frames_of(6, seed), f'ecnu (step {seed})', seed=seed, experiment='e')
    for seed in (5, 4)
  ]
  parsed = make(tmp_path / 'x.html', *runs, frames='1')
  assert parsed.data['sides'] == ['Input', 'ecnu, seed 4', 'Target']
  assert 'Of several seeds of one experiment, frames are shown of the first.' in parsed.text
  want = metrics.psnr(frames_of(6, 4)['a'][2], TARGETS['a'][2])
  [still] = [one for one in parsed.data['stills'] if (one['clip'], one['frame']) == (0, 2)]
  assert still['scores'][1] == f'{want:.2f} dB'


def test_bad_input(no_plots, tmp_path, pair):
  out = tmp_path / 'x.html'
  bare = workdir(tmp_path / 'bare', frames_of(6), 'bare', keep=False)
  with pytest.raises(errors.DataError, match='its frames were not kept; run .* --save_frames .* --nopictures makes'):
    make(out, bare)
  other = workdir(tmp_path / 'other', frames_of(6), 'other', keep=False, split='val')
  with pytest.raises(errors.DataError, match='are results of different test sets'):
    make(out, pair[0], other)
  with pytest.raises(errors.ConfigError, match="^Clip 'aa' was not scored; did you mean 'a'"):
    make(out, pair[0], clips=['aa'])
  with pytest.raises(errors.ConfigError, match='^--frames: frame 7 of a was not scored'):
    make(out, pair[0], frames='at:7')
  with pytest.raises(errors.ConfigError, match='is a folder; give the name of a file'):
    make(tmp_path, pair[0])
  lost = workdir(tmp_path / 'lost', frames_of(6), 'lost')
  (lost / 'eval/f00d/test/output/a/000001.png').unlink()
  with pytest.raises(errors.DataError, match='output: of clip a there are no 000001.png; evaluate again'):
    make(out, lost)
  assert not out.exists()
  assert make(out, lost, clips=[ODD]).data['clips'] == [ODD]
  parsed = make(out, bare, pictures=False)
  assert parsed.data == {} and not {'compare', 'motion', 'extremes'} & set(parsed.ids) and len(parsed.rows) > 3


def test_plots_that_cannot_be_drawn_say_why(tmp_path, monkeypatch):
  monkeypatch.setattr(plots, 'save', lambda *_: pytest.fail('nothing can be drawn'))
  whole = {'psnr': {'mean': 30.0, 'per_clip': dict.fromkeys(TARGETS, 30.0), 'per_frame': {}}}
  run = workdir(tmp_path / 'x', frames_of(6), 'm', keep=False, metrics=whole, no_processing=None)
  parsed = make(tmp_path / 'x.html', run, pictures=False)
  assert 'plots' not in parsed.ids and parsed.text.count('No plot "') == 3
  assert 'No plot "Training": no metrics.jsonl lies in the workdir' in parsed.text and str(tmp_path) not in parsed.text


@pytest.mark.slow
def test_binary(binary, tmp_path, pair):
  out = tmp_path / 'some folder' / 'page.html'
  blocked = ['av', 'cv2', 'tensorflow', 'tensorflow_datasets', 'flax', 'selenium']
  process = binary(
    'report.page', f'--results={pair[0]},{pair[1]}', f'--out={out}', '--frames=2', '--clips=a', '--motion=2',
    '--extremes=0', blocked=blocked,
  )  # fmt: skip
  output = process.communicate(timeout=100)[0]
  assert process.returncode == 0, output
  assert re.search(r'page.html: 2 frames to compare, 1 moving clips, \d+\.\d MB', output)
  data = Parsed(out.read_text(encoding='utf-8')).data
  assert [one['frame'] for one in data['stills']] == [1, 3] and data['motion'][0]['frames'] == [1, 2]
