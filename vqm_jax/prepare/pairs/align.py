"""The gate that every pair passes: LQ frame t must show what HQ frame t shows, at the same place.

One frame or one pixel of shift between the sides would go unnoticed in the scores of a degraded video, and teach a
network to blur.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from vqm_jax import errors

_RADIUS = 3  # frames searched before and after
_THUMBNAIL = 240  # width in pixels
# An HQ neighbour counts as another picture if it differs from the frame by so many times the coding error (mean
# squared, of thumbnails) and by more than rounding [D]. On 19 real clips no false alarm at CRF 33 to 51, and every
# shift by a frame found up to CRF 40.
_DISTINCT, _ROUNDING = 3.0, 0.5
_MIN_MATCHING = 0.99
# A shift counts if it is larger than half a pixel and undoing it lowers the error clearly [D]: low rates move details
# by themselves, but then the error hardly depends on the place. On the same clips no false alarm at CRF 33 to 51, and
# every shift by a pixel found at CRF 33.
_MAX_SHIFT, _CLEARLY = 0.6, 0.94
_REACH = 2  # pixels searched in each direction
_SHIFT_EVERY, _SHIFT_CROP = 12, 512


@dataclasses.dataclass(frozen=True)
class Alignment:
  """`num_frames` compared; `moving` of them differ from a neighbour, `matching` of those fit best in place.

  `shift`: (down, right) in pixels, from sampled frames.
  """

  num_frames: int
  moving: int
  matching: int
  shift: tuple[float, float]


def check(name: str, hq: Iterable[np.ndarray], lq: Iterable[np.ndarray]) -> Alignment:
  """What was measured on two videos that match frame by frame, given as luma: uint8 (H, W) each.

  For every frame the LQ thumbnail is compared with the HQ ones up to 3 frames away; of the frames whose neighbours can
  be told from them at all, 99 % must be nearest to their own. The shift in space is where the error of some frames is
  lowest, to a fraction of a pixel.
  Streams: memory for a few frames only.
  Raises DataError if the counts, the sizes, the order of the frames or their places differ.
  """
  counts, verdicts = collections.Counter(), []
  places = np.zeros((2 * _REACH + 1,) * 2)
  window: list[tuple[np.ndarray, np.ndarray]] = []
  for index, (a, b) in enumerate(_together(hq, lq, counts)):
    if a.shape != b.shape:
      raise errors.DataError(
        f'{name}: LQ frame {index} is {b.shape[1]}x{b.shape[0]}, HQ {a.shape[1]}x{a.shape[0]}; '
        'delete the pair and make it again'
      )
    if index % _SHIFT_EVERY == 0:
      places += _errors_around(a, b)
    window = [*window[-2 * _RADIUS :], (_thumbnail(a), _thumbnail(b))]
    if index >= _RADIUS:
      verdicts.append(_in_place(window, len(window) - 1 - _RADIUS))
  count = counts['hq']
  if counts['lq'] != count or not count:
    raise errors.DataError(f'{name}: LQ has {counts["lq"]} frames, HQ {count}; delete the pair and make it again')
  verdicts += [_in_place(window, k) for k in range(len(window) - min(_RADIUS, count), len(window))]
  moving = [verdict for verdict in verdicts if verdict is not None]
  found = Alignment(count, len(moving), sum(moving), _lowest(places))
  if found.matching < _MIN_MATCHING * found.moving:
    raise errors.DataError(
      f'{name}: frames are out of step, {found.moving - found.matching} of {found.moving} moving LQ '
      'frames fit another HQ frame better; delete the pair and make it again'
    )
  if max(map(abs, found.shift)) > _MAX_SHIFT and places.min() < _CLEARLY * places[_REACH, _REACH]:
    down, right = found.shift
    raise errors.DataError(
      f'{name}: LQ is shifted by {down:+.1f} pixels down and {right:+.1f} right of HQ, expected 0; '
      'delete the pair and make it again'
    )
  return found


def _together(hq, lq, counts) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Pairs while both last; counts each side to its end."""
  hq, lq = iter(hq), iter(lq)
  while True:
    a, b = next(hq, None), next(lq, None)
    counts.update(hq=a is not None, lq=b is not None)
    if a is None or b is None:
      break
    yield a, b
  counts['hq'] += sum(1 for _ in hq)
  counts['lq'] += sum(1 for _ in lq)


def _thumbnail(luma: np.ndarray) -> np.ndarray:
  import cv2

  height, width = luma.shape
  size = (min(_THUMBNAIL, width), max(1, round(height * min(_THUMBNAIL, width) / width)))
  return cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _in_place(window: list[tuple[np.ndarray, np.ndarray]], at: int) -> bool | None:
  """Whether LQ frame `at` of the window fits its own HQ frame best; None if the neighbours look alike."""
  own, coded = window[at]
  distances = [_mse(coded, other) for other, _ in window]
  limit = _DISTINCT * min(distances) + _ROUNDING
  rivals = [
    distance
    for k, ((other, _), distance) in enumerate(zip(window, distances, strict=True))
    if k != at and _mse(own, other) > limit
  ]
  return distances[at] <= min(rivals) if rivals else None


def _mse(a: np.ndarray, b: np.ndarray) -> float:
  return float(np.mean(np.square(a - b)))


def _errors_around(hq: np.ndarray, lq: np.ndarray) -> np.ndarray:
  """(5, 5) mean squared errors in the middle of the frames, with LQ displaced by -2..2 pixels down and right of HQ."""
  middle = tuple(slice((n - min(n, _SHIFT_CROP)) // 2, (n + min(n, _SHIFT_CROP)) // 2) for n in hq.shape)
  hq, lq = hq[middle].astype(np.float32), lq[middle].astype(np.float32)
  height, width = (n - 2 * _REACH for n in hq.shape)
  inner = hq[_REACH:-_REACH, _REACH:-_REACH]
  moves = range(2 * _REACH + 1)
  return np.array([[_mse(inner, lq[y : y + height, x : x + width]) for x in moves] for y in moves])


def _lowest(errors_around: np.ndarray) -> tuple[float, float]:
  """(down, right) of the minimum, refined by a parabola through its neighbours; 0 where all is alike."""
  if errors_around[_REACH, _REACH] == errors_around.min():
    at = [_REACH, _REACH]
  else:
    at = [int(k) for k in np.unravel_index(errors_around.argmin(), errors_around.shape)]
  shift = []
  for k, line in zip(at, (errors_around[:, at[1]], errors_around[at[0]]), strict=True):
    position = float(k - _REACH)
    if 0 < k < 2 * _REACH and (bend := line[k - 1] - 2 * line[k] + line[k + 1]) > 0:
      position += 0.5 * float((line[k - 1] - line[k + 1]) / bend)
    shift.append(position)
  return shift[0], shift[1]
