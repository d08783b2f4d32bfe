import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import normal

from vqm_jax.layers.initializers import icnr, torch_bias, torch_kernel
from vqm_jax.layers.resample import avg_pool3, bilinear_up2, max_pool3, pixel_shuffle, pixel_unshuffle


def test_shuffle_follows_the_channel_order_of_the_published_code():
  x = np.arange(2 * 2 * 8).reshape(1, 2, 2, 8)
  out = np.asarray(pixel_shuffle(x, 2))
  for y, x_, c, i, j in np.ndindex(2, 2, 2, 2, 2):
    assert out[0, y * 2 + i, x_ * 2 + j, c] == x[0, y, x_, c * 4 + i * 2 + j]


def test_unshuffle_inverts_shuffle():
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 32))
  np.testing.assert_array_equal(pixel_unshuffle(pixel_shuffle(x, 4), 4), x)


def test_icnr_starts_as_nearest_upsampling():
  kernel = icnr(normal(1.0), 2)(jax.random.key(0), (3, 3, 4, 12))
  x = jax.random.normal(jax.random.key(1), (1, 5, 6, 4))

  def conv(kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  up = pixel_shuffle(conv(kernel), 2)
  np.testing.assert_allclose(up, conv(kernel[..., ::4]).repeat(2, axis=1).repeat(2, axis=2), atol=1e-5)


def test_torch_initialisers_are_uniform_within_one_over_root_fan_in():
  kernel = np.asarray(torch_kernel()(jax.random.key(0), (3, 3, 16, 64)))
  bias = np.asarray(torch_bias(144)(jax.random.key(0), (4096,)))
  for values in (kernel, bias):
    assert np.abs(values).max() <= 1 / 12 + 1e-6
    np.testing.assert_allclose(values.std(), 1 / 12 / np.sqrt(3), rtol=0.05)


@pytest.mark.parametrize('size', [(1, 1), (1, 6), (5, 7), (8, 4)])
def test_bilinear_doubling_has_half_pixel_centres(size):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3))
  expected = jax.image.resize(x, (2, 2 * size[0], 2 * size[1], 3), 'bilinear')
  np.testing.assert_allclose(bilinear_up2(x), expected, atol=1e-6)


@pytest.mark.parametrize('size', [(1, 1), (6, 8), (5, 7), (4, 3), (2, 1)])
def test_pools_are_those_of_three_by_three_windows_padded_by_one(size):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3)) - 3  # below zero, where padding with zeros would win

  def windows(start, reduce):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, start, reduce, (1, 3, 3, 1), (1, 2, 2, 1), padding)

  np.testing.assert_array_equal(max_pool3(x), windows(-jnp.inf, jax.lax.max))
  np.testing.assert_allclose(avg_pool3(x), windows(0.0, jax.lax.add) / 9, atol=1e-6)
