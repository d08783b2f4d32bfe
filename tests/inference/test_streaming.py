import jax
import numpy as np
import pytest
from flax import nnx
from inference.whole import assert_same, whole
from inference.window import Window, clip

from vqm_jax import errors, restorers
from vqm_jax.inference import reflect_index, restore_frames, streaming
from vqm_jax.inference.streaming import stream_frames
from vqm_jax.restorers.ecnu import C2CNet


@pytest.mark.parametrize('devices', [1, 3])
@pytest.mark.parametrize(('num_frames', 'unit_frames'), [(1, 1), (5, 1), (5, 3), (7, 1)])
@pytest.mark.parametrize('length', [1, 2, 9])
def test_streaming_equals_whole_windows(num_frames, unit_frames, length, devices):
  network = Window(num_frames, unit_frames, nnx.Rngs(0))
  frames = clip(length)
  got = np.stack(list(restore_frames(network, iter(frames), devices=jax.devices()[:devices])))
  assert_same(got, whole(network, frames))


@pytest.mark.parametrize('devices', [1, 2])
@pytest.mark.parametrize(('every', 'length'), [(2, 9), (4, 8), (7, 6), (3, 3)])
def test_every_nth_output_is_the_same_as_among_all(every, length, devices):
  network = Window(5, 3, nnx.Rngs(0))
  frames = clip(length)
  some = list(restore_frames(network, iter(frames), every=every, devices=jax.devices()[:devices]))
  expected = list(restore_frames(network, frames, devices=jax.devices()[:1]))[every - 1 :: every]
  assert len(some) == len(expected)
  for a, b in zip(some, expected, strict=True):
    assert_same(a, b)


@pytest.mark.parametrize('tile', [None, (4, 8)])
@pytest.mark.parametrize('strength', [0.0, 0.5, 1.0])
def test_sixteen_bits_in_and_out(tile, strength):
  """uint16 is computed with in full: the same frames at a 257th of a step give the same values, only finer."""
  network = Window(3, 1, nnx.Rngs(0))
  frames = clip(4)
  coarse = [
    np.asarray(frame)
    for frame in stream_frames(network, iter(frames), tile=tile, strength=strength, devices=jax.devices()[:1])
  ]
  deep = frames.astype(np.uint16) * 257
  found = list(restore_frames(network, iter(deep), tile=tile, strength=strength, devices=jax.devices()[:1]))
  for fine, expected in zip(found, coarse, strict=True):
    assert fine.dtype == np.uint16
    assert np.abs(fine - 65535 * np.clip(expected, 0, 1)).max() <= 0.6
  # Less than a step of 8 bits makes a difference.
  other = list(restore_frames(network, iter(deep ^ 100), tile=tile, strength=strength, devices=jax.devices()[:1]))
  assert not np.array_equal(other, found)
  if strength == 0:
    np.testing.assert_array_equal(found, deep)


def test_bits_do_not_change_within_a_clip():
  frames = [clip(1)[0], clip(1)[0].astype(np.uint16)]
  with pytest.raises(errors.DataError, match='Frame 1 is uint16, expected uint8'):
    list(restore_frames(Window(1, 1, nnx.Rngs(0)), iter(frames)))


def test_reflection_does_not_repeat_the_end_frame():
  assert [reflect_index(i, 4) for i in range(-4, 8)] == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
  assert [reflect_index(i, 1) for i in (-2, 0, 3)] == [0, 0, 0]


@pytest.mark.parametrize('size', [(16, 16), (17, 23), (33, 64), (5, 3), (1, 9)])
def test_any_frame_size(size):
  network = C2CNet(width=4, mapping_width=4, num_blocks=1, image_residual=True, tail_gain=0.0, rngs=nnx.Rngs(0))
  network.tail.bias[...] = network.tail.bias[...] * 0
  frames = clip(2, *size)
  np.testing.assert_array_equal(np.stack(list(restore_frames(network, frames))), frames)


def test_padding_does_not_leak():
  network = restorers.create('none', rngs=nnx.Rngs(0))
  frames = clip(3, 7, 9)
  np.testing.assert_array_equal(np.stack(list(restore_frames(network, frames))), frames)


def test_memory_is_bounded_by_the_window():
  network = Window(5, 1, nnx.Rngs(0))
  alive, most = [], 0

  class Frame(np.ndarray):
    def __del__(self):
      if len(self.shape) == 3 and self.base is None:
        alive.pop()

  def source():
    for frame in clip(60):
      alive.append(1)
      own = np.ndarray.__new__(Frame, frame.shape, np.uint8)
      own[...] = frame
      yield own

  count = 0
  for _ in restore_frames(network, source(), devices=jax.devices()[:1]):
    count += 1
    most = max(most, len(alive))
  assert count == 60 and most <= 12


def test_self_ensemble_averages_the_eight_symmetries_and_keeps_a_symmetric_network():
  frames = clip(3, 8, 12)
  symmetric = Window(3, 1, nnx.Rngs(0))  # acts per pixel, so every symmetry gives the same
  plain, ensemble = (list(restore_frames(symmetric, frames, self_ensemble=n)) for n in (1, 8))
  assert_same(np.stack(plain), np.stack(ensemble))
  other = C2CNet(width=4, mapping_width=4, num_blocks=1, rngs=nnx.Rngs(0))
  turned = [np.ascontiguousarray(f[::-1].swapaxes(0, 1)) for f in frames]
  a = np.stack(list(restore_frames(other, frames, self_ensemble=8)))
  b = np.stack(list(restore_frames(other, turned, self_ensemble=8)))
  assert_same(a[:, ::-1].swapaxes(1, 2), b)  # equivariant, which the plain network is not
  with pytest.raises(errors.ConfigError, match='use 1 or 8'):
    next(restore_frames(other, frames, self_ensemble=3))


def test_a_frame_is_fetched_when_the_next_ones_have_been_asked_for(monkeypatch):
  """Devices do what they are asked in order: a frame fetched at once would wait for all that was asked before it."""
  told = []

  class Coming:
    def __init__(self, frame, **unused):
      self.frame, self.number = frame, sum(event == 'asked' for event, _ in told)
      told.append(('asked', self.number))

    def copy_to_host_async(self):
      told.append(('sent', self.number))

    def __array__(self, dtype=None, copy=None):
      told.append(('fetched', self.number))
      return np.asarray(self.frame)

  monkeypatch.setattr(streaming, 'to_integers', Coming)
  list(restore_frames(Window(1, 1, nnx.Rngs(0)), clip(4), devices=jax.devices()[:1]))
  expected = ['asked', 'sent'] + ['asked', 'sent', 'fetched'] * 3 + ['fetched']
  assert [event for event, _ in told] == expected
  assert [number for event, number in told if event == 'fetched'] == [0, 1, 2, 3]


def test_a_frame_of_another_size_is_refused_by_number():
  network = Window(3, 1, nnx.Rngs(0))
  with pytest.raises(errors.DataError, match='Frame 2'):
    list(restore_frames(network, [*clip(2), clip(1, 4, 4)[0]]))
