"""Convolutions in parts equal those of the parts side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vqm_jax.layers.conv import conv
from vqm_jax.layers.sums import conv_of_parts, dense, wide_kernels


def features(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize('size', [1, 3])
def test_parts_equal_their_concatenation(size):
  layer = conv(7, 5, size, dtype=jnp.float32, rngs=nnx.Rngs(0))
  parts = features(2, 6, 7, 3), features(2, 6, 7, 4, seed=1)
  np.testing.assert_allclose(conv_of_parts(layer, *parts), layer(jnp.concatenate(parts, axis=-1)), atol=1e-5)


def test_a_part_that_all_frames_share_is_broadcast():
  layer = conv(6, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
  frames, centre = features(2, 3, 6, 7, 3), features(2, 1, 6, 7, 3, seed=1)
  found = conv_of_parts(layer, frames, centre)
  for t in range(3):
    expected = layer(jnp.concatenate([frames[:, t], centre[:, 0]], axis=-1))
    np.testing.assert_allclose(found[:, t], expected, atol=1e-5)


def test_dense_layers_give_the_same_with_kernels_side_by_side():
  layers = [conv(4 + 2 * k, 2 if k < 2 else 4, dtype=jnp.float32, rngs=nnx.Rngs(k)) for k in range(3)]
  x = features(1, 6, 7, 4)
  (seen, last), (seen_frozen, last_frozen) = (
    dense(layers, x, jax.nn.relu, kernels) for kernels in (None, wide_kernels(layers))
  )
  for a, b in zip([*seen, last], [*seen_frozen, last_frozen], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
