"""Forecasts the cost of enhancing a video: time, memory, room on the disk; and which streams come along."""

import contextlib
import pathlib
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from vqm_jax import cli, files, video
from vqm_jax.enhancing.clip import Restore
from vqm_jax.video import segments, side_data, sizes, streams

# Of each of three places, from which the size of the output is taken.
_SAMPLE = 24
# Frames that are timed, at most, and about for how long.
_TIMED, _SECONDS = 16, 5.0
_PLACES = (0.1, 0.5, 0.9)


class Forecast(NamedTuple):
  """For one video.

  Attributes:
    seconds: of the network, for a frame.
    around: of decoding and encoding, for a frame.
    frames: of the video.
    size: of the output in bytes, and what is needed while it is made.
    needed: in bytes, while it is made: segments and, at the end, the file joined from them.
    memory: peak so far, which is that of the whole video: in bytes by the name of a memory.
  """

  seconds: float
  around: float
  frames: int
  size: float
  needed: float
  memory: dict[str, int]

  @property
  def whole(self) -> float:
    """Seconds for all frames. A GPU works beside decoding and encoding, a CPU has to do it all."""
    return self.frames * (
      self.seconds + self.around if jax.default_backend() == 'cpu' else max(self.seconds, self.around)
    )


def seconds_per_frame(restore: Restore, source: video.VideoSource, compiled: bool = False) -> float:
  """Time to restore a frame, from the first ones, compilation left out; `compiled` says that it is done."""
  few = max(3, jax.local_device_count())
  frames = list(source.frames(0, min(_TIMED, source.num_frames)))

  def run(count: int) -> Iterator[None]:
    with contextlib.closing(restore(lambda first: (frame for frame in frames[first:count]), 0, [])) as pairs:
      for _ in pairs:
        yield

  for _ in run(0 if compiled else few):
    pass
  start = time.perf_counter()
  for number, _ in enumerate(run(len(frames)), start=1):
    if number % few == 0 and time.perf_counter() - start > _SECONDS:
      break
  return (time.perf_counter() - start) / number


def forecast(
  restore: Restore, source: video.VideoSource, output: pathlib.Path, codec: str | None, crf: float | None
) -> Forecast:
  """Restore the first frames and code a few from three places; the output is not touched."""
  seconds = seconds_per_frame(restore, source)
  start = time.perf_counter()
  coded, frames = 0.0, 0
  for place in _PLACES:
    first = int(place * max(0, source.num_frames - _SAMPLE))
    stop = min(first + _SAMPLE, source.num_frames)
    coded += _size_of(source, first, stop, output, codec, crf)
    frames += stop - first
    if stop - first == source.num_frames:
      break
  around = (time.perf_counter() - start) / frames
  size = coded / frames * source.num_frames
  copied = 0
  if output.suffix.lower() in video.OUTPUT_SUFFIXES and isinstance(source, video.VideoFile):
    copied = sizes.of_other_streams(source, output.suffix.lower())
  needed = 2 * size + copied if output.suffix.lower() in video.OUTPUT_SUFFIXES else size
  return Forecast(seconds, around, source.num_frames, size + copied, needed, peak_memory())


def lines(found: Forecast, source: video.VideoSource, output: pathlib.Path) -> Iterator[str]:
  """Yield the lines to print: time, size, memory and the other streams."""
  yield time_line(found.seconds, found.frames, found.whole)
  folder = next(parent for parent in output.resolve().parents if parent.is_dir())
  size, needed, free = map(files.size_text, (found.size, found.needed, shutil.disk_usage(folder).free))
  yield f'size: about {size}, and {needed} while it is made; {free} are free in {folder}'
  memory = ' and '.join(f'{files.size_text(size)} of the {name}' for name, size in found.memory.items())
  yield f'memory: about {memory}, however long the video is'
  yield from stream_lines(source, output)


def stream_lines(source: video.VideoSource, output: pathlib.Path) -> Iterator[str]:
  """Yield the lines to print about the other streams. Raises VideoError for sound that the output cannot hold."""
  kept, left_out = other_streams(source, output)
  if kept:
    yield f'streams kept: {"; ".join(kept)}'
  if left_out:
    yield f'streams left out: {"; ".join(left_out)}'


def time_line(seconds: float, frames: int, whole: float | None = None) -> str:
  """The line on time, of a network that takes `seconds` for a frame; `whole` has decoding and encoding, too."""
  whole = seconds * frames if whole is None else whole
  return f'estimate: {seconds:.3g} s per frame, {cli.duration(whole)} for {frames} frames'


def total(found: Sequence[Forecast]) -> str:
  """One line for several videos, one after the other."""
  size = sum(each.size for each in found)
  return f'together: {cli.duration(sum(each.whole for each in found))} for {len(found)} videos, {files.size_text(size)}'


def other_streams(source: video.VideoSource, output: pathlib.Path) -> tuple[list[str], list[str]]:
  """Descriptions of what `source` holds beside pixels and comes along to `output`, and of what does not.

  Raises VideoError for sound that the output cannot hold.
  """
  if not isinstance(source, video.VideoFile):
    return [], []
  if output.suffix.lower() not in video.OUTPUT_SUFFIXES:
    lost = [*source.other_streams, *side_data.lost(source.beside)]
    lost += ['closed captions'] if side_data.CAPTIONS in source.beside else []
    lost += ['bits beyond 8'] if source.dtype != np.uint8 else []
    return [], [f'{what} (images hold no such thing)' for what in lost]
  plan = streams.plan(source, output.suffix.lower())
  return list(plan.kept), list(plan.left_out)


def peak_memory() -> dict[str, int]:
  """The most that this process has had so far, in bytes: of main memory and, where there is one, of the first GPU."""
  found = {
    'main memory': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
  }
  device = jax.local_devices()[0]
  if device.platform != 'cpu' and (stats := device.memory_stats()):
    found[device.platform.upper()] = stats.get('peak_bytes_in_use', 0)
  return found


def _size_of(source, start, stop, output, codec, crf) -> float:
  """Bytes of these frames in the output, where a keyframe is rarer than in so short a sample."""
  if (suffix := output.suffix.lower() or '.png') in video.IMAGE_SUFFIXES:
    return sum(sizes.of_image(video.to_eight_bits(frame), suffix) for frame in source.frames(start, stop))
  first, *others = sizes.of_coded(source, start, stop, codec, crf)
  if not others:
    return first
  mean = sum(others) / len(others)
  return (stop - start) * (mean + (first - mean) / min(source.num_frames, segments.VIDEO_FRAMES))
