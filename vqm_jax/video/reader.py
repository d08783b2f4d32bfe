"""Frames of video files, image folders and zip archives as RGB, one at a time.

What cannot be read exactly is refused with the remedy: damaged files, more than 10 bits, HDR, transparency and, unless
asked for, interlacing and variable frame rate.
"""

import bisect
import collections
import collections.abc
import contextlib
import functools
import itertools
import os
import pathlib
import re
import zipfile
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.stream import Discard, Disposition

from vqm_jax import errors
from vqm_jax.video import colour as colour_lib
from vqm_jax.video import images, remedies
from vqm_jax.video.deinterlace import deinterlaced
from vqm_jax.video.rotation import display_matrix_of
from vqm_jax.video.sources import Readable, VideoSource, checked_stop

VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi')

# One packet is one shown frame, so that counting needs no decoding.
_PACKET_IS_FRAME = ('h264', 'hevc', 'av1', 'vp9', 'mjpeg', 'ffv1', 'rawvideo')
# Decoder threads hold a frame each.
_MAX_THREADS = 8


def open_video(
  path: Readable,
  *,
  fps: Fraction | None = None,
  variable_rate: bool = False,
  deep: bool = False,
  deinterlace: bool = False,
) -> VideoSource:
  """The source behind a video file, a folder or zip of images, or a group of images `060_*.png`.

  `fps` is the rate of images (30 if absent); for a video file it replaces the file's own timing.
  `variable_rate` admits video files whose frames are not evenly spaced; `deep` gives all bits of those that have more
  than 8, and `deinterlace` whole frames of interlaced ones (see `VideoFile`).
  Raises VideoError for anything that cannot be read exactly.
  """
  if isinstance(path, zipfile.Path):
    return images.open_group(path, fps) if '*' in path.name and not path.exists() else images.open_images(path, fps)
  path = pathlib.Path(path)
  if path.is_dir():
    return images.open_images(path, fps)
  if path.suffix.lower() == '.zip' and path.is_file():
    return images.open_images(images.zip_root(path), fps)
  if '*' in path.name and not path.exists():
    return images.open_group(path, fps)
  if not path.exists():
    raise errors.VideoError(f'{path}: no such file or folder')
  if path.suffix.lower() not in VIDEO_SUFFIXES:
    raise errors.VideoError(f'{path}: not a video, expected {", ".join(VIDEO_SUFFIXES)}, a folder or a zip of images')
  return VideoFile(path, fps=fps, variable_rate=variable_rate, deep=deep, deinterlace=deinterlace)


def list_videos(folder: Readable) -> dict[str, pathlib.Path | zipfile.Path]:
  """Clip name -> what `open_video` takes, in natural order, for every clip in a folder or zip.

  A clip is a sub-folder or zip of images, a video file, or a group of images `NNN_<number>.png` side
  by side; plain numbered images make the folder itself the one clip. Hidden and unrelated files are
  ignored.
  Raises VideoError if two clips share a name or there is no folder.
  """
  if not isinstance(folder, zipfile.Path):
    folder = pathlib.Path(folder)
    if folder.suffix.lower() == '.zip' and folder.is_file():
      folder = images.zip_root(folder)
    elif not folder.is_dir():
      raise errors.VideoError(f'{folder}: no such folder')
  found = []
  groups = collections.defaultdict(list)
  for entry in folder.iterdir():
    suffix = pathlib.PurePath(entry.name).suffix.lower()
    stem = pathlib.PurePath(entry.name).stem
    if entry.name.startswith('.'):
      continue
    if entry.is_dir():
      if any(images.is_image(child) for child in entry.iterdir()):
        found.append((entry.name, entry))
    elif suffix in VIDEO_SUFFIXES or suffix == '.zip':
      found.append((stem, entry))
    elif suffix in images.SUFFIXES:
      groups[images.prefix(stem), suffix].append(entry)
  for prefix, suffix in groups:
    if prefix is None:
      found.append((images.name_of(folder), folder))
    else:
      found.append((prefix, folder / f'{prefix}_*{suffix}'))
  names = [name for name, _ in found]
  if duplicates := sorted(name for name, n in collections.Counter(names).items() if n > 1):
    raise errors.VideoError(f'{folder}: several files or folders stand for clip {duplicates[0]!r}; keep one of them')
  return dict(sorted(found, key=lambda item: images.natural(item[0])))


class VideoFile:
  """A video file. Opening it checks the format; counting the frames reads the packets once.

  Frames are as they are coded, not turned as `display_matrix` says. They are uint8, rounded where the file has 9 or 10
  bits; with `deep` such files give uint16, where 65535 is white. Interlaced frames are refused; with `deinterlace` each
  becomes one whole frame at its time.

  Attributes: path, name, height, width, dtype, colour and tags (of the first frame), codec, pixel_format,
  pixel_aspect, display_matrix (None or libav's 36 bytes), other_streams (a description of each audio, subtitle and data
  stream).
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    fps: Fraction | None = None,
    variable_rate: bool = False,
    deep: bool = False,
    deinterlace: bool = False,
  ):
    self.path = pathlib.Path(path)
    self.name = self.path.stem
    self._fps, self._variable_rate, self._deinterlace = fps, variable_rate, deinterlace
    with self._open() as (container, stream):
      # In VP8 and VP9 alpha hides beside the frames, where decoders ignore it.
      if stream.metadata.get('alpha_mode') == '1':
        raise errors.VideoError(f'{self.path}: transparent video is not supported; {remedies.advice("no_alpha")}')
      with self._reporting('frame 0'):
        frame = next(container.decode(stream), None)
      if frame is None:
        raise errors.VideoError(f'{self.path}: holds no video frames')
      try:
        self.colour = colour_lib.colour_of(frame)
      except errors.VideoError as error:
        raise errors.VideoError(f'{self.path}: {error}') from None
      self.height, self.width = frame.height, frame.width
      self.codec = codec_name(stream)
      self.stream_index = stream.index
      self.pixel_format = frame.format.name
      self.dtype = np.dtype(np.uint16 if deep and colour_lib.bits_of(self.pixel_format) > 8 else np.uint8)
      self.display_matrix = display_matrix_of(frame)
      self.pixel_aspect = stream.sample_aspect_ratio
      self.tags = colour_lib.tags_of(frame)
      self._check_progressive(frame, 0)
      self.other_streams = tuple(
        describe_stream(other)
        for other in container.streams
        # QuickTime keeps the titles of chapters as a track.
        if other.index != stream.index and other.discard != Discard.all
      )

  @property
  def num_frames(self) -> int:
    """How many frames there are, counted."""
    return self._timing.num_frames

  @property
  def fps(self) -> Fraction:
    """Frames per second; the average where the rate varies."""
    return self._timing.fps

  @property
  def constant_rate(self) -> bool:
    """Whether frame k is shown at k/fps, within a quarter of a frame."""
    return self._timing.constant

  @property
  def time_base(self) -> Fraction:
    """Seconds per unit of `timestamps`."""
    return self._timing.time_base

  @property
  def timestamps(self) -> list[int] | None:
    """When each frame is shown, in units of `time_base`; None where the file does not tell."""
    return self._timing.timestamps

  @property
  def packet_times(self) -> list[int] | None:
    """The time in the file of each frame's packet, whatever `fps` is; None where it does not tell their order."""
    return self._measured.timestamps

  @property
  def keyframes(self) -> list[int]:
    """The frames at which decoding can begin, as far as the file tells."""
    return [bisect.bisect_left(self.packet_times, time) for time in self._measured.keyframes]

  def frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[np.ndarray]:
    """Yields frames `start` to `stop` as (H, W, 3) RGB of `dtype`."""
    frames = self._whole_frames(start, stop) if self._deinterlace else self.yuv_frames(start, stop)
    for frame in frames:
      yield colour_lib.yuv_to_rgb(frame, self.colour, deep=self.dtype == np.uint16)

  def _whole_frames(self, start, stop):
    stop = checked_stop(self, start, stop)
    # Both neighbours of every frame, so that it looks the same wherever reading begins.
    first, last = max(start - 1, 0), min(stop + 1, self.num_frames)
    if start < stop:
      frames = self.yuv_frames(first, last)
      yield from itertools.islice(deinterlaced(frames), start - first, stop - first)

  def yuv_frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[av.VideoFrame]:
    """Yields frames `start` to `stop` as decoded, for re-encoding without a detour through RGB.

    Raises VideoError, naming the frame, for damage, a change of size or format, or missing frames.
    """
    stop = checked_stop(self, start, stop)
    if start >= stop:
      return
    keyframe = self._keyframe(start)
    if keyframe is not None:
      with self._open(_MAX_THREADS) as (container, stream):
        container.seek(keyframe, stream=stream)
        frames = self._after_seek(container, stream, start)
        first = next(frames, None)
        if first is not None:
          yield from self._checked(itertools.chain([first], frames), start, stop)
          return
    with self._open(_MAX_THREADS) as (container, stream):
      yield from self._checked(self._decode(container, stream), 0, stop, skip=start)

  def _keyframe(self, start: int) -> int | None:
    """Time of the last keyframe at or before frame `start`; None to decode from the beginning."""
    timing = self._timing
    if start == 0 or timing.timestamps is None or not timing.keyframes:
      return None
    position = bisect.bisect_right(timing.keyframes, timing.timestamps[start]) - 1
    return timing.keyframes[position] if position > 0 else None

  def _after_seek(self, container, stream, start):
    """Frames from exactly `start`; nothing if the seek missed, so that the caller begins anew."""
    wanted = self._timing.timestamps[start]
    reached = False
    try:
      for frame in container.decode(stream):
        if not reached and frame.pts is not None and frame.pts >= wanted:
          if frame.pts > wanted:
            return
          reached = True
        if reached:
          yield frame
    except av.FFmpegError as error:
      # Leading pictures of an open GOP have lost their references, which says nothing of the file.
      if reached:
        raise errors.VideoError(f'{self.path}: damaged after frame {start} ({error})') from error

  def _decode(self, container, stream):
    index = 0
    try:
      for frame in container.decode(stream):
        yield frame
        index += 1
    except av.FFmpegError as error:
      raise errors.VideoError(
        f'{self.path}: damaged, frame {index} of {self.num_frames} cannot be decoded '
        f'({error.strerror}); copy or download the file again'
      ) from error

  def _checked(self, frames, index, stop, skip=0):
    """Yields those of `frames` with an index from `skip` to `stop`, or says what is wrong."""
    times = self._timing.timestamps
    for frame in frames:
      if frame.is_corrupt or (times and frame.pts != times[index]):
        raise errors.VideoError(
          f'{self.path}: damaged, frame {index} of {self.num_frames} cannot be decoded; copy or download the file again'
        )
      if (frame.height, frame.width) != (self.height, self.width) or (frame.format.name != self.pixel_format):
        raise errors.VideoError(
          f'{self.path}: frame {index} is {frame.width}x{frame.height} {frame.format.name}, '
          f'expected {self.width}x{self.height} {self.pixel_format}; split the file there'
        )
      self._check_progressive(frame, index)
      try:
        colour_lib.check_opaque(frame)
      except errors.VideoError as error:
        raise errors.VideoError(f'{self.path}: frame {index}: {error}') from None
      if index >= skip:
        yield frame
      index += 1
      if index == stop:
        return
    raise errors.VideoError(
      f'{self.path}: decoding ended after {index} of {self.num_frames} frames; the file is '
      'truncated or damaged, copy or download it again'
    )

  def _check_progressive(self, frame, index):
    if frame.interlaced_frame and not self._deinterlace:
      raise errors.VideoError(
        f'{self.path}: frame {index} is interlaced, which is not supported; {remedies.advice("deinterlace")}'
      )

  @contextlib.contextmanager
  def _open(self, threads: int = 1):
    if not self.path.is_file():
      raise errors.VideoError(f'{self.path}: no such file')
    try:
      container = av.open(str(self.path), metadata_errors='surrogateescape')
    except (av.FFmpegError, OSError) as error:
      raise errors.VideoError(
        f'{self.path}: not a readable video ({error.strerror}); it may be truncated, copy or download it again'
      ) from error
    with container:
      pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
      if not pictures:
        raise errors.VideoError(f'{self.path}: holds no video stream')
      stream = pictures[0]
      if stream.codec_context is None:
        raise errors.VideoError(f'{self.path}: the video is coded in a way that libav does not know; convert it first')
      # Otherwise damaged macroblocks are painted over without a word.
      stream.codec_context.options = {'err_detect': 'explode'}
      stream.thread_type = 'AUTO'
      stream.thread_count = min(threads, os.cpu_count() or 1)
      yield container, stream

  @contextlib.contextmanager
  def _reporting(self, what):
    try:
      yield
    except av.FFmpegError as error:
      raise errors.VideoError(
        f'{self.path}: damaged, {what} cannot be read ({error.strerror}); copy or download the file again'
      ) from error

  @functools.cached_property
  def _measured(self) -> '_Timing':
    with self._open(_MAX_THREADS) as (container, stream), self._reporting('the file'):
      return _measure(self.path, container, stream)

  @functools.cached_property
  def _timing(self) -> '_Timing':
    timing = self._measured
    if self._fps is not None:
      return timing._replace(fps=Fraction(self._fps), constant=True, time_base=1 / Fraction(self._fps), timestamps=None)
    if not timing.constant and not self._variable_rate:
      raise errors.VideoError(
        f'{self.path}: frames are missing or their rate varies (about {float(timing.fps):.4g} per '
        f'second), expected a constant rate; {remedies.advice("constant_rate", rate=round(timing.fps))}'
      )
    return timing


class _Timing(NamedTuple):
  """What one pass over the packets of a file tells; `timestamps` and `keyframes` ascend."""

  num_frames: int
  fps: Fraction
  constant: bool
  time_base: Fraction
  timestamps: list[int] | None
  keyframes: list[int]


def _measure(path: pathlib.Path, container, stream) -> _Timing:
  times, keyframes, packets, end = [], [], 0, 0
  for packet in container.demux():
    if not packet.size:
      continue
    if packet.pts is not None and packet.duration:
      end = max(end, (packet.pts + packet.duration) * packet.time_base)
    if packet.stream_index != stream.index:
      continue
    if packet.is_corrupt:
      raise errors.VideoError(f'{path}: damaged or truncated at frame {packets}; copy or download the file again')
    packets += 1
    if packet.is_discard:
      continue
    times.append(packet.pts)
    if packet.is_keyframe and packet.pts is not None:
      keyframes.append(packet.pts)
  if packets < stream.frames:
    raise errors.VideoError(f'{path}: truncated, holds {packets} of {stream.frames} frames; copy or download it again')
  # Matroska states no frame count, but how long the longest stream lasts.
  if 'matroska' in container.format.name and container.duration:
    missing = container.duration / av.time_base - float(end)
    if missing > 0.5:
      raise errors.VideoError(f'{path}: truncated, the last {missing:.1f} s are missing; copy or download it again')
  if codec_name(stream) not in _PACKET_IS_FRAME:
    container.seek(0)
    times = [frame.pts for frame in container.decode(stream)]
  rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
  rates = [rate for rate in rates if rate] or [images.FPS]
  # AVI has no presentation times: what libav reports there is a guess that ignores reordering.
  if container.format.name == 'avi' or None in times or len(set(times)) < len(times):
    return _Timing(len(times), rates[0], True, 1 / rates[0], None, [])
  times.sort()
  keyframes.sort()
  if len(times) > 1:
    rates.append((len(times) - 1) / ((times[-1] - times[0]) * stream.time_base))
  for rate in rates:
    if _is_constant(times, stream.time_base, rate):
      return _Timing(len(times), rate, True, stream.time_base, times, keyframes)
  return _Timing(len(times), rates[-1], False, stream.time_base, times, keyframes)


def _is_constant(times: list[int], time_base: Fraction, rate: Fraction) -> bool:
  # A quarter frame admits rounding to milliseconds and camera jitter, but no lost or doubled frame.
  step = float(rate * time_base)
  return all(abs((time - times[0]) * step - k) <= 0.25 for k, time in enumerate(times))


def describe(source: VideoSource) -> str:
  """One line on size, length, rate and, for files, coding, colour and the other streams."""
  parts = [f'{source.width}x{source.height}', f'{source.num_frames} frames', f'{float(source.fps):.5g} fps']
  if isinstance(source, VideoFile):
    varying = [] if source.constant_rate else ['variable frame rate']
    parts = [source.codec, source.pixel_format, *parts, *varying, str(source.colour), *source.other_streams]
  return ', '.join(parts)


def codec_name(stream) -> str:
  """The coding format (`h264`, `mp3`), which is not always what the decoder is called."""
  return stream.codec_context.codec.canonical_name if stream.codec_context else 'unknown'


def is_known(stream) -> bool:
  """Whether libavcodec has a name for the coding of a stream, be there a decoder or not; data needs none."""
  return stream.codec_context is not None or stream.type in ('data', 'attachment') or _as_told(stream)[0] != 'none'


def _as_told(stream) -> tuple[str, str]:
  """What libavformat calls the coding of a stream, and its letters in the file; it is told in a message only."""
  level = av.logging.get_level()
  # For a moment all threads talk at this level.
  av.logging.set_level(av.logging.INFO)
  try:
    told = stream.container.dumps_format()
  finally:
    av.logging.set_level(level)
  found = re.search(rf'Stream #0:{stream.index}\b.*?: \w+: (\w+)(?:.*?\((\S+) / 0x)?', told)
  return (found[1], found[2] or '') if found else ('none', '')


def describe_stream(stream) -> str:
  """One line on an audio, subtitle or other stream: kind, codec, language."""
  if stream.type == 'video':
    return 'cover picture' if stream.disposition & Disposition.attached_pic else 'second video'
  codec = codec_name(stream)
  if codec == 'unknown':
    name, letters = _as_told(stream)
    codec = letters or (name if name != 'none' else 'of unknown coding')
  parts = [stream.type, codec]
  if stream.type == 'audio' and stream.codec_context:
    parts.append(f'{stream.codec_context.sample_rate} Hz {stream.codec_context.layout.name}')
  if (language := stream.metadata.get('language', 'und')) != 'und':
    parts.append(language)
  return ' '.join(parts)
