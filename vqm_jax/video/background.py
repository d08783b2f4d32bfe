"""Reading and writing frames in a thread each, so that decoding, computing and encoding overlap.

Both hold a bounded number of frames, and both raise in the caller what went wrong in the thread.
"""

import collections
import collections.abc
import concurrent.futures
import contextlib

import numpy as np

from vqm_jax.video.writer import FrameWriter


def prefetch(frames: collections.abc.Iterator[np.ndarray], size: int = 8) -> collections.abc.Iterator[np.ndarray]:
  """Yields `frames`, produced by a thread that is up to `size` ahead; closes them when it is closed."""
  end = object()
  pool = concurrent.futures.ThreadPoolExecutor(1, 'frame-reader')
  try:
    ahead = collections.deque(pool.submit(next, frames, end) for _ in range(size))
    while (frame := ahead.popleft().result()) is not end:
      ahead.append(pool.submit(next, frames, end))
      yield frame
  finally:
    pool.shutdown(cancel_futures=True)
    frames.close()


@contextlib.contextmanager
def in_background(writer: FrameWriter, size: int = 8) -> collections.abc.Iterator[FrameWriter]:
  """A context whose `.write` returns at once, unless `size` frames wait; leaving it waits for all."""
  pool = concurrent.futures.ThreadPoolExecutor(1, 'frame-writer')
  try:
    background = _Background(writer, pool, size)
    yield background
    background.finish()
  finally:
    pool.shutdown(cancel_futures=True)


class _Background:
  def __init__(self, writer: FrameWriter, pool: concurrent.futures.Executor, size: int):
    self._writer, self._pool, self._size = writer, pool, size
    self._waiting = collections.deque()

  def write(self, rgb: np.ndarray) -> None:
    while len(self._waiting) >= self._size or (self._waiting and self._waiting[0].done()):
      self._waiting.popleft().result()
    self._waiting.append(self._pool.submit(self._writer.write, rgb))

  def finish(self) -> None:
    while self._waiting:
      self._waiting.popleft().result()
