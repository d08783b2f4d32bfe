"""The one conversion between RGB and YCbCr that every reader and writer uses.

swscale's defaults are a trap: BT.601 whatever the tags say (up to 28 levels off for BT.709
material) and a chroma filter that differs by up to 33 levels from the exact one. So matrix, range
and filter are stated on every call.
"""

import dataclasses
import os
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vqm_jax import errors
from vqm_jax.video import remedies

_FILTER = int(Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND)
# Values of ITU-T H.273, as libav stores them in frames and streams.
_MATRIX_TAGS = {1: 'bt709', 4: 'fcc', 5: 'bt601', 6: 'bt601', 7: 'smpte240m', 9: 'bt2020'}
_UNTAGGED = (2, 3)
_HDR_TRANSFERS = {16: 'PQ', 18: 'HLG'}
# matrix -> (matrix tag, primaries tag, transfer tag, constant of swscale)
_TAGS = {
  'bt709': (1, 1, 1, 1),
  'bt601': (6, 6, 6, 5),
  'bt2020': (9, 9, 14, 9),
  'smpte240m': (7, 7, 7, 7),
  'fcc': (4, 4, 4, 4),
}
_NAMES = {'bt709': 'BT.709', 'bt601': 'BT.601', 'bt2020': 'BT.2020', 'smpte240m': 'SMPTE 240M', 'fcc': 'FCC'}
# Share of red and of blue in luma, by H.273.
_LUMA = {
  'bt709': (0.2126, 0.0722),
  'bt601': (0.299, 0.114),
  'bt2020': (0.2627, 0.0593),
  'smpte240m': (0.212, 0.087),
  'fcc': (0.30, 0.11),
}
MAX_BITS = 16
# Of what is written.
CODED_BITS = 10


@dataclasses.dataclass(frozen=True)
class Colour:
  """How YCbCr samples stand for RGB: the matrix, and full (0..255) or limited (16..235) range."""

  matrix: Literal['bt709', 'bt601', 'bt2020', 'smpte240m', 'fcc'] = 'bt709'
  full_range: bool = False

  def __str__(self) -> str:
    return f'{_NAMES[self.matrix]} {"full" if self.full_range else "limited"} range'

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
  """The colour of untagged video and new files: BT.709 from 720 lines, else BT.601; limited."""
  return Colour('bt709' if height >= 720 else 'bt601')


def colour_of(frame: av.VideoFrame, path: str | os.PathLike | None = None) -> Colour:
  """The colour of a decoded frame: its tags where it has them, else `default_colour`.

  `path` is the file that it comes from, for the remedies.
  Raises VideoError for more than 16 bits, XYZ, transparency, HDR and matrices that swscale does not know.
  """
  name = frame.format.name
  if bits_of(name) > MAX_BITS or name.startswith('xyz'):
    fewer = coded_format(frame.height, frame.width, name, deep=True)
    raise errors.VideoError(
      f'pixel format {name} is not supported, expected YCbCr or RGB of at most {MAX_BITS} bits; '
      f'{remedies.advice("fewer_bits", path, pixel_format=fewer)}'
    )
  check_opaque(frame, path)
  if frame.color_trc in _HDR_TRANSFERS:
    raise errors.VideoError(
      f'HDR video ({_HDR_TRANSFERS[frame.color_trc]} transfer) is not supported, expected standard dynamic range; '
      f'{remedies.advice("tone_map", path)}'
    )
  if any('DOVI' in side_data.type.name for side_data in frame.side_data) and frame.color_trc in _UNTAGGED:
    raise errors.VideoError(
      'Dolby Vision without a standard base layer is not supported; use another copy of the video'
    )
  default = default_colour(frame.height)
  if _is_rgb(frame.format):
    return default
  matrix = default.matrix
  if frame.colorspace not in _UNTAGGED:
    if frame.colorspace not in _MATRIX_TAGS:
      known = ', '.join(f'{_NAMES[name]} ({tag})' for tag, name in _MATRIX_TAGS.items())
      raise errors.VideoError(
        f'colour matrix {int(frame.colorspace)} (ITU-T H.273) is not supported, expected one of {known}; '
        f'{remedies.advice("to_bt709", path)}'
      )
    matrix = _MATRIX_TAGS[frame.colorspace]
  return Colour(matrix, frame.format.name.startswith('yuvj') or frame.color_range == ColorRange.JPEG)


def check_opaque(frame: av.VideoFrame, path: str | os.PathLike | None = None) -> None:
  """Raises VideoError if a pixel is transparent; `path` is the file that the message names."""
  if any(component.is_alpha for component in frame.format.components):
    if frame.reformat(format='rgba').to_ndarray()[..., 3].min() < 255:
      opaque = coded_format(frame.height, frame.width, frame.format.name, deep=True)
      raise errors.VideoError(
        f'transparent pixels are not supported; {remedies.advice("no_alpha", path, pixel_format=opaque)}'
      )


def bits_of(pixel_format: str) -> int:
  """Bits of a sample, as libav counts them for this pixel format; 0 for frames that only a device can read."""
  return max((component.bits for component in av.VideoFormat(pixel_format).components), default=0)


def _is_rgb(pixel_format: av.VideoFormat) -> bool:
  return pixel_format.is_rgb or pixel_format.has_palette or pixel_format.name in ('monow', 'monob')


def tags_of(frame: av.VideoFrame) -> dict[str, int]:
  """Primaries and transfer of a frame as H.273 numbers, and its matrix if it states one that YCbCr can have."""
  tags = {name: int(getattr(frame, name)) for name in ('color_primaries', 'color_trc')}
  if frame.colorspace in _MATRIX_TAGS:
    tags['colorspace'] = int(frame.colorspace)
  return tags


def yuv_to_rgb(frame: av.VideoFrame, colour: Colour | None = None, *, deep: bool = False) -> np.ndarray:
  """RGB of a decoded frame, (H, W, 3); `colour` overrides the frame's own tags.

  uint8, rounded where there are more bits; those as uint16 with `deep`, where 65535 is white.
  """
  colour = colour or colour_of(frame)
  if deep and bits_of(frame.format.name) > 8:
    return _deep_to_rgb(frame, colour)
  return _convert(frame, 'rgb24', colour).to_ndarray()


def to_eight_bits(rgb: np.ndarray) -> np.ndarray:
  """uint8 of uint8 or, rounded, of uint16."""
  return ((rgb.astype(np.uint32) + 128) // 257).astype(np.uint8) if rgb.dtype == np.uint16 else rgb


def rgb_to_yuv(rgb: np.ndarray, colour: Colour, pixel_format: str | None = None) -> av.VideoFrame:
  """Tagged YCbCr frame of (H, W, 3) RGB, uint8 or uint16 (65535 is white).

  `pixel_format` is one of `coded_format`; by default yuv420p, or yuv444p if a side is odd.
  """
  if rgb.dtype == np.uint16:
    frame = _rgb_to_ten_bits(rgb, colour)
  else:
    # Without a copy, while which no other thread would go on.
    frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb), format='rgb24')
  return to_coded(frame, colour, pixel_format)


# swscale's own way to RGB of 16 bits ends at 65280 for limited range and at 65472 for full range, and its way back from
# there is up to 3 of 1023 off (measured). So it only scales the chroma, and the matrices are ours.
def _deep_to_rgb(frame: av.VideoFrame, colour: Colour) -> np.ndarray:
  bits = next(bits for bits in (10, 12, 16) if bits >= bits_of(frame.format.name))
  if _is_rgb(frame.format):
    green, blue, red = _planes(_convert(frame, f'gbrp{bits}le', colour))
    channels, matrix, offset = [red, green, blue], np.eye(3) / (2**bits - 1), np.zeros(3)
  else:
    channels = _planes(_convert(frame, f'yuv444p{bits}le', colour))
    matrix, offset = _matrix(colour, bits)
    matrix = np.linalg.inv(matrix)
    offset = -matrix @ offset
  rgb = np.empty((frame.height, frame.width, 3), np.uint16)
  for k in range(3):
    rgb[..., k] = _mixed(channels, 65535 * matrix[k], 65535 * offset[k], 65535)
  return rgb


def _rgb_to_ten_bits(rgb: np.ndarray, colour: Colour) -> av.VideoFrame:
  matrix, offset = _matrix(colour, 10)
  frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], 'yuv444p10le')
  channels = [rgb[..., k] for k in range(3)]
  for k, plane in enumerate(frame.planes):
    rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
    rows[:, : plane.width] = _mixed(channels, matrix[k] / 65535, offset[k], 1023)
    plane.update(rows)
  return frame


def _mixed(channels: list[np.ndarray], weights: np.ndarray, offset: float, top: int) -> np.ndarray:
  """offset + the weighted sum, rounded and clipped to 0..top, float32; quicker than a product with a matrix."""
  total = np.full(channels[0].shape, offset, np.float32)
  for channel, weight in zip(channels, weights, strict=True):
    if abs(weight) > 1e-9:
      total += channel * np.float32(weight)
  return np.clip(np.rint(total, out=total), 0, top, out=total)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
  return [
    np.frombuffer(plane, np.uint16).reshape(plane.height, plane.line_size // 2)[:, : plane.width]
    for plane in frame.planes
  ]


def _matrix(colour: Colour, bits: int) -> tuple[np.ndarray, np.ndarray]:
  """(3, 3) and (3,) that turn RGB in [0, 1] into YCbCr of so many bits, by ITU-T H.273, 8.3."""
  red, blue = _LUMA[colour.matrix]
  luma = np.array([red, 1 - red - blue, blue])
  chroma = [(np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)]
  matrix = np.stack([luma, *chroma])
  unit = 2.0 ** (bits - 8)
  if colour.full_range:
    return (2**bits - 1) * matrix, unit * np.array([0.0, 128.0, 128.0])
  return unit * np.array([[219.0], [224.0], [224.0]]) * matrix, unit * np.array([16.0, 128.0, 128.0])


def coded_format(height: int, width: int, like: str = 'yuv420p', deep: bool = False) -> str:
  """The format in which video is coded that came in pixel format `like`: no less chroma, and with `deep` its bits.

  That is yuv420p, yuv422p or yuv444p, or these with 10 bits; what is not YCbCr gets yuv444p. H.264 and H.265 cannot
  crop a single pixel where chroma has half the resolution, so that odd sizes get more.
  """
  layout = av.VideoFormat(like)
  columns, rows = (8, 8) if _is_rgb(layout) else (layout.chroma_width(8), layout.chroma_height(8))
  if len(layout.components) < 3 and not _is_rgb(layout):
    columns, rows = 4, 4  # grey
  if (rows < 8 and height % 2) or (columns < 8 and width % 2) or (rows < 8 and columns == 8):
    columns, rows = 8, 8
  chroma = '444' if columns == 8 else '422' if rows == 8 else '420'
  return f'yuv{chroma}p{"10le" if deep and bits_of(like) > 8 else ""}'


def to_coded(frame: av.VideoFrame, colour: Colour, pixel_format: str | None = None) -> av.VideoFrame:
  """`frame` in `pixel_format` (default: `coded_format`), tagged with `colour`; untouched samples if it already is."""
  target = pixel_format or coded_format(frame.height, frame.width)
  if frame.format.name != target:
    frame = _convert(frame, target, colour)
  for name, value in colour.tags.items():
    setattr(frame, name, value)
  return frame


def _convert(frame: av.VideoFrame, target: str, colour: Colour) -> av.VideoFrame:
  constant = _TAGS[colour.matrix][-1]

  def range_of(pixel_format: av.VideoFormat) -> int:
    return int(ColorRange.JPEG if _is_rgb(pixel_format) else colour._range)

  # Its own reformatter: PyAV keeps one scaler per frame object, and scalers are not thread safe.
  return VideoReformatter().reformat(
    frame,
    format=target,
    src_colorspace=constant,
    dst_colorspace=constant,
    src_color_range=range_of(frame.format),
    dst_color_range=range_of(av.VideoFormat(target)),
    interpolation=_FILTER,
    threads=1,
  )
