"""Which frames a video file shows, in which order, and which of them are damaged.

As a rule the packets tell the order. Where they leave a doubt, and where a caller wants to be sure of the whole file,
all of it is decoded once, by all threads and without looking at a pixel. Only a file with damage is decoded a second
time, packet by packet, to see what is damaged.

Pictures at the start of a recording that was cut may refer to others that are gone. That they cannot be decoded is no
damage: counting starts behind them.
"""

import collections.abc
import contextlib
import dataclasses
import pathlib
import time

import av
import numpy as np

from vqm_jax import errors
from vqm_jax.video import decoding, libav, side_data
from vqm_jax.video.decoding import NO_TIME, Packets

# Their decoders say in a message only that a frame is damaged; they work in one thread, frame by frame.
_SAYS_SO = ('msmpeg4v1', 'msmpeg4v2', 'msmpeg4v3', 'wmv1', 'wmv2')
# Their decoders leave out by themselves what is shown before a keyframe and refers to missing pictures.
_LEAVE_OUT = ('h264', 'hevc', 'mpeg1video', 'mpeg2video', 'vp9', 'av1', 'vvc')

Watch = collections.abc.Callable[[collections.abc.Iterator, int], collections.abc.Iterator]


@dataclasses.dataclass(frozen=True)
class Shown:
  """The frames of a file in the order in which they are shown.

  Attributes:
    order: the numbers of their packets, int64.
    decoded: whether that was seen, not concluded.
    damaged: the frames that libav could not decode, or not in whole.
    left_out: how many pictures refer to ones that are not in the file, at its start or where it was joined.
    changed: the first frame of another size or format than frame 0, and what it is ('32x16 yuv420p').
    interlaced: the first frame that is.
    beside: the kinds of data beside any of them.
    steps: whether it takes decoding packet by packet, because some of them fail, which need not be damage.
  """

  order: np.ndarray
  decoded: bool = False
  damaged: frozenset[int] = frozenset()
  left_out: int = 0
  changed: tuple[int, str] | None = None
  interlaced: int | None = None
  beside: frozenset[str] = frozenset()
  steps: bool = False


def by_packets(packets: Packets) -> Shown | None:
  """Find the frames that are shown from packets alone; None where it takes decoding."""
  if not packets.packet_is_frame or packets.damaged or packets.truncated or packets.reported or packets.ends_within:
    return None
  (order,) = np.nonzero(~packets.is_hidden)
  if not len(order) or not packets.is_key[0]:
    return None
  if packets.in_order:
    return Shown(order)
  pts = packets.pts[order]
  by_time = np.argsort(pts, kind='stable')
  distinct = (np.diff(pts[by_time]) > 0).all()
  if packets.is_avi or pts[by_time[0]] == NO_TIME or not distinct or pts[by_time[0]] < packets.pts[0]:
    return None
  return Shown(order[by_time])


def by_decoding(path: pathlib.Path, packets: Packets, watch: Watch | None = None) -> Shown:
  """Find the frames that are shown by decoding all of the file; `watch(frames, number)` passes on the frames it gets.

  Raises VideoError if no frame can be decoded.
  """
  watch = watch or (lambda frames, number: frames)
  try:
    seen = _Seen(path, packets, watch, careful=False)
  except libav.ERRORS:
    seen = None
  steps = seen is None or bool(seen.corrupt or packets.damaged)
  if steps:
    with libav.fenced(lambda why: libav.damaged(path, why)):
      seen = _careful(path, packets, watch)
  return dataclasses.replace(_shown(path, packets, seen), steps=steps)


def _careful(path, packets, watch):
  seen = _Seen(path, packets, watch, careful=True)
  if seen.failed & set(seen.numbers) and seen.codec == 'h264':
    # Where a recording was cut or joined, pictures that are whole ask to forget others that were never there. That
    # counts as an error only for a strict decoder; of damage this one tells, too.
    opinion = _Seen(path, packets, watch, careful=True, strict=False)
    seen.failed -= set(opinion.numbers) - opinion.failed - opinion.corrupt
  return seen


class TakesTooLong(Exception):
  """Raised by `for_a_while`. `frames`: how many were seen."""

  def __init__(self, frames: int):
    super().__init__(frames)
    self.frames = frames


def for_a_while(items: collections.abc.Iterator, seconds: float) -> collections.abc.Iterator:
  """The items as they come; raises TakesTooLong once so much time has passed."""
  end = time.monotonic() + seconds
  for count, item in enumerate(items):
    if time.monotonic() > end:
      raise TakesTooLong(count)
    yield item


class _Seen:
  """The output of a decoder: numbers of packets."""

  def __init__(self, path: pathlib.Path, packets: Packets, watch: Watch, careful: bool, strict: bool = True):
    self.numbers: list[int] = []
    self.corrupt: set[int] = set()
    self.failed: set[int] = set()
    self.changed: tuple[int, str] | None = None
    self.interlaced: int | None = None
    self.beside: set[str] = set()
    kind, met, said, suspect = None, set(), [], set()
    with contextlib.ExitStack() as stack:
      container, stream = stack.enter_context(decoding.opened(path, decoding.MAX_THREADS, not careful, strict))
      self.codec = decoding.codec_name(stream)
      if self.codec in _SAYS_SO:
        said = stack.enter_context(decoding.messages(av.logging.ERROR))
      frames = decoding.decode(container, stream, failed=self.failed if careful else None, stop=len(packets.pts))
      for number, frame in watch(frames, len(packets.pts)):
        if number in met:
          continue  # a frame that is shown again for one that lacks its references
        met.add(number)
        self.numbers.append(number)
        self.beside |= side_data.kinds_of(frame)
        if said:
          suspect |= {number for _, who, _ in said if who.startswith(self.codec[:7])}
          said.clear()
        if frame.is_corrupt:
          self.corrupt.add(number)
          continue
        found = frame.width, frame.height, frame.format.name
        kind = kind or found
        if found != kind and self.changed is None:
          self.changed = number, describe_format(frame)
        if frame.interlaced_frame and self.interlaced is None:
          self.interlaced = number
    # What is said of most frames is a habit of their encoder.
    if 2 * len(suspect) < len(self.numbers):
      self.corrupt |= suspect


def describe_format(frame: av.VideoFrame) -> str:
  """'640x480 yuv420p'."""
  return f'{frame.width}x{frame.height} {frame.format.name}'


def _shown(path: pathlib.Path, packets: Packets, seen: _Seen) -> Shown:
  bad = seen.failed | seen.corrupt | packets.damaged
  numbers = _without_grey(packets, seen)
  good = [number for number in numbers if number not in bad]
  if not good:
    raise errors.VideoError(
      f'{path}: damaged, no frame can be decoded; copy or download it again'
      if len(packets.pts)
      else f'{path}: holds no video frames'
    )
  absent = set(range(len(packets.pts))) - set(numbers) - set(np.flatnonzero(packets.is_hidden).tolist())
  left_out = _leading(packets, (bad | absent), first=min(good), failed=bad)
  lost = (seen.failed & absent) - left_out
  if seen.interlaced is None:  # the second field of a frame is a packet, too
    lost |= {number for number in absent - left_out if packets.is_full[number]}
  order = _inserted(packets, [number for number in numbers if number not in left_out], sorted(lost))
  place = {number: k for k, number in enumerate(order)}
  changed, interlaced = seen.changed, seen.interlaced
  return Shown(
    np.array(order, np.int64),
    decoded=True,
    damaged=frozenset(place[number] for number in bad | lost if number in place),
    left_out=len(left_out),
    changed=changed and (place[changed[0]], changed[1]),
    interlaced=None if interlaced is None else place[interlaced],
    beside=frozenset(seen.beside),
  )


def _without_grey(packets: Packets, seen: _Seen) -> list[int]:
  """The numbers of what was shown, but for pictures that a decoder made of nothing in place of a missing keyframe."""
  if not packets.is_key.any():
    return seen.numbers
  key = int(np.argmax(packets.is_key))
  numbers = seen.numbers
  if seen.codec not in _LEAVE_OUT and key in numbers:
    numbers = numbers[numbers.index(key) :]
  return [number for number in numbers if number >= key]


def _leading(packets: Packets, unusable: set[int], first: int, failed: set[int]) -> set[int]:
  """Those of the `unusable` that cannot be decoded because of what is not in the file.

  They lie before the first keyframe, or behind it and are shown before it. The same may happen at a later keyframe,
  where files were joined, and before the `first` frame of a stream without keyframes, which has to recover; but there
  it is damage where decoding `failed`.
  """
  keys = np.flatnonzero(packets.is_key)
  key = int(keys[0]) if len(keys) else first
  leading = {number for number in (unusable - failed if packets.begins_whole else unusable) if number < key}
  leading |= {number for number in unusable - failed if number < first}
  if not packets.is_avi and packets.pts[key] != NO_TIME:
    for number in unusable:
      if number <= key:
        continue
      before = int(keys[np.searchsorted(keys, number) - 1])
      if NO_TIME < packets.pts[number] < packets.pts[before] and (
        before == key or not failed & set(range(int(keys[np.searchsorted(keys, before) - 1]), number + 1))
      ):
        leading.add(number)
    return leading
  number = key + 1
  while key not in unusable and number in unusable:
    leading.add(number)
    number += 1
  return leading


def _inserted(packets: Packets, numbers: list[int], lost: list[int]) -> list[int]:
  """The numbers of what was decoded, in its order, with those that were lost where they would have been shown."""
  if not lost:
    return numbers
  pts = packets.pts[numbers]
  if not packets.is_avi and (packets.pts[lost] != NO_TIME).all() and (np.diff(pts) > 0).all():
    lost = sorted(lost, key=lambda number: packets.pts[number])
    places = np.searchsorted(pts, packets.pts[lost])
  else:
    places = [next((k for k in range(len(numbers), 0, -1) if numbers[k - 1] < number), 0) for number in lost]
  return np.insert(np.array(numbers), places, lost).tolist()


def without_damaged_start(shown: Shown) -> Shown:
  """The same, counted from the first good frame on."""
  cut = next(k for k in range(len(shown.order)) if k not in shown.damaged)
  if not cut:
    return shown
  return dataclasses.replace(
    shown,
    order=shown.order[cut:],
    damaged=frozenset(k - cut for k in shown.damaged if k >= cut),
    left_out=shown.left_out + cut,
    changed=shown.changed and (shown.changed[0] - cut, shown.changed[1]),
    interlaced=None if shown.interlaced is None else shown.interlaced - cut,
  )


def as_text(numbers: collections.abc.Sequence[int]) -> str:
  """'3, 7-9' for the ascending 3, 7, 8, 9."""
  parts: list[list[int]] = []
  for number in numbers:
    if parts and number == parts[-1][-1] + 1:
      parts[-1][1:] = [number]
    else:
      parts.append([number])
  return ', '.join('-'.join(map(str, part)) for part in parts)
