"""Rows of the paper's Table 1 that are no published network: no processing, and the anonymous seventh entry."""

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers.conv import conv
from vqm_jax.layers.resample import pixel_shuffle, pixel_unshuffle
from vqm_jax.layers.residual import ResidualBlock
from vqm_jax.restorers.base import SingleFrameRestorer


class NoProcessing(SingleFrameRestorer):
  """Returns the centre frame as it came; the unprocessed row of every table as a restorer.

  Call: clip (B, T, H, W, 3) -> (B, H, W, 3), no parameters.
  """

  size_multiple = 1

  def __init__(self, *, dtype: jnp.dtype | None = None, rngs: nnx.Rngs | None = None):
    del dtype, rngs  # every restorer takes them

  def restore_frame(self, frame: jax.Array) -> jax.Array:
    """frame (B, H, W, 3) -> restored frame (B, H, W, 3)."""
    return frame


class SeventhStandIn(SingleFrameRestorer):
  """A stand-in for the paper's anonymous seventh entry, of which only size and speed are known.

  The report gives about 7.92 M parameters, half a second per frame, "extra data", and scores barely above the input.
  The method cannot be reproduced. This is a plain single-frame residual network of that size (7,932,720 parameters),
  for the rows about size and speed only; whatever it scores says nothing about the entry. It starts as the identity.

  Args:
    width: channels.
    num_blocks: residual blocks.
    dtype: compute dtype; parameters stay float32.

  Call: clip (B, 1, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped.
  """

  size_multiple = 4

  def __init__(self, width: int = 128, num_blocks: int = 26, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    zeros = nnx.initializers.zeros_init()
    self.head = conv(48, width, **how)
    self.blocks = nnx.List([ResidualBlock(width, **how) for _ in range(num_blocks)])
    self.body_end = conv(width, width, **how)
    self.tail = conv(width, 48, kernel_init=zeros, bias_init=zeros, **how)

  def restore_frame(self, frame: jax.Array) -> jax.Array:
    """frame (B, H, W, 3) -> restored frame (B, H, W, 3)."""
    h = x = self.head(pixel_unshuffle(frame, 4))
    for block in self.blocks:
      x = block(x)
    x = self.tail(self.body_end(x) + h)
    return frame + pixel_shuffle(x, 4).astype(jnp.float32)
