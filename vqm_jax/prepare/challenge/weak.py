"""Weak pairing of two cameras on one rig: how far their recordings differ in time, and where a place is seen by both.

The source camera (`lq`) and the target camera (`hq`) start at different moments and look through different lenses.
Both estimates are approximate, by parallax alone: they say which crops show much the same, never which pixels. An
estimate that cannot be trusted is replaced by the plain one (no offset, the resized frame), with the reason.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Self

import numpy as np

from vqm_jax import errors, schemas
from vqm_jax.prepare.records import tiles

_THUMBNAIL = (64, 36)  # width and height in pixels
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_TREND = 8.0  # frames, standard deviation of the Gaussian whose result is subtracted
_REACH = 45  # frames searched in both directions
_MIN_NCC, _MIN_RATIO = 0.4, 1.1
# Short recordings resemble each other by chance: the correlation must also stand out by so many standard deviations of
# that of unrelated motion, with at least so many frames in common.
_MIN_DEVIATIONS, _MIN_COMMON = 3.5, 48
_MEMORY = 16  # frames after which detrended motion has forgotten itself
# A detrended motion energy that varies less, in levels, is noise and coding, not motion.
_STILL = 0.03
_WINDOW = 5  # seconds, for the drift

_NUM_PAIRS = 3
_HALVED_FROM = 960  # pixels of width from which frames are halved; smaller ones would lose what SIFT finds
# A quarter of SIFT's usual least contrast: source cameras are duller. On 320x180 scenes of `demo_scenes` it doubled the
# inliers and accepted 12 of 14 instead of 9.
_MAX_FEATURES, _CONTRAST = 5000, 0.01
_RATIO, _RANSAC_PIXELS = 0.75, 2.0
_MIN_INLIERS = 30
_SCALES = (0.7, 1.4)


@dataclasses.dataclass(frozen=True)
class Drift:
  """`offsets` of windows of 5 seconds, to a fraction of a frame, NaN where refused; `slope` in frames per minute.

  The slope is that of a line through the offsets, NaN if fewer than two windows have one.
  """

  offsets: tuple[float, ...] = ()
  slope: float = float('nan')


@dataclasses.dataclass(frozen=True)
class Offset:
  """Target frame t + `frames` shows what source frame t shows: positive if the target camera started earlier.

  `confidence` is the correlation at the best offset, as measured; `reason` says why `frames` is 0 in its place, and is
  empty if it is not.
  """

  frames: int
  confidence: float
  reason: str = ''
  drift: Drift = Drift()


@dataclasses.dataclass(frozen=True, eq=False)
class Homography:
  """`matrix`, float64 (3, 3), takes LQ pixels (x, y, 1) to HQ pixels; pixel centres are whole numbers.

  `inliers` and `confidence` (their share of the matches) are medians over the frames accepted, or, if there are none,
  those of the best frame; then `reason` says why the matrix only resizes, and is empty otherwise.
  """

  matrix: np.ndarray
  inliers: int
  confidence: float
  reason: str = ''


def estimate_offset(
  source_frames: Iterable[np.ndarray], target_frames: Iterable[np.ndarray], *, fps: Fraction
) -> Offset:
  """The offset at which the motion of both recordings correlates best, up to 45 frames in both directions.

  Both have `fps` frames per second, uint8 (H, W, 3) RGB each, of any two sizes. Streams: both are read at once, a frame
  at a time. Accepted if the correlation is at least 0.4, more than unrelated motion of that length would reach, and 1.1
  times that of any other peak.
  """
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    source, target = pool.map(motion_energy, (source_frames, target_frames))
  return offset_between(source, target, fps=fps)


def motion_energy(frames: Iterable[np.ndarray]) -> np.ndarray:
  """Frames uint8 (H, W, 3) RGB -> float64 (T - 1,): mean absolute change of 64x36 luma to the next frame, in levels."""
  thumbnails = map(_thumbnail, frames)
  return np.array([np.abs(after - before).mean() for before, after in itertools.pairwise(thumbnails)], np.float64)


def offset_between(source: np.ndarray, target: np.ndarray, *, fps: Fraction) -> Offset:
  """`estimate_offset` of two results of `motion_energy`."""
  common = min(len(source), len(target))
  if common < _MIN_COMMON:
    return Offset(0, 0.0, f'too short: the shorter recording has {common + 1} frames, {_MIN_COMMON + 1} are needed')
  detrended = [_detrended(motion) for motion in (source, target)]
  for motion, name in zip(detrended, ('source', 'target'), strict=True):
    if motion.std() < _STILL:
      return Offset(0, 0.0, f'static scene: the motion seen by the {name} camera hardly varies')
  whole, _ = _best_offset(*detrended, 0, len(source))
  window = round(_WINDOW * fps)
  # The rest at the end is as good as a window only if it is as long.
  starts = range(0, len(source) - window + 1, window)
  found = [_best_offset(*detrended, start, start + window) for start in starts] if window >= _MIN_COMMON else []
  offsets = np.array([float('nan') if verdict.reason else exact for verdict, exact in found])
  good = np.isfinite(offsets)
  minutes = np.array(starts)[: len(offsets)] / float(60 * fps)
  slope = np.polyfit(minutes[good], offsets[good], 1)[0] if good.sum() >= 2 else float('nan')
  return dataclasses.replace(whole, drift=Drift(tuple(map(float, offsets)), float(slope)))


def _thumbnail(frame: np.ndarray) -> np.ndarray:
  import cv2

  return cv2.resize(frame, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32) @ _LUMA


def _detrended(motion: np.ndarray) -> np.ndarray:
  import cv2

  return motion - cv2.GaussianBlur(motion[None], (0, 0), _TREND, borderType=cv2.BORDER_REPLICATE)[0]


def _best_offset(source: np.ndarray, target: np.ndarray, start: int, stop: int) -> tuple[Offset, float]:
  """(verdict, offset to a fraction of a frame) for source[start:stop] anywhere in the target."""
  ranges = {lag: (max(start, -lag), min(stop, len(target) - lag)) for lag in range(-_REACH, _REACH + 1)}
  ranges = {lag: (first, last) for lag, (first, last) in ranges.items() if last - first >= _MIN_COMMON}
  if not ranges:
    return Offset(0, 0.0, 'too short: no part in common'), 0.0
  lags = list(ranges)
  ncc = np.array([_ncc(source[a:b], target[a + lag : b + lag]) for lag, (a, b) in ranges.items()])
  padded = np.pad(ncc, 1, constant_values=-2)
  best, *others = sorted(np.flatnonzero((ncc >= padded[:-2]) & (ncc > padded[2:])), key=lambda k: -ncc[k])
  peak = float(ncc[best])
  first, last = ranges[lags[best]]
  needed = max(_MIN_NCC, _by_chance(source[first:last], target[first + lags[best] : last + lags[best]]))
  reason = ''
  if peak < needed:
    reason = (
      f'no resemblance: the motion of the cameras correlates by {peak:.2f} at best, expected {needed:.2f} for '
      f'{last - first + 1} frames'
    )
  elif best in (0, len(lags) - 1):
    reason = f'the best offset, {lags[best]} frames, is the end of what can be searched'
  elif others and peak < _MIN_RATIO * ncc[others[0]]:
    reason = (
      f'ambiguous: offsets {lags[best]} and {lags[others[0]]} correlate by {peak:.2f} and {ncc[others[0]]:.2f}, '
      f'expected {_MIN_RATIO} times as much'
    )
  if reason:
    return Offset(0, peak, reason), 0.0
  before, after = ncc[best - 1], ncc[best + 1]
  fraction = 0.5 * (before - after) / (before - 2 * peak + after)
  return Offset(lags[best], peak), lags[best] + float(fraction)


def _ncc(a: np.ndarray, b: np.ndarray) -> float:
  a, b = a - a.mean(), b - b.mean()
  return float(a @ b / max(np.sqrt(a @ a * (b @ b)), 1e-12))


def _by_chance(a: np.ndarray, b: np.ndarray) -> float:
  """A correlation that unrelated series like these hardly reach (Fisher's z; Bartlett's number of independent ones)."""
  memory = [np.array([_ncc(x[:-lag], x[lag:]) for lag in range(1, _MEMORY + 1)]) for x in (a, b)]
  independent = len(a) / max(1.0, 1 + 2 * float(memory[0] @ memory[1]))
  return float(np.tanh(_MIN_DEVIATIONS / np.sqrt(max(independent - 3, 1e-6))))


def estimate_homography(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Homography:
  """The mapping between the cameras, from up to three (lq, hq) frames of the same moments, uint8 (H, W, 3) RGB each.

  SIFT features of luma, of half size from 960 pixels of width on, matched by ratio 0.75, and RANSAC within 2 pixels. A
  frame is accepted with at least 30 inliers and an enlargement, beyond that of resizing, within 0.7 to 1.4; the matrix
  is the element-wise median over those accepted.
  Raises ValueError without pairs.
  """
  accepted, refused = [], []
  shapes = None
  for lq, hq in itertools.islice(pairs, _NUM_PAIRS):
    shapes = lq.shape[:2], hq.shape[:2]
    found = _frame_homography(lq, hq)
    (refused if found.reason else accepted).append(found)
  if shapes is None:
    raise ValueError('estimate_homography wants at least one pair of frames, got none.')
  if not accepted:
    best = max(refused, key=lambda found: found.inliers)
    return dataclasses.replace(best, matrix=resizing(*shapes))
  return Homography(
    matrix=np.median([found.matrix for found in accepted], axis=0),
    inliers=int(np.median([found.inliers for found in accepted])),
    confidence=float(np.median([found.confidence for found in accepted])),
  )


def resizing(lq_shape: tuple[int, int], hq_shape: tuple[int, int]) -> np.ndarray:
  """The matrix, float64 (3, 3), that maps an LQ frame of (height, width) onto the whole of an HQ one."""
  (height, width), (hq_height, hq_width) = lq_shape, hq_shape
  x, y = hq_width / width, hq_height / height
  # The corners of frames coincide, half a pixel outside the centres of their corner pixels.
  return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _frame_homography(lq: np.ndarray, hq: np.ndarray) -> Homography:
  """The mapping according to one pair of frames; `reason` tells why it is not to be used."""
  import cv2

  plain = resizing(lq.shape[:2], hq.shape[:2])
  (points, words, to_lq), (hq_points, hq_words, to_hq) = map(_features, (lq, hq))
  if min(len(points), len(hq_points)) < _MIN_INLIERS:
    few = f'too few features: {len(points)} in the source frame, {len(hq_points)} in the target frame'
    return Homography(plain, 0, 0.0, f'{few}, at least {_MIN_INLIERS} are needed')
  neighbours = cv2.BFMatcher().knnMatch(words, hq_words, k=2)
  near = [first for first, second in neighbours if first.distance < _RATIO * second.distance]
  # Many features that resemble the same one would agree on a matrix that shrinks everything to it.
  near.sort(key=lambda match: -match.distance)
  matches = list({match.trainIdx: match for match in near}.values())
  matrix, inlying = None, np.zeros(0)
  if len(matches) >= 4:
    origins = np.array([points[match.queryIdx] for match in matches])
    places = np.array([hq_points[match.trainIdx] for match in matches])
    matrix, inlying = cv2.findHomography(origins, places, cv2.RANSAC, _RANSAC_PIXELS)
  inliers = 0 if matrix is None else int(np.sum(inlying))
  confidence = inliers / max(len(matches), 1)
  if inliers < _MIN_INLIERS:
    # Chance lets four matches agree and a few more; where most of them do, there were only too few.
    what = 'too few features' if confidence > 0.5 else 'no overlap'
    reason = f'{what}: {inliers} of {len(matches)} matches agree, at least {_MIN_INLIERS} must'
    return Homography(plain, inliers, confidence, reason)
  matrix = to_hq @ matrix @ np.linalg.inv(to_lq)
  matrix /= matrix[2, 2]
  scale = _scale(np.linalg.inv(plain) @ matrix, *lq.shape[:2])
  if not _SCALES[0] <= scale <= _SCALES[1]:
    reason = f'implausible: the target camera enlarges by {scale:.2f}, expected {_SCALES[0]} to {_SCALES[1]}'
    return Homography(plain, inliers, confidence, reason)
  return Homography(matrix, inliers, confidence)


def _features(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(positions (N, 2) as (x, y), descriptors (N, 128), matrix from these positions to those in the frame)."""
  import cv2

  luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
  if frame.shape[1] >= _HALVED_FROM:
    luma = cv2.resize(luma, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
  # Without precise upscaling all positions are wrong by a quarter of a pixel, which does not cancel between two sizes.
  sift = cv2.SIFT_create(nfeatures=_MAX_FEATURES, contrastThreshold=_CONTRAST, enable_precise_upscale=True)
  found, words = sift.detectAndCompute(luma, None)
  points = np.array([point.pt for point in found], np.float64).reshape(-1, 2)
  return points, words, resizing(luma.shape, frame.shape[:2])


def _scale(matrix: np.ndarray, height: int, width: int) -> float:
  """How much the matrix enlarges lengths in the middle of a frame; NaN if it mirrors them."""
  x, y = (width - 1) / 2, (height - 1) / 2
  depth = float(matrix[2] @ (x, y, 1))
  # The determinant of the derivative of a homography is that of its matrix over the cube of the depth.
  return float(np.sqrt(np.maximum(np.linalg.det(matrix) / depth**3, 0))) or float('nan')


def read_offsets(path: str | os.PathLike) -> dict[str, int]:
  """Read {clip: offset} from a CSV file with the columns clip,offset: HQ frame t + offset shows what LQ frame t shows.

  Raises DataError, naming the line, for what is not a clip and a whole number, and for a clip that comes twice.
  """
  offsets: dict[str, int] = {}
  try:
    (_, header), *rows = schemas.read_table(pathlib.Path(path)) or [(1, [])]
  except (FileNotFoundError, schemas.Misfit) as error:
    raise errors.DataError(f'{path}: cannot be read as CSV ({errors.reason(error)})') from error
  if sorted(header) != ['clip', 'offset']:
    raise errors.DataError(f'{path}: expected a first line clip,offset, found {",".join(header)!r:.120}')
  for line, fields in rows:
    row = dict(zip(header, [*fields, ''], strict=False))
    clip, offset = (row[key].strip() for key in ('clip', 'offset'))
    if len(fields) > 2 or not clip or not re.fullmatch('[+-]?[0-9]{1,9}', offset):
      found = ','.join([clip, offset, *fields[2:]])
      raise errors.DataError(f'{path}, line {line}: expected a clip and a whole number of frames, found {found!r:.120}')
    if clip in offsets:
      raise errors.DataError(f'{path}, line {line}: clip {clip!r:.120} comes a second time; keep one of the lines')
    offsets[clip] = int(offset)
  return offsets


@dataclasses.dataclass(frozen=True)
class Jitter:
  """How far an HQ strip is from where the LQ strip points: frames later, HQ pixels down and right."""

  dt: int = 0
  dy: int = 0
  dx: int = 0

  @classmethod
  def draw(cls, rng: np.random.Generator, frames: int, pixels: int) -> Self:
    """Uniform over -`frames` to `frames` and -`pixels` to `pixels`, ends included."""
    reach = np.array([frames, pixels, pixels])
    return cls(*map(int, rng.integers(-reach, reach + 1)))


@dataclasses.dataclass(frozen=True)
class Place:
  """Where an HQ strip is cut: its first frame, top-left pixel and side.

  `inside`: it lay within the video as it is; otherwise it was moved there by as little as needed.
  """

  start: int
  y: int
  x: int
  side: int
  inside: bool

  def cut(self, frame: np.ndarray) -> np.ndarray:
    """HQ frame (H, W, 3) -> its part (side, side, 3), a view."""
    return frame[self.y : self.y + self.side, self.x : self.x + self.side]


def place(
  tile: tiles.Tile,
  jitter: Jitter,
  *,
  offset: int,
  matrix: np.ndarray,
  num_frames: int,
  size: int,
  margin: int,
  hq_shape: tuple[int, int, int],
) -> Place:
  """Where the HQ strip for an LQ tile of `num_frames` frames of `size` x `size` pixels is.

  It starts `offset + jitter.dt` frames after the tile, has `size + 2 * margin` pixels a side, and its centre is the
  warped centre of the tile, moved by the jitter.

  Args:
    offset: HQ frame t + offset shows what LQ frame t shows.
    matrix: (3, 3) float, from LQ to HQ pixels (x, y, 1).
    hq_shape: (frames, height, width) of the HQ video.
  Raises ValueError if the strip is larger than the video.
  """
  side = size + 2 * margin
  shape = (num_frames, side, side)
  if any(part > whole for part, whole in zip(shape, hq_shape, strict=True)):
    raise ValueError(f'An HQ strip of {shape} (frames, height, width) does not fit a video of {tuple(hq_shape)}.')
  middle = (size - 1) / 2
  x, y, depth = matrix @ (tile.x + middle, tile.y + middle, 1)
  corner = np.array([y, x]) / depth + (jitter.dy, jitter.dx) - (side - 1) / 2
  wanted = (tile.start + offset + jitter.dt, *(int(c) for c in np.floor(corner + 0.5)))
  moved = [min(max(at, 0), whole - part) for at, part, whole in zip(wanted, shape, hq_shape, strict=True)]
  return Place(*moved, side, inside=tuple(moved) == wanted)
