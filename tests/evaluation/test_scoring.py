"""Scoring of clips: what the network sees, what is averaged, what is kept."""

import dataclasses
import functools
import itertools
import time

import numpy as np
import pytest
from evaluation.reader import LENGTHS, Reader, identity
from flax import nnx
from inference.window import Window

from vqm_jax import errors, metrics
from vqm_jax.evaluation import scoring
from vqm_jax.inference import restore_frames
from vqm_jax.restorers.seventh import NoProcessing


def test_scores_are_those_of_the_metrics():
  reader = Reader()
  scores = scoring.evaluate_clips(lambda frames: (f ^ 1 for f in frames), reader)
  assert list(scores) == list(LENGTHS)
  for name, (lq, hq) in reader.pairs.items():
    np.testing.assert_array_equal(scores[name].output['psnr'], metrics.psnr(lq ^ 1, hq))
    np.testing.assert_array_equal(scores[name].output['ssim'], metrics.ssim(lq ^ 1, hq))
    np.testing.assert_array_equal(scores[name].input['psnr'], metrics.psnr(lq, hq))
    np.testing.assert_array_equal(scores[name].input['ssim'], metrics.ssim(lq, hq))
    assert scores[name].frames == list(range(LENGTHS[name]))
  means = scoring.mean_scores(scores)
  expected = np.mean([metrics.psnr(lq ^ 1, hq).mean() for lq, hq in reader.pairs.values()])
  assert means['psnr'] == pytest.approx(expected, abs=1e-12)
  assert means['gain'] == pytest.approx(means['psnr'] - means['psnr_input'], abs=1e-12)


def test_no_processing_through_the_streaming_gains_nothing():
  restore, metrics = (lambda frames: restore_frames(NoProcessing(), frames)), scoring.fidelity(ssim=False)
  scores = scoring.evaluate_clips(restore, Reader(), metrics=metrics)
  means = scoring.mean_scores(scores)
  assert means['gain'] == 0.0
  assert 'ssim' not in means and 'ssim' not in scores['cat'].output


def test_max_frames_every_and_clips():
  reader = Reader()
  scores = scoring.evaluate_clips(identity, reader, max_frames=4, clips=['cat'])
  assert scores['cat'].frames == [0, 1, 2, 3]
  assert reader.read == [('cat', t) for t in range(4)]
  scores = scoring.evaluate_clips(lambda frames: itertools.islice(frames, 1, None, 2), reader, every=2)
  assert [s.frames for s in scores.values()] == [[1, 3], [1]]
  with pytest.raises(errors.DataError, match="'dog' has 3 frames, none of them is every 4th"):
    scoring.evaluate_clips(identity, reader, every=4)
  with pytest.raises(errors.DataError, match="No clip 'cow'; available: cat, dog"):
    scoring.evaluate_clips(identity, reader, clips=['cow'])


def test_another_protocol_comes_beside_ntire():
  scores = scoring.evaluate_clips(identity, Reader(), metrics=scoring.fidelity('y601'))['dog']
  lq, hq = Reader().pairs['dog']
  np.testing.assert_array_equal(scores.output['psnr'], metrics.psnr(lq, hq))
  np.testing.assert_array_equal(scores.output['psnr_y601'], metrics.psnr(lq, hq, 'y601'))
  np.testing.assert_array_equal(scores.input['ssim_y601'], metrics.ssim(lq, hq, 'y601'))


def test_wrong_outputs_and_missing_targets_are_refused():
  with pytest.raises(errors.DataError, match="'cat': 3 frames to score, expected 5"):
    scoring.evaluate_clips(lambda frames: itertools.islice(frames, 3), Reader())
  with pytest.raises(errors.DataError, match=r"'cat', frame 0: output is \(12, 15, 3\)"):
    scoring.evaluate_clips(lambda frames: (f[:, 1:] for f in frames), Reader())
  with pytest.raises(errors.DataError, match="'cat' has no targets"):
    scoring.evaluate_clips(identity, Reader(withheld=True))


def test_memory_is_bounded_by_what_the_network_holds_back():
  reader, ahead = Reader(), []
  scoring.evaluate_clips(identity, reader, on_frame=lambda clip, t, *_: ahead.append(len(reader.read) - len(ahead)))
  assert max(ahead) == 1


def test_progress_is_advanced_once_per_frame():
  seen = []

  def progress(items):
    for item in items:
      yield item
      seen.append(item)

  scoring.evaluate_clips(identity, Reader(), progress=progress)
  assert seen == list(range(8))


def test_summary_means_and_categories():
  reader = Reader()
  reader.pairs['dog'][0][1] = reader.pairs['dog'][1][1]  # one frame equals its target
  scores = scoring.evaluate_clips(identity, reader)
  summary = scoring.summarise(scores)
  psnr = summary['metrics']['psnr']
  assert np.isinf(psnr['per_frame']['dog'][1])
  assert psnr['identical_frames'] == 1
  dog = [min(v, 100.0) for v in scores['dog'].output['psnr']]
  assert psnr['per_clip']['dog'] == pytest.approx(np.mean(dog))
  assert psnr['mean'] == pytest.approx((np.mean(scores['cat'].output['psnr']) + np.mean(dog)) / 2)
  assert psnr['mean_of_frames'] == pytest.approx(np.mean(scores['cat'].output['psnr'] + dog))
  assert summary['gain'] == {'psnr': 0.0, 'ssim': 0.0}
  assert (summary['n_clips'], summary['n_frames']) == (2, 8)
  assert summary['category'] == {'cat': 'cats', 'dog': 'pet'}
  assert summary['per_category']['pet']['psnr'] == pytest.approx(np.mean(dog))


def test_seconds_per_frame_is_the_steady_state():
  def restore(frames):
    for index, frame in enumerate(frames):
      time.sleep(0.2 if index < 3 else 0.01)
      yield frame

  frame = np.zeros((4, 4, 3), np.uint8)
  assert 0.01 <= scoring.seconds_per_frame(restore, frame, frames=5) < 0.1
  started = time.perf_counter()
  scoring.seconds_per_frame(restore, frame, frames=10**6, budget=0.1)
  assert time.perf_counter() - started < 3


@pytest.mark.parametrize('every', [1, 2])
def test_windows_end_at_the_cuts_that_the_records_know(every):
  network, reader = Window(5, 1, nnx.Rngs(0)), Reader()
  restore = functools.partial(restore_frames, network, every=every)
  plain = {name: list(reader.frames(name)) for name in LENGTHS}
  reader.clips['cat'] = dataclasses.replace(reader.clips['cat'], cuts=(3,))
  seen = {}

  def keep(name, index, lq, output, hq):
    seen[name, index] = output

  scoring.evaluate_clips(restore, reader, every=every, on_frame=keep)
  frames = [lq for lq, _ in plain['cat']]
  apart = [*restore_frames(network, frames[:3]), *restore_frames(network, frames[3:])]
  whole = list(restore_frames(network, frames))
  scored = range(every - 1, 5, every)
  for t in scored:
    np.testing.assert_array_equal(seen['cat', t], apart[t])
  scoring.evaluate_clips(restore, reader, every=every, cuts=False, on_frame=keep)
  assert all((seen['cat', t] == whole[t]).all() for t in scored)
  assert any((apart[t] != whole[t]).any() for t in scored)
