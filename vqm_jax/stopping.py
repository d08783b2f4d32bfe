"""Leaving in order when a scheduler or the user asks for it."""

import signal
from typing import Self

from absl import logging


class StopRequest:
  """A context that turns SIGTERM and the first Ctrl-C into a flag; a second Ctrl-C interrupts.

  Attributes:
    signal: what was received; None so far.
  """

  def __init__(self, announcement: str):
    """`announcement` says what happens before the process leaves; it is logged with the name of the signal."""
    self._announcement = announcement
    self.signal: signal.Signals | None = None

  def __enter__(self) -> Self:
    self.signal = None
    self._previous = {}
    try:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._receive)
    except ValueError:  # not the main thread (a notebook's or a test's): signals are somebody else's there
      pass
    return self

  def _receive(self, number, _frame) -> None:
    if self.signal is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal = signal.Signals(number)
    logging.warning('%s received: %s', self.signal.name, self._announcement)

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
