"""The residual block."""

import functools

import jax
import networks
import numpy as np
import pytest
from flax import nnx
from layers.convolution import convolved

from vqm_jax.layers.residual import ResidualBlock


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
