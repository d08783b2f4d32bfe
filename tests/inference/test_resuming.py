"""From any frame on, as if all had been restored."""

import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqm_jax import enhancers, errors, host_memory, inference, video
from vqm_jax.restorers.base import Restorer

LENGTH = 40
CUTS = (9, 10, 27)
REACH = video.CUT_REACH + 1


class Window(Restorer):
  """Each frame of the window with a weight of its own."""

  size_multiple = 4

  def __init__(self, num_frames, unit_frames=1):
    self.num_frames, self.unit_frames = num_frames, unit_frames

  def encode(self, frames):
    return frames.mean(axis=1) * frames[:, 0]

  def restore(self, features):
    weights = jnp.arange(1.0, features.shape[1] + 1) / 8
    return jnp.tensordot(features, weights, (1, 0))


class Running(enhancers.RecurrentGenerator):
  """Never forgets what it has seen in a scene."""

  size_multiple = 4

  def init_carry(self, frame):
    return jnp.zeros_like(frame)

  def step(self, carry, frame):
    carry = 0.9 * carry + 0.0937 * frame
    return carry, carry


class Narrow(Window):
  """Has memory for narrow tiles only."""

  widest = 24

  def encode(self, frames):
    if max(frames.shape[2:4]) > self.widest:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.')
    return super().encode(frames)


def frames_of(length=LENGTH, height=20, width=28):
  """Scenes that look different, and move a little."""
  rng = np.random.default_rng(0)
  scene, frames = None, []
  for index in range(length):
    if index in (0, *CUTS):
      scene = rng.integers(0, 256, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    frames.append(np.clip(scene + rng.integers(-3, 4, scene.shape), 0, 255).astype(np.uint8))
  return frames


class Reader:
  """Gives frames from a position, and remembers what was asked for and how many are open."""

  def __init__(self, frames):
    self.frames, self.asked, self.open = frames, [], 0

  def __call__(self, first):
    self.asked.append(first)
    self.open += 1
    try:
      yield from self.frames[first:]
    finally:
      self.open -= 1


NETWORKS = {
  'one frame': lambda: Window(1),
  'three frames': lambda: Window(3),
  'seven frames': lambda: Window(7),
  'units of three': lambda: Window(7, 3),
  'recurrent': Running,
}


@pytest.mark.parametrize('find_cuts', [video.mark_cuts, None], ids=['cuts', 'one scene'])
@pytest.mark.parametrize('kind', NETWORKS)
def test_any_start_gives_the_frames_of_a_whole_run(kind, find_cuts):
  network, frames = NETWORKS[kind](), frames_of()
  options = dict(find_cuts=find_cuts, devices=jax.devices()[:2])
  whole = list(inference.restore_frames(network, iter(frames), **options))
  found: list[int] = []
  read = Reader(frames)
  pairs = list(inference.restore_from(network, read, cuts=found, reach=REACH, **options))
  np.testing.assert_array_equal([frame for frame, _ in pairs], frames)
  np.testing.assert_array_equal([restored for _, restored in pairs], whole)
  if find_cuts and kind != 'one frame':
    assert found == list(CUTS)
  for start in (1, 4, 8, 9, 10, 11, 12, 13, 26, 27, 28, 30, 39):
    known = [cut for cut in found if cut < start]
    pairs = list(inference.restore_from(network, read, start, cuts=known, reach=REACH, **options))
    np.testing.assert_array_equal([frame for frame, _ in pairs], frames[start:])
    np.testing.assert_array_equal([restored for _, restored in pairs], whole[start:])
  assert read.open == 0
  if kind == 'one frame':
    assert read.asked[-1] == 39
  elif kind != 'recurrent':
    assert read.asked[-1] >= 39 - 3 - REACH  # and no more


@pytest.mark.parametrize('start', [0, 12])
def test_out_of_memory_halves_the_tile(start, caplog):
  network, frames = Narrow(3), frames_of()
  options = dict(overlap=4, devices=jax.devices()[:1])
  read = Reader(frames)
  pairs = list(inference.restore_from(network, read, start, **options))
  assert len(pairs) == LENGTH - start and read.open == 0
  wanted = list(inference.restore_frames(Window(3), iter(frames), tile=(20, 16), **options))[start:]
  np.testing.assert_array_equal([restored for _, restored in pairs], wanted)
  told = [record.getMessage() for record in caplog.records if 'out of memory' in record.getMessage()]
  assert len(told) == 1
  assert 'RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.' in told[0] and '--tile=20x16 begins so' in told[0]


def test_out_of_memory_in_the_middle_tries_that_frame_again(monkeypatch):
  frames, network = frames_of(), Window(3)
  options = dict(devices=jax.devices()[:1], overlap=8)
  restore, calls = inference.resuming.streaming.restore_frames, []

  def failing(network, frames, *, tile, **more):
    calls.append(tile)
    for index, frame in enumerate(restore(network, frames, tile=tile, **more)):
      if tile is None and index == 17:
        raise MemoryError
      yield frame

  monkeypatch.setattr(inference.resuming.streaming, 'restore_frames', failing)
  found = [restored for _, restored in inference.restore_from(network, Reader(frames), **options)]
  assert calls == [None, (20, 16)]
  whole = list(restore(network, iter(frames), **options))
  tiled = list(restore(network, iter(frames), tile=(20, 16), **options))
  np.testing.assert_array_equal(found, whole[:17] + tiled[17:])


@pytest.mark.parametrize(
  'error',
  [
    MemoryError(),
    RuntimeError("can't start new thread"),
    jax.errors.JaxRuntimeError('INTERNAL: Error dispatching computation: YNNPACK operation failed: error'),
    jax.errors.JaxRuntimeError('INTERNAL: Error dispatching computation: Out of memory allocating 115343360 bytes.'),
  ],
)
def test_memory_that_runs_out_by_whatever_name(error):
  """As seen under a limit of memory, of frames that are read and of those that are restored."""
  frames, failed = frames_of(6), []

  def read(first):
    for index, frame in enumerate(frames[first:], start=first):
      if index == 2 and not failed:
        failed.append(index)
        raise error
      yield frame

  found = [restored for _, restored in inference.restore_from(Window(1), read, devices=jax.devices()[:1])]
  assert failed and len(found) == 6


def test_other_errors_are_no_lack_of_memory():
  def read(first):
    yield frames_of(1)[0]
    raise RuntimeError('of another kind')

  with pytest.raises(RuntimeError, match='of another kind'):
    list(inference.restore_from(Window(1), read, devices=jax.devices()[:1]))


def test_no_tile_is_small_enough():
  def run(network, frames, **options):
    with pytest.raises(errors.DataError) as caught:
      list(inference.restore_from(network, Reader(frames), devices=jax.devices()[:1], **options))
    return str(caught.value)

  Narrow.widest, before = 0, Narrow.widest
  try:
    message = run(Narrow(3), frames_of(6, 100, 200))
    assert message.startswith('out of memory at frame 0 (RESOURCE_EXHAUSTED') and 'in tiles of 16x16; close' in message
    network = Narrow(3)
    network.whole_frames = True
    assert 'cannot work in tiles, for it measures whole frames' in run(network, frames_of(6))
  finally:
    Narrow.widest = before


class Wide(Window):
  """Takes memory: as much as 32 frames of its size in floats."""

  def encode(self, frames):
    channels = jnp.stack([frames[:, 0].mean(-1) * k for k in range(1, 97)], axis=-1)
    return jnp.sort(channels, axis=-1).mean(-1, keepdims=True) * frames[:, 0]


@pytest.mark.parametrize(('ensemble', 'number'), [(1, 3), (8, 2)])
def test_a_cpu_that_lacks_memory_begins_in_tiles(monkeypatch, caplog, ensemble, number):
  frames, options = frames_of(2, 48, 64), dict(devices=jax.devices()[:1], overlap=8, self_ensemble=ensemble)
  temporaries, rest = inference.resuming.streaming.memory_needed(Wide(1), 48, 64, options['devices'])
  assert temporaries > 48 * 64 * 96 * 4 > rest
  asked = []
  restore = inference.resuming.streaming.restore_frames
  monkeypatch.setattr(
    inference.resuming.streaming,
    'restore_frames',
    lambda *args, tile, **more: asked.append(tile) or restore(*args, tile=tile, **more),
  )
  needed = temporaries + ensemble * rest
  for free, tile in ((needed / 0.7 + 1, None), (needed / 0.7 - 1, (48, 32)), (0, (12, 16)))[:number]:
    monkeypatch.setattr(host_memory, 'free', lambda free=free: free)
    caplog.clear()
    found = [restored for _, restored in inference.restore_from(Wide(1), Reader(frames), **options)]
    assert asked.pop() == tile and not asked
    np.testing.assert_array_equal(found, list(restore(Wide(1), iter(frames), tile=tile, **options)))
    told = [text for text in caplog.messages if 'of memory' in text]
    assert len(told) == (tile is not None)
    assert tile is None or told[0].endswith(f'in tiles of {tile[0]}x{tile[1]}, as by --tile={tile[0]}x{tile[1]}')


@pytest.mark.parametrize('devices', [1, 2])
def test_to_know_what_it_takes_compiles_nothing_more(monkeypatch, caplog, devices):
  monkeypatch.setattr(host_memory, 'free', lambda: 1 << 50)
  frames = frames_of(3, 36 + 4 * devices, 40)  # of no other test
  with jax.log_compiles(True), caplog.at_level(logging.DEBUG, 'jax'):
    assert len(list(inference.restore_from(Wide(3), Reader(frames), devices=jax.devices()[:devices]))) == 3
  compiled = [text.split(' in ')[0] for text in caplog.messages if text.startswith('Finished XLA compilation of ')]
  assert compiled.count('Finished XLA compilation of jit(mapped)') == 2  # the part of each frame, and of each window


def test_what_cannot_work_in_tiles_is_not_asked_to(monkeypatch):
  monkeypatch.setattr(host_memory, 'free', lambda: 0)
  network = Window(3)
  network.whole_frames = True
  for each in (network, Running()):
    assert len(list(inference.restore_from(each, Reader(frames_of(4)), devices=jax.devices()[:1]))) == 4


def test_a_tile_that_was_asked_for_is_kept(monkeypatch, caplog):
  monkeypatch.setattr(host_memory, 'free', lambda: 0)
  options = dict(tile=(20, 16), overlap=4, devices=jax.devices()[:1])
  assert len(list(inference.restore_from(Window(3), Reader(frames_of(4)), **options))) == 4
  assert not caplog.messages


LIMITED = """
import resource
import jax, numpy as np, psutil
from vqm_jax import inference

network, options = inference.load('web-small'), dict(devices=jax.devices()[:1])
frames = list(np.random.default_rng(0).integers(0, 256, (2, 1088, 1920, 3), np.uint8))
list(inference.restore_frames(network, [frames[0][:512, :512]], tile=(256, 256), **options))  # what is taken once
needed = sum(inference.resuming.streaming.memory_needed(network, 1088, 1920, options['devices']))
limit = psutil.Process().memory_info().data + int(0.8 * needed)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(sum(1 for _ in inference.restore_from(network, lambda first: (frame for frame in frames[first:]), **options)))
"""


@pytest.mark.slow
def test_a_real_limit_of_memory():
  """The process may not have what a whole frame takes."""
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  found = subprocess.run(
    [sys.executable, '-c', LIMITED], capture_output=True, text=True, timeout=300, env=environment, check=True
  )
  assert found.stdout == '2\n'
  assert 'whole frames take about' in found.stderr and 'out of memory' not in found.stderr


def test_other_errors_are_not_taken_for_it():
  class Broken(Window):
    def encode(self, frames):
      raise jax.errors.JaxRuntimeError('INTERNAL: something else')

  with pytest.raises(jax.errors.JaxRuntimeError, match='something else'):
    list(inference.restore_from(Broken(3), Reader(frames_of())))
