"""Measures `vqm_jax.enhance` from file to file, each of its stages by itself, and the ratio to the slowest of them.

python benchmarks/enhance.py                                # a network without arithmetic: what is around it
python benchmarks/enhance.py --device_ms=40                 # beside a device that takes 40 ms a frame, and no core
python benchmarks/enhance.py --weights=web-tcl --size=1920x1080 --frames=500    # on a GPU
python benchmarks/enhance.py --systems=tcl_edvr,gil --dtype=bfloat16 --size=1920x1080 --frames=500    # on a GPU

Stages, in ms a frame:

  looking    the look for damage before the work (not a part of what follows)
  decoding   of the file, and the way to RGB
  network    frames in memory to frames in memory: cuts, transfers, arithmetic
  encoding   frames in memory to segments: the way from RGB, H.264
  file       all at once, from the file to the file, with the joining of segments at the end

`ratio` is file over the slowest of decoding, network and encoding: 1 where they overlap without loss. `cores` is the
time that all cores were at work for a frame, divided by their number: file cannot be less, and where it is more than
the slowest stage, as on a CPU, `ratio` cannot be 1. The video is texture that moves, unless --input is given. Numbers
are medians of turns; a stage has what the machine leaves it.
"""

import contextlib
import importlib
import itertools
import os
import pathlib
import re
import statistics
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import jax
import numpy as np
from absl import flags

from vqm_jax import cli, inference, restorers, video
from vqm_jax.enhancing import clip
from vqm_jax.enhancing.restoring import Restoring
from vqm_jax.video import segments

STAGES = ('looking', 'decoding', 'network', 'encoding', 'file')

_INPUT = flags.DEFINE_string('input', None, 'A video; texture that moves if left out.')
_SIZE = flags.DEFINE_string('size', '1280x720', 'Width and height of that, even.')
_FRAMES = flags.DEFINE_integer('frames', 100, 'Frames of that.', lower_bound=1)
_WEIGHTS = flags.DEFINE_list('weights', [], 'Names of weights that ship, to restore with.')
_SYSTEMS = flags.DEFINE_list('systems', [], 'Networks of published size, untrained, to restore with.')
_DTYPE = flags.DEFINE_enum('dtype', 'bfloat16', ['float32', 'bfloat16'], 'Of the arithmetic of --systems.')
_DEVICE_MS = flags.DEFINE_float('device_ms', 0.0, 'Of the network without arithmetic: how long it waits for a frame.')
_OUTPUT = flags.DEFINE_string('output', '.mp4', "The output's suffix; nothing for PNG images.")
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Turns.', lower_bound=1)
flags.register_validator('size', lambda size: re.fullmatch(r'[1-9]\d*x[1-9]\d*', size), 'expected WIDTHxHEIGHT')

# Frames in memory for the stages that read no file: they go round.
_HELD = 32


class Waiting(restorers.base.SingleFrameRestorer):
  """The frame as it came, `seconds` later: a device that takes so long and leaves the cores alone."""

  size_multiple = 1

  def __init__(self, seconds: float):
    self.seconds = seconds

  def restore_frame(self, frame: jax.Array) -> jax.Array:
    """frame (B, H, W, 3) -> the same."""

    def wait(value):
      time.sleep(self.seconds)
      return value

    pixel = frame[0, 0, 0, 0]
    return frame.at[0, 0, 0, 0].set(jax.pure_callback(wait, jax.ShapeDtypeStruct((), pixel.dtype), pixel))


def texture(width: int, height: int, count: int) -> Iterator[np.ndarray]:
  """Frames uint8 (height, width, 3): smooth noise that moves, with grain."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(40, 216, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
  whole = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
  grain = rng.integers(0, 8, (16, *whole.shape), np.uint8)
  for t in range(count):
    yield np.roll(whole, 2 * t, axis=1) + grain[t % len(grain)]


def write(path: pathlib.Path, width: int, height: int, count: int) -> None:
  """The video of `texture`, coded as videos of the web are."""
  frames = (video.rgb_to_yuv(frame, video.default_colour(height)) for frame in texture(width, height, count))
  video.encode(frames, path, fps=Fraction(25), colour=video.default_colour(height), crf=28, preset='veryfast')


def stages(
  restore: clip.Restore, path: pathlib.Path, folder: pathlib.Path, suffix: str = '.mp4'
) -> dict[str, Callable[[], None]]:
  """Makes functions that do the work of each of STAGES once, for all frames of a video; `folder` takes the files."""
  source = video.open_video(path, variable_rate=True)
  video.examine(source)
  held = list(source.frames(0, min(_HELD, source.num_frames)))
  output = folder / f'out{suffix}'

  def looking():
    video.examine(video.open_video(path, variable_rate=True))

  def decoding():
    for _ in video.prefetch(video.frame_jobs(source), work=lambda job: job()):
      pass

  def network():
    def read(first: int) -> Iterator[np.ndarray]:
      return (frame for frame in itertools.islice(itertools.cycle(held), source.num_frames - first))

    with contextlib.closing(restore(read, 0, [])) as pairs:
      for _ in pairs:
        pass

  def encoding():
    size = dict(height=source.height, width=source.width)
    with segments.SegmentedOutput(output, source, codec=None, **size) as writing:
      with video.in_background(types.SimpleNamespace(write=writing.append), work=writing.prepare) as writer:
        for frame in itertools.islice(itertools.cycle(held), source.num_frames):
          writer.write(frame)
      writing.join()

  def file():
    clip.enhance_video(restore, source, output)

  return dict(zip(STAGES, (looking, decoding, network, encoding, file), strict=True))


def measure(work: dict[str, Callable[[], None]], frames: int, repeats: int) -> tuple[dict[str, float], float]:
  """Medians of ms a frame by stage, of turns after one to warm up; and of the cores' ms a frame from file to file."""
  times, cores = {name: [] for name in work}, []
  for turn in range(repeats + 1):
    for name, run in work.items():
      if not turn and name != 'file':
        continue
      before, start = time.process_time(), time.perf_counter()
      run()
      if turn:
        times[name].append(1e3 * (time.perf_counter() - start) / frames)
        if name == 'file':
          cores.append(1e3 * (time.process_time() - before) / frames)
  return {name: statistics.median(found) for name, found in times.items()}, statistics.median(cores)


def line(name: str, found: dict[str, float], cores: float) -> str:
  """One line of the table."""
  slowest = max(('decoding', 'network', 'encoding'), key=found.get)
  ratio = found['file'] / found[slowest]
  columns = ' '.join(f'{found[stage]:9.2f}' for stage in STAGES)
  return f'{name:12} {columns} {ratio:6.2f} of {slowest:9} {cores / os.cpu_count():7.2f} {1e3 / found["file"]:7.1f}'


def conversions(path: pathlib.Path, count: int = 12) -> tuple[float, float, float]:
  """Medians of a thread's ms for a frame: to RGB, from RGB, and from a copy of it, as it was before."""
  source = video.open_video(path, variable_rate=True)
  frame = next(source.yuv_frames())
  rgb = video.yuv_to_rgb(frame, source.colour)

  def copied():
    copy = av.VideoFrame.from_ndarray(rgb, format='rgb24').to_ndarray()
    return video.rgb_to_yuv(copy, source.colour)

  def median(run):
    times = []
    for _ in range(count):
      start = time.thread_time()
      run()
      times.append(1e3 * (time.thread_time() - start))
    return statistics.median(times)

  forms = (lambda: video.yuv_to_rgb(frame, source.colour), lambda: video.rgb_to_yuv(rgb, source.colour), copied)
  return tuple(map(median, forms))


def _networks() -> Iterator[tuple[str, inference.Run]]:
  if not _WEIGHTS.value and not _SYSTEMS.value:
    network = Waiting(_DEVICE_MS.value / 1e3) if _DEVICE_MS.value else restorers.create('none', rngs=None)
    yield f'{_DEVICE_MS.value:g} ms', inference.Run(network, {'system': 'none'}, pathlib.Path(), 0, 0, False, 0, None)
  for name in _WEIGHTS.value:
    yield name, inference.open_weights(name)
  for system in _SYSTEMS.value:
    config = importlib.import_module(f'experiments.{system}').get_config()
    config.dtype = _DTYPE.value
    network = inference.create_network(config)
    yield system, inference.Run(network, config.to_dict(), pathlib.Path(), 0, 0, False, 0, None)


def main(argv: list[str]) -> None:
  del argv
  device = jax.local_devices()[0]
  print(f'{device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores, jax {jax.__version__}')
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(_INPUT.value or f'{folder}/in.mp4')
    if not _INPUT.value:
      write(path, *map(int, _SIZE.value.split('x')), _FRAMES.value)
    source = video.open_video(path, variable_rate=True)
    to_rgb, back, copied = conversions(path)
    print(f'{video.describe(source)}; ms a frame')
    print(f'one thread: to RGB {to_rgb:.2f}, from RGB {back:.2f}, with a copy of it {copied:.2f}')
    print(
      f'{"network":12} {" ".join(f"{stage:>9}" for stage in STAGES)} {"ratio":>6}    {"":9} {"cores":>7} {"fps":>7}'
    )
    for name, run in _networks():
      restore = Restoring(run, devices=[device]).at(1.0)
      found = measure(stages(restore, path, pathlib.Path(folder), _OUTPUT.value), source.num_frames, _REPEATS.value)
      print(line(name, *found), flush=True)


if __name__ == '__main__':
  cli.run(main)
