"""Gaussian blur of small images, for losses: WESPE's colour critic and DACAL's division into frequencies.

Along each axis a product with a banded matrix, which has fast gradients everywhere; convolutions of one channel do not.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from vqm_jax import errors

BLURS = ('dped', 'paper', 'sigma')


def taps(kind: str = 'dped', sigma: float = 3.0) -> np.ndarray:
  """One-dimensional weights, float64, odd length, sum 1.

  Three readings of the "sigma = 3" that WESPE states:

    dped    21 taps of the code of DPED (same authors): square roots of Gaussian areas, standard deviation 4.34 px
    paper   exp(-k^2 / 6), the formula as printed (its 0.053 is 1 / (2 pi 3)), 1.73 px
    sigma   a plain Gaussian of `sigma` px

  Raises ConfigError for another kind, or `sigma` not positive.
  """
  if kind not in BLURS or sigma <= 0:
    raise errors.ConfigError(f'blur={kind!r}, sigma={sigma}: choose one of {", ".join(BLURS)}, and sigma > 0.')
  if kind == 'dped':
    half = 3 + 7 / 21 / 2
    weights = np.sqrt(np.diff(scipy.special.ndtr(np.linspace(-half, half, 22))))
  else:
    variance, radius = (3, 7) if kind == 'paper' else (sigma**2, math.ceil(3.5 * sigma))
    weights = np.exp(-(np.arange(-radius, radius + 1.0) ** 2) / (2 * variance))
  return weights / weights.sum()


def blur(images: jax.Array, kind: str = 'dped', sigma: float = 3.0) -> jax.Array:
  """Blur (..., H, W, C), any H and W; beyond the border pixels are mirrored with the edge, so constants stay.

  float32 in and out; `kind` is one of BLURS, `sigma` the standard deviation in pixels of kind 'sigma'.
  """
  height, width = (_matrix(size, kind, sigma) for size in images.shape[-3:-1])
  rows = jnp.einsum('ij,...jwc->...iwc', height, images, precision=jax.lax.Precision.HIGHEST)
  return jnp.einsum('ij,...hjc->...hic', width, rows, precision=jax.lax.Precision.HIGHEST)


@functools.cache
def _matrix(size: int, kind: str, sigma: float) -> np.ndarray:
  """(size, size): what each pixel of a blurred row takes from each pixel of the row."""
  weights = taps(kind, sigma)
  radius = len(weights) // 2
  sources = np.pad(np.arange(size), radius, mode='symmetric')
  matrix = np.zeros((size, size))
  for k, weight in enumerate(weights):
    np.add.at(matrix, (np.arange(size), sources[k : k + size]), weight)
  return matrix.astype(np.float32)
