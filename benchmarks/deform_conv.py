"""Measures the deformable convolution against three other ways to compute it, in time and temporary memory.

python benchmarks/deform_conv.py --shapes=1x64x64x64,8x64x64x64,1x270x480x64

naive        four gathers, im2col, one einsum, gradients by JAX: what one would write first
ours         vqm_jax.layers.deform_conv
grid_sample  PyTorch: grid_sample for each tap, then one matmul
torchvision  torchvision.ops.deform_conv2d

8 groups, float32 (on a GPU as each library computes it by default), offsets of about 2 px. PyTorch uses the GPU where
JAX does. The forms take turns, so that what else the machine does meets all of them; read the ratios, not the
milliseconds, on a busy machine those of the best times. PyTorch does not tell its temporary memory. Without PyTorch or
torchvision their lines say so.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vqm_jax import cli
from vqm_jax.layers.deform_conv import modulated_deform_conv2d

_SHAPES = flags.DEFINE_list('shapes', ['1x64x64x64', '8x64x64x64', '1x270x480x64'], 'NxHxWxC of the input.')
_REPEATS = flags.DEFINE_integer('repeats', 7, 'Measurements of each form.', lower_bound=1)
_GROUPS = 8

# Before PyTorch starts: otherwise its idle threads go on spinning and take the next form's core.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')


def naive(x, offset, mask, kernel, bias):
  """The form to beat. It stays as it is, so that ratios of different times can be compared.

  offset (N, H, W, G, K, 2), mask (N, H, W, G, K), as for PyTorch's forms.
  """
  n, h, w, c = x.shape
  groups, taps = mask.shape[3:]
  kh, kw = kernel.shape[:2]
  ky, kx = jnp.divmod(jnp.arange(taps), kw)
  py = jnp.arange(h)[:, None, None, None] + (ky - kh // 2) + offset[..., 0]
  px = jnp.arange(w)[None, :, None, None] + (kx - kw // 2) + offset[..., 1]
  y0, x0 = jnp.floor(py), jnp.floor(px)
  fy, fx = py - y0, px - x0
  rows = x.reshape(n * h * w * groups, c // groups)
  first = jnp.arange(n)[:, None, None, None, None]
  group = jnp.arange(groups)[:, None]
  columns = 0.0
  for dy, wy in ((0, 1 - fy), (1, fy)):
    for dx, wx in ((0, 1 - fx), (1, fx)):
      cy, cx = y0 + dy, x0 + dx
      inside = (cy >= 0) & (cy < h) & (cx >= 0) & (cx < w)
      iy = jnp.clip(cy, 0, h - 1).astype(jnp.int32)
      ix = jnp.clip(cx, 0, w - 1).astype(jnp.int32)
      index = ((first * h + iy) * w + ix) * groups + group
      columns += jnp.where(inside, wy * wx * mask, 0.0)[..., None] * rows[index]
  folded = kernel.reshape(taps, groups, c // groups, -1).swapaxes(0, 1)
  return jnp.einsum('nhwgkc,gkco->nhwo', columns, folded) + bias


def grid_sample_form(x, offset, mask, kernel, bias, stride=1, dilation=1):
  """The fastest form in plain PyTorch: the arguments of `modulated_deform_conv2d` as tensors -> (N, h, w, cout)."""
  import torch

  n, h, w, c = x.shape
  _, height, width, groups, taps = mask.shape
  kh, kw = kernel.shape[:2]
  images = x.permute(0, 3, 1, 2).reshape(n * groups, c // groups, h, w)
  offset, mask = offset.permute(4, 0, 3, 1, 2, 5), mask.permute(4, 0, 3, 1, 2)
  base_y = stride * torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
  base_x = stride * torch.arange(width, dtype=x.dtype, device=x.device)
  columns = []
  for k in range(taps):
    py = base_y + (k // kw - kh // 2) * dilation + offset[k, ..., 0]
    px = base_x + (k % kw - kw // 2) * dilation + offset[k, ..., 1]
    grid = torch.stack([2 * px / (w - 1) - 1, 2 * py / (h - 1) - 1], dim=-1).reshape(n * groups, height, width, 2)
    read = torch.nn.functional.grid_sample(images, grid, padding_mode='zeros', align_corners=True)
    columns.append((read * mask[k].reshape(n * groups, 1, height, width)).reshape(n, c, -1))
  columns = torch.cat(columns, dim=1)
  return torch.einsum('nkp,ko->npo', columns, kernel.reshape(taps * c, -1)).reshape(n, height, width, -1) + bias


def _torchvision_form(x, offset, mask, kernel, bias):
  import torchvision

  out = torchvision.ops.deform_conv2d(
    x.permute(0, 3, 1, 2),
    offset.flatten(3).permute(0, 3, 1, 2),
    kernel.permute(3, 2, 0, 1),
    bias,
    padding=(kernel.shape[0] // 2, kernel.shape[1] // 2),
    mask=mask.flatten(3).permute(0, 3, 1, 2),
  )
  return out.permute(0, 2, 3, 1)


def _jax_form(function: Callable, inputs: list[np.ndarray], backward: bool) -> tuple[Callable[[], None], int]:
  """Returns the compiled function and its temporary bytes."""

  def loss(*args):
    return jnp.square(function(*args)).sum()

  run = jax.jit(jax.grad(loss, range(len(inputs))) if backward else function).lower(*inputs).compile()
  arrays = jax.device_put(inputs)
  return lambda: jax.block_until_ready(run(*arrays)), run.memory_analysis().temp_size_in_bytes


def _torch_form(function: Callable, inputs: list[np.ndarray], backward: bool) -> tuple[Callable[[], None], None]:
  import torch

  device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
  tensors = [torch.tensor(v, requires_grad=backward, device=device) for v in inputs]

  def run():
    with torch.set_grad_enabled(backward):
      out = function(*tensors)
    if backward:
      torch.autograd.grad(out.square().sum(), tensors)
    if device == 'cuda':
      torch.cuda.synchronize()

  return run, None


def _inputs(n: int, h: int, w: int, c: int) -> list[np.ndarray]:
  rng = np.random.default_rng(0)
  x, kernel, bias = (rng.normal(size=s) for s in ((n, h, w, c), (3, 3, c, c), (c,)))
  offset, mask = rng.normal(size=(n, h, w, _GROUPS, 9, 2)), rng.random((n, h, w, _GROUPS, 9))
  return [v.astype(np.float32) for v in (x, 2 * offset, mask, kernel / np.sqrt(9 * c), bias)]


def _measure(shape: str, backward: bool) -> tuple[dict[str, float], dict[str, int]]:
  """Prints one table; returns the best times in ms and the temporary bytes by form."""
  inputs = _inputs(*map(int, shape.split('x')))
  x, offset, mask, *rest = inputs
  ours = [x, offset.transpose(0, 1, 2, 5, 4, 3), mask.swapaxes(3, 4), *rest]
  forms = {'naive': _jax_form(naive, inputs, backward), 'ours': _jax_form(modulated_deform_conv2d, ours, backward)}
  has_torch, has_torchvision = (importlib.util.find_spec(name) is not None for name in ('torch', 'torchvision'))
  if has_torch:
    forms['grid_sample'] = _torch_form(grid_sample_form, inputs, backward)
  if has_torch and has_torchvision:
    forms['torchvision'] = _torch_form(_torchvision_form, inputs, backward)
  times = {name: [] for name in forms}
  for name in list(forms) + list(forms) * _REPEATS.value:  # the first round warms up
    start = time.perf_counter()
    forms[name][0]()
    times[name].append(1e3 * (time.perf_counter() - start))
  times = {name: values[1:] for name, values in times.items()}
  medians = {name: statistics.median(values) for name, values in times.items()}
  best = {name: min(values) for name, values in times.items()}
  print(f'\n{shape} {"forward+backward" if backward else "forward"}')
  print(f'{"form":12} {"median":>9} {"range, ms":>19} {"median/ours":>12} {"best/ours":>10} {"temporary":>11}')
  for name in ('naive', 'ours', 'grid_sample', 'torchvision'):
    if name not in forms:
      print(f'{name:12} not installed')
      continue
    spread = f'[{best[name]:.1f}-{max(times[name]):.1f}]'
    ratios = f'{medians[name] / medians["ours"]:12.2f} {best[name] / best["ours"]:10.2f}'
    memory = '-' if forms[name][1] is None else f'{forms[name][1] / 1e6:.1f} MB'
    print(f'{name:12} {medians[name]:9.1f} {spread:>19} {ratios} {memory:>11}', flush=True)
  return best, {name: memory for name, (_, memory) in forms.items()}


def _judge(goal: str, value: float | None, met: Callable[[float], bool], unit: str) -> None:
  verdict = 'not measured' if value is None else f'{"met" if met(value) else "not met"} ({value:.1f}{unit})'
  print(f'{goal}: {verdict}')


def main(_: Sequence[str]) -> None:
  """Prints the tables, then a line for each goal."""
  print(f'{jax.local_devices()[0].device_kind}, {os.cpu_count()} CPU cores, jax {jax.__version__}')
  results = {(s, backward): _measure(s, backward) for s in _SHAPES.value for backward in (False, True)}
  small, large = (results.get((s, True), ({}, {})) for s in ('1x64x64x64', '1x270x480x64'))

  def ratio(name):
    return small[0][name] / small[0]['ours'] if name in small[0] else None

  def megabytes(memory):
    return memory['ours'] / 1e6 if memory else None

  print('\nGoals, forward+backward, best times')
  _judge('1x64x64x64: at least 4 times as fast as naive', ratio('naive'), lambda r: r >= 4, 'x')
  _judge(
    '1x64x64x64: level with grid_sample (at most 1.2 times its time)', ratio('grid_sample'), lambda r: r >= 1 / 1.2, 'x'
  )
  _judge('1x64x64x64: at most 40 MB of temporaries', megabytes(small[1]), lambda m: m <= 40, ' MB')
  _judge('1x270x480x64: at most 600 MB of temporaries', megabytes(large[1]), lambda m: m <= 600, ' MB')


if __name__ == '__main__':
  cli.run(main)
