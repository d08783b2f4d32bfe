"""Frames to files: encoded video, with sound and subtitles of a source if wanted, or numbered PNG."""

import collections.abc
import contextlib
import io
import os
import pathlib
import shutil
from fractions import Fraction
from typing import Protocol

import av
import numpy as np
from absl import logging
from PIL import Image

from vqm_jax import errors
from vqm_jax.video import colour as colour_lib
from vqm_jax.video.codec import SUFFIXES, Codec, Encoder
from vqm_jax.video.colour import Colour
from vqm_jax.video.images import ImageFrames
from vqm_jax.video.reader import VideoFile, codec_name, describe_stream
from vqm_jax.video.sources import VideoSource

# Metadata that describes the file they were read from.
_OF_THE_CONTAINER = ('major_brand', 'minor_version', 'compatible_brands', 'encoder')


class FrameWriter(Protocol):
  """What `open_writer` gives."""

  def write(self, rgb: np.ndarray) -> None:
    """Appends a frame, uint8 (H, W, 3) RGB."""
    ...


def write_png(path: str | os.PathLike, rgb: np.ndarray) -> None:
  """Writes uint8 (H, W, 3) losslessly; the file appears only when it is complete."""
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    Image.fromarray(rgb).save(partial, format='PNG', compress_level=3)
    os.replace(partial, path)
  except OSError as error:
    raise errors.VideoError(f'{path}: cannot be written ({error.strerror or error})') from error
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike,
  *,
  fps: Fraction,
  height: int,
  width: int,
  colour: Colour | None = None,
  codec: Codec = 'h264',
  crf: float | None = None,
  preset: str = 'medium',
  threads: int = 0,
  source: VideoSource | None = None,
) -> collections.abc.Iterator[FrameWriter]:
  """A context whose `.write(rgb)` appends uint8 (height, width, 3) frames to `path`.

  A suffix .mp4, .mkv or .mov makes a video file, no suffix a folder of 000000.png and so on. Either
  appears under its name when the context is left without an exception, replacing what was there;
  otherwise nothing does. Colour defaults to that of `source`, else to `default_colour`; `crf` to
  delivery quality; 0 threads to as many as there are cores.

  `source` is the clip whose frames these are. From a video file, a video file takes time stamps,
  colour tags, pixel aspect, metadata, chapters and all sound and subtitle streams, packet by packet;
  streams other than sound that the container cannot hold are left out with a warning. From images, a
  folder takes the names.

  Raises VideoError if the path cannot be written, if frames differ in size, if sound does not fit the
  container, or if the number of frames is not that of `source`.
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise errors.VideoError(f'{path}: the folder {path.parent} does not exist; create it first')
  if not path.suffix:
    names = [pathlib.PurePath(file.name).stem for file in source.files] if isinstance(source, ImageFrames) else None
    with _Folder(path, names) as folder:
      writer = _Writer(path, (height, width, 3), source, folder.write)
      yield writer
      writer.check_complete()
      folder.finish()
    return
  file = source if isinstance(source, VideoFile) else None
  colour = colour or (file.colour if file else colour_lib.default_colour(height))
  timing = {}
  if file and file.timestamps:
    timing = {'time_base': file.time_base, 'timestamps': file.timestamps}
  with contextlib.ExitStack() as stack:
    encoder = stack.enter_context(
      Encoder(
        path,
        fps=fps,
        height=height,
        width=width,
        colour=colour,
        codec=codec,
        crf=crf,
        preset=preset,
        threads=threads,
        **timing,
      )
    )
    if file:
      stack.enter_context(_copy_streams(file, encoder, path))
    writer = _Writer(path, (height, width, 3), source, lambda rgb: encoder.write(colour_lib.rgb_to_yuv(rgb, colour)))
    yield writer
    writer.check_complete()
    encoder.finish()


class _Writer:
  """Checks frames and their number on the way to a file or folder."""

  def __init__(self, path: pathlib.Path, shape: tuple[int, int, int], source: VideoSource | None, put):
    self._path, self._shape, self._put = path, shape, put
    self._expected = source.num_frames if source else None
    self._count = 0

  def write(self, rgb: np.ndarray) -> None:
    if rgb.shape != self._shape or rgb.dtype != np.uint8:
      raise errors.VideoError(
        f'{self._path}: frame {self._count} is {rgb.dtype} {rgb.shape}, expected uint8 {self._shape}'
      )
    self._count += 1
    if self._expected is not None and self._count > self._expected:
      self.check_complete()
    self._put(rgb)

  def check_complete(self) -> None:
    if self._expected not in (None, self._count):
      raise errors.VideoError(f'{self._path}: {self._count} frames were given, the source has {self._expected}')


class _Folder:
  """Collects PNG files in a hidden folder beside the final one."""

  def __init__(self, path: pathlib.Path, names: list[str] | None):
    if path.exists() and not path.is_dir():
      raise errors.VideoError(f'{path}: is a file, expected a folder or a name ending in .mp4')
    if path.is_dir() and any(entry.suffix.lower() != '.png' for entry in path.iterdir()):
      raise errors.VideoError(f'{path}: holds more than PNG images; choose an empty or new folder')
    if names and len(set(names)) < len(names):
      raise errors.VideoError(f'{path}: images of the source differ in nothing but the suffix; rename them')
    self._path, self._names = path, names
    self._partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    self._count = 0

  def write(self, rgb: np.ndarray) -> None:
    name = self._names[self._count] if self._names else f'{self._count:06d}'
    write_png(self._partial / f'{name}.png', rgb)
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


def _remedy(codec: str) -> str:
  fitting = [
    suffix
    for suffix, name in zip(SUFFIXES, ('mp4', 'matroska', 'mov'), strict=True)
    if codec in av.open(io.BytesIO(), 'w', format=name).supported_codecs
  ]
  return f'write to {" or ".join(fitting)} instead' if fitting else 'convert it in the input first'


@contextlib.contextmanager
def _copy_streams(source: VideoFile, encoder: Encoder, path: pathlib.Path):
  """Adds the other streams of `source` to the encoder's container and keeps them in step with it."""
  output = encoder.container
  with av.open(str(source.path)) as container:
    copies = {}
    for stream in container.streams:
      if stream.index == source.stream_index:
        continue
      what = f'{source.path}: {describe_stream(stream)}'
      if stream.type not in ('audio', 'subtitle'):
        logging.warning('%s is left out', what)
        continue
      if codec_name(stream) not in output.supported_codecs:
        remedy = _remedy(codec_name(stream))
        if stream.type == 'audio':
          raise errors.VideoError(f'{what} does not fit into {path.suffix}; {remedy}')
        logging.warning('%s does not fit into %s and is left out; to keep it, %s', what, path.suffix, remedy)
        continue
      copy = output.add_stream_from_template(stream)
      copy.metadata.update(stream.metadata)
      copy.disposition = stream.disposition
      copies[stream.index] = copy
    if source.pixel_aspect:
      encoder.stream.sample_aspect_ratio = source.pixel_aspect
    for name, value in source.tags.items():
      setattr(encoder.stream.codec_context, name, value)
    for name, value in container.metadata.items():
      if name not in _OF_THE_CONTAINER:
        output.metadata[name] = value
    output.set_chapters(container.chapters())
    packets = container.demux([container.streams[index] for index in copies]) if copies else iter(())
    waiting = next(packets, None)

    def copy_until(seconds: float) -> None:
      nonlocal waiting
      while waiting is not None:
        # The empty packet at the end of each stream has no time.
        if waiting.size:
          time = waiting.dts if waiting.dts is not None else waiting.pts
          if time is not None and float(time * waiting.time_base) > seconds:
            return
          waiting.stream = copies[waiting.stream_index]
          output.mux_one(waiting)
        waiting = next(packets, None)

    encoder.before_mux = copy_until
    yield
