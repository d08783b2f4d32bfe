"""When each frame is shown: the time stamps of a file as far as they are right, the others moved between them.

Stamps come in the order in which a decoder shows the frames, which does not depend on them. Those that ascend are kept;
one that is missing, doubled or out of order goes between its neighbours. A clock that starts again in the middle, as in
recordings that were joined, goes on where it was. Only a stream without any stamp is timed by its rate.
"""

import bisect
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

# Stamps are moved by at least this, where frames follow more closely than they can be told apart.
_FINEST = Fraction(1, 1000)
# So many frames that lie before as many others are no slip of the clock but a new start.
_RESTART = 8


class Times(NamedTuple):
  """When frames are shown.

  Attributes:
    stamps: one for each frame, ascending, in units of `time_base`; None where nothing is known but the rate.
    time_base: seconds.
    moved: how many of the stamps are not those of the file.
    shifts: by how much the clock was set forward each time it began again, in all, in seconds.
  """

  stamps: list[int] | None
  time_base: Fraction
  moved: int = 0
  shifts: tuple[Fraction, ...] = ()


def resolve(stamps: Sequence[int | None], time_base: Fraction, rate: Fraction, start: Fraction | None = None) -> Times:
  """The times of frames whose stamps in the file are `stamps`, in the order in which they are shown.

  Args:
    stamps: in units of `time_base`; None where the file has none.
    rate: frames per second, for streams without a stamp and for frames at the ends that lack one.
    start: when the first frame of a stream without any stamp is shown, in seconds, if that is known.
  """
  known = [stamp for stamp in stamps if stamp is not None]
  if not known:
    return _by_rate(len(stamps), rate, start)
  if len(known) == len(stamps) and all(a < b for a, b in zip(stamps, stamps[1:], strict=False)):
    return Times(list(stamps), time_base)
  scale = max(1, -(-time_base // _FINEST))
  time_base /= scale
  stamps = [None if stamp is None else stamp * scale for stamp in stamps]
  joined, shifts = _joined(stamps, 1 / (rate * time_base))
  kept = _kept(joined)
  filled = _filled(joined, kept, 1 / (rate * time_base))
  moved = sum(old != new for old, new in zip(stamps, filled, strict=True))
  return Times(filled, time_base, moved, tuple(shift * time_base for shift in shifts))


def is_constant(stamps: Sequence[int], time_base: Fraction, rate: Fraction) -> bool:
  """Whether frame k is shown k/rate seconds after the first one, within a quarter of a frame."""
  # That admits rounding to milliseconds and camera jitter, but no lost or doubled frame.
  step = float(rate * time_base)
  return all(abs((stamp - stamps[0]) * step - k) <= 0.25 for k, stamp in enumerate(stamps))


def _by_rate(count: int, rate: Fraction, start: Fraction | None) -> Times:
  if start is None:
    return Times(None, 1 / rate)
  time_base = Fraction(1, rate.numerator * start.denominator)
  first, step = start / time_base, 1 / rate / time_base
  return Times([int(first + k * step) for k in range(count)], time_base)


def _joined(stamps: Sequence[int | None], step: Fraction) -> tuple[list[int | None], list[int]]:
  """The stamps on one clock, where that starts again, and by how much it is set forward then."""
  places = [k for k, stamp in enumerate(stamps) if stamp is not None]
  joined, shift, shifts = list(stamps), 0, []
  for n, k in enumerate(places):
    joined[k] = stamps[k] + shift
    before, after = places[max(0, n - _RESTART) : n], places[n : n + _RESTART]
    if len(before) == len(after) == _RESTART and joined[k] < joined[before[-1]]:
      middle = sorted(joined[j] for j in before)[_RESTART // 2]
      if max(stamps[j] for j in after) + shift < middle:
        last = max(joined[j] for j in before if joined[j] <= middle + _RESTART * step)
        shift = last + round((k - before[-1]) * step) - stamps[k]
        joined[k] = stamps[k] + shift
        shifts.append(shift)
  return joined, shifts


def _kept(stamps: Sequence[int | None]) -> list[int]:
  """The places of as many stamps as can stay: they ascend, and leave a unit for each frame in between."""
  # The longest part that does not descend, once the number of frames before is taken off.
  ends, last, before = [], [], {}
  for k, stamp in enumerate(stamps):
    if stamp is None:
      continue
    length = bisect.bisect_right(ends, stamp - k)
    before[k] = last[length - 1] if length else None
    if length == len(ends):
      ends.append(stamp - k)
      last.append(k)
    else:
      ends[length], last[length] = stamp - k, k
  kept, k = [], last[-1]
  while k is not None:
    kept.append(k)
    k = before[k]
  if len(kept) == 1:
    return [min(before)]  # nothing ascends: the first is as good as any
  return _evened(stamps, kept[::-1])


def _evened(stamps: Sequence[int | None], kept: Sequence[int]) -> list[int]:
  """The same number of places: of neighbours of which one can stay, it is the one that leaves most room."""
  kept = list(kept)
  for n in range(1, len(kept) - 1):
    low, _, high = kept[n - 1 : n + 2]
    if high - low == 2:
      continue

    def room(j, low=low, high=high):
      if stamps[j] is None:
        return 0
      return min(Fraction(stamps[j] - stamps[low], j - low), Fraction(stamps[high] - stamps[j], high - j))

    kept[n] = max(range(low + 1, high), key=room)
  return kept


def _filled(stamps: Sequence[int | None], kept: Sequence[int], step: Fraction) -> list[int]:
  """The stamps at `kept`, the others evenly in between, or by `step` before the first and behind the last."""
  filled = list(stamps)
  first, last = kept[0], kept[-1]
  if len(kept) > 1 and 2 * len(kept) > len(stamps):
    gaps = ((stamps[b] - stamps[a]) / (b - a) for a, b in zip(kept, kept[1:], strict=False))
    step = Fraction(statistics.median(gaps))
  step = max(step, Fraction(1))
  # Nothing is shown before zero unless the file says so.
  early = min(step, Fraction(stamps[first], first)) if first and stamps[first] > 0 else step
  for k in range(first):
    filled[k] = stamps[first] - round((first - k) * max(early, 1))
  for a, b in zip(kept, kept[1:], strict=False):
    for k in range(a + 1, b):
      filled[k] = stamps[a] + (stamps[b] - stamps[a]) * (k - a) // (b - a)
  for k in range(last + 1, len(filled)):
    filled[k] = stamps[last] + round((k - last) * step)
  return filled
