"""Temporal metrics on clips whose values are known."""

import cv2
import numpy as np
import pytest
import skimage.data

from vqm_jax import errors, metrics
from vqm_jax.metrics import temporal


def values(scorer, candidates, target=None, source=None):
  """Of clips (T, H, W, 3), and of scorers that take them frame by frame."""
  clips = [*candidates, target, source]
  frames = {id(clip): [None] * len(candidates[0]) if clip is None else list(clip) for clip in clips}
  for *now, y, x in zip(*(frames[id(clip)] for clip in clips), strict=True):
    scorer.add(now, y, x)
  return scorer.values()


def texture(height=72, width=96, seed=0):
  noise = np.random.default_rng(seed).normal(size=(height, width, 3))
  smooth = cv2.GaussianBlur(noise, (0, 0), 2, borderType=cv2.BORDER_REFLECT)
  return (128 + 40 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def moving(step, frames=4, **more):
  """A window that moves over a texture: what it shows moves by `step` pixels to the left in each frame."""
  wide = texture(width=96 + step * frames, **more)
  return np.stack([wide[:, step * t : step * t + 96] for t in range(frames)])


def still(frames=4):
  return np.stack([texture()] * frames)


def noisy(clip, amount, seed=1):
  noise = np.random.default_rng(seed).integers(-amount, amount + 1, clip.shape)
  return (clip + noise).clip(0, 255).astype(np.uint8)


def shift(by):
  """The true flow of `moving`, whichever way it is asked for: later frames lie to the left."""

  def flow(earlier, later):
    forward = np.abs(earlier[:, by:].astype(int) - later[:, :-by]).sum()
    backward = np.abs(later[:, by:].astype(int) - earlier[:, :-by]).sum()
    return np.full((*earlier.shape, 2), (-by if forward < backward else by, 0), np.float32)

  return flow


# tOF


def test_flow_distance_of_a_clip_to_itself_is_zero():
  clip = moving(2)
  assert values(temporal.FlowScorer(), [clip.copy(), clip], clip) == [[0.0] * 3] * 2


def test_flow_distance_of_a_shift_to_a_still_clip_is_the_shift():
  moved, other = values(temporal.FlowScorer(), [moving(2), moving(1)], still())
  assert moved == pytest.approx([2] * 3, abs=0.2)
  assert other == pytest.approx([1] * 3, abs=0.2)


def test_flow_distance_is_the_mean_of_euclidean_lengths():
  # The first pixel of a frame tells its flow: x by that, y by a third of it.
  def flow(earlier, later):
    out = np.zeros((*later.shape, 2), np.float32)
    out[: later.shape[0] // 2] = later[0, 0], later[0, 0] / 3
    return out

  levels = (0, 3, 9), (0, 0, 30)
  clips = [np.stack([np.full((20, 24, 3), level, np.uint8) for level in clip]) for clip in levels]
  # (3, 1) - (0, 0) and (9, 3) - (30, 10), in half of the pixels
  expected = [np.hypot(3, 1) / 2, np.hypot(21, 7) / 2]
  assert values(temporal.FlowScorer(flow=flow), clips[:1], clips[1])[0] == pytest.approx(expected, rel=1e-6)


def test_flow_is_computed_once_for_all_candidates():
  calls = []

  def flow(earlier, later):
    calls.append((earlier[0, 0], later[0, 0]))
    return temporal.farneback(earlier, later)

  target = moving(2)
  values(temporal.FlowScorer(flow=flow), [noisy(target, 3), noisy(target, 9), target], target)
  assert len(calls) == 3 * 3  # target and two candidates; the third is the target
  calls.clear()
  values(temporal.WarpingScorer(flow=flow), [noisy(target, 3), noisy(target, 9), target], target)
  assert len(calls) == 3 * 2  # there and back


def test_equals_opencv_called_with_the_published_parameters():
  x, y = noisy(moving(1), 4), moving(2)

  def flow(a, b):
    a, b = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (a, b))
    return cv2.calcOpticalFlowFarneback(
      a, b, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )

  expected = [
    np.linalg.norm((flow(*x[t : t + 2]) - flow(*y[t : t + 2])).astype(float), axis=-1).mean() for t in range(3)
  ]
  assert values(temporal.FlowScorer(), [x], y)[0] == pytest.approx(expected, rel=1e-5)


def test_flow_against_the_input():
  clip = moving(2)
  output, unprocessed = values(temporal.FlowScorer(reference='input'), [still(), clip], None, clip)
  assert unprocessed == [0.0] * 3 and min(output) > 1.8
  with pytest.raises(errors.DataError, match='tof compares with the input, which was not given; leave tof out'):
    temporal.FlowScorer(reference='input').add([clip[0]], clip[0], None)


# Warping error


def test_a_clip_that_stands_still_has_no_warping_error():
  assert max(values(temporal.WarpingScorer(), [still()], still())[0]) < 1e-12


def test_warping_along_the_true_flow_leaves_nothing():
  clip = moving(2)
  moved, brighter = values(temporal.WarpingScorer(flow=shift(2)), [clip, clip // 2], clip)
  assert max(moved) < 1e-12 and max(brighter) < 1e-12
  assert max(values(temporal.WarpingScorer(), [clip], clip)[0]) < 1e-4  # by DIS
  assert min(values(temporal.WarpingScorer(flow=shift(2)), [still()], clip)[0]) > 1e-3


def test_warping_error_of_known_flicker():
  clip = np.full((4, 32, 40, 3), 100, np.uint8)
  output = clip.copy()
  output[1::2, :, :, 0] += 51  # red alone, by a fifth
  expected = 0.2**2 / 3
  assert values(temporal.WarpingScorer(), [output], clip)[0] == pytest.approx([expected] * 3, rel=1e-6)


def test_warping_is_bilinear():
  ramp = np.broadcast_to(4 * np.arange(40)[:, None], (32, 40, 3)).astype(np.uint8)

  steps = iter([0.25, -0.25])  # of a pixel, there and back
  scorer = temporal.WarpingScorer(flow=lambda a, b: np.full((*b.shape, 2), (next(steps), 0), np.float32))
  clip = np.stack([ramp, ramp])
  assert values(scorer, [clip], clip)[0] == pytest.approx([(1 / 255) ** 2], rel=1e-4)


def test_mask_leaves_out_what_cannot_be_seen():
  forward = np.zeros((20, 30, 2), np.float32)
  forward[..., 0] = 3
  backward = -forward
  places, mask = temporal.visible(forward, backward)
  np.testing.assert_array_equal(places[4, 5], [8, 4])
  np.testing.assert_array_equal(mask, np.broadcast_to(np.arange(30) < 27, (20, 30)))  # the rest leaves the frame
  backward[:, 10:15] = 0  # 9 > 0.01 * 9 + 0.5: what is there comes from elsewhere
  _, mask = temporal.visible(forward, backward)
  np.testing.assert_array_equal(mask[0], [not 7 <= x < 12 and x < 27 for x in range(30)])


@pytest.mark.parametrize('length, off, seen', [(0, 0.7, True), (0, 0.72, False), (20, 2.9, True), (20, 3.1, False)])
def test_limit_of_the_mask(length, off, seen):
  forward = np.zeros((8, 64, 2), np.float32)
  forward[..., 0] = length
  backward = -forward
  backward[..., 1] = off  # |F + B|^2 = off^2 against 0.01 (2 length^2 + off^2) + 0.5
  _, mask = temporal.visible(forward, backward)
  assert mask[4, 2] == seen


def test_masked_pixels_do_not_count_and_a_cut_is_zero():
  clip = still(2)
  output = clip.copy()
  output[1, :, 90:] ^= 255

  def flow(earlier, later):
    out = np.zeros((*later.shape, 2), np.float32)
    out[:, 90:] = 1000, 0
    return out

  assert values(temporal.WarpingScorer(flow=flow), [output], clip) == [[0.0]]
  everywhere = lambda earlier, later: np.full((*later.shape, 2), 1000, np.float32)  # noqa: E731
  assert values(temporal.WarpingScorer(flow=everywhere), [output], clip) == [[0.0]]


def test_flow_and_mask_come_from_the_reference():
  source, target = moving(2), still()
  output = moving(2)
  along_input = values(temporal.WarpingScorer(reference='input'), [output], target, source)[0]
  along_target = values(temporal.WarpingScorer(), [output], target, source)[0]
  assert max(along_input) < 1e-4 < 1e-3 < min(along_target)


def test_flows_of_another_form_are_refused():
  for found in (np.zeros((72, 96), np.float32), np.zeros((72, 96, 2))):
    with pytest.raises(errors.DataError, match=r'must be float32 \(72, 96, 2\), found'):
      values(temporal.WarpingScorer(flow=lambda a, b, found=found: found), [still()], still())


def test_frames_on_which_dis_would_crash_are_refused():
  clip = np.zeros((2, 15, 64, 3), np.uint8)
  with pytest.raises(errors.DataError, match='warping needs frames of at least 16 pixels a side, found 15x64'):
    values(temporal.WarpingScorer(), [clip], clip)
  with pytest.raises(errors.DataError, match='DIS flow needs frames of at least 16'):
    temporal.dis_medium(clip[0, ..., 0], clip[1, ..., 0])
  for size in ((16, 16), (16, 400), (400, 16)):
    clip = np.zeros((2, *size, 3), np.uint8)
    assert values(temporal.WarpingScorer(), [clip], clip) == [[0.0]]


# Difference PSNR


def test_difference_psnr():
  rng = np.random.default_rng(4)
  x, y = rng.integers(0, 256, (2, 3, 20, 24, 3), np.uint8)
  differences = [np.diff(clip.astype(int), axis=0) for clip in (x, y)]
  expected = 10 * np.log10(255**2 / ((differences[0] - differences[1]) ** 2).mean(axis=(1, 2, 3)))
  assert values(temporal.DifferenceScorer('tdpsnr'), [x], y)[0] == pytest.approx(expected, abs=1e-12)


def test_difference_psnr_of_extremes():
  black, white = np.zeros((20, 24, 3), np.uint8), np.full((20, 24, 3), 255, np.uint8)
  # 510 off, and a constant error, which no difference shows
  opposite, offset = values(
    temporal.DifferenceScorer('tdpsnr'),
    [np.stack([black, white]), np.stack([white - 40, black + 1])],
    np.stack([white, black]),
  )
  assert opposite == pytest.approx([10 * np.log10(0.25)], abs=1e-12)
  assert offset == pytest.approx([20 * np.log10(255 / 41)], abs=1e-12)
  clip = moving(2)
  assert values(temporal.DifferenceScorer('tdpsnr'), [clip // 2 * 2, clip.copy()], clip)[1] == [np.inf] * 3
  constant = np.full((3, 20, 24, 3), 7, np.uint8)
  assert values(temporal.DifferenceScorer('tdpsnr'), [constant], constant + 9) == [[np.inf] * 2]


# tLP


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return metrics.lpips_weights('alex', tmp_path_factory.mktemp('empty'), allow_random=True)


@pytest.mark.parametrize('kept', [0, 128e6])
def test_perceptual_change(weights, kept, monkeypatch):
  monkeypatch.setattr(temporal, '_KEPT_FEATURES', kept)
  target = moving(2, frames=3)[:, :40, :48]
  output = noisy(target, 20)
  found, same, copy = values(temporal.PerceptualChangeScorer(weights), [output, target, target.copy()], target)
  change = [metrics.lpips(clip[:-1], clip[1:], weights) for clip in (output, target)]
  assert found == pytest.approx(100 * np.abs(change[0] - change[1]), rel=1e-4)
  assert min(found) > 0.1
  assert same == copy == [0.0, 0.0]


def test_features_give_the_same_distance_as_whole_frames(weights):
  a, b = skimage.data.chelsea()[:50, :61], skimage.data.coffee()[:50, :61]
  features = [temporal.lpips_features(frame, weights) for frame in (a, b)]
  assert temporal.lpips_distance(*features, weights) == pytest.approx(float(metrics.lpips(a, b, weights)), rel=1e-5)
  assert temporal.lpips_distance(features[0], temporal.lpips_features(a, weights), weights) == 0


def test_features_are_computed_once(weights, monkeypatch):
  calls, compute = [], temporal.lpips_features
  monkeypatch.setattr(temporal, 'lpips_features', lambda *args: calls.append(1) or compute(*args))
  target = moving(1, frames=3)[:, :40, :48]
  values(temporal.PerceptualChangeScorer(weights), [noisy(target, 9), target], target)
  assert len(calls) == 2 * 3


# Flicker


def gray_clip(luma, size=(4, 6)):
  return np.stack([np.full((*size, 3), level, np.uint8) for level in luma])


def test_flicker_of_a_known_sine():
  t = np.arange(120)
  for period, share in ((4, 1), (5, 0.99), (15, 0.42), (60, 0.034)):
    luma = 100 + 8 * np.sin(2 * np.pi * t / period)
    assert temporal.flicker(luma) == pytest.approx(share * 8 / np.sqrt(2), rel=0.05), period


def test_flicker_of_fades_and_still_clips_is_zero():
  for frames in (1, 2, 3, 7, 8, 15, 60):
    assert temporal.flicker(20 + 1.5 * np.arange(frames)) == pytest.approx(0, abs=1e-10)
    assert temporal.flicker(np.full(frames, 77.7)) == pytest.approx(0, abs=1e-10)
  assert temporal.flicker(np.array([])) == 0


def test_flicker_is_the_deviation_from_a_gaussian_trend():
  luma = np.random.default_rng(5).normal(100, 5, 30)
  extended = np.concatenate([2 * luma[0] - luma[7:0:-1], luma, 2 * luma[-1] - luma[-2:-9:-1]])
  taps = np.exp(-(np.arange(-7, 8) ** 2) / (2 * 2.5**2))
  trend = np.array([extended[t : t + 15] @ taps for t in range(30)]) / taps.sum()
  assert temporal.flicker(luma) == pytest.approx(np.std(luma - trend), rel=1e-12)


def test_flicker_of_frames():
  levels = np.where(np.arange(40) % 2, 104, 96)
  clip = gray_clip(levels)
  alternating, still_, green = values(
    temporal.FlickerScorer(), [clip, gray_clip([100] * 40), clip * np.array([0, 1, 0], np.uint8)]
  )
  assert alternating == pytest.approx([4], rel=0.02)
  assert still_ == pytest.approx([0], abs=1e-9)
  assert green == pytest.approx([0.587 * 4], rel=0.02)
  assert values(temporal.FlickerScorer(), [clip[:1]]) == [[0.0]]


# Bad clips


@pytest.mark.parametrize('scorer', [temporal.FlowScorer, temporal.WarpingScorer, temporal.DifferenceScorer])
def test_clips_of_one_frame_are_refused(scorer):
  clip = still(1)
  with pytest.raises(errors.DataError, match='some compares neighbouring frames: .* at least two, found 1'):
    values(scorer('some'), [clip, clip], clip)
  with pytest.raises(errors.DataError, match='at least two, found 0'):
    scorer('some').values()
