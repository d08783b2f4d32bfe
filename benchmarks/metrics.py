"""Measures how long the metrics of clips take for a frame, and how much memory.

python benchmarks/metrics.py
python benchmarks/metrics.py --metrics=lpips_vgg,tlp_vgg --frames=2   # minutes at 1080p on a CPU
python benchmarks/metrics.py --size=960x540 --frames=5

One candidate and its target, texture that moves; LPIPS with random weights, which take as long as real ones. Each
metric has a process of its own:

  first    seconds for what comes before the second frame: compilation and the first frame. A metric of neighbours has
           nothing to compare yet, and is compiled in part
  s/frame  median seconds for each further frame, with the one before it where the metric compares neighbours
  MB       by how much memory was above what it was before the first frame, at most

fd_lpips is the features of 20 patches of 299x299 pixels of a frame, with AlexNet.
"""

import concurrent.futures
import math
import multiprocessing
import os
import pathlib
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import flags

from vqm_jax import cli

PATCHES = 'fd_lpips'

_METRICS = flags.DEFINE_list('metrics', None, 'Names; all but those with VGG when left out.')
_SIZE = flags.DEFINE_string('size', '1920x1080', 'Width and height of frames.')
_FRAMES = flags.DEFINE_integer('frames', 3, 'Of the clip; the first is not timed.', lower_bound=2)
flags.register_validator('size', lambda size: re.fullmatch(r'[1-9]\d*x[1-9]\d*', size), 'expected WIDTHxHEIGHT')


def clip(width: int, height: int, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields candidates and targets, uint8 (H, W, 3): smooth texture that moves by 2 pixels, one side with grain."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(40, 216, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
  texture = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
  for t in range(frames):
    target = np.roll(texture, 2 * t, axis=1)
    yield target + rng.integers(0, 8, target.shape, np.uint8), target


def take(name: str) -> Callable[[np.ndarray, np.ndarray], None]:
  """Returns what takes metric `name` of the next candidate and target."""
  from vqm_jax import metrics

  # Nothing is looked for in the current folder: weights are random.
  nowhere = pathlib.Path(os.devnull) / 'weights'
  if name == PATCHES:
    weights = metrics.lpips_weights('alex', nowhere, allow_random=True)
    statistic = metrics.FeatureStatistics(1152)
    rng = np.random.default_rng(0)
    return lambda candidate, target: statistic.update(metrics.patch_features(candidate, weights, rng))
  scorer = metrics.by_name.create(name, perceptual_dir=nowhere, allow_random=True).start()
  return lambda candidate, target: scorer.add([candidate], target, target)


def measure(name: str, width: int, height: int, frames: int) -> tuple[float, float, float]:
  """Returns seconds for the first frame, median seconds for the others, and bytes; meant for a process of its own."""
  step = take(name)
  next(clip(width, height, 1))  # What making frames takes is no growth.
  before, taken = _resident('VmRSS'), []
  for candidate, target in clip(width, height, frames):
    start = time.perf_counter()
    step(candidate, target)
    taken.append(time.perf_counter() - start)
  return taken[0], statistics.median(taken[1:]), _resident('VmHWM') - before


def line(name: str, width: int, height: int, first: float, seconds: float, growth: float) -> str:
  """Returns one line of the table."""
  size = f'{width}x{height}'
  return f'{name:12} {size:>9} {first:8.2f} {seconds:8.3f} {growth / 1e6:7.0f}'.replace('nan', '  -')


def _resident(field: str) -> float:
  """Bytes of this process now (VmRSS) or at most until now (VmHWM); NaN where there is no /proc."""
  status = pathlib.Path('/proc/self/status')
  return 1024 * int(re.search(rf'{field}:\s+(\d+) kB', status.read_text())[1]) if status.exists() else math.nan


def main(_: Sequence[str]) -> None:
  """Prints a line for each metric."""
  import jax

  from vqm_jax.metrics import by_name

  names = _METRICS.value or [*(name for name in by_name.NAMES if not name.endswith('_vgg')), PATCHES]
  for name in names:  # before anything is measured
    if name != PATCHES:
      by_name.create(name, allow_random=True)
  width, height = map(int, _SIZE.value.split('x'))
  print(
    f'{jax.local_devices()[0].device_kind} ({jax.default_backend()}), {os.cpu_count()} CPU cores, jax {jax.__version__}'
    f'; {_FRAMES.value} frames; random LPIPS weights'
  )
  print(f'{"metric":12} {"size":>9} {"first":>8} {"s/frame":>8} {"MB":>7}', flush=True)
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
    for name in names:
      found = pool.submit(measure, name, width, height, _FRAMES.value).result()
      print(line(name, width, height, *found), flush=True)


if __name__ == '__main__':
  cli.run(main)
