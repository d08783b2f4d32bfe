"""ECNU's weight-normalised convolution, its adaptive blocks and skips."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
from flax import nnx
from restorers.sizes import TINY

from vqm_jax import restorers
from vqm_jax.restorers.ecnu import AdaptiveWDSRBlock, C2CNet, WNConv


def tiny(**kwargs):
  return C2CNet(**(TINY['ecnu'] | kwargs), rngs=nnx.Rngs(0))


def clip(height=16, width=24, seed=0):
  return jax.random.uniform(jax.random.key(seed), (1, 1, height, width, 3))


def test_parameter_count_with_the_other_plausible_shuffle():
  assert networks.count(functools.partial(restorers.create, 'ecnu', r=2)) == 19_846_535


def test_demo_parameter_count():
  args = dict(width=8, mapping_width=16, num_blocks=3, image_residual=True, tail_gain=0.1)
  assert networks.count(functools.partial(restorers.create, 'ecnu', **args)) == 114_413


def test_weight_norm_is_the_plain_convolution_at_first_and_ignores_the_scale_of_v():
  conv = WNConv(3, 5, rngs=nnx.Rngs(0))
  x = clip()[:, 0]
  plain = jax.lax.conv_general_dilated(x, conv.v[...], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(conv(x), plain + conv.bias[...], atol=1e-5)
  np.testing.assert_allclose(jnp.sqrt(jnp.square(conv.kernel()).sum((0, 1, 2))), jnp.abs(conv.g[...]), rtol=1e-5)
  before = conv(x)
  conv.v[...] = 7 * conv.v[...]
  np.testing.assert_allclose(conv(x), before, atol=1e-5)


def test_block_is_identity_without_residual_and_starts_with_a_fifth_of_it():
  block = AdaptiveWDSRBlock(8, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(1), (1, 8, 8, 8))
  residual = block.project(jax.nn.relu(block.expand(x)))
  np.testing.assert_allclose(block(x), x + 0.2 * residual, atol=1e-6)
  block.beta[...] = jnp.zeros(())
  np.testing.assert_array_equal(block(x), x)


def test_body_is_inert_when_every_beta_is_zero():
  network, x = tiny(), clip()
  network.beta[...] = jnp.zeros(())
  for block in network.blocks:
    block.beta[...] = jnp.zeros(())
  before = network(x)
  network.body_end.v[...] = network.body_end.v[...] * 0 + 1  # must not matter: f = d
  np.testing.assert_array_equal(network(x), before)


def test_output_depends_on_the_head_alone_when_both_shuffled_branches_are_silent():
  network, x = tiny(), clip()
  for branch in (network.sub_pixel, network.upsampling_skip):
    branch.g[...] = branch.g[...] * 0
    branch.bias[...] = branch.bias[...] * 0
  h = network.head((x[:, 0] - 0.5) / 0.5)
  np.testing.assert_allclose(network(x), 0.5 * network.tail(h) + 0.5, atol=1e-6)


def test_image_residual_with_a_silent_tail_is_the_identity():
  network, x = tiny(image_residual=True, tail_gain=0.0), clip()
  network.tail.bias[...] = network.tail.bias[...] * 0
  np.testing.assert_allclose(network(x), x[:, 0], atol=1e-7)


def test_there_are_129_published_scalars():
  params = nnx.state(networks.shapes(functools.partial(restorers.create, 'ecnu')), nnx.Param)
  assert sum(p.shape == () for p in jax.tree.leaves(params)) == 2 * 64 + 1
