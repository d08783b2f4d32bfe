"""Measures the peak memory of `vqm_jax.enhance` for a short and a long version of the same video.

python benchmarks/enhance_memory.py
python benchmarks/enhance_memory.py --size=640x360 --seconds=10,120    # an hour on a CPU

The video is texture that moves, 25 frames a second, with sound. Each version is enhanced by a process of its own, as a
user starts it. Peak memory is that of the process as the system counts it (ru_maxrss); where JAX runs on a GPU, that of
the GPU is not in it. The last column is the peak over that of the shortest version: it shall stay below 1.05. Decoded
frames of 110 seconds at the default size are 126 MB, so that whoever kept them would show.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import av
import numpy as np
from absl import flags

from vqm_jax import cli, video

FPS, RATE = 25, 48000

_SIZE = flags.DEFINE_string('size', '160x96', 'Width and height of frames, even.')
_SECONDS = flags.DEFINE_list('seconds', ['10', '120'], 'Of the versions.')
_WEIGHTS = flags.DEFINE_string('weights', 'web-small', 'As of `vqm_jax.enhance`.')
_OUTPUT = flags.DEFINE_string('output', '.mp4', "The output's suffix; nothing for PNG images.")
flags.register_validator('size', lambda size: re.fullmatch(r'[1-9]\d*x[1-9]\d*', size), 'expected WIDTHxHEIGHT')


def write(path: pathlib.Path, width: int, height: int, seconds: float) -> None:
  """The first seconds of the video."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(40, 216, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
  texture = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('libx264', rate=FPS, options={'crf': '23', 'preset': 'veryfast'})
    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
    sound = output.add_stream('aac', rate=RATE, layout='mono')
    for t in range(round(seconds * FPS)):
      grain = rng.integers(0, 16, texture.shape, np.uint8)
      output.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(texture, 2 * t, axis=1) + grain, format='rgb24')))
      tone = np.sin(np.arange(t * RATE // FPS, (t + 1) * RATE // FPS) / 20)[None].astype(np.float32)
      samples = av.AudioFrame.from_ndarray(tone, 'fltp', 'mono')
      samples.sample_rate, samples.pts = RATE, t * RATE // FPS
      output.mux(sound.encode(samples))
    output.mux(stream.encode(None))
    output.mux(sound.encode(None))


def peak(source: pathlib.Path, output: pathlib.Path, weights: str) -> tuple[float, float]:
  """Peak memory in MB and seconds of a process that enhances `source`."""
  command = [sys.executable, '-m', 'vqm_jax.enhance', f'--input={source}', f'--output={output}', f'--weights={weights}']
  start = time.monotonic()
  process = subprocess.Popen(command, cwd=cli.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  text = process.stdout.read()
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    sys.exit(text.decode(errors='replace'))
  return usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 1e6, time.monotonic() - start


def main(argv: list[str]) -> None:
  del argv
  width, height = map(int, _SIZE.value.split('x'))
  least = None
  print(f'{"video":>8} {"frames":>7} {"peak MB":>8} {"s":>7}  over the shortest')
  with tempfile.TemporaryDirectory() as folder:
    for seconds in sorted(map(float, _SECONDS.value)):
      source = pathlib.Path(folder) / f'{seconds:g}.mp4'
      write(source, width, height, seconds)
      count = video.open_video(source).num_frames
      memory, took = peak(source, source.with_name(f'{seconds:g}_out{_OUTPUT.value}'), _WEIGHTS.value)
      least = least or memory
      print(f'{seconds:>6g} s {count:>7} {memory:>8.1f} {took:>7.1f}  {memory / least:.3f}', flush=True)


if __name__ == '__main__':
  cli.run(main)
