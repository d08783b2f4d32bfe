"""One video from its file to another one: decoded, restored and encoded side by side, in segments.

Three threads take the frames in their order: one decodes, one asks the network, one encodes. What each frame needs by
itself, the way to RGB and back, is done in some more threads beside decoding and encoding.
"""

import contextlib
import functools
import pathlib
import threading
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
  """Write the restored frames of `source` to `output`, whatever is there.

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
  stages = {name: _Stage() for name in ('decoding', 'network', 'encoding')}
  decoding, network, encoding = stages.values()
  cuts: list[int] = []

  def notes(start: int, stop: int) -> dict[str, Any]:
    found = {'cuts': [cut for cut in cuts if start <= cut < stop]}
    return found | (against.notes(start, stop) if against else {})

  def read(first: int) -> Iterator[np.ndarray]:
    return video.prefetch(decoding.items(video.frame_jobs(source, first)), work=decoding.call)

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
    started, count = time.perf_counter(), 0
    with contextlib.ExitStack() as inner:
      shown = [_restored, _side_by_side][: len(outputs)]
      writers = [_Writing(output, first, show, encoding) for output, show in zip(outputs, shown, strict=True)]
      writers = [inner.enter_context(video.in_background(each, work=each.prepare)) for each in writers]
      if first < source.num_frames:
        pairs = inner.enter_context(
          contextlib.closing(restore(functools.partial(_waiting, read, network), first, cuts))
        )
        pairs = cli.progress(network.items(pairs), source.num_frames - first, 'enhance', 'frames')
        for frame, restored in pairs:
          if against:  # before a segment can end with it
            against.look(first + count, frame, restored)
          for writer in writers:
            writer.write((frame, restored))
          count += 1
          if stop and stop.signal:
            break
    busy = {name: stage.busy for name, stage in stages.items()}
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


def _restored(frame: np.ndarray, restored: np.ndarray) -> np.ndarray:
  del frame
  return restored


def _side_by_side(frame: np.ndarray, restored: np.ndarray) -> np.ndarray:
  divider = np.full((len(frame), _DIVIDER, 3), np.iinfo(frame.dtype).max, frame.dtype)
  return np.concatenate([frame, divider, restored], axis=1)


class _Stage:
  """How long a stage was at work: in a thread that takes frames in their order, and in others beside it."""

  def __init__(self):
    self._in_order, self._beside, self._lock = 0.0, 0.0, threading.Lock()

  @property
  def busy(self) -> float:
    """Seconds of whatever bounds the stage: that thread, or each of the `video.WORKERS` others."""
    return max(self._in_order, self._beside / video.WORKERS)

  def items(self, items: Iterator) -> Iterator:
    """The items as they come, on the clock."""
    while True:
      start = time.perf_counter()
      try:
        item = next(items)
      except StopIteration:
        return
      finally:
        self.spend(time.perf_counter() - start)
      yield item

  def spend(self, seconds: float) -> None:
    """Add time of the thread that takes frames in their order."""
    with self._lock:  # a comparison is written by a second one
      self._in_order += seconds

  def call(self, work: Callable, *args: Any) -> Any:
    """work(*args) in one of the other threads, on the clock."""
    start = time.perf_counter()
    try:
      return work(*args)
    finally:
      with self._lock:
        self._beside += time.perf_counter() - start


def _waiting(read: Read, network: _Stage, first: int) -> Iterator[np.ndarray]:
  """The frames as they come; waiting for them is not the network's work."""
  with contextlib.closing(read(first)) as frames:
    while True:
      start = time.perf_counter()
      frame = next(frames, None)
      network.spend(start - time.perf_counter())
      if frame is None:
        return
      yield frame


class _Writing:
  """An output from frame `first` on, which gets what `show` makes of frame and restored frame.

  Several threads may `prepare` that beside the one that writes.
  """

  def __init__(self, output: segments.SegmentedOutput, first: int, show: Callable, stage: _Stage):
    self._output, self._first, self._show, self._stage = output, first, show, stage

  def prepare(self, index: int, pair: tuple[np.ndarray, np.ndarray]) -> Any:
    return self._stage.call(lambda: self._output.prepare(self._first + index, self._show(*pair)))

  def write(self, prepared: Any) -> None:
    start = time.perf_counter()
    self._output.append(prepared)
    self._stage.spend(time.perf_counter() - start)
