"""Gaussian blurs: width and gains of their definitions, and what SciPy makes of the same weights."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from vqm_jax import errors
from vqm_jax.layers.blur import BLURS, blur, taps


@pytest.mark.parametrize(
  ('kind', 'count', 'deviation', 'gains'),
  [
    ('dped', 21, 4.337, (0.0071, -0.0051, 0.0172, 0.1854, 0.6876)),
    ('paper', 15, 1.732, (0.000, 0.025, 0.396, 0.793, 0.944)),
  ],
)
def test_blur_weights_have_the_width_and_gains_of_their_definition(kind, count, deviation, gains):
  weights = taps(kind)
  places = np.arange(count) - count // 2
  assert weights.shape == (count,)
  np.testing.assert_allclose(weights, weights[::-1], rtol=1e-12)
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
  np.testing.assert_allclose(np.sqrt((weights * places**2).sum()), deviation, atol=2e-3)
  found = [(weights * np.cos(2 * np.pi * places * f)).sum() for f in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)]
  np.testing.assert_allclose(found, gains, atol=1e-3)


def test_blur_weights_of_dped_and_of_a_plain_gaussian():
  weights = taps('dped')
  np.testing.assert_allclose([weights[10], weights[0], weights[20]], [0.086966, 0.009104, 0.009104], atol=1e-6)
  weights = taps('sigma', 2.0)
  expected = np.exp(-(np.arange(-7, 8) ** 2) / 8)
  np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize('kind', BLURS)
@pytest.mark.parametrize('size', [(33, 47), (5, 9), (1, 1)])
def test_blur_is_that_of_scipy(kind, size):
  """scipy's 'reflect' mirrors with the edge, as often as the weights reach."""
  images = np.random.default_rng(0).random((2, *size, 3), np.float32)
  expected = images.astype(np.float64)
  for axis in (1, 2):
    expected = scipy.ndimage.correlate1d(expected, taps(kind, 3.0), axis, mode='reflect')
  blurred = blur(images, kind, 3.0)
  assert blurred.dtype == jnp.float32
  np.testing.assert_allclose(blurred, expected, atol=2e-6)


def test_blur_keeps_constants_and_refuses_other_kinds():
  np.testing.assert_allclose(blur(np.full((1, 12, 8, 3), 0.7, np.float32)), 0.7, atol=1e-6)
  with pytest.raises(errors.ConfigError, match="blur='box'.*choose one of dped, paper, sigma"):
    taps('box')
  with pytest.raises(errors.ConfigError, match='sigma=0'):
    taps('sigma', 0)
