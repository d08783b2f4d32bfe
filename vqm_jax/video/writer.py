"""Frames to files: encoded video, with sound and subtitles of a source if wanted, or numbered PNG."""

import collections.abc
import contextlib
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
from vqm_jax.video.reader import VideoFile, describe_stream

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
  source: VideoFile | None = None,
  names: collections.abc.Sequence[str] | None = None,
) -> collections.abc.Iterator[FrameWriter]:
  """A context whose `.write(rgb)` appends uint8 (height, width, 3) frames to `path`.

  A suffix .mp4, .mkv or .mov makes a video file, no suffix a folder of PNG files called `names`, else
  000000.png and so on. Either appears under its name when the context is left without an exception,
  replacing what was there; otherwise nothing does. Colour defaults to that of `source`, else to
  `default_colour`; `crf` to delivery quality; 0 threads to as many as there are cores.

  From `source` a video file also takes time stamps, colour tags, pixel aspect, metadata, chapters and
  all sound and subtitle streams, packet by packet. Subtitles that the container cannot hold are left
  out with a warning.

  Raises VideoError if the path cannot be written, if frames differ in size, if sound does not fit the
  container, or if the number of frames is not that of `source`.
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise errors.VideoError(f'{path}: the folder {path.parent} does not exist; create it first')
  if not path.suffix:
    with _FolderWriter(path, height, width, names) as folder:
      yield folder
      folder.finish()
    return
  colour = colour or (source.colour if source else colour_lib.default_colour(height))
  timing = {}
  if source and source.timestamps:
    timing = {'time_base': source.time_base, 'timestamps': source.timestamps}
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
    if source:
      stack.enter_context(_copy_streams(source, encoder, path))
    writer = _FileWriter(encoder, colour)
    yield writer
    if source and writer.count != source.num_frames:
      raise errors.VideoError(f'{path}: {writer.count} frames were written, the source has {source.num_frames}')
    encoder.finish()


class _FileWriter:
  def __init__(self, encoder: Encoder, colour: Colour):
    self._encoder, self._colour = encoder, colour
    self.count = 0

  def write(self, rgb: np.ndarray) -> None:
    self._encoder.write(colour_lib.rgb_to_yuv(rgb, self._colour))
    self.count += 1


class _FolderWriter:
  """Collects PNG files in a hidden folder beside the final one."""

  def __init__(self, path: pathlib.Path, height: int, width: int, names):
    if path.exists() and not path.is_dir():
      raise errors.VideoError(f'{path}: is a file, expected a folder or a name ending in .mp4')
    if path.is_dir() and any(entry.suffix.lower() != '.png' for entry in path.iterdir()):
      raise errors.VideoError(f'{path}: holds more than PNG images; choose an empty or new folder')
    self._path, self._shape, self._names = path, (height, width, 3), names
    self._partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    self._count = 0

  def write(self, rgb: np.ndarray) -> None:
    if rgb.shape != self._shape:
      raise errors.VideoError(f'{self._path}: frame {self._count} has shape {rgb.shape}, expected {self._shape}')
    name = self._names[self._count] if self._names else f'{self._count:06d}'
    write_png(self._partial / f'{name}.png', rgb)
    self._count += 1

  def finish(self) -> None:
    if self._path.exists():
      shutil.rmtree(self._path)
    os.replace(self._partial, self._path)

  def __enter__(self):
    self._partial.mkdir()
    return self

  def __exit__(self, kind, value, trace) -> None:
    shutil.rmtree(self._partial, ignore_errors=True)


@contextlib.contextmanager
def _copy_streams(source: VideoFile, encoder: Encoder, path: pathlib.Path):
  """Adds the other streams of `source` to the encoder's container and keeps them in step with it."""
  output = encoder.container
  with av.open(str(source.path)) as container:
    copies = {}
    for stream in container.streams:
      if stream.type not in ('audio', 'subtitle'):
        continue
      if stream.codec_context.name not in output.supported_codecs:
        what = f'{source.path}: {describe_stream(stream)} does not fit into {path.suffix}'
        if stream.type == 'audio':
          raise errors.VideoError(f'{what}; write to .mkv instead')
        keeping = source.path.suffix if source.path.suffix in SUFFIXES else '.mkv'
        logging.warning('%s and is left out; write to %s to keep it', what, keeping)
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
