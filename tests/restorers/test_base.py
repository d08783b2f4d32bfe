"""The contract of restorers: a call is `restore` of `encode` of each unit; clips of another kind are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from vqm_jax.restorers import base


class Pairs(base.Restorer):
  """Works on pairs of frames; their sums are told apart by weights."""

  num_frames, size_multiple, unit_frames = 3, 4, 2

  def encode(self, frames):
    return frames.sum(axis=1)

  def restore(self, features):
    return features[:, 0] + 10 * features[:, 1]


def test_every_unit_of_the_window_is_encoded_once_in_order():
  clip = jnp.arange(2 * 3.0)[:, None, None, None].repeat(3, -1).reshape(2, 3, 1, 1, 3) * jnp.ones((2, 3, 4, 8, 3))
  a, b, c = (clip[:, k] for k in range(3))
  np.testing.assert_allclose(Pairs()(clip), (a + b) + 10 * (b + c))


def test_a_frame_on_its_own_is_the_middle_of_its_window():
  class Negative(base.SingleFrameRestorer):
    size_multiple = 1

    def restore_frame(self, frame):
      return 1 - frame

  clip = jnp.full((1, 1, 2, 2, 3), 0.25)
  np.testing.assert_allclose(Negative()(clip), 0.75)


@pytest.mark.parametrize(
  ('shape', 'dtype', 'message'),
  [
    ((1, 3, 4, 4), float, r'takes a clip \(B, T, H, W, 3\)'),
    ((1, 3, 4, 4, 3), int, 'takes floats in .* divide 8-bit frames by 255'),
    ((1, 5, 4, 4, 3), float, 'windows of 3 frames, got 5'),
    ((1, 3, 4, 6, 3), float, 'multiples of 4, got 4x6; pad at the bottom right'),
  ],
)
def test_clips_of_another_kind_are_refused(shape, dtype, message):
  with pytest.raises(ValueError, match=message):
    Pairs()(jnp.zeros(shape, dtype))
