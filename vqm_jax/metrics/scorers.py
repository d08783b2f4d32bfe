"""Shared by metrics of clips: frames come in one by one, scores go out at the end."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from vqm_jax import errors


class Scorer(Protocol):
  """Takes one metric of one clip, frame by frame, in memory for a few frames."""

  def add(self, candidates: Sequence[np.ndarray], target: np.ndarray | None, source: np.ndarray | None) -> None:
    """Take one frame, uint8 (H, W, 3): what each candidate made of it, its target and what they were given.

    Raises:
      DataError: the reference is not there, frames are of another kind or size, or another number of candidates.
    """
    """Takes the next frame. Frames may be kept for the next call: write into none of them.

    Args:
      candidates: the versions of it to score, as many for every frame: the output, the unprocessed input, ...
        uint8 RGB (H, W, 3), of one size throughout the clip.
      target: as a candidate; None only where the metric does not ask for it.
      source: the frame before processing; as `target`.

    Raises:
      DataError: a frame is missing, is not uint8 (H, W, 3), differs in size, or is too small for the metric.
    """

  def values(self) -> list[list[float]]:
    """Return the values so far of each candidate."""
    """One list for each candidate; the clip's score is the mean of its list."""


class BaseScorer(abc.ABC):
  """Checks frames, finds the reference and keeps the values of each candidate."""

  def __init__(self, name: str, reference: str = 'target', smallest: int = 1):
    """Create a scorer.

    Args:
      name: for messages.
      reference: what candidates are compared with: 'target', 'input', or '' for nothing.
      smallest: height and width that frames must have.
    """
    self._name, self._reference, self._smallest = name, reference, smallest
    self._shape: tuple[int, ...] | None = None
    self._values: list[list[float]] | None = None

  def add(self, candidates: Sequence[np.ndarray], target: np.ndarray | None, source: np.ndarray | None) -> None:
    """Take one frame, uint8 (H, W, 3): what each candidate made of it, its target and what they were given.

    Raises:
      DataError: the reference is not there, frames are of another kind or size, or another number of candidates.
    """
    reference = {'target': target, 'input': source, '': None}[self._reference]
    if self._reference and reference is None:
      raise errors.DataError(
        f'{self._name} compares with the {self._reference}, which was not given; leave {self._name} out.'
      )
    self._check([*candidates] if reference is None else [reference, *candidates])
    if self._values is None:
      self._values = [[] for _ in candidates]
    if len(candidates) != len(self._values):
      raise errors.DataError(
        f'{self._name}: expected {len(self._values)} versions of each frame as before, found {len(candidates)}.'
      )
    self._add(candidates, reference)

  def values(self) -> list[list[float]]:
    """Return the values so far of each candidate."""
    return [list(values) for values in self._values or []]

  @abc.abstractmethod
  def _add(self, candidates: Sequence[np.ndarray], reference: np.ndarray | None) -> None:
    """Take frames that were checked."""

  def _check(self, frames: Sequence[np.ndarray]) -> None:
    for frame in frames:
      if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
        mend = 'drop the alpha channel' if frame.ndim == 3 and frame.shape[-1] == 4 else 'clip, round and convert them'
        raise errors.DataError(
          f'{self._name}: frames must be uint8 RGB (H, W, 3), found {frame.dtype} {frame.shape}; {mend} first.'
        )
      if self._shape is None:
        self._shape = frame.shape
      if frame.shape != self._shape:
        raise errors.DataError(
          f'{self._name}: all frames and their references must have one shape, found {self._shape} and {frame.shape}.'
        )
    if self._shape and min(self._shape[:2]) < self._smallest:
      raise errors.DataError(
        f'{self._name} needs frames of at least {self._smallest} pixels a side, '
        f'found {self._shape[0]}x{self._shape[1]}; leave {self._name} out.'
      )


class FrameScorer(BaseScorer):
  """A metric of single frames against their reference: n values."""

  def __init__(
    self,
    name: str,
    compare: Callable[[Any, Any], float],
    prepare: Callable[[np.ndarray], Any] = lambda frame: frame,
    smallest: int = 1,
    reference: str = 'target',
  ):
    """Create a scorer.

    Args:
      name: for messages.
      compare: (candidate, reference), both as `prepare` returns them -> value.
      prepare: applied once to each frame.
      smallest: height and width that frames must have.
      reference: what candidates are compared with: 'target' or 'input'.
    """
    super().__init__(name, reference, smallest)
    self._compare, self._prepare = compare, prepare

  def _add(self, candidates: Sequence[np.ndarray], reference: np.ndarray) -> None:
    expected = self._prepare(reference)
    for frame, values in zip(candidates, self._values, strict=True):
      values.append(float(self._compare(expected if frame is reference else self._prepare(frame), expected)))
