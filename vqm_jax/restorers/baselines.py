"""What a restorer has to beat: no processing, classic filters, and the best 5x5 linear filter."""

import jax
from flax import nnx


class NoProcessing(nnx.Module):
  """Returns the centre frame as it came; the unprocessed row of every table as a restorer.

  Call: clip (B, T, H, W, 3) -> (B, H, W, 3), no parameters.
  """

  def __init__(self, *, dtype=None, rngs: nnx.Rngs | None = None):
    del dtype, rngs
    self.num_frames = 1
    self.size_multiple = 1
    self.unit_frames = 1

  def encode(self, frames: jax.Array) -> jax.Array:
    """frames (B, 1, H, W, 3) -> features (B, H, W, 3)."""
    return frames[:, 0]

  def restore(self, features: jax.Array) -> jax.Array:
    """features (B, units, H, W, 3) -> the centre frame (B, H, W, 3)."""
    return features[:, features.shape[1] // 2]

  def __call__(self, clip: jax.Array) -> jax.Array:
    return clip[:, clip.shape[1] // 2]
