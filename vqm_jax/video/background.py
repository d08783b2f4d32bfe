"""Reading and writing frames beside the caller, so that decoding, converting, computing and encoding overlap.

Both have a thread for what goes in order, which is decoding and encoding, and some for what is done with each frame by
itself, such as the conversion between YCbCr and RGB: at 1080p that takes a core longer than some networks take a GPU.
Both hold a bounded number of frames, and both raise in the caller what went wrong in a thread.
"""

import collections
import collections.abc
import concurrent.futures
import contextlib
import os
from typing import Any, Protocol

# Threads that do what is done with each frame by itself.
WORKERS = min(4, os.cpu_count() or 1)


def prefetch(
  items: collections.abc.Iterator[Any], size: int = 8, work: collections.abc.Callable[[Any], Any] | None = None
) -> collections.abc.Iterator[Any]:
  """Yield `items`, produced by a thread that is up to `size` ahead; close them when it is closed.

  With `work`, yields `work(item)` in the place of each, in their order; `WORKERS` threads do that side by side.
  """
  end = object()
  with contextlib.ExitStack() as stack:
    stack.callback(items.close)
    workers = stack.enter_context(_threads(WORKERS, 'frame-worker'))
    reader = stack.enter_context(_threads(1, 'frame-reader'))

    def following() -> Any:
      item = next(items, end)
      return item if item is end or work is None else workers.submit(work, item)

    ahead = collections.deque(reader.submit(following) for _ in range(size))
    while (item := ahead.popleft().result()) is not end:
      if work is not None:
        item = item.result()
      ahead.append(reader.submit(following))
      yield item


class Writer(Protocol):
  """A writer that `in_background` takes."""

  def write(self, item: Any) -> None:
    """Append a frame, or what was made of it."""
    ...


@contextlib.contextmanager
def in_background(
  writer: Writer, size: int = 8, work: collections.abc.Callable[[int, Any], Any] | None = None
) -> collections.abc.Iterator[Writer]:
  """A context whose `.write` returns at once, unless `size` frames wait; leaving it waits for all.

  With `work`, the writer gets `work(k, item)` in the place of the k-th item, in their order; `WORKERS` threads do that
  side by side.
  """
  with _threads(WORKERS, 'frame-worker') as workers, _threads(1, 'frame-writer') as pool:
    background = _Background(writer, pool, size, workers, work)
    yield background
    background.finish()


@contextlib.contextmanager
def _threads(count: int, name: str) -> collections.abc.Iterator[concurrent.futures.Executor]:
  """Threads that are gone when the context is left; what has not begun by then is given up."""
  pool = concurrent.futures.ThreadPoolExecutor(count, name)
  try:
    yield pool
  finally:
    pool.shutdown(cancel_futures=True)


class _Background:
  def __init__(self, writer, pool, size, workers, work):
    self._writer, self._pool, self._size = writer, pool, size
    self._workers, self._work, self._count = workers, work, 0
    self._waiting, self._failed = collections.deque(), False

  def write(self, item: Any) -> None:
    while len(self._waiting) >= self._size or (self._waiting and self._waiting[0].done()):
      self._waiting.popleft().result()
    made = self._workers.submit(self._work, self._count, item) if self._work else None
    self._waiting.append(self._pool.submit(self._append, item, made))
    self._count += 1

  def _append(self, item: Any, made: concurrent.futures.Future | None) -> None:
    if self._failed:  # what comes behind would lie in the place of what is missing
      return
    try:
      self._writer.write(made.result() if made else item)
    except BaseException:
      self._failed = True
      raise

  def finish(self) -> None:
    while self._waiting:
      self._waiting.popleft().result()
