"""Packets and frames of a video file, each frame known by the packet that it came from.

A packet's number in the order of the file is passed through the decoder in place of its time stamp. So it is seen which
packet could not be decoded, and in which order frames are shown, whatever the stamps say.
"""

import collections.abc
import contextlib
import itertools
import os
import pathlib
from fractions import Fraction
from typing import NamedTuple

import av
import av.container
import av.logging
import numpy as np
from av.stream import Disposition

from vqm_jax import errors

# Decoder threads hold a frame each.
MAX_THREADS = 8
# Stands for a time stamp that is missing.
NO_TIME = np.iinfo(np.int64).min
# One packet is one shown frame.
_PACKET_IS_FRAME = ('h264', 'hevc', 'av1', 'vp9', 'mjpeg', 'ffv1', 'rawvideo', 'prores', 'dnxhd', 'huffyuv', 'utvideo')
# Each frame is coded by itself, so that the order of the packets is that of the frames.
_INTRA = ('mjpeg', 'ffv1', 'rawvideo', 'prores', 'dnxhd', 'huffyuv', 'utvideo')

# Decoded by several threads without several frames at once; dav1d, for one, always does both.
_SLICED = ('h264', 'hevc', 'mpeg2video', 'mpeg1video', 'vp9')
_BEGIN_WHOLE = ('mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm', 'flv', 'nut')
# Opening reads some packets, too; of these, it says of no header what it says of a damaged packet.
_READ_AHEAD = ('ogg', 'nut')
# What libav reads as pictures without being a video.
_NO_VIDEO = ('tty', 'image2')
_TRIED = 'tried as any video or animation that libav knows, expected that, a folder or a zip of images'

Numbered = tuple[int, av.VideoFrame]


def location(path: str | os.PathLike) -> str:
  """A path as libav takes it for a file, whatever is in it: `12:30.mp4` would be of a protocol `12`."""
  return os.path.abspath(path)


def open_file(path: str | os.PathLike) -> av.container.InputContainer:
  """`av.open`, of a file by whatever name, with titles in whatever encoding."""
  container = av.open(location(path), metadata_errors='surrogateescape')
  if container.format.name != 'jpeg_pipe' or not is_motion_jpeg(path):
    return container
  container.close()
  return av.open(location(path), format='mjpeg')


def is_motion_jpeg(path: str | os.PathLike) -> bool:
  """Whether a file is JPEG images one after the other, which programs for images take for the first of them."""
  try:
    with open(path, 'rb') as file:
      if file.read(3) != b'\xff\xd8\xff':
        return False
    with av.open(location(path), format='jpeg_pipe') as container:
      return sum(1 for _ in itertools.islice((packet for packet in container.demux() if packet.size), 2)) == 2
  except OSError:  # of which libav's are, too: whoever reads it tells
    return False


def codec_name(stream: av.stream.Stream) -> str:
  """The coding format (`h264`, `mp3`), which is not always what the decoder is called."""
  return stream.codec_context.codec.canonical_name if stream.codec_context else 'unknown'


def main_video(container: av.container.InputContainer) -> av.VideoStream | None:
  """The stream that players show: flagged as default, else the first that is no cover picture; None without any."""
  pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
  return next((stream for stream in pictures if stream.disposition & Disposition.default), next(iter(pictures), None))


@contextlib.contextmanager
def opened(
  path: pathlib.Path, threads: int = 1, by_frames: bool = True, strict: bool = True
) -> collections.abc.Iterator[tuple]:
  """A context with (container, main video stream) of a file, whose decoder reports damage instead of hiding it.

  `by_frames` lets it decode several frames at once, and tell of damage later than at the packet. Without `strict` it
  conceals what it can, and marks such frames.
  Raises VideoError if it is no video that libav can decode.
  """
  try:
    container = open_file(path)
  except (av.FFmpegError, OSError) as error:
    raise errors.VideoError(_unreadable(path, error)) from error
  with container:
    if container.format.name in _NO_VIDEO or container.format.name.endswith('_pipe'):
      raise errors.VideoError(f'{path}: not a video, libav reads it as {container.format.long_name}; {_TRIED}')
    stream = main_video(container)
    if stream is None:
      raise errors.VideoError(f'{path}: holds no video stream')
    if stream.codec_context is None:
      raise errors.VideoError(f'{path}: the video is coded in a way that libav does not know; convert it first')
    # Otherwise damaged macroblocks are painted over, by most decoders without a word.
    stream.codec_context.options = {'err_detect': 'explode'} if strict else {}
    if not by_frames and codec_name(stream) not in _SLICED:
      threads = 1
    stream.thread_type = 'AUTO' if by_frames else 'SLICE'
    stream.thread_count = min(threads, os.cpu_count() or 1)
    try:
      yield container, stream
    finally:
      # Freeing a decoder waits for its threads while it holds the interpreter's lock, for which they would wait in turn
      # if they had an error to report and anyone has asked libav for messages. This lets them finish before.
      stream.codec_context.flush_buffers()


def _unreadable(path: pathlib.Path, error: Exception) -> str:
  if not path.exists():
    return f'{path}: no such file'
  if path.is_file() and not path.stat().st_size:
    return f'{path}: the file is empty; copy or download it again'
  return (
    f'{path}: not a readable video ({error.strerror}); it may be truncated, copy or download it again, or not a video: '
    f'{_TRIED}'
  )


class Packets(NamedTuple):
  """Facts from one pass over a file: of each packet of its video, in the order of the file.

  Attributes:
    pts, dts: int64, in units of `time_base`; `NO_TIME` where there is none. pos: where it lies in the file, or -1.
    is_key, is_hidden: bool; decoding can begin there; an edit list says not to show it.
    damaged: the numbers of those that libav found incomplete.
    time_base: seconds. start: when the stream begins, in seconds, if that is known.
    packet_is_frame: each is known to stand for a frame.
    in_order: frames are shown in the order of their packets.
    is_avi: packets lie in numbered chunks, and the number, their `dts`, is the only time that they have.
    begins_whole: such files begin with a keyframe, unlike recordings of a stream.
    rates: what the file says of its frames per second, the more reliable first.
    rate: the guess of libav, for streams without times.
    gaps: how many packets of a transport stream follow others that seem to be lost.
    truncated: what is missing at the end; '' if nothing is.
    reported: what libav said of damage between the packets; '' if it did not.
  """

  pts: np.ndarray
  dts: np.ndarray
  pos: np.ndarray
  is_key: np.ndarray
  is_hidden: np.ndarray
  damaged: frozenset[int]
  time_base: Fraction
  start: Fraction | None
  packet_is_frame: bool
  in_order: bool
  is_avi: bool
  begins_whole: bool
  rates: tuple[Fraction, ...]
  rate: Fraction | None
  gaps: int
  truncated: str
  reported: str

  def find(self, packet: av.Packet) -> int | None:
    """The number of a packet that was read after a seek; None if it is not clear."""
    for column, value in ((self.pos, packet.pos), (self.pts, packet.pts), (self.dts, packet.dts)):
      if value is not None and value >= (0 if column is self.pos else NO_TIME + 1):
        (found,) = np.nonzero(column == value)
        if len(found) == 1:
          return int(found[0])
    return None


def read_packets(path: pathlib.Path) -> Packets:
  """Reads through a file without decoding it. Raises VideoError if it cannot be read."""
  with contextlib.ExitStack() as stack:
    with messages(av.logging.ERROR) as opening:
      container, stream = stack.enter_context(opened(path))
    rows, damaged, gaps, end = [], set(), 0, Fraction(0)
    with messages(av.logging.ERROR) as reported, _reading(path, rows):
      for packet in container.demux():
        if not packet.size:
          continue
        if packet.pts is not None and packet.duration:
          end = max(end, (packet.pts + packet.duration) * packet.time_base)
        if packet.stream_index != stream.index:
          continue
        if packet.is_corrupt and container.format.name == 'mpegts':
          gaps += 1  # a counter jumps, as it does where recordings were joined; the decoder knows better
        elif packet.is_corrupt:
          damaged.add(len(rows))
        times = (NO_TIME if time is None else time for time in (packet.pts, packet.dts))
        rows.append((*times, -1 if packet.pos is None else packet.pos, packet.is_keyframe, packet.is_discard))
    table = np.array(rows, np.int64).reshape(-1, 5).T
    rates = tuple(rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate)
    name = codec_name(stream)
    if container.format.name in _READ_AHEAD:
      reported = [*opening, *reported]
    return Packets(
      *table[:3],
      *table[3:].astype(bool),
      damaged=frozenset(damaged),
      time_base=stream.time_base,
      start=None if stream.start_time is None else stream.start_time * stream.time_base,
      packet_is_frame=name in _PACKET_IS_FRAME,
      in_order=name in _INTRA or not stream.codec_context.has_b_frames,
      is_avi=container.format.name == 'avi',
      begins_whole=container.format.name in _BEGIN_WHOLE,
      rates=rates,
      rate=stream.guessed_rate or next(iter(rates), None),
      gaps=gaps,
      truncated=_truncated(path, container, stream, table, float(end)),
      reported=next((text.strip() for _, who, text in reported if who == container.format.name), ''),
    )


@contextlib.contextmanager
def _reading(path, rows):
  try:
    yield
  except av.FFmpegError as error:
    raise errors.VideoError(
      f'{path}: damaged, cannot be read after {len(rows)} frames ({error.strerror}); copy or download the file again'
    ) from error


@contextlib.contextmanager
def messages(level: int) -> collections.abc.Iterator[list[tuple[int, str, str]]]:
  """The messages of libav in this thread, as they come: (level, who, text). For a moment all threads make them."""
  before, skip = av.logging.get_level(), av.logging.get_skip_repeated()
  av.logging.set_level(level)
  av.logging.set_skip_repeated(False)  # a repeated message would come with the next one, of another file
  try:
    with av.logging.Capture() as found:
      yield found
  finally:
    av.logging.set_skip_repeated(skip)
    av.logging.set_level(before)


def _truncated(path, container, stream, table, end) -> str:
  """Says how much is missing at the end of a file that is shorter than its header says; '' if nothing is."""
  found = table.shape[1]
  if container.format.name == 'avi':
    # Its header counts chunks; empty ones, which repeat a frame, are not among the packets.
    found = int(table[1].max(initial=-1)) + 1 if (table[1] != NO_TIME).all() else found
  missing = 0.0
  if 'matroska' in container.format.name and container.duration:
    missing = container.duration / av.time_base - end
  if (found >= stream.frames and missing <= 0.1) or not _ends_early(path):
    return ''
  return f'holds {found} of {stream.frames} frames' if stream.frames else f'the last {missing:.1f} s are missing'


def _ends_early(path: pathlib.Path) -> bool:
  """Whether a box, chunk or element on the top level of a file reaches beyond its end."""
  size = path.stat().st_size
  with path.open('rb') as file:
    head = file.read(12)
    if head[:4] == b'RIFF':
      return 8 + int.from_bytes(head[4:8], 'little') > size
    if head[:4] == b'\x1a\x45\xdf\xa3':
      return _after_matroska(file) > size
    at = 0
    while at < size:
      file.seek(at)
      head = file.read(16)
      length = int.from_bytes(head[:4], 'big')
      if length == 1:
        length = int.from_bytes(head[8:], 'big')
      if length < 8:
        break
      at += length
    return at > size


def _after_matroska(file) -> int:
  """Where the segment of a Matroska file ends; 0 if it does not say."""
  file.seek(4)
  header = _ebml_size(file)
  file.seek(header or 0, os.SEEK_CUR)
  if file.read(4) != b'\x18\x53\x80\x67':
    return 0
  size = _ebml_size(file)
  return 0 if size is None else file.tell() + size


def _ebml_size(file) -> int | None:
  """The size that stands at this place of a Matroska file; None for `unknown`, as live recordings have it."""
  first = file.read(1)[0]
  length = 8 - first.bit_length()
  value = int.from_bytes(bytes([first & (0x7F >> length)]) + file.read(length), 'big')
  return None if value == (1 << 7 * (length + 1)) - 1 else value


def decode(
  container: av.container.InputContainer, stream: av.VideoStream, first: int = 0, failed: set[int] | None = None
) -> collections.abc.Iterator[Numbered]:
  """Yields (number of its packet, frame) of all that the decoder shows, in its order.

  Args:
    container, stream: of `opened`, at any place.
    first: the number of the packet at this place.
    failed: takes the numbers of packets that cannot be decoded; without it av.FFmpegError is raised.
  """
  number = first
  for packet in container.demux(stream):
    if not packet.size:
      continue
    yield from _frames_of(stream, packet, number, failed)
    number += 1
  yield from _frames_of(stream, None, number, failed)


def decode_from(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  packets: Packets,
  key: int,
  failed: set[int] | None = None,
) -> collections.abc.Iterator[Numbered]:
  """As `decode`, from keyframe `key` on, as far as seeking finds that; else nothing."""
  time = packets.pts[key] if packets.pts[key] != NO_TIME else packets.dts[key]
  if time == NO_TIME:
    return
  container.seek(int(time), stream=stream)
  for packet in container.demux(stream):
    if packet.size:
      number = packets.find(packet)
      if number is not None:
        yield from _frames_of(stream, packet, number, failed)
        yield from decode(container, stream, number + 1, failed)
      return


def _frames_of(stream, packet, number, failed):
  if packet is not None:
    packet.pts = number
  try:
    frames = stream.codec_context.decode(packet)
  except av.FFmpegError:
    if failed is None:
      raise
    if packet is not None:
      failed.add(number)
    return
  for frame in frames:
    # Decoders that pass on no times are those that hold no frames back.
    yield number - (packet is None) if frame.pts is None else frame.pts, frame
