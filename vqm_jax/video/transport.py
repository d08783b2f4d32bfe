"""The end of an MPEG transport stream (.ts, .m2ts): its packets have one length, and say where a picture ends."""

import pathlib
from typing import NamedTuple

_SYNC = 0x47
_LENGTH = 188  # bytes of a packet
# From one packet to the next, and from the last one to the end: plain, behind a time of four bytes as on Blu-ray,
# before 16 bytes of error correction.
_LENGTHS = {188: 188, 192: 188, 204: 204}
_IN_A_ROW = 8
_TAIL = 1 << 20
# Of the fields of an adaptation field, by their flags; the last two have a length of their own.
_FIELDS = ((0x10, 6), (0x08, 6), (0x04, 1))
_COUNTED = (0x02, 0x01)


class End(NamedTuple):
  """How a transport stream ends.

  Attributes:
    broken: whether within a packet.
    within_picture: whether the last packet of pictures is full. The last one of a picture is filled up, unless it fits
      by chance, 1 in 184.
  """

  broken: bool = False
  within_picture: bool = False


def end_of(path: pathlib.Path, stream_id: int) -> End:
  """Look at the last packets of a file, of which those with `stream_id` hold pictures."""
  with path.open('rb') as file:
    file.seek(max(0, path.stat().st_size - _TAIL))
    tail = file.read()
  found = ((stride, at) for stride in _LENGTHS if (at := _last_packet(tail, stride)) is not None)
  stride, at = next(found, (0, 0))
  if not stride:
    return End()
  broken = len(tail) - at != _LENGTHS[stride]
  if len(tail) - at < _LENGTH:
    at -= stride
  packets = (tail[place : place + _LENGTH] for place in range(at, -1, -stride))
  last = next((packet for packet in packets if _stream_of(packet) == stream_id), None)
  return End(broken, last is not None and not _is_filled_up(last))


def _last_packet(tail: bytes, stride: int) -> int | None:
  """Where the last packet begins, whole or not; None if packets do not follow each other by this stride."""
  for at in range(len(tail) - 1, max(len(tail) - 1 - stride, stride * (_IN_A_ROW - 1) - 1), -1):
    if all(tail[at - k * stride] == _SYNC for k in range(_IN_A_ROW)):
      return at
  return None


def _stream_of(packet: bytes) -> int | None:
  has_payload = packet[0] == _SYNC and packet[3] & 0x10
  return (packet[1] & 0x1F) << 8 | packet[2] if has_payload else None


def _is_filled_up(packet: bytes) -> bool:
  if not packet[3] & 0x20:
    return False
  length = packet[4]
  if not length:
    return True
  used = 1 + sum(size for flag, size in _FIELDS if packet[5] & flag)
  for flag in _COUNTED:
    if packet[5] & flag and 5 + used < len(packet):
      used += 1 + packet[5 + used]
  return length > used
