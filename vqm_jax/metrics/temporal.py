"""Metrics of change from frame to frame: tOF, tLP, warping error, temporal-difference PSNR and flicker.

x are frames of a candidate, y those of the reference: the target, or by the rule of weakly aligned pairs the input.
Each score is a mean over t.

  tOF            mean over pixels of |OF(x_t-1, x_t) - OF(y_t-1, y_t)|, Euclidean, in pixels; OF is optical flow
  tLP            100 |LPIPS(x_t-1, x_t) - LPIPS(y_t-1, y_t)|
  warping error  sum of M (x_t - W(x_t+1))^2 / sum of M for values in [0, 1]; flow and mask M come from the reference
  tdPSNR         10 log10(255^2 / mean of ((x_t - x_t-1) - (y_t - y_t-1))^2), in dB
  flicker        how much the mean luma leaves its trend; see `flicker`

tOF and tLP come from TecoGAN (Chu et al., ToG 2020), in the form of its published scoring program, but over all frames
and pixels. The warping error is that of Lai et al. (ECCV 2018) with its forward-backward test alone. tdPSNR is ours: it
needs no flow.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqm_jax import errors, perceptual
from vqm_jax.metrics.lpips import LpipsWeights, _unit
from vqm_jax.metrics.scorers import BaseScorer

# (earlier, later), both uint8 gray (H, W) -> float32 (H, W, 2): where pixels went, x before y, in pixels.
Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]

# BT.601 luma of R, G, B in 0..255.
LUMA = (0.299, 0.587, 0.114)

# DIS reads and writes outside of its arrays when its pyramid has no level of two patches: OpenCV 5.0 crashes.
SMALLEST_OF_DIS = 16

# Features of a frame are kept for the next call up to this size; larger ones are computed again. AlexNet's at 1080p
# take 86 MB, VGG's 1 GB.
_KEPT_FEATURES = 128e6

# Of the Gaussian that flicker calls trend: 15 frames.
_TREND_RADIUS, _TREND_SIGMA = 7, 2.5


def farneback(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
  """Dense flow of Farneback (2003), 3 levels of half size, windows of 15 pixels; a `Flow`."""
  import cv2

  return cv2.calcOpticalFlowFarneback(earlier, later, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def dis_medium(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
  """Dense inverse search of Kroeger et al. (2016), OpenCV's preset "medium"; a `Flow`.

  Raises:
    DataError: frames are smaller than 16 pixels a side.
  """
  import cv2

  if min(earlier.shape) < SMALLEST_OF_DIS:
    raise errors.DataError(
      f'DIS flow needs frames of at least {SMALLEST_OF_DIS} pixels a side, found {earlier.shape[0]}x{earlier.shape[1]}.'
    )
  return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(earlier, later, None)


def visible(forward: np.ndarray, backward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where pixels of a frame are in the next one, and which of them can be seen there.

  Args:
    forward: flow F from the frame to the next, float32 (H, W, 2).
    backward: flow B the other way.

  Returns:
    float32 (H, W, 2), places x, y in the next frame; bool (H, W), True where that place is inside of the frame and
    |F + B'|^2 < 0.01 (|F|^2 + |B'|^2) + 0.5 for B' = B at that place.
  """
  import cv2

  height, width = forward.shape[:2]
  places = forward + np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
  back = cv2.remap(backward, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
  inside = ((places >= 0) & (places <= np.array([width - 1, height - 1], np.float32))).all(axis=-1)
  lengths = _squared(forward) + _squared(back)
  return places, inside & (_squared(forward + back) < 0.01 * lengths + 0.5)


def flicker(luma: np.ndarray) -> float:
  """Standard deviation of frame-mean luma about its trend, in levels of 0..255.

  The trend is a Gaussian mean over 15 frames, sigma 2.5 frames. Beyond its ends the clip goes on as its own mirror
  image, turned about the last value (m[-k] = 2 m[0] - m[k]), so that even fades have no flicker. The deviation is
  the population's, about the mean of what is left.

  Args:
    luma: (T,), BT.601 luma averaged over each frame.

  Returns:
    0 for a clip of one frame. Of a change that repeats every 5 frames or faster all is counted, of one every 15 frames
    42 percent, of one every 60 frames 3 percent.
  """
  luma = np.asarray(luma, np.float64)
  if len(luma) < 2:
    return 0.0
  taps = np.exp(-0.5 * (np.arange(-_TREND_RADIUS, _TREND_RADIUS + 1) / _TREND_SIGMA) ** 2)
  longer = np.pad(luma, _TREND_RADIUS, mode='reflect', reflect_type='odd')
  return float((luma - np.convolve(longer, taps / taps.sum(), mode='valid')).std())


class NeighbourScorer(BaseScorer):
  """A metric of a frame and the one before it: n - 1 values.

  Of each version of the clip, what the next call needs is kept, so that nothing is computed twice. A candidate that is
  the reference itself, the same object in every call, costs nothing.
  """

  # Whether the reference is treated as candidates are.
  _alike = True

  def __init__(self, name: str, reference: str = 'target', smallest: int = 1):
    super().__init__(name, reference, smallest)
    self._kept: list[Any] | None = None  # of the reference, then of each candidate

  def values(self) -> list[list[float]]:
    values = super().values()
    if not all(values) or self._kept is None:
      raise errors.DataError(
        f'{self._name} compares neighbouring frames: expected a clip of at least two, found {int(bool(self._kept))}; '
        f'use longer clips or leave {self._name} out.'
      )
    return values

  def _add(self, candidates: Sequence[np.ndarray], reference: np.ndarray) -> None:
    before = self._kept or [None] * (1 + len(candidates))
    kept, expected = self._of_reference(before[0], reference)
    self._kept = [kept]
    for earlier, frame, values in zip(before[1:], candidates, self._values, strict=True):
      if self._alike and frame is reference and earlier is before[0]:
        now, found = kept, expected
      else:
        now, found = self._of_candidate(earlier, frame)
      self._kept.append(now)
      if earlier is not None:
        values.append(self._compare(found, expected))

  def _of_reference(self, earlier: Any, frame: np.ndarray) -> tuple[Any, Any]:
    """As `_of_candidate`, of the reference."""
    return self._of_candidate(earlier, frame)

  @abc.abstractmethod
  def _of_candidate(self, earlier: Any, frame: np.ndarray) -> tuple[Any, Any]:
    """Return what to keep of `frame`, and what to compare; None for the latter when `earlier` is None.

    Args:
      earlier: what was kept of the frame before; None at the first frame.
      frame: uint8 (H, W, 3).
    """

  @abc.abstractmethod
  def _compare(self, found: Any, expected: Any) -> float:
    """The value of a candidate, from what the other two returned."""


class FlowScorer(NeighbourScorer):
  """tOF: distance between the flow of a candidate and that of the reference, in pixels; n - 1 values."""

  def __init__(self, name: str = 'tof', reference: str = 'target', flow: Flow = farneback):
    super().__init__(name, reference)
    self._flow = flow

  def _of_candidate(self, earlier, frame):
    gray = _gray(frame)
    return gray, None if earlier is None else _checked_flow(self._flow, earlier, gray)

  def _compare(self, found, expected):
    return float(np.sqrt(_squared(found - expected)).mean(dtype=np.float64))


class PerceptualChangeScorer(NeighbourScorer):
  """tLP: 100 times the difference between LPIPS of neighbours in a candidate and in the reference; n - 1 values."""

  def __init__(self, weights: LpipsWeights, name: str = 'tlp', reference: str = 'target'):
    super().__init__(name, reference)
    self._weights = weights

  def _of_candidate(self, earlier, frame):
    taps = lpips_features(frame, self._weights)
    kept = taps if sum(tap.nbytes for tap in taps) <= _KEPT_FEATURES else frame
    if earlier is None:
      return kept, None
    before = lpips_features(earlier, self._weights) if isinstance(earlier, np.ndarray) else earlier
    return kept, lpips_distance(before, taps, self._weights)

  def _compare(self, found, expected):
    return 100 * abs(found - expected)


class WarpingScorer(NeighbourScorer):
  """Warping error: mean squared change along the reference's flow where it can be seen; n - 1 values.

  A pair where nothing can be seen in both frames, a cut, has no error: 0 for every candidate alike.
  """

  _alike = False

  def __init__(self, name: str = 'warping', reference: str = 'target', flow: Flow = dis_medium):
    super().__init__(name, reference, SMALLEST_OF_DIS if flow is dis_medium else 1)
    self._flow = flow

  def _of_reference(self, earlier, frame):
    gray = _gray(frame)
    if earlier is None:
      return gray, None
    return gray, visible(_checked_flow(self._flow, earlier, gray), _checked_flow(self._flow, gray, earlier))

  def _of_candidate(self, earlier, frame):
    return frame, (earlier, frame)

  def _compare(self, found, expected):
    import cv2

    (earlier, later), (places, mask) = found, expected
    error = 0.0
    for channel in range(3):  # one after the other, for the sake of memory
      plane = later[..., channel].astype(np.float32)
      warped = cv2.remap(plane, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
      change = earlier[..., channel][mask] - warped[mask]
      error += float(np.square(change, dtype=np.float64).sum())
    return error / (255.0**2 * 3 * max(int(mask.sum()), 1))


class DifferenceScorer(NeighbourScorer):
  """tdPSNR: PSNR between the differences of neighbouring frames, in dB; n - 1 values.

  The peak is 255 as in PSNR, though differences span -255..255. Exact, from integers; inf where the differences are
  the same, which `fidelity.mean_psnr` counts as 100 dB.
  """

  def _of_candidate(self, earlier, frame):
    return frame, None if earlier is None else np.subtract(frame, earlier, dtype=np.int16)

  def _compare(self, found, expected):
    # Up to 510^2 each; rows in turn, so that squares of a whole frame are never held.
    error = sum(int(np.square(x - y, dtype=np.int32).sum(dtype=np.int64)) for x, y in zip(found, expected, strict=True))
    return float(10 * np.log10(255.0**2 * found.size / error)) if error else float('inf')


class FlickerScorer(BaseScorer):
  """Flicker of the clip, in levels of 0..255: one value, without a reference."""

  def __init__(self, name: str = 'flicker'):
    super().__init__(name, reference='')

  def _add(self, candidates, reference):
    for frame, values in zip(candidates, self._values, strict=True):
      sums = frame.sum(axis=(0, 1), dtype=np.int64)
      values.append(float(sums @ np.array(LUMA)) / (frame.shape[0] * frame.shape[1]))

  def values(self) -> list[list[float]]:
    return [[flicker(np.array(luma))] for luma in super().values()]


def lpips_features(frame: np.ndarray, weights: LpipsWeights) -> list[jax.Array]:
  """Compute the features that LPIPS compares of a uint8 frame (H, W, 3): float32 (h, w, c) at each tap, of norm 1.

  For metrics that use the features of a frame more than once. Raises DataError when the frame is too small.
  """
  return _unit_taps(frame, weights.trunk)


def lpips_distance(a: list[jax.Array], b: list[jax.Array], weights: LpipsWeights) -> float:
  """`metrics.lpips` from the features of both frames."""
  return float(sum(np.asarray(rows).mean(dtype=np.float64) for rows in _rows(a, b, weights.heads)))


@jax.jit
def _unit_taps(frame, trunk: perceptual.Weights):
  image = frame[None].astype(jnp.float32) / 255
  taps = tuple(perceptual.TAPS[trunk.net])
  return [_unit(x)[0] for x in perceptual.features(trunk, image, taps, precision=jax.lax.Precision.HIGHEST)]


@jax.jit
def _rows(a, b, heads: perceptual.Weights):
  # Only over rows: float32 sums over millions of places lose digits.
  each = [((x - y) ** 2 * heads.arrays[f'lin{k}']).sum(axis=-1) for k, (x, y) in enumerate(zip(a, b, strict=True))]
  return [distances.mean(axis=-1) for distances in each]


def _gray(frame: np.ndarray) -> np.ndarray:
  import cv2

  return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)


def _checked_flow(flow: Flow, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
  found = np.asarray(flow(earlier, later))
  if found.shape != (*earlier.shape, 2) or found.dtype != np.float32:
    raise errors.DataError(
      f'A flow between frames of {earlier.shape} must be float32 {(*earlier.shape, 2)}, '
      f'found {found.dtype} {found.shape}; mend the function that computes it.'
    )
  return found


def _squared(vectors: np.ndarray) -> np.ndarray:
  return np.einsum('...k,...k->...', vectors, vectors)
