"""Panels of frames: profiles, crops, errors, labels."""

import numpy as np
import pytest
from report.runs import INPUTS, TARGETS, frames_of, read, saved

from vqm_jax import errors, metrics
from vqm_jax.report import panels, saved_frames


def places(picture, part):
  """How often `part` stands in `picture`, pixel by pixel."""
  height, width, _ = part.shape
  corners = np.argwhere((picture == part[0, 0]).all(axis=2))
  return sum(np.array_equal(picture[y : y + height, x : x + width], part) for y, x in corners)


def test_profile_is_one_column_of_every_frame():
  frames = np.zeros((4, 3, 5, 3), dtype=np.uint8)
  frames[:, :, 2, 0] = np.arange(12).reshape(4, 3)  # 3 t + y
  found = panels.profile(frames, 2)
  np.testing.assert_array_equal(found[..., 0], [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
  assert found.shape == (3, 4, 3) and not found[..., 1:].any() and not panels.profile(frames, 1).any()


def test_busiest_column_varies_most_outside_the_borders():
  frames = np.full((4, 6, 40, 3), 100, dtype=np.uint8)
  frames[::2, :, 11] += 9
  frames[::2, :3, 30] += 15
  frames[::2, :, [0, 1, 38, 39]] = 255
  assert panels.busiest_column(frames) == 11
  assert panels.busiest_column(iter(frames[1:2])) == 2  # nothing moves: the first


def test_enlarged_and_reduced_by_whole_factors():
  frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
  np.testing.assert_array_equal(panels.enlarged(frame, 3, 2), frame.repeat(2, axis=0).repeat(3, axis=1))
  np.testing.assert_array_equal(panels.resized(frame, 9), panels.enlarged(frame, 2))
  np.testing.assert_array_equal(panels.resized(frame, 2)[..., 0], [[8, 14]])  # means of 0, 3, 12, 15 and so on
  assert panels.resized(frame, 3) is frame


def test_crops_where_methods_differ_and_random_ones():
  one = np.full((80, 100, 3), 90, dtype=np.uint8)
  other = one.copy()
  other[30:50, 40:60] = 120
  other[0:20, 0:20] = 100
  crops = panels.choose_crops([one, other], 2, seed=3)
  assert [crop.how for crop in crops] == ['variance', 'variance', 'random', 'random']
  assert (crops[0].x, crops[0].y, crops[0].size) == (40, 30, 20) and (crops[1].x, crops[1].y) == (0, 0)
  assert crops == panels.choose_crops([one, other], 2, seed=3) != panels.choose_crops([one, other], 2, seed=4)
  covered = np.zeros((80, 100), dtype=int)
  for crop in crops:
    crop.of(covered)[...] += 1
  assert covered.max() == 1 and covered.sum() == 4 * 20 * 20
  assert len(panels.choose_crops([one[:16, :40], other[:16, :40]], 9)) == 2  # no room for more
  assert panels.choose_crops([np.zeros((600, 900, 3), np.uint8)] * 2, 1)[0].size == 128


def test_errors_in_levels_and_colours():
  target = np.full((1, 3, 3), 100, dtype=np.uint8)
  frame = target + np.array([[[0, 0, 0], [3, 0, 0], [90, 90, 90]]], dtype=np.uint8)
  np.testing.assert_array_equal(panels.error_map(frame, target), [[0, 1, 90]])
  np.testing.assert_array_equal(panels.error_map(target, frame), [[0, 1, 90]])
  black, dark, bright = panels.error_colours(panels.error_map(frame, target))[0].astype(int).sum(axis=1)
  assert black < 10 and black < dark < 60 and bright > 500
  np.testing.assert_array_equal(panels.error_colours(np.array([[63.75, 64, 200]])).std(axis=1), 0)


def test_profiles_stand_side_by_side(pair):
  frames = saved(*pair)
  assert [side.label for side in frames.sides] == ['Input', 'ecnu', 'gil', 'Target']
  picture, caption = panels.profiles(frames, 'a', '7')
  for clips in (INPUTS, frames_of(12), frames_of(6), TARGETS):
    assert places(picture, panels.enlarged(panels.profile(clips['a'], 7), 79, 9)) == 1
  assert caption.startswith('Temporal profiles of clip a: the pixels at x = 7 (chosen by hand) of 4 frames, time')
  assert f'x = {panels.busiest_column(TARGETS["a"])} (the column' in panels.profiles(frames, 'a', 'auto')[1]
  with pytest.raises(errors.ConfigError, match='^--column=60: expected auto or 0 to 59, as a is 60 wide'):
    panels.profiles(frames, 'a', '60')


def test_many_profiles_take_several_rows():
  column = np.full((50, 10, 3), 7, dtype=np.uint8)
  pictures_of = [
    panels.profile_figure(np.full((50, 80, 3), 9, np.uint8), 3, {f'method {k}': column for k in range(count)}, 'a')
    for count in (8, 9)
  ]
  assert pictures_of[1].shape[0] > 1.9 * pictures_of[0].shape[0]


def test_comparison_holds_every_crop(pair):
  block, raw = read(*pair)
  frames = saved_frames.SavedFrames(block, raw)
  picture, caption, record = panels.comparison(frames, block, 'b', 2, '3,4,16;30,20,16', seed=0)
  for clips in (INPUTS, frames_of(12), frames_of(6), TARGETS):
    for x, y in ((3, 4), (30, 20)):
      inside = clips['b'][2, y + 1 : y + 15, x + 1 : x + 15]  # the border lies on the outermost pixels
      assert places(picture, panels.enlarged(inside, 17)) == 1
  crop = slice(4, 20), slice(3, 19)
  want = metrics.psnr(frames_of(6)['b'][2][crop], TARGETS['b'][2][crop])
  assert record['frame'] == 2 and record['crops'][0]['psnr']['gil'] == pytest.approx(float(want))
  assert record['crops'][1] | {'psnr': None} == {'x': 30, 'y': 20, 'size': 16, 'how': 'given', 'psnr': None}
  assert '1: x 3, y 4, given' in caption and 'PSNR' in caption
  _, caption, record = panels.comparison(frames, block, 'b', 2, 'auto:1', seed=5)
  assert [crop['how'] for crop in record['crops']] == ['variance', 'random'] and record['crops'][1]['seed'] == 5
  assert '2: random (seed 5)' in caption
  assert len(panels.comparison(frames, block, 'b', 2, 'auto', seed=5)[2]['crops']) == 4


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('45,1,16', r'--crops: 45,1,16 is not within the frame, which is 60x40'),
    ('1,25,16', r'--crops: 1,25,16 is not within the frame'),
    ('1,2', r"--crops=1,2: expected auto, auto:N or x,y,size;x,y,size;..., found '1,2'"),
    ('auto:0', r'--crops=auto:0: expected auto'),
    ('1,1,8;1,1,9', 'expected one size for all'),
  ],
)
def test_bad_crops(pair, text, message):
  block, raw = read(*pair)
  with pytest.raises(errors.ConfigError, match=message):
    panels.comparison(saved_frames.SavedFrames(block, raw), block, 'a', 0, text, seed=0)


def test_error_maps_of_input_and_methods(pair):
  block, raw = read(*pair)
  picture, caption = panels.error_maps(saved_frames.SavedFrames(block, raw), block, 'a', 1)
  for clips in (INPUTS, frames_of(12), frames_of(6)):
    colours = panels.error_colours(panels.error_map(clips['a'][1], TARGETS['a'][1]))
    assert places(picture, panels.enlarged(colours, 10)) == 1
  assert 'frame 1 of clip a' in caption and picture.shape[1] == 3 * 600 + 2 * 7


def test_labels_shrink_before_they_are_cut():
  picture = np.zeros((20, 100, 3), dtype=np.uint8)
  assert panels._fitting([('short', 100)], 20).size == 20
  assert 13 < panels._fitting([('several words here', 100)], 20).size <= 20
  assert panels._fitting([('averylongnamewithoutspaces', 100)], 20).size == 13
  assert panels._wrapped('a_long-name', panels._font(20), 80) == ['a_long-', 'name']
  assert panels._wrapped('averylongnamewithoutspaces', panels._font(13), 100)[0].endswith('…')
  figure = panels.grid([[panels.Cell(picture, 'one', '1 dB'), panels.Cell(picture, 'two')]], 12)
  assert places(figure, picture) == 2 and figure.shape[1] == 204 and (figure[:10, :100] < 99).any()
