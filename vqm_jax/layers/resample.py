"""Pixel shuffle and unshuffle in PyTorch's channel order, which the published networks assume."""

import jax


def pixel_shuffle(x: jax.Array, r: int) -> jax.Array:
  """Moves channels to space: x (B, H, W, C*r*r) -> (B, H*r, W*r, C); channel c*r*r + i*r + j goes to (i, j)."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, c // (r * r), r, r)
  return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, h * r, w * r, c // (r * r))


def pixel_unshuffle(x: jax.Array, r: int) -> jax.Array:
  """Moves space to channels, the inverse of `pixel_shuffle`: x (B, H, W, C) -> (B, H/r, W/r, C*r*r)."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // r, r, w // r, r, c)
  return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, h // r, w // r, c * r * r)
