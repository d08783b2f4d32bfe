"""Long outputs in segments, so that a run that was killed goes on where it was.

Beside `out.mp4` there is a hidden folder while it is made:

    .out.mp4.parts/
      lock           who is at work
      job.json       what for: another job's segments are of no use
      000000.nut     frames 0 to 249, coded by themselves, from a keyframe on
      000000.json    says that these are complete: frames, size and digest of each file, notes
      000001.nut ...
      joined.mp4     at the end: the packets of all segments, one after the other, and the other streams
      complete       from then on, what is left is moving it to its place

A folder of images is made in the same way, a few images a segment, a single one as well. What a power cut, a full disk
or a kill leaves unfinished has no .json beside it that fits, and is removed.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, Self

import av
import numpy as np
from absl import logging

from vqm_jax import errors, files, locks, schemas
from vqm_jax.video import colour as colour_lib
from vqm_jax.video import libav, streams
from vqm_jax.video.codec import RAW_SUFFIX, Codec, Encoder, checked_suffix, container_options_of
from vqm_jax.video.reader import VideoFile
from vqm_jax.video.sources import VideoSource
from vqm_jax.video.writer import (
  beside,
  check_folder,
  check_one_frame,
  coded_image,
  default_codec,
  image_names,
  is_image_name,
  open_encoder,
  to_image,
  write_file,
)

# Frames of a segment. x264 and x265 set a keyframe after 250 at the latest anyway; an image stands by itself.
VIDEO_FRAMES = 250
FOLDER_FRAMES = 10

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# (start, stop) -> what to remember of these frames, for JSON.
Notes = Callable[[int, int], dict[str, Any]]


class Segment(NamedTuple):
  """Frames start <= t < stop; `files` are name -> (bytes, SHA-256), `notes` what the caller wants to remember."""

  start: int
  stop: int
  files: dict[str, tuple[int, str]]
  notes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Written:
  """A `Segment` as JSON."""

  start: schemas.Count
  stop: schemas.Count
  files: dict[str, tuple[schemas.Count, str]]
  notes: dict[str, Any]


class SegmentedOutput:
  """A video file, image or folder of PNG in the making: a context whose `.write(rgb)` appends frames, (H, W, 3) of
  `dtype`.

  `publish` moves finished outputs to their places. Left in any other way, the context keeps the finished segments, from
  which the same job goes on; without a `job` it leaves nothing. Raises BusyError if another process is at work on it.
  """

  def __init__(
    self,
    output: pathlib.Path,
    source: VideoSource,
    *,
    height: int,
    width: int,
    codec: Codec = 'h264',
    crf: float | None = None,
    job: Mapping[str, Any] | None = None,
    notes: Notes | None = None,
  ):
    """Take the number of frames, their times, names and colour, and other streams from `source`.

    Args:
      output: .mp4, .mkv or .mov, an image, or a folder without a suffix; replaced at the end if it is there.
      source: the clip whose frames these are.
      height: of the frames.
      width: of the frames.
      codec: of video.
      crf: of video; default: delivery quality.
      job: what the frames depend on, JSON; finished segments of an equal job are used, those of another removed.
      notes: what to remember of the frames of a segment; they come back in `notes`.
    """
    self.output, self.folder = output, _folder_of(output)
    self.dtype = source.dtype if isinstance(source, VideoFile) else np.dtype(np.uint8)
    self._shape, self._total = (height, width, 3), source.num_frames
    if is_image_name(output):
      self._coding = _Image(output, source)
    else:
      self._coding = _Coded(output, source, height, width, codec, crf) if output.suffix else _Images(output, source)
    self._job = job and {**job, **self._coding.identity}
    self._take_notes = notes or (lambda start, stop: {})
    self._segments: list[Segment] = []
    self._position, self._writing, self._put = 0, None, None
    self._seen = 0  # bytes in the folder before the last segment was closed, which may remove it
    self._joined = False  # so that nothing may be removed any more

  @property
  def done(self) -> int:
    """Frames that are in finished segments."""
    return self._segments[-1].stop if self._segments else 0

  @property
  def notes(self) -> list[dict[str, Any]]:
    """Those of each finished segment, in order."""
    return [segment.notes for segment in self._segments]

  def rewind(self, frame: int) -> int:
    """Give up segments that go beyond `frame`; return where the next frame goes."""
    while self.done > frame:
      self._remove(self._segments.pop(), len(self._segments))
    self._position = self.done
    return self.done

  def write(self, rgb: np.ndarray) -> None:
    """Append a frame. Raises VideoError for one of another size, one too many, or a full disk."""
    self.append(self.prepare(self._position, rgb))

  def prepare(self, index: int, rgb: np.ndarray) -> Any:
    """Return frame `index` converted, or coded as an image, for `append`. Several threads may prepare frames.

    Raises VideoError for one of another size.
    """
    if rgb.shape != self._shape or rgb.dtype != self.dtype:
      found, wanted = f'{rgb.dtype} {rgb.shape}', f'{self.dtype} {self._shape}'
      raise errors.VideoError(f'{self.output}: frame {index} is {found}, expected {wanted}')
    return self._coding.prepare(index, rgb) if index < self._total else None

  def append(self, prepared: Any) -> None:
    """Append a frame that is prepared. Raises VideoError for one too many, or a full disk."""
    if self._position == self._total:
      raise errors.VideoError(f'{self.output}: more frames were given than the source has, {self._total}')
    with self._watching_the_disk():
      if self._writing is None:
        self._writing = contextlib.ExitStack()
        self._put = self._writing.enter_context(self._coding.open(self.folder, len(self._segments), *self._next()))
      self._put(prepared)
      self._position += 1
      if self._position == self._next()[1]:
        self._finish_segment()

  def join(self) -> None:
    """Make the whole of the segments. Raises VideoError if frames are missing, or for a full disk."""
    if self.done < self._total:
      raise errors.VideoError(f'{self.output}: {self._position} frames were given, the source has {self._total}')
    with self._watching_the_disk():
      self._coding.join(self.folder, self._segments)

  def __enter__(self) -> Self:
    with contextlib.ExitStack() as stack, self._watching_the_disk():
      stack.enter_context(locks.lock(self.folder / 'lock', str(self.output)))
      stack.callback(self._leave)
      self._recover()
      self._coding.check(self.folder)
      self._stack = stack.pop_all()
    self._position = self.done
    return self

  def __exit__(self, kind, value, trace) -> None:
    with self._stack:
      if self._writing:
        # What it is about is on its way already.
        with contextlib.suppress(Exception), self._writing:
          raise errors.VideoError('given up')

  def _leave(self) -> None:
    if self._joined:
      return
    if self._job and self._segments:
      self._tidy()
      where = self.output, self.done, self._total, self.folder
      logging.info('%s: %d of %d frames are finished and kept in %s', *where)
    else:
      _remove_folder(self.folder)

  def _next(self) -> tuple[int, int]:
    return self.done, min(self.done + self._coding.length, self._total)

  def _size(self) -> int:
    return sum(path.stat().st_size for path in self.folder.rglob('*') if path.is_file())

  def _finish_segment(self) -> None:
    self._seen = self._size()
    number, (start, stop) = len(self._segments), self._next()
    writing, self._writing = self._writing, None
    writing.close()
    paths = self._coding.paths(self.folder, number, start, stop)
    found = {}
    for path in paths:
      _to_disk(path)
      found[path.relative_to(self.folder).as_posix()] = (path.stat().st_size, _digest(path))
    segment = Segment(start, stop, found, self._take_notes(start, stop))
    record = self.folder / f'{number:06d}.json'
    files.write_json(record, segment._asdict())
    _to_disk(record)
    _to_disk(self.folder)
    self._segments.append(segment)

  def _recover(self) -> None:
    """Take over what an earlier run of the same job has finished, and remove everything else."""
    job_file = self.folder / 'job.json'
    job = json.loads(json.dumps(self._job))
    if job_file.exists() and job and _read_json(job_file) == job:
      for number in range(self._total):
        segment = self._read_segment(number)
        if segment is None:
          break
        self._segments.append(segment)
      if self._segments:
        logging.info('%s: going on behind frame %d of %d, which an earlier run has finished', self.output, self.done,
                     self._total)  # fmt: skip
    elif any(self.folder.glob('*.json')):
      logging.warning('%s: what another job, or another version, has left there is removed', self.folder)
    self._tidy()
    if job:
      files.write_json(job_file, job)

  def _read_segment(self, number) -> Segment | None:
    record = self.folder / f'{number:06d}.json'
    if not record.exists():
      return None
    try:
      segment = Segment(**vars(schemas.load(record, _Written, paths=True)))
      paths = self._coding.paths(self.folder, number, segment.start, segment.stop)
      expected = {path.relative_to(self.folder).as_posix() for path in paths}
      fits = segment.start == self.done < segment.stop <= self._total and segment.files.keys() == expected
      intact = fits and all(
        (path := self.folder / name).stat().st_size == size and _digest(path) == digest
        for name, (size, digest) in segment.files.items()
      )
    except (OSError, TypeError, ValueError):
      intact = False
    if not intact:
      logging.warning('%s: damaged; frames from %d on are made anew', record.with_suffix(''), self.done)
      return None
    return segment

  def _tidy(self) -> None:
    """Remove what belongs to no finished segment."""
    kept = {'lock', 'job.json'} if self._segments else {'lock'}
    kept |= {f'{number:06d}.json' for number in range(len(self._segments))}
    kept |= {name for segment in self._segments for name in segment.files}
    for path in sorted(self.folder.rglob('*'), reverse=True):
      name = path.relative_to(self.folder).as_posix()
      if name not in kept and not (path.is_dir() and any(other.startswith(f'{name}/') for other in kept)):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

  def _remove(self, segment, number) -> None:
    (self.folder / f'{number:06d}.json').unlink()
    for name in segment.files:
      (self.folder / name).unlink()

  @contextlib.contextmanager
  def _watching_the_disk(self):
    try:
      yield
    except (errors.VideoError, OSError) as error:
      causes = [each for each in (error, error.__cause__) if isinstance(each, OSError) and each.errno in _FULL]
      if not causes:
        raise
      size = self._size()
      finished = sum(size for segment in self._segments for size, _ in segment.files.values())
      whole = finished / self.done if self.done else max(size, self._seen) / max(1, self._position)
      whole *= self._total
      needed = whole - finished + (whole if self._coding.copies else 0)
      place = self.output.absolute().parent
      # What is not finished will be removed.
      needed, free = map(files.size_text, (needed, shutil.disk_usage(place).free + size - finished))
      raise errors.DiskFullError(
        f'{self.output}: {os.strerror(causes[0].errno)}: about {needed} more are needed, {free} are free in {place}; '
        f'make room there, then the same command goes on behind frame {self.done} of {self._total}'
      ) from error


def publish(outputs: list[SegmentedOutput]) -> None:
  """Join outputs, all of one folder, and move them to their places; a kill in between is made up for by `settle`."""
  for output in outputs:
    output.join()
  first = outputs[0]
  moves = [[output.folder.name, output._coding.product, output.output.name] for output in outputs]
  for output in outputs:
    output._joined = True
  with first._watching_the_disk():
    files.write_json(first.folder / 'complete', moves)
    _to_disk(first.folder / 'complete')
    _to_disk(first.folder)
  _move(first.folder)


def settle(output: pathlib.Path) -> bool:
  """Move to its place what a run has finished that was killed in its last moment; return whether there was anything.

  Raises BusyError if another process is at work on it.
  """
  folder = _folder_of(output)

  def left() -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

  if 'complete' not in left() and left() != {'lock'}:
    return False
  with locks.lock(folder / 'lock', str(output)):
    complete = 'complete' in left()
    if complete:
      _move(folder)
    elif left() == {'lock'}:
      _remove_folder(folder)
  return complete


def _folder_of(output: pathlib.Path) -> pathlib.Path:
  return output.with_name(f'.{output.name}.parts')


def _is_name(text: str) -> bool:
  return text not in ('', '.', '..') and '\0' not in text and pathlib.PurePath(text).name == text


def _move(folder: pathlib.Path) -> None:
  try:
    moves = schemas.load(folder / 'complete', list[tuple[str, str, str]], paths=True)
    if wrong := [name for move in moves for name in move if not _is_name(name)]:
      raise schemas.Misfit(f'expected names of files, found {wrong[0]!r:.60}')
  except (FileNotFoundError, schemas.Misfit) as error:
    raise errors.VideoError(
      f'{folder / "complete"} is damaged ({errors.reason(error)}); remove {folder}, then start the same command again.'
    ) from error
  for parts, product, name in moves:
    made, place = folder.parent / parts / product, folder.parent / name
    if made.is_dir() and place.is_dir():
      os.replace(place, made.with_name('replaced'))
    if made.exists():
      os.replace(made, place)
  _to_disk(folder.parent)
  for parts, _, _ in reversed(moves):
    _remove_folder(folder.parent / parts)


def _remove_folder(folder: pathlib.Path) -> None:
  """The marker goes last, so that who finds it finds all that it speaks of; then the lock."""
  if not folder.is_dir():
    return
  for path in folder.iterdir():
    if path.name not in ('complete', 'lock'):
      shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
  for name in ('complete', 'lock'):
    (folder / name).unlink(missing_ok=True)
  folder.rmdir()


class _Images:
  """Frames as PNG, under the names of those that they were made from."""

  length, copies, product = FOLDER_FRAMES, False, 'images'

  def __init__(self, output, source):
    self._source, self._names, self._convert = source, image_names(source), to_image(source)
    check_folder(output, self._names)
    self.identity = {'kind': 'png', 'length': self.length}

  def paths(self, folder, number, start, stop) -> list[pathlib.Path]:
    del number
    return [folder / self.product / f'{self._name(index)}.png' for index in range(start, stop)]

  def prepare(self, index, rgb) -> bytes:
    return coded_image(self._convert(rgb), '.png', beside(self._source, index))

  @contextlib.contextmanager
  def open(self, folder, number, start, stop) -> Iterator[Callable[[bytes], None]]:
    (folder / self.product).mkdir(exist_ok=True)
    coming = iter(self.paths(folder, number, start, stop))
    yield lambda content: write_file(next(coming), content)

  def check(self, folder) -> None:
    """Nothing can be wrong."""

  def join(self, folder, segments) -> None:
    """Nothing is left to do."""

  def _name(self, index):
    return self._names[index] if self._names else f'{index:06d}'


class _Image:
  """An only frame as an image."""

  length, copies = 1, False

  def __init__(self, output, source):
    check_one_frame(output, source)
    self._source, self._suffix, self._convert = source, output.suffix.lower(), to_image(source)
    self.product = f'image{self._suffix}'
    self.identity = {'kind': self._suffix}

  def paths(self, folder, number, start, stop) -> list[pathlib.Path]:
    del number, start, stop
    return [folder / self.product]

  def prepare(self, index, rgb) -> bytes:
    return coded_image(self._convert(rgb), self._suffix, beside(self._source, index))

  @contextlib.contextmanager
  def open(self, folder, number, start, stop) -> Iterator[Callable[[bytes], None]]:
    del number, start, stop
    yield functools.partial(write_file, folder / self.product)

  def check(self, folder) -> None:
    """Nothing can be wrong."""

  def join(self, folder, segments) -> None:
    """Nothing is left to do."""


class _Coded:
  """Frames as video."""

  length, copies = VIDEO_FRAMES, True

  def __init__(self, output, source, height, width, codec, crf):
    file = source if isinstance(source, VideoFile) else None
    self._suffix = suffix = checked_suffix(output)
    self._source, self._options = (
      source,
      dict(height=height, width=width, codec=codec or default_codec(source), crf=crf),
    )
    self._times, self._time_base = range(source.num_frames), 1 / Fraction(source.fps)
    if file and file.timestamps:
      self._times, self._time_base = file.timestamps, file.time_base
    self._target = None  # of the conversion from RGB, as soon as `check` knows
    self.product = f'joined{suffix}'
    self._plan = streams.plan(file, suffix) if file else None
    self._container_options = self._plan.container_options if file else container_options_of(suffix)
    self.identity = {
      'kind': 'video', 'length': self.length, 'libraries': {name: list(v) for name, v in av.library_versions.items()},
      **self._options,
    }  # fmt: skip

  def paths(self, folder, number, start, stop) -> list[pathlib.Path]:
    del start, stop
    return [folder / f'{number:06d}{RAW_SUFFIX}']

  def prepare(self, index, rgb) -> av.VideoFrame:
    del index
    return colour_lib.rgb_to_yuv(rgb, *self._target)

  @contextlib.contextmanager
  def open(self, folder, number, start, stop) -> Iterator[Callable[[av.VideoFrame], None]]:
    (path,) = self.paths(folder, number, start, stop)
    with self._encoder(path, start, stop) as encoder:
      yield encoder.write
      encoder.finish()

  def check(self, folder) -> None:
    """Write the header of the output and drop it. Raises VideoError where the container does not take it."""
    with self._whole(folder / f'header{self._suffix}') as encoder:
      self._target = encoder.colour, encoder.pixel_format

  def join(self, folder, segments) -> None:
    """One file of the packets of all segments, at the times of the source, and the other streams."""
    paths = [folder / f'{number:06d}{RAW_SUFFIX}' for number in range(len(segments))]
    delay = max(_delay(path) for path in paths)
    with self._whole(folder / self.product) as encoder:
      headers, count = encoder.stream.codec_context.extradata, 0
      for path, segment in zip(paths, segments, strict=True):
        packets, found = _packets(path)
        if len(packets) != segment.stop - segment.start or found != headers:
          raise errors.VideoError(f'{path}: does not fit what is to be written; remove {folder} and start again')
        ranks = {pts: rank for rank, pts in enumerate(sorted(packet.pts for packet in packets))}
        for packet in packets:
          shown = segment.start + ranks[packet.pts]
          packet.stream, packet.time_base = encoder.stream, self._time_base
          packet.pts, packet.dts = self._times[shown], self._decoding_time(count - delay)
          packet.duration = self._duration(shown)
          encoder.mux([packet])
          count += 1
      encoder.finish()
    _to_disk(folder / self.product)

  def _encoder(self, path, start=0, stop=None):
    source = self._source
    options = {} if path.suffix == RAW_SUFFIX else self._container_options
    return open_encoder(
      path, fps=source.fps, source=source, start=start, stop=stop, container_options=options, **self._options
    )

  @contextlib.contextmanager
  def _whole(self, path) -> Iterator[Encoder]:
    """An encoder of the whole output with its header written."""
    with self._encoder(path) as encoder, contextlib.ExitStack() as stack:
      if self._plan:
        copy = stack.enter_context(streams.StreamCopy(self._source, self._plan, encoder.container, encoder.stream))
        encoder.before_mux = copy.until
      encoder.start()
      yield encoder

  def _decoding_time(self, place):
    """The time of this frame; before the first they go on in steps as if there were more."""
    if place >= 0:
      return self._times[place]
    times = self._times[:8]
    return times[0] + place * min((after - before for before, after in itertools.pairwise(times)), default=1)

  def _duration(self, index):
    times, last = self._times, len(self._times) - 1
    if index < last:
      return times[index + 1] - times[index]
    return times[index] - times[index - 1] if index else 0


def _packets(path: pathlib.Path) -> tuple[list[av.Packet], bytes]:
  """The packets of a segment in the order of decoding, and the headers of its stream."""
  with libav.fenced(lambda why: f'{path}: cannot be read ({why}); start again'):
    with av.open(os.path.abspath(path)) as container:
      stream = container.streams.video[0]
      return [packet for packet in container.demux(stream) if packet.size], stream.codec_context.extradata


def _delay(path: pathlib.Path) -> int:
  """By how many frames decoding has to be ahead of showing."""
  times = [packet.pts for packet in _packets(path)[0]]
  ranks = {pts: rank for rank, pts in enumerate(sorted(times))}
  return max((place - ranks[pts] for place, pts in enumerate(times)), default=0)


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _read_json(path: pathlib.Path) -> Any:
  try:
    return schemas.load(path, dict[str, Any], paths=True)
  except schemas.Misfit:  # what a power cut leaves
    return None


def _to_disk(path: pathlib.Path) -> None:
  """Wait until a file, or what a folder lists, is safe from a power cut."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError as error:
    if error.errno != errno.EINVAL:  # not every file system does it for folders
      raise
  finally:
    os.close(handle)
