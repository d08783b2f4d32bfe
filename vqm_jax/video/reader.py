"""Frames of video files, image folders and zip archives as RGB, one at a time.

What cannot be read exactly is refused with the remedy: damaged files, HDR, transparency and, unless
asked for, interlacing and variable frame rate.
"""

import collections
import collections.abc
import functools
import itertools
import os
import pathlib
import re
import zipfile
from fractions import Fraction
from typing import NamedTuple

import av
import av.stream
import numpy as np
from absl import logging
from av.stream import Discard, Disposition

from vqm_jax import cli, errors, names
from vqm_jax.video import colour as colour_lib
from vqm_jax.video import decoding, images, libav, remedies, side_data, survey, timing
from vqm_jax.video.decoding import codec_name
from vqm_jax.video.deinterlace import deinterlaced
from vqm_jax.video.rotation import display_matrix_of
from vqm_jax.video.sources import Readable, VideoSource, checked_stop

# Files that are meant to be videos, whether they can be read or not. Others are told by their content.
VIDEO_SUFFIXES = (
  *('.mp4', '.m4v', '.mov', '.qt', '.3gp', '.3g2', '.mkv', '.webm', '.avi', '.divx', '.wmv', '.asf', '.flv', '.f4v'),
  *('.mpg', '.mpeg', '.m2v', '.vob', '.mts', '.m2ts', '.m2t', '.mxf', '.ogv', '.ogm', '.dv', '.y4m', '.gif'),
  *('.h264', '.264', '.avc', '.h265', '.265', '.hevc', '.mjpeg', '.mjpg', '.ivf', '.obu', '.rm', '.rmvb', '.nut'),
)
_KEEP_GOING = 'vqm_jax.enhance --keep_going'


def open_video(
  path: Readable,
  *,
  fps: Fraction | None = None,
  variable_rate: bool = False,
  deep: bool = False,
  deinterlace: bool = False,
  keep_going: bool = False,
  lossy: bool = False,
) -> VideoSource:
  """The source behind a video file, a folder or zip of images, a group of images `060_*.png`, or a single image.

  A file is told by its content, whatever it is called. `fps` is the rate of images (30 if absent); for a video file it
  replaces the file's own timing. `variable_rate` admits video files whose frames are not evenly spaced; `deep` gives
  all bits of those that have more than 8, `deinterlace` whole frames of interlaced ones, and `keep_going` conceals
  damage (see `VideoFile`); `lossy` admits images that are JPEG.
  Raises VideoError for anything that cannot be read exactly.
  """
  if isinstance(path, zipfile.Path):
    return (
      images.open_group(path, fps) if '*' in path.name and not path.exists() else images.open_images(path, fps, lossy)
    )
  path = pathlib.Path(path)
  if path.is_dir():
    return images.open_images(path, fps, lossy)
  if path.suffix.lower() == '.zip' and path.is_file():
    return images.open_images(images.zip_root(path), fps, lossy)
  if '*' in path.name and not path.exists():
    return images.open_group(path, fps)
  if not path.exists():
    raise errors.VideoError(f'{path}: no such file or folder')
  # A still image may have a smaller one behind it.
  moving = not images.has_image_name(path) and decoding.is_motion_jpeg(path)
  if not moving and (image := images.open_image(path, fps, lossy)) is not None:
    return image
  return VideoFile(
    path, fps=fps, variable_rate=variable_rate, deep=deep, deinterlace=deinterlace, keep_going=keep_going
  )


def is_video(path: pathlib.Path | zipfile.Path) -> bool:
  """Whether a file is a video by its name or its content; one with a name of a video need not be readable."""
  suffix = pathlib.PurePath(path.name).suffix.lower()
  if not path.is_file() or suffix in images.SUFFIXES:
    return False
  if suffix in VIDEO_SUFFIXES or not isinstance(path, pathlib.Path):
    return suffix in VIDEO_SUFFIXES
  return decoding.holds_video(path)


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
    elif suffix in images.SUFFIXES:
      groups[images.prefix(stem), suffix].append(entry)
    elif suffix == '.zip' or is_video(entry):
      found.append((stem, entry))
  for prefix, suffix in groups:
    if prefix is None:
      found.append((images.name_of(folder), folder))
    else:
      found.append((prefix, folder / f'{prefix}_*{suffix}'))
  counts = collections.Counter(name for name, _ in found)
  for name in counts:
    if wrong := names.problem(name):
      raise errors.VideoError(f'{folder}: {names.refusal(name, wrong)}')
  if duplicates := sorted(name for name, n in counts.items() if n > 1):
    raise errors.VideoError(f'{folder}: several files or folders stand for clip {duplicates[0]!r}; keep one of them')
  return dict(sorted(found, key=lambda item: images.natural(item[0])))


class VideoFile:
  """A video file. Opening it checks the format; counting the frames reads the packets once, or decodes all of it.

  Frames are as they are coded, not turned as `display_matrix` says. They are uint8, rounded where the file has more
  bits; with `deep` such files give uint16, where 65535 is white. Interlaced frames are refused; with `deinterlace` each
  becomes one whole frame at its time. So are damaged files; with `keep_going` each damaged frame is the last good one
  again, and counting begins with the first good one. Damage is what libav notices: coded video carries no checksum, so
  that a flipped bit that leaves it decodable gives other pixels without a word.

  Attributes: path, name, keep_going, height, width, dtype, colour and tags (of the first frame), codec, pixel_format,
  pixel_aspect, display_matrix (None or libav's 36 bytes), stereo (`side_data.stereo_of` the first frame), beside (kinds
  of data beside the frames that were seen so far), other_streams (a description of each audio, subtitle and data
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
    keep_going: bool = False,
  ):
    self.path = pathlib.Path(path)
    self.name = self.path.stem
    self._fps, self._variable_rate, self._deinterlace = fps, variable_rate, deinterlace
    self.keep_going = keep_going
    self._shown: survey.Shown | None = None
    self._clock: _Clock | None = None
    self._placed, self._places = None, ()
    self._warnings: set[str] = set()
    with decoding.opened(self.path) as (container, stream):
      # In VP8 and VP9 alpha hides beside the frames, where decoders ignore it.
      if stream.metadata.get('alpha_mode') == '1':
        raise errors.VideoError(
          f'{self.path}: transparent video is not supported; '
          f'{remedies.advice("no_alpha", self.path, pixel_format="yuv420p")}'
        )
      frame = self._first_frame(container, stream)
      try:
        self.colour = colour_lib.colour_of(frame, self.path)
      except errors.VideoError as error:
        raise errors.VideoError(f'{self.path}: {error}') from None
      self.height, self.width = frame.height, frame.width
      self.codec = codec_name(stream)
      self.stream_index = stream.index
      self.pixel_format = frame.format.name
      bits = colour_lib.bits_of(self.pixel_format)
      self.dtype = np.dtype(np.uint16 if deep and bits > 8 else np.uint8)
      if bits > (kept := colour_lib.CODED_BITS if deep else 8):
        self._warn(f'its {bits} bits are rounded to {kept} {"where video is written" if deep else "here"}')
      self.display_matrix = display_matrix_of(frame)
      self.beside, self.stereo = side_data.kinds_of(frame), side_data.stereo_of(frame)
      self.pixel_aspect = stream.sample_aspect_ratio
      self.tags = colour_lib.tags_of(frame)
      self._has_fields = bool(frame.interlaced_frame)
      if self._has_fields and not deinterlace:
        raise self._interlaced(0)
      self.other_streams = tuple(
        describe_stream(other)
        for other in container.streams
        # QuickTime keeps the titles of chapters as a track.
        if other.index != stream.index and other.discard != Discard.all
      )

  def _first_frame(self, container, stream) -> av.VideoFrame:
    """The first one that can be decoded: what fails before it may refer to pictures that were cut off."""
    failed = set()
    with libav.fenced(lambda why: libav.damaged(self.path, why)):
      for _, frame in decoding.decode(container, stream, failed=failed):
        if not frame.is_corrupt:
          return frame
    if failed:
      raise errors.VideoError(f'{self.path}: damaged, no frame can be decoded; copy or download the file again')
    raise errors.VideoError(f'{self.path}: holds no video frames')

  @property
  def num_frames(self) -> int:
    """How many frames there are, counted."""
    self._timed()  # refuses a varying rate
    return len(self._shown.order)

  @property
  def fps(self) -> Fraction:
    """Frames per second; the average where the rate varies."""
    return self._timed().fps

  @property
  def constant_rate(self) -> bool:
    """Whether frame k is shown at k/fps, within a quarter of a frame."""
    return self._timed().constant

  @property
  def time_base(self) -> Fraction:
    """Seconds per unit of `timestamps`."""
    return 1 / self._fps if self._fps else self._timed().times.time_base

  @property
  def timestamps(self) -> list[int] | None:
    """When each frame is shown, in units of `time_base`, ascending; None where nothing is known but the rate."""
    return None if self._fps else self._timed().times.stamps

  @property
  def shifts(self) -> tuple[Fraction, ...]:
    """By how much `timestamps` are ahead of the file's each time that its clock begins again, in seconds."""
    return () if self._fps else self._timed().times.shifts

  @property
  def packet_times(self) -> list[int] | None:
    """The time in the file of each frame's packet, whatever `fps` is; None where it does not tell their order."""
    packets, times = self._packets, self._timed().times
    known = (packets.pts[self._shown.order] != decoding.NO_TIME).all()
    return times.stamps if known and not packets.is_avi and not times.moved else None

  @property
  def keyframes(self) -> list[int]:
    """The frames at which decoding can begin, as far as the file tells."""
    if self.packet_times is None:
      return []
    return np.flatnonzero(self._packets.is_key[self._checked_shown().order]).tolist()

  @property
  def damaged(self) -> list[int]:
    """The frames that `keep_going` replaces by the last good one."""
    return sorted(self._checked_shown().damaged)

  @property
  def whole(self) -> bool:
    """Whether no packet fails to decode, as far as the file was looked at."""
    return not self._checked_shown().steps

  def frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[np.ndarray]:
    """Yield frames `start` to `stop` as (H, W, 3) RGB of `dtype`."""
    for job in self.jobs(start, stop):
      yield job()

  def jobs(
    self, start: int = 0, stop: int | None = None
  ) -> collections.abc.Iterator[collections.abc.Callable[[], np.ndarray]]:
    """As `frames`: what turns each into RGB once it is decoded; several threads may do so side by side."""
    to_rgb = functools.partial(colour_lib.yuv_to_rgb, colour=self.colour, deep=self.dtype == np.uint16)
    for frame in self._whole_frames(start, stop) if self._deinterlace else self.yuv_frames(start, stop):
      yield functools.partial(to_rgb, frame)

  def _whole_frames(self, start, stop):
    stop = checked_stop(self, start, stop)
    # Both neighbours of every frame, so that it looks the same wherever reading begins.
    first, last = max(start - 1, 0), min(stop + 1, self.num_frames)
    if start < stop:
      frames = self.yuv_frames(first, last)
      yield from itertools.islice(deinterlaced(frames), start - first, stop - first)

  def yuv_frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[av.VideoFrame]:
    """Yield frames `start` to `stop` as decoded, for re-encoding without a detour through RGB.

    With `keep_going` a damaged frame is the last good one again. Raises VideoError, naming the frame, for damage, a
    change of size or format, or missing frames.
    """
    stop = checked_stop(self, start, stop)
    if start >= stop:
      return
    good = start
    while good in self._checked_shown().damaged:
      good -= 1
    index, last = None, None
    for number, frame in self._decoded(good):
      place = self._place(number)
      if index is None:
        index = good if place == good else 0
      if place > index and not self._shown.decoded:
        # Stamps tell another order than the decoder, or a frame is lost.
        self._look_again(index)
        place = self._place(number)
      for k in range(index, min(place + 1, stop)):
        if k not in self._shown.damaged:
          if k < place:
            raise self._lost(k)
          self._check_kind(frame, k)
          last = frame
        if k >= start:
          yield last
      index = max(index, place + 1)
      if index >= stop:
        return

  def captions(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[bytes]:
    """Yield the closed captions of frames `start` to `stop`, as `side_data.captions_of`; decode them for it."""
    return map(side_data.captions_of, self.yuv_frames(start, stop))

  def examine(self, watch: survey.Watch | None = None) -> None:
    """Decode all of the file once, so that whatever is wrong with any frame is said now.

    `watch(frames, number)` passes on the frames as they come, to show progress. Raises VideoError as `yuv_frames`.
    """
    if self._shown is None or not self._shown.decoded:
      self._shown, self._clock = self._survey(watch), None
    shown = self._checked_shown()
    self.beside |= shown.beside
    if shown.changed:
      raise self._changed(*shown.changed)
    if shown.interlaced is not None and not self._deinterlace:
      raise self._interlaced(shown.interlaced)

  def _survey(self, watch: survey.Watch | None = None) -> survey.Shown:
    shown = survey.by_decoding(self.path, self._packets, watch)
    last = len(self._packets.pts) - 1
    if self._packets.ends_within and last in shown.order[sorted(shown.damaged)]:
      # Whoever recorded a stream stopped within a picture.
      self._packets = self._packets.without_last()
      shown = survey.by_decoding(self.path, self._packets, watch)
    return shown

  def _look_again(self, index: int) -> None:
    """Decode all of the file because frame `index` is not what packets tell. Raises VideoError if frames are lost."""
    before = len(self._shown.order)
    self.examine()
    if len(self._shown.order) != before:
      raise self._lost(index)

  def _place(self, number: int | None) -> int:
    """Which frame packet `number` is, -1 if it is none to be shown; None stands for the end."""
    if number is None:
      return len(self._shown.order)
    if len(self._places) != len(self._packets.pts) or self._placed is not self._shown:
      self._placed, self._places = self._shown, np.full(len(self._packets.pts), -1)
      self._places[self._shown.order] = np.arange(len(self._shown.order))
    return int(self._places[number])

  @functools.cached_property
  def _packets(self) -> decoding.Packets:
    return decoding.read_packets(self.path)

  def _checked_shown(self) -> survey.Shown:
    """Return which frames are shown. Raises VideoError for damage that is known of, unless it is to be concealed."""
    if self._shown is None:
      # A frame of two fields may come in two packets.
      sure = self.keep_going or self._has_fields
      shown = None if sure else survey.by_packets(self._packets)
      self._shown = shown or self._survey()
    if self.keep_going:
      self._shown = survey.without_damaged_start(self._shown)
    elif self._shown.damaged:
      first, *others = sorted(self._shown.damaged)
      nor = f', nor {survey.as_text(others)}' if others else ''
      raise errors.VideoError(
        f'{self.path}: damaged, frame {first} cannot be decoded{nor}; copy or download the file again, or have such '
        f'frames replaced by the last good one ({_KEEP_GOING})'
      )
    elif self._packets.truncated:
      raise errors.VideoError(
        f'{self.path}: truncated, {self._packets.truncated}; copy or download it again, or use what is there '
        f'({_KEEP_GOING})'
      )
    elif self._packets.reported:
      raise errors.VideoError(
        f'{self.path}: damaged, frames seem to be missing ({self._packets.reported}); copy or download it again, or '
        f'use what is there ({_KEEP_GOING})'
      )
    return self._shown

  def _timed(self) -> '_Clock':
    """When the frames are shown; raises VideoError if they should be evenly spaced and are not."""
    if self._clock is None:
      self._clock = self._read_clock(self._checked_shown())
    return self._clock

  def _read_clock(self, shown: survey.Shown) -> '_Clock':
    packets, rates = self._packets, [*self._packets.rates]
    pts, dts = packets.pts[shown.order], packets.dts[shown.order]
    if packets.is_avi or ((pts == decoding.NO_TIME).all() and (dts != decoding.NO_TIME).all()):
      pts = _paced(packets.dts, shown)
    stamps = [None if time == decoding.NO_TIME else time for time in pts.tolist()]
    times = timing.resolve(stamps, packets.time_base, packets.rate or images.FPS, packets.start)
    if times.moved:
      self._warn(
        f'{times.moved} of {len(stamps)} time stamps are missing, doubled or out of order and were put between their '
        'neighbours'
      )
    if shown.left_out:
      self._warn(f'{shown.left_out} pictures refer to others that were cut off and are left out; they do not count')
    if packets.truncated:
      self._warn(f'truncated, {packets.truncated}; what is there is used')
    elif packets.reported:
      self._warn(f'frames seem to be missing ({packets.reported})')
    if packets.cut_off:
      self._warn('the recording ends within a picture, which is left out')
    elif packets.ends_within:
      self._warn('the recording seems to end within a picture, the last one, part of which may be missing')
    if packets.uncounted:
      self._warn(f'its header counts {packets.uncounted} more frames than there are: some are missing or repeated')
    if packets.gaps:
      self._warn(f'parts of the recording seem to be missing in {packets.gaps} places, or it was joined there')
    if self._fps is not None:
      return _Clock(times, Fraction(self._fps), True)
    if times.stamps is None:
      return _Clock(times, 1 / times.time_base, True)
    if len(times.stamps) > 1:
      rates.append((len(times.stamps) - 1) / ((times.stamps[-1] - times.stamps[0]) * times.time_base))
    rates = rates or [images.FPS]
    rate = next((rate for rate in rates if timing.is_constant(times.stamps, times.time_base, rate)), None)
    if rate is None and not self._variable_rate:
      raise errors.VideoError(
        f'{self.path}: frames are missing or their rate varies (about {float(rates[-1]):.4g} per '
        f'second), expected a constant rate; {remedies.advice("constant_rate", self.path, rate=_rate_for_all(times))}'
      )
    return _Clock(times, rate or rates[-1], rate is not None)

  def _warn(self, text: str) -> None:
    if text not in self._warnings:
      self._warnings.add(text)
      logging.warning('%s: %s', self.path, text)

  def _decoded(self, start: int) -> collections.abc.Iterator[tuple[int | None, av.VideoFrame | None]]:
    """Yield (number of its packet, frame) from frame `start` on, else from the beginning; at the end (None, None)."""
    packets, shown = self._packets, self._shown
    # Damage that is known of is met as it was found: packet by packet.
    failed = set() if shown.steps else None
    threads = dict(threads=decoding.MAX_THREADS, by_frames=failed is None)
    try:
      keys = np.flatnonzero(packets.is_key[shown.order[: start + 1]])
      if len(keys) and keys[-1]:
        with decoding.opened(self.path, **threads) as (container, stream):
          frames = decoding.decode_from(container, stream, packets, int(shown.order[keys[-1]]), failed)
          frames = self._reaching(start, frames)
          first = next(frames, None)
          if first is not None:
            yield first
            yield from frames
            yield None, None
            return
      with decoding.opened(self.path, **threads) as (container, stream):
        yield from decoding.decode(container, stream, failed=failed, stop=len(packets.pts))
        yield None, None
    except libav.ERRORS as error:
      if shown.decoded:
        raise errors.VideoError(libav.damaged(self.path, libav.reason(error))) from error
      self._look_again(start)
      yield from self._decoded(start)

  def _reaching(self, start: int, frames: collections.abc.Iterator[decoding.Numbered]):
    """Those from exactly frame `start` on; nothing if seeking missed that."""
    reached = False
    try:
      for number, frame in frames:
        if not reached and self._place(number) > start:
          return
        reached = reached or self._place(number) == start
        if reached:
          yield number, frame
    except libav.ERRORS:
      # Leading pictures of an open GOP have lost their references, which says nothing of the file.
      if reached:
        raise

  def _check_kind(self, frame: av.VideoFrame, index: int) -> None:
    if (frame.height, frame.width) != (self.height, self.width) or (frame.format.name != self.pixel_format):
      raise self._changed(index, survey.describe_format(frame))
    if frame.interlaced_frame and not self._deinterlace:
      raise self._interlaced(index)
    try:
      colour_lib.check_opaque(frame, self.path)
    except errors.VideoError as error:
      raise errors.VideoError(f'{self.path}: frame {index}: {error}') from None

  def _changed(self, index: int, found: str) -> errors.VideoError:
    size = dict(width=self.width, height=self.height, pixel_format=self.pixel_format)
    return errors.VideoError(
      f'{self.path}: frame {index} is {found}, expected {self.width}x{self.height} {self.pixel_format}; '
      f'{remedies.advice("one_size", self.path, **size)}'
    )

  def _interlaced(self, index: int) -> errors.VideoError:
    return errors.VideoError(
      f'{self.path}: frame {index} is interlaced, which is not supported; {remedies.advice("deinterlace", self.path)}'
    )

  def _lost(self, index: int) -> errors.VideoError:
    return errors.VideoError(f'{self.path}: damaged, frame {index} cannot be decoded; copy or download the file again')


def _rate_for_all(times: timing.Times) -> int:
  """Frames per second at which all but a few frames of a variable rate get a place of their own."""
  return max(1, round(1 / float(np.quantile(np.diff(times.stamps), 0.1) * times.time_base)))


def _paced(dts: np.ndarray, shown: survey.Shown) -> np.ndarray:
  """The times at which frames are decoded: that is their pace, whatever their order."""
  numbers = np.sort(shown.order)
  if shown.left_out and len(numbers) > 1:
    # What would have been shown first was decoded behind the first keyframe.
    missing = numbers[1] - numbers[0] - 1
    return np.sort(dts[np.concatenate([numbers, numbers[0] + 1 + np.arange(missing)])])[missing:]
  return np.sort(dts[numbers])


class _Clock(NamedTuple):
  times: timing.Times
  fps: Fraction
  constant: bool


def examine(source: VideoSource, seconds: float | None = None) -> None:
  """Decode all of a video file once, without converting frames, and log what was found; take images as they are.

  Gives up after so many `seconds`, and says so. Raises VideoError for damage that is not to be concealed, a change of
  size or format and interlacing, so that nothing of that ends hours of work.
  """
  if not isinstance(source, VideoFile):
    return

  def watch(frames, number):
    frames = cli.progress(frames, number, 'looking for damage', 'frames')
    return frames if seconds is None else survey.for_a_while(frames, seconds)

  try:
    source.examine(watch)
  except survey.TakesTooLong as error:
    logging.warning(
      '%s: looked for damage in the first %d frames only; --dry_run looks at all of it', source.path, error.frames
    )
    return
  if text := concealed(source):
    logging.warning('%s', text)
  else:
    logging.info('%s: decoded once, %d frames, none is damaged', source.path, source.num_frames)


def concealed(source: VideoSource) -> str:
  """Which frames `keep_going` conceals, in one line; '' if there are none."""
  if not isinstance(source, VideoFile) or not source.damaged:
    return ''
  return (
    f'{source.path}: {len(source.damaged)} of {source.num_frames} frames are damaged and replaced by the last good '
    f'one: {survey.as_text(source.damaged)}'
  )


def describe(source: VideoSource) -> str:
  """One line on size, length, rate and, for files, coding, colour and the other streams."""
  parts = [f'{source.width}x{source.height}', f'{source.num_frames} frames', f'{float(source.fps):.5g} fps']
  if isinstance(source, VideoFile):
    varying = [] if source.constant_rate else ['variable frame rate']
    parts = [source.codec, source.pixel_format, *parts, *varying, str(source.colour), *source.other_streams]
  return ', '.join(parts)


def is_known(stream: av.stream.Stream) -> bool:
  """Whether libavcodec has a name for the coding of a stream, be there a decoder or not; data needs none."""
  return stream.codec_context is not None or stream.type in ('data', 'attachment') or coding_of(stream)[0] != 'none'


def coding_of(stream: av.stream.Stream) -> tuple[str, str]:
  """Return libav's name of a stream's coding ('none' where it does not know), and its letters in the file, if any."""
  level = av.logging.get_level()
  # It is told in a message only. For a moment all threads talk at this level.
  av.logging.set_level(av.logging.INFO)
  try:
    told = stream.container.dumps_format()
  finally:
    av.logging.set_level(level)
  found = re.search(rf'Stream #0:{stream.index}\b.*?: \w+: (\w+)(?:.*?\((\S+) / 0x)?', told)
  return (found[1], found[2] or '') if found else ('none', '')


def describe_stream(stream: av.stream.Stream) -> str:
  """One line on an audio, subtitle or other stream: kind, codec, language."""
  if stream.type == 'video':
    return 'cover picture' if stream.disposition & Disposition.attached_pic else 'second video'
  codec = codec_name(stream)
  if codec == 'unknown':
    name, letters = coding_of(stream)
    codec = letters or (name if name != 'none' else 'of unknown coding')
  parts = [stream.type, codec]
  if stream.type == 'audio' and stream.codec_context:
    parts.append(f'{stream.codec_context.sample_rate} Hz {stream.codec_context.layout.name}')
  if (language := stream.metadata.get('language', 'und')) != 'und':
    parts.append(language)
  return ' '.join(parts)
