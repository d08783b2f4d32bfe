"""What the enhancers share: the shapes of images, luma, the activation, defaults of the contract."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqm_jax.enhancers import base


def test_clips_of_single_frames_become_images():
  clips = jnp.arange(2 * 1 * 3 * 4 * 3.0).reshape(2, 1, 3, 4, 3)
  np.testing.assert_array_equal(base.images(clips), clips[:, 0])


def test_luma_is_that_of_bt601():
  colours = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
  np.testing.assert_allclose(base.luma(colours)[:, 0], [0.299, 0.587, 0.114, 1.0], rtol=1e-6)


def test_slope_below_zero():
  np.testing.assert_allclose(base.lrelu(jnp.array([-1.0, 0.0, 2.0])), [-0.2, 0.0, 2.0], rtol=1e-6)


def test_methods_without_a_game_of_their_own_keep_the_defaults():
  method, optimizer = base.Enhancer(), optax.sgd(0.1)
  assert method.adaptive_weights() == {} and method.critic_optimizer(optimizer) is optimizer
  for loss in (method.generator_loss, method.critic_loss):
    with pytest.raises(NotImplementedError):
      loss(*[None] * (3 if loss == method.generator_loss else 4))
