import numpy as np
import pytest
from flax import nnx
from inference.whole import assert_same
from inference.window import Window, clip

from vqm_jax import enhancers, errors, inference
from vqm_jax.inference import excerpts


class Source:
  """A clip that notes which frames are read."""

  def __init__(self, frames):
    self.clip, self.num_frames, self.read = frames, len(frames), []

  def frames(self, start=0, stop=None):
    self.read.append((start, stop))
    yield from self.clip[start:stop]


@pytest.mark.parametrize(('num_frames', 'unit_frames'), [(1, 1), (5, 3), (7, 1)])
@pytest.mark.parametrize('length', [1, 2, 9, 40])
def test_excerpts_equal_a_pass_over_the_whole(num_frames, unit_frames, length):
  network, frames = Window(num_frames, unit_frames, nnx.Rngs(0)), clip(length)
  source, indices = Source(frames), sorted({0, 1 % length, length // 2, length - 1})
  whole = {s: list(inference.restore_frames(network, frames, strength=s)) for s in (0.5, 1)}
  found = list(inference.restore_at(network, source, indices, (0.5, 1)))
  for index, (frame, restored) in zip(indices, found, strict=True):
    np.testing.assert_array_equal(frame, frames[index])
    for one, strength in zip(restored, whole, strict=True):
      assert_same(one, whole[strength][index])
  assert len(source.read) == len(indices) and all(stop - start <= num_frames for start, stop in source.read)


def test_recurrent_generators_get_a_run_up():
  class Counter(enhancers.RecurrentGenerator):
    size_multiple = 1

    def init_carry(self, frame):
      return 0 * frame

    def step(self, carry, frame):
      return carry + 1 / 255, carry

  source = Source(clip(40))
  before = [restored[0][0, 0, 0] for _, restored in inference.restore_at(Counter(), source, [3, 30])]
  assert before == [3, excerpts.RUN_UP] and source.read == [(0, 4), (30 - excerpts.RUN_UP, 31)]


def test_bad_strengths_are_refused_before_anything_is_read():
  source = Source(clip(3))
  with pytest.raises(errors.ConfigError, match='^--strength=2: '):
    next(inference.restore_at(Window(1, 1, nnx.Rngs(0)), source, [0], (1, 2)))
  assert source.read == []
