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

COLOURS = [
  Colour(matrix, full) for matrix in ('bt709', 'bt601', 'bt2020', 'smpte240m', 'fcc') for full in (False, True)
]
PATCHES = np.array(
  [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255], [200, 60, 20], [90, 90, 90]],
  np.uint8,
)


def patches(height=32):
  return np.repeat(np.repeat(PATCHES[None], height, 0), 32, 1)


def definition(rgb, of):
  """YCbCr by the formulas of the recommendations, float64."""
  kr, kb = {
    'bt709': (0.2126, 0.0722),
    'bt601': (0.299, 0.114),
    'bt2020': (0.2627, 0.0593),
    'smpte240m': (0.212, 0.087),
    'fcc': (0.30, 0.11),
  }[of.matrix]
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


def test_frames_are_taken_as_they_lie_in_memory():
  def planes(frame):
    return [np.frombuffer(bytes(p), np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes]

  rgb = np.random.default_rng(0).integers(0, 256, (34, 50, 3), np.uint8)
  copied = av.VideoFrame.from_ndarray(rgb, format='rgb24')
  for form in ('yuv420p', 'yuv444p'):
    expected = planes(colour.to_coded(copied, Colour(), form))
    fixed = rgb.copy()
    fixed.flags.writeable = False  # as those that come from a device
    for given in (rgb.copy(), fixed, rgb.copy()[:, ::-1][:, ::-1], np.asfortranarray(rgb)):
      found = colour.rgb_to_yuv(given, Colour(), form)
      if given.flags.writeable:
        given[...] = 0  # and are used again
      for plane, other in zip(planes(found), expected, strict=True):
        np.testing.assert_array_equal(plane, other)


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
  [('colorspace', 8, 'matrix 8.*BT.2020'), ('color_trc', 16, 'PQ.*tonemap'), ('color_trc', 18, 'HLG.*tonemap')],
)
def test_refuses_other_matrices_and_hdr(name, value, message):
  frame = av.VideoFrame(16, 16, 'yuv420p')
  setattr(frame, name, value)
  with pytest.raises(errors.VideoError, match=message):
    colour.colour_of(frame)


@pytest.mark.parametrize('name', ['gbrpf32le', 'grayf32le', 'xyz12le'])
def test_refuses_floating_point_and_xyz(name):
  with pytest.raises(errors.VideoError, match=f'{name} is not supported, expected .* at most 16 bits; convert it'):
    colour.colour_of(av.VideoFrame(16, 16, name))


@pytest.mark.parametrize('name', ['yuva420p', 'yuva444p10le', 'rgba', 'bgra', 'gbrap', 'ya8'])
def test_transparent_pixels_are_refused_and_opaque_ones_are_not(name):
  opaque = av.VideoFrame.from_ndarray(np.full((16, 16, 4), 255, np.uint8), format='rgba').reformat(format=name)
  assert colour.colour_of(opaque)
  assert colour.yuv_to_rgb(opaque).min() >= 254
  rgba = np.full((16, 16, 4), 255, np.uint8)
  rgba[3, 5, 3] = 100
  with pytest.raises(errors.VideoError, match='transparent pixels.*alpha_mode'):
    colour.colour_of(av.VideoFrame.from_ndarray(rgba, format='rgba').reformat(format=name))


# What cameras, capture cards, screen recorders and old codecs give.
@pytest.mark.parametrize(
  ('name', 'coded'),
  [
    ('yuv420p', 'yuv420p'), ('nv12', 'yuv420p'), ('gray', 'yuv420p'), ('yuv410p', 'yuv420p'),
    ('yuv422p', 'yuv422p'), ('uyvy422', 'yuv422p'), ('yuyv422', 'yuv422p'), ('yuv411p', 'yuv422p'),
    ('yuv444p', 'yuv444p'), ('yuv440p', 'yuv444p'), ('gbrp', 'yuv444p'), ('bgr0', 'yuv444p'), ('rgb565le', 'yuv444p'),
    ('yuv420p10le', 'yuv420p10le'), ('p010le', 'yuv420p10le'), ('gray10le', 'yuv420p10le'),
    ('yuv422p10le', 'yuv422p10le'), ('y210le', 'yuv422p10le'), ('yuv444p10le', 'yuv444p10le'),
    ('gbrp10le', 'yuv444p10le'), ('yuv420p12le', 'yuv420p10le'), ('yuv422p16le', 'yuv422p10le'),
    ('gray16le', 'yuv420p10le'), ('gbrp12le', 'yuv444p10le'), ('rgb48le', 'yuv444p10le'),
  ],
)  # fmt: skip
def test_every_layout_comes_out_with_its_chroma_and_bits(name, coded):
  assert colour.coded_format(32, 48, name, deep=True) == coded
  assert colour.coded_format(32, 48, name) == coded.removesuffix('10le')
  frame = colour.rgb_to_yuv(patches(), Colour('bt601')).reformat(format=name)
  deep = colour.bits_of(name) > 8
  rgb = colour.yuv_to_rgb(frame, Colour('bt601'), deep=deep)
  assert rgb.dtype == (np.uint16 if deep else np.uint8)
  assert colour.yuv_to_rgb(frame, Colour('bt601')).dtype == np.uint8
  again = colour.rgb_to_yuv(rgb, Colour('bt601'), coded)
  assert again.format.name == coded


@pytest.mark.parametrize(('height', 'width', 'coded'), [(47, 64, 'yuv422p'), (48, 63, 'yuv444p'), (47, 63, 'yuv444p')])
def test_odd_sizes_of_half_the_chroma(height, width, coded):
  assert colour.coded_format(height, width, 'yuv422p') == coded


@pytest.mark.parametrize('of', COLOURS, ids=str)
def test_ten_bits_are_the_eight_bits_but_finer(of):
  """The same picture in 8 bits and, times 4, in 10 gives the same RGB: chroma filter, matrix and range are the same."""
  y, x = np.mgrid[:96, :128] / 128
  rgb = np.stack([200 * x + 20, 255 * y, 120 * (1 - x) + 60], -1).astype(np.uint8)
  shallow = colour.rgb_to_yuv(rgb, of)
  deep = av.VideoFrame(128, 96, 'yuv420p10le')
  for a, b in zip(shallow.planes, deep.planes, strict=True):
    samples = np.zeros((b.height, b.line_size // 2), np.uint16)
    part = np.frombuffer(bytes(a), np.uint8).reshape(a.height, a.line_size)[:, : a.width].astype(np.uint16)
    # Full range ends at 255 and 1023.
    samples[:, : b.width] = np.round(part * 1023 / 255) if of.full_range and a is shallow.planes[0] else part * 4
    b.update(samples)
  found = colour.yuv_to_rgb(deep, of, deep=True) / 257
  assert np.abs(found - colour.yuv_to_rgb(shallow, of)).max() < 1.6


@pytest.mark.parametrize('bits', [12, 16])
@pytest.mark.parametrize('layout', ['yuv444p', 'gbrp'])
@pytest.mark.parametrize('of', COLOURS, ids=str)
def test_more_bits_are_the_ten_bits_but_finer(of, layout, bits):
  """A ramp in each channel against the others, in 10 bits and in more."""
  found = []
  for depth in (10, bits):
    frame = av.VideoFrame(512, 16, f'{layout}{depth}le')
    for k, plane in enumerate(frame.planes):
      is_chroma = layout == 'yuv444p' and k > 0
      low, high = (0, 1023) if of.full_range or layout == 'gbrp' else (64, 940)
      row = (
        np.linspace(low, high, 512)[:: (-1) ** k] if not is_chroma else 512 + np.linspace(-90, 90, 512)[:: (-1) ** k]
      )
      # Where the range is full, white is the largest number.
      scale = (2**depth - 1) / 1023 if high == 1023 and not is_chroma else 2.0 ** (depth - 10)
      samples = np.zeros((plane.height, plane.line_size // 2), np.uint16)
      samples[:, :512] = np.round(row * scale)
      plane.update(samples.tobytes())
    found.append(colour.yuv_to_rgb(frame, of, deep=True).astype(int))
  assert np.abs(found[0] - found[1]).max() < 120  # of 64 to a step of 10 bits, and chroma counts nearly double
  assert found[1].max() == 65535 and found[1].min() == 0


@pytest.mark.parametrize('name', ['yuv420p10le', 'yuv422p10le', 'yuv444p10le'])
@pytest.mark.parametrize('of', COLOURS, ids=str)
def test_ten_bits_survive_rgb(name, of):
  """A ramp of all 10-bit values; rounding in the 16 bits between moves none by more than one."""
  frame = av.VideoFrame(1024, 16, name)
  for k, plane in enumerate(frame.planes):
    low, high = (0, 1023) if of.full_range else (64, 940)
    row = np.linspace(low, high, plane.width).round() if k == 0 else np.full(plane.width, 512)
    samples = np.zeros((plane.height, plane.line_size // 2), np.uint16)
    samples[:, : plane.width] = row
    plane.update(samples.tobytes())
  rgb = colour.yuv_to_rgb(frame, of, deep=True)
  assert rgb.max() == 65535 and rgb.min() == 0
  again = colour.rgb_to_yuv(rgb, of, name)
  for before, after in zip(frame.planes, again.planes, strict=True):
    a, b = (np.frombuffer(bytes(p), np.uint16).reshape(p.height, -1)[:, : p.width].astype(int) for p in (before, after))
    assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize('value', [5, 6])
def test_both_601_tags(value):
  frame = av.VideoFrame(1280, 720, 'yuv420p')
  frame.colorspace = value
  assert colour.colour_of(frame).matrix == 'bt601'
