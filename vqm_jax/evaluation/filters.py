"""Filters that a restorer should beat: classic ones, and the best 5x5 linear filter.

Functions of single frames, float32 (B, H, W, 3) in [0, 1], to frames of the same shape; borders are reflected without
repeating the edge. They tell a network's gain from mere smoothing.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np


def gaussian(frames: jax.Array, strength: float) -> jax.Array:
  """Blend frames with their 3x3 binomial blur: (1 - strength) * frame + strength * blur."""
  w = (0.25, 0.5, 0.25)
  blur = sum(w[k // 3] * w[k % 3] * neighbour for k, neighbour in enumerate(_neighbours(frames, 1)))
  return frames + strength * (blur - frames)


def median(frames: jax.Array, strength: float) -> jax.Array:
  """Blend frames with their 3x3 median per channel, as `gaussian` does with the blur."""
  x = _neighbours(frames, 1)
  # Median of nine by a network of minima and maxima; a sort is many times slower on CPU.
  low, mid, high = zip(*(_sort3(*x[k : k + 3]) for k in (0, 3, 6)), strict=True)
  middle = _sort3(_sort3(*low)[2], _sort3(*mid)[1], _sort3(*high)[0])[1]
  return frames + strength * (middle - frames)


def bilateral(frames: jax.Array, sigma: float) -> jax.Array:
  """5x5 bilateral filter, spatial sigma 1.5 pixels, range `sigma` on the RGB distance in [0, 1]."""
  total, weights = jnp.zeros_like(frames), jnp.zeros_like(frames[..., :1])
  for k, neighbour in enumerate(_neighbours(frames, 2)):
    space = ((k // 5 - 2) ** 2 + (k % 5 - 2) ** 2) / (2 * 1.5**2)
    distance = ((neighbour - frames) ** 2).sum(axis=-1, keepdims=True) / (2 * sigma**2)
    weight = jnp.exp(-space - distance)
    total, weights = total + weight * neighbour, weights + weight
  return total / weights


def candidates() -> dict[str, Callable[[jax.Array], jax.Array]]:
  """The classic filters at a few strengths each, by name."""
  grid = [(f, strength) for f in (gaussian, median) for strength in (0.1, 0.2, 0.35, 0.5)]
  grid += [(bilateral, sigma) for sigma in (0.02, 0.035, 0.05, 0.07, 0.1)]
  return {f'{f.__name__} {value}': lambda x, f=f, v=value: f(x, v) for f, value in grid}


def fit_linear(pairs: Iterable[tuple[np.ndarray, np.ndarray]], radius: int = 2) -> np.ndarray:
  """The linear filter with the least squared error from inputs to targets.

  Every output channel sees the (2 radius + 1)^2 neighbours of all three input channels, and a bias.
  Only pixels whose whole neighbourhood lies in the frame are fitted.

  Args:
    pairs: (input, target) frames (H, W, 3) in [0, 1], any sizes.
    radius: of the neighbourhood.

  Returns:
    float64 ((2 radius + 1)^2 * 3 + 1, 3) for `linear`: rows in order (dy, dx, channel), bias last.
  """
  size = 2 * radius + 1
  inputs = size * size * 3 + 1
  normal, moment = np.zeros((inputs, inputs)), np.zeros((inputs, 3))
  for x, y in pairs:
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (size, size), (0, 1))
    rows = np.moveaxis(windows, 2, -1).reshape(-1, inputs - 1)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    targets = y[radius : y.shape[0] - radius, radius : y.shape[1] - radius].reshape(-1, 3)
    normal += rows.T @ rows
    moment += rows.T @ targets.astype(np.float64)
  # Flat or grey training frames leave directions without evidence; those weights become small.
  return np.linalg.lstsq(normal, moment, rcond=1e-13)[0]


def linear(frames: jax.Array, weights: np.ndarray) -> jax.Array:
  """Apply the filter that `fit_linear` returned."""
  size = round(((len(weights) - 1) / 3) ** 0.5)
  kernel = jnp.asarray(weights[:-1].reshape(size, size, 3, 3), jnp.float32)
  return jax.lax.conv_general_dilated(
    _reflected(frames, size // 2),
    kernel,
    (1, 1),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision='highest',
  ) + jnp.asarray(weights[-1], jnp.float32)


def _reflected(frames: jax.Array, radius: int) -> jax.Array:
  return jnp.pad(frames, ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode='reflect')


def _neighbours(frames: jax.Array, radius: int) -> list[jax.Array]:
  """The frames shifted by every offset of the neighbourhood, row by row."""
  height, width = frames.shape[1:3]
  padded = _reflected(frames, radius)
  offsets = range(2 * radius + 1)
  return [padded[:, dy : dy + height, dx : dx + width] for dy in offsets for dx in offsets]


def _sort3(a, b, c):
  low, high = jnp.minimum(a, b), jnp.maximum(a, b)
  return jnp.minimum(low, c), jnp.maximum(low, jnp.minimum(high, c)), jnp.maximum(high, c)
