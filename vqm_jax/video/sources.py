"""The protocol of every clip of frames, whatever it was read from."""

import collections.abc
import functools
import os
import zipfile
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np

from vqm_jax import errors

Readable = str | os.PathLike | zipfile.Path


@runtime_checkable
class VideoSource(Protocol):
  """Frames of one clip, readable any number of times and from any position, in bounded memory."""

  name: str
  fps: Fraction
  num_frames: int
  height: int
  width: int

  def frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[np.ndarray]:
    """Yield frames `start` to `stop` (exclusive, default the end) as uint8 (H, W, 3) RGB."""
    ...


def frame_jobs(source: VideoSource, start: int = 0) -> collections.abc.Iterator[collections.abc.Callable]:
  """For each frame from `start` on, what returns it; several threads may call these side by side.

  The source's own `jobs`, where it has them: what of its work can be done for each frame by itself. Else all of the
  work is done here, in order.
  """
  if hasattr(source, 'jobs'):
    return source.jobs(start)
  return (functools.partial(_itself, frame) for frame in source.frames(start))


def _itself(frame: np.ndarray) -> np.ndarray:
  return frame


def checked_stop(source: VideoSource, start: int, stop: int | None) -> int:
  """Return `stop`, or the end. Raises VideoError for frames that the source does not have."""
  stop = source.num_frames if stop is None else stop
  if not 0 <= start <= source.num_frames or stop > source.num_frames:
    raise errors.VideoError(f'{source.name}: frames {start} to {stop} asked for, there are {source.num_frames}')
  return stop
