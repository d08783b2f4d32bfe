"""Colour distance and sharpness in closed form, and against scikit-image and SciPy."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.color
import skimage.data

from vqm_jax import errors
from vqm_jax.metrics import appearance, by_name

PHOTOGRAPH = skimage.data.astronaut()[50:210, 100:300]


def score(name, candidates, target):
  scorer = by_name.create(name).start()
  for *frames, y in zip(*candidates, target, strict=True):
    scorer.add(frames, y, None)
  return scorer.values()


def rgb(lab):
  return np.rint(255 * skimage.color.lab2rgb(lab)).astype(np.uint8)


def test_histograms_are_of_scikit_image():
  lab = skimage.color.rgb2lab(PHOTOGRAPH).reshape(-1, 3)
  found = appearance.colour_histograms(PHOTOGRAPH)
  edges = np.linspace(0, 100, 257), np.arange(-128.5, 128), np.arange(-128.5, 128)
  for counts, values, limits in zip(found, lab.T, edges, strict=True):
    expected = np.histogram(values, limits)[0]
    assert counts.sum() == len(lab) and np.abs(counts - expected).sum() <= 4  # float32 at the edges
  joint = appearance.colour_histograms(PHOTOGRAPH, joint=True)
  limits = np.arange(-132, 125, 8)
  expected = np.histogram2d(lab[:, 1], lab[:, 2], (limits, limits))[0]
  assert joint.sum() == len(lab) and np.abs(joint - expected).sum() <= 4


def test_every_colour_has_a_bin():
  corners = np.array(np.meshgrid([0, 255], [0, 255], [0, 255]), np.uint8).T.reshape(2, 4, 3)
  for joint, total in ((False, 24), (True, 8)):
    counts = appearance.colour_histograms(corners, joint)
    assert counts.sum() == total
  # Red, green, blue, ...: at the extremes of a and b, and not in the first or last bin, where all beyond would be.
  assert not appearance.colour_histograms(corners)[1:, [0, -1]].any()


def test_frames_in_parts_make_the_same_histogram(monkeypatch):
  whole = appearance.colour_histograms(PHOTOGRAPH)
  monkeypatch.setattr(appearance, '_PIXELS', 1001)
  np.testing.assert_array_equal(appearance.colour_histograms(PHOTOGRAPH), whole)


@pytest.mark.parametrize('shift', [6, -13])
def test_a_shift_of_lightness_is_the_distance(shift):
  levels = np.random.default_rng(0).uniform(25, 75, (48, 64))
  gray = np.stack([levels, 0 * levels, 0 * levels], axis=-1)
  lighter = gray + [shift, 0, 0]
  ((found,),) = score('colour', [[rgb(lighter)]], [rgb(gray)])
  assert 3 * found == pytest.approx(abs(shift), abs=100 / 256)  # of three axes one
  assert score('colour_ab', [[rgb(lighter)]], [rgb(gray)]) == [[pytest.approx(0, abs=1e-12)]]


def test_a_shift_of_colour_is_the_distance():
  levels = np.random.default_rng(1).uniform(-10, 10, (48, 64, 3)) + [60, 0, 0]
  ((found,),) = score('colour', [[rgb(levels + [0, 9, -20])]], [rgb(levels)])
  assert 3 * found == pytest.approx(9 + 20, abs=1)
  ((found,),) = score('colour_ab', [[rgb(levels + [0, 9, -20])]], [rgb(levels)])
  assert 0.5 < found < 1
  ((found,),) = score('colour_ab', [[rgb(levels + [0, 60, 0])]], [rgb(levels)])
  assert found == pytest.approx(1, abs=1e-12)


def test_colour_distance_is_that_of_scipy():
  other = skimage.data.coffee()[100:260, 100:300]
  labs = [skimage.color.rgb2lab(frame).reshape(-1, 3) for frame in (PHOTOGRAPH, other)]
  expected = np.mean([scipy.stats.wasserstein_distance(labs[0][:, k], labs[1][:, k]) for k in range(3)])
  found = score('colour', [[PHOTOGRAPH], [other]], [other])
  assert found == [[pytest.approx(expected, abs=0.1)], [0.0]]
  p, q = (appearance.colour_histograms(frame, joint=True).ravel() / frame[..., 0].size for frame in (PHOTOGRAPH, other))
  found = score('colour_ab', [[PHOTOGRAPH], [other]], [other])
  assert found == [[pytest.approx(1 - np.sqrt(p * q).sum(), abs=1e-12)], [pytest.approx(0, abs=1e-12)]]


def test_colours_are_pooled_over_the_clip():
  dark, light = PHOTOGRAPH // 2, PHOTOGRAPH
  for name in ('colour', 'colour_ab'):
    assert score(name, [[dark, light], [dark, dark]], [light, dark])[0] == [pytest.approx(0, abs=1e-12)]
    assert score(name, [[dark, light], [dark, dark]], [light, dark])[1][0] > 0.01
  # All of the first clip lies in another place than half of the second: half of the distance.
  black, gray = np.zeros((20, 20, 3), np.uint8), rgb(np.full((20, 20, 3), (50.0, 0, 0)))
  assert score('colour', [[black, black]], [black, gray])[0][0] == pytest.approx(25 / 3, abs=100 / 256)


def test_gray_falls_into_one_bin_of_colour():
  ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
  counts = appearance.colour_histograms(ramp)
  assert counts[1, 128] == counts[2, 128] == 256
  assert (appearance.colour_histograms(ramp, joint=True) > 0).sum() == 1


# Sharpness


def test_sharpness_of_blurred_and_sharpened_frames():
  blurred = [scipy.ndimage.gaussian_filter(PHOTOGRAPH, (sigma, sigma, 0)) for sigma in (0.7, 1.5)]
  difference = PHOTOGRAPH.astype(float) - blurred[1]
  sharpened = (PHOTOGRAPH + difference).clip(0, 255).astype(np.uint8)
  less, least, more, same = (
    v[0] for v in score('sharpness', [[f] for f in (*blurred, sharpened, PHOTOGRAPH)], [PHOTOGRAPH])
  )
  assert least < less < -0.5 and more > 0.5 and same == 0


def test_sharpness_of_contrast_is_twice_its_logarithm():
  pattern = np.random.default_rng(2).integers(-20, 21, (60, 80, 1))
  frames = [(128 + factor * pattern).repeat(3, axis=2).astype(np.uint8) for factor in (1, 2, 4)]
  assert score('sharpness', [frames[:1], frames[2:]], frames[1:2]) == [
    [pytest.approx(-2, abs=1e-4)],
    [pytest.approx(2, abs=1e-4)],
  ]


def test_detail_is_the_median_over_tiles_of_the_variance():
  frame = np.random.default_rng(3).integers(0, 256, (2 + 128 + 40, 2 + 2 * 128 + 7, 3), np.uint8)
  frame[:100, 100:] //= 5
  luma = frame @ np.array([0.299, 0.587, 0.114])
  laplacian = scipy.ndimage.laplace(luma)[1:-1, 1:-1]
  tiles = [
    laplacian[y, x] for y in (slice(128), slice(128, None)) for x in (slice(128), slice(128, 256), slice(256, None))
  ]
  assert [tile.shape for tile in tiles] == [(128, 128), (128, 128), (128, 7), (40, 128), (40, 128), (40, 7)]
  assert appearance.detail(frame) == pytest.approx(np.median([tile.var() for tile in tiles]), rel=1e-9)
  smaller = frame[:50, :70]
  assert appearance.detail(smaller) == pytest.approx(scipy.ndimage.laplace(luma[:50, :70])[1:-1, 1:-1].var(), rel=1e-9)


def test_flat_frames_have_a_sharpness():
  flat, ramp = (
    np.full((40, 50, 3), 99, np.uint8),
    np.arange(50, dtype=np.uint8)[None, :, None].repeat(40, 0).repeat(3, 2),
  )
  assert appearance.detail(flat) == appearance.detail(ramp) == 0
  photograph = PHOTOGRAPH[:40, :50]
  found = score('sharpness', [[flat, flat], [photograph, flat]], [flat, photograph])
  assert found[0][0] == 0 and found[1][0] > 10 and found[0][1] == found[1][1] == -found[1][0]


def test_frames_without_neighbours_are_refused():
  frame = np.zeros((2, 9, 3), np.uint8)
  with pytest.raises(errors.DataError, match='sharpness needs frames of at least 3 pixels a side, found 2x9'):
    score('sharpness', [[frame]], [frame])
  with pytest.raises(errors.DataError, match='at least 3 pixels'):
    appearance.detail(frame)


def test_change_is_the_mean_absolute_difference_to_the_input():
  source = np.full((10, 12, 3), 200, np.uint8)
  output = source.copy()
  output[:5] = 250
  output[5:, :6] = 0
  scorer = by_name.create('change').start()
  scorer.add([output, source], output, source)
  assert scorer.values() == [[50 / 2 + 200 / 4], [0.0]]
