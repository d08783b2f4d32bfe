"""Frechet distance between two sets of features, each taken for a Gaussian: a metric of data sets, not of clips.

  |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)   with means m and covariances S

(Dowson and Landau 1982; as FID: Heusel et al. 2017). `patch_features` gives what we call fd_lpips: averages of the
feature network of LPIPS over patches. They are cheap and low-level, and not the features of FID.

The distance is biased upwards, the more the fewer samples there are: show beside it that of two halves of the target.
"""

import jax
import numpy as np

from vqm_jax import errors, perceptual
from vqm_jax.metrics.lpips import LpipsWeights


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
  """The distance of two Gaussians, by two symmetric eigendecompositions in float64.

  Args:
    mean1: (D,).
    cov1: (D, D), symmetric; may be singular.
    mean2: (D,).
    cov2: (D, D).

  Returns:
    Not below 0, in squared units of the features.

  Raises:
    DataError: shapes do not fit each other, or values are not finite.
  """
  mean1, cov1, mean2, cov2 = (np.asarray(array, np.float64) for array in (mean1, cov1, mean2, cov2))
  dim = mean1.shape[0] if mean1.ndim == 1 else -1
  for mean, cov in ((mean1, cov1), (mean2, cov2)):
    if mean.shape != (dim,) or cov.shape != (dim, dim):
      shapes = ', '.join(str(array.shape) for array in (mean1, cov1, mean2, cov2))
      raise errors.DataError(f'Expected means (D,) and covariances (D, D) of one D, found {shapes}.')
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
      raise errors.DataError('Means and covariances must be finite, found other values; check the features.')
  values, vectors = np.linalg.eigh(cov1)
  # Directions in which the first set does not vary drop out: of what rounding leaves there, square roots are large.
  real = values > dim * np.finfo(np.float64).eps * max(values[-1], 0)
  root = vectors[:, real] * np.sqrt(values[real])
  product = np.linalg.eigvalsh(root.T @ cov2 @ root)  # the same eigenvalues as S1^(1/2) S2 S1^(1/2)
  overlap = np.sqrt(product.clip(0)).sum()
  return max(0.0, float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * overlap))


class FeatureStatistics:
  """Mean and covariance of features that come in parts: float64, in memory for one (D, D).

  Attributes:
    count: number of samples so far.
    dim: D; None until the first sample unless it was given.
  """

  def __init__(self, dim: int | None = None):
    self.count, self.dim = 0, dim
    self._mean = self._scatter = 0.0

  def update(self, features: np.ndarray) -> None:
    """Add features (N, D), N of any size.

    Raises:
      DataError: of another shape or not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or features.shape[1] != (self.dim or features.shape[1]):
      raise errors.DataError(f'Expected features (N, {self.dim or "D"}), found {features.shape}.')
    if not np.isfinite(features).all():
      raise errors.DataError('Features must be finite, found other values; check the frames and weights they are of.')
    if len(features):
      mean = features.mean(axis=0)
      centred = features - mean
      self._join(len(features), mean, centred.T @ centred)

  def merge(self, other: 'FeatureStatistics') -> None:
    """Add what another one has seen. Raises DataError when its features are of another length."""
    if other.count:
      if other.dim != (self.dim or other.dim):
        raise errors.DataError(f'Expected statistics of {self.dim} features, found {other.dim}.')
      self._join(other.count, other._mean, other._scatter)

  @property
  def mean(self) -> np.ndarray:
    """float64 (D,). Raises DataError without samples."""
    if not self.count:
      raise errors.DataError('The mean of features needs at least one sample, found none.')
    return self._mean.copy()

  @property
  def covariance(self) -> np.ndarray:
    """float64 (D, D), the sample's: divided by N - 1. Raises DataError below two samples."""
    if self.count < 2:
      raise errors.DataError(f'The covariance of features needs at least two samples, found {self.count}.')
    return self._scatter / (self.count - 1)

  def distance(self, other: 'FeatureStatistics') -> float:
    """`frechet_distance` to another set."""
    return frechet_distance(self.mean, self.covariance, other.mean, other.covariance)

  def _join(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
    # Chan et al. (1979): sums of squares are never taken about anything but the mean.
    total, step = self.count + count, mean - self._mean
    self._scatter = self._scatter + scatter + np.outer(step, step) * (self.count * count / total)
    self._mean = self._mean + step * (count / total)
    self.count, self.dim = total, len(mean)


def patch_features(
  frame: np.ndarray, weights: LpipsWeights, rng: np.random.Generator, patches: int = 20, size: int = 299
) -> np.ndarray:
  """Channel means of the feature network at each of LPIPS's taps, of patches at random places.

  Args:
    frame: uint8 (H, W, 3).
    weights: of `lpips_weights`; the heads are not used.
    rng: for the places; a seeded one makes them the same again.
    patches: number of patches; they may overlap.
    size: height and width of a patch. In a smaller frame, the largest square that fits: distances between sets are
      only fair when their patches have one size.

  Returns:
    float32 (patches, D), D = 1152 for alex, 1472 for vgg, 2240 for squeeze.

  Raises:
    DataError: not such a frame, or too small for the network.
  """
  if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
    raise errors.DataError(f'Patches are of uint8 RGB frames (H, W, 3), found {frame.dtype} {frame.shape}.')
  size = min(size, *frame.shape[:2])
  features = []
  for _ in range(patches):
    top, left = (int(rng.integers(n - size + 1)) for n in frame.shape[:2])
    features.append(_channel_means(frame[top : top + size, left : left + size], weights.trunk))
  return np.stack(features) if features else np.zeros((0, sum(perceptual.TAPS[weights.trunk.net].values())), np.float32)


@jax.jit
def _channel_means(patch, trunk: perceptual.Weights):
  image = patch[None].astype('float32') / 255
  taps = tuple(perceptual.TAPS[trunk.net])
  features = perceptual.features(trunk, image, taps, precision=jax.lax.Precision.HIGHEST)
  return jax.numpy.concatenate([x.mean(axis=(0, 1, 2)) for x in features])
