"""Where training windows are cut out of a video, and the cutting, in one pass over the frames."""

import collections
import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

T, P = TypeVar('T'), TypeVar('P', bound=Any)

# Below this mean gradient of HQ luma, in levels per pixel, there is little that coding could spoil.
_FLAT_GRADIENT = 1.0
_KEEP_FLAT = 0.2


@dataclasses.dataclass(frozen=True, order=True)
class Tile:
  """One planned window: first frame, top-left corner, its scene, and whether it stays if flat."""

  start: int
  y: int
  x: int
  scene: int
  keep_flat: bool


def plan(
  clip_id: str,
  scenes: Sequence[tuple[int, int]],
  height: int,
  width: int,
  *,
  num_frames: int,
  size: int,
  per_video: int,
  seed: int,
) -> list[Tile]:
  """At most `per_video` distinct windows of a video, in the order of their frames.

  Stratified: the possible first frames of all scenes are divided into `per_video` equal strata with
  one window in each, and positions go round a grid of cells, in a new random order each round,
  jittered within the cell. No window leaves its scene; y and x are even, since 4:2:0 video stores
  one colour sample for two pixels.

  Args:
    scenes: (first frame, frame after the last) of each scene; scenes shorter than `num_frames` give nothing.
    seed: with the name of the clip it fixes the plan, whatever other clips there are.
  """
  rng = np.random.default_rng([seed, zlib.crc32(clip_id.encode())])
  starts = [
    (scene, start) for scene, (first, stop) in enumerate(scenes) for start in range(first, stop - num_frames + 1)
  ]
  if not starts:
    return []
  rows, columns = -(-height // size), -(-width // size)
  cells: list[int] = []
  tiles = {}
  for stratum in range(per_video):
    scene, start = starts[int((stratum + rng.random()) / per_video * len(starts))]
    if not cells:
      cells = list(rng.permutation(rows * columns))
    row, column = divmod(int(cells.pop()), columns)
    y = _even_position(row, rows, height - size, rng)
    x = _even_position(column, columns, width - size, rng)
    tiles.setdefault((start, y, x), Tile(start, y, x, scene, bool(rng.random() < _KEEP_FLAT)))
  return sorted(tiles.values())


def _even_position(cell: int, cells: int, last: int, rng: np.random.Generator) -> int:
  return int((cell + rng.random()) / cells * (last // 2 + 1)) * 2


def cut(
  frames: Iterable[Sequence[np.ndarray]],
  tiles: Sequence[Tile],
  *,
  num_frames: int,
  size: int,
) -> Iterator[tuple[Tile, list[np.ndarray]]]:
  """Yield (tile, a strip uint8 (num_frames, size, size, 3) of each side); some flat tiles are left out.

  Args:
    frames: whole frames uint8 (H, W, 3) of one or more sides, the best last, from frame `tiles[0].start` on.
    tiles: sorted, as `plan` returns them.
  """
  for tile, window in windows(frames, tiles, num_frames):
    area = np.s_[tile.y : tile.y + size, tile.x : tile.x + size]
    strips = [np.stack([frame[area] for frame in side]) for side in zip(*window, strict=True)]
    if tile.keep_flat or not is_flat(strips[-1]):
      yield tile, strips


def windows(frames: Iterable[T], places: Sequence[P], num_frames: int) -> Iterator[tuple[P, list[T]]]:
  """Yield (place, the `num_frames` frames from frame `place.start` on).

  Args:
    frames: from frame `places[0].start` on.
    places: things with a `start`, sorted by it.
  """
  waiting = collections.deque(places)
  window: collections.deque = collections.deque(maxlen=num_frames)
  for index, frame in enumerate(frames, start=places[0].start):
    window.append(frame)
    while waiting and waiting[0].start + num_frames == index + 1:
      yield waiting.popleft(), list(window)
    if not waiting:
      return


def is_flat(strip: np.ndarray) -> bool:
  """Whether the middle frame of a strip, uint8 (T, H, W, 3), has little that coding could spoil."""
  luma = strip[len(strip) // 2] @ np.array([0.2126, 0.7152, 0.0722], np.float32)
  dy, dx = np.diff(luma, axis=0), np.diff(luma, axis=1)
  return float(np.hypot(dy[:, :-1], dx[:-1]).mean()) < _FLAT_GRADIENT
