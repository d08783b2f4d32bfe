"""Streams beside the main video of a file, on their way into another container.

`plan` asks libavformat, stream by stream, what the container takes; nothing is decoded for it, so that a misfit is
known before any work is done. `StreamCopy` then adds the streams to the output and feeds their packets as they are:

    sound, subtitles, second videos, data   packet by packet
    SubRip, ASS, WebVTT, mov_text           from one to the other where the container wants it
    PCM of DVD, Blu-ray and broadcast       the same samples in the PCM of other containers
    cover pictures                          packets in mp4, an attached file in Matroska
    timecode tracks, chapters, titles       as metadata, from which libavformat writes them anew
"""

import collections
import functools
import io
import wave
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple, Self

import av
from absl import logging
from av.bitstream import BitStreamFilterContext
from av.codec.codec import Properties
from av.format import Flags
from av.stream import Discard, Disposition

from vqm_jax import errors
from vqm_jax.video import decoding, libav, side_data
from vqm_jax.video.reader import VideoFile, coding_of, describe_stream, is_known

FORMATS = {'.mp4': 'mp4', '.mkv': 'matroska', '.mov': 'mov'}

# Of the file that they were read from, or of the coding of its video.
_NOT_COPIED = {'major_brand', 'minor_version', 'compatible_brands', 'encoder', 'duration', 'vendor_id', 'rotate'}
_STATISTICS = ('bps', 'number_of_', '_statistics_', 'source_id')
# The first that fits is taken: SubRip shows everywhere.
_TEXT_CODECS = ('mov_text', 'subrip')
# PCM in packets that other containers do not hold; 20 and 24 bits are decoded to the upper ones of 32.
_PACKED_PCM = ('pcm_dvd', 'pcm_bluray', 's302m')
_PLAIN_PCM = {'s16': 'pcm_s16le', 's32': 'pcm_s24le'}
# Bytes of a file among which each of its tracks of sound should have a packet.
_SOON = 32_000_000
# libav's end of subtitles that stay until the next.
_NEVER = 2**32 - 1
# Seconds by which a clock that begins again is set back at least.
_RESTART = Fraction(1, 4)
_MICROSECOND = Fraction(1, 1_000_000)

How = Literal['same tag', 'packets', 'text', 'pcm', 'attachment']


class Plan(NamedTuple):
  """A decision on each of the other streams of a file, for one kind of container.

  Attributes:
    suffix: of the output, `.mp4`.
    how: index of each stream that comes along -> how it does: its packets, named in the file as they were or as
      libavformat chooses, converted text or PCM, or an attached file.
    kept: a description of each of those.
    left_out: a description of each of the others, with what could hold it.
    container_options: for `av.open` of the output.
  """

  suffix: str
  how: dict[int, How]
  kept: tuple[str, ...]
  left_out: tuple[str, ...]
  container_options: dict[str, str]


def plan(source: VideoFile, suffix: str) -> Plan:
  """Decide which streams of `source` come along into a file with `suffix`, one of `FORMATS`.

  Raises VideoError for sound that this container cannot hold and another one could.
  """
  how, kept, left_out = {}, [], []
  with decoding.open_file(source.path) as container:
    first = _first_packets(container, source.stream_index)
    for stream in container.streams:
      if stream.index == source.stream_index or _is_chapter_track(stream) or _is_timecode(stream):
        continue
      what = describe_stream(stream)
      if way := _way(stream, suffix, first.get(stream.index)):
        how[stream.index] = way
        kept.append(f'{what} (as plain PCM)' if way == 'pcm' else what)
        continue
      others = [other for other in FORMATS if other != suffix and _way(stream, other, first.get(stream.index))]
      if others and stream.type == 'audio' and stream.codec_context:
        raise errors.VideoError(
          f'{source.path}: {what} does not fit into {suffix}; write to {" or ".join(others)} instead'
        )
      unfit = 'no container takes it' if is_known(stream) else 'libav does not know it'
      left_out.append(f'{what} ({" or ".join(others)} could hold it)' if others else f'{what} ({unfit})')
    left_out += [f'{what} (is not written)' for what in side_data.lost(source.beside)]
    options = {}
    if suffix != '.mkv':
      # The index in front lets browsers start before the whole file is there.
      tags = '+use_metadata_tags' if _loses_tags(_text(container.metadata), FORMATS[suffix]) else ''
      options['movflags'] = f'+faststart{tags}'
  return Plan(suffix, how, tuple(kept), tuple(left_out), options)


class StreamCopy:
  """The other streams of a file, added to an output and fed in step with its video; close it when done.

  Make it after the video stream was added and before anything is muxed. Title, language and flags of the video, and
  metadata and chapters of the file, are set, too.
  """

  def __init__(self, source: VideoFile, plan: Plan, output: av.container.OutputContainer, video: av.VideoStream):
    self._path, self._output, self._shifts = source.path, output, source.shifts
    self._keep_going = source.keep_going
    self._container = decoding.open_file(source.path)
    streams = self._container.streams
    main = streams[source.stream_index]
    video.metadata.update(_of_track(main, own_coding=False))
    video.disposition = main.disposition
    if source.stereo and plan.suffix == '.mkv':
      video.metadata['stereo_mode'] = source.stereo[1]
    elif source.stereo and video.codec_context.name != 'libx264':
      logging.warning('%s: H.265 in %s does not say how two views share a frame', source.path, plan.suffix)
    for stream in filter(_is_timecode, streams):
      video.metadata.setdefault('timecode', stream.metadata['timecode'])
    output.metadata.update(_of_file(self._container.metadata))
    output.set_chapters([{**c, 'metadata': _text(c['metadata'])} for c in self._container.chapters()])
    self._copies = {}
    for index, how in plan.how.items():
      if how == 'attachment':
        _attach(output, streams[index])
      elif how == 'text':
        self._copies[index] = _Converted(output, streams[index])
      elif how == 'pcm':
        self._copies[index] = _Repacked(output, streams[index])
      else:
        self._copies[index] = _Copied(output, streams[index], keep_tag=how == 'same tag')
    self._packets = self._demux([streams[index] for index in self._copies])
    self._waiting = next(self._packets, None)

  def until(self, seconds: float) -> None:
    """Feed the packets up to this time of the source; infinity feeds all that is left."""
    # Before the header there are no units of time.
    self._output.start_encoding()
    while self._waiting is not None:
      packet = self._waiting
      time = packet.dts if packet.dts is not None else packet.pts
      if time is not None and float(time * packet.time_base) > seconds:
        return
      copy = self._copies[packet.stream_index]
      for ready in copy.packets(packet):
        with libav.fenced(
          lambda why, what=copy.what: f'{self._path}: {what} cannot be copied ({why}); write to .mkv', libav.REFUSALS
        ):
          self._output.mux_one(ready)
      self._waiting = next(self._packets, None)

  def close(self) -> None:
    """Close the file that the streams are copied from."""
    self._container.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind, value, trace) -> None:
    self.close()

  def _demux(self, streams: list) -> Iterator[av.Packet]:
    if streams:
      yield from _joined(decoding.demuxed(self._container, *streams, on_failure=self._report), self._shifts)

  def _report(self, error: Exception) -> None:
    what = f'{self._path}: damaged, part of its sound or subtitles cannot be read ({libav.reason(error)})'
    if not self._keep_going:
      raise errors.VideoError(f'{what}; copy or download it again') from error
    logging.warning('%s; it is left out', what)


def _joined(packets: Iterator[av.Packet], shifts: Sequence[Fraction]) -> Iterator[av.Packet]:
  """The packets, in step with the video where the clock of the file begins again: ahead by `shifts`, one by one."""
  last, passed = {}, collections.Counter()
  for packet in packets:
    index, time = packet.stream_index, packet.pts if packet.dts is None else packet.dts
    if time is not None and shifts:
      begins_again = (last.get(index, time) - time) * packet.time_base > _RESTART
      last[index] = time
      passed[index] += begins_again and passed[index] < len(shifts)
      if passed[index]:
        shift = round(shifts[passed[index] - 1] / packet.time_base)
        packet.pts, packet.dts = (None if t is None else t + shift for t in (packet.pts, packet.dts))
    yield packet


class _Copied:
  """A stream whose packets are passed on, at times that the container accepts."""

  def __init__(self, output, stream, keep_tag):
    self._begin(output, stream, _add(output, stream, keep_tag))

  def packets(self, packet: av.Packet) -> Iterator[av.Packet]:
    self._place(packet)
    yield packet

  def _begin(self, output, stream, copy):
    self.what = describe_stream(stream)
    self._stream, self._is_sound = copy, stream.type == 'audio'
    # Some muxers refuse equal times, all refuse earlier ones.
    self._step = 0 if output.format.flags & Flags.ts_nonstrict.value else 1
    self._last = None

  def _place(self, packet):
    """Put a packet into the copy: with a time if it has none, later if it goes back, and sound with a length."""
    scale = packet.time_base / self._stream.time_base
    pts, dts, duration = (
      None if time is None else round(time * scale) for time in (packet.pts, packet.dts, packet.duration)
    )
    if dts is None:
      dts = pts if pts is not None else 0 if self._last is None else self._last
    if self._last is not None:
      dts = max(dts, self._last + self._step)
      # Else the last packet would last no time, and not be played.
      duration = duration or (dts - self._last if self._is_sound else 0)
    packet.stream, packet.time_base = self._stream, self._stream.time_base
    packet.pts, packet.dts, packet.duration = dts if pts is None else max(pts, dts), dts, duration or 0
    self._last = dts


class _Converted(_Copied):
  """A text subtitle stream that is decoded and coded again in the container's own format."""

  def __init__(self, output, stream):
    self._decoder = stream.codec_context
    self._begin(output, stream, _add_text(output, stream))

  def packets(self, packet: av.Packet) -> Iterator[av.Packet]:
    with libav.fenced(lambda why: f'{self.what} cannot be converted ({why}); write to .mkv or .mp4'):
      found = self._decoder.decode2(packet)
      if not found:
        return
      start, end = found.start_display_time, found.end_display_time
      if not start < end < _NEVER:
        end = start + round(1000 * (packet.duration or 0) * packet.time_base)
      pts = found.pts + 1000 * start
      found.pts, found.start_display_time, found.end_display_time = pts, 0, end - start
      coded = self._stream.codec_context.encode_subtitle(found)
    if coded.size:
      ready = av.Packet(bytes(coded))
      ready.time_base, ready.is_keyframe = _MICROSECOND, True
      ready.pts, ready.dts, ready.duration = pts, pts, 1000 * (end - start)
      self._place(ready)
      yield ready


class _Repacked(_Copied):
  """PCM whose samples are taken out of their packets and put into plain ones."""

  def __init__(self, output, stream):
    self._decoder = stream.codec_context
    self._begin(output, stream, _add_pcm(output, stream))

  def packets(self, packet: av.Packet) -> Iterator[av.Packet]:
    with libav.fenced(lambda why: f'{self.what} cannot be converted ({why}); copy or download it again'):
      coded = [ready for frame in self._decoder.decode(packet) for ready in self._stream.encode(frame)]
    for ready in coded:
      self._place(ready)
      yield ready


def _way(stream, suffix: str, first: av.Packet | None) -> How | None:
  """How a stream comes into such a container; None if it does not."""
  if not is_known(stream):
    return None
  if _is_cover(stream) and suffix == '.mkv':
    return 'attachment'
  if _is_cover(stream) or stream.type == 'data':
    # The muxer for mov takes pictures and data without a word, and writes nothing or what nobody can read.
    ways = (how for how in ('same tag', 'packets') if _comes_back(stream, FORMATS[suffix], how == 'same tag', first))
    return next(ways, None)
  for how in ('same tag', 'packets'):
    keep_tag = how == 'same tag'
    if _takes(FORMATS[suffix], functools.partial(_add, stream=stream, keep_tag=keep_tag), first):
      # The muxer for mov writes whatever letters a sound had in another kind of file, which then nobody knows.
      if suffix == '.mov' and keep_tag and first is not None and not _comes_back(stream, 'mov', True, first):
        continue
      return how
  if _is_text(stream) and _takes(FORMATS[suffix], functools.partial(_add_text, stream=stream)):
    return 'text'
  if coding_of(stream)[0] in _PACKED_PCM and _takes(FORMATS[suffix], functools.partial(_add_pcm, stream=stream)):
    return 'pcm'
  return None


def _takes(format_name: str, add, first: av.Packet | None = None) -> bool:
  """Whether libavformat writes such a file with what `add(output)` adds to it, up to the `first` packet of that."""
  try:
    with av.open(io.BytesIO(), 'w', format=format_name) as output:
      stream = add(output)
      output.start_encoding()
      if first is not None:
        packet = av.Packet(bytes(first))
        packet.stream, packet.time_base, packet.is_keyframe = stream, first.time_base, first.is_keyframe
        packet.pts, packet.dts, packet.duration = 0, 0, first.duration
        output.mux_one(packet)
    return True
  except libav.ERRORS:
    return False


def _first_packets(container, main: int) -> dict[int, av.Packet]:
  """The first packet of each stream of sound, pictures or data but the main one, as far as they come soon."""
  wanted = {s.index for s in container.streams if s.type in ('audio', 'video', 'data') and s.index != main}
  found = {}
  if wanted:
    read = 0
    for packet in decoding.demuxed(container):
      read += packet.size
      if packet.stream_index in wanted:
        found.setdefault(packet.stream_index, packet)
      if len(found) == len(wanted) or read > _SOON:
        break
  return found


def _comes_back(stream, format_name: str, keep_tag: bool, first: av.Packet | None) -> bool:
  """Whether a stream of pictures or data that is put into such a file is there when it is read."""
  file = io.BytesIO()
  try:
    with av.open(file, 'w', format=format_name) as output:
      packet = av.Packet(bytes(first or 16))
      packet.stream, packet.pts, packet.dts, packet.duration = _add(output, stream, keep_tag), 0, 0, 1
      output.mux_one(packet)
    with av.open(io.BytesIO(file.getvalue())) as back:
      return any(_is_same(stream, other) for other in back.streams)
  except libav.ERRORS:
    return False


def _is_same(stream, other) -> bool:
  (name, letters), (found_name, found_letters) = coding_of(stream), coding_of(other)
  same = name == found_name if name != 'none' else letters == found_letters
  return same and stream.type == other.type and _is_cover(stream) == _is_cover(other)


def _add(output, stream, keep_tag: bool):
  """A stream of `output` for the packets of `stream`, whether libav can decode them or not.

  `keep_tag` leaves the letters that name the coding in the file as they are, else libavformat chooses.
  """
  # PyAV asks the codec before it adds a stream, and then refuses what libavformat takes as well, mu-law in Matroska. So
  # any stream will do, which then gets the parameters of another: filters can, even one that does nothing.
  with av.open(io.BytesIO(_some_sound())) as some:
    copy = output.add_stream_from_template(some.streams[0])
  BitStreamFilterContext('null', in_stream=stream, out_stream=copy)
  if not keep_tag:
    copy.codec_context.codec_tag = '\0\0\0\0'
  copy.time_base = stream.time_base
  copy.metadata.update(_of_track(stream))
  copy.disposition = stream.disposition
  return copy


@functools.cache
def _some_sound() -> bytes:
  file = io.BytesIO()
  with wave.open(file, 'wb') as sound:
    sound.setnchannels(1)
    sound.setsampwidth(2)
    sound.setframerate(48000)
    sound.writeframes(bytes(64))
  return file.getvalue()


def _add_text(output, stream):
  """A text subtitle stream of `output` in the first format that it takes; raises ValueError if it takes none."""
  error = None
  for codec in _TEXT_CODECS:
    try:
      copy = output.add_stream(codec)
    except ValueError as unfit:
      error = unfit
      continue
    decoder = stream.codec_context
    decoder.open(strict=False)
    copy.codec_context.subtitle_header = decoder.subtitle_header or b'[Script Info]\n'
    copy.codec_context.time_base = Fraction(1, 1000)
    copy.metadata.update(_of_track(stream))
    copy.disposition = stream.disposition
    return copy
  raise error


def _add_pcm(output, stream):
  """A stream of `output` for the samples of packed PCM; raises ValueError if it takes none."""
  sound = stream.codec_context
  if sound.format is None or sound.format.name not in _PLAIN_PCM:
    raise ValueError('unknown samples')
  copy = output.add_stream(_PLAIN_PCM[sound.format.name], rate=sound.sample_rate)
  copy.codec_context.layout = sound.layout
  copy.metadata.update(_of_track(stream, own_coding=False))
  copy.disposition = stream.disposition
  return copy


def _attach(output, stream) -> None:
  """Add a cover picture as Matroska keeps it: an attached file."""
  mimetype = {'mjpeg': 'image/jpeg'}.get(stream.codec_context.name, f'image/{stream.codec_context.name}')
  metadata = _text(stream.metadata)
  name = metadata.get('filename', 'cover.jpg' if mimetype == 'image/jpeg' else f'cover.{stream.codec_context.name}')
  output.add_attachment(name, metadata.get('mimetype', mimetype), _picture(stream))


def _picture(stream) -> bytes:
  with decoding.open_file(stream.container.name) as container:
    return next((bytes(p) for p in decoding.demuxed(container, container.streams[stream.index])), b'')


def _is_cover(stream) -> bool:
  return stream.type == 'video' and bool(stream.disposition & Disposition.attached_pic)


def _is_chapter_track(stream) -> bool:
  # QuickTime keeps the titles of chapters as a text track, which libavformat writes itself.
  return stream.discard == Discard.all


def _is_timecode(stream) -> bool:
  return stream.type == 'data' and 'timecode' in stream.metadata and coding_of(stream)[1] == 'tmcd'


def _is_text(stream) -> bool:
  return (
    stream.type == 'subtitle'
    and stream.codec_context is not None
    and bool(stream.codec_context.codec.properties & Properties.TEXT_SUB.value)
  )


def _loses_tags(metadata: dict[str, str], format_name: str) -> bool:
  """Whether such a file keeps fewer of these texts, unless it is told to keep any."""
  wanted = _of_file(metadata)
  if not wanted:
    return False
  file = io.BytesIO()
  with av.open(file, 'w', format=format_name) as output:
    stream = output.add_stream('pcm_s16le' if format_name == 'mov' else 'aac', rate=48000)
    stream.layout = 'mono'
    output.metadata.update(wanted)
    output.start_encoding()
  with av.open(io.BytesIO(file.getvalue())) as back:
    return not {name.lower() for name in wanted} <= {name.lower() for name in back.metadata}


def _of_file(metadata: dict[str, str]) -> dict[str, str]:
  return {name: text for name, text in _text(metadata).items() if name.lower() not in _NOT_COPIED}


def _of_track(stream, own_coding: bool = True) -> dict[str, str]:
  """Title, language and the like; statistics only where the packets stay the same."""
  found = {}
  for name, text in _of_file(stream.metadata).items():
    if own_coding or not name.lower().startswith(_STATISTICS):
      found[name] = text
  # QuickTime's word for it.
  if 'name' in found:
    found.setdefault('title', found.pop('name'))
  return found


def _text(metadata: dict[str, str]) -> dict[str, str]:
  """Old files have texts in Latin-1, which come as half-decoded UTF-8."""

  def mended(text):
    raw = text.encode('utf-8', 'surrogateescape')
    try:
      return raw.decode('utf-8')
    except UnicodeDecodeError:
      return raw.decode('latin-1')

  return {mended(name): mended(text) for name, text in metadata.items()}
