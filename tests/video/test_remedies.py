"""Each command that an error advises is run on a file that the error is about, and what comes out is read.

They are for the program `ffmpeg`, without which only their wording is tested.
"""

import re
import shlex
import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import open_video, remedies

COUNT = 8


def picture(t):
  y, x = np.mgrid[:48, :64]
  return (120 + 80 * np.stack([np.sin(x / 9 + t), np.cos(y / 8 - t), np.sin((x + y) / 9 + t)], -1)).astype(np.uint8)


def make(path, codec, pix_fmt, options=None, times=None, transparent=False, shrinks=False, size=(64, 48), **tags):
  """A video with a tone and one subtitle, but none in a recording that shrinks in the middle."""
  if shrinks:
    later = [400 + 40 * (COUNT + t) for t in range(COUNT)]
    small = make(path.with_name('small.ts'), codec, pix_fmt, times=later, size=(32, 32))
    make(path, codec, pix_fmt)
    path.write_bytes(path.read_bytes() + small.read_bytes())
    return path
  in_mp4 = path.suffix in ('.mp4', '.mov')
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(codec, rate=25, options=options or {})
    (stream.width, stream.height), stream.pix_fmt = size, pix_fmt
    stream.codec_context.time_base = Fraction(1, 1000)
    for name, value in tags.items():
      setattr(stream.codec_context, name, value)
    sound = output.add_stream('aac', rate=48000, layout='mono')
    if has_text := path.suffix != '.ts':
      text = output.add_stream('mov_text' if in_mp4 else 'subrip')
      text.codec_context.subtitle_header = b'[Script Info]\n'
    for t in range(COUNT):
      rgba = np.concatenate([picture(t), np.full((48, 64, 1), 90 if transparent else 255, np.uint8)], -1)
      frame = av.VideoFrame.from_ndarray(rgba, 'rgba').reformat(*size, format=pix_fmt)
      frame.pts, frame.time_base = times[t] if times else 40 * t, Fraction(1, 1000)
      for name, value in tags.items():
        setattr(frame, name, value)
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
    for k in range(15):
      frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
      frame.sample_rate, frame.pts = 48000, 1024 * k
      output.mux(sound.encode(frame))
    output.mux(sound.encode(None))
    if has_text:
      packet = av.Packet(b'\x00\x05hello' if in_mp4 else b'hello')
      packet.stream, packet.time_base = text, Fraction(1, 1000)
      packet.pts, packet.dts, packet.duration = 40, 40, 100
      output.mux(packet)
  return path


QUIET = {'x265-params': 'log-level=none'}
PQ = {'color_trc': 16, 'color_primaries': 9, 'colorspace': 9}
HLG = {'color_trc': 18, 'color_primaries': 9, 'colorspace': 9}
# Remedy -> files that are refused, and the pixel format and frames of what comes out.
CASES = {
  'tone_map': [
    (('pq.mkv', 'libx265', 'yuv420p10le', QUIET), PQ, 'yuv420p10le'),
    (('pq.mp4', 'libx265', 'yuv420p10le', QUIET), PQ, 'yuv420p10le'),
    (('hlg.mov', 'libx265', 'yuv422p10le', QUIET), HLG, 'yuv420p10le'),
  ],
  'to_bt709': [
    (('a.mkv', 'libx264', 'yuv420p'), {'colorspace': 8}, 'yuv420p'),
    (('a.mp4', 'libx264', 'yuv444p10le'), {'colorspace': 8}, 'yuv444p10le'),
  ],
  'fewer_bits': [
    (('a.mkv', 'ffv1', 'gbrpf32le', {'strict': '-2'}), {}, 'yuv444p10le'),
  ],
  'no_alpha': [
    (('a.mkv', 'libvpx-vp9', 'yuva420p', {'deadline': 'realtime'}), {'transparent': True}, 'yuv420p'),
    (('a.mov', 'qtrle', 'argb'), {'transparent': True}, 'yuv444p'),
    (('a.mkv', 'ffv1', 'yuva444p10le'), {'transparent': True}, 'yuv444p10le'),
  ],
  'one_size': [(('a.ts', 'libx264', 'yuv420p'), {'shrinks': True}, 'yuv420p')],
  'deinterlace': [
    (('a.mkv', 'libx264', 'yuv420p', {'x264-params': 'tff=1'}), {}, 'yuv420p'),
    (('a.mp4', 'libx264', 'yuv422p10le', {'x264-params': 'tff=1'}), {}, 'yuv422p10le'),
  ],
  'constant_rate': [
    (('a.mkv', 'libx264', 'yuv420p'), {'times': [0, 40, 80, 120, 240, 280, 320, 400]}, 'yuv420p'),
    (('a.mp4', 'libx264', 'yuv444p'), {'times': [0, 40, 80, 120, 240, 280, 320, 400]}, 'yuv444p'),
  ],
}


def test_every_remedy_has_a_case():
  assert set(CASES) == set(remedies.NAMES)


@pytest.mark.parametrize(
  ('name', 'arguments', 'options', 'pix_fmt'),
  [pytest.param(name, *case, id=f'{name}-{case[0][0]}-{case[0][2]}') for name in CASES for case in CASES[name]],
)
def test_what_is_advised_works(tmp_path, name, arguments, options, pix_fmt):
  path, varies = make(tmp_path / arguments[0], *arguments[1:], **options), name == 'one_size'
  with pytest.raises(errors.VideoError) as caught:
    list(open_video(path, variable_rate=varies).frames())
  message = str(caught.value)
  assert '\n' not in message and str(path) in message and remedies._VIDEO[name][0] in message
  command = re.search(r'"(ffmpeg .*)"', message)[1]
  assert ' -map 0 ' in command and ' -c copy ' in command
  if not shutil.which('ffmpeg'):
    pytest.skip('what is advised was not run: no program ffmpeg on the PATH')
  output = tmp_path / command.split(' OUT')[1].join(['fixed', ''])
  words = {'IN': str(path), f'OUT{output.suffix}': str(output)}
  done = subprocess.run(
    [words.get(word, word) for word in shlex.split(command)], capture_output=True, text=True, stdin=subprocess.DEVNULL
  )
  assert done.returncode == 0, done.stderr
  found = open_video(output, deep=True, variable_rate=varies)
  assert found.pixel_format == pix_fmt
  frames = list(found.frames())
  # As many as there are frame times, 11 or, with how long the last one lasts, 12.
  assert len(frames) in {'constant_rate': (11, 12), 'one_size': (2 * COUNT,)}.get(name, (COUNT,))
  kinds = {stream.split()[0] for stream in found.other_streams}
  assert kinds == ({'audio'} if path.suffix == '.ts' else {'audio', 'subtitle'})
  first = frames[0] / np.iinfo(frames[0].dtype).max
  if name in ('fewer_bits', 'constant_rate', 'no_alpha'):
    assert np.abs(first - picture(0) / 255).mean() < 0.04
  assert first.std() > 0.05
