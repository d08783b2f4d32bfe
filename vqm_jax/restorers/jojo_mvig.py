"""Team JOJO-MVIG (NTIRE 2020 VQM, section 4.5, figure 7): motion compensation beside global pooling over frames.

    7 frames ── pyramid front ──┬── A: PCD ── TSA ─────────────────────────┬── conv ── 40 residual blocks ──┐
                                └── B: U-Net whose blocks exchange maxima ─┘                                │
                                         (+ centre frame) ── conv ── conv ── shuffle x2 ── shuffle x2 ──────┘

Path A aligns (EDVR), path B never does: in all its residual blocks the frames see the maximum over frames of each
other's features, pixel by pixel (after Aittala & Durand 2018), so that their order does not matter. CARAFE (Wang et al.
2019) upsamples in the U-Net, with kernels it predicts. Given by the report: the two paths, global max-pooling in all
residual blocks, seven frames, 128 channels, 5 + 40 blocks, CARAFE, otherwise EDVR. Ours: three scales with one block
each way, strided convolutions down, 1x1 merges, that path B returns the centre's track, and EDVR's way back to the full
resolution with a quarter of the channels at half of it. With CARAFE there as well the network hardly learns: a weighted
mean, the same for all channels, cannot take them apart into pixels. 22,758,827 parameters (report: 22.75 M).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers.conv import conv, leaky_relu
from vqm_jax.layers.edvr import INPUT_MEAN, TSA, ShuffleTail, per_frame
from vqm_jax.layers.initializers import dirac, kaiming
from vqm_jax.layers.resample import pixel_shuffle
from vqm_jax.layers.residual import ResidualBlock
from vqm_jax.layers.sums import conv_of_parts, part_of, sum_of
from vqm_jax.restorers import base

_UP = 2  # CARAFE's factor
_REACH = 2  # its 5x5 neighbourhood


class CARAFE(nnx.Module):
  """Content-aware reassembly of features: doubles the resolution, each place with a 5x5 kernel of its own.

  Args:
    width: channels.
    compressed: channels that the kernels are predicted from.

  Call: x (B, h, w, width) -> (B, 2h, 2w, width).
  """

  def __init__(self, width: int, compressed: int = 64, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(bias_init=nnx.initializers.zeros_init(), dtype=dtype, rngs=rngs)
    taps = (2 * _REACH + 1) ** 2
    self.compress = conv(width, compressed, 1, kernel_init=nnx.initializers.xavier_uniform(), **how)
    self.encode = conv(compressed, taps * _UP**2, kernel_init=nnx.initializers.normal(0.001), **how)

  def kernels(self, x: jax.Array) -> jax.Array:
    """The reassembly kernels, (B, 2h, 2w, 25), each of sum one, float32."""
    logits = pixel_shuffle(self.encode(self.compress(x)), _UP)
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)

  def __call__(self, x: jax.Array) -> jax.Array:
    return reassemble(x, self.kernels(x).astype(x.dtype))


def reassemble(x: jax.Array, kernels: jax.Array) -> jax.Array:
  """Weighted sums of low-resolution 5x5 neighbourhoods: x (B, h, w, C), kernels (B, 2h, 2w, 25) -> (B, 2h, 2w, C).

  Outside of x is zero. Accumulated over 25 shifts of the small image: unfolding it would take 25 times its memory.
  """
  b, h, w, c = x.shape
  padded = jnp.pad(x, ((0, 0), (_REACH, _REACH), (_REACH, _REACH), (0, 0)))
  kernels = kernels.reshape(b, h, _UP, w, _UP, -1)
  size, out = 2 * _REACH + 1, 0.0
  for n in range(size * size):
    shifted = padded[:, n // size : n // size + h, n % size : n % size + w]
    out += kernels[..., n, None] * shifted[:, :, None, :, None]
  return out.reshape(b, _UP * h, _UP * w, c)


class GlobalMaxBlock(nnx.Module):
  """Residual block whose frames exchange their maximum: x (B, T, h, w, width) -> same, for any T.

  y = conv(relu(conv(x))) frame by frame; g = max over frames of y; x + conv1x1[y‖g].
  """

  def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    init = dict(kernel_init=kaiming(0.1), bias_init=nnx.initializers.zeros_init())
    self.conv1 = conv(width, width, **init, **how)
    self.conv2 = conv(width, width, **init, **how)
    self.mix = conv(2 * width, width, 1, **how)

  def seen(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute y and its part of the 1x1 convolution, frame by frame: x (N, h, w, width) -> (N, h, w, width) each."""
    y = self.conv2(jax.nn.relu(self.conv1(x)))
    return y, part_of(self.mix, y)

  def __call__(self, x: jax.Array, seen: tuple[jax.Array, jax.Array] | None = None) -> jax.Array:
    """`seen` is that of x, (B, T, h, w, width) each, where it was kept."""
    y, mixed = seen or jax.tree.map(lambda z: z.reshape(x.shape), self.seen(x.reshape(-1, *x.shape[2:])))
    return x + sum_of(self.mix, mixed, self._shared(y))

  def centre(self, x: jax.Array) -> jax.Array:
    """The centre frame of what a call gives: x (B, T, h, w, width) -> (B, h, w, width)."""
    middle = x.shape[1] // 2
    y = per_frame(lambda z: self.conv2(jax.nn.relu(self.conv1(z))), x)
    return x[:, middle] + sum_of(self.mix, part_of(self.mix, y[:, middle]), self._shared(y)[:, 0])

  def _shared(self, y):
    return part_of(self.mix, y.max(axis=1, keepdims=True), first=y.shape[-1])


class GlobalPoolingUNet(nnx.Module):
  """Path B: a U-Net of `GlobalMaxBlock`s on all frames: (B, T, h, w, width) -> centre's track (B, h, w, width)."""

  def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.encoder = nnx.List([GlobalMaxBlock(width, **how) for _ in range(2)])
    self.down = nnx.List([conv(width, width, stride=2, **how) for _ in range(2)])
    self.middle = GlobalMaxBlock(width, **how)
    self.up = nnx.List([CARAFE(width, **how) for _ in range(2)])
    self.merge = nnx.List([conv(2 * width, width, 1, **how) for _ in range(2)])
    self.decoder = nnx.List([GlobalMaxBlock(width, **how) for _ in range(2)])

  def __call__(self, x: jax.Array, seen: tuple[jax.Array, jax.Array] | None = None) -> jax.Array:
    """`seen` is what the first block sees of x, where it was kept."""
    skips = []
    for block, down in zip(self.encoder, self.down, strict=True):
      skips.append(block(x, seen))
      x, seen = leaky_relu(per_frame(down, skips[-1])), None
    x = self.middle(x)
    for up, merge, block in zip(self.up, self.merge, self.decoder, strict=True):
      x = leaky_relu(conv_of_parts(merge, per_frame(up, x), skips.pop()))
      x = block(x) if skips else block.centre(x)
    return x


class JOJO(base.EDVR):
  """Restores the centre of seven frames.

  Args:
    width: channels.
    num_frames: of the window.
    num_front, num_blocks: residual blocks of the front and of the reconstruction.
    groups: deformable groups.
    tail_width: channels at full resolution.
    input_mean: subtracted from the frames, see `edvr.INPUT_MEAN`.
    dtype: compute dtype; parameters stay float32.

  Call: clip (B, num_frames, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped.
  """

  def __init__(
    self,
    width: int = 128,
    num_frames: int = 7,
    num_front: int = 5,
    num_blocks: int = 40,
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
    self.pooling = GlobalPoolingUNet(width, **how)
    self.merge = conv(2 * width, width, kernel_init=dirac(), **how)
    self.blocks = nnx.List([ResidualBlock(width, **how) for _ in range(num_blocks)])
    self.tail = ShuffleTail(width, tail_width, width // 4, **how)

  def encode(self, frames: jax.Array) -> dict[str, Any]:
    """As `EDVR`, and 'seen': what the first block of path B sees of each frame."""
    features = super().encode(frames)
    return features | {'seen': self.pooling.encoder[0].seen(features['pyramid'][0])}

  def correction(self, features: dict[str, Any]) -> jax.Array:
    """Features of the window -> what the centre frame lacks (B, H, W, 3), float32."""
    compensated = self.fusion(self.aligned(features))
    pooled = self.pooling(features['pyramid'][0], features['seen'])
    x = leaky_relu(conv_of_parts(self.merge, compensated, pooled))
    for block in self.blocks:
      x = block(x)
    return self.tail(x)
