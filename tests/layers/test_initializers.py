"""Initial kernels have the size that they should have."""

import jax
import numpy as np

from vqm_jax.layers.initializers import kaiming, scaled


def test_kaiming_and_scaled_kernels_have_the_wanted_size():
  shape, key = (3, 3, 32, 64), jax.random.key(0)
  plain = kaiming()(key, shape)
  np.testing.assert_allclose(np.std(plain), np.sqrt(2 / (9 * 32)), rtol=0.02)
  np.testing.assert_allclose(kaiming(0.1)(key, shape), 0.1 * plain, rtol=1e-6)
  np.testing.assert_allclose(scaled(kaiming(), -3.0)(key, shape), -3 * plain, rtol=1e-6)
