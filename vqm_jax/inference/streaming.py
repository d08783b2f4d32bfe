"""Restoring a stream of frames with a sliding window, in bounded memory, on all devices.

Each frame is decoded, sent to the device (as uint8) and encoded once. A restorer's reusable work is cached by the
tuple of frame indices it came from, so windows that are mirrored at the ends of a clip stay exact.
"""

import collections
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vqm_jax import errors, parallel


def reflect_index(index: int, length: int) -> int:
  """Returns `index` mirrored into [0, length) without repeating the end frames: ..., 2, 1, 0, 1, 2, ..."""
  if length == 1:
    return 0
  index %= 2 * (length - 1)
  return min(index, 2 * (length - 1) - index)


def pad_to_multiple(frames: jax.Array, multiple: int) -> jax.Array:
  """Pads (..., H, W, C) at the bottom and right, by reflection, to multiples of `multiple`.

  Only there, because padding on top or left would shift the grid of strided layers.
  """
  *lead, h, w, _ = frames.shape
  return jnp.pad(frames, [(0, 0)] * len(lead) + [(0, -h % multiple), (0, -w % multiple), (0, 0)], mode='reflect')


def to_uint8(frames: jax.Array) -> jax.Array:
  """Quantises float frames in [0, 1] (clipped to it) to uint8, rounding half to even."""
  return jnp.round(jnp.clip(frames, 0.0, 1.0) * 255.0).astype(jnp.uint8)


@functools.lru_cache(maxsize=32)
def _programs(graphdef: nnx.GraphDef, mesh: Mesh, height: int, width: int):
  """Compiled `encode(state, uint8 units)` and `restore(state, features)` for one network and frame size."""

  def encode(state, frames):
    network = nnx.merge(graphdef, state)
    return network.encode(pad_to_multiple(frames.astype(jnp.float32) / 255.0, network.size_multiple))

  def restore(state, features):
    return nnx.merge(graphdef, state).restore(features)[:, :height, :width]

  split = functools.partial(parallel.data_parallel, mesh=mesh, outputs_split=True)
  return split(encode), split(restore)


def _stream(
  network: nnx.Module, state: Any, frames: Iterable[np.ndarray], mesh: Mesh, every: int
) -> Iterator[jax.Array]:
  """Yields restored frames, float32 (H, W, 3), unclipped; one group of them is always in flight."""
  graphdef = nnx.graphdef(network)
  radius, unit, group = network.num_frames // 2, network.unit_frames, mesh.size
  source = iter(frames)
  buffer: dict[int, np.ndarray] = {}
  features: dict[tuple[int, ...], Any] = {}
  in_flight: collections.deque[tuple[jax.Array, int]] = collections.deque()
  read, length, size = 0, None, None
  wanted = itertools.count(every - 1, every)

  while True:
    outputs = list(itertools.islice(wanted, group))
    while length is None and read <= outputs[-1] + radius:
      frame = next(source, None)
      if frame is None:
        length = read
        break
      if size is None:
        size = frame.shape
        encode, restore = _programs(graphdef, mesh, *size[:2])
      if frame.shape != size or frame.dtype != np.uint8:
        raise errors.DataError(
          f'Frame {read} is {frame.dtype} {frame.shape}, expected uint8 {size} as the frames before; '
          'split the input where its size changes.'
        )
      buffer[read] = frame
      read += 1
    outputs = [t for t in outputs if length is None or t < length]
    if not outputs:
      break
    windows = []
    for t in outputs:
      window = [reflect_index(i, length or read) for i in range(t - radius, t + radius + 1)]
      windows.append([tuple(window[k : k + unit]) for k in range(network.num_frames - unit + 1)])
    windows += windows[-1:] * (group - len(windows))  # every device gets a window; surplus results are dropped
    missing = list(dict.fromkeys(u for window in windows for u in window if u not in features))
    for start in range(0, len(missing), group):
      units = missing[start : start + group]
      stacked = np.stack([np.stack([buffer[i] for i in u]) for u in units + units[-1:] * (group - len(units))])
      encoded = encode(state, parallel.split_over(stacked, mesh))
      for k, u in enumerate(units):
        features[u] = jax.tree.map(lambda x, k=k: x[k], encoded)
    stacked = [jax.tree.map(lambda *x: jnp.stack(x), *(features[u] for u in window)) for window in windows]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *stacked)
    in_flight.append((restore(state, parallel.split_over(stacked, mesh)), len(outputs)))
    oldest = outputs[-1] + every - radius  # of the windows to come
    for index in [i for i in buffer if i < oldest]:
      del buffer[index]
    for u in [u for u in features if max(u) < oldest]:
      del features[u]
    if len(in_flight) > 1:
      restored, count = in_flight.popleft()
      yield from restored[:count]
  for restored, count in in_flight:
    yield from restored[:count]


# The eight symmetries of the square as (transpose, flip vertically, flip horizontally).
_SYMMETRIES = tuple(itertools.product((False, True), repeat=3))


def _flip(frame, vertical, horizontal):
  return frame[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def _transform(frame, symmetry):
  transpose, *flips = symmetry
  return np.ascontiguousarray(_flip(frame.swapaxes(0, 1) if transpose else frame, *flips))


def _untransform(frame, symmetry):
  transpose, *flips = symmetry
  frame = _flip(frame, *flips)
  return frame.swapaxes(0, 1) if transpose else frame


def restore_frames(
  network: nnx.Module,
  frames: Iterable[np.ndarray],
  *,
  self_ensemble: int = 1,
  every: int = 1,
  devices: list | None = None,
) -> Iterator[np.ndarray]:
  """Yields the restored frames of one clip, uint8 (H, W, 3), as many as came in.

  Windows never leave the clip: at its ends they are mirrored without repeating the end frame. Memory holds one
  window of frames and features, whatever the length.

  Args:
    network: a restorer.
    frames: uint8 (H, W, 3) of one size, any size.
    self_ensemble: 1, or 8 to average over the eight flips and transposes (eight times the work).
    every: restore only frames n-1, 2n-1, ...; they see all their neighbours.
    devices: defaults to all devices of this process.

  Raises:
    ConfigError: another `self_ensemble`.
    DataError: a frame of another size.
  """
  if self_ensemble not in (1, 8):
    raise errors.ConfigError(f'self_ensemble={self_ensemble} is not supported; use 1 or 8.')
  mesh = parallel.batch_mesh(devices=devices or jax.local_devices())
  state = jax.device_put(nnx.to_pure_dict(nnx.state(network)), parallel.replicated(mesh))
  if self_ensemble == 1:
    for restored in _stream(network, state, frames, mesh, every):
      yield np.asarray(to_uint8(restored))
    return
  copies = itertools.tee(frames, len(_SYMMETRIES))
  streams = [
    _stream(network, state, map(functools.partial(_transform, symmetry=symmetry), copy), mesh, every)
    for copy, symmetry in zip(copies, _SYMMETRIES, strict=True)
  ]
  for views in zip(*streams, strict=True):
    restored = sum(_untransform(view, symmetry) for view, symmetry in zip(views, _SYMMETRIES, strict=True))
    yield np.asarray(to_uint8(restored / len(_SYMMETRIES)))
