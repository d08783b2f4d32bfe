"""Measures SSIM of a frame against the form that it had before: moments by shifted adds, compiled.

python benchmarks/ssim.py
python benchmarks/ssim.py --size=960x540 --repeats=10

Both take turns on one thread. Seconds are of CPU time, which other work on the machine disturbs less: least and median.
Read the ratios on a busy machine. "off" is how far the two scores are apart.
"""

import functools
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence

# Before NumPy and JAX start: CPU time of idle threads that spin would count.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault('XLA_FLAGS', '--xla_cpu_multi_thread_eigen=false')

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vqm_jax import cli, metrics

_SIZE = flags.DEFINE_string('size', '1920x1080', 'Width and height of frames.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Measurements of each form.', lower_bound=1)
flags.register_validator('size', lambda size: re.fullmatch(r'[1-9]\d*x[1-9]\d*', size), 'expected WIDTHxHEIGHT')

_TAPS = tuple(np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2) / np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2).sum())


def before(pred: np.ndarray, target: np.ndarray) -> float:
  """SSIM of uint8 frames (H, W, 3), protocol ntire."""
  return float(np.asarray(_rows(pred, target)).mean(dtype=np.float64))


@jax.jit
def _rows(pred, target):
  x, y = (frame.transpose(2, 0, 1).astype(jnp.float32) for frame in (pred, target))
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  mean_x, mean_y, variances, covariance = _window(*_window(x, y, None, None, 1), 2)
  index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
  return (index / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))).mean(axis=2)


def _window(x, y, variances, covariance, axis):
  """Weighted means, summed variance and covariance along one axis, about the centre pixel."""
  shifted = functools.partial(_shifted, size=x.shape[axis] - len(_TAPS) + 1, axis=axis)
  centre_x, centre_y = (shifted(z, len(_TAPS) // 2) for z in (x, y))
  offset_x = offset_y = squares = products = 0.0
  for k, tap in enumerate(_TAPS):
    dx, dy = shifted(x, k) - centre_x, shifted(y, k) - centre_y
    offset_x += tap * dx
    offset_y += tap * dy
    squares += tap * (dx * dx + dy * dy)
    products += tap * (dx * dy)
    if variances is not None:
      squares += tap * shifted(variances, k)
      products += tap * shifted(covariance, k)
  squares -= offset_x * offset_x + offset_y * offset_y
  return centre_x + offset_x, centre_y + offset_y, squares, products - offset_x * offset_y


def _shifted(z, k, size, axis):
  return jax.lax.slice_in_dim(z, k, k + size, axis=axis)


def _seconds(form: Callable, *frames: np.ndarray) -> float:
  start = time.process_time()
  form(*frames)
  return time.process_time() - start


def main(_: Sequence[str]) -> None:
  """Prints a line for each form."""
  width, height = map(int, _SIZE.value.split('x'))
  rng = np.random.default_rng(0)
  coarse = rng.integers(40, 216, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
  target = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
  pred = target + rng.integers(0, 8, target.shape, np.uint8)
  off = abs(before(pred, target) - float(metrics.ssim(pred, target)))
  forms = {'before': before, 'now': metrics.ssim}
  times = {name: [] for name in forms}
  for _ in range(_REPEATS.value):
    for name, form in forms.items():
      times[name].append(_seconds(form, pred, target))
  print(f'{width}x{height}, {_REPEATS.value} turns, one thread; off {off:.1e}')
  for name, taken in times.items():
    print(f'{name:8} {min(taken):7.3f} {statistics.median(taken):7.3f}')
  least, middle = (of(times['before']) / of(times['now']) for of in (min, statistics.median))
  print(f'{"ratio":8} {least:7.2f} {middle:7.2f}')


if __name__ == '__main__':
  cli.run(main)
