"""Frames read ahead and written behind in threads: order, bounds, errors."""

import threading
import time

import numpy as np
import pytest

from vqm_jax.video import background

FRAMES = [np.full((2, 2, 3), k, np.uint8) for k in range(20)]


class Sink:
  """Keeps what it is given, slowly."""

  def __init__(self, fails_at=None):
    self.got, self._fails_at = [], fails_at

  def write(self, rgb):
    time.sleep(0.001)
    if len(self.got) == self._fails_at:
      raise OSError('full')
    self.got.append(int(rgb[0, 0, 0]))


def test_frames_come_in_order_and_few_are_ahead():
  made = []

  def frames():
    for frame in FRAMES:
      made.append(threading.current_thread().name)
      yield frame

  ahead = background.prefetch(frames(), size=3)
  first = next(ahead)
  time.sleep(0.05)
  assert first[0, 0, 0] == 0 and len(made) <= 4 and made[0].startswith('frame-reader')
  assert [int(frame[0, 0, 0]) for frame in ahead] == list(range(1, 20))


def test_what_goes_wrong_in_the_reader_is_raised_and_closing_closes():
  closed = []

  def frames():
    try:
      yield from FRAMES[:2]
      raise OSError('lost')
    finally:
      closed.append(True)

  with pytest.raises(OSError, match='lost'):
    list(background.prefetch(frames()))
  ahead = background.prefetch(iter_of(FRAMES, closed))
  next(ahead)
  ahead.close()
  assert closed == [True, True]


def iter_of(frames, closed):
  try:
    yield from frames
  finally:
    closed.append(True)


def test_all_is_written_in_order_when_the_context_ends():
  sink = Sink()
  with background.in_background(sink, size=2) as writer:
    for frame in FRAMES:
      writer.write(frame)
  assert sink.got == list(range(20))


def test_what_goes_wrong_in_the_writer_is_raised():
  with pytest.raises(OSError, match='full'), background.in_background(Sink(fails_at=3), size=2) as writer:
    for frame in FRAMES:
      writer.write(frame)
