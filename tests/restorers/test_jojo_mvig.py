"""JOJO-MVIG's upsampling, its exchange of maxima, and the path that is made of it."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from restorers.sizes import TINY

from vqm_jax.restorers.jojo_mvig import CARAFE, JOJO, GlobalMaxBlock, GlobalPoolingUNet, reassemble

FLOAT32 = dict(dtype=jnp.float32)
WIDTH = 4


@pytest.mark.parametrize(
  ('part', 'width', 'params'),
  [(CARAFE, 128, 65_956), (GlobalMaxBlock, 128, 328_064), (GlobalPoolingUNet, 128, 2_133_192)],
)
def test_published_parameter_counts(part, width, params):
  assert networks.count(functools.partial(part, width, **FLOAT32)) == params


def features(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def test_reassembly_is_its_definition():
  x, kernels = features(2, 4, 5, 3), jax.nn.softmax(features(2, 8, 10, 25, seed=1))
  expected = np.zeros((2, 8, 10, 3))
  for b, y, z, n in np.ndindex(2, 8, 10, 25):
    i, j = y // 2 + n // 5 - 2, z // 2 + n % 5 - 2
    if 0 <= i < 4 and 0 <= j < 5:
      expected[b, y, z] += np.asarray(kernels[b, y, z, n]) * np.asarray(x[b, i, j])
  np.testing.assert_allclose(reassemble(x, kernels), expected, atol=1e-5)


def test_reassembly_with_one_hot_kernels_is_nearest_upsampling():
  x = features(1, 4, 5, 3)
  kernels = jax.nn.one_hot(jnp.full((1, 8, 10), 12), 25)
  np.testing.assert_array_equal(reassemble(x, kernels), x.repeat(2, axis=1).repeat(2, axis=2))


def test_carafe_keeps_a_constant_inside_and_lowers_it_at_the_border():
  layer = networks.random(functools.partial(CARAFE, WIDTH, 8, **FLOAT32))
  kernels = layer.kernels(features(1, 7, 8, WIDTH))
  np.testing.assert_allclose(kernels.sum(axis=-1), np.ones((1, 14, 16)), atol=1e-5)
  out = networks.apply(layer, jnp.full((1, 7, 8, WIDTH), 3.0))
  np.testing.assert_allclose(out[:, 4:-4, 4:-4], 3.0, rtol=1e-5)
  inside = np.zeros((14, 16), bool)
  inside[4:-4, 4:-4] = True
  assert (out[0, ~inside] < 3 - 1e-3).all()


def test_fresh_carafe_is_nearly_a_box_blur():
  layer = CARAFE(WIDTH, 8, **FLOAT32, rngs=nnx.Rngs(0))
  np.testing.assert_allclose(layer.kernels(features(1, 4, 4, WIDTH)), np.full((1, 8, 8, 25), 1 / 25), rtol=0.05)


@pytest.fixture(scope='module')
def block():
  return networks.random(functools.partial(GlobalMaxBlock, WIDTH, **FLOAT32))


def test_frames_exchange_their_maximum_place_by_place(block):
  x = features(2, 3, 5, 6, WIDTH)
  y = jnp.stack([block.conv2(jax.nn.relu(block.conv1(x[:, t]))) for t in range(3)], axis=1)
  shared = y.max(axis=1)
  expected = [x[:, t] + block.mix(jnp.concatenate([y[:, t], shared], axis=-1)) for t in range(3)]
  np.testing.assert_allclose(networks.apply(block, x), jnp.stack(expected, axis=1), atol=1e-5)


def test_permuted_frames_give_permuted_results(block):
  x, order = features(1, 4, 5, 6, WIDTH), np.array([2, 0, 3, 1])
  np.testing.assert_allclose(networks.apply(block, x[:, order]), networks.apply(block, x)[:, order], atol=1e-6)


def test_a_frame_seen_twice_changes_nothing_for_the_others(block):
  x = features(1, 4, 5, 6, WIDTH)
  doubled = networks.apply(block, jnp.concatenate([x, x[:, 1:2]], axis=1))
  np.testing.assert_allclose(doubled[:, :4], networks.apply(block, x), atol=1e-6)
  another = networks.apply(block, jnp.concatenate([x, x[:, 1:2] + 3], axis=1))
  assert np.abs(another[:, :4] - doubled[:, :4]).max() > 1e-3


@pytest.mark.parametrize('frames', [1, 2, 7])
def test_any_number_of_frames_can_exchange(block, frames):
  assert networks.apply(block, features(2, frames, 4, 4, WIDTH)).shape == (2, frames, 4, 4, WIDTH)


@pytest.fixture(scope='module')
def path():
  return networks.random(functools.partial(GlobalPoolingUNet, WIDTH, **FLOAT32))


def test_pooling_path_ignores_the_order_of_the_neighbours(path):
  x = features(1, 7, 8, 8, WIDTH)
  out = networks.apply(path, x)
  assert out.shape == (1, 8, 8, WIDTH)
  np.testing.assert_allclose(networks.apply(path, x[:, [5, 0, 6, 3, 1, 4, 2]]), out, atol=1e-5)
  assert np.abs(networks.apply(path, x[:, [0, 1, 3, 2, 4, 5, 6]]) - out).max() > 1e-3  # another centre
  assert np.abs(networks.apply(path, x.at[:, 6].add(1.0)) - out).max() > 1e-3  # another neighbour


def test_pooling_path_of_identical_frames_is_that_of_one(path):
  frame = features(1, 1, 8, 8, WIDTH)
  np.testing.assert_allclose(networks.apply(path, frame.repeat(7, axis=1)), networks.apply(path, frame), atol=1e-5)


def test_second_half_of_the_merge_is_all_that_comes_from_the_pooling_path():
  network = networks.random(functools.partial(JOJO, **TINY['jojo']))
  x = jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))

  def change():
    before, state = networks.apply(network, x), nnx.state(network.pooling)
    nnx.update(network.pooling, jax.tree.map(lambda p: p + 0.1, state))
    return np.abs(networks.apply(network, x) - before).max()

  assert change() > 1e-3
  network.merge.kernel[...] = network.merge.kernel[...].at[:, :, WIDTH:].set(0.0)
  assert change() == 0


def test_without_its_last_layer_the_network_is_the_identity():
  network = networks.random(functools.partial(JOJO, **TINY['jojo']))
  networks.silence(network.tail.last)
  x = jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))
  np.testing.assert_array_equal(networks.apply(network, x), x[:, 1])
