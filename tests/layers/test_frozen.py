"""Frozen layers; whole networks are in tests/restorers/test_contract.py."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vqm_jax.layers.conv import conv
from vqm_jax.layers.frozen import frozen


def test_a_frozen_layer_has_parameters_of_its_compute_dtype_and_leaves_the_original_alone():
  layer, x = conv(3, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (1, 6, 7, 3))
  quick = frozen(layer)
  assert quick.kernel[...].dtype == quick.bias[...].dtype == jnp.bfloat16
  assert layer.kernel[...].dtype == jnp.float32
  np.testing.assert_array_equal(quick(x), layer(x))
