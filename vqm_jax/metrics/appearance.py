"""Colours and sharpness of a clip beside those of its target, and its change: metrics that need no alignment.

  colour     pooled over the clip: mean of the Wasserstein-1 distances of the L, a and b histograms, in units of CIELAB
  colour_ab  pooled over the clip: 1 - Bhattacharyya coefficient of the joint a, b histogram, in [0, 1]
  sharpness  per frame: log2 of the detail of the candidate over that of the target; 0 is equal, negative is blurrier
  change     per frame: mean absolute difference to the input, in levels of 0..255

CIELAB is that of sRGB with white D65 (2 degrees). Histograms have 256 bins: L of 100/256 units over 0..100; a and b
of one unit, centred on -128, -127, ..., 127; the joint one has 32x32 of eight units, centred on -128, -120, ..., 120.
Bins are centred on 0 because gray, whose a and b are 0 but for rounding, would otherwise fall on an edge. sRGB
reaches from -108 to 98.
"""

from collections.abc import Sequence

import numpy as np

from vqm_jax import errors
from vqm_jax.metrics.scorers import BaseScorer

TILE = 128

_BINS = 256
_PIXELS = 2**17  # converted at once: a few MB

# Added to variances of the Laplacian, levels^2: about one pixel of a tile that is off by a level.
_LEAST_DETAIL = 1e-3


def colour_histograms(frame: np.ndarray, joint: bool = False) -> np.ndarray:
  """Counts of a frame's colours in the bins that the module tells of.

  Args:
    frame: uint8 (H, W, 3).
    joint: whether to count a and b together.

  Returns:
    int64 (3, 256) of L, a, b, or (32, 32) of a and b.
  """
  from skimage import color

  pixels = frame.reshape(-1, 3)
  counts = np.zeros(32 * 32 if joint else 3 * _BINS, np.int64)
  for start in range(0, len(pixels), _PIXELS):
    # float32 is good for 1e-4 of a unit.
    lab = color.rgb2lab(pixels[start : start + _PIXELS].astype(np.float32) / np.float32(255))
    if joint:
      a, b = (_indices((lab[:, k] + 132) / 8, 32) for k in (1, 2))
      counts += np.bincount(32 * a + b, minlength=len(counts))
    else:
      scaled = lab[:, 0] * (_BINS / 100), lab[:, 1] + 128.5, lab[:, 2] + 128.5
      counts += np.concatenate([np.bincount(_indices(values, _BINS), minlength=_BINS) for values in scaled])
  return counts.reshape((32, 32) if joint else (3, _BINS))


def colour_distance(a: np.ndarray, b: np.ndarray) -> float:
  """Mean of the Wasserstein-1 distances of two histograms (3, 256) of L, a and b, in units of CIELAB.

  Distributions are compared: the numbers of pixels may differ.
  """
  a, b = (counts.cumsum(axis=1) / counts.sum(axis=1, keepdims=True) for counts in (a, b))
  return float(np.abs(a - b).sum(axis=1) @ np.array([100 / _BINS, 1, 1]) / 3)


def bhattacharyya_distance(a: np.ndarray, b: np.ndarray) -> float:
  """1 - sum of sqrt(p q) of two histograms with proportions p, q: 0 for equal ones, 1 where they share no bin."""
  return float(max(0.0, 1 - np.sqrt(a / a.sum() * (b / b.sum())).sum()))


def detail(frame: np.ndarray) -> float:
  """Median over tiles of the variance of the Laplacian of BT.601 luma, in squared levels of 0..255.

  The Laplacian (four neighbours less four times the centre) is taken where all neighbours exist, (H - 2, W - 2), and
  cut into tiles of 128x128 from the top left; what remains at the right and the bottom makes tiles of its own.

  Args:
    frame: uint8 (H, W, 3), no smaller than 3x3.
  """
  if min(frame.shape[:2]) < 3:
    raise errors.DataError(f'Sharpness needs frames of at least 3 pixels a side, found {frame.shape[:2]}.')
  # In thousandths, exact: a flat frame has no detail.
  y = sum(frame[..., channel].astype(np.int32) * weight for channel, weight in enumerate((299, 587, 114)))
  laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
  height, width = laplacian.shape
  tiles = [laplacian[r : r + TILE, c : c + TILE] for r in range(0, height, TILE) for c in range(0, width, TILE)]
  return float(np.median([tile.var(dtype=np.float64) for tile in tiles])) / 1e6


def sharpness_ratio(candidate: float, target: float) -> float:
  """log2 of two `detail`s, each with 0.001 added so that flat frames have a ratio: of two flat ones 0."""
  return float(np.log2((candidate + _LEAST_DETAIL) / (target + _LEAST_DETAIL)))


def mean_change(frame: np.ndarray, source: np.ndarray) -> float:
  """Mean |difference| of two uint8 frames, in levels: what an enhancer that does nothing keeps at 0."""
  return float(np.abs(frame.astype(np.int16) - source).mean())


class ColourScorer(BaseScorer):
  """Colour distance of a clip to its target, all frames pooled: one value."""

  def __init__(self, name: str = 'colour', joint: bool = False):
    """Create a scorer; `joint` for colour_ab."""
    super().__init__(name)
    self._joint = joint
    self._counts: list[np.ndarray] | None = None  # of the target, then of each candidate

  def _add(self, candidates: Sequence[np.ndarray], reference: np.ndarray) -> None:
    expected = colour_histograms(reference, self._joint)
    found = [expected if frame is reference else colour_histograms(frame, self._joint) for frame in candidates]
    before = self._counts or [0] * (1 + len(candidates))
    self._counts = [old + new for old, new in zip(before, [expected, *found], strict=True)]

  def values(self) -> list[list[float]]:
    if self._counts is None:
      return super().values()
    distance = bhattacharyya_distance if self._joint else colour_distance
    expected, *found = self._counts
    return [[distance(counts, expected)] for counts in found]


def _indices(bins: np.ndarray, count: int) -> np.ndarray:
  return bins.astype(np.int64).clip(0, count - 1)
