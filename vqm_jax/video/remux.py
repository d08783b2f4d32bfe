"""Stretches of a video file as they are coded in it: their packets as small mp4 files in memory, and frames of those.

A stretch takes the packets from the last keyframe at or before it to the last one that it refers to. Frames 9 to 11:

    in the file   I0 P4 B2 b1 b3 I8 B6 b5 b7 P12 B10 b9 b11 P16 B14 b13 b15
    in the mp4                   I8 B6 b5 b7 P12 B10 b9 b11

Four frames are shown there before frame 9. Of those, 5 to 7 belong to an open group of pictures: coded behind the
keyframe but shown before it, they refer to frames that are missing. Nothing that is shown later is made from them.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from vqm_jax import errors
from vqm_jax.video import colour, libav
from vqm_jax.video.decoding import open_file
from vqm_jax.video.reader import VideoFile

# One packet is one frame, mp4 holds them, and frames that nothing refers to can be told.
_CODECS = ('h264', 'hevc')


class Segment(NamedTuple):
  """An mp4 file, and how many frames it shows before the stretch that it is for."""

  data: bytes
  skip: int


class _Packet(NamedTuple):
  pts: int
  is_keyframe: bool
  data: bytes


def problem(video: VideoFile) -> str | None:
  """Why `cut` cannot be used on a file, if it cannot; tries it on the second keyframe."""
  if video.codec not in _CODECS:
    return f'coded as {video.codec}, expected {" or ".join(_CODECS)}'
  if video.packet_times is None:
    return 'the file does not tell in which order its frames are shown'
  index = next((index for index in video.keyframes if index), 0)
  segment = next(cut(video, [(index, index + 1)]))
  try:
    (frame,) = decode(segment.data, segment.skip, segment.skip + 1)
  except errors.VideoError:
    return f'frame {index}, a keyframe, cannot be decoded by itself'
  same = np.array_equal(frame, next(video.frames(index, index + 1)))
  return None if same else f'frame {index} looks different when it is cut out, as if a colour tag were lost'


def cut(video: VideoFile, ranges: Iterable[tuple[int, int]]) -> Iterator[Segment]:
  """Yield a segment for each range of frames start <= t < stop, in one pass over the file.

  Args:
    video: a file without a `problem`.
    ranges: in ascending order of their start; they may overlap.

  Raises VideoError if the stream is pieced together from several, as an edit list can do.
  """
  times = video.packet_times
  with open_file(video.path) as container:
    stream = container.streams[video.stream_index]
    coming = _packets(video, container.demux(stream))
    packets: list[_Packet] = []
    for start, stop in ranges:
      first, last = times[start], times[stop - 1]
      missing = stop - start - sum(first <= packet.pts <= last for packet in packets)
      while missing:
        packets.append(next(coming))
        missing -= first <= packets[-1].pts <= last
      needed = _needed(packets, first, last)
      del packets[: needed.start]  # of no use to ranges that start later
      part = packets[: needed.stop - needed.start]
      yield Segment(_mp4(part, stream, video.fps), sum(packet.pts < first for packet in part))


def decode(data: bytes, start: int, stop: int) -> np.ndarray:
  """Frames start <= t < stop of a segment, by the order in which it shows them, as uint8 (stop - start, H, W, 3) RGB.

  One thread decodes what is needed. Raises VideoError for damage, which an open group of pictures may hide.
  """
  found = {}
  what = f'frames {start} to {stop} cannot be decoded from {len(data)} bytes of video'
  with libav.fenced(lambda why: f'{what} ({why})'):
    with av.open(io.BytesIO(data)) as container:
      stream = container.streams.video[0]
      packets = [packet for packet in container.demux(stream) if packet.size]
      wanted = sorted(packet.pts for packet in packets)[start:stop]
      packets = packets[_needed(packets, wanted[0], wanted[-1])]
      decoder = stream.codec_context
      if decoder is None:
        raise ValueError('coded in a way that libav does not know')
      decoder.thread_count = 1
      if not _is_open(packets[0], decoder):
        # Otherwise damaged macroblocks are painted over.
        decoder.options = {'err_detect': 'explode'}
      for packet in [*packets, None]:
        # On the way to the first frame, those that nothing refers to are left out.
        decoder.skip_frame = 'NONREF' if packet is not None and packet.pts < wanted[0] else 'DEFAULT'
        for frame in decoder.decode(packet):
          if wanted[0] <= frame.pts <= wanted[-1] and not frame.is_corrupt:
            found[frame.pts] = colour.yuv_to_rgb(frame)
    if len(found) < stop - start:
      raise ValueError(f'{stop - start - len(found)} are missing')
    return np.stack([found[time] for time in wanted])


def _needed(packets: Sequence[_Packet | av.Packet], first: int, last: int) -> slice:
  """Which packets, in the order of decoding, it takes to decode what is shown from `first` to `last`."""
  start = max((k for k, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= first), default=0)
  return slice(start, 1 + max(k for k, packet in enumerate(packets) if first <= packet.pts <= last))


def _is_open(keyframe: av.Packet, decoder: av.VideoCodecContext) -> bool:
  """Whether frames that are coded behind a keyframe may mention earlier ones, whose absence would count as damage."""
  if decoder.codec.canonical_name != 'h264':
    return False  # H.265 has types for such frames, which decoders leave out.
  data, at = bytes(keyframe), 0
  length_bytes = (decoder.extradata[4] & 3) + 1
  while at < len(data):
    start = at + length_bytes
    if data[start] & 31 == 5:  # a slice of an "instantaneous decoding refresh"
      return False
    at = start + int.from_bytes(data[at:start])
  return True


def _packets(video: VideoFile, packets: Iterator[av.Packet]) -> Iterator[_Packet]:
  times = video.packet_times
  for packet in packets:
    if not packet.size:
      continue
    if packet.has_sidedata('new_extradata') or (packet.is_discard and times[0] <= packet.pts <= times[-1]):
      raise errors.VideoError(f'{video.path}: pieced together from several streams, which segments cannot hold')
    yield _Packet(packet.pts, packet.is_keyframe, bytes(packet))


def _mp4(packets: Sequence[_Packet], stream: av.VideoStream, fps: Fraction) -> bytes:
  ranks = {pts: rank for rank, pts in enumerate(sorted(packet.pts for packet in packets))}
  # No frame may be shown before its packet is decoded.
  delay = max(k - ranks[packet.pts] for k, packet in enumerate(packets))
  file = io.BytesIO()
  # An edit list would leave out what is shown before the first packet.
  with av.open(file, 'w', format='mp4', container_options={'use_editlist': '0'}) as output:
    copy = output.add_stream_from_template(stream)
    for k, packet in enumerate(packets):
      new = av.Packet(packet.data)
      new.stream, new.time_base, new.is_keyframe = copy, 1 / fps, packet.is_keyframe
      new.pts, new.dts, new.duration = ranks[packet.pts] + delay, k, 1
      output.mux_one(new)
  return file.getvalue()
