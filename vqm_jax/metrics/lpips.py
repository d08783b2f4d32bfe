"""LPIPS v0.1, the learned perceptual distance of Zhang et al. (CVPR 2018), as the package lpips 0.1.4 computes it.

Features of both frames, at each tap divided by their norm over channels; squared differences weighted by the head's
number for each channel; mean over places, sum over taps. Lower is more alike. `alex` is the package's default; the
challenge did not say which network it used, and values of different networks do not compare.

A process that compares 1080p frames on CPUs peaks at 0.5 GB with alex, 1.0 GB with squeeze and 2.9 GB with vgg; a pair
takes 3, 4 and 53 seconds on two busy cores.
"""

import functools
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vqm_jax import errors, perceptual

_EPSILON = 1e-10


class LpipsWeights(NamedTuple):
  """A feature network and the head that weighs its channels."""

  trunk: perceptual.Weights
  heads: perceptual.Weights


def lpips_weights(
  net: str = 'alex', path: str | os.PathLike | None = None, *, setting: str = '', allow_random: bool = False
) -> LpipsWeights:
  """Read converted weights of a feature network and its head.

  Args:
    net: 'alex', 'vgg' or 'squeeze'.
    path: folder of the npz files; the default one of `perceptual.load` when not given.
    setting: the flag or field that `path` came from, for messages.
    allow_random: for tests: random weights where files are missing.

  Raises:
    ConfigError: unknown net.
    MissingWeightsError: there is no such file; says where to get it and how to convert it.
    DataError: a file is damaged, was changed, or holds another network.
  """
  heads = f'lpips-{net}'
  if heads not in perceptual.HEADS:
    nets = [name.removeprefix('lpips-') for name in perceptual.HEADS]
    raise errors.ConfigError(f'lpips: expected one of {nets}, found {net!r}.')
  load = functools.partial(
    perceptual.load, path=path, needed_by=f'LPIPS ({net})', setting=setting, allow_random=allow_random
  )
  return LpipsWeights(load(perceptual.HEADS[heads]), load(heads))


def lpips(pred: np.ndarray, target: np.ndarray, weights: LpipsWeights) -> np.ndarray:
  """Perceptual distance of each frame, whole frames, one pair at a time.

  Args:
    pred: RGB (..., H, W, 3), uint8, or float in [0, 1]; NumPy or JAX.
    target: as `pred`.
    weights: of `lpips_weights`.

  Returns:
    float64 (...), 0 for identical frames; float32 inside.

  Raises:
    DataError: shapes or dtypes differ or are not these, values leave [0, 1], frames are too small for the network.
  """
  if pred.shape != target.shape or pred.dtype != target.dtype:
    raise errors.DataError(
      'Frames to compare must have one shape and dtype, '
      f'found {pred.dtype} {pred.shape} and {target.dtype} {target.shape}.'
    )
  if pred.ndim < 3 or pred.shape[-1] != 3 or not (pred.dtype == np.uint8 or jnp.issubdtype(pred.dtype, jnp.floating)):
    raise errors.DataError(
      f'Frames to compare must be (..., H, W, 3), uint8 or float in [0, 1], found {pred.dtype} {pred.shape}.'
    )
  lead, frame = pred.shape[:-3], pred.shape[-3:]
  pairs = zip(pred.reshape(-1, *frame), target.reshape(-1, *frame), strict=True)
  return np.array([_distance(a, b, weights) for a, b in pairs], np.float64).reshape(lead)


def _distance(a, b, weights: LpipsWeights) -> float:
  pair = jnp.stack([a, b])
  # Not by minimum and maximum: XLA's on CPUs pass over what is not a number.
  if pair.dtype != np.uint8 and not ((pair >= 0) & (pair <= 1)).all():
    raise errors.DataError('Float frames must be in [0, 1], found other values; scale and clip them first.')
  # Rows are averaged on the host: float32 sums over millions of places lose digits.
  return sum(np.asarray(rows).mean(dtype=np.float64) for rows in _rows(pair, weights))


@jax.jit
def _rows(pair, weights: LpipsWeights):
  """The distance at each tap, averaged over each row of places: float32 (h,) for each."""
  images = pair.astype(jnp.float32) / (255 if pair.dtype == jnp.uint8 else 1)
  taps = perceptual.TAPS[weights.trunk.net]
  # One after the other, so that only one frame's largest features are held; TF32 would be a thousandth off.
  a, b = (
    perceptual.features(weights.trunk, images[k : k + 1], tuple(taps), precision=jax.lax.Precision.HIGHEST)
    for k in (0, 1)
  )
  heads = [weights.heads.arrays[f'lin{k}'] for k in range(len(taps))]
  return [
    ((_unit(x) - _unit(y)) ** 2 * head).sum(axis=-1)[0].mean(axis=-1) for x, y, head in zip(a, b, heads, strict=True)
  ]


def _unit(x):
  return x / (jnp.sqrt((x * x).sum(axis=-1, keepdims=True)) + _EPSILON)
