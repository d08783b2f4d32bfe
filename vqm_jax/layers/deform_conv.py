"""Modulated deformable convolution, version 2 (Zhu et al. 2019), and the layer that EDVR builds on it.

The operator is plain JAX, arranged so that it runs well without a kernel of its own:

    x ── padded, as rows of C/G numbers ──┐
    offset ── row numbers, weights ───────┴─ per step: four reads, weighted ── matmul with its kernel ── sum of steps

A step is one tap on CPUs, where columns of one tap stay in the cache, and all taps elsewhere. Rows and weights are
prepared before they are used, behind a barrier. XLA would otherwise merge their arithmetic into the reads and repeat
it for every channel, and pad x again at every read, which is what makes the obvious form slow. Taps come before groups
everywhere, as in the columns: nothing is transposed. The gradient walks the steps in the same way, from the inputs
alone, and never holds the columns of more than one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vqm_jax.layers import diagnostics
from vqm_jax.layers.conv import conv
from vqm_jax.layers.cpu_convolution import convolution
from vqm_jax.layers.initializers import dirac

# Zeros around x. Places are clipped to [-2, size], where all neighbours are such zeros: what lies outside needs no
# further care, in values and in gradients.
_PAD = 2


# How many output positions, at most, and how many taps are worked on at a time; this bounds the temporaries. Measured
# on CPU: tiles of 2,000 to 8,000 positions take about the same time; smaller ones pay for the loop, larger ones leave
# the cache. On accelerators every turn of a loop costs launches, and what comes before it is written to memory: a tile
# holds the five 1080p frames of an EDVR at a quarter of their size (2 GB of temporaries with 64 channels in bfloat16),
# in the gradient a quarter of that.
_CPU_TILE = 6144, 1
_READS = 1 << 23


def modulated_deform_conv2d(
  x: jax.Array,
  offset: jax.Array,
  mask: jax.Array,
  kernel: jax.Array,
  bias: jax.Array | None = None,
  *,
  stride: int = 1,
  dilation: int = 1,
) -> jax.Array:
  """Convolution whose every tap reads, bilinearly, at its own displaced place.

  out[y, x] = bias + sum over taps k and groups g of mask[y, x, k, g] * kernel[k, slice g] . x[slice g] read at
  (y * stride + (ky - kh // 2) * dilation + dy, x * stride + (kx - kw // 2) * dilation + dx).

  A read is the weighted mean of the pixels at floor and floor + 1; pixels outside of x are zero. At whole numbers,
  where the gradient of the offset has two sides, it is the one towards larger coordinates.

  Args:
    x: (N, H, W, C), float32 or bfloat16.
    offset: (N, H', W', 2, K, G) float32, dy and dx in pixels of x; tap k = kw * ky + kx; H' = ceil(H / stride).
    mask: (N, H', W', K, G) float32, the weight of each read.
    kernel: (kh, kw, C, O), odd kh and kw.
    bias: (O,) or None.
    stride, dilation: of the undisplaced taps.

  Returns:
    (N, H', W', O) in x's dtype. Group g of the G slices of the channels uses offset and mask g. Coordinates, weights
    of reads and all sums are float32 whatever x is: in bfloat16 a coordinate above 256 would be off by a pixel.

  Raises:
    ValueError: shapes that do not fit each other.
  """
  _check_shapes(x, offset, mask, kernel, bias, stride)
  # Inside shard_map parameters may be equal on all devices while data differ. The sum with this zero, which the
  # compiler removes, marks all of them as different, as the loops below and their gradients need.
  zero = sum(jnp.zeros_like(v, jnp.float32, shape=()) for v in (x, offset, mask, kernel))
  x, offset, mask, kernel = (v + zero.astype(v.dtype) for v in (x, offset, mask, kernel))
  out = _deform_conv(x, offset.astype(jnp.float32), mask.astype(jnp.float32), kernel, stride, dilation)
  # The gradient of the bias is a sum over all positions: float32, too.
  return out if bias is None else (out.astype(jnp.float32) + bias).astype(x.dtype)


def _check_shapes(x, offset, mask, kernel, bias, stride):
  def require(name, value, axes, expected):
    if value.shape != expected:
      raise ValueError(f'{name} must be {axes} = {expected}, got {value.shape}.')

  for name, value, axes, ndim in (
    ('x', x, '(N, H, W, C)', 4),
    ('offset', offset, "(N, H', W', 2, K, G)", 6),
    ('kernel', kernel, '(kh, kw, C, O)', 4),
  ):
    if value.ndim != ndim:
      raise ValueError(f'{name} must be {axes}, got {value.shape}.')
  n, h, w, c = x.shape
  kh, kw, _, cout = kernel.shape
  groups = offset.shape[5]
  if kh % 2 == 0 or kw % 2 == 0:
    raise ValueError(f'kernel must be odd in height and width, got {kh}x{kw}.')
  require('kernel', kernel, '(kh, kw, C, O) for the C of x', (kh, kw, c, cout))
  places, reads = (n, -(-h // stride), -(-w // stride)), (kh * kw, groups)
  given = f'x {x.shape}, kernel {kh}x{kw}, stride {stride}'
  require('offset', offset, f"(N, H', W', 2, K, G) for {given}", (*places, 2, *reads))
  require('mask', mask, "(N, H', W', K, G) like offset", (*places, *reads))
  if groups == 0 or c % groups:
    raise ValueError(f'the {c} channels of x must divide into the {groups} groups of offset.')
  if bias is not None:
    require('bias', bias, '(O,)', (cout,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _deform_conv(x, offset, mask, kernel, stride, dilation):
  taps = mask.shape[3]
  of_tile = functools.partial(_output, stride=stride, dilation=dilation)
  return _by_platform(of_tile, (_READS // taps, taps))(x, offset, mask, kernel)


def _by_platform(function, tile):
  """The function of (tile, *arrays) with the tile of CPUs there, and with this one elsewhere."""
  on_cpu, elsewhere = (functools.partial(function, each) for each in (_CPU_TILE, tile))
  return lambda *arrays: jax.lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)


def _output(tile, x, offset, mask, kernel, *, stride, dilation):
  positions, taps = tile
  table, corners, weights = _table(x, mask), _corners(x, mask), _step_kernels(kernel, x, taps)

  def one_tile(tile):
    reads = _reads(*tile, x.shape, kernel.shape, stride, dilation, taps)

    def one_step(total, step):
      (first, *place), weight = step
      first, *bilinear = _made((first, *_bilinear(*place)))
      column = sum(a[:, None] * v for a, v in zip(bilinear, _gather(table, first, corners), strict=True))
      return total + _dot(column.astype(x.dtype).reshape(-1, weight.shape[0]), weight), None

    total = jnp.zeros_like(x, jnp.float32, shape=(tile[1].shape[0] * tile[1].shape[1], weights.shape[-1]))
    return jax.lax.scan(one_step, total, (reads, weights))[0].astype(x.dtype)

  return jax.lax.map(one_tile, _tiles(offset, mask, stride, positions)).reshape(*mask.shape[:3], -1)


def _forward(x, offset, mask, kernel, stride, dilation):
  return _deform_conv(x, offset, mask, kernel, stride, dilation), (x, offset, mask, kernel)


def _backward(stride, dilation, inputs, gradient):
  taps = inputs[2].shape[3]
  of_tile = functools.partial(_gradients, stride=stride, dilation=dilation)
  return _by_platform(of_tile, (_READS // (4 * taps), taps))(*inputs, gradient)


_deform_conv.defvjp(_forward, _backward)


def _gradients(tile, x, offset, mask, kernel, gradient, *, stride, dilation):
  positions, taps = tile
  table, corners = _table(x, mask), _corners(x, mask)
  # Output channels first: with this and the gradient transposed once, the matmuls below need no transposition.
  weights = _step_kernels(kernel, x, taps).swapaxes(1, 2)

  def one_tile(carry, inputs_of_tile):
    tile, gradient = inputs_of_tile
    dtable, dweights = carry
    reads = _reads(*tile, x.shape, kernel.shape, stride, dilation, taps)
    transposed = gradient.T

    def one_step(dtable, step):
      (first, *place), weight = step
      first, *bilinear = _made((first, *_bilinear(*place)))
      dcolumn = _dot(gradient, weight).reshape(-1, table.shape[1])
      values = _gather(table, first, corners)
      column = sum(a[:, None] * v for a, v in zip(bilinear, values, strict=True))
      for corner, a in zip(corners, bilinear, strict=True):
        dtable = dtable.at[first + corner].add(a[:, None] * dcolumn, mode='promise_in_bounds')
      dweight = _dot(transposed, column.astype(x.dtype).reshape(-1, weight.shape[1]))
      # Stacked: measured faster than four results of the loop.
      dbilinear = jnp.stack([_sum_of_channels(v * dcolumn) for v in values])
      return dtable, (dbilinear, dweight)

    dtable, (dbilinear, dweight) = jax.lax.scan(one_step, dtable, (reads, weights))
    doffset, dmask = _through_bilinear(dbilinear.swapaxes(0, 1), *reads[1:])
    shape = tile[1].shape
    doffset = jnp.stack([_steps_last(d, shape) for d in doffset], axis=2)
    return (dtable, dweights + dweight), (doffset, _steps_last(dmask, shape))

  tiles = _tiles(offset, mask, stride, positions)
  gradient = gradient.reshape(tiles[1].shape[0], -1, gradient.shape[-1])
  # Many reads share a pixel: their sum is float32 whatever x is.
  zeros = jnp.zeros_like(table, jnp.float32), jnp.zeros_like(weights, jnp.float32)
  (dtable, dweights), (doffset, dmask) = jax.lax.scan(one_tile, zeros, (tiles, gradient))
  n, h, w, c = x.shape
  dx = dtable.reshape(n, h + 2 * _PAD, w + 2 * _PAD, c)[:, _PAD:-_PAD, _PAD:-_PAD].astype(x.dtype)
  return (
    dx,
    doffset.reshape(offset.shape),
    dmask.reshape(mask.shape),
    dweights.swapaxes(1, 2).reshape(kernel.shape).astype(kernel.dtype),
  )


def _table(x, mask):
  """The padded image as rows (N * (H + 4) * (W + 4) * G, C / G): no transposition."""
  pad = (_PAD, _PAD)
  return _made(jnp.pad(x, ((0, 0), pad, pad, (0, 0))).reshape(-1, x.shape[-1] // mask.shape[4]))


def _corners(x, mask):
  """How many rows of the table the four neighbours of a place are after the first: (y, x) = 00, 01, 10, 11."""
  groups = mask.shape[4]
  line = (x.shape[2] + 2 * _PAD) * groups
  return tuple(map(np.uint32, (0, groups, line, line + groups)))


def _step_kernels(kernel, x, taps):
  """(K / taps, taps * C, O) in x's dtype."""
  return kernel.reshape(-1, taps * kernel.shape[2], kernel.shape[3]).astype(x.dtype)


def _tiles(offset, mask, stride, positions):
  """Split the N * H' lines of the output in equal tiles of at most so many positions, or of one line.

  Returns offset (tiles, lines, W', 2, K, G), mask (tiles, lines, W', K, G), and for each line, (tiles, lines), the
  image that it belongs to and its place in it. When the number of lines is a large prime, tiles are single lines:
  the same result at up to one and a half times the time.
  """
  n, height, width = mask.shape[:3]
  lines = n * height
  size = max(d for d in range(1, lines + 1) if lines % d == 0 and d * width <= max(positions, width))
  image, y = np.divmod(np.arange(lines), height)
  flat = offset.reshape(lines, *offset.shape[2:]), mask.reshape(lines, *mask.shape[2:]), image, y * stride
  return tuple(v.reshape(-1, size, *v.shape[1:]) for v in flat)


def _reads(offset, mask, image, y, x_shape, kernel_shape, stride, dilation, taps):
  """Prepare what every step reads in a tile: first row of the table, fractions (y, x) and mask.

  Each is (K / taps, lines * W' * taps * G).
  """
  _, h, w, _ = x_shape
  kh, kw = kernel_shape[:2]
  width, groups = mask.shape[1], mask.shape[3]

  def along(axis, values):
    return jnp.expand_dims(values, tuple(a for a in range(4) if a != axis))

  def split(place, size):
    place = jnp.clip(place, -_PAD, size)
    low = jnp.floor(place)
    return low.astype(jnp.int32) + _PAD, place - low

  ky, kx = np.divmod(np.arange(kh * kw), kw)
  base_y = along(2, (ky - kh // 2) * dilation) + along(0, y)
  base_x = along(2, (kx - kw // 2) * dilation) + along(1, np.arange(width) * stride)
  iy, fy = split(base_y + offset[:, :, 0], h)
  ix, fx = split(base_x + offset[:, :, 1], w)
  first = ((along(0, image) * (h + 2 * _PAD) + iy) * (w + 2 * _PAD) + ix) * groups + along(3, np.arange(groups))
  # Unsigned: JAX would look for negative indices, and count them from the end, before every read.
  return tuple(_steps_first(v, taps) for v in (first.astype(jnp.uint32), fy, fx, mask))


def _bilinear(fy, fx, mask):
  """Weights of the four neighbours."""
  left, right = (1 - fx) * mask, fx * mask
  return (1 - fy) * left, (1 - fy) * right, fy * left, fy * right


def _through_bilinear(dbilinear, fy, fx, mask):
  """Gradients (dfy, dfx), dmask of `_bilinear`."""
  d00, d01, d10, d11 = dbilinear
  top, bottom = d00 + fx * (d01 - d00), d10 + fx * (d11 - d10)
  left, right = d00 + fy * (d10 - d00), d01 + fy * (d11 - d01)
  return (mask * (bottom - top), mask * (right - left)), top + fy * (bottom - top)


def _gather(table, first, corners):
  # In bounds because places are clipped; XLA itself clamps, so that even a NaN in offset reads something.
  return [table.at[first + corner].get(mode='promise_in_bounds').astype(jnp.float32) for corner in corners]


def _made(values):
  """The values, written to memory before anything uses them."""
  return jax.lax.optimization_barrier(values)


def _steps_first(values, taps):
  """(lines, W', K, G) -> (K / taps, lines * W' * taps * G)."""
  lines, width, _, groups = values.shape
  return jnp.moveaxis(values.reshape(lines, width, -1, taps, groups), 2, 0).reshape(values.shape[2] // taps, -1)


def _steps_last(values, shape):
  """The way back of `_steps_first`, to `shape`."""
  lines, width, _, groups = shape
  return jnp.moveaxis(values.reshape(values.shape[0], lines, width, -1, groups), 0, 2).reshape(shape)


def _sum_of_channels(x):
  """x.sum(-1) in halves: XLA on CPU is several times slower at the sum over a short last axis."""
  while x.shape[-1] % 2 == 0:
    half = x.shape[-1] // 2
    x = x[:, :half] + x[:, half:]
  return x.sum(-1)


def _dot(a, b):
  return jnp.dot(a, b, preferred_element_type=jnp.float32)


class DeformConv(nnx.Module):
  """3x3 deformable convolution whose offsets and masks come from guiding features ("DCN pack" of EDVR).

  A convolution of the guide, zero at first, gives 27 channels per group: 18 offsets (dy, dx per tap), then 9 mask
  logits. A fresh layer is therefore half of an ordinary convolution, because every mask is sigmoid(0); its kernel
  makes up for that and passes x on (see `initializers.dirac`; EDVR's own starts like any convolution).

  Args:
    cin, cout: channels of input and output.
    guide: channels of the guide.
    groups: deformable groups.
    label: what the sizes of its offsets are recorded under.
    dtype: compute dtype; offsets, coordinates and masks stay float32.

  Call: x (B, H, W, cin), guide (B, H, W, guide) -> (B, H, W, cout).
  """

  def __init__(
    self,
    cin: int,
    cout: int,
    guide: int,
    groups: int = 8,
    *,
    label: str,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    zeros = nnx.initializers.zeros_init()
    self.guide = conv(guide, 27 * groups, kernel_init=zeros, bias_init=zeros, dtype=dtype, rngs=rngs)
    self.kernel = nnx.Param(dirac(2.0)(rngs.params(), (3, 3, cin, cout)))
    self.bias = nnx.Param(jnp.zeros(cout))
    self.groups = groups
    self.label = label
    self.dtype = dtype

  def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
    # The operator wants taps before groups: channels of a small kernel change places, not those of large features.
    kernel, bias = (self._taps_first(param[...].astype(self.dtype)) for param in (self.guide.kernel, self.guide.bias))
    raw = convolution(guide.astype(self.dtype), kernel, (1, 1), ((1, 1), (1, 1))).astype(jnp.float32) + bias
    raw = raw.reshape(*raw.shape[:3], 3, 9, self.groups)
    offset, mask = raw[..., :2, :, :], jax.nn.sigmoid(raw[..., 2, :, :])

    def size():
      distance = jnp.abs(offset)
      return {f'offset/{self.label}_mean': distance.mean(), f'offset/{self.label}_max': distance.max()}

    diagnostics.record(size)
    return modulated_deform_conv2d(x.astype(self.dtype), offset, mask, self.kernel[...], self.bias[...])

  def _taps_first(self, values):
    """Channels (..., 27 * G) by group, tap, y or x, then masks by group, tap -> y, x, masks, each by tap and group."""
    offset, mask = jnp.split(values, [18 * self.groups], axis=-1)
    offset = jnp.moveaxis(offset.reshape(-1, self.groups, 9, 2), (1, 2, 3), (3, 2, 1))
    mask = mask.reshape(-1, 1, self.groups, 9).swapaxes(2, 3)
    return jnp.concatenate([offset, mask], axis=1).reshape(values.shape)
