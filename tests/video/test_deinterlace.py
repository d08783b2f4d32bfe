"""Interlaced video becomes whole frames, each like the picture of its first moment."""

from fractions import Fraction

import av
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import open_video

COUNT = 9


def moment(t, height=64, width=96):
  """A disc that moves by two pixels from one half picture to the next, on a still pattern."""
  y, x = np.mgrid[:height, :width]
  still = 60 + 30 * np.sin(x / 6) + 20 * np.cos(y / 5)
  disc = (x - 20 - 2 * t) ** 2 + (y - 32) ** 2 < 150
  return np.repeat(np.where(disc, 220, still)[..., None], 3, -1).astype(np.uint8)


def woven(k):
  # The lower rows come first, as PyAV has x264 mark what it marks as interlaced.
  frame = moment(2 * k)
  frame[0::2] = moment(2 * k + 1)[0::2]
  return frame


def make(path, codec='libx264', options=None, pix_fmt='yuv420p'):
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(codec, rate=25, options=options or {'crf': '4', 'x264-params': 'tff=1', 'bf': '2'})
    stream.height, stream.width, stream.pix_fmt = 64, 96, pix_fmt
    for k in range(COUNT):
      frame = av.VideoFrame.from_ndarray(woven(k), 'rgb24').reformat(format=pix_fmt)
      frame.pts = k
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  return path


def psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize('pix_fmt', ['yuv420p', 'yuv422p10le'])
def test_as_many_whole_frames_at_their_times(tmp_path, pix_fmt):
  path = make(tmp_path / 'a.mkv', pix_fmt=pix_fmt)
  with pytest.raises(errors.VideoError, match='interlaced.*bwdif'):
    list(open_video(path).frames())
  source = open_video(path, deinterlace=True)
  frames = list(source.frames())
  assert len(frames) == source.num_frames == COUNT and source.fps == Fraction(25)
  for k, frame in enumerate(frames):
    # Both half pictures of the woven frame are 2 pixels apart.
    assert psnr(frame, moment(2 * k)) > psnr(woven(k), moment(2 * k)) + 3, k


def test_it_does_not_matter_where_reading_begins(tmp_path):
  source = open_video(make(tmp_path / 'a.mkv'), deinterlace=True)
  frames = list(source.frames())
  for start, stop in [(0, 1), (1, 3), (4, 9), (8, 9), (5, 5)]:
    assert len(frames[start:stop]) == stop - start
    for expected, found in zip(frames[start:stop], source.frames(start, stop), strict=True):
      np.testing.assert_array_equal(found, expected)


def test_progressive_frames_stay_as_they_are(tmp_path):
  path = make(tmp_path / 'a.mkv', options={'crf': '4'})
  for plain, asked in zip(open_video(path).frames(), open_video(path, deinterlace=True).frames(), strict=True):
    np.testing.assert_array_equal(asked, plain)
