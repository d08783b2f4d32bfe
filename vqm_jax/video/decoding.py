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
from vqm_jax.video import libav, transport

# Decoder threads hold a frame each.
MAX_THREADS = 8
# Stands for a time stamp that is missing.
NO_TIME = np.iinfo(np.int64).min
# One packet is one shown frame.
_PACKET_IS_FRAME = (
  'h264', 'hevc', 'vvc', 'av1', 'vp9', 'mjpeg', 'ffv1', 'rawvideo', 'prores', 'dnxhd', 'huffyuv', 'utvideo',
)  # fmt: skip
# So it is here, but for packets that are nearly empty: of a frame that repeats the last one.
_PACKET_MAY_BE_EMPTY = (
  'mpeg4', 'msmpeg4v1', 'msmpeg4v2', 'msmpeg4v3', 'wmv1', 'wmv2', 'flv1', 'h263', 'rv10', 'rv20', 'mpeg1video',
  'mpeg2video',
)  # fmt: skip
_NEARLY_EMPTY = 100  # bytes
_CHUNK_HEAD = 8  # bytes: the name of an AVI's chunk, and its size
# Each frame is coded by itself, so that the order of the packets is that of the frames.
_INTRA = ('mjpeg', 'ffv1', 'rawvideo', 'prores', 'dnxhd', 'huffyuv', 'utvideo')

# Decoded by several threads without several frames at once; dav1d, for one, always does both. So can H.264 and H.265
# be, whose decoders then keep errors within a frame to themselves.
_SLICED = ('mpeg2video', 'mpeg1video', 'vp9')
_BEGIN_WHOLE = ('mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm', 'flv', 'nut')
# Opening reads some packets, too. Of these it says so of damaged packets, and of no header.
_READ_AHEAD = {'ogg': '', 'nut': '', 'obu': '', 'mxf': 'error getting stream index', 'flv': 'Packet mismatch'}
# Who says it, where that is not called like the format.
_SPEAKERS = {'obu': 'AV1 Annex B/low overhead OBU demuxer'}
# So many places in a row that cannot be read are the end of a file.
_MOST_FAILURES = 16
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
  except libav.ERRORS:  # whoever reads it tells
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
  with libav.fenced(lambda why: _unreadable(path, why)):
    container = open_file(path)
  with container:
    if container.format.name in _NO_VIDEO or container.format.name.endswith('_pipe'):
      raise errors.VideoError(f'{path}: not a video, libav reads it as {container.format.long_name}; {_TRIED}')
    stream = main_video(container)
    if stream is None:
      raise errors.VideoError(f'{path}: holds no video stream')
    if stream.codec_context is None:
      raise errors.VideoError(f'{path}: the video is coded in a way that libav does not know; convert it first')
    stream.codec_context.options = {'err_detect': strictness(codec_name(stream))} if strict else {}
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


def holds_video(path: pathlib.Path) -> bool:
  """Whether libav can decode a frame of a video from a file."""
  try:
    with opened(path) as (container, stream):
      return next(decode(container, stream), None) is not None
  except (errors.VideoError, *libav.ERRORS):
    return False


def strictness(codec: str) -> str:
  """libav's `err_detect` that lets a decoder tell of all the damage that it sees, and of nothing else."""
  # Otherwise damaged macroblocks are painted over, by most decoders without a word. The few checksums that there are,
  # in H.265 and FFV1, are compared.
  found = 'explode+crccheck'
  # Coefficients beyond the end of a block, bits behind the last one. Of MPEG-1 and 2 that would refuse the zeros that
  # fill up constant bit rates.
  return f'{found}+bitstream+buffer' if codec.startswith(('wmv', 'msmpeg4')) else found


def _unreadable(path: pathlib.Path, why: str) -> str:
  if not path.exists():
    return f'{path}: no such file'
  if path.is_file() and not path.stat().st_size:
    return f'{path}: the file is empty; copy or download it again'
  return (
    f'{path}: not a readable video ({why}); it may be truncated, copy or download it again, or not a video: {_TRIED}'
  )


class Packets(NamedTuple):
  """Facts from one pass over a file: of each packet of its video, in the order of the file.

  Attributes:
    pts, dts: int64, in units of `time_base`; `NO_TIME` where there is none. pos: where it lies in the file, or -1.
    is_key, is_hidden: bool; decoding can begin there; an edit list says not to show it.
    damaged: the numbers of those that libav found incomplete.
    time_base: seconds. start: when the stream begins, in seconds, if that is known.
    packet_is_frame: each is known to stand for a frame.
    is_full: of each, whether it stands for a frame as far as its size tells.
    in_order: frames are shown in the order of their packets.
    is_avi: packets lie in numbered chunks, and the number, their `dts`, is the only time that they have.
    begins_whole: such files begin with a keyframe, unlike recordings of a stream.
    rates: what the file says of its frames per second, the more reliable first.
    rate: the guess of libav, for streams without times.
    gaps: how many packets of a transport stream follow others that seem to be lost.
    uncounted: by how many frames there are fewer than the header says, though the end is there; of AVI only.
    truncated: what is missing at the end; '' if nothing is.
    reported: what libav said of damage between the packets; '' if it did not.
    ends_within: whether the last packet of a recording is likely a part of a picture only.
    cut_off: whether such a packet was taken off.
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
  is_full: np.ndarray
  in_order: bool
  is_avi: bool
  begins_whole: bool
  rates: tuple[Fraction, ...]
  rate: Fraction | None
  gaps: int
  uncounted: int
  truncated: str
  reported: str
  ends_within: bool = False
  cut_off: bool = False

  def without_last(self) -> 'Packets':
    """The same without the last one, in which a recording ends."""
    last = len(self.pts) - 1
    columns = {name: getattr(self, name)[:last] for name in ('pts', 'dts', 'pos', 'is_key', 'is_hidden', 'is_full')}
    return self._replace(**columns, damaged=self.damaged - {last}, ends_within=False, cut_off=True)

  def find(self, packet: av.Packet) -> int | None:
    """The number of a packet that was read after a seek; None if it is not clear."""
    for column, value in ((self.pos, packet.pos), (self.pts, packet.pts), (self.dts, packet.dts)):
      if value is not None and value >= (0 if column is self.pos else NO_TIME + 1):
        (found,) = np.nonzero(column == value)
        if len(found) == 1:
          return int(found[0])
    return None


def read_packets(path: pathlib.Path) -> Packets:
  """Read through a file without decoding it. Raises VideoError if it cannot be read."""
  with contextlib.ExitStack() as stack:
    with messages(av.logging.ERROR) as opening:
      container, stream = stack.enter_context(opened(path))
    rows, damaged, gaps, end, failures = [], set(), 0, Fraction(0), []
    with messages(av.logging.ERROR) as reported:
      for packet in demuxed(container, on_failure=lambda error: failures.append((len(rows), error))):
        if packet.pts is not None and packet.duration:
          end = max(end, (packet.pts + packet.duration) * packet.time_base)
        if packet.stream_index != stream.index:
          continue
        if packet.is_corrupt and container.format.name == 'mpegts':
          gaps += 1  # a counter jumps, as it does where recordings were joined; the decoder knows better
        elif packet.is_corrupt:
          damaged.add(len(rows))
        times = (NO_TIME if time is None else time for time in (packet.pts, packet.dts))
        rows.append(
          (*times, -1 if packet.pos is None else packet.pos, packet.is_keyframe, packet.is_discard, packet.size)
        )
    if container.format.name == 'mpjpeg':  # libav fails at the end of these in any case
      failures = [(count, error) for count, error in failures if count < len(rows)]
    if failures and not rows:
      raise errors.VideoError(libav.damaged(path, libav.reason(failures[0][1])))
    table = np.array(rows, np.int64).reshape(-1, 6).T
    is_avi, count = container.format.name == 'avi', len(rows)
    lost = _restored_times(stream, table) if is_avi else 0
    if is_avi and rows and (table[1] != NO_TIME).all():
      # Its header counts chunks; empty ones, which repeat a frame, are not among the packets.
      # The last frame lasts as long as others do, which may be many chunks.
      count = int(table[1].max()) + int(np.median(np.diff(np.sort(table[1]))) if count > 1 else 1)
    truncated = _truncated(path, container, stream, count, float(end))
    ending = transport.end_of(path, stream.id) if container.format.name == 'mpegts' else transport.End()
    if ending.broken:
      truncated = 'it ends within a packet of the transport stream'
    rates = tuple(rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate)
    name = codec_name(stream)
    if (word := _READ_AHEAD.get(container.format.name)) is not None:
      reported = [*(message for message in opening if word in message[-1]), *reported]
    return Packets(
      *table[:3],
      *table[3:5].astype(bool),
      damaged=frozenset(damaged),
      time_base=stream.time_base,
      start=None if stream.start_time is None else stream.start_time * stream.time_base,
      packet_is_frame=name in _PACKET_IS_FRAME,
      is_full=(table[5] > _NEARLY_EMPTY) & (name in _PACKET_MAY_BE_EMPTY) | (name in _PACKET_IS_FRAME),
      in_order=name in _INTRA or not stream.codec_context.has_b_frames,
      is_avi=is_avi,
      begins_whole=container.format.name in _BEGIN_WHOLE,
      rates=rates,
      rate=stream.guessed_rate or next(iter(rates), None),
      gaps=gaps,
      uncounted=max(0, stream.frames - count) if is_avi and not truncated else 0,
      truncated=truncated,
      reported=_reported(container, reported, failures, lost),
      ends_within=ending.within_picture,
    )


def demuxed(
  container: av.container.InputContainer,
  *streams: av.stream.Stream,
  on_failure: collections.abc.Callable[[Exception], None] = lambda error: None,
) -> collections.abc.Iterator[av.Packet]:
  """Yield the packets of `streams`, by default of all, that hold anything.

  What lies behind a place that cannot be read comes, too; `on_failure` is told of each such place.
  """
  failures = 0
  while failures < _MOST_FAILURES:
    try:
      for packet in container.demux(*streams):
        if packet.size:
          failures = 0
          yield packet
      return
    except libav.ERRORS as error:
      failures += 1
      on_failure(error)


def _restored_times(stream: av.VideoStream, table: np.ndarray) -> int:
  """Return how many frames that the index of an AVI file lists were not met; number the others by it.

  libav counts the chunks that it meets, so that each one lost moves all that follow to an earlier time.
  """
  listed = {entry.pos + _CHUNK_HEAD: entry.timestamp for entry in stream.index_entries if entry.size}
  met = table[2].tolist()
  lost = len(listed.keys() - set(met))
  if lost and listed.keys() >= set(met):  # else it is the index that is wrong
    table[0] = NO_TIME
    table[1] = [listed[pos] for pos in met]
    return lost
  return 0


def _reported(container, messages, failures, lost) -> str:
  if lost:
    return f'{lost} that its index lists are not there'
  if failures:
    count, error = failures[0]
    return f'after {count} frames reading fails: {libav.reason(error)}'
  name = container.format.name
  return next((text.strip() for _, who, text in messages if who in (name, _SPEAKERS.get(name))), '')


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


def _truncated(path, container, stream, found, end) -> str:
  """Say how much is missing at the end of a file that is shorter than its header says; '' if nothing is."""
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
  container: av.container.InputContainer,
  stream: av.VideoStream,
  first: int = 0,
  failed: set[int] | None = None,
  stop: int | None = None,
) -> collections.abc.Iterator[Numbered]:
  """Yield (number of its packet, frame) of all that the decoder shows, in its order.

  Args:
    container, stream: of `opened`, at any place.
    first: the number of the packet at this place.
    failed: takes the numbers of packets that cannot be decoded; without it `libav.ERRORS` are raised.
    stop: the first packet that is not decoded.
  """
  number = first
  for packet in itertools.islice(demuxed(container, stream), None if stop is None else max(0, stop - first)):
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
  packet = next(demuxed(container, stream), None)
  number = None if packet is None else packets.find(packet)
  if number is not None:
    yield from _frames_of(stream, packet, number, failed)
    yield from decode(container, stream, number + 1, failed, len(packets.pts))


def _frames_of(stream, packet, number, failed):
  if packet is not None:
    packet.pts = number
  try:
    frames = stream.codec_context.decode(packet)
  except libav.ERRORS:
    if failed is None:
      raise
    if packet is not None:
      failed.add(number)
    return
  for frame in frames:
    # Decoders that pass on no times are those that hold no frames back.
    yield number - (packet is None) if frame.pts is None else frame.pts, frame
