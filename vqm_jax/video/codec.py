"""H.264 and H.265 encoding through PyAV: degradation of the data sets, and delivered videos."""

import collections.abc
import contextlib
import io
import os
import pathlib
from fractions import Fraction
from typing import Literal, Self

import av

from vqm_jax import errors, files
from vqm_jax.video import colour as colour_lib
from vqm_jax.video import libav, side_data
from vqm_jax.video.colour import Colour

Codec = Literal['h264', 'h265']

_ENCODERS = {'h264': 'libx264', 'h265': 'libx265'}
# Visually lossless: 37-43 dB RGB PSNR on camera footage and animation, 0.2-1.1 bits per pixel (measured).
DELIVERY_CRF = {'h264': 15.0, 'h265': 17.0}
SUFFIXES = ('.mp4', '.mkv', '.mov')
# Of files for our own use, which keep packets as the encoder gives them.
RAW_SUFFIX = '.nut'
PRESETS = ('ultrafast', 'superfast', 'veryfast', 'faster', 'fast', 'medium', 'slow', 'slower', 'veryslow', 'placebo')


def encode(
  frames: collections.abc.Iterable[av.VideoFrame],
  output: pathlib.Path | io.BytesIO,
  *,
  fps: Fraction,
  colour: Colour,
  codec: Codec = 'h264',
  crf: float | None = None,
  bitrate: int | None = None,
  preset: str = 'medium',
  threads: int = 1,
  time_base: Fraction | None = None,
  timestamps: collections.abc.Sequence[int] | None = None,
) -> int:
  """Write `frames`, all of one size, to .mp4, .mkv, .mov or memory (mp4, rewound); return their number.

  The rate is set by `crf` or by `bitrate` (bit/s, one pass), else by `DELIVERY_CRF`. yuv420p frames
  are coded as they are, without a detour through RGB; other formats are converted. `pts` and picture
  type of the frames are overwritten. One thread by default, because the bitstream depends on the
  thread count; with it, equal frames give equal files. Frame k is shown at `timestamps[k]`, in units of `time_base`,
  where these are given, else at k/fps. A file appears only when it is complete.
  Raises VideoError for an empty iterable, frames of different sizes, an unknown suffix.
  """
  encoder = None
  try:
    for frame in frames:
      if encoder is None:
        encoder = Encoder(
          output,
          fps=fps,
          height=frame.height,
          width=frame.width,
          colour=colour,
          codec=codec,
          crf=crf,
          bitrate=bitrate,
          preset=preset,
          threads=threads,
          time_base=time_base,
          timestamps=timestamps,
        )
      encoder.write(frame)
    if encoder is None:
      raise errors.VideoError(f'{_name(output)}: no frames to encode')
    return encoder.finish()
  finally:
    if encoder is not None:
      encoder.close()


# libx265 writes past its own memory where both sides are shorter: 48x32 ended the process, 64x32 and 48x64 did not.
_X265_LEAST = 64


class Encoder:
  """A video stream being written: `finish()` completes the file, `close()` alone leaves nothing.

  `timestamps` (in units of `time_base`) gives frame k its time instead of k/fps. `container` and
  `before_mux` let a writer add streams and interleave their packets: `before_mux(seconds)` is
  called with the decoding time of each video packet, and with infinity at the end. `start` writes the header, once
  all streams are there; else the first packet does.

  `pixel_format` is one of `colour.coded_format`, by default of 8 bits and 4:2:0. `display_matrix` (libav's 9 int32)
  turns the picture when it is shown. `frame_packing` is x264's number for two views in a frame, and `captions` gives
  those of each frame, as `side_data.captions_of`. `container_options` are libavformat's.
  """

  def __init__(
    self,
    output: pathlib.Path | io.BytesIO,
    *,
    fps: Fraction,
    height: int,
    width: int,
    colour: Colour,
    codec: Codec = 'h264',
    crf: float | None = None,
    bitrate: int | None = None,
    preset: str = 'medium',
    threads: int = 1,
    time_base: Fraction | None = None,
    timestamps: collections.abc.Sequence[int] | None = None,
    pixel_format: str | None = None,
    display_matrix: bytes | None = None,
    frame_packing: int | None = None,
    captions: collections.abc.Iterable[bytes] | None = None,
    container_options: dict[str, str] | None = None,
  ):
    if codec not in _ENCODERS:
      raise errors.ConfigError(f'codec={codec!r} is unknown, expected one of {", ".join(_ENCODERS)}')
    if preset not in PRESETS:
      raise errors.ConfigError(f'preset={preset!r} is unknown, expected one of {", ".join(PRESETS)}')
    if crf is not None and bitrate is not None:
      raise errors.ConfigError('both crf and bitrate are set; set one of them')
    if crf is None and bitrate is None:
      crf = DELIVERY_CRF[codec]
    if crf is not None and not 0 <= crf <= 51:
      raise errors.ConfigError(f'crf={crf:g} is outside 0 (lossless) to 51')
    if codec == 'h265' and max(height, width) < _X265_LEAST:
      raise errors.VideoError(
        f'{_name(output)}: {width}x{height} is too small for H.265, whose encoder needs {_X265_LEAST} pixels in one '
        'direction; use H.264 (--codec=h264)'
      )
    self._output, self._size, self.colour = output, (height, width), colour
    self._timestamps, self._count = timestamps, 0
    self._codec, self._captions, self._waiting = codec, captions and iter(captions), {}
    self._time_base = time_base or 1 / Fraction(fps)
    self.before_mux: collections.abc.Callable[[float], None] | None = None
    if isinstance(output, io.BytesIO):
      self._partial, suffix = None, '.mp4'
      self.container = av.open(output, 'w', format='mp4')
    else:
      suffix = checked_suffix(output)
      self._partial = output.with_name(f'.{output.stem}.{os.getpid()}.part{suffix}')
      if container_options is None:
        container_options = container_options_of(suffix)
      with libav.fenced(lambda why: f'{output}: cannot be written ({why})'):
        self.container = av.open(os.path.abspath(self._partial), 'w', container_options=container_options)
    options = {'preset': preset}
    if crf is not None:
      options['crf'] = f'{crf:g}'
    if codec == 'h264':
      # Without it equal input gave different bitstreams from run to run at some widths (320 and 854 among them,
      # measured); switching off x264's macroblock tree or its vector code cured that as well.
      options['x264-params'] = 'cpu-independent=1' + (f':frame-packing={frame_packing}' if frame_packing else '')
    else:
      options['x265-params'] = 'log-level=error' + (':pools=none:frame-threads=1' if threads == 1 else '')
    self.pixel_format = pixel_format or colour_lib.coded_format(height, width)
    with self._reporting():
      self.stream = self.container.add_stream(_ENCODERS[codec], rate=Fraction(fps), options=options)
      context = self.stream.codec_context
      if display_matrix:
        self.stream.set_display_matrix(memoryview(display_matrix).cast('i'))
      self.stream.height, self.stream.width = height, width
      self.stream.pix_fmt = self.pixel_format
      context.time_base = self._time_base
      context.thread_count = threads
      if bitrate is not None:
        context.bit_rate = int(bitrate)
      if codec == 'h265' and suffix in ('.mp4', '.mov'):
        # Apple players refuse the default tag hev1.
        context.codec_tag = 'hvc1'
      for name, value in colour.tags.items():
        setattr(context, name, value)

  def start(self) -> None:
    """Write the header. Raises VideoError where the container does not take what is in it."""
    with self._reporting():
      self.container.start_encoding()

  def write(self, frame: av.VideoFrame) -> None:
    """Encode one frame. Raises VideoError if its size is not that of the stream, or on failure."""
    if (frame.height, frame.width) != self._size:
      (height, width), what = self._size, _name(self._output)
      raise errors.VideoError(f'{what}: frame {self._count} is {frame.width}x{frame.height}, expected {width}x{height}')
    frame = colour_lib.to_coded(frame, self.colour, self.pixel_format)
    frame.pts = self._timestamps[self._count] if self._timestamps else self._count
    frame.time_base = self._time_base
    # Else the picture types of a decoded source would be forced upon the encoder.
    frame.pict_type = 0
    self._count += 1
    if self._captions and (captions := next(self._captions, b'')):
      self._waiting[frame.pts] = captions
    with self._reporting():
      self.mux(self._captioned(self.stream.encode(frame)))

  def finish(self) -> int:
    """Flush, complete the file under its final name and return the number of frames."""
    with self._reporting():
      packets = self.stream.encode(None)
      if self._count <= 2:
        # libx265 leaves the decoding times of one or two frames as its memory was; they come in order.
        for packet in packets:
          packet.dts = packet.pts
      self.mux(self._captioned(packets))
      if self.before_mux:
        self.before_mux(float('inf'))
      self.container.close()
    if self._partial:
      os.replace(self._partial, self._output)
      self._partial = None
    else:
      self._output.seek(0)
    return self._count

  def close(self) -> None:
    """Free the encoder and remove an unfinished file; harmless after `finish`."""
    if self._partial:
      try:
        self.container.close()
      except libav.ERRORS:
        pass  # Nothing of the unfinished file is wanted.
      self._partial.unlink(missing_ok=True)
      self._partial = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind, value, trace) -> None:
    self.close()

  @contextlib.contextmanager
  def _reporting(self):
    partial = self._partial
    full = files.filling(self._output, lambda: partial.stat().st_size) if partial else contextlib.nullcontext()
    with libav.fenced(lambda why: f'{_name(self._output)}: cannot be written ({why})'), full:
      yield

  def _captioned(self, packets: list[av.Packet]) -> list[av.Packet]:
    return [
      side_data.with_captions(packet, self._waiting.pop(packet.pts), self._codec)
      if packet.pts in self._waiting
      else packet
      for packet in packets
    ]

  def mux(self, packets: list[av.Packet]) -> None:
    """Write packets of the video, after those of other streams that come before them."""
    for packet in packets:
      if self.before_mux and packet.dts is not None:
        self.before_mux(float(packet.dts * packet.time_base))
      self.container.mux_one(packet)


def checked_suffix(output: pathlib.Path) -> str:
  """The suffix of a video file, in lower case; raises VideoError if we do not write such files."""
  suffix = output.suffix.lower()
  if suffix not in (*SUFFIXES, RAW_SUFFIX):
    raise errors.VideoError(f'{output}: video is written to {", ".join(SUFFIXES)}, PNG to a folder without a suffix')
  return suffix


def container_options_of(suffix: str) -> dict[str, str]:
  """libavformat's options for such files."""
  # The index in front lets browsers start before the whole file is there.
  return {'movflags': '+faststart'} if suffix in ('.mp4', '.mov') else {}


def _name(output: pathlib.Path | io.BytesIO) -> str:
  return str(output) if isinstance(output, pathlib.Path) else 'video in memory'
