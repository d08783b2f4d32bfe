"""GTQ's blocks, and which of its parts see what."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from restorers.sizes import TINY

from vqm_jax.layers import conv as conv_module
from vqm_jax.layers import initializers
from vqm_jax.layers.conv import leaky_relu
from vqm_jax.layers.resample import pixel_shuffle
from vqm_jax.restorers.gtq import GTQ, HFFB, RRDB, DenseBlock

FLOAT32 = dict(dtype=jnp.float32)


@pytest.mark.parametrize(('block', 'args', 'params'), [(HFFB, (64,), 201_088), (DenseBlock, (64, 32), 239_808),
                                                       (RRDB, (64, 32), 719_424)])  # fmt: skip
def test_published_parameter_counts(block, args, params):
  assert networks.count(functools.partial(block, *args, **FLOAT32)) == params


def test_hierarchy_sums_up_dilated_views():
  block, x = (
    networks.random(functools.partial(HFFB, 4, **FLOAT32)),
    jax.random.normal(jax.random.key(0), (1, 20, 20, 4)),
  )
  u = leaky_relu(block.enter(x))
  sums = block.hierarchy(x)
  assert [s.shape for s in sums] == [(1, 20, 20, 2)] * 8
  np.testing.assert_allclose(sums[0], block.dilated[0](u), atol=1e-6)
  for before, after, layer in zip(sums, sums[1:], block.dilated[1:], strict=False):
    np.testing.assert_allclose(after - before, layer(u), atol=1e-5)
  merged = block.merge(leaky_relu(jnp.concatenate(sums, axis=-1)))
  np.testing.assert_allclose(networks.apply(block, x), x + 0.2 * merged, atol=1e-5)


def test_hierarchical_block_reaches_nine_places_far():
  block = networks.random(functools.partial(HFFB, 4, **FLOAT32))
  flat = jnp.zeros((1, 25, 25, 4))
  change = networks.apply(block, flat.at[0, 12, 12].set(1.0)) - networks.apply(block, flat)
  rows, columns = np.nonzero(np.abs(change[0]).max(axis=-1) > 1e-6)
  assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 21, 3, 21)


def test_hierarchical_block_is_the_identity_without_its_merge():
  block, x = networks.random(functools.partial(HFFB, 4, **FLOAT32)), jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
  networks.silence(block.merge)
  np.testing.assert_array_equal(networks.apply(block, x), x)


def test_silent_dense_block_is_the_identity_and_a_block_of_three_adds_a_fifth():
  x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
  for block, factor in ((DenseBlock, 1.0), (RRDB, 1.2)):
    block = networks.random(functools.partial(block, 4, 2, **FLOAT32))
    assert np.abs(networks.apply(block, x) - factor * x).max() > 0.01
    networks.silence(block)
    np.testing.assert_allclose(networks.apply(block, x), factor * x, rtol=1e-6)


def test_without_trunk_only_the_centre_frame_is_left():
  network = networks.random(functools.partial(GTQ, **TINY['gtq']))
  x = jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))
  other = x.at[:, ::2].set(0.5)
  assert np.abs(networks.apply(network, other) - networks.apply(network, x)).max() > 1e-3
  networks.silence(network.trunk_end)
  np.testing.assert_array_equal(networks.apply(network, other), networks.apply(network, x))


def test_without_its_last_layer_the_network_is_the_identity():
  network = networks.random(functools.partial(GTQ, **TINY['gtq']))
  networks.silence(network.last)
  x = jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))
  np.testing.assert_array_equal(networks.apply(network, x), x[:, 1])


def test_the_centre_skips_the_alignment():
  network = networks.random(functools.partial(GTQ, **TINY['gtq']))
  x = jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))
  for stage in network.align:
    networks.silence(stage.warp)  # neighbours arrive as zeros
  kernel = network.trunk_start.kernel
  before = networks.apply(network, x)
  kernel[...] = kernel[...].at[:, :, :4].add(1.0).at[:, :, 8:].add(1.0)
  np.testing.assert_allclose(networks.apply(network, x), before, atol=1e-6)
  kernel[...] = kernel[...].at[:, :, 4:8].add(1.0)
  assert np.abs(networks.apply(network, x) - before).max() > 1e-3


def test_it_starts_from_the_pixels_of_the_centre_frame(monkeypatch):
  """Without the random part the features before the last convolution hold the frame as it is."""
  zeros = nnx.initializers.zeros_init()
  for module in (initializers, conv_module):
    monkeypatch.setattr(module, 'torch_kernel', lambda: zeros)
  monkeypatch.setattr(conv_module, 'torch_bias', lambda fan_in: zeros)
  network = GTQ(48, 3, num_extraction=0, num_stages=0, groups=4, num_rrdb=0, rngs=nnx.Rngs(0))
  frames = jax.random.uniform(jax.random.key(0), (1, 1, 8, 12, 3))
  x = network.encode(frames)['features']
  for layer in network.up:
    x = pixel_shuffle(layer(x), 2)
  brightness, red_green, blue_green = (
    jnp.moveaxis(x[..., :6:2] - x[..., 1:6:2], -1, 0) / 1.1
  )  # one leaky ReLU, both signs
  red, green, blue = jnp.moveaxis(frames[:, 0], -1, 0)
  padded = np.pad((red + green + blue) / 3 - 0.5, ((0, 0), (1, 1), (1, 1)))
  mean = sum(padded[:, i : i + 8, j : j + 12] for i in range(3) for j in range(3)) / 9
  np.testing.assert_allclose(brightness, 4 * (padded[:, 1:-1, 1:-1] - mean), atol=1e-5)
  for found, expected in ((red_green, red - green), (blue_green, blue - green)):
    halves = expected.reshape(1, 4, 2, 6, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(found, jnp.repeat(jnp.repeat(halves, 2, 1), 2, 2), atol=1e-6)
