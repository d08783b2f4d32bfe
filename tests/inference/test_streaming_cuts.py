"""A clip with scene cuts comes out as its scenes do that were cut apart beforehand, bit for bit."""

import itertools

import jax
import numpy as np
import pytest
from flax import nnx
from inference.window import Window, clip

from vqm_jax import enhancers, inference
from vqm_jax.inference import known_cuts, restore_frames

SCENES = [(9, 4, 1, 6), (1, 1, 5, 2)]


class Recurrent(enhancers.RecurrentGenerator):
  """A generator whose every output tells how many frames it has seen."""

  size_multiple = 4

  def init_carry(self, frame):
    return 0 * frame

  def step(self, carry, frame):
    carry = 0.5 * carry + 0.4 * frame
    return carry, carry


NETWORKS = {
  'unit of 1': lambda: Window(5, 1, nnx.Rngs(0)),
  'unit of 3': lambda: Window(5, 3, nnx.Rngs(0)),
  'recurrent': Recurrent,
}


def starts_of(lengths):
  return list(itertools.accumulate(lengths))[:-1]


def apart(network, frames, lengths, **options):
  starts = [0, *starts_of(lengths), len(frames)]
  return np.stack(
    [out for a, b in itertools.pairwise(starts) for out in restore_frames(network, frames[a:b], **options)]
  )


@pytest.mark.parametrize('lengths', SCENES, ids=str)
@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('options', [{}, {'self_ensemble': 8}, {'tile': (8, 4), 'overlap': 4}], ids=str)
def test_streaming_equals_scenes_cut_apart(name, lengths, options):
  network, frames = NETWORKS[name](), clip(sum(lengths), 8, 12)
  if name == 'recurrent' and 'tile' in options:
    pytest.skip('recurrent generators take no tiles')
  cuts = known_cuts(starts_of(lengths))
  for devices in (1, 3)[: 1 if options else 2]:
    more = {**options, 'devices': jax.devices()[:devices]}
    whole = np.stack(list(restore_frames(network, iter(frames), find_cuts=cuts, **more)))
    np.testing.assert_array_equal(whole, apart(network, frames, lengths, **more))


@pytest.mark.parametrize('name', ['unit of 1', 'unit of 3', 'recurrent'])
@pytest.mark.parametrize('every', [2, 7])
def test_every_nth_frame_is_the_same_as_among_all(name, every):
  network, lengths = NETWORKS[name](), (4, 2, 9, 1, 6)
  frames, cuts = clip(sum(lengths)), known_cuts(starts_of(lengths))
  some = np.stack(list(restore_frames(network, frames, every=every, find_cuts=cuts)))
  np.testing.assert_array_equal(some, apart(network, frames, lengths)[every - 1 :: every])


def test_without_cuts_windows_mix_the_shots():
  network, frames = Window(5, 1, nnx.Rngs(0)), clip(20)
  mixed = np.stack(list(restore_frames(network, frames)))
  kept = np.stack(list(restore_frames(network, frames, find_cuts=known_cuts([10]))))
  changed = [t for t in range(20) if (mixed[t] != kept[t]).any()]
  assert changed == [8, 9, 10, 11]


def test_networks_of_one_frame_do_not_look_for_cuts():
  def never(frames):
    raise AssertionError('looked for cuts')

  frames = clip(3)
  assert len(list(restore_frames(Window(1, 1, nnx.Rngs(0)), frames, find_cuts=never))) == 3
  with pytest.raises(AssertionError, match='looked'):
    list(restore_frames(Window(3, 1, nnx.Rngs(0)), frames, find_cuts=never))


def test_the_blend_of_a_strength_meets_its_own_frame():
  network, frames = Window(5, 3, nnx.Rngs(0)), clip(24)
  options = {'strength': 0.0, 'find_cuts': known_cuts([7, 9])}
  np.testing.assert_array_equal(np.stack(list(restore_frames(network, frames, **options))), frames)


class Source:
  """A clip as `video.VideoSource`."""

  def __init__(self, frames):
    self.clip, self.num_frames = frames, len(frames)

  def frames(self, start=0, stop=None):
    yield from self.clip[start:stop]


@pytest.mark.parametrize('name', ['unit of 1', 'unit of 3'])
def test_excerpts_mirror_at_the_cuts_of_the_whole(name):
  from prepare import generated_video

  from vqm_jax import video

  frames = np.stack(sum((generated_video.scene(seed, n, 16, 24) for seed, n in enumerate((6, 4, 3, 4))), []))
  network, cuts = NETWORKS[name](), video.mark_cuts
  starts = [t for t, (_, starts) in enumerate(cuts(iter(frames))) if starts]
  assert len(starts) >= 2
  one = jax.devices()[:1]
  whole = list(restore_frames(network, frames, find_cuts=cuts, devices=one))
  found = inference.restore_at(network, Source(frames), range(len(frames)), find_cuts=cuts, devices=one)
  for t, (frame, (restored,)) in enumerate(found):
    np.testing.assert_array_equal(frame, frames[t])
    np.testing.assert_array_equal(restored, whole[t])
