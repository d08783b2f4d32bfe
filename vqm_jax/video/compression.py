"""How strongly a video was compressed, on one scale: the quantisation parameter (QP) of H.264 at 8 bits, 0 to 51.

Six steps of QP double the step of the quantiser. It is what an encoder rounds with, so that it tells more than the bit
rate, which depends on the scene. It is not the CRF: at CRF 28 the mean QP was 28 to 34 on six clips (measured), as x264
takes finer steps in frames that others are made of, and coarser ones in the many that nothing refers to.

H.264: libavcodec exports the QP of every macroblock of a decoded frame (`export_side_data=venc_params`, a struct
AVVideoEncParams, libavutil/video_enc_params.h); what is reported is exact. So it does for MPEG-2 and MPEG-4. For VP9 it
exports the frame's alone; for VP8, AV1 and HEVC, nothing, but the bitstream filter `trace_headers` says what frame and
slice headers hold. That is the QP before corrections block by block, and other quantisers. These numbers are taken to
the QP that x264 has at the same PSNR, by lines that `benchmarks/compression_estimate.py` fitted.
"""

import contextlib
import dataclasses
import re
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

import av
import av.logging
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.sidedata.sidedata import Type as SideDataType

from vqm_jax import errors
from vqm_jax.video import decoding, libav
from vqm_jax.video.reader import VideoFile, VideoSource

MAX_QP = 51.0
# The mean of the frames looked at was up to 2 QP off that of all, on seven files (measured).
MARGIN = 2.0
_MAX_RUNS = 3


class Scale(NamedTuple):
  """The line from what a stream states to the QP of H.264 at the same PSNR, and its mean error in QP."""

  offset: float
  slope: float
  error: float


# From benchmarks/compression_estimate.py --part=codecs on 12 clips; the errors are those on clips left out of the fit.
# What a stream states is, for MPEG, 6 log2 of the quantiser's step; for HEVC the QP of slices; for the others the
# quantiser's index, 0 to 127 in VP8, 0 to 255 in VP9 and AV1.
SCALES = {
  'h264': Scale(0.0, 1.0, 0.0),
  'hevc': Scale(-3.66, 0.950, 1.7),
  'vp8': Scale(18.29, 0.2403, 2.1),
  'vp9': Scale(12.00, 0.1217, 1.5),
  'av1': Scale(15.48, 0.0881, 2.3),
  'mpeg4': Scale(7.78, 1.057, 1.8),
  'mpeg2video': Scale(6.75, 1.042, 1.9),
}
_EXPORTED = ('h264', 'mpeg4', 'mpeg2video')

# AVVideoEncParams: nb_blocks, blocks_offset, block_size, type, qp; int32 delta_qp[4][2] follows.
_HEAD = struct.Struct('@IQQii')
# AVVideoBlockParams: int src_x, src_y, w, h, delta_qp.
_BLOCK_FIELDS = 5
# '24   slice_qp_delta   010 = 1': position in bits, name, the bits, value.
_HEADER_FIELD = re.compile(
  r'\s(pps_pic_parameter_set_id|init_qp_minus26|slice_pic_parameter_set_id|slice_qp_delta|base_q_idx|base_qindex)'
  r'\s+[01]*\s*=\s*(-?\d+)'
)


@dataclasses.dataclass(frozen=True)
class Compression:
  """How strongly a video was compressed.

  Attributes:
    qp: mean over frames and pixels, on the scale of H.264: 0 (no loss) to 51.
    source: 'stream' where the file states it; 'estimate' where it was taken over from another codec's scale.
    codec: how the file is coded ('h264', 'hevc').
    error: mean |error| of that step in QP; 0 for 'stream'.
  """

  qp: float
  source: Literal['stream', 'estimate']
  codec: str
  error: float = 0.0

  def __str__(self) -> str:
    about = 'about ' if self.source == 'estimate' else ''
    return f'{self.codec}, compressed at {about}QP {self.qp:.0f} on average'


def compression_of(source: VideoSource, num_frames: int = 24) -> Compression | None:
  """How strongly `source` was compressed, or None where that cannot be told.

  Of a file `num_frames` frames are looked at, in up to three runs that begin at key frames spread over it: 0.6 s of
  one core for the heaviest 1080p file measured, 0.2 s for most. Key frames, which are finer, count as often as they
  occur in the file. What is found is the last coding alone: a bad first generation that was coded again with high
  quality does not show. Images, Motion JPEG and lossless codecs state nothing, and their pixels do not tell enough:
  on clips left out of the fit, estimates from 66 clips coded five times had a mean |error| of 4.5 to 4.9 QP, with one
  in ten off by 10; always guessing the middle gives 6.8. `benchmarks/compression_estimate.py --part=pixels` repeats
  the attempt with 43 features instead of 70.
  Raises VideoError if the file is damaged at one of these frames.
  """
  found = stated(source, num_frames)
  if found is None:
    return None
  scale = SCALES[source.codec]
  qp = min(max(scale.offset + scale.slope * found, 0.0), MAX_QP)
  return Compression(qp, 'estimate' if scale.error else 'stream', source.codec, scale.error)


def advice(compression: Compression | None, qp_range: tuple[float, float]) -> str | None:
  """One line on input outside of what a network was trained for; None inside, or where nothing is known.

  `qp_range` are the lowest and highest mean QP, as `compression_of` measures it, of the videos it was trained on.
  Within `MARGIN` and the error of the estimate, input counts as inside.
  """
  low, high = qp_range
  if compression is None:
    return None
  margin = MARGIN + compression.error
  about = 'about ' if compression.source == 'estimate' else ''
  trained = f'QP {low:.0f}' + (f' to {high:.0f}' if round(low) != round(high) else '')
  found = f'the input ({compression.codec}) has {about}QP {compression.qp:.0f}, the weights were trained on {trained}'
  if compression.qp < low - margin:
    return (
      f'{found}: it is nearly clean for them, little is to be gained and corrections should be small; look with '
      '--preview, and use --strength=0.5 or weights trained on lighter compression if they are not'
    )
  if compression.qp > high + margin:
    return (
      f'{found}: it is compressed more strongly, expect artefacts to remain or to be sharpened; look with --preview, '
      'and use --strength=0.5 or weights trained on stronger compression if they do'
    )
  return None


def stated(source: VideoSource, num_frames: int = 24) -> float | None:
  """The mean of what the stream states, in its codec's own units (see `SCALES`); None if it states nothing.

  Looks at `num_frames` frames, in up to three runs. Raises VideoError if the file is damaged at one of these.
  """
  if not isinstance(source, VideoFile) or source.codec not in SCALES:
    return None
  values = {True: [], False: []}
  look = _exported if source.codec in _EXPORTED else _traced
  for start, count in _runs(source, num_frames):
    for is_key, value in look(source, start, count):
      values[is_key].append(value)
  keys, others = values[True], values[False]
  if not keys or not others:
    return float(np.mean(keys + others)) if keys or others else None
  share = len(source.keyframes) / source.num_frames if source.keyframes else len(keys) / len(keys + others)
  return float(share * np.mean(keys) + (1 - share) * np.mean(others))


def _runs(source: VideoFile, num_frames: int) -> list[tuple[int | None, int]]:
  """(time of the keyframe, None for the file's beginning; frames from there) for each run."""
  keyframes = source.keyframes
  starts = {}
  for run in range(_MAX_RUNS):
    middle = (2 * run + 1) * source.num_frames // (2 * _MAX_RUNS)
    before = [index for index in keyframes if index <= middle]
    index = before[-1] if len(before) > 1 else 0
    starts[index] = source.packet_times[index] if index else None
  return [(time, -(-num_frames // len(starts))) for time in starts.values()]


def _exported(source: VideoFile, start: int | None, count: int) -> Iterator[tuple[bool, float]]:
  """Yield (whether it is a key frame, mean over its area) of up to `count` decoded frames."""
  with _opened(source, start) as (container, stream):
    stream.codec_context.options = {'err_detect': decoding.strictness(source.codec), 'export_side_data': 'venc_params'}
    # With frame threads a frame that others are made of can be exported before its own thread has filled in all QPs:
    # means of a third of the true one were seen.
    stream.thread_type = 'SLICE'
    for frame in _decoded(container, stream, start, count, tolerant=not source.whole):
      if frame.is_corrupt and not source.whole:
        continue
      if frame.is_corrupt:
        raise errors.VideoError(f'{source.path}: damaged, a frame cannot be decoded; copy or download the file again')
      for side_data in frame.side_data:
        if side_data.type == SideDataType.VIDEO_ENC_PARAMS:
          value = mean_qp(bytes(side_data), frame.height, frame.width)
          yield bool(frame.key_frame), value if source.codec == 'h264' else 6 * float(np.log2(max(value, 1)))


def _decoded(container, stream, start, count, tolerant):
  """Yield the frames of `count` packets: the first as coded, so that there are some of each type, not as shown.

  `tolerant` leaves out those that cannot be decoded.
  """
  ignored = libav.ERRORS if tolerant else ()
  for packet in container.demux(stream):
    if not packet.size:
      continue
    # Leading pictures of an open GOP have lost their references, which says nothing of the file.
    if start is not None and packet.pts is not None and packet.pts < start:
      continue
    with contextlib.suppress(*ignored):
      yield from packet.decode()
    count -= 1
    if not count:
      break
  yield from stream.codec_context.decode(None)


def mean_qp(params: bytes, height: int, width: int) -> float:
  """The QP of a frame of `height` x `width` pixels, block by block weighted by area.

  `params` is AVVideoEncParams as in memory. For MPEG-2 and MPEG-4 it is the step of the quantiser.
  """
  num_blocks, offset, size, _, qp = _HEAD.unpack_from(params)
  if not num_blocks:
    return float(qp)
  blocks = np.frombuffer(params, np.uint8, num_blocks * size, offset).reshape(num_blocks, size)
  x, y, w, h, delta = blocks[:, : 4 * _BLOCK_FIELDS].copy().view(np.int32).T
  # The last macroblocks reach beyond the picture.
  area = np.clip(np.minimum(x + w, width) - x, 0, None) * np.clip(np.minimum(y + h, height) - y, 0, None)
  return float(qp + np.average(delta, weights=area))


def _traced(source: VideoFile, start: int | None, count: int) -> Iterator[tuple[bool, float]]:
  """Yield (whether it is of a key frame, QP or index) of every slice or frame of `count` packets; decode nothing."""
  with _opened(source, start) as (container, stream), decoding.messages(av.logging.INFO) as messages:
    # Parameter sets of mp4 are told when the filter starts.
    tracer = BitStreamFilterContext('trace_headers', stream)
    initial, parameter_set = {}, 0
    packets = (packet for packet in container.demux(stream) if packet.size)
    for packet, _ in zip(packets, range(count), strict=False):
      is_key = packet.is_keyframe
      tracer.filter(packet)
      for _, _, message in messages:
        field = _HEADER_FIELD.search(message)
        if field is None:
          continue
        name, value = field[1], int(field[2])
        if name.endswith('parameter_set_id'):
          parameter_set = value
        elif name == 'init_qp_minus26':
          initial[parameter_set] = 26 + value
        elif name == 'slice_qp_delta':
          yield is_key, float(initial.get(parameter_set, 26) + value)
        else:
          yield is_key, float(value)
      messages.clear()


@contextlib.contextmanager
def _opened(source, start):
  with libav.fenced(lambda why: libav.damaged(source.path, why)), decoding.open_file(source.path) as container:
    stream = container.streams[source.stream_index]
    if start is not None:
      container.seek(start, stream=stream)
    yield container, stream
