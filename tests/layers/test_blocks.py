"""The plain convolution, its initialisers, the residual block, and what layers record while somebody listens."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax.layers import diagnostics
from vqm_jax.layers.conv import conv, leaky_relu
from vqm_jax.layers.initializers import kaiming, scaled
from vqm_jax.layers.residual import ResidualBlock


def convolved(layer, x, padding, stride=1, dilation=1):
  return layer.bias[...] + jax.lax.conv_general_dilated(
    x,
    layer.kernel[...],
    (stride, stride),
    ((padding, padding), (padding, padding)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


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


def test_kaiming_and_scaled_kernels_have_the_wanted_size():
  shape, key = (3, 3, 32, 64), jax.random.key(0)
  plain = kaiming()(key, shape)
  np.testing.assert_allclose(np.std(plain), np.sqrt(2 / (9 * 32)), rtol=0.02)
  np.testing.assert_allclose(kaiming(0.1)(key, shape), 0.1 * plain, rtol=1e-6)
  np.testing.assert_allclose(scaled(kaiming(), -3.0)(key, shape), -3 * plain, rtol=1e-6)


@pytest.mark.parametrize(('width', 'params'), [(64, 73_856), (128, 295_168)])
def test_residual_block_parameter_count(width, params):
  assert networks.count(functools.partial(ResidualBlock, width)) == params


def test_fresh_residual_block_hardly_changes_its_input():
  block, x = ResidualBlock(32, rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(1), (1, 32, 32, 32))
  out = block(x)
  np.testing.assert_allclose(np.std(out), np.std(x), rtol=0.02)
  assert np.abs(out - x).max() > 0


def test_residual_block_is_the_identity_without_its_second_convolution():
  block = networks.random(functools.partial(ResidualBlock, 8))
  x = jax.random.normal(jax.random.key(0), (1, 8, 8, 8))
  inner = jax.nn.relu(convolved(block.conv1, x, 1))
  np.testing.assert_allclose(block(x), x + convolved(block.conv2, inner, 1), atol=1e-5)
  networks.silence(block.conv2)
  np.testing.assert_array_equal(block(x), x)


def test_nothing_is_computed_when_nobody_listens():
  diagnostics.record(lambda: pytest.fail('computed'))
  with diagnostics.recording():
    pass
  diagnostics.record(lambda: pytest.fail('computed after the listener left'))


def test_values_are_collected_inside_without_gradient():
  @jax.value_and_grad
  def loss(x):
    with diagnostics.recording() as heard:
      diagnostics.record(lambda: {'a_mean': x**2})
      diagnostics.record(lambda: {'b_max': 3 * x})
    assert set(heard) == {'a_mean', 'b_max'}
    return x + heard['a_mean'] + heard['b_max']

  value, gradient = loss(2.0)
  assert (value, gradient) == (2 + 4 + 6, 1)


def test_each_listener_hears_what_runs_inside_it():
  with diagnostics.recording() as outer:
    diagnostics.record(lambda: {'a': 1.0})
    with diagnostics.recording() as inner:
      diagnostics.record(lambda: {'b': 2.0})
    diagnostics.record(lambda: {'c': 3.0})
  assert (outer, inner) == ({'a': 1.0, 'c': 3.0}, {'b': 2.0})


def test_records_of_parts_of_a_batch_are_joined_by_maximum_or_mean():
  parts = [{'a_max': jnp.array(a), 'b_mean': jnp.array(b)} for a, b in ((1.0, 2.0), (5.0, 4.0), (3.0, 9.0))]
  assert diagnostics.joined(parts) == {'a_max': 5, 'b_mean': 5}
