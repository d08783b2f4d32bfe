"""Modulated deformable convolution, version 2 (Zhu et al. 2019), and the layer that EDVR builds on it."""

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers import diagnostics
from vqm_jax.layers.conv import conv


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

  Args:
    x: (N, H, W, C), float32 or bfloat16.
    offset: (N, H', W', G, K, 2) float32, (dy, dx) in pixels of x; tap k = kw * ky + kx; H' = ceil(H / stride).
    mask: (N, H', W', G, K), the weight of each read.
    kernel: (kh, kw, C, O), odd kh and kw.
    bias: (O,) or None.
    stride, dilation: of the undisplaced taps.

  Returns:
    (N, H', W', O) in x's dtype. Group g of the G slices of the channels uses offset and mask g. What lies outside of
    x reads as zero.
  """
  n, h, w, c = x.shape
  oh, ow, groups, taps = offset.shape[1:5]
  kh, kw = kernel.shape[:2]
  base_y = jnp.arange(oh) * stride
  base_x = jnp.arange(ow) * stride
  ky, kx = jnp.divmod(jnp.arange(taps), kw)
  y = base_y[:, None, None, None] + (ky - kh // 2) * dilation + offset[..., 0]
  z = base_x[None, :, None, None] + (kx - kw // 2) * dilation + offset[..., 1]
  y0, x0 = jnp.floor(y), jnp.floor(z)
  fy, fx = y - y0, z - x0
  rows = x.reshape(n * h * w * groups, c // groups)
  first = jnp.arange(n)[:, None, None, None, None]
  group = jnp.arange(groups)[:, None]
  columns = 0.0
  for dy, wy in ((0, 1 - fy), (1, fy)):
    for dx, wx in ((0, 1 - fx), (1, fx)):
      cy, cx = y0 + dy, x0 + dx
      inside = (cy >= 0) & (cy < h) & (cx >= 0) & (cx < w)
      iy = jnp.clip(cy, 0, h - 1).astype(jnp.int32)
      ix = jnp.clip(cx, 0, w - 1).astype(jnp.int32)
      index = ((first * h + iy) * w + ix) * groups + group
      columns += jnp.where(inside, wy * wx * mask, 0.0)[..., None] * rows[index]
  folded = kernel.reshape(taps, groups, c // groups, -1).swapaxes(0, 1)
  out = jnp.einsum('nhwgkc,gkco->nhwo', columns.astype(x.dtype), folded.astype(x.dtype))
  return out if bias is None else out + bias.astype(out.dtype)


class DeformConv(nnx.Module):
  """3x3 deformable convolution whose offsets and masks come from guiding features ("DCN pack" of EDVR).

  A convolution of the guide, zero at first, gives 27 channels per group: 18 offsets (dy, dx per tap), then 9 mask
  logits. A fresh layer is therefore half of an ordinary convolution, because every mask is sigmoid(0).

  Args:
    cin, cout: channels of input and output.
    guide: channels of the guide.
    groups: deformable groups.
    label: what the sizes of its offsets are recorded under.
    dtype: compute dtype; offsets, coordinates and masks stay float32.

  Call: x (B, H, W, cin), guide (B, H, W, guide) -> (B, H, W, cout).
  """

  def __init__(self, cin, cout, guide, groups=8, *, label, dtype=jnp.float32, rngs: nnx.Rngs):
    zeros = nnx.initializers.zeros_init()
    self.guide = conv(
      guide,
      27 * groups,
      kernel_init=zeros,
      bias_init=zeros,
      preferred_element_type=jnp.float32,
      dtype=dtype,
      rngs=rngs,
    )
    bound = (9 * cin) ** -0.5
    kernel = jax.random.uniform(rngs.params(), (3, 3, cin, cout), minval=-bound, maxval=bound)
    self.kernel = nnx.Param(kernel)
    self.bias = nnx.Param(jnp.zeros(cout))
    self.groups = groups
    self.label = label
    self.dtype = dtype

  def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
    raw = self.guide(guide).astype(jnp.float32)
    offset, logits = jnp.split(raw, [18 * self.groups], axis=-1)
    shape = (*raw.shape[:3], self.groups, 9)
    offset, mask = offset.reshape(*shape, 2), jax.nn.sigmoid(logits.reshape(shape))

    def size():
      distance = jnp.abs(offset)
      return {f'offset/{self.label}_mean': distance.mean(), f'offset/{self.label}_max': distance.max()}

    diagnostics.record(size)
    return modulated_deform_conv2d(x.astype(self.dtype), offset, mask, self.kernel[...], self.bias[...])
