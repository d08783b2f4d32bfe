"""Random windows of the strips of a sample, mirrored or turned."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

# The symmetries to choose from, as bits for `turned`: 2 mirrors left and right.
AUGMENTATIONS = {'symmetries': range(8), 'flip': (0, 2), 'none': (0,)}


class Elsewhere(NamedTuple):
  """In the place of a strip whose frames are in a table of many, such as one on a device; what is cut are `ROW`s.

  Attributes:
    table: number of the table.
    record: which of its strips.
    shape: of that, (T, H, W, 3).
  """

  table: int
  record: int
  shape: tuple[int, int, int, int]


Strip = np.ndarray | Elsewhere
# A window of such a strip, int32 (6,): where it begins, and the bits of `symmetry` that mirror and turn it.
ROW = ('table', 'record', 't', 'y', 'x', 'symmetry')


@dataclasses.dataclass(frozen=True)
class Windows(grain.transforms.RandomMap):
  """Cuts `count` times a window out of each of two strips and mirrors or turns it."""

  num_frames: int
  crop: int
  symmetries: Sequence[int]
  count: int

  def random_map(self, strips: dict[str, Strip], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """{'lq', 'hq'}: uint8 (count, num_frames, crop, crop, 3), or `ROW`s of strips that are elsewhere."""
    samples = [self._draw(strips, rng) for _ in range(self.count)]
    return {name: np.stack([sample[name] for sample in samples]) for name in strips}

  def _draw(self, strips: dict[str, Strip], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One sample {'lq', 'hq'}: uint8 (num_frames, crop, crop, 3), or a `ROW`."""
    raise NotImplementedError

  def _place(self, strip: Strip, rng: np.random.Generator) -> tuple[int, int, int]:
    """Random y, x and symmetry of a window."""
    _, height, width, _ = strip.shape
    y = int(rng.integers(height - self.crop + 1))
    x = int(rng.integers(width - self.crop + 1))
    return y, x, self.symmetries[rng.integers(len(self.symmetries))]

  def _cut(self, strip: Strip, y: int, x: int, symmetry: int) -> np.ndarray:
    t = (strip.shape[0] - self.num_frames) // 2
    if isinstance(strip, Elsewhere):
      return np.array([strip.table, strip.record, t, y, x, symmetry], np.int32)
    window = strip[t : t + self.num_frames, y : y + self.crop, x : x + self.crop]
    # A contiguous copy lets go of the full record, of which a whole batch would be kept alive.
    return np.ascontiguousarray(turned(window, symmetry))


class Aligned(Windows):
  """The same window of lq and hq; where hq has a margin around lq, anywhere within the margin."""

  def _draw(self, strips: dict[str, Strip], rng: np.random.Generator) -> dict[str, np.ndarray]:
    lq, hq = strips['lq'], strips['hq']
    y, x, symmetry = self._place(lq, rng)
    dy, dx = rng.integers(hq.shape[1] - lq.shape[1] + 1, size=2)
    return {'lq': self._cut(lq, y, x, symmetry), 'hq': self._cut(hq, y + dy, x + dx, symmetry)}


class Independent(Windows):
  """A window of lq and, without regard to it, one of hq."""

  def _draw(self, strips: dict[str, Strip], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: self._cut(strip, *self._place(strip, rng)) for name, strip in strips.items()}


def turned(frames: np.ndarray, index: int) -> np.ndarray:
  """One of the 8 symmetries of the square, for frames (T, H, H, 3)."""
  if index & 1:
    frames = frames[:, ::-1]
  if index & 2:
    frames = frames[:, :, ::-1]
  if index & 4:
    frames = frames.swapaxes(1, 2)
  return frames
