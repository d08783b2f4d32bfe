"""Changes of resolution: pixel shuffle in PyTorch's channel order, doubling, strided pooling.

Written as reshapes and shifted slices: on CPU these are several times faster than `jax.image.resize` and
`reduce_window`, at the same values.
"""

import jax
import jax.numpy as jnp


def pixel_shuffle(x: jax.Array, r: int) -> jax.Array:
  """Move channels to space: x (B, H, W, C*r*r) -> (B, H*r, W*r, C); channel c*r*r + i*r + j goes to (i, j)."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, c // (r * r), r, r)
  return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, h * r, w * r, c // (r * r))


def pixel_unshuffle(x: jax.Array, r: int) -> jax.Array:
  """Move space to channels, the inverse of `pixel_shuffle`: x (B, H, W, C) -> (B, H/r, W/r, C*r*r)."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // r, r, w // r, r, c)
  return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, h // r, w // r, c * r * r)


def bilinear_up2(x: jax.Array) -> jax.Array:
  """Double height and width, bilinear with half-pixel centres: x (B, H, W, C) -> (B, 2H, 2W, C)."""
  return _double(_double(x, 1), 2)


def nearest_up2(x: jax.Array) -> jax.Array:
  """Double height and width, each pixel four times: x (B, H, W, C) -> (B, 2H, 2W, C)."""
  b, h, w, c = x.shape
  return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def _double(x: jax.Array, axis: int) -> jax.Array:
  size = x.shape[axis]
  first, last = jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
  before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis=axis)
  after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis=axis)
  pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis=axis + 1)
  return pair.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def max_pool3(x: jax.Array) -> jax.Array:
  """3x3 maximum with stride 2 inside the image: x (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), C)."""
  a, b, c = _rows_of_three(x, 1, -jnp.inf)
  a, b, c = _rows_of_three(jnp.maximum(jnp.maximum(a, b), c), 2, -jnp.inf)
  return jnp.maximum(jnp.maximum(a, b), c)


def avg_pool3(x: jax.Array) -> jax.Array:
  """3x3 mean with stride 2, zeros outside the image counted: x (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), C)."""
  return sum(_rows_of_three(sum(_rows_of_three(x, 1, 0.0)), 2, 0.0)) / 9


def _rows_of_three(x: jax.Array, axis: int, outside: float) -> list[jax.Array]:
  """The three neighbours along `axis` of every second place."""
  padding = [(1, 1) if k == axis else (0, 0) for k in range(x.ndim)]
  x = jnp.pad(x, padding, constant_values=outside)
  last = 2 * ((x.shape[axis] - 3) // 2) + 1
  return [jax.lax.slice_in_dim(x, k, k + last, stride=2, axis=axis) for k in range(3)]
