"""Team GTQ (NTIRE 2020 VQM, section 4.1, figures 2 and 3): deformable cascade, dense trunk, at 1/4 resolution.

    7 frames ── space-to-depth 4 ── extraction ──┬── neighbours: 5 x (HFFB offsets, deformable conv) ──[‖]── conv ──┐
                                                 ├── centre ────────────────────────────────────────────┘           │
                                                 └── skip ──────────────────────(+)── conv ── 23 RRDBs ─────────────┘
                                                      (+ centre frame) ── conv ── shuffle 2 ── shuffle 2 ──┘

The report names the parts; numbers and wiring are those of the members' own DNLN (Wang et al., "Deformable Non-local
Network for Video Super-Resolution", 2019), whose non-local module the report does not mention: at this resolution its
affinity matrix would not fit any card. Ours: the image residual. 19,755,067 parameters (report: 19.76 M).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vqm_jax.layers.conv import conv, leaky_relu
from vqm_jax.layers.deform_conv import DeformConv
from vqm_jax.layers.edvr import INPUT_MEAN, SHUFFLED, centre_channels, last_conv, per_frame, signed_planes
from vqm_jax.layers.initializers import Wire, dirac, kaiming, torch_bias, torch_kernel, wired
from vqm_jax.layers.resample import pixel_shuffle, pixel_unshuffle
from vqm_jax.layers.residual import ResidualBlock
from vqm_jax.layers.sums import dense, part_of, sum_of, wide_kernels
from vqm_jax.restorers.base import Restorer

_UNSHUFFLE = 4


class HFFB(nnx.Module):
  """Hierarchical feature fusion block: eight dilated views of one input, fused pyramid-wise (PPON; Hui et al. 2019).

  The views are summed up one by one before they are joined, which fills the grid that dilation leaves.
  x (B, H, W, width) -> same.
  """

  def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.enter = conv(width, width, **how)
    self.dilated = nnx.List([conv(width, width // 2, dilation=rate, **how) for rate in range(1, 9)])
    self.merge = conv(4 * width, width, 1, **how)

  def hierarchy(self, x: jax.Array) -> list[jax.Array]:
    """The eight running sums of dilated views, each (B, H, W, width / 2)."""
    u = leaky_relu(self.enter(x))
    sums = [self.dilated[0](u)]
    for layer in self.dilated[1:]:
      sums.append(sums[-1] + layer(u))
    return sums

  def __call__(self, x: jax.Array) -> jax.Array:
    return x + 0.2 * self.merge(leaky_relu(jnp.concatenate(self.hierarchy(x), axis=-1)))


class AlignmentStage(nnx.Module):
  """One stage of the cascade: neighbour and centre features give offsets, which displace the neighbour's."""

  def __init__(self, width: int, groups: int, label: str, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.fuse = conv(2 * width, width, **how)
    self.hffb = HFFB(width, **how)
    self.warp = DeformConv(width, width, width, groups, label=label, **how)

  def __call__(self, neighbours: jax.Array, centre: jax.Array, own: jax.Array | None = None) -> jax.Array:
    """neighbours (B, T, h, w, C), centre (B, 1, h, w, C), `own` the neighbours' part of `fuse`, where it was kept."""
    own = part_of(self.fuse, neighbours) if own is None else own
    guide = leaky_relu(sum_of(self.fuse, own, part_of(self.fuse, centre, first=own.shape[-1])))
    return per_frame(self.warp, neighbours, per_frame(self.hffb, guide))


class DenseBlock(nnx.Module):
  """Five densely connected convolutions, their result times 0.2 added to the input (ESRGAN; Wang et al. 2018)."""

  def __init__(self, width: int, growth: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(kernel_init=kaiming(0.1), bias_init=nnx.initializers.zeros_init(), dtype=dtype, rngs=rngs)
    self.convs = nnx.List([conv(width + k * growth, growth if k < 4 else width, **how) for k in range(5)])
    self.wide = nnx.data(None)  # kernels, once frozen

  def freeze(self) -> None:
    """See `frozen`."""
    self.wide = nnx.List(map(nnx.Param, wide_kernels(self.convs)))

  def __call__(self, x: jax.Array) -> jax.Array:
    _, last = dense(self.convs, x, lambda y: jax.nn.leaky_relu(y, 0.2), self.wide)
    return x + 0.2 * last


class RRDB(nnx.Module):
  """Residual in residual dense block: 0.2 times three dense blocks in series, added to the input (ESRGAN)."""

  def __init__(self, width: int, growth: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.blocks = nnx.List([DenseBlock(width, growth, dtype=dtype, rngs=rngs) for _ in range(3)])

  def __call__(self, x: jax.Array) -> jax.Array:
    y = x
    for block in self.blocks:
      y = block(y)
    return x + 0.2 * y


class GTQ(Restorer):
  """Restores the centre of seven frames.

  Args:
    width: channels everywhere but inside the dense blocks.
    num_frames: of the window.
    num_extraction: residual blocks of the extraction.
    num_stages: deformable stages; each has its own weights, shared by the neighbours.
    groups: deformable groups.
    num_rrdb: blocks of the trunk.
    growth: channels that every dense convolution adds.
    input_mean: subtracted from the frames, see `edvr.INPUT_MEAN`.
    dtype: compute dtype; parameters stay float32.

  Call: clip (B, num_frames, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped.
  """

  size_multiple = _UNSHUFFLE

  def __init__(
    self,
    width: int = 64,
    num_frames: int = 7,
    num_extraction: int = 5,
    num_stages: int = 5,
    groups: int = 8,
    num_rrdb: int = 23,
    growth: int = 32,
    input_mean: float = INPUT_MEAN,
    *,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    how = dict(dtype=dtype, rngs=rngs)
    torch_init = dict(activation=leaky_relu, kernel_init=torch_kernel(), bias_init=torch_bias(9 * width))
    self.extract_start = conv(3 * _UNSHUFFLE**2, width, kernel_init=wired(_signed_squares()), **how)
    self.extract = nnx.List([ResidualBlock(width, **torch_init, **how) for _ in range(num_extraction)])
    self.extract_end = conv(width, width, kernel_init=dirac(), **how)
    self.align = nnx.List([AlignmentStage(width, groups, f'stage{k + 1}', **how) for k in range(num_stages)])
    centre = dirac(channels=centre_channels(width, num_frames))
    self.trunk_start = conv(num_frames * width, width, kernel_init=centre, **how)
    self.trunk = nnx.List([RRDB(width, growth, **how) for _ in range(num_rrdb)])
    self.trunk_end = conv(width, width, **how)
    starts = dirac(), dirac(channels=SHUFFLED)
    self.up = nnx.List([conv(width, 4 * width, kernel_init=start, **how) for start in starts])
    self.last = last_conv(width, **how)
    self.num_frames = num_frames
    self.input_mean = input_mean

  def encode(self, frames: jax.Array) -> dict[str, jax.Array]:
    """Per frame: frames (B, 1, H, W, 3) -> {'frame': (B, H, W, 3), 'features', 'own': (B, H/4, W/4, width)}.

    'own' is what the features give for the offsets of the first stage, whatever the centre.
    """
    frame = frames[:, 0]
    x = leaky_relu(self.extract_start(pixel_unshuffle(frame - self.input_mean, _UNSHUFFLE)))
    for block in self.extract:
      x = block(x)
    x = self.extract_end(x)
    return {'frame': frame, 'features': x} | ({'own': part_of(self.align[0].fuse, x)} if self.align else {})

  def restore(self, features: dict[str, jax.Array]) -> jax.Array:
    """Features of `encode` with a second axis of num_frames -> restored centre frame (B, H, W, 3)."""
    middle = self.num_frames // 2
    centre = features['features'][:, middle]
    # The centre skips the alignment; its neighbours are aligned together.
    of_others = {k: jnp.concatenate([x[:, :middle], x[:, middle + 1 :]], axis=1) for k, x in features.items()}
    neighbours, own = of_others['features'], of_others.get('own')
    for stage in self.align:
      neighbours, own = stage(neighbours, centre[:, None], own), None
    window = [*jnp.unstack(neighbours[:, :middle], axis=1), centre, *jnp.unstack(neighbours[:, middle:], axis=1)]
    y = self.trunk_start(jnp.concatenate(window, axis=-1))
    for block in self.trunk:
      y = block(y)
    y = self.trunk_end(y) + centre
    for layer in self.up:
      y = pixel_shuffle(layer(y), 2)
    return features['frame'][:, middle] + self.last(y).astype(jnp.float32)


def _signed_squares() -> list[Wire]:
  """Start from `pixel_unshuffle` by 4: what EDVR's front starts with, in the order that two shuffles by 2 undo."""
  wires = []
  for y, x in np.ndindex(_UNSHUFFLE, _UNSHUFFLE):
    coarse, fine = 2 * (y // 2) + x // 2, 2 * (y % 2) + x % 2
    for k, plane in enumerate(signed_planes()):
      target, share = (4 * (4 * k + fine) + coarse, 1.0) if k < 2 else (4 * (6 + k) + coarse, 0.25)
      for c, _, dy, dx, weight in plane:
        (row, i), (column, j) = divmod(y + dy, _UNSHUFFLE), divmod(x + dx, _UNSHUFFLE)
        wires.append((_UNSHUFFLE**2 * c + _UNSHUFFLE * i + j, target, row, column, share * weight))
  return wires
