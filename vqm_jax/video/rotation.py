"""Which way up a picture is shown: libav's display matrix, nine int32 as ISO/IEC 14496-12 has them.

Frames are restored as they are coded; the matrix goes along to the output. Images cannot carry one and are turned.
"""

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

_ONE = 1 << 16


def display_matrix_of(frame: av.VideoFrame) -> bytes | None:
  """The matrix of a decoded frame; None where it is to be shown as it is."""
  for side_data in frame.side_data:
    if side_data.type == SideDataType.DISPLAYMATRIX:
      matrix = bytes(side_data)
      return None if _turns(matrix) == (_ONE, 0, 0, _ONE) else matrix
  return None


def upright(rgb: np.ndarray, display_matrix: bytes | None) -> np.ndarray:
  """(H, W, 3) as it is to be shown, with quarter turns and mirroring; the same array where there are none.

  Angles in between, which no camera writes, are left alone.
  """
  if display_matrix is None:
    return rgb
  # Column x, row y goes to column a x + c y, row b x + d y.
  a, b, c, d = (int(np.sign(value)) if abs(value) == _ONE else value for value in _turns(display_matrix))
  if (b, c) == (0, 0) and abs(a) == abs(d) == 1:
    return rgb[::d, ::a]
  if (a, d) == (0, 0) and abs(b) == abs(c) == 1:
    return rgb.transpose(1, 0, 2)[::b, ::c]
  return rgb


def _turns(matrix: bytes) -> tuple[int, ...]:
  return tuple(int(value) for value in np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]])
