"""Display matrices: read, carried over to other files, and applied to images."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vqm_jax.video import Colour, open_video, rgb_to_yuv, rotation
from vqm_jax.video.codec import Encoder

# Turned counter-clockwise by so many degrees, then mirrored: all eight ways a camera can be held.
WAYS = [(degrees, mirrored) for degrees in (0, 90, 180, 270) for mirrored in (False, True)]
PICTURE = np.zeros((32, 64, 3), np.uint8)
PICTURE[:16, :32] = 255, 0, 0
PICTURE[:16, 32:] = 0, 255, 0
PICTURE[16:, :32] = 0, 0, 255


def matrix(degrees, mirrored):
  """As `av_display_rotation_set` and `av_display_matrix_flip` make it."""
  cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
  sign = -1 if mirrored else 1
  return np.array([sign * cos, -sin, 0, sign * sin, cos, 0, 0, 0, 1 << 14], np.int32) * np.int32(1 << 16)


def write(path, display_matrix, codec='h264'):
  options = {'display_matrix': display_matrix, 'codec': codec, 'crf': 5}
  with Encoder(path, fps=Fraction(25), height=32, width=64, colour=Colour(), **options) as encoder:
    encoder.write(rgb_to_yuv(PICTURE, Colour()))
    encoder.finish()
  return path


@pytest.mark.parametrize('way', WAYS)
def test_images_are_turned_as_players_turn_video(way):
  degrees, mirrored = way
  expected = Image.fromarray(PICTURE).rotate(degrees, expand=True)
  expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else expected
  np.testing.assert_array_equal(rotation.upright(PICTURE, matrix(*way).tobytes()), np.asarray(expected))


def test_odd_angles_and_none_leave_images_alone():
  assert rotation.upright(PICTURE, None) is PICTURE
  slanted = np.array([46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30], np.int32)
  assert rotation.upright(PICTURE, slanted.tobytes()) is PICTURE


@pytest.mark.parametrize('codec', ['h264', 'h265'])
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
@pytest.mark.parametrize('way', WAYS[1:4])
def test_files_keep_the_matrix(tmp_path, suffix, way, codec):
  path = write(tmp_path / f'a{suffix}', matrix(*way).tobytes(), codec)
  source = open_video(path)
  np.testing.assert_array_equal(np.frombuffer(source.display_matrix, np.int32), matrix(*way))
  # As they are coded: whoever compares or trains sees the same pixels with and without the matrix.
  assert (source.height, source.width) == (32, 64)
  assert np.abs(next(source.frames()).astype(int) - PICTURE).mean() < 8


def test_no_matrix_and_one_that_does_nothing(tmp_path):
  assert open_video(write(tmp_path / 'a.mp4', None)).display_matrix is None
  assert open_video(write(tmp_path / 'b.mkv', matrix(0, False).tobytes())).display_matrix is None


def test_libav_agrees(tmp_path):
  with av.open(str(write(tmp_path / 'a.mp4', matrix(90, False).tobytes()))) as container:
    assert next(container.decode(video=0)).rotation == 90
