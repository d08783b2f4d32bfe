"""Team TCL (NTIRE 2020 VQM, section 4.4, figure 6): an EDVR and a single-frame U-Net, trained apart, mixed.

    5 frames ── pyramid front ── PCD ── TSA ── 20 residual blocks ── shuffle tail ──(+ centre)── beta ──┐
    centre ── U-Net, 4 scales ──(+ centre)───────────────────────────────────────────── (1 - beta) ──(+)── restored

beta comes from a grid search on held-out training videos (`vqm_jax.combine --grid_search`), not from gradients. The
report names the two networks and the search. Ours: EDVR's medium setting (five frames, 64 channels, 5 front blocks)
with 20 blocks, U-Net widths 48 to 384, its image residual. 4,112,547 + 4,814,643 = 8,927,190 parameters (report:
8.92 M).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers.conv import conv
from vqm_jax.layers.edvr import INPUT_MEAN, TSA, ShuffleTail, last_conv
from vqm_jax.layers.initializers import kaiming
from vqm_jax.layers.resample import bilinear_up2, pixel_shuffle, pixel_unshuffle
from vqm_jax.layers.residual import ResidualBlock
from vqm_jax.layers.sums import conv_of_parts
from vqm_jax.restorers import base

MEMBERS = ('tcl_edvr', 'tcl_unet')  # of `tcl`; beta is the weight of the first


class TCLEDVR(base.EDVR):
  """The multi-frame branch: EDVR (Wang et al. 2019) for input at full resolution, medium size.

  Args:
    width: channels.
    num_frames: of the window.
    num_front, num_blocks: residual blocks of front and trunk.
    groups: deformable groups.
    tail_width: channels at full resolution.
    input_mean: subtracted from the frames, see `edvr.INPUT_MEAN`.
    dtype: compute dtype; parameters stay float32.

  Call: clip (B, num_frames, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped.
  """

  def __init__(
    self,
    width: int = 64,
    num_frames: int = 5,
    num_front: int = 5,
    num_blocks: int = 20,
    groups: int = 8,
    tail_width: int = 64,
    input_mean: float = INPUT_MEAN,
    *,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    how = dict(dtype=dtype, rngs=rngs)
    super().__init__(width, num_frames, num_front, groups, input_mean, **how)
    self.fusion = TSA(width, num_frames, **how)
    self.blocks = nnx.List([ResidualBlock(width, **how) for _ in range(num_blocks)])
    self.tail = ShuffleTail(width, tail_width, **how)

  def correction(self, features: dict[str, Any]) -> jax.Array:
    """Features of the window -> what the centre frame lacks (B, H, W, 3), float32."""
    x = self.fusion(self.aligned(features))
    for block in self.blocks:
      x = block(x)
    return self.tail(x)


class DoubleConv(nnx.Module):
  """Two 3x3 convolutions with ReLU: (B, h, w, cin) -> (B, h, w, width)."""

  def __init__(self, cin: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.convs = nnx.List(
      [relu_conv(cin, width, dtype=dtype, rngs=rngs), relu_conv(width, width, dtype=dtype, rngs=rngs)]
    )

  def __call__(self, *parts: jax.Array) -> jax.Array:
    first, second = self.convs
    return jax.nn.relu(second(jax.nn.relu(conv_of_parts(first, *parts))))


def relu_conv(cin: int, cout: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Conv:
  """A 3x3 convolution with the initialisation that suits a ReLU after it."""
  return conv(cin, cout, kernel_init=kaiming(), bias_init=nnx.initializers.zeros_init(), dtype=dtype, rngs=rngs)


class TCLUNet(base.SingleFrameRestorer):
  """The single-frame branch: a U-Net (Ronneberger et al. 2015) without normalisation.

  Args:
    width: channels at the first resolution; doubled at each of `depth` poolings.
    depth: poolings.
    unshuffle: 1, or 2 to work on squares of 2x2 pixels as channels, as FFDNet does (Zhang et al. 2018): on CPUs a
      frame costs two thirds of the time that half the width at full resolution does. Not published. See `_squares`.
    dtype: compute dtype; parameters stay float32.

  Call: clip (B, 1, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped.
  """

  def __init__(
    self, width: int = 48, depth: int = 3, unshuffle: int = 1, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
  ):
    how = dict(dtype=dtype, rngs=rngs)
    widths = [width << k for k in range(depth + 1)]
    cins = [3 * unshuffle**2 + 3 * (unshuffle > 1), *widths]
    self.encoder = nnx.List([DoubleConv(cin, cout, **how) for cin, cout in zip(cins, widths[:-1], strict=False)])
    self.middle = DoubleConv(widths[-2], widths[-1], **how)
    self.up = nnx.List([relu_conv(2 * c, c, **how) for c in widths[-2::-1]])
    self.decoder = nnx.List([DoubleConv(2 * c, c, **how) for c in widths[-2::-1]])
    self.last = last_conv(width, 1, 3 * unshuffle**2, **how)
    self.size_multiple = unshuffle << depth
    self.unshuffle = unshuffle

  def restore_frame(self, frame: jax.Array) -> jax.Array:
    """frame (B, H, W, 3) -> restored frame (B, H, W, 3)."""
    x, skips = _squares(frame, self.unshuffle) if self.unshuffle > 1 else frame, []
    for block in self.encoder:
      skips.append(block(x))
      x = _max_pool2(skips[-1])
    x = self.middle(x)
    for up, block in zip(self.up, self.decoder, strict=True):
      x = block(jax.nn.relu(up(bilinear_up2(x))), skips.pop())
    return frame + pixel_shuffle(self.last(x).astype(jnp.float32), self.unshuffle)


def _squares(frame: jax.Array, side: int) -> jax.Array:
  """Turn squares of pixels into channels: (B, H, W, 3) -> (B, H / side, W / side, 3 side^2 + 3).

  Four times what each pixel has over the mean of its 3x3, then the square's mean less 0.5. With the plain pixels as
  channels a small network stayed at the identity: 0.9993 of the input's loss after 400 updates, with these 0.9980, and
  at a third of the rate 0.9965.
  """
  b, h, w, _ = frame.shape
  mean = frame.reshape(b, h // side, side, w // side, side, 3).mean((2, 4))
  around = jnp.pad(frame, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  rows = around[:, :-2] + around[:, 1:-1] + around[:, 2:]
  box = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
  return jnp.concatenate([pixel_unshuffle(4 * (frame - box), side), mean - 0.5], axis=-1)


def _max_pool2(x: jax.Array) -> jax.Array:
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
