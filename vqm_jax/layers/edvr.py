"""The parts of EDVR (Wang et al. 2019) that TCL, JOJO-MVIG and BossGao build on.

    frames ── PyramidFront ── features at 1/4, 1/8, 1/16 ── PCD ── aligned features at 1/4 ── TSA ── one map at 1/4
                                                                          ... trunk of the system ... ── ShuffleTail

This is the variant for input at full resolution: two strided convolutions bring it to 1/4. EDVR's "predeblur" module
is not used; its authors warn that it can hurt unless it was trained on its own first.
"""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers.conv import conv, leaky_relu
from vqm_jax.layers.deform_conv import DeformConv
from vqm_jax.layers.initializers import Wire, dirac, wired
from vqm_jax.layers.resample import avg_pool3, bilinear_up2, max_pool3, pixel_shuffle
from vqm_jax.layers.residual import ResidualBlock
from vqm_jax.layers.sums import conv_of_parts, part_of, sum_of

# What deformable networks subtract from frames in [0, 1]: EDSR's mean shift (Lim et al. 2017), one number for all
# colours. Features of plain frames are all positive. Every update then moves the hundreds of weights behind an offset,
# or behind a logit of TSA, in one direction: offsets drift by whole pixels, TSA's weights saturate at zero, and the
# network ends as the identity. `benchmarks/learning_deformable.py` shows it change by change. Published EDVR takes
# frames as they are (0).
INPUT_MEAN = 0.5

# Features of some frames at 1/4, 1/8 and 1/16 of the resolution, each (..., h, w, C).
Pyramid = list[jax.Array]


# What networks start with: the detail of brightness, four times what a pixel has over the mean of its 3x3, and two
# differences of colours, at half the resolution. Each comes twice, once with its sign turned, so that what one copy
# loses in a ReLU is in the other. They fill 48 channels at a quarter of the resolution. Detail, because pictures vary
# most where compression spoils least: behind plain pixels the last convolution has to learn small differences of large
# weights, while every update shakes the brightness of its output.
_PLANES = ((1 / 3, 1 / 3, 1 / 3), (1, -1, 0), (0, -1, 1))  # weights of R, G, B
_DETAIL = [(y, x, 4.0 * ((y == x == 0) - 1 / 9)) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def signed_planes() -> list[list[Wire]]:
  """The six planes as wires of a 3x3 convolution of RGB, by output channel."""
  return [
    [(c, 2 * k + n, y, x, sign * weight * share) for y, x, share in places for c, weight in enumerate(plane)]
    for k, (plane, places) in enumerate(zip(_PLANES, (_DETAIL, [(0, 0, 1.0)], [(0, 0, 1.0)]), strict=True))
    for n, sign in enumerate((1, -1))
  ]


def unshuffled(channels: Sequence[int], first: int = 0) -> list[Wire]:
  """Start of a 3x3 convolution of stride 2: `pixel_unshuffle` by 2 of `channels`, from output channel `first` on."""
  return [(c, first + 4 * k + 2 * i + j, i, j, 1.0) for k, c in enumerate(channels) for i in (0, 1) for j in (0, 1)]


def averaged(channels: Sequence[int], first: int = 0) -> list[Wire]:
  """Start of a 3x3 convolution of stride 2: the mean of 2x2 pixels of `channels`, from output channel `first` on."""
  return [(c, first + k, i, j, 0.25) for k, c in enumerate(channels) for i in (0, 1) for j in (0, 1)]


# Start of a convolution before the second pixel shuffle: planes at full resolution, each colour for all four pixels.
SHUFFLED = (*range(8), *(channel for channel in range(8, 12) for _ in range(4)))


class PyramidFront(nnx.Module):
  """Features of single frames at three scales.

  Args:
    width: channels.
    num_blocks: residual blocks at 1/4.
    input_mean: subtracted from the frames; see `INPUT_MEAN`.

  Call: frames (B, H, W, 3), H and W multiples of 16 -> [(B, H/4, W/4, C), (B, H/8, W/8, C), (B, H/16, W/16, C)].
  """

  def __init__(self, width: int, num_blocks: int, input_mean: float = INPUT_MEAN, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.input_mean = input_mean
    self.stem = nnx.List(
      [conv(3, width, kernel_init=wired(itertools.chain(*signed_planes())), **how),
       conv(width, width, stride=2, kernel_init=wired([*unshuffled(range(2)), *averaged(range(2, 6), first=8)]), **how),
       conv(width, width, stride=2, kernel_init=wired(unshuffled(range(12))), **how)]
    )  # fmt: skip
    self.blocks = nnx.List([ResidualBlock(width, **how) for _ in range(num_blocks)])
    self.down = nnx.List([nnx.List([conv(width, width, stride=2, **how), conv(width, width, **how)]) for _ in range(2)])

  def __call__(self, frames: jax.Array) -> Pyramid:
    x = frames - self.input_mean
    for layer in self.stem:
      x = leaky_relu(layer(x))
    for block in self.blocks:
      x = block(x)
    pyramid = [x]
    for strided, layer in self.down:
      pyramid.append(leaky_relu(layer(leaky_relu(strided(pyramid[-1])))))
    return pyramid


def per_frame(layer: Callable[..., jax.Array], *x: jax.Array) -> jax.Array:
  """Apply a layer of (N, h, w, C) to every frame of (B, T, h, w, C)."""
  y = layer(*(each.reshape(-1, *each.shape[2:]) for each in x))
  return y.reshape(*x[0].shape[:2], *y.shape[1:])


class PCDLevel(nnx.Module):
  """One level of PCD: offsets from neighbours and centre, refined by the coarser level, then the warp."""

  def __init__(
    self, width: int, groups: int, label: str, *, coarsest: bool, activate: bool, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    how = dict(dtype=dtype, rngs=rngs)
    self.offset1 = conv(2 * width, width, **how)
    self.offset_merge = None if coarsest else conv(2 * width, width, **how)
    self.offset2 = conv(width, width, **how)
    self.warp = DeformConv(width, width, width, groups, label=label, **how)
    self.merge = None if coarsest else conv(2 * width, width, kernel_init=dirac(), **how)
    self.activate = activate

  def __call__(
    self, neighbours: jax.Array, own: jax.Array, centre: jax.Array, coarser: tuple[jax.Array, jax.Array] | None
  ) -> tuple[jax.Array, jax.Array]:
    """Features of this level, (offset features, aligned features) of the coarser one -> those of this one.

    All are (B, T, h, w, C) but `centre`, which is (B, 1, h, w, C); `own` is what the neighbours add to `offset1`.
    """
    offset = leaky_relu(sum_of(self.offset1, own, part_of(self.offset1, centre, first=own.shape[-1])))
    if coarser is not None:
      # Offsets double with the resolution: here the features they will be made from do, as published.
      offset = leaky_relu(conv_of_parts(self.offset_merge, offset, 2 * per_frame(bilinear_up2, coarser[0])))
    offset = leaky_relu(per_frame(self.offset2, offset))
    aligned = per_frame(self.warp, neighbours, offset)
    if coarser is not None:
      aligned = conv_of_parts(self.merge, aligned, per_frame(bilinear_up2, coarser[1]))
    return offset, leaky_relu(aligned) if self.activate else aligned


class PCD(nnx.Module):
  """Pyramid, cascading and deformable alignment of every frame of a window to its centre (the centre included).

  Args:
    width: channels.
    groups: deformable groups.

  Call: pyramid of a window, [(B, T, h, w, C), (B, T, h/2, w/2, C), (B, T, h/4, w/4, C)] -> (B, T, h, w, C).
  """

  def __init__(self, width: int, groups: int = 8, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.levels = nnx.List(
      [
        # The finest level has no activation: the cascade follows.
        PCDLevel(width, groups, f'pcd_level{k}', coarsest=k == 3, activate=k > 1, **how)
        for k in (1, 2, 3)
      ]
    )
    self.cascade1 = conv(2 * width, width, **how)
    self.cascade2 = conv(width, width, **how)
    self.cascade_warp = DeformConv(width, width, width, groups, label='pcd_cascade', **how)

  def own(self, pyramid: Pyramid) -> Pyramid:
    """Compute the part of the offsets that each frame alone decides, whatever the centre: shapes as they came."""
    return [part_of(level.offset1, x) for level, x in zip(self.levels, pyramid, strict=True)]

  def __call__(self, pyramid: Pyramid, own: Pyramid | None = None) -> jax.Array:
    """`own` is that of the pyramid, where it was kept."""
    own = self.own(pyramid) if own is None else own
    middle = pyramid[0].shape[1] // 2
    centres = [x[:, middle : middle + 1] for x in pyramid]
    found = None
    for level, *features in reversed(list(zip(self.levels, pyramid, own, centres, strict=True))):
      found = level(*features, found)
    _, aligned = found
    offset = leaky_relu(conv_of_parts(self.cascade1, aligned, centres[0]))
    return leaky_relu(per_frame(self.cascade_warp, aligned, leaky_relu(per_frame(self.cascade2, offset))))


class ConvFusion(nnx.Module):
  """Fusion without attention: one 1x1 convolution of all frames. Aligned (B, T, h, w, C) -> (B, h, w, C)."""

  def __init__(self, width: int, num_frames: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    centre = dirac(channels=centre_channels(width, num_frames))
    self.fuse = conv(num_frames * width, width, 1, kernel_init=centre, dtype=dtype, rngs=rngs)

  def __call__(self, aligned: jax.Array) -> jax.Array:
    return leaky_relu(self.fuse(_frames_as_channels(aligned)))


class TSA(nnx.Module):
  """Temporal and spatial attention fusion: aligned (B, T, h, w, C) -> (B, h, w, C), h and w multiples of 4.

  Args:
    width: channels.
    num_frames: of the window.
  """

  def __init__(self, width: int, num_frames: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.embed_centre = conv(width, width, **how)
    self.embed = conv(width, width, **how)
    # Doubled, since the temporal weights start near one half; the spatial gate starts near one.
    centre = dirac(2.0, centre_channels(width, num_frames))
    self.fuse = conv(num_frames * width, width, 1, kernel_init=centre, **how)
    self.spatial0 = conv(num_frames * width, width, 1, **how)
    self.spatial1 = conv(2 * width, width, 1, **how)
    self.spatial2_reduce = conv(width, width, 1, **how)
    self.spatial2_merge = conv(2 * width, width, **how)
    self.spatial2_last = conv(width, width, **how)
    self.up1 = conv(width, width, **how)
    self.up0_mix = conv(width, width, 1, **how)
    self.up0_last = conv(width, width, **how)
    self.add1 = conv(width, width, 1, **how)
    self.add2 = conv(width, width, 1, **how)

  def temporal_weights(self, aligned: jax.Array) -> jax.Array:
    """How much each frame resembles the centre: one map per frame in (0, 1), (B, T, h, w, 1), float32."""
    b, t = aligned.shape[:2]
    centre = self.embed_centre(aligned[:, t // 2])
    each = self.embed(aligned.reshape(b * t, *aligned.shape[2:])).reshape(aligned.shape)
    return jax.nn.sigmoid((each * centre[:, None]).astype(jnp.float32).sum(axis=-1, keepdims=True))

  def __call__(self, aligned: jax.Array) -> jax.Array:
    weighted = _frames_as_channels(aligned * self.temporal_weights(aligned).astype(aligned.dtype))
    fused = leaky_relu(self.fuse(weighted))
    s0 = leaky_relu(self.spatial0(weighted))
    s1 = leaky_relu(self.spatial1(_pooled(s0)))
    s2 = leaky_relu(self.spatial2_merge(_pooled(leaky_relu(self.spatial2_reduce(s1)))))
    s2 = leaky_relu(self.spatial2_last(s2))
    s1 = leaky_relu(self.up1(s1)) + bilinear_up2(s2)
    s0 = self.up0_last(bilinear_up2(leaky_relu(self.up0_mix(s1))))
    gate = 2 * jax.nn.sigmoid(s0.astype(jnp.float32)).astype(fused.dtype)
    return fused * gate + self.add2(leaky_relu(self.add1(s0)))


def centre_channels(width: int, num_frames: int) -> range:
  """Where `width` channels of the centre frame lie among those of all frames side by side."""
  return range(num_frames // 2 * width, (num_frames // 2 + 1) * width)


def _frames_as_channels(x: jax.Array) -> jax.Array:
  """(B, T, h, w, C) -> (B, h, w, T*C), frame by frame."""
  b, t, h, w, c = x.shape
  return x.transpose(0, 2, 3, 1, 4).reshape(b, h, w, t * c)


def _pooled(x: jax.Array) -> jax.Array:
  return jnp.concatenate([max_pool3(x), avg_pool3(x)], axis=-1)


class ShuffleTail(nnx.Module):
  """Features at 1/4 to an image that is added to the centre frame: (B, h, w, C) -> (B, 4h, 4w, 3), float32.

  Training starts at the identity, see `last_conv`.

  Args:
    width: channels C.
    full_width: channels at full resolution.
    half_width: channels at half the resolution, 12 or more; `width` if None.
  """

  def __init__(
    self, width: int, full_width: int = 64, half_width: int | None = None, *, dtype: jnp.dtype, rngs: nnx.Rngs
  ):
    how, half_width = dict(dtype=dtype, rngs=rngs), half_width or width
    self.up = nnx.List(
      [
        conv(width, 4 * half_width, kernel_init=dirac(), **how),
        conv(half_width, 4 * full_width, kernel_init=dirac(channels=SHUFFLED), **how),
      ]
    )
    self.conv = conv(full_width, full_width, kernel_init=dirac(), **how)
    self.last = last_conv(full_width, dtype=dtype, rngs=rngs)

  def features(self, x: jax.Array) -> jax.Array:
    """Make the features of the last convolution: (B, h, w, C) -> (B, 4h, 4w, full_width)."""
    for layer in self.up:
      x = pixel_shuffle(leaky_relu(layer(x)), 2)  # the same as after the shuffle, in one pass over memory
    return leaky_relu(self.conv(x))

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.last(self.features(x)).astype(jnp.float32)


def last_conv(width: int, size: int = 3, cout: int = 3, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Conv:
  """The convolution to RGB, or to `cout` channels that become RGB, before an image residual.

  It starts at zero, the network at the identity. From random values the loss falls fastest when the features in front
  of it vanish, and they do within 20 updates.
  """
  zeros = nnx.initializers.zeros_init()
  return conv(width, cout, size, kernel_init=zeros, bias_init=zeros, dtype=dtype, rngs=rngs)
