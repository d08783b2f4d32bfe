"""Restoring a clip from any of its frames on, as if all frames before it had been restored, too.

A restorer needs the window before that frame; a recurrent generator, all of the scene. Frames that were restored
already are read again as far as they are needed and nothing else of them is kept, so that a run that was killed, or
ran out of memory, goes on to the very same frames.
"""

import collections
import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx

from vqm_jax import enhancers, errors, files, host_memory
from vqm_jax.inference import streaming

# Yields the frames of a clip from this one on.
Read = Callable[[int], Iterator[np.ndarray]]

# Smaller tiles are nearly all overlap, which saves no more memory.
SMALLEST_TILE = 16
# Of the memory that is free, what the network may have; decoder, encoder and their threads need some, too.
_ROOM = 0.7

# As XLA, its kernels for CPUs (which say no more) and Python, whose threads need room for a stack, put it.
_NO_MEMORY = (
  *('RESOURCE_EXHAUSTED', 'out of memory', 'failed to allocate', 'bad_alloc'),
  *('YNNPACK operation failed', "can't start new thread"),
)


def restore_from(
  network: nnx.Module,
  read: Read,
  start: int = 0,
  *,
  cuts: list[int] | None = None,
  reach: int = 0,
  tile: tuple[int, int] | None = None,
  find_cuts: streaming.FindCuts | None = None,
  **options: Any,
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
  """Yield (frame, restored frame) from frame `start` on: those that `restore_frames` of the whole clip gives there.

  Where memory runs out, the tile is halved, which is logged, and the frame restored again; no frame is left out. A CPU
  that lacks memory for whole frames begins in tiles: there, systems end a process rather than refuse it memory.

  Args:
    network: a restorer or the generator of an enhancer.
    read: gives the frames, uint8 (H, W, 3), from a position; is called anew, and what it gave closed, after that.
    start: the first frame that is wanted.
    cuts: where scenes start, as far as an earlier run has found; more are added as they are found. A recurrent
      generator goes again through the scene in which `start` lies, from the last of them.
    reach: how many frames before it tell whether one starts a scene, with `find_cuts`.
    tile: (height, width) of the tiles to begin with; None for whole frames.
    find_cuts: yields (frame, whether it starts a scene) of frames; None looks across cuts.
    **options: the others of `restore_frames`, but `every`.

  Raises:
    ConfigError, DataError: as `restore_frames`; DataError, too, where memory is too small for the smallest tile.
  """
  cuts = [] if cuts is None else cuts
  position, size = start, None
  while True:
    first = first_needed(network, position, cuts, reach if find_cuts else 0)
    cuts[:] = [cut for cut in cuts if cut <= first]
    inputs = collections.deque()
    if first < position:
      logging.info('frames %d to %d are gone through again, for what comes after them', first, position - 1)
    marked = _noting(find_cuts, first, cuts) if find_cuts else None
    try:
      with contextlib.closing(read(first)) as source:
        frames = list(itertools.islice(source, 1))
        if frames and tile is None:
          size = frames[0].shape[:2]
          tile = _fitting(network, size, **options)
        fed = _remembered(itertools.chain(frames, source), inputs, position - first)
        restored = streaming.restore_frames(network, fed, tile=tile, find_cuts=marked, **options)
        with contextlib.closing(restored):
          for frame in itertools.islice(restored, position - first, None):
            size = frame.shape[:2]
            yield inputs.popleft(), frame
            position += 1
      return
    except (MemoryError, RuntimeError) as error:  # JAX's errors are of the latter
      if not _is_out_of_memory(error):
        raise
      size = inputs[0].shape[:2] if inputs else size
      reason = str(error).strip().split('\n')[0] or 'of the host'
    # Outside of the handler, whose error would keep what filled the memory.
    tile = _halved(network, tile, size, position, reason)
    sides = 'x'.join(map(str, tile))
    logging.warning('out of memory at frame %d (%s): going on in tiles of %s; --tile=%s begins so', position, reason,
                    sides, sides)  # fmt: skip


def first_needed(network: nnx.Module, start: int, cuts: list[int], reach: int) -> int:
  """The first frame to read, so that frame `start` and those after it come out as if all had been read.

  `cuts` are those before `start`, in order; `reach` is how many frames before it tell whether one starts a scene.
  """
  if isinstance(network, enhancers.RecurrentGenerator):
    scene = max((cut for cut in cuts if cut <= start), default=0)
    return max(0, scene - reach)
  radius = network.num_frames // 2
  # A cut is of no use before the first frame of the window, and right at it changes nothing.
  return max(0, start - radius - max(0, reach - 1)) if radius else start


def _remembered(frames, inputs, skipped):
  for index, frame in enumerate(frames):
    if index >= skipped:
      inputs.append(frame)
    yield frame


def _noting(find_cuts, first, cuts):
  def marked(frames):
    for index, (frame, starts) in enumerate(find_cuts(frames), start=first):
      if starts and (not cuts or index > cuts[-1]):
        cuts.append(index)
      yield frame, starts

  return marked


def _is_out_of_memory(error: Exception) -> bool:
  text = str(error).lower()
  return isinstance(error, MemoryError) or any(sign.lower() in text for sign in _NO_MEMORY)


def _fitting(network, size, devices=None, overlap=64, self_ensemble=1, **others) -> tuple[int, int] | None:
  """The largest tile for which there is memory: the frame, halved again and again; None for whole frames."""
  devices = devices or jax.local_devices()
  if devices[0].platform != 'cpu' or not _can_tile(network):
    return None
  temporaries, rest = streaming.memory_needed(network, *size, devices)
  rest *= self_ensemble
  free, sides = host_memory.free(), size
  while temporaries * _share(sides, size, overlap) + rest > _ROOM * free:
    if _is_smallest(sides, network) or max(sides) <= overlap:
      break
    sides = _half(sides, network)
  if sides == size:
    return None
  logging.warning(
    'whole frames take about %s of memory, and %g%% of the %s that are free may be used: '
    'in tiles of %s, as by --tile=%s',
    files.size_text(temporaries + rest), 100 * _ROOM, files.size_text(free), *2 * ['x'.join(map(str, sides))],
  )  # fmt: skip
  return sides


def _share(tile, size, overlap) -> float:
  """How much of a frame a tile is that sees `overlap` pixels more on each side."""
  return math.prod(min(side + 2 * overlap, whole) / whole for side, whole in zip(tile, size, strict=True))


def _can_tile(network) -> bool:
  return not isinstance(network, enhancers.RecurrentGenerator) and not network.whole_frames


def _is_smallest(tile, network) -> bool:
  return max(tile) <= max(SMALLEST_TILE, network.size_multiple)


def _half(sides, network) -> tuple[int, int]:
  """Half of a tile, by its longer side, in steps that suit the network."""
  longer = sides.index(max(sides))
  halved = [-(-side // (1 + (k == longer))) for k, side in enumerate(sides)]
  return tuple(-(-side // network.size_multiple) * network.size_multiple for side in halved)


def _halved(network, tile, size, position, reason) -> tuple[int, int]:
  """Half of the tile, or of the frame; DataError where that is not to be had."""
  problem = f'out of memory at frame {position} ({reason})'
  if not _can_tile(network):
    raise errors.DataError(
      f'{problem}, and this network cannot work in tiles, for it measures whole frames; use a smaller video, a network '
      'that can, or a machine with more memory.'
    )
  if size is None and tile is None:
    raise errors.DataError(f'{problem}; close other programs or use a machine with more memory.')
  sides = tile or size
  if _is_smallest(sides, network):
    raise errors.DataError(
      f'{problem}, in tiles of {sides[0]}x{sides[1]}; close other programs, lower --overlap or use a machine '
      'with more memory.'
    )
  return _half(sides, network)
