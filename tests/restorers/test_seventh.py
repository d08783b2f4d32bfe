"""No processing, and the stand-in for the seventh entry."""

import jax.numpy as jnp
import networks
import numpy as np
from flax import nnx
from restorers.sizes import TINY

from vqm_jax.restorers import seventh

RNG = np.random.default_rng(0)
FRAMES = RNG.random((2, 14, 17, 3), dtype=np.float32)


def test_no_processing_is_the_frame_as_it_came():
  network, clip = seventh.NoProcessing(), jnp.asarray(FRAMES[:, None])
  np.testing.assert_array_equal(network(clip), FRAMES)
  units = jnp.stack([network.encode(clip + t) for t in range(3)], axis=1)
  np.testing.assert_array_equal(network.restore(units), FRAMES + 1)


def test_stand_in_for_the_seventh_is_the_identity_before_training_and_says_what_it_is():
  network = seventh.SeventhStandIn(**TINY['seventh'], rngs=nnx.Rngs(0))
  clip = jnp.asarray(RNG.random((2, 1, 8, 12, 3), dtype=np.float32))
  np.testing.assert_array_equal(networks.apply(network, clip), clip[:, 0])
  network.tail.bias[...] = network.tail.bias[...] + 0.1
  np.testing.assert_allclose(networks.apply(network, clip), clip[:, 0] + 0.1, atol=1e-6)
  assert seventh.SeventhStandIn.__doc__.startswith('A stand-in') and 'cannot be reproduced' in network.__doc__
