"""PSNR and SSIM against scikit-image."""

import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import skimage.metrics

from vqm_jax import errors, metrics

ORACLE = {
  'ntire': dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
  'ntire_b1': dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
  'skimage_default': {},
  'y601': dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
}


def luma(rgb):
  return 16 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def prepared(frame, protocol):
  if protocol == 'ntire_b1':
    frame = frame[1:-1, 1:-1]
  return luma(frame) if protocol == 'y601' else frame


def oracle_psnr(a, b, protocol):
  a, b = prepared(a, protocol), prepared(b, protocol)
  return skimage.metrics.peak_signal_noise_ratio(b, a, data_range=255)


def oracle_ssim(a, b, protocol):
  a, b = prepared(a, protocol), prepared(b, protocol)
  channels = None if protocol == 'y601' else -1
  return skimage.metrics.structural_similarity(a, b, data_range=255, channel_axis=channels, **ORACLE[protocol])


def noisy(frame, rng, amount=12):
  noise = rng.normal(scale=amount, size=frame.shape)
  return np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)


def pairs():
  rng = np.random.default_rng(0)
  natural = {
    'cat': skimage.data.chelsea()[40:107, 60:173],
    'coffee': skimage.data.coffee()[10:77, 30:143],
    'astronaut': skimage.data.astronaut()[100:167, 90:203],
  }
  out = {name: (noisy(frame, rng), frame) for name, frame in natural.items()}
  smooth = natural['cat'].astype(np.float32)
  out['blurred'] = (((smooth + np.roll(smooth, 1, 1)) / 2).astype(np.uint8), natural['cat'])
  out['one level'] = (natural['cat'] ^ 1, natural['cat'])
  for height, width in ((13, 13), (21, 34)):
    shape = height, width, 3
    out[f'noise {height}x{width}'] = tuple(rng.integers(0, 256, (2, *shape), dtype=np.uint8))
  for level in (0, 5, 128, 200, 255):
    step = rng.integers(-1, 2, (2, 21, 34, 3))
    out[f'flat {level}'] = tuple(np.clip(level + step, 0, 255).astype(np.uint8))
  out['black and white'] = np.zeros((21, 34, 3), np.uint8), np.full((21, 34, 3), 255, np.uint8)
  return out


PAIRS = pairs()


@pytest.mark.parametrize('protocol', metrics.PROTOCOLS)
@pytest.mark.parametrize('name', PAIRS)
def test_equals_scikit_image(name, protocol):
  a, b = PAIRS[name]
  assert metrics.psnr(a, b, protocol) == pytest.approx(oracle_psnr(a, b, protocol), abs=1e-9)
  assert metrics.ssim(a, b, protocol) == pytest.approx(oracle_ssim(a, b, protocol), abs=1e-6)


def test_smallest_frame_of_the_window():
  rng = np.random.default_rng(1)
  a, b = rng.integers(0, 256, (2, 11, 11, 3), dtype=np.uint8)
  assert metrics.ssim(a, b) == pytest.approx(oracle_ssim(a, b, 'ntire'), abs=1e-6)
  assert metrics.ssim(a[:7, :7], b[:7, :7], 'skimage_default') == pytest.approx(
    oracle_ssim(a[:7, :7], b[:7, :7], 'skimage_default'), abs=1e-5
  )


def test_one_value_per_frame_in_float64():
  rng = np.random.default_rng(2)
  a, b = rng.integers(0, 256, (2, 2, 3, 16, 18, 3), dtype=np.uint8)
  for metric in (metrics.psnr, metrics.ssim):
    scores = metric(a, b)
    assert scores.shape == (2, 3)
    assert scores.dtype == np.float64
    assert scores[1, 2] == metric(a[1, 2], b[1, 2])
    np.testing.assert_allclose(scores, metric(b, a), rtol=1e-6)
    assert metric(a[:, :0], b[:, :0]).shape == (2, 0)


def test_squared_error_is_exact_for_wide_frames():
  a = np.zeros((2, 8192, 3), np.uint8)
  b = np.full_like(a, 255)
  assert metrics.psnr(a, b) == 0
  assert metrics.psnr(a, b, 'y601') == pytest.approx(10 * np.log10(255**2 / 219**2), abs=1e-12)


def test_identical_frames_are_infinite_and_count_as_100_in_means():
  a = np.stack([skimage.data.chelsea()[:40, :50]] * 3)
  b = a.copy()
  b[1] ^= 1
  scores = metrics.psnr(a, b)
  np.testing.assert_array_equal(np.isposinf(scores), [True, False, True])
  np.testing.assert_allclose(metrics.ssim(a, b)[[0, 2]], 1, atol=1e-6)
  mean, identical = metrics.mean_psnr(scores)
  assert identical == 2
  assert mean == pytest.approx((200 + 10 * np.log10(255**2)) / 3, abs=1e-9)


@pytest.mark.parametrize('metric', [metrics.psnr, metrics.ssim])
def test_errors_name_what_was_found(metric):
  a = np.zeros((16, 16, 3), np.uint8)
  with pytest.raises(errors.DataError, match=r'\(16, 16, 3\) and \(16, 15, 3\)'):
    metric(a, a[:, :15])
  with pytest.raises(errors.DataError, match='found float32'):
    metric(a.astype(np.float32), a.astype(np.float32))
  with pytest.raises(errors.DataError, match=r'found uint8 \(16, 16, 1\)'):
    metric(a[..., :1], a[..., :1])
  with pytest.raises(errors.ConfigError, match="found 'nitre'"):
    metric(a, a, 'nitre')


def test_frames_smaller_than_the_window_are_refused():
  a = np.zeros((10, 40, 3), np.uint8)
  with pytest.raises(errors.DataError, match='at least 11 pixels a side, found 10x40'):
    metrics.ssim(a, a)
  with pytest.raises(errors.DataError, match='at least 13 pixels'):
    metrics.ssim(np.zeros((12, 40, 3), np.uint8), np.zeros((12, 40, 3), np.uint8), 'ntire_b1')


def test_imports_without_codecs_and_tensorflow():
  code = 'import sys\nfor name in ("av", "cv2", "tensorflow"): sys.modules[name] = None\nimport vqm_jax.metrics\n'
  subprocess.run([sys.executable, '-c', code], check=True)
