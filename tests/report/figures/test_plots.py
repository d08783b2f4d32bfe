"""Curves and points of the figures."""

import numpy as np
import pytest
from PIL import Image
from report.runs import INPUTS, TARGETS, frames_of, psnr, read, workdir

from vqm_jax import errors
from vqm_jax.report.figures import plots


def test_frames_without_error_leave_a_gap(pair):
  perfect = frames_of(6)
  perfect['a'][1] = TARGETS['a'][1]
  block, raw = read(workdir(pair[0].parent / 'three', perfect, 'three', keep=False), pair[0])
  name, curves = plots.along_frames(block, raw, ['a', 'b'])
  assert name == 'psnr' and list(curves['a']) == ['Input', 'three', 'ecnu']
  np.testing.assert_array_equal(np.isnan(curves['a']['three'][1]), [False, True, False, False])
  figure = plots.frames(name, curves)
  assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 3
  assert figure.axes[0].get_ylabel() == 'PSNR (dB)' and figure.axes[1].get_title(loc='left') == 'b'


def test_training_curves_of_seeds():
  curves = {'val/psnr': [{10: 30.0, 20: 31.0}, {10: 32.0, 20: 33.0, 30: 40.0}], 'val/gain': [{10: 1.0}, {10: 3.0}]}
  steps, mean, std = plots._over_seeds(curves['val/psnr'])
  np.testing.assert_allclose([steps, mean, std], [[10, 20], [31, 32], [2**0.5] * 2])
  runs = [plots.Run('two', curves, 'l2'), plots.Run('one', {'val/psnr': [{5: 30.5}], 'train/loss': [{5: 0.1}]}, 'l2')]
  assert plots._unprocessed(runs, 'val/psnr') == 29.0
  figure = plots.training(runs)
  assert figure.axes[0].get_ylabel() == 'Validation PSNR (dB)' and len(figure.axes[0].collections) == 1
  assert figure.axes[1].get_ylabel() == 'Loss (l2)' and figure.axes[1].get_yscale() == 'log'
  colours = [plots.Run('wespe', {'val/colour': [{1: 3.0}], 'val/colour_source': [{1: 4.0}], 'train/loss': [{1: -2.0}]})]
  assert plots._unprocessed(colours, 'val/colour') == 4.0
  figure = plots.training(colours)
  assert figure.axes[0].get_ylabel() == 'Validation colour distance' and figure.axes[1].get_yscale() == 'linear'


def test_loss_of_few_steps_is_joined_with_its_neighbours():
  found = plots._evened({100: 4.0, 200: 2.0, 202: 8.0, 300: 1.0, 301: 5.0})
  assert list(found) == [100, 200, 301] and found[200] == 2.0
  assert found[301] == pytest.approx((2 * 8 + 98 * 1 + 5) / 101)


def test_metrics_are_read(pair):
  block, _ = read(*pair)
  (run, _) = plots.runs(block.results)
  assert (run.label, run.loss) == ('ecnu', 'l2') and run.curves['val/psnr'] == [{301: 30.5}]
  assert list(run.curves['train/loss'][0]) == [100, 200, 301]
  path = pair[0] / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"step": 400, "val/ps')  # killed while writing
  assert plots.runs(block.results)[0].curves == run.curves
  path.write_text('{"step"\n' + path.read_text())
  with pytest.raises(errors.DataError, match='metrics.jsonl: line 1 is damaged .*; remove it'):
    plots.runs(block.results)
  for folder in pair:
    (folder / 'metrics.jsonl').unlink()
  with pytest.raises(plots.Unavailable, match='no metrics.jsonl lies in the workdir of any result'):
    plots.runs(block.results)


def test_published_points_share_axes_on_their_own_test_set_only(pair):
  own = plots.points(read(*pair)[0])
  assert [(point.label, point.params) for point in own] == [('ecnu', 114_413), ('gil', 57_721)]
  assert own[0].gain == pytest.approx(psnr(frames_of(12))['mean'] - psnr(INPUTS)['mean']) and own[0].seconds == 0.02
  paper = plots.published_points()
  assert len(paper) == 7 and paper[0].gain == pytest.approx(1.866) and paper[0].params is None
  apart, together = plots.tradeoff(own, False), plots.tradeoff(own, True)
  assert len(apart.axes) == 4 and len(together.axes) == 2
  names = [[text.get_text() for text in axes.texts] for axes in (*apart.axes, *together.axes)]
  assert [len(one) for one in names] == [2, 2, 7, 5, 9, 7] and names[0] == ['ecnu', 'gil'] and 'BossGao' in names[4]
  boxes = [text.get_window_extent() for text in apart.axes[2].texts]
  assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_files_have_the_same_bytes_every_time(tmp_path, pair):
  block, raw = read(*pair)
  for k in range(2):
    plots.save(tmp_path / str(k) / 'frames.of', plots.frames(*plots.along_frames(block, raw, ['a'])))
  names = sorted(path.name for path in (tmp_path / '0').iterdir())
  assert names == ['frames.of.png', 'frames.of.svg']
  for name in names:
    assert (tmp_path / '0' / name).read_bytes() == (tmp_path / '1' / name).read_bytes()
  svg = (tmp_path / '0' / 'frames.of.svg').read_text()
  assert '<dc:date>' not in svg and Image.open(tmp_path / '0' / 'frames.of.png').width == 1020
