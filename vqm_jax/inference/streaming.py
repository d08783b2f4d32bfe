"""Restoring a stream of frames with a sliding window, in bounded memory, on all devices.

Two passes, interleaved: each frame is decoded, sent to the device as it is and encoded once; each window is restored
from the features of its frames. A restorer's reusable work is cached by the tuple of frame indices it came from, so
windows that are mirrored at the ends of a clip stay exact. Memory holds one window of features, the temporaries of one
`encode` or one `restore`, and never the whole clip.

A window never crosses a scene cut: it is mirrored there as at the ends of a clip, so that a clip comes out as its
scenes would that were cut apart beforehand, bit for bit.

Whole frames by default; `tile` cuts the temporaries for machines short of memory. Validation, evaluation and `enhance`
all come through here, so that a frame is padded in one way only.
"""

import bisect
import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vqm_jax import enhancers, errors, parallel
from vqm_jax.layers.frozen import frozen

# Turns the frames of a clip into (frame, whether it starts a scene).
FindCuts = Callable[[Iterator[np.ndarray]], Iterator[tuple[np.ndarray, bool]]]
# The same as it goes through all that follows.
_Marked = tuple[np.ndarray, bool]

MAX_STRENGTH = 1.5


def reflect_index(index: int, length: int) -> int:
  """Return `index` mirrored into [0, length) without repeating the end frames: ..., 2, 1, 0, 1, 2, ..."""
  if length == 1:
    return 0
  index %= 2 * (length - 1)
  return min(index, 2 * (length - 1) - index)


def known_cuts(starts: Iterable[int]) -> FindCuts:
  """Make a `find_cuts` of the frames that are known to start a scene."""
  starts = frozenset(starts)
  return lambda frames: ((frame, index in starts) for index, frame in enumerate(frames))


def sees_several(network: nnx.Module) -> bool:
  """Whether an output of the network depends on more than its own frame, so that scene cuts matter."""
  return isinstance(network, enhancers.RecurrentGenerator) or network.num_frames > 1


def pad_to_multiple(frames: jax.Array, multiple: int) -> jax.Array:
  """Pad (..., H, W, C) at the bottom and right, by reflection, to multiples of `multiple`.

  Only there, because padding on top or left would shift the grid of strided layers.
  """
  *lead, h, w, _ = frames.shape
  return jnp.pad(frames, [(0, 0)] * len(lead) + [(0, -h % multiple), (0, -w % multiple), (0, 0)], mode='reflect')


def as_floats(frames: jax.Array) -> jax.Array:
  """float32 in [0, 1] of uint8 or uint16 frames, whose largest value is white."""
  return frames.astype(jnp.float32) / float(jnp.iinfo(frames.dtype).max)


@functools.partial(jax.jit, static_argnames='dtype')
def to_integers(frames: jax.Array, dtype: Any) -> jax.Array:
  """Quantise float frames in [0, 1] (clipped to it) to uint8 or uint16, rounding half to even."""
  return jnp.round(jnp.clip(frames, 0.0, 1.0) * float(jnp.iinfo(dtype).max)).astype(dtype)


def to_uint8(frames: jax.Array) -> jax.Array:
  """Quantise float frames in [0, 1] (clipped to it) to uint8, rounding half to even."""
  return to_integers(frames, dtype=jnp.uint8)


def check_strength(strength: float) -> None:
  """Raises ConfigError for a strength outside of [0, MAX_STRENGTH]."""
  if not 0 <= strength <= MAX_STRENGTH:
    raise errors.ConfigError(
      f'--strength={strength:g}: expected 0 (the input) to {MAX_STRENGTH:g}, where 1 is what the network gives; choose '
      'a number between.'
    )


@jax.jit
def _blend(frame, restored, strength):
  frame = as_floats(frame)
  return frame + strength * (restored - frame)


def with_strength(frame: np.ndarray, restored: jax.Array | np.ndarray, strength: float) -> jax.Array | np.ndarray:
  """frame + strength * (restored - frame), on the device of `restored`; `restored` itself at strength 1.

  Args:
    frame: what was restored, uint8 or uint16 (H, W, 3).
    restored: float32 (H, W, 3), not clipped.
    strength: any number; another one compiles nothing anew.

  Returns:
    float32 (H, W, 3), not clipped; at strength 0 `to_integers` gives `frame` bit for bit.
  """
  return restored if strength == 1 else _blend(frame, restored, float(strength))


@functools.lru_cache(maxsize=32)
def _programs(graphdef: nnx.GraphDef, mesh: Mesh, height: int, width: int):
  """Compiled `encode(state, integer units)` and `restore(state, features per unit)` for one network and frame size."""

  def encode(state, frames):
    network = nnx.merge(graphdef, state)
    return network.encode(pad_to_multiple(as_floats(frames), network.size_multiple))

  def restore(state, units):
    features = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *units)
    return nnx.merge(graphdef, state).restore(features)[:, :height, :width]

  split = functools.partial(parallel.data_parallel, mesh=mesh, outputs_split=True)
  return split(encode), split(restore)


def lower_programs(
  network: nnx.Module, height: int, width: int, devices: list
) -> tuple[jax.stages.Lowered, jax.stages.Lowered]:
  """The programs that `restore_frames` compiles, of a unit of frames and of a window, each on every device at once.

  Args:
    network: a restorer.
    height, width: of frames, or of tiles with what they overlap.
    devices: that get a frame each; they need not be there (`jax.experimental.topologies`).
  """
  network, mesh = frozen(network), parallel.batch_mesh(devices=devices)
  encode, restore = _programs(nnx.graphdef(network), mesh, height, width)
  state = nnx.to_pure_dict(nnx.state(network))
  state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.replicated(mesh)), state)

  def split(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.split(mesh))

  frames = split(jax.ShapeDtypeStruct((mesh.size, network.unit_frames, height, width, 3), jnp.uint8))
  units = [jax.tree.map(split, jax.eval_shape(encode, state, frames))] * _units(network)
  return encode.lower(state, frames), restore.lower(state, units)


def _units(network: nnx.Module) -> int:
  """How many units make a window."""
  return network.num_frames - network.unit_frames + 1


def memory_needed(network: nnx.Module, height: int, width: int, devices: list) -> tuple[int, int]:
  """How many bytes restoring frames of this size takes on all of these devices together: (temporaries, the rest).

  The compiler tells of its temporaries; the rest is features of a window and frames on their way. Nothing is run, and
  what is compiled is what `restore_frames` runs. Arguments are those of `lower_programs`.
  """
  programs = lower_programs(network, height, width, devices)
  encoding, restoring = (program.compile().memory_analysis() for program in programs)
  temporaries = max(encoding.temp_size_in_bytes, restoring.temp_size_in_bytes)
  # A group of windows needs as many features more as it has windows; a result is made while two are on their way.
  kept = (_units(network) + 1) * encoding.output_size_in_bytes + 3 * restoring.output_size_in_bytes
  return len(devices) * temporaries, len(devices) * kept


def _stream(network: nnx.Module, state: Any, frames: Iterable[_Marked], mesh: Mesh, every: int) -> Iterator[jax.Array]:
  """Yield restored frames, float32 (H, W, 3), unclipped; one group of them is always in flight."""
  graphdef = nnx.graphdef(network)
  radius, unit, group = network.num_frames // 2, network.unit_frames, mesh.size
  source = iter(frames)
  buffer: dict[int, np.ndarray] = {}
  features: dict[tuple[int, ...], Any] = {}
  in_flight: collections.deque[list[jax.Array]] = collections.deque()
  scenes = [0]  # first frames of the scenes, and the end of the clip, as far as they are needed and known
  read, ended, size = 0, False, None
  wanted = itertools.count(every - 1, every)

  while True:
    outputs = list(itertools.islice(wanted, group))
    while not ended and read <= outputs[-1] + radius:
      frame, starts_scene = next(source, (None, True))
      if starts_scene and read:
        scenes.append(read)
      if frame is None:
        ended = True
        break
      if size is None:
        size = frame.shape
        encode, restore = _programs(graphdef, mesh, *size[:2])
      buffer[read] = frame
      read += 1
    outputs = [t for t in outputs if t < read]
    if not outputs:
      break
    windows = []
    for t in outputs:
      window = _window(t, radius, scenes, read)
      windows.append([tuple(window[k : k + unit]) for k in range(_units(network))])
    windows += windows[-1:] * (group - len(windows))  # every device gets a window; surplus results are dropped
    missing = list(dict.fromkeys(u for window in windows for u in window if u not in features))
    for start in range(0, len(missing), group):
      units = missing[start : start + group]
      indices = [i for u in units + units[-1:] * (group - len(units)) for i in u]
      stacked = np.stack([buffer[i] for i in indices]).reshape(group, unit, *size)
      encoded = encode(state, parallel.split_over(stacked, mesh))
      features.update(zip(units, parallel.per_device(encoded, mesh), strict=False))
    window_units = [parallel.from_devices([features[u] for u in units], mesh) for units in zip(*windows, strict=True)]
    restored = parallel.per_device(restore(state, window_units), mesh)
    in_flight.append([part[0] for part in restored[: len(outputs)]])
    oldest = outputs[-1] + every - radius  # of the windows to come
    for index in [i for i in buffer if i < oldest]:
      del buffer[index]
    for u in [u for u in features if max(u) < oldest]:
      del features[u]
    while len(scenes) > 1 and scenes[1] <= outputs[-1] + every:
      del scenes[0]
    if len(in_flight) > 1:
      yield from in_flight.popleft()
  yield from itertools.chain.from_iterable(in_flight)


def _window(centre: int, radius: int, scenes: list[int], read: int) -> list[int]:
  """The frames around `centre`, mirrored into its scene; `scenes` start there, and `read` frames are known."""
  at = bisect.bisect_right(scenes, centre)
  start, stop = scenes[at - 1], scenes[at] if at < len(scenes) else read
  return [start + reflect_index(i - start, stop - start) for i in range(centre - radius, centre + radius + 1)]


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


@dataclasses.dataclass(frozen=True)
class _Tile:
  """Along one axis: the pixels that are read, and those of them that are kept."""

  start: int
  stop: int
  keep_start: int
  keep_stop: int


def _tiles(size: int, tile: int, overlap: int, multiple: int) -> list[_Tile]:
  """Cover `size` pixels by tiles of `tile` kept pixels, read with `overlap` more on each side that has them.

  Tiles start on multiples of `multiple`, where the strided layers of the whole frame have their grid.
  """
  out = []
  for first in range(0, size, tile):
    start = max(0, first - overlap) // multiple * multiple
    out.append(_Tile(start, min(first + tile + overlap, size), first, min(first + tile, size)))
  return out


@functools.lru_cache(maxsize=32)
def _recurrent_programs(graphdef: nnx.GraphDef, height: int, width: int):
  """Compiled `start(state, frame)` and `step(state, carry, frame)` of a recurrent network."""

  def prepared(network, frame):
    return pad_to_multiple(as_floats(frame[None]), network.size_multiple)

  def start(state, frame):
    network = nnx.merge(graphdef, state)
    return network.init_carry(prepared(network, frame))

  def step(state, carry, frame):
    network = nnx.merge(graphdef, state)
    carry, enhanced = network.step(carry, prepared(network, frame))
    return carry, enhanced[0, :height, :width]

  return jax.jit(start), jax.jit(step, donate_argnums=1)


def _recurrent_stream(
  network: enhancers.RecurrentGenerator, state: Any, frames: Iterable[_Marked], every: int
) -> Iterator[jax.Array]:
  """As `_stream`, frame after frame on one device; the carry starts anew with each scene."""
  carry, waiting, programs = None, None, None
  for number, (frame, starts_scene) in enumerate(frames, start=1):
    programs = programs or _recurrent_programs(nnx.graphdef(network), *frame.shape[:2])
    start, step = programs
    if carry is None or starts_scene:
      carry = start(state, frame)
    carry, enhanced = step(state, carry, frame)
    if number % every == 0:
      if waiting is not None:  # one frame is always in flight
        yield waiting
      waiting = enhanced
  if waiting is not None:
    yield waiting


def _tiled_stream(network, state, frames, mesh, every, tile, overlap) -> Iterator[jax.Array | np.ndarray]:
  """`_stream`, tile by tile where `tile` (height, width) is given; parts in the overlap are thrown away."""
  if tile is None:
    yield from _stream(network, state, frames, mesh, every)
    return
  first, frames = _peek(frames)
  if first is None:
    return
  height, width = first[0].shape[:2]
  axes = [_tiles(*sizes, overlap, network.size_multiple) for sizes in zip((height, width), tile, strict=True)]
  tiles = list(itertools.product(*axes))
  copies = zip(tiles, itertools.tee(frames, len(tiles)), strict=True)
  streams = [
    _stream(network, state, _changed(functools.partial(_cropped, y, x), copy), mesh, every) for (y, x), copy in copies
  ]
  for parts in zip(*streams, strict=True):
    whole = np.empty((height, width, parts[0].shape[-1]), np.float32)
    for (y, x), part in zip(tiles, parts, strict=True):
      kept = part[y.keep_start - y.start : y.keep_stop - y.start, x.keep_start - x.start : x.keep_stop - x.start]
      whole[y.keep_start : y.keep_stop, x.keep_start : x.keep_stop] = kept
    yield whole


def _cropped(y: _Tile, x: _Tile, frame: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(frame[y.start : y.stop, x.start : x.stop])


def _changed(change: Callable[[np.ndarray], np.ndarray], frames: Iterable[_Marked]) -> Iterator[_Marked]:
  """Each frame changed, with its mark."""
  return ((change(frame), starts_scene) for frame, starts_scene in frames)


def _peek(frames: Iterator[_Marked]) -> tuple[_Marked | None, Iterator[_Marked]]:
  first = next(frames, None)
  return first, frames if first is None else itertools.chain([first], frames)


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """The frames as they come, once each is seen to be uint8 or uint16 RGB of one size and kind."""
  size = None
  for index, frame in enumerate(frames):
    if frame.dtype not in (np.uint8, np.uint16) or frame.ndim != 3 or frame.shape[-1] != 3:
      raise errors.DataError(
        f'Frame {index} is {frame.dtype} {frame.shape}, expected RGB as uint8 or uint16 (H, W, 3); convert it first.'
      )
    if size is None:
      size, dtype = frame.shape, frame.dtype
    if frame.shape != size:
      raise errors.DataError(
        f'Frame {index} is {frame.shape}, expected {size} as the frames before; split the input where its size changes.'
      )
    if frame.dtype != dtype:
      raise errors.DataError(
        f'Frame {index} is {frame.dtype}, expected {dtype} as the frames before; convert it first.'
      )
    yield frame


def remembered(
  frames: Iterable[np.ndarray], originals: collections.deque[np.ndarray], every: int
) -> Iterator[np.ndarray]:
  """The frames as they come; those that will be restored wait in `originals`."""
  for number, frame in enumerate(frames, start=1):
    if number % every == 0:
      originals.append(frame)
    yield frame


def _ensemble(stream: Callable, frames: Iterator[_Marked]) -> Iterator[jax.Array | np.ndarray]:
  """The mean over `stream(view)` of the eight symmetries of `frames`."""
  copies = itertools.tee(frames, len(_SYMMETRIES))
  streams = [
    stream(_changed(functools.partial(_transform, symmetry=symmetry), copy))
    for copy, symmetry in zip(copies, _SYMMETRIES, strict=True)
  ]
  for views in zip(*streams, strict=True):
    restored = sum(_untransform(view, symmetry) for view, symmetry in zip(views, _SYMMETRIES, strict=True))
    yield restored / len(_SYMMETRIES)


def parse_tile(text: str | None) -> tuple[int, int] | None:
  """(height, width) of '512' or '540x960'; None for '', whole frames. Raises ConfigError for anything else."""
  if not text:
    return None
  sides = text.split('x')
  if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
    raise errors.ConfigError(f'--tile={text} should be a size in pixels, 512 or HEIGHTxWIDTH as in 540x960.')
  return int(sides[0]), int(sides[-1])


def restore_frames(
  network: nnx.Module,
  frames: Iterable[np.ndarray],
  *,
  self_ensemble: int = 1,
  tile: tuple[int, int] | None = None,
  overlap: int = 64,
  every: int = 1,
  strength: float = 1.0,
  devices: list | None = None,
  find_cuts: FindCuts | None = None,
) -> Iterator[np.ndarray]:
  """Yield the restored frames of one clip, (H, W, 3) and uint8 or uint16 as they came in, as many as came in.

  Windows never leave their scene: at its ends they are mirrored without repeating the end frame, and a scene shorter
  than the window is mirrored again and again. Memory holds one window of frames and features, whatever the length. A
  recurrent generator goes through the clip on one device, and forgets what it saw where a new scene begins.

  Args:
    network: a restorer or the generator of an enhancer.
    frames: (H, W, 3) of one size, any size; uint8, or uint16 where 65535 is white. All bits are computed with.
    self_ensemble: 1, or 8 to average over the eight flips and transposes (eight times the work).
    tile: (height, width) of tiles to work in, or None for whole frames. A tile sees `overlap` pixels around it, which
      are thrown away. It is an approximation where a network sees farther, as the deep ones do; measure it.
    overlap: pixels that a tile sees beyond itself; costs work.
    every: restore only frames n-1, 2n-1, ...; they see all their neighbours.
    strength: from 0, the input, over 1, what the network gives, to `MAX_STRENGTH`, past its correction:
      frame + strength * (restored - frame), before rounding.
    devices: defaults to all devices of this process.
    find_cuts: turns frames into (frame, whether it starts a scene): `video.mark_cuts`, or `known_cuts`. The clip is one
      scene without it. Networks that see a frame at a time are spared it.

  Raises:
    ConfigError: another `self_ensemble` or strength, a tile or overlap that does not fit the network.
    DataError: a frame of another size or kind.
  """
  dtype = None

  def noted():
    nonlocal dtype
    for frame in frames:
      dtype = frame.dtype
      yield frame

  streams = stream_frames(
    network,
    noted(),
    self_ensemble=self_ensemble,
    tile=tile,
    overlap=overlap,
    every=every,
    strength=strength,
    devices=devices,
    find_cuts=find_cuts,
  )
  # On its way to the host while the device is at work on the next ones: what is asked of a device comes in order, so
  # that waiting for a frame right away would be waiting for all that was asked for after it.
  coming: collections.deque[jax.Array] = collections.deque()
  for restored in streams:
    coming.append(to_integers(restored, dtype=dtype))
    coming[-1].copy_to_host_async()
    if len(coming) > 1:
      yield np.asarray(coming.popleft())
  for restored in coming:
    yield np.asarray(restored)


def stream_frames(
  network: nnx.Module,
  frames: Iterable[np.ndarray],
  *,
  self_ensemble: int = 1,
  tile: tuple[int, int] | None = None,
  overlap: int = 64,
  every: int = 1,
  strength: float = 1.0,
  devices: list | None = None,
  find_cuts: FindCuts | None = None,
) -> Iterator[jax.Array | np.ndarray]:
  """As `restore_frames`, but float32 and unclipped, as the network gave them."""
  if self_ensemble not in (1, 8):
    raise errors.ConfigError(f'self_ensemble={self_ensemble} is not supported; use 1 or 8.')
  check_strength(strength)
  recurrent, multiple = isinstance(network, enhancers.RecurrentGenerator), network.size_multiple
  if tile is not None and (recurrent or network.whole_frames):
    raise errors.ConfigError(
      f'tile={tile[0]}x{tile[1]}: this network measures whole frames, so that tiles would come out with different '
      'colours; leave --tile out.'
    )
  if tile is not None and (min(tile) < 1 or any(side % multiple for side in tile) or overlap < 0):
    raise errors.ConfigError(
      f'tile={tile[0]}x{tile[1]}, overlap={overlap}: the sides must be multiples of {multiple} for this network, the '
      'overlap not negative.'
    )
  devices = devices or jax.local_devices()
  mesh = parallel.batch_mesh(devices=devices[:1] if recurrent else devices)
  network = frozen(network)
  state = jax.device_put(nnx.to_pure_dict(nnx.state(network)), parallel.replicated(mesh))
  frames = _checked(frames)
  originals = collections.deque()
  if strength != 1:
    frames = remembered(frames, originals, every)
  marked = find_cuts(frames) if find_cuts and sees_several(network) else ((frame, False) for frame in frames)

  def stream(view):
    if recurrent:
      return _recurrent_stream(network, state, view, every)
    return _tiled_stream(network, state, view, mesh, every, tile, overlap)

  for restored in _ensemble(stream, marked) if self_ensemble == 8 else stream(marked):
    yield with_strength(originals.popleft(), restored, strength) if originals else restored
