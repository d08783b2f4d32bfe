"""The one conversion between RGB and YCbCr that every reader and writer uses.

swscale's defaults are a trap: BT.601 whatever the tags say (up to 28 levels off for BT.709
material) and a chroma filter that differs by up to 33 levels from the exact one. So matrix, range
and filter are stated on every call [D].
"""

import dataclasses
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vqm_jax import errors

_FILTER = int(Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND)
# Values of ITU-T H.273, as libav stores them in frames and streams.
_MATRIX_TAGS = {1: 'bt709', 5: 'bt601', 6: 'bt601'}
_UNTAGGED = (2, 3)
_HDR_TRANSFERS = {16: 'PQ', 18: 'HLG'}
# matrix -> (matrix tag, primaries tag, transfer tag, constant of swscale)
_TAGS = {'bt709': (1, 1, 1, 1), 'bt601': (6, 6, 6, 5)}

_YUV_FORMATS = ('yuv420p', 'yuv422p', 'yuv444p', 'yuv440p', 'yuv411p', 'nv12', 'gray')
_FULL_RANGE_FORMATS = ('yuvj420p', 'yuvj422p', 'yuvj444p', 'yuvj440p', 'yuvj411p')
_RGB_FORMATS = ('rgb24', 'bgr24', 'gbrp', 'bgr0', 'rgb0')


@dataclasses.dataclass(frozen=True)
class Colour:
  """How YCbCr samples stand for RGB: the matrix, and full (0..255) or limited (16..235) range."""

  matrix: Literal['bt709', 'bt601'] = 'bt709'
  full_range: bool = False

  def __str__(self) -> str:
    return f'{self.matrix.upper().replace("BT", "BT.")} {"full" if self.full_range else "limited"} range'

  @property
  def tags(self) -> dict[str, int]:
    """H.273 numbers for the attributes of libav frames and codec contexts."""
    matrix, primaries, transfer, _ = _TAGS[self.matrix]
    return {
      'colorspace': matrix,
      'color_primaries': primaries,
      'color_trc': transfer,
      'color_range': int(self._range),
    }

  @property
  def _range(self) -> ColorRange:
    return ColorRange.JPEG if self.full_range else ColorRange.MPEG


def default_colour(height: int) -> Colour:
  """The colour of untagged video and new files: BT.709 from 720 lines, else BT.601; limited [D]."""
  return Colour('bt709' if height >= 720 else 'bt601')


def colour_of(frame: av.VideoFrame) -> Colour:
  """The colour of a decoded frame: its tags where it has them, else `default_colour`.

  Raises VideoError for more than 8 bits, alpha, HDR transfer and matrices other than BT.709, BT.601.
  """
  name = frame.format.name
  if name not in _YUV_FORMATS + _FULL_RANGE_FORMATS + _RGB_FORMATS:
    raise errors.VideoError(
      f'pixel format {name} is not supported, expected 8-bit YCbCr or RGB without alpha; '
      'convert it first, for example with "ffmpeg -i IN -pix_fmt yuv420p OUT"'
    )
  if frame.color_trc in _HDR_TRANSFERS:
    raise errors.VideoError(
      f'HDR video ({_HDR_TRANSFERS[frame.color_trc]} transfer) is not supported; '
      'convert it to standard dynamic range (BT.709) first'
    )
  default = default_colour(frame.height)
  if name in _RGB_FORMATS:
    return default
  matrix = default.matrix
  if frame.colorspace not in _UNTAGGED:
    if frame.colorspace not in _MATRIX_TAGS:
      raise errors.VideoError(
        f'colour matrix {int(frame.colorspace)} (ITU-T H.273) is not supported, expected '
        'BT.709 (1) or BT.601 (5, 6); convert it to BT.709 first'
      )
    matrix = _MATRIX_TAGS[frame.colorspace]
  return Colour(matrix, name in _FULL_RANGE_FORMATS or frame.color_range == ColorRange.JPEG)


def tags_of(frame: av.VideoFrame) -> dict[str, int]:
  """Primaries and transfer of a frame as H.273 numbers, and its matrix if it states one that YCbCr can have."""
  tags = {name: int(getattr(frame, name)) for name in ('color_primaries', 'color_trc')}
  if frame.colorspace in _MATRIX_TAGS:
    tags['colorspace'] = int(frame.colorspace)
  return tags


def yuv_to_rgb(frame: av.VideoFrame, colour: Colour | None = None) -> np.ndarray:
  """uint8 (H, W, 3) RGB of a decoded frame; `colour` overrides the frame's own tags."""
  return _convert(frame, 'rgb24', colour or colour_of(frame)).to_ndarray()


def rgb_to_yuv(rgb: np.ndarray, colour: Colour) -> av.VideoFrame:
  """Tagged yuv420p frame of uint8 (H, W, 3); yuv444p if a side is odd (see `coded_format`)."""
  return to_coded(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format='rgb24'), colour)


def coded_format(height: int, width: int) -> str:
  """yuv420p, or yuv444p for odd sizes: H.264 and H.265 cannot crop 4:2:0 by a single pixel."""
  return 'yuv444p' if height % 2 or width % 2 else 'yuv420p'


def to_coded(frame: av.VideoFrame, colour: Colour) -> av.VideoFrame:
  """`frame` in `coded_format`, tagged with `colour`; samples stay as they are if it already is."""
  target = coded_format(frame.height, frame.width)
  if frame.format.name != target:
    frame = _convert(frame, target, colour)
  for name, value in colour.tags.items():
    setattr(frame, name, value)
  return frame


def _convert(frame: av.VideoFrame, target: str, colour: Colour) -> av.VideoFrame:
  constant = _TAGS[colour.matrix][-1]

  def range_of(name: str) -> int:
    return int(ColorRange.JPEG if name in _RGB_FORMATS else colour._range)

  # Its own reformatter: PyAV keeps one scaler per frame object, and scalers are not thread safe.
  return VideoReformatter().reformat(
    frame,
    format=target,
    src_colorspace=constant,
    dst_colorspace=constant,
    src_color_range=range_of(frame.format.name),
    dst_color_range=range_of(target),
    interpolation=_FILTER,
    threads=1,
  )
