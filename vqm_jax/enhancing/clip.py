"""One video from its file to another one: decoded, restored and encoded side by side, in segments."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from vqm_jax import cli, stopping, video
from vqm_jax.inference import Read
from vqm_jax.inference.reference import AgainstOriginal
from vqm_jax.video import segments

# (read, first frame, cuts) -> pairs of frame and restored frame from there on; see `inference.restore_from`.
Restore = Callable[[Read, int, list[int]], Generator[tuple[np.ndarray, np.ndarray], None, None]]

_DIVIDER = 2


class Report(NamedTuple):
  """How it went.

  Attributes:
    frames: restored now.
    before: finished by an earlier run.
    total: of the video.
    kept: in finished segments, from which the same command goes on.
    seconds: that the frames took now.
    busy: of these, how long each of decoding, network and encoding was at work; they overlap.
  """

  frames: int
  before: int
  total: int
  kept: int
  seconds: float
  busy: Mapping[str, float]

  @property
  def complete(self) -> bool:
    """Whether the output is there."""
    return self.before + self.frames == self.total

  def shares(self) -> str:
    """One line on what bounds the run."""
    parts = ', '.join(f'{name} {100 * busy / self.seconds:.0f} %' for name, busy in self.busy.items())
    return f'time at work, side by side: {parts}; {max(self.busy, key=self.busy.get)} bounds the run'


def enhance_video(
  restore: Restore,
  source: video.VideoSource,
  output: pathlib.Path,
  *,
  compare: pathlib.Path | None = None,
  codec: str | None = None,
  crf: float | None = None,
  job: Mapping[str, Any] | None = None,
  stop: stopping.StopRequest | None = None,
  against: AgainstOriginal | None = None,
) -> Report:
  """Writes the restored frames of `source` to `output`, whatever is there.

  Decoding, restoring and encoding overlap, and memory does not grow with the length. A file appears only when it is
  complete. What is finished of it is kept beside it in segments, from which the same `job` goes on.

  Args:
    restore: restores the frames.
    source: whose frames.
    output: video file, or folder for PNG.
    compare: the path of a video with input and output side by side.
    codec: of the output.
    crf: of the output.
    job: what the frames depend on, as JSON; without it nothing is kept of a run that ends early.
    stop: asked after each frame whether to leave.
    against: scores the frames, of earlier runs too.

  Raises:
    VideoError: damaged input, lost frames, a full disk.
    BusyError: another process is at work on the same output.
  """
  busy = dict.fromkeys(('decoding', 'network', 'encoding'), 0.0)
  cuts: list[int] = []

  def notes(start: int, stop: int) -> dict[str, Any]:
    found = {'cuts': [cut for cut in cuts if start <= cut < stop]}
    return found | (against.notes(start, stop) if against else {})

  def read(first: int) -> Iterator[np.ndarray]:
    return video.prefetch(_timed(source.frames(first), busy, 'decoding'))

  with contextlib.ExitStack() as stack:
    size = dict(height=source.height, width=source.width)
    wide = size | {'width': 2 * source.width + _DIVIDER}
    begin = functools.partial(segments.SegmentedOutput, source=source, codec=codec, crf=crf, job=job, notes=notes)
    outputs = [stack.enter_context(begin(output, **size))]
    if compare:
      outputs.append(stack.enter_context(begin(compare, **wide)))
    first = _common_start(outputs)
    for finished in outputs[0].notes:
      cuts += finished['cuts']
      if against:
        against.recall(finished)
    divider = np.full((source.height, _DIVIDER, 3), np.iinfo(outputs[0].dtype).max, outputs[0].dtype)
    started, count = time.perf_counter(), 0
    with contextlib.ExitStack() as inner:
      writers = [inner.enter_context(video.in_background(_TimedWriter(each, busy))) for each in outputs]
      if first < source.num_frames:
        pairs = inner.enter_context(contextlib.closing(restore(functools.partial(_waiting, read, busy), first, cuts)))
        pairs = cli.progress(_timed(pairs, busy, 'network'), source.num_frames - first, 'enhance', 'frames')
        for frame, restored in pairs:
          if against:  # before a segment can end with it
            against.look(first + count, frame, restored)
          writers[0].write(restored)
          if compare:
            writers[1].write(np.concatenate([frame, divider, restored], axis=1))
          count += 1
          if stop and stop.signal:
            break
    report = Report(count, first, source.num_frames, outputs[0].done, time.perf_counter() - started, busy)
    if not (stop and stop.signal) or report.complete:
      segments.publish(outputs)
  return report


def _common_start(outputs: list[segments.SegmentedOutput]) -> int:
  """Has all outputs go on at the same frame."""
  first = min(output.done for output in outputs)
  while len(places := {output.rewind(first) for output in outputs}) > 1:
    first = min(places)
  return places.pop()


def _timed(items: Iterator, busy: dict[str, float], name: str) -> Iterator:
  """The items as they come; the time that they took is added to `busy`."""
  while True:
    start = time.perf_counter()
    try:
      item = next(items)
    except StopIteration:
      return
    finally:
      busy[name] += time.perf_counter() - start
    yield item


def _waiting(read: Read, busy: dict[str, float], first: int) -> Iterator[np.ndarray]:
  """The frames as they come; waiting for them is not the network's work."""
  with contextlib.closing(read(first)) as frames:
    while True:
      start = time.perf_counter()
      frame = next(frames, None)
      busy['network'] -= time.perf_counter() - start
      if frame is None:
        return
      yield frame


class _TimedWriter:
  def __init__(self, writer: segments.SegmentedOutput, busy: dict[str, float]):
    self._writer, self._busy = writer, busy

  def write(self, rgb: np.ndarray) -> None:
    start = time.perf_counter()
    self._writer.write(rgb)
    self._busy['encoding'] += time.perf_counter() - start
