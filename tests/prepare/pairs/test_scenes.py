import pytest
from prepare import generated_video

from vqm_jax import errors
from vqm_jax.prepare.pairs import scenes
from vqm_jax.video import VideoFile


def test_cuts_are_exact(tmp_path):
  images = generated_video.scene(1, 18) + generated_video.scene(2, 31) + generated_video.scene(3, 20)
  path = generated_video.write(tmp_path / 'cuts.mp4', images, fps='30000/1001', crf=30.0)
  assert scenes.detect(VideoFile(path)) == ((0, 18), (18, 49), (49, 69))


def test_video_without_cut_is_one_scene(tmp_path):
  path = generated_video.write(tmp_path / 'one.mp4', generated_video.scene(4, 40))
  assert scenes.detect(VideoFile(path)) == ((0, 40),)


def test_frame_numbers_do_not_depend_on_time_stamps(tmp_path):
  # An AVI has none, and one in Matroska is rounded to milliseconds.
  path = generated_video.write(tmp_path / 'cuts.mkv', generated_video.frames(5, 6), fps='24000/1001')
  assert scenes.detect(VideoFile(path)) == ((0, 20), (20, 40))


def test_damage_is_found(tmp_path):
  path = generated_video.write(tmp_path / 'damaged.mp4', generated_video.frames(5, 6), crf=20.0)
  data = bytearray(path.read_bytes())
  data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
  path.write_bytes(data)
  with pytest.raises(errors.VideoError, match='damaged'):
    scenes.detect(VideoFile(path))


def test_window_is_the_middle_of_the_first_scene_that_is_long_enough():
  assert scenes.window(((0, 10), (10, 41), (41, 90)), 20) == ((10, 41), (15, 35))


def test_window_falls_back_to_the_longest_scene():
  assert scenes.window(((0, 10), (10, 41), (41, 72)), 120) == ((10, 41), (10, 41))


def test_text():
  assert scenes.to_text(((0, 35), (35, 128))) == '0-35;35-128'
