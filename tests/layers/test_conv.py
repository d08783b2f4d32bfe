"""The plain convolution and its activation."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from layers.convolution import convolved

from vqm_jax.layers.conv import conv, leaky_relu


@pytest.mark.parametrize('size', [(8, 6), (7, 5)])
@pytest.mark.parametrize(
  ('kernel', 'stride', 'dilation', 'padding'), [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 3, 3), (1, 1, 1, 0), (5, 1, 1, 2)]
)
def test_padding_is_the_same_on_every_side(size, kernel, stride, dilation, padding):
  layer = networks.random(functools.partial(conv, 2, 3, kernel, stride=stride, dilation=dilation))
  x = jax.random.normal(jax.random.key(0), (1, *size, 2))
  out = layer(x)
  assert out.shape == (1, -(-size[0] // stride), -(-size[1] // stride), 3)
  np.testing.assert_allclose(out, convolved(layer, x, padding, stride, dilation), atol=1e-5)


def test_kernel_and_bias_start_within_one_over_root_fan_in():
  layer = conv(16, 64, rngs=nnx.Rngs(0))
  for values in (layer.kernel[...], layer.bias[...]):
    assert 0.9 / 12 < np.abs(values).max() <= 1 / 12 + 1e-6


def test_a_half_precision_convolution_can_answer_in_full_precision():
  layer = networks.random(functools.partial(conv, 2, 3, dtype=jnp.bfloat16, preferred_element_type=jnp.float32))
  assert layer.kernel[...].dtype == jnp.float32
  assert layer(jnp.ones((1, 4, 4, 2))).dtype == jnp.float32


def test_leaky_relu_has_slope_a_tenth():
  np.testing.assert_allclose(leaky_relu(jnp.array([-2.0, 0.0, 3.0])), [-0.2, 0.0, 3.0], rtol=1e-6)
