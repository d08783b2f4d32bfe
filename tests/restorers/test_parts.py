"""Blocks that work in parts against the forms of the papers, with features side by side: values and gradients."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax.layers.edvr import PCD, leaky_relu
from vqm_jax.layers.frozen import frozen
from vqm_jax.layers.resample import bilinear_up2
from vqm_jax.restorers.bossgao import RDB
from vqm_jax.restorers.gil import DRCLC, RRCU
from vqm_jax.restorers.gtq import AlignmentStage, DenseBlock
from vqm_jax.restorers.jojo_mvig import GlobalMaxBlock

WIDTH = 8


def side_by_side(*x):
  return jnp.concatenate(x, axis=-1)


def dense_block(block, x):
  seen = x
  for layer in block.convs[:4]:
    seen = side_by_side(seen, jax.nn.leaky_relu(layer(seen), 0.2))
  return x + 0.2 * block.convs[4](seen)


def rdb(block, x):
  seen = x
  for layer in block.convs:
    seen = side_by_side(seen, jax.nn.relu(layer(seen)))
  return x + block.fuse(seen)


def drclc(block, x):
  seen, state = x, jax.nn.relu(block.shared(x))
  for k, mix in enumerate(block.mix):
    seen = side_by_side(seen, state)
    state = block.shared(mix(seen))
    if not (block.linear and k == len(block.mix) - 1):
      state = jax.nn.relu(state)
  return state


def rrcu(block, x):
  z = block.enter(x)
  return z + drclc(block.second, drclc(block.first, z))


BLOCKS = {
  'DenseBlock': (lambda **how: DenseBlock(WIDTH, 4, **how), dense_block),
  'RDB': (lambda **how: RDB(WIDTH, 4, 3, **how), rdb),
  'DRCLC': (lambda **how: DRCLC(WIDTH, **how), drclc),
  'linear DRCLC': (lambda **how: DRCLC(WIDTH, linear=True, **how), drclc),
  'RRCU': (lambda **how: RRCU(WIDTH, WIDTH, **how), rrcu),
}


def close(found, expected, tolerance):
  found, expected = (np.asarray(x, np.float32) for x in (found, expected))
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-3))


# bfloat16 has 8 bits; sums of a few rounded parts are off by a few times 2^-9.
@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
@pytest.mark.parametrize('name', BLOCKS)
def test_blocks_equal_features_side_by_side(name, dtype, tolerance):
  make, plain = BLOCKS[name]
  block = networks.random(functools.partial(make, dtype=dtype))
  x = jax.random.normal(jax.random.key(1), (1, 6, 7, WIDTH))
  expected = networks.call(plain, block, x.astype(dtype))
  close(networks.apply(block, x.astype(dtype)), expected, tolerance)
  close(networks.apply(frozen(block), x.astype(dtype)), expected, tolerance)


@pytest.mark.parametrize('name', BLOCKS)
def test_gradients_equal_those_of_features_side_by_side(name):
  make, plain = BLOCKS[name]
  block = networks.random(functools.partial(make, dtype=jnp.float32))
  x = jax.random.normal(jax.random.key(1), (1, 6, 7, WIDTH))
  found, expected = (
    networks.call(nnx.grad(lambda block, call=call: jnp.square(call(block, x)).sum()), block)
    for call in (type(block).__call__, plain)
  )
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: close(a, b, 1e-4), found, expected)


def frames(key, size=8):
  return jax.random.normal(jax.random.key(key), (1, 3, size, size, WIDTH))


def test_pcd_equals_each_neighbour_beside_the_centre():
  pcd = networks.random(functools.partial(PCD, WIDTH, 2, dtype=jnp.float32))
  pyramid = [frames(k, 16 // 2**k) for k in range(3)]
  found = networks.apply(pcd, pyramid)
  close(networks.call(lambda pcd: pcd(pyramid, pcd.own(pyramid)), pcd), found, 1e-6)

  @networks.quick_jit
  def alone(neighbours, centres):
    coarser = None
    for level, neighbour, reference in reversed(list(zip(pcd.levels, neighbours, centres, strict=True))):
      offset = leaky_relu(level.offset1(side_by_side(neighbour, reference)))
      if coarser is not None:
        offset = leaky_relu(level.offset_merge(side_by_side(offset, 2 * bilinear_up2(coarser[0]))))
      offset = leaky_relu(level.offset2(offset))
      aligned = level.warp(neighbour, offset)
      if coarser is not None:
        aligned = level.merge(side_by_side(aligned, bilinear_up2(coarser[1])))
      coarser = offset, leaky_relu(aligned) if level.activate else aligned
    aligned = coarser[1]
    offset = leaky_relu(pcd.cascade2(leaky_relu(pcd.cascade1(side_by_side(aligned, centres[0])))))
    return leaky_relu(pcd.cascade_warp(aligned, offset))

  for t in range(3):
    close(found[:, t], alone([x[:, t] for x in pyramid], [x[:, 1] for x in pyramid]), 1e-4)


def test_gtqs_alignment_equals_each_neighbour_beside_the_centre():
  stage = networks.random(functools.partial(AlignmentStage, WIDTH, 2, 'stage', dtype=jnp.float32))
  neighbours, centre = frames(0), frames(1)[:, :1]
  found = networks.apply(stage, neighbours, centre)

  @networks.quick_jit
  def alone(neighbour):
    guide = stage.hffb(leaky_relu(stage.fuse(side_by_side(neighbour, centre[:, 0]))))
    return stage.warp(neighbour, guide)

  for t in range(3):
    close(found[:, t], alone(neighbours[:, t]), 1e-4)


def test_jojos_exchange_equals_the_maximum_beside_each_frame():
  block = networks.random(functools.partial(GlobalMaxBlock, WIDTH, dtype=jnp.float32))
  x = frames(0)
  y = jnp.stack([block.conv2(jax.nn.relu(block.conv1(x[:, t]))) for t in range(3)], axis=1)
  found = block(x)
  for t in range(3):
    close(found[:, t], x[:, t] + block.mix(side_by_side(y[:, t], y.max(axis=1))), 1e-5)
  close(block.centre(x), found[:, 1], 1e-6)
