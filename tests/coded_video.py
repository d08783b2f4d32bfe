"""Small videos whose groups of pictures are chosen."""

import pathlib
from collections.abc import Callable, Iterable, Mapping

import av
import numpy as np

from vqm_jax.video import Colour, rgb_to_yuv


def pictures(seed: int, num_frames: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
  """uint8 (height, width, 3): a rough picture that drifts by a pixel a frame, with noise that no two frames share."""
  rng = np.random.default_rng(seed)
  wide = rng.integers(0, 160, (height // 4, (width + num_frames) // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)
  noise = rng.integers(0, 90, (num_frames, height, width, 3))
  return [np.uint8(wide[:, t : t + width] + noise[t]) for t in range(num_frames)]


def write(
  path: pathlib.Path,
  frames: Iterable[np.ndarray],
  params: str = '',
  *,
  codec: str = 'libx264',
  options: Mapping[str, str] | None = None,
  colour: Colour | None = None,
) -> pathlib.Path:
  """Codes frames with `params` of x264 or x265 at 24 frames per second; untagged, as BT.601, without `colour`."""
  path.parent.mkdir(parents=True, exist_ok=True)
  options = dict(options or {})
  if codec == 'libx264':
    options['x264-params'] = params
  if codec == 'libx265':
    options['x265-params'] = f'{params}:log-level=error'
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(codec, rate=24, options=options)
    for k, rgb in enumerate(frames):
      frame = rgb_to_yuv(rgb, colour or Colour('bt601'))
      if k == 0:
        stream.height, stream.width, stream.pix_fmt = frame.height, frame.width, frame.format.name
        for name, value in colour.tags.items() if colour else ():
          setattr(stream.codec_context, name, value)
      if not colour:
        frame.colorspace = frame.color_primaries = frame.color_trc = 2
        frame.color_range = 0
      frame.pts = k
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  return path


def copy(
  source: pathlib.Path,
  target: pathlib.Path,
  change: Callable[[int, av.Packet], object] = lambda number, packet: None,
  first: int = 0,
) -> pathlib.Path:
  """The packets of the video from number `first` on in another file, each after `change(number, packet)`."""
  with av.open(str(source)) as container, av.open(str(target), 'w') as output:
    stream = output.add_stream_from_template(container.streams.video[0])
    for number, packet in enumerate(packet for packet in container.demux(video=0) if packet.size):
      if number >= first:
        change(number, packet)
        packet.stream = stream
        output.mux_one(packet)
  return target


def damage(path: pathlib.Path, number: int) -> pathlib.Path:
  """Overwrites the content of packet `number` of the video with noise."""
  with av.open(str(path)) as container:
    packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][number]
  content = path.read_bytes()
  assert content.count(packet) == 1
  path.write_bytes(content.replace(packet, np.random.default_rng(0).bytes(len(packet))))
  return path
