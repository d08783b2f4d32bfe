"""How many bytes frames and streams take in a file."""

import io

import av
import numpy as np
from PIL import Image

from vqm_jax.video import decoding, streams
from vqm_jax.video.codec import Codec
from vqm_jax.video.colour import rgb_to_yuv
from vqm_jax.video.reader import VideoFile
from vqm_jax.video.sources import VideoSource
from vqm_jax.video.writer import IMAGES, open_encoder


def of_coded(
  source: VideoSource, start: int, stop: int, codec: Codec | None = None, crf: float | None = None
) -> list[int]:
  """Bytes of each packet when frames `start` to `stop` of a clip are coded as `open_writer` would; the first is a key.

  In the order of coding.
  """
  file = io.BytesIO()
  with open_encoder(
    file,
    fps=source.fps,
    height=source.height,
    width=source.width,
    codec=codec,
    crf=crf,
    source=source,
    start=start,
    stop=stop,
  ) as encoder:
    for frame in source.frames(start, stop):
      encoder.write(rgb_to_yuv(frame, encoder.colour, encoder.pixel_format))
    encoder.finish()
  with av.open(file) as container:
    return [packet.size for packet in container.demux(container.streams.video[0]) if packet.size]


def of_image(frame: np.ndarray, suffix: str = '.png') -> int:
  """Bytes of a frame, uint8, as an image whose file has this suffix."""
  file = io.BytesIO()
  Image.fromarray(frame).save(file, **IMAGES[suffix])
  return file.tell()


def of_other_streams(source: VideoFile, suffix: str) -> int:
  """Bytes of the streams that come along into a file with `suffix`; reads the whole file."""
  kept = streams.plan(source, suffix).how
  with decoding.open_file(source.path) as container:
    wanted = [container.streams[index] for index in kept]
    return sum(packet.size for packet in decoding.demuxed(container, *wanted)) if wanted else 0
