import cv2
import numpy as np
import pytest
from prepare import generated_video

from vqm_jax.video import cuts, mark_cuts


def starts(frames):
  return [t for t, (_, starts) in enumerate(mark_cuts(iter(frames))) if starts]


@pytest.mark.parametrize(
  'lengths', [(20, 20), (1, 9), (2, 9), (9, 1), (9, 2), (4, 3, 5), (9, 1, 9), (16, 15, 2), (3, 3)]
)
def test_scenes_may_be_as_short_as_a_frame(lengths):
  clip = [frame for seed, n in enumerate(lengths) for frame in generated_video.scene(seed, n)]
  assert starts(clip) == list(np.cumsum(lengths)[:-1])


@pytest.mark.parametrize('length', [0, 1, 2, 3, 4, 30])
def test_motion_is_no_cut(length):
  clip = generated_video.scene(3, length)
  marked = list(mark_cuts(iter(clip)))
  assert [starts for _, starts in marked] == [False] * length
  for (frame, _), wanted in zip(marked, clip, strict=True):
    assert frame is wanted


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('size', [(48, 64), (271, 483), (540, 960)])
def test_thumbnails_are_those_of_frames_in_blue_green_red(size, dtype):
  """As OpenCV and PySceneDetect have them: turned behind the scaling, the same bit for bit."""
  frame = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, 3), dtype, endpoint=True)
  small = cv2.resize(frame[..., ::-1], cuts.thumbnail_size(*size), interpolation=cv2.INTER_AREA)
  expected = small if dtype == np.uint8 else (small >> 8).astype(np.uint8)
  np.testing.assert_array_equal(cuts._thumbnail(frame), expected)


def test_sixteen_bits():
  clip = generated_video.frames(1, 2, num_frames=6)
  assert starts([frame.astype(np.uint16) * 257 for frame in clip]) == [6]


def test_a_pass_that_begins_in_the_middle_finds_the_same_cuts():
  clip = generated_video.frames(1, 2, 3, num_frames=7)
  for first in range(len(clip)):
    exact = first + cuts.REACH + 1
    found = [first + t for t in starts(clip[first:])]
    assert [t for t in found if t >= exact] == [t for t in (7, 14) if t >= exact]


def test_few_frames_are_held():
  taken = []
  given = mark_cuts(taken.append(t) or frame for t, frame in enumerate(generated_video.scene(1, 30)))
  for k, _ in enumerate(given):
    assert len(taken) - k <= cuts.REACH + 2
