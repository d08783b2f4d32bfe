"""Sends videos as people bring them through `vqm_jax.enhance` and says what became of each.

python benchmarks/video_cases.py --make --inputs=cases/                       # about twenty small ones, made with libav
python benchmarks/video_cases.py --inputs=cases/ [--docs=docs/video.md]       # every file in a folder

Strength 0 gives the input back, so that whatever differs was lost on the way: frames, times, streams, bits, chroma. A
file goes into .mp4. Where enhance refuses it and names a remedy of its own, another container, --deinterlace or
--keep_going, that is tried next and told. Frames and times are those that libav decodes, not those that our own reader
sees, and streams are compared byte by byte.

--write=FILE keeps what became of each file as JSON. `benchmarks/video_cases_before.json`, the column "Before", is what
this script wrote in a checkout of commit 910b48b, from which real videos were looked at; where such a run has no line,
"not tried" stands. --docs writes the table into a page, between its two marks.
"""

import collections
import contextlib
import hashlib
import io
import json
import logging as std_logging
import pathlib
import tempfile
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from absl import flags, logging
from absl.testing import flagsaver
from av.stream import Disposition
from PIL import Image

from vqm_jax import cli, errors, files
from vqm_jax.video import Colour, rgb_to_yuv, side_data
from vqm_jax.video.codec import Encoder

BEFORE = pathlib.Path(__file__).with_name('video_cases_before.json')
MARKS = '<!-- table -->', '<!-- end of table -->'

_INPUTS = flags.DEFINE_string('inputs', None, 'Folder of videos.', required=True)
_MAKE = flags.DEFINE_bool('make', False, 'Make small videos of the main kinds in --inputs.')
_DOCS = flags.DEFINE_string('docs', None, 'Page whose table is written anew.')
_WRITE = flags.DEFINE_string('write', None, 'JSON file for the lines.')
_NETWORK = flags.DEFINE_string('network', 'web-small', 'As --weights of `vqm_jax.enhance`.')

# What an error says -> what is tried next.
_REMEDIES = {
  'write to .mkv': ('.mkv', {}),
  'write to .mov or .mkv': ('.mkv', {}),
  '--deinterlace': (None, {'deinterlace': True}),
  '--keep_going': (None, {'keep_going': True}),
}


class Seen(NamedTuple):
  """Frames and times of a file as libav decodes it.

  Attributes:
    kind: container, codec, pixel format.
    times: of each frame of the main video, in seconds, None where it has none; of AVI by the numbers of its chunks.
    pixels: uint8 or uint16 RGB of each.
    streams: kind, codec and digest of the packets of each other stream.
    captions: how many frames have closed captions.
  """

  kind: str
  times: list[float | None]
  pixels: list[np.ndarray]
  streams: list[tuple[str, str, str]]
  captions: int = 0


def look(path: pathlib.Path) -> Seen:
  """Decodes all of a file; frames that fail are left out."""
  with av.open(str(path.absolute()), metadata_errors='replace') as container:
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
      raise ValueError('no video')
    main = next((s for s in videos if s.disposition & Disposition.default), videos[0])
    digests = collections.defaultdict(hashlib.sha256)
    times, pixels, format_name, chunks, captions = [], [], None, [], 0
    for packet in container.demux():
      if packet.stream.index != main.index:
        digests[packet.stream.index].update(bytes(packet))
        continue
      if packet.size and packet.dts is not None:
        chunks.append(float(packet.dts * packet.time_base))
      try:
        frames = packet.decode()
      except av.FFmpegError:
        continue
      for frame in frames:
        if frame.is_corrupt:
          continue
        format_name = format_name or frame.format.name
        times.append(frame.time)
        captions += 'A53_CC' in side_data.kinds_of(frame)
        pixels.append(_rgb(frame))
    others = [
      (s.type, s.codec_context.name if s.codec_context else 'data', digests[s.index].hexdigest())
      for s in container.streams
      if s.index != main.index
    ]
    size = f'{pixels[0].shape[1]}x{pixels[0].shape[0]}' if pixels else '-'
    name = container.format.name.split(',')[0]
    kind = f'{name}, {main.codec_context.codec.canonical_name}, {format_name}, {size}'
  if name == 'avi' and len(chunks) == len(times):
    # libav adds the delay of the decoder, by which frames then come behind the sound.
    times = sorted(chunks)
  return Seen(kind, times, pixels, others, captions)


def _rgb(frame: av.VideoFrame) -> np.ndarray:
  deep = any(component.bits > 8 for component in frame.format.components)
  # Untagged video is BT.601 on both sides.
  matrix = 1 if frame.colorspace == 1 else 5
  return frame.reformat(
    format='rgb48le' if deep else 'rgb24', src_colorspace=matrix, dst_colorspace=matrix
  ).to_ndarray()


def late(before: list[float | None], after: list[float | None]) -> float | None:
  """The largest difference in ms between right times of the input and those of the output; None if none can be told.

  Right are those that are later than any before them. Where one side has more frames, each of the other side's is held
  against the nearest.
  """
  right, last = {}, -np.inf
  for k, time in enumerate(before):
    if time is not None and time > last:
      right[k] = last = time
  if not right or None in after or not after:
    return None
  if len(before) == len(after):
    return 1000 * max(abs(after[k] - time) for k, time in right.items())
  fewer, more = sorted((np.array(list(right.values())), np.array(after)), key=len)
  return 1000 * max(float(np.abs(more - time).min()) for time in fewer)


def psnr(before: Seen, after: Seen) -> float | None:
  """Mean over frames in dB, infinity left out as 99; None where frames do not correspond."""
  if len(before.pixels) != len(after.pixels):
    return None
  found = []
  for a, b in zip(before.pixels, after.pixels, strict=True):
    if a.shape != b.shape:
      return None
    a, b = (x / np.iinfo(x.dtype).max for x in (a, b))
    error = np.mean((a - b) ** 2)
    found.append(-10 * np.log10(error) if error else 99.0)
  return float(np.mean(found))


def kept(before: Seen, after: Seen) -> str:
  """How many of the other streams came along, by kind, and how many of these with the same bytes."""
  parts = []
  for kind in dict.fromkeys(stream[0] for stream in before.streams):
    there = [stream for stream in before.streams if stream[0] == kind]
    here = [stream for stream in after.streams if stream[0] == kind]
    same = sum((collections.Counter(s[2] for s in there) & collections.Counter(s[2] for s in here)).values())
    text = f'{kind} {min(len(here), len(there))} of {len(there)}'
    if same < min(len(here), len(there)):
      text += f' ({same} byte for byte)'
    parts.append(text)
  if before.captions:
    parts.append(f'captions {after.captions} of {before.captions}')
  return ', '.join(parts) or '-'


def enhanced(source: pathlib.Path, output: pathlib.Path, **options) -> tuple[str | None, list[str]]:
  """Runs `vqm_jax.enhance` at strength 0: its error in one line, if there is one, and its warnings."""
  from vqm_jax import enhance  # here, because its flags come with it

  told = []

  class Listener(std_logging.Handler):
    def emit(self, record):
      if record.levelno >= std_logging.WARNING:
        told.append(_short(record.getMessage(), source, output))

  listener = Listener()
  logger = logging.get_absl_logger()
  logger.addHandler(listener)
  given = dict(input=str(source), output=str(output), weights=_NETWORK.value, strength=0.0, overwrite=True, **options)
  try:
    with flagsaver.flagsaver(**given), contextlib.redirect_stdout(io.StringIO()):
      enhance.main(None)
    return None, told
  except errors.VqmError as error:
    return _short(str(error), source, output), told
  except Exception as error:  # that there is a traceback is what a user sees
    return f'a traceback ({type(error).__name__}: {_short(str(error), source, output)})', told
  finally:
    logger.removeHandler(listener)


def _short(text: str, source: pathlib.Path, output: pathlib.Path) -> str:
  for path, name in ((output, 'OUT'), (source, 'IN')):
    text = text.replace(str(path), name)
  text = ' '.join(text.removeprefix('IN: ').removeprefix('OUT: ').split())
  return text if len(text) < 240 else f'{text[:236]} ...'


def try_case(source: pathlib.Path, folder: pathlib.Path) -> dict[str, str]:
  """Everything about one file, as the columns of the table."""
  suffix, options, said = '.mp4', {}, []
  try:
    before = look(source)
  except (av.FFmpegError, ValueError, OSError):
    before = Seen('not readable', [], [], [])
  line = {'file': source.name, 'input': f'{before.kind}, {len(before.pixels)} frames'}
  while True:
    output = folder / f'{source.stem}{suffix}'
    error, warnings = enhanced(source, output, **options)
    if error is None:
      break
    remedy = next((after for text, after in _REMEDIES.items() if text in error), None)
    wanted = remedy and (remedy[0] or suffix, options | remedy[1])
    if not remedy or wanted == (suffix, options) or not set(wanted[1]) <= set(flags.FLAGS):
      return line | {'output': f'refused: {error}', 'told': '; '.join(said)}
    said.append(f'{suffix} refused: {error.split(";")[0]}')
    suffix, options = wanted
  said += warnings
  try:
    after = look(output)
  except (av.FFmpegError, ValueError, OSError) as failure:
    return line | {'output': f'not readable ({failure})', 'told': '; '.join(said)}
  finally:
    output.unlink(missing_ok=True)
  times, quality = late(before.times, after.times), psnr(before, after)
  if options.get('deinterlace'):
    quality = None
  given = ''.join(f', `--{name}`' for name in options)
  return line | {
    'output': f'{after.kind}{given}',
    'frames': f'{len(after.pixels)} of {len(before.pixels)}',
    'times': '-' if times is None else f'{times:.1f}',
    'streams': kept(before, after),
    'psnr': '-' if quality is None else f'{quality:.1f}',
    'told': '; '.join(dict.fromkeys(said)),
  }


def table(lines: list[dict[str, str]], before: dict[str, str]) -> str:
  """Of Markdown."""
  rows = ['| File | Input | Before | Now |', '| --- | --- | --- | --- |']
  for line in lines:
    cells = (f'`{_cell(line["file"])}`', line['input'], before.get(line['file'], 'not tried'), sentence(line))
    rows.append(f'| {" | ".join(map(_cell, cells))} |')
  return '\n'.join(rows)


def sentence(line: dict[str, str]) -> str:
  """Says in a sentence how a file was handled."""
  if 'frames' not in line:
    text = line['output']
  else:
    parts = [line['output'], f'{line["frames"]} frames']
    parts += [f'times {line["times"]} ms'] if line['times'] != '-' else []
    parts += [line['streams']] if line['streams'] != '-' else []
    parts += [f'{line["psnr"]} dB'] if line['psnr'] != '-' else []
    text = ', '.join(parts)
  return f'{text}. Told: {line["told"]}' if line['told'] else text


def _cell(text: str) -> str:
  return text.replace('\n', '\\n').replace('|', '\\|')


def texture(t: int, width: int = 96, height: int = 64) -> np.ndarray:
  """Frame t of coloured texture that moves, with grey grain: uint8 (height, width, 3)."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(80, 160, (height // 8, width // 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
  return np.roll(coarse, 2 * t, axis=1) + np.random.default_rng(t).integers(0, 8, (height, width, 1), np.uint8)


def write(
  path: pathlib.Path,
  codec: str = 'libx264',
  pixel_format: str = 'yuv420p',
  options: dict[str, str] | None = None,
  sound: str | None = 'aac',
  change=lambda output, stream: None,
  count: int = 24,
) -> pathlib.Path:
  """A video of 25 frames a second; `change(output, stream)` adds to it before the header is written."""
  options = dict(options or {})
  if codec == 'libx265':
    options['x265-params'] = ':'.join(filter(None, (options.get('x265-params'), 'log-level=error')))
  with av.open(str(path.absolute()), 'w') as output:
    stream = output.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
    track = output.add_stream(sound, rate=8000 if 'law' in sound else 48000, layout='mono') if sound else None
    change(output, stream)
    for t in range(count):
      frame = av.VideoFrame.from_ndarray(texture(t), format='rgb24').reformat(format=pixel_format)
      frame.pts = t
      output.mux(stream.encode(frame))
      if track:
        step = track.rate // 25
        wave = np.sin(np.arange(t * step, (t + 1) * step) / 20)[None].astype(np.float32)
        samples = av.AudioFrame.from_ndarray(wave, 'fltp', 'mono')
        samples.sample_rate, samples.pts = track.rate, t * step
        output.mux(track.encode(samples))
    output.mux(stream.encode(None))
    if track:
      output.mux(track.encode(None))
  return path


def copy(source: pathlib.Path, target: pathlib.Path, change) -> pathlib.Path:
  """The packets of all streams; `change(number, packet)` looks at those of the video and says which to keep."""
  with av.open(str(source.absolute())) as container, av.open(str(target.absolute()), 'w') as output:
    streams = {s.index: output.add_stream_from_template(s) for s in container.streams}
    number = 0
    for packet in container.demux():
      if not packet.size:
        continue
      keep = True
      if packet.stream.type == 'video':
        keep, number = change(number, packet), number + 1
      if keep:
        packet.stream = streams[packet.stream_index]
        output.mux_one(packet)
  return target


def make(folder: pathlib.Path) -> list[pathlib.Path]:
  """Small videos of the main kinds."""
  folder.mkdir(parents=True, exist_ok=True)
  plain = {'bf': '0'}
  made = [
    write(folder / 'plain.mp4'),
    write(folder / 'ten_bits.mp4', 'libx265', 'yuv420p10le'),
    write(folder / 'ten_bits_h264.mkv', 'libx264', 'yuv422p10le'),
    write(folder / 'twelve_bits.mkv', 'ffv1', 'yuv422p12le'),
    write(folder / 'windows.wmv', 'wmv2', options={'qmax': '4'}, sound='mp2'),
    write(folder / 'chroma_422.mp4', pixel_format='yuv422p'),
    write(folder / 'chroma_444.mp4', pixel_format='yuv444p'),
    write(folder / 'interlaced.mkv', options={'x264-params': 'tff=1'}),
    write(folder / 'hdr.mkv', 'libx265', 'yuv420p10le', {
      'x265-params': 'colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc'
    }),
    write(folder / '12:30:05.mp4'),
    write(folder / 'a%03d.mp4'),
    write(folder / 'h264.avi', sound='mp3'),
    write(folder / 'mpeg2.mpg', 'mpeg2video', sound='mp2'),
    write(folder / 'transport.ts', sound='mp2'),
    write(folder / 'no_stamps.h264', options=plain, sound=None),
    write(folder / 'mu_law.mov', sound='pcm_mulaw'),
    write(folder / 'attachments.mkv', change=_attach),
    write(folder / 'rotated.mp4', change=_turn),
    write(folder / 'two_videos.mkv', change=_add_second),
    write(folder / 'two_views.mp4', options={'x264-params': 'frame-packing=3'}),
    _write_captions(folder / 'captions.mp4'),
    _write_images(folder / 'motion.mjpeg'),
  ]  # fmt: skip
  with tempfile.TemporaryDirectory() as name:
    parts = pathlib.Path(name)
    last = []

    def double(number, packet):
      if number == 10:
        packet.pts = packet.dts = last[-1]
      last.append(packet.pts)
      return True

    made.append(copy(write(parts / 'a.mkv', options=plain), folder / 'doubled_stamp.mkv', double))

    def pause(number, packet):
      if number >= 10:  # for two frames: the muxer writes empty chunks
        packet.pts = packet.dts = packet.dts + round(Fraction(2, 25) / packet.time_base)
      return True

    simple = write(parts / 'a.avi', 'mpeg4', sound='mp2')
    made.append(copy(simple, folder / 'empty_chunks.avi', pause))
    keys = []

    def from_second_key(number, packet):
      keys.extend([number] if packet.is_keyframe else [])
      return len(keys) > 1

    group = 'keyint=8:min-keyint=8:bframes=3:b-adapt=0:scenecut=0:open-gop=1'
    full = write(parts / 'full.mkv', 'libx265', options={'x265-params': group}, sound=None)
    made.append(copy(full, folder / 'open_gop_cut.mkv', from_second_key))
    for name in ('plain.mp4', 'windows.wmv'):
      made.append(_damage(folder / name, folder / f'damaged{pathlib.Path(name).suffix}'))
  return made


def _damage(path: pathlib.Path, damaged: pathlib.Path) -> pathlib.Path:
  """A copy with noise for the first bytes of frame 12, which come in pieces in some containers."""
  with av.open(str(path.absolute())) as container:
    packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][12]
  content = path.read_bytes()
  if packet not in content:
    packet = packet[:40]
  damaged.write_bytes(content.replace(packet, np.random.default_rng(0).bytes(len(packet))))
  return damaged


def _write_captions(path: pathlib.Path) -> pathlib.Path:
  captions = (bytes([0xFC, 0x80 + t, 0x20]) for t in range(24))
  colour = Colour('bt601')
  with Encoder(path, fps=Fraction(25), height=64, width=96, colour=colour, captions=captions) as encoder:
    for t in range(24):
      encoder.write(rgb_to_yuv(texture(t), colour))
    encoder.finish()
  return path


def _write_images(path: pathlib.Path) -> pathlib.Path:
  """JPEG images with EXIF, one after the other."""
  exif, file = Image.Exif(), io.BytesIO()
  exif[0x010F] = 'Camera'
  for t in range(24):
    Image.fromarray(texture(t)).save(file, 'JPEG', exif=exif)
  path.write_bytes(file.getvalue())
  return path


def _attach(output, stream):
  output.add_attachment('font.ttf', 'application/x-truetype-font', np.random.default_rng(0).bytes(2000))


def _turn(output, stream):
  one = 1 << 16
  stream.set_display_matrix(memoryview(np.array([0, one, 0, -one, 0, 0, 0, 0, 1 << 30], np.int32)))


def _add_second(output, stream):
  """Another video behind the default one, of one black frame."""
  second = output.add_stream('libx264', rate=25)
  second.width, second.height, second.pix_fmt = 48, 32, 'yuv420p'
  stream.disposition, second.disposition = Disposition.default, Disposition(0)
  frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format='rgb24')
  output.mux(second.encode(frame.reformat(format='yuv420p')) + second.encode(None))


def _keep(lines: list[dict[str, str]]) -> None:
  """Writes what is known so far, so that a run that ends early leaves that."""
  if _WRITE.value:
    found = {line['file']: sentence(line) for line in lines}
    files.write_text(pathlib.Path(_WRITE.value), json.dumps(found, indent=1, ensure_ascii=False) + '\n')
  if _DOCS.value:
    page = pathlib.Path(_DOCS.value)
    head, rest = page.read_text().split(MARKS[0])
    before = json.loads(BEFORE.read_text())
    tail = rest.split(MARKS[1])[1]
    files.write_text(page, f'{head}{MARKS[0]}\n\n{table(lines, before)}\n\n{MARKS[1]}{tail}')


def main(argv: list[str]) -> None:
  del argv
  folder = pathlib.Path(_INPUTS.value)
  if _MAKE.value:
    for path in make(folder):
      print(path)
    return
  lines = []
  with tempfile.TemporaryDirectory() as scratch:
    for path in sorted(entry for entry in folder.iterdir() if entry.is_file()):
      lines.append(try_case(path, pathlib.Path(scratch)))
      print(f'{path.name!r}: {lines[-1]["input"]} -> {sentence(lines[-1])}', flush=True)
      _keep(lines)


if __name__ == '__main__':
  cli.run(main)
