"""The filters on known arrays, and the least-squares filter on a known blur."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from vqm_jax.evaluation import filters

RNG = np.random.default_rng(0)
FRAMES = RNG.random((2, 14, 17, 3), dtype=np.float32)


@pytest.mark.parametrize('name', filters.candidates())
def test_flat_frames_stay(name):
  frames = jnp.full((1, 7, 9, 3), 0.3)
  np.testing.assert_allclose(filters.candidates()[name](frames), frames, atol=1e-6)


def test_gaussian_equals_scipy():
  kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
  blur = scipy.ndimage.correlate(FRAMES, kernel[None, :, :, None], mode='mirror')
  np.testing.assert_allclose(jax.jit(filters.gaussian)(FRAMES, 1.0), blur, atol=1e-6)
  np.testing.assert_allclose(filters.gaussian(FRAMES, 0.25), 0.75 * FRAMES + 0.25 * blur, atol=1e-6)


def test_median_equals_scipy():
  expected = scipy.ndimage.median_filter(FRAMES, (1, 3, 3, 1), mode='mirror')
  np.testing.assert_allclose(jax.jit(filters.median)(FRAMES, 1.0), expected, atol=1e-7)
  np.testing.assert_array_equal(filters.median(FRAMES, 0.0), FRAMES)


def test_median_removes_a_dot_and_bilateral_keeps_an_edge():
  dot = np.zeros((1, 9, 9, 3), np.float32)
  dot[0, 4, 4] = 1
  assert float(filters.median(dot, 1.0).max()) == 0
  rng = np.random.default_rng(1)
  edge = np.repeat((np.arange(20) >= 10).astype(np.float32), 3).reshape(1, 1, 20, 3)
  edge = np.repeat(edge, 16, axis=1)
  noisy = edge + rng.normal(scale=0.02, size=edge.shape).astype(np.float32)
  smooth = filters.bilateral(noisy, 0.1)
  assert np.abs(smooth - edge).mean() < 0.5 * np.abs(noisy - edge).mean()
  assert float(smooth[:, :, 9].max()) < 0.1 and float(smooth[:, :, 10].min()) > 0.9


def test_bilateral_with_a_wide_range_is_a_gaussian():
  taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.5**2))
  kernel = np.outer(taps, taps) / taps.sum() ** 2
  blur = scipy.ndimage.correlate(FRAMES, kernel[None, :, :, None], mode='mirror')
  np.testing.assert_allclose(filters.bilateral(FRAMES, 1e3), blur, atol=1e-5)


def test_least_squares_recovers_a_known_filter():
  weights = RNG.normal(scale=0.1, size=(76, 3))
  frames = RNG.random((3, 24, 28, 3))
  windows = np.lib.stride_tricks.sliding_window_view(frames, (5, 5), (1, 2))
  targets = np.zeros_like(frames)
  kernel = weights[:-1].reshape(5, 5, 3, 3)
  targets[:, 2:-2, 2:-2] = np.einsum('nhwcyx,yxcd->nhwd', windows, kernel) + weights[-1]
  fitted = filters.fit_linear(zip(frames, targets, strict=True))
  np.testing.assert_allclose(fitted, weights, atol=1e-9)
  np.testing.assert_allclose(filters.linear(frames, fitted)[:, 2:-2, 2:-2], targets[:, 2:-2, 2:-2], atol=1e-5)


def test_least_squares_undoes_a_mild_blur_and_survives_grey_frames():
  sharp = scipy.ndimage.gaussian_filter(RNG.random((32, 40, 3)), (1, 1, 0))
  soft = np.asarray(filters.gaussian(jnp.asarray(sharp[None]), 0.4))[0]
  restored = filters.linear(soft[None], filters.fit_linear([(soft, sharp)]))[0]
  assert np.abs(restored - sharp).mean() < 0.1 * np.abs(soft - sharp).mean()
  grey = np.repeat(sharp[..., :1], 3, axis=-1)
  weights = filters.fit_linear([(grey, grey)])
  assert np.isfinite(weights).all()
  np.testing.assert_allclose(filters.linear(grey[None], weights)[0], grey, atol=1e-4)
