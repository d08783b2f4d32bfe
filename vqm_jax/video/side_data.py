"""Data beside the pixels of a decoded frame: closed captions and 3D layouts, which are kept, and others, which are not.

Display matrices are in `rotation`. PyAV reads this data but cannot write it, so that captions go into the coded stream
as a message of their own (ANSI/SCTE 128, 8.1, in H.264 D.1.6 or H.265 D.2.6).
"""

import re

import av
from av.sidedata.sidedata import Type

# What is lost, as users call it. Other kinds say what the pixels already are, or how the old stream was coded.
_LOST = {
  'SPHERICAL': 'mapping of a 360 degree video',
  'AFD': 'active format description',
  'S12M_TIMECODE': 'timecode in the pictures',
  'DOVI_RPU_BUFFER': 'Dolby Vision metadata',
  'DOVI_METADATA': 'Dolby Vision metadata',
  'DYNAMIC_HDR_PLUS': 'HDR10+ metadata',
  'DYNAMIC_HDR_VIVID': 'HDR Vivid metadata',
  'ICC_PROFILE': 'colour profile of the pictures',
  'DETECTION_BBOXES': 'boxes of detected objects',
  'OTHER_STEREO': 'layout of two views in a frame',
  # Kinds that PyAV has no names for.
  'UNNAMED_28': 'LCEVC enhancement',
  'UNNAMED_29': 'other view of a multiview video',
  'UNNAMED_31': 'EXIF of the pictures',
}
CAPTIONS, STEREO = 'A53_CC', 'STEREO3D'
# AVStereo3D: type, flags. Side by side and top to bottom as x264 and Matroska call them; Matroska inverted, too.
_LAYOUTS = {1: (3, ('left_right', 'right_left')), 2: (4, ('top_bottom', 'bottom_top'))}
# Units of a stream that hold pixels, and the message unit before them.
_PIXELS = {'h264': lambda head: head & 31 in (1, 2, 5), 'h265': lambda head: head >> 1 & 63 < 32}
_MESSAGE = {'h264': b'\x06', 'h265': b'\x4e\x01'}


@classmethod
def _unnamed(cls, value):
  found = object.__new__(cls)
  found._value_, found._name_ = value, f'UNNAMED_{value}'
  return found


# Else PyAV refuses to tell anything of a frame with a kind of data that is newer than its own list, such as EXIF.
Type._missing_ = _unnamed


def kinds_of(frame: av.VideoFrame) -> set[str]:
  """The names of the kinds of data beside a frame."""
  found = {each.type.name for each in frame.side_data}
  if STEREO in found and stereo_of(frame) is None and any(_stereo(frame)[:4]):
    found.add('OTHER_STEREO')
  return found


def captions_of(frame: av.VideoFrame) -> bytes:
  """Its closed captions, three bytes for each construct of CEA-708; b'' without any."""
  return next((bytes(each) for each in frame.side_data if each.type.name == CAPTIONS), b'')


def stereo_of(frame: av.VideoFrame) -> tuple[int, str] | None:
  """How two views share a frame: x264's number and Matroska's word; None if they do not, or in a rarer way."""
  data = _stereo(frame)
  if len(data) < 8 or (kind := int.from_bytes(data[:4], 'little')) not in _LAYOUTS:
    return None
  number, words = _LAYOUTS[kind]
  return number, words[data[4] & 1]


def _stereo(frame: av.VideoFrame) -> bytes:
  return next((bytes(each) for each in frame.side_data if each.type.name == STEREO), b'')


def lost(kinds: set[str]) -> list[str]:
  """Names in words those of the kinds that are lost."""
  return list(dict.fromkeys(word for name, word in _LOST.items() if name in kinds))


def with_captions(packet: av.Packet, captions: bytes, codec: str) -> av.Packet:
  """A packet of an encoder, with start codes, with a message that holds `captions` before its pixels."""
  data = bytes(packet)
  starts = (found for found in re.finditer(rb'\x00?\x00\x00\x01', data) if found.end() < len(data))
  place = next(found.start() for found in starts if _PIXELS[codec](data[found.end()]))
  new = av.Packet(data[:place] + b'\x00\x00\x00\x01' + _message(captions, codec) + data[place:])
  new.stream, new.time_base, new.is_keyframe = packet.stream, packet.time_base, packet.is_keyframe
  new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
  return new


def _message(captions: bytes, codec: str) -> bytes:
  count = min(31, len(captions) // 3)
  payload = b'\xb5\x00\x31GA94\x03' + bytes([0x40 | count, 0xFF]) + captions[: 3 * count] + b'\xff'
  body = b'\x04' + bytes([len(payload)]) + payload + b'\x80'
  # No start code may seem to begin within it.
  return _MESSAGE[codec] + re.sub(rb'\x00\x00(?=[\x00-\x03])', b'\x00\x00\x03', body)
