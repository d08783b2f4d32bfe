"""The gate that every pair passes: LQ frame t must show what HQ frame t shows, at the same place.

One frame or one pixel of shift between the sides would go unnoticed in the scores of a degraded video, and teach a
network to blur.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from vqm_jax import errors

VERSION = 1  # of what is found: what an earlier one found is not relied on

_RADIUS = 3  # frames searched before and after
_THUMBNAIL = 240  # width in pixels
# An HQ neighbour counts as another picture if it differs from the frame by so many times the coding error (mean
# squared, of thumbnails) and by more than rounding. On 19 real clips no false alarm at CRF 33 to 51, and every
# shift by a frame found up to CRF 40.
_DISTINCT, _ROUNDING = 3.0, 0.5
_MIN_MATCHING = 0.99
# A shift counts if it is larger than half a pixel and undoing it lowers the error clearly: low rates move details
# by themselves, but then the error hardly depends on the place. On the same clips no false alarm at CRF 33 to 51, and
# every shift by a pixel found at CRF 33.
_MAX_SHIFT, _CLEARLY = 0.6, 0.94
_REACH = 2  # pixels searched in each direction
# Up to `_FAR` frames away is looked for among the first `_KEPT` frames, in pictures of `_SMALL` pixels' width, for at
# most `_SAMPLES` of them.
_KEPT, _SMALL, _FAR, _SAMPLES = 4096, 48, 300, 1024
# Correlation of two pictures that show the same, whatever their brightness and coding; different ones have half of it.
_SAME, _CONTRAST = 0.5, 4.0
_SHIFT_EVERY, _SHIFT_CROP = 12, 512


@dataclasses.dataclass(frozen=True)
class Alignment:
  """`num_frames` compared; `moving` of them differ from a neighbour, `matching` of those fit best in place.

  `shift`: (down, right) in pixels, from sampled frames. `offset`: HQ frame t + offset shows what LQ frame t shows, in
  most of the frames that are out of step; 0 if none are. `problem`: why the pair cannot be used, '' if it can.
  """

  num_frames: int
  moving: int
  matching: int
  shift: tuple[float, float]
  offset: int = 0
  problem: str = ''


def check(name: str, hq: Iterable[np.ndarray], lq: Iterable[np.ndarray]) -> Alignment:
  """Measure the alignment of a pair. Raises DataError for a problem."""
  found = measure(hq, lq)
  if found.problem:
    raise errors.DataError(f'{name}: {found.problem}; make the pair again or leave it out')
  return found


def measure(hq: Iterable[np.ndarray], lq: Iterable[np.ndarray]) -> Alignment:
  """Measure how two videos match frame by frame, given as luma: uint8 (H, W) each.

  For every frame the LQ thumbnail is compared with the HQ ones up to 3 frames away; of the frames whose neighbours can
  be told from them at all, 99 % must be nearest to their own. Clips that are farther off as a whole, up to 300 frames,
  or show something else are found in small pictures of the first 4096 frames. The shift in space is where the error of
  some frames is lowest, to a fraction of a pixel.
  Streams: memory for a few frames, and a small picture of each of these.
  A problem is: the counts, the sizes, the order of the frames or their places differ.
  """
  counts, verdicts = collections.Counter(), []
  places = np.zeros((2 * _REACH + 1,) * 2)
  small: tuple[list[np.ndarray], list[np.ndarray]] = [], []
  window: list[tuple[np.ndarray, np.ndarray]] = []
  for index, (a, b) in enumerate(_together(hq, lq, counts)):
    if a.shape != b.shape:
      sizes = f'{b.shape[1]}x{b.shape[0]}, HQ {a.shape[1]}x{a.shape[0]}'
      return Alignment(index, 0, 0, (0.0, 0.0), problem=f'LQ frame {index} is {sizes}')
    if index < _SHIFT_EVERY or index % _SHIFT_EVERY == 0:  # a few at least, for one frame may deceive
      places += _errors_around(a, b)
    window = [*window[-2 * _RADIUS :], (_thumbnail(a), _thumbnail(b))]
    if index < _KEPT:
      for kept, picture in zip(small, window[-1], strict=True):
        kept.append(_thumbnail(picture, _SMALL).ravel())
    if index >= _RADIUS:
      verdicts.append(_in_place(window, len(window) - 1 - _RADIUS))
  count = counts['hq']
  if counts['lq'] != count or not count:
    return Alignment(count, 0, 0, (0.0, 0.0), problem=f'LQ has {counts["lq"]} frames, HQ {count}')
  verdicts += [_in_place(window, k) for k in range(len(window) - min(_RADIUS, count), len(window))]
  offsets = {index: offset for index, offset in enumerate(verdicts) if offset is not None}
  wrong = {index: offset for index, offset in offsets.items() if offset}
  found = Alignment(count, len(offsets), len(offsets) - len(wrong), _lowest(places))
  distances = _distances(*map(np.stack, small))
  best = min(distances, key=lambda offset: (distances[offset], abs(offset)))
  if distances[0] > _DISTINCT * distances[best] + _ROUNDING or found.matching < _MIN_MATCHING * found.moving:
    return _out_of_step(found, best, wrong)
  if _correlation(*map(np.stack, small)) < _SAME:
    return dataclasses.replace(found, problem='LQ shows something else than HQ')
  if max(map(abs, found.shift)) > _MAX_SHIFT and places.min() < _CLEARLY * places[_REACH, _REACH]:
    down, right = found.shift
    where = f'{down:+.1f} pixels down and {right:+.1f} right of HQ'
    return dataclasses.replace(found, problem=f'LQ is shifted by {where}, expected 0')
  return found


def _out_of_step(found: Alignment, best: int, wrong: Mapping[int, int]) -> Alignment:
  """`found` with the problem that most frames are `best` from their own, or else those `wrong`, {LQ frame: offset}."""
  if not best:
    best = collections.Counter(wrong.values()).most_common(1)[0][0]
  first = next((index for index in wrong if wrong[index] == best), 0)
  since = f' from frame {first} on' if first and found.matching > 0.1 * found.moving else ''
  late = f'{abs(best)} frame{"s" if abs(best) > 1 else ""} {"late" if best < 0 else "early"}'
  shows = f'LQ frame t shows what HQ frame t {"-+"[best > 0]} {abs(best)} shows'
  problem = f'frames are out of step, LQ is {late}{since} (offset {best:+d}: {shows})'
  if wrong:
    problem += f'; {len(wrong)} of {found.moving} moving LQ frames fit another HQ frame better'
  return dataclasses.replace(found, offset=best, problem=problem)


def _distances(hq: np.ndarray, lq: np.ndarray) -> dict[int, float]:
  """{offset: mean squared error of LQ frames against the HQ frames so far away}; small pictures float32 (N, pixels)."""
  count = len(lq)
  reach = min(_FAR, count - max(count // 4, min(count, 4)))
  samples = np.unique(np.linspace(0, count - 1, _SAMPLES).round().astype(int))
  inside = {d: samples[(samples + d >= 0) & (samples + d < count)] for d in range(-reach, reach + 1)}
  return {offset: _mse(hq[chosen + offset], lq[chosen]) for offset, chosen in inside.items()}


def _correlation(hq: np.ndarray, lq: np.ndarray) -> float:
  """The median correlation of pictures float32 (N, pixels) that have contrast; 1 where none has."""
  hq, lq = (side - side.mean(1, keepdims=True) for side in (hq, lq))
  spread = np.sqrt((hq**2).mean(1)), np.sqrt((lq**2).mean(1))
  told = np.minimum(*spread) > _CONTRAST
  return float(np.median((hq * lq).mean(1)[told] / (spread[0] * spread[1])[told])) if told.any() else 1.0


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


def _thumbnail(luma: np.ndarray, most: int = _THUMBNAIL) -> np.ndarray:
  """float32 (h, w), at most that wide."""
  import cv2

  height, width = luma.shape
  size = (min(most, width), max(1, round(height * min(most, width) / width)))
  return cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _in_place(window: list[tuple[np.ndarray, np.ndarray]], at: int) -> int | None:
  """Offset of the HQ frame of the window that LQ frame `at` fits best; None if the neighbours look alike."""
  own, coded = window[at]
  distances = [_mse(coded, other) for other, _ in window]
  limit = _DISTINCT * min(distances) + _ROUNDING
  rivals = [k for k, (other, _) in enumerate(window) if k != at and _mse(own, other) > limit]
  if not rivals:
    return None
  lowest = min(distances[k] for k in rivals)
  if distances[at] <= lowest:
    return 0
  # The nearest of those that are about as good.
  return min((k - at for k in rivals if distances[k] <= 1.2 * lowest + _ROUNDING), key=abs)


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
