"""Frames to files: encoded video, with sound and subtitles of a source if wanted, numbered PNG, or one image."""

import collections.abc
import contextlib
import io
import os
import pathlib
import shutil
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from absl import logging
from PIL import Image

from vqm_jax import errors, files
from vqm_jax.video import codec as codec_lib
from vqm_jax.video import colour as colour_lib
from vqm_jax.video import rotation, side_data, streams
from vqm_jax.video.codec import Codec, Encoder
from vqm_jax.video.colour import Colour
from vqm_jax.video.images import ImageFrames
from vqm_jax.video.reader import VideoFile
from vqm_jax.video.sources import VideoSource

# How one image is saved by the suffix of its file: without loss, but for JPEG, of which as little as it can have.
IMAGES = {
  '.png': dict(format='PNG', compress_level=3),
  '.webp': dict(format='WEBP', lossless=True),
  '.bmp': dict(format='BMP'),
  **dict.fromkeys(('.tif', '.tiff'), dict(format='TIFF', compression='tiff_adobe_deflate')),
  **dict.fromkeys(('.jpg', '.jpeg'), dict(format='JPEG', quality=97, subsampling=0)),
}


class FrameWriter(Protocol):
  """The writer of `open_writer`."""

  def write(self, rgb: np.ndarray) -> None:
    """Append a frame, (H, W, 3) RGB."""
    ...


def write_png(path: str | os.PathLike, rgb: np.ndarray) -> None:
  """Write uint8 (H, W, 3) losslessly; the file appears only when it is complete."""
  write_image(pathlib.Path(path), rgb, '.png')


def write_image(path: pathlib.Path, rgb: np.ndarray, suffix: str, beside: dict[str, Any] | None = None) -> None:
  """Write uint8 (H, W, 3) as files of `suffix` are, one of `IMAGES`; with what is `beside` it, as Pillow saves that.

  The file appears only when it is complete. Raises VideoError, DiskFullError where there is no room for it.
  """
  write_file(path, coded_image(rgb, suffix, beside))


def coded_image(rgb: np.ndarray, suffix: str, beside: dict[str, Any] | None = None) -> bytes:
  """The content of the file that `write_image` writes."""
  file = io.BytesIO()  # libtiff, which writes by itself where it can, would not say that the disk is full
  Image.fromarray(rgb).save(file, **IMAGES[suffix], **(beside or {}))
  return file.getvalue()


def write_file(path: pathlib.Path, content: bytes) -> None:
  """Write an image that is coded; the file appears only when it is complete.

  Raises VideoError if it cannot be written, DiskFullError where there is no room for it.
  """
  if not path.parent.is_dir():
    raise errors.VideoError(f'{path}: cannot be written, its folder does not exist')
  try:
    with files.replacing(path) as partial:
      partial.write_bytes(content)
  except OSError as error:
    raise errors.VideoError(f'{path}: cannot be written ({error.strerror or error})') from error


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike,
  *,
  fps: Fraction,
  height: int,
  width: int,
  colour: Colour | None = None,
  codec: Codec | None = None,
  crf: float | None = None,
  preset: str = 'medium',
  threads: int = 0,
  source: VideoSource | None = None,
) -> collections.abc.Iterator[FrameWriter]:
  """A context whose `.write(rgb)` appends (height, width, 3) frames to `path`.

  Frames are uint8; uint16, where 65535 is white, if `source` is a video file that gives such.

  A suffix .mp4, .mkv or .mov makes a video file, one of `IMAGES` the image of an only frame, no suffix a folder of
  000000.png and so on. Each
  appears under its name when the context is left without an exception, replacing what was there;
  otherwise nothing does. Colour defaults to that of `source`, else to `default_colour`; `codec` to h264, and for
  more than 8 bits to h265 unless the source is H.264; `crf` to delivery quality; 0 threads to as many as there are
  cores.

  `source` is the clip whose frames these are. From a video file, a video file takes bits and chroma, time stamps,
  colour tags, pixel aspect, display matrix, metadata, chapters and every other stream that the container can hold
  (see `streams`); the others are listed in a warning. The header is written at once, so that what does not fit shows
  before there are frames. From images, a folder takes the names; from a video file, its images are turned as they are
  to be shown, and hold 8 bits.

  Raises VideoError if the path cannot be written, if frames differ in size, if sound does not fit the
  container, or if the number of frames is not that of `source`.
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise errors.VideoError(f'{path}: the folder {path.parent} does not exist; create it first')
  if is_image_name(path):
    check_one_frame(path, source)
    convert, frames = to_image(source), []
    writer = _Writer(path, (height, width, 3), source, frames.append)
    yield writer
    writer.check_complete()
    (frame,) = frames
    write_image(path, convert(frame), path.suffix.lower(), beside(source, 0))
    return
  if not path.suffix:
    convert = to_image(source)
    if isinstance(source, VideoFile) and source.dtype != np.uint8:
      logging.warning('%s: images hold 8 bits, the others of %s are rounded off', path, source.path)
    with _Folder(path, source) as folder:
      writer = _Writer(path, (height, width, 3), source, lambda rgb: folder.write(convert(rgb)))
      yield writer
      writer.check_complete()
      folder.finish()
    return
  file = source if isinstance(source, VideoFile) else None
  plan = streams.plan(file, codec_lib.checked_suffix(path)) if file else None
  if plan and plan.left_out:
    logging.warning('%s: left out of %s: %s', file.path, path.name, '; '.join(plan.left_out))
  encoder = open_encoder(
    path,
    fps=fps,
    height=height,
    width=width,
    colour=colour,
    codec=codec,
    crf=crf,
    preset=preset,
    threads=threads,
    source=source,
    container_options=plan.container_options if plan else None,
  )
  with encoder, contextlib.ExitStack() as stack:
    if plan:
      copy = stack.enter_context(streams.StreamCopy(file, plan, encoder.container, encoder.stream))
      encoder.before_mux = copy.until
    encoder.start()

    def put(rgb):
      encoder.write(colour_lib.rgb_to_yuv(rgb, encoder.colour, encoder.pixel_format))

    writer = _Writer(path, (height, width, 3), source, put)
    yield writer
    writer.check_complete()
    encoder.finish()


def open_encoder(
  path: pathlib.Path | io.BytesIO,
  *,
  fps: Fraction,
  height: int,
  width: int,
  colour: Colour | None = None,
  codec: Codec | None = None,
  crf: float | None = None,
  preset: str = 'medium',
  threads: int = 0,
  source: VideoSource | None = None,
  start: int = 0,
  stop: int | None = None,
  container_options: dict[str, str] | None = None,
) -> Encoder:
  """The encoder of `open_writer` for the video alone.

  Of frames `start` to `stop` of `source`; where `start` is given, their times are counted from the first of them.
  """
  file = source if isinstance(source, VideoFile) else None
  options = {}
  if file:
    options = {
      'pixel_format': colour_lib.coded_format(height, width, file.pixel_format, deep=file.dtype == np.uint16),
      'display_matrix': file.display_matrix,
      'frame_packing': file.stereo[0] if file.stereo and width == file.width else None,
      'captions': file.captions(start, stop) if side_data.CAPTIONS in file.beside else None,
    }
    if times := file.timestamps:
      first = times[start] if start else 0
      options |= {'time_base': file.time_base, 'timestamps': [time - first for time in times[start:stop]]}
  encoder = Encoder(
    path,
    fps=fps,
    height=height,
    width=width,
    colour=colour or (file.colour if file else colour_lib.default_colour(height)),
    codec=codec or default_codec(source),
    crf=crf,
    preset=preset,
    threads=threads,
    container_options=container_options,
    **options,
  )
  if file:
    if file.pixel_aspect:
      encoder.stream.sample_aspect_ratio = file.pixel_aspect
    for name, value in file.tags.items():
      setattr(encoder.stream.codec_context, name, value)
  return encoder


def to_image(source: VideoSource | None) -> collections.abc.Callable[[np.ndarray], np.ndarray]:
  """Return a function that turns a frame of `source` into an image, uint8 and the right way up."""
  matrix = source.display_matrix if isinstance(source, VideoFile) else None
  return lambda rgb: np.ascontiguousarray(rotation.upright(colour_lib.to_eight_bits(rgb), matrix))


def default_codec(source: VideoSource | None) -> Codec:
  """h264, which plays everywhere; but few players take more than 8 bits of it, so that only H.264 stays H.264 then."""
  deep = isinstance(source, VideoFile) and source.dtype == np.uint16
  return 'h265' if deep and source.codec != 'h264' else 'h264'


class _Writer:
  """Checks frames and their number on the way to a file or folder."""

  def __init__(self, path: pathlib.Path, shape: tuple[int, int, int], source: VideoSource | None, put):
    self._path, self._shape, self._put = path, shape, put
    self._expected = source.num_frames if source else None
    self._dtype = source.dtype if isinstance(source, VideoFile) else np.dtype(np.uint8)
    self._count = 0

  def write(self, rgb: np.ndarray) -> None:
    if rgb.shape != self._shape or rgb.dtype != self._dtype:
      raise errors.VideoError(
        f'{self._path}: frame {self._count} is {rgb.dtype} {rgb.shape}, expected {self._dtype} {self._shape}'
      )
    self._count += 1
    if self._expected is not None and self._count > self._expected:
      self.check_complete()
    self._put(rgb)

  def check_complete(self) -> None:
    if self._expected not in (None, self._count):
      raise errors.VideoError(f'{self._path}: {self._count} frames were given, the source has {self._expected}')


def image_names(source: VideoSource | None) -> list[str] | None:
  """Return the names of images made of the frames of `source`, without a suffix; None where they are numbered."""
  return [pathlib.PurePath(file.name).stem for file in source.files] if isinstance(source, ImageFrames) else None


def is_image_name(path: pathlib.Path) -> bool:
  """Whether what is written to `path` is one image."""
  return path.suffix.lower() in IMAGES


def check_one_frame(path: pathlib.Path, source: VideoSource | None) -> None:
  """Raises VideoError if `path` is one image and `source`, if there is one, is not."""
  if is_image_name(path) and source and source.num_frames != 1:
    raise errors.VideoError(
      f'{path}: is the name of one image, the input has {source.num_frames} frames; give a name ending in .mp4, or one '
      'without a suffix, for a folder of images'
    )


def beside(source: VideoSource | None, index: int) -> dict[str, Any]:
  """Return the data beside the pixels of image `index` of the source, which its restored image keeps."""
  return source.beside(index) if isinstance(source, ImageFrames) else {}


def check_folder(path: pathlib.Path, names: list[str] | None) -> None:
  """Raises VideoError if PNG images of these names cannot become the folder `path`."""
  if path.exists() and not path.is_dir():
    raise errors.VideoError(f'{path}: is a file, expected a folder or a name ending in .mp4')
  if path.is_dir() and any(entry.suffix.lower() != '.png' for entry in path.iterdir()):
    raise errors.VideoError(f'{path}: holds more than PNG images; choose an empty or new folder')
  if names and len(set(names)) < len(names):
    raise errors.VideoError(f'{path}: images of the source differ in nothing but the suffix; rename them')


class _Folder:
  """Collects PNG files in a hidden folder beside the final one."""

  def __init__(self, path: pathlib.Path, source: VideoSource | None):
    self._path, self._source, self._names = path, source, image_names(source)
    check_folder(path, self._names)
    self._partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    self._count = 0

  def write(self, rgb: np.ndarray) -> None:
    name = self._names[self._count] if self._names else f'{self._count:06d}'
    write_image(self._partial / f'{name}.png', rgb, '.png', beside(self._source, self._count))
    self._count += 1

  def finish(self) -> None:
    replaced = self._partial.with_suffix('.old')
    if self._path.exists():
      os.replace(self._path, replaced)
    os.replace(self._partial, self._path)
    shutil.rmtree(replaced, ignore_errors=True)

  def __enter__(self):
    self._partial.mkdir()
    return self

  def __exit__(self, kind, value, trace) -> None:
    shutil.rmtree(self._partial, ignore_errors=True)
