"""The conversion against the definition of BT.601 and BT.709, and through files."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import colour
from vqm_jax.video.codec import encode
from vqm_jax.video.colour import Colour

COLOURS = [Colour(matrix, full) for matrix in ('bt709', 'bt601') for full in (False, True)]
PATCHES = np.array(
  [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255], [200, 60, 20], [90, 90, 90]],
  np.uint8,
)


def patches(height=32):
  return np.repeat(np.repeat(PATCHES[None], height, 0), 32, 1)


def definition(rgb, of):
  """YCbCr by the formulas of the recommendations, float64."""
  kr, kb = {'bt709': (0.2126, 0.0722), 'bt601': (0.299, 0.114)}[of.matrix]
  r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
  y = kr * r + (1 - kr - kb) * g + kb * b
  u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
  if of.full_range:
    return np.clip(np.stack([255 * y, 255 * u + 128, 255 * v + 128], -1), 0, 255)
  return np.stack([16 + 219 * y, 128 + 224 * u, 128 + 224 * v], -1)


def planes(frame):
  """Y, U and V at the centres of the patches."""
  luma, *chroma = (np.frombuffer(bytes(p), np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes)
  return np.stack([luma[16, 16::32], chroma[0][8, 8::16], chroma[1][8, 8::16]], -1)


@pytest.mark.parametrize('of', COLOURS, ids=str)
def test_patches_match_the_definition(of):
  frame = colour.rgb_to_yuv(patches(), of)
  assert frame.format.name == 'yuv420p'
  assert np.abs(planes(frame) - definition(PATCHES, of)).max() <= 1
  assert colour.colour_of(frame) == of
  restored = colour.yuv_to_rgb(frame)
  assert np.abs(restored[16, 16::32].astype(int) - PATCHES).max() <= 2


@pytest.mark.parametrize('codec', ['h264', 'h265'])
@pytest.mark.parametrize('of', COLOURS, ids=str)
def test_patches_survive_a_file(of, codec):
  file = io.BytesIO()
  encode([colour.rgb_to_yuv(patches(), of)], file, fps=Fraction(25), colour=of, codec=codec, crf=1)
  with av.open(file) as container:
    frame = next(container.decode(video=0))
  assert colour.colour_of(frame) == of
  assert np.abs(colour.yuv_to_rgb(frame)[16, 16::32].astype(int) - PATCHES).max() <= 3


def test_the_601_trap():
  """What a plain `to_ndarray` makes of untagged HD material is far off; the rule is not."""
  rgb = patches(720)
  frame = colour.rgb_to_yuv(rgb, Colour('bt709'))
  frame.colorspace = 2
  frame.color_range = 0
  assert colour.colour_of(frame) == Colour('bt709', False)
  right, naive = colour.yuv_to_rgb(frame), frame.to_ndarray(format='rgb24')
  assert np.abs(right[16, 16::32].astype(int) - PATCHES).max() <= 1
  assert np.abs(naive[16, 16::32].astype(int) - PATCHES).max() > 10


def test_default_by_height():
  assert colour.default_colour(720) == Colour('bt709', False)
  assert colour.default_colour(719) == Colour('bt601', False)


def test_chroma_filter_is_the_exact_one():
  """Smooth chroma comes back within rounding, which the default filter of swscale does not achieve."""
  y, x = np.mgrid[:96, :128] / 128
  rgb = np.stack([255 * x, 255 * y, 255 * (1 - x)], -1).astype(np.uint8)
  frame = colour.rgb_to_yuv(rgb, Colour())
  assert np.abs(colour.yuv_to_rgb(frame).astype(int) - rgb)[4:-4, 4:-4].max() <= 4


def test_crop_equals_full_frame_inside():
  rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
  frame = colour.rgb_to_yuv(rgb, Colour())
  crop = av.VideoFrame(64, 48, 'yuv420p')
  for k, (source, target) in enumerate(zip(frame.planes, crop.planes, strict=True)):
    scale = 1 if k == 0 else 2
    samples = np.frombuffer(bytes(source), np.uint8).reshape(source.height, source.line_size)
    part = np.zeros((target.height, target.line_size), np.uint8)
    part[:, : target.width] = samples[16 // scale :, 32 // scale :][: target.height, : target.width]
    target.update(part.tobytes())
  full = colour.yuv_to_rgb(frame)[16:64, 32:96]
  np.testing.assert_array_equal(colour.yuv_to_rgb(crop, Colour())[4:-4, 4:-4], full[4:-4, 4:-4])


def test_odd_sizes_keep_every_pixel():
  rgb = np.random.default_rng(0).integers(0, 256, (33, 51, 3)).astype(np.uint8)
  frame = colour.rgb_to_yuv(rgb, Colour())
  assert frame.format.name == 'yuv444p'
  assert np.abs(colour.yuv_to_rgb(frame).astype(int) - rgb).max() <= 2


def test_coded_frames_are_not_touched():
  frame = colour.rgb_to_yuv(patches(), Colour())
  assert colour.to_coded(frame, Colour()) is frame
  full = av.VideoFrame(16, 16, 'yuvj420p')
  for plane, value in zip(full.planes, (3, 250, 7), strict=True):
    plane.update(bytes([value]) * plane.buffer_size)
  coded = colour.to_coded(full, Colour('bt601', True))
  assert coded.format.name == 'yuv420p'
  assert [bytes(plane)[0] for plane in coded.planes] == [3, 250, 7]


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [('colorspace', 9, 'matrix 9'), ('color_trc', 16, 'PQ'), ('color_trc', 18, 'HLG')],
)
def test_refuses_wide_and_hdr_colour(name, value, message):
  frame = av.VideoFrame(16, 16, 'yuv420p')
  setattr(frame, name, value)
  with pytest.raises(errors.VideoError, match=message):
    colour.colour_of(frame)


@pytest.mark.parametrize('name', ['yuv420p10le', 'yuva420p', 'rgba', 'pal8', 'gray16le'])
def test_refuses_pixel_formats(name):
  with pytest.raises(errors.VideoError, match=name):
    colour.colour_of(av.VideoFrame(16, 16, name))


@pytest.mark.parametrize('value', [5, 6])
def test_both_601_tags(value):
  frame = av.VideoFrame(1280, 720, 'yuv420p')
  frame.colorspace = value
  assert colour.colour_of(frame).matrix == 'bt601'
