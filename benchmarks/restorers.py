"""Measures training steps and restored frames of every system, and an EDVR against the same in PyTorch.

python benchmarks/restorers.py
python benchmarks/restorers.py --systems=gil,jojo --notorch
python benchmarks/restorers.py --size=full --height=1080 --width=1920 --notorch   # on a GPU: published networks

First table, one device: the experiment's training step on random bytes, and frames of a clip restored with cached
features (`inference.restore_frames`) and without (naive: the whole window for every frame), which take turns. Times
are medians, in ms. "compile" is what comes before the first step and the first frame, in seconds; "batch" is samples
x pixels; "paper" is the seconds per 1920x1080 frame that the report gives for the team, on its own card.

Second table: EDVR-M (64 channels, 5 frames, 5 + 10 blocks, float32, batch 1), ours and the one in
tests/golden/torch_edvr.py with the same parameters, in turns. Read the ratios, not the milliseconds, on a busy machine.
"""

import functools
import importlib
import importlib.util
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

from vqm_jax import cli, inference, published, restorers
from vqm_jax.inference.streaming import pad_to_multiple, to_uint8
from vqm_jax.training.supervised import Supervised

_SYSTEMS = flags.DEFINE_list('systems', [s for s in restorers.NETWORKS if s != 'none'], 'Of the first table.')
_SIZE = flags.DEFINE_enum('size', 'tiny', ['tiny', 'full'], 'Of the experiments.')
_DTYPES = flags.DEFINE_list('dtypes', None, 'Compute dtypes; float32, and bfloat16 where there is an accelerator.')
_TRAIN = flags.DEFINE_bool('train', True, 'Whether to measure training in the first table.')
_NAIVE = flags.DEFINE_bool('naive', True, 'Whether to measure restoring without cached features in the first table.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, "Samples of a step; the experiment's when left out.")
_HEIGHT = flags.DEFINE_integer('height', 96, 'Of restored frames.')
_WIDTH = flags.DEFINE_integer('width', 96, 'Of restored frames.')
_LENGTH = flags.DEFINE_integer('length', 10, 'Frames of the restored clip.', lower_bound=1)
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Measurements of each number.', lower_bound=1)
_TORCH = flags.DEFINE_bool('torch', None, 'Whether to print the second table; yes when PyTorch is installed.')
_TORCH_SIZE = flags.DEFINE_integer('torch_size', 256, 'Height and width of the frames in it; a multiple of 16.')

# Before PyTorch starts: otherwise its idle threads go on spinning and take our cores.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')


def _in_turns(forms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
  """Milliseconds of calls that take turns, after one call of each to warm up."""
  for run in forms.values():
    run()
  times = {name: [] for name in forms}
  for _ in range(repeats):
    for name, run in forms.items():
      start = time.perf_counter()
      run()
      times[name].append(1e3 * (time.perf_counter() - start))
  return times


def _experiment(system: str, size: str, dtype: str, **changes):
  config = importlib.import_module(f'experiments.{system}').get_config(size)
  config.update(dtype=dtype, grad_accum=1, **changes)
  return config


def _compile_step(config, params, device: jax.Device) -> tuple[Callable[[], Any], jax.stages.Compiled]:
  """Returns what makes one update from host to host, and its program."""
  trainer = Supervised(config, [device])
  shape = (config.batch_size, config.num_frames, config.crop, config.crop, 3)
  rng = np.random.default_rng(0)
  batch = {side: rng.integers(0, 256, shape, np.uint8) for side in ('lq', 'hq')}
  state = trainer.init(params)
  program, rate = trainer.lower(state, batch, (device.platform,)).compile(), np.float32(config.lr)

  def run():
    nonlocal state
    state, scalars = program(state, rate, batch)
    return jax.block_until_ready(scalars)

  return run, program


def train_step(config, params, device: jax.Device, repeats: int) -> tuple[float, float]:
  """Returns seconds before the first update and median ms of an update."""
  start = time.perf_counter()
  run, _ = _compile_step(config, params, device)
  before = time.perf_counter() - start
  return before, statistics.median(_in_turns({'step': run}, repeats)['step'])


def restore_naively(network: nnx.Module, frames: Sequence[np.ndarray], run: Callable) -> Iterator[np.ndarray]:
  """As `inference.restore_frames`, without reuse: `run` (of `naive_program`) on every window."""
  state, radius, ahead = nnx.state(network), network.num_frames // 2, None
  for t in range(len(frames)):
    indices = range(t - radius, t + radius + 1)
    restored = run(state, np.stack([frames[inference.reflect_index(i, len(frames))] for i in indices])[None])
    if ahead is not None:  # one frame is in flight, as there
      yield np.asarray(ahead)[0]
    ahead = restored
  yield np.asarray(ahead)[0]


def naive_program(network: nnx.Module) -> Callable:
  """Returns the compiled (state, uint8 window) -> uint8 frame."""
  graphdef = nnx.graphdef(network)

  @jax.jit
  def run(state, clip):
    network = nnx.merge(graphdef, state)
    height, width = clip.shape[2:4]
    clip = pad_to_multiple(clip.astype(jnp.float32) / 255, network.size_multiple)
    return to_uint8(network(clip)[:, :height, :width])

  return run


def restored_frame(
  network: nnx.Module, frames: Sequence[np.ndarray], device: jax.Device, repeats: int, naive: bool
) -> tuple[float, float, float]:
  """Returns seconds before the first frame, and median ms of a frame with and without cached features (or NaN)."""
  start = time.perf_counter()
  list(inference.restore_frames(network, frames, devices=[device]))
  before = time.perf_counter() - start
  forms = {'cached': lambda: list(inference.restore_frames(network, frames, devices=[device]))}
  if naive:
    run = naive_program(network)
    forms['naive'] = lambda: list(restore_naively(network, frames, run))
  medians = {name: statistics.median(values) / len(frames) for name, values in _in_turns(forms, repeats).items()}
  return before, medians['cached'], medians.get('naive', math.nan)


def measure_system(
  config, frames: Sequence[np.ndarray], device: jax.Device, repeats: int, train: bool, naive: bool
) -> str:
  """Returns one line of the first table."""
  with jax.default_device(device):
    network = inference.create_network(config)
  size = inference.count_params(network)
  training = f'{"-":>9} {"-":>9} {"-":>9} {"-":>8}'
  if train:
    before, step = train_step(config, nnx.to_pure_dict(nnx.state(network, nnx.Param)), device, repeats)
    batch = f'{config.batch_size}x{config.crop}'
    training = f'{batch:>9} {before:9.1f} {step:9.1f} {1e3 / step:8.2f}'
  before, cached, naive = restored_frame(network, frames, device, repeats, naive)
  return (
    f'{config.system:9} {config.dtype:9} {size / 1e6:8.3f} {training} {before:9.1f} {cached:9.2f} {naive:9.2f} '
    f'{naive / cached:6.2f}'
  )


def _all_systems(device: jax.Device) -> None:
  dtypes = _DTYPES.value or (['float32'] if device.platform == 'cpu' else ['float32', 'bfloat16'])
  height, width = _HEIGHT.value, _WIDTH.value
  frames = list(np.random.default_rng(0).integers(0, 256, (_LENGTH.value, height, width, 3), np.uint8))
  print(f'\nexperiments/*.py:{_SIZE.value}, frames of {height}x{width}')
  print(
    f'{"system":9} {"dtype":9} {"M params":>8} {"batch":>9} {"compile":>9} {"step":>9} {"steps/s":>8} '
    f'{"compile":>9} {"cached":>9} {"naive":>9} {"ratio":>6} paper',
    flush=True,
  )
  for system in _SYSTEMS.value:
    row = next(r for r in published.TRACK1 if system in r.systems)
    for dtype in dtypes:
      config = _experiment(system, _SIZE.value, dtype)
      config.batch_size = _BATCH_SIZE.value or config.batch_size
      line = measure_system(config, frames, device, _REPEATS.value, _TRAIN.value, _NAIVE.value)
      print(f'{line} {row.seconds} s {row.test_hardware}', flush=True)


def _edvr_programs(config, params, size: int, device: jax.Device) -> tuple[dict[str, Callable], dict[str, int], Any]:
  """Returns what to call by task, temporary bytes by task, and the restored frame of `_clip`."""
  network = nnx.merge(nnx.graphdef(Supervised(config, [device]).abstract_network()), params)
  graphdef, state = nnx.split(network)
  clip = jax.device_put(_clip(size), device)

  def compiled(function, *args):
    return jax.jit(function).lower(*args).compile()

  def cached_restore(state, features):
    window = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *features)
    return nnx.merge(graphdef, state).restore(window)

  naive = compiled(lambda state, clip: nnx.merge(graphdef, state)(clip), state, clip)
  encode = compiled(lambda state, frame: nnx.merge(graphdef, state).encode(frame), state, clip[:, :1])
  frames = [encode(state, clip[:, t : t + 1]) for t in range(network.num_frames)]
  restore = compiled(cached_restore, state, frames)
  frame = clip[:, -1:]
  train, step = _compile_step(config, params, device)
  tasks = {
    'train': train,
    'naive': lambda: jax.block_until_ready(naive(state, clip)),
    'cached': lambda: jax.block_until_ready(restore(state, [*frames[:-1], encode(state, frame)])),
  }
  programs = {'train': [step], 'naive': [naive], 'cached': [encode, restore]}
  memory = {task: max(p.memory_analysis().temp_size_in_bytes for p in used) for task, used in programs.items()}
  return tasks, memory, np.asarray(naive(state, clip))


def _torch_programs(config, params, size: int, memory_format: str) -> tuple[dict[str, Callable], Any]:
  """As `_edvr_programs`, without memory, which PyTorch does not tell."""
  import torch

  folder = str(cli.ROOT / 'tests' / 'golden')
  if folder not in sys.path:
    sys.path.append(folder)
  import torch_edvr

  where = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
  wait = torch.cuda.synchronize if where == 'cuda' else lambda: None
  network = torch_edvr.TorchEDVR(**config.system_args)
  network.load(params)
  # Training changes parameters, which inference is not to notice.
  trained = torch_edvr.TorchEDVR(**config.system_args)
  trained.load(params)
  arrange = functools.partial(torch.Tensor.contiguous, memory_format=getattr(torch, memory_format))
  for each in (network, trained):
    each.to(where, memory_format=getattr(torch, memory_format))
  optimizer = torch.optim.Adam(trained.parameters(), lr=config.lr, fused=True)
  clip = torch.from_numpy(_clip(size)).to(where).permute(0, 1, 4, 2, 3)
  frames = arrange(clip.flatten(0, 1))
  target = frames[2:3].clone()

  def predict(network):
    return network.restore(frames[2:3], network.encode(frames))

  def train():
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(predict(trained), target).backward()
    optimizer.step()
    wait()

  @torch.inference_mode()
  def naive():
    restored = predict(network)
    wait()
    return restored

  with torch.inference_mode():
    features = [network.encode(frames[t : t + 1]) for t in range(network.num_frames)]

  @torch.inference_mode()
  def cached():
    units = [*features[:-1], network.encode(frames[-1:])]
    restored = network.restore(frames[2:3], [torch.cat(scale) for scale in zip(*units, strict=True)])
    wait()
    return restored

  return {'train': train, 'naive': naive, 'cached': cached}, naive().permute(0, 2, 3, 1).cpu().numpy()


def _clip(size: int) -> np.ndarray:
  return np.random.default_rng(0).random((1, 5, size, size, 3), dtype=np.float32)


def against_torch(size: int, repeats: int, device: jax.Device, **args) -> dict[str, dict[str, list[float]]]:
  """Prints the second table; returns milliseconds by task and form.

  Args:
    size: height and width of frames.
    repeats: measurements of each number.
    device: ours.
    **args: of the network, in the place of EDVR-M's.
  """
  config = _experiment('tcl_edvr', 'full', 'float32', batch_size=1, crop=size, loss='l2', ema=0.0, clip_norm=0.0)
  config.loss_args, config.schedule, config.schedule_args, config.warmup = {}, 'constant', {}, 0.0
  config.system_args.update(num_blocks=10, **args)
  rng = np.random.default_rng(0)

  def draw(path, value):
    # Fresh guides are zero and read where a plain convolution does; these make offsets of about a pixel.
    guide = jax.tree_util.keystr(path, simple=True, separator='/').endswith('guide/kernel')
    return rng.normal(scale=0.1, size=value.shape).astype(np.float32) if guide else np.asarray(value)

  params = jax.tree_util.tree_map_with_path(draw, Supervised(config, [device]).fresh())
  ours, memory, expected = _edvr_programs(config, params, size, device)
  forms = {'ours': ours}
  for name, memory_format in (('torch', 'contiguous_format'), ('torch, channels last', 'channels_last')):
    forms[name], found = _torch_programs(config, params, size, memory_format)
    print(f'{name}: largest difference of the restored frame {np.abs(found - expected).max():.1e}')
  results = {}
  print(f'{"task":7} {"form":21} {"median":>9} {"range, ms":>17} {"/ours":>6} {"temporary":>10}')
  for task in ours:
    times = results[task] = _in_turns({name: tasks[task] for name, tasks in forms.items()}, repeats)
    for name, values in times.items():
      median = statistics.median(values)
      spread, ratio = f'[{min(values):.0f}-{max(values):.0f}]', median / statistics.median(times['ours'])
      temporary = f'{memory[task] / 1e6:.0f} MB' if name == 'ours' else '-'
      print(f'{task:7} {name:21} {median:9.1f} {spread:>17} {ratio:6.2f} {temporary:>10}', flush=True)
  return results


def _judge(goal: str, ratio: float, least: float) -> None:
  print(f'{goal}, at least {least}: {"met" if ratio >= least else "not met"} ({ratio:.2f})')


def _torch_table(device: jax.Device) -> None:
  import torch

  print(f'\nEDVR-M, 5 frames of {_TORCH_SIZE.value}x{_TORCH_SIZE.value}, torch {torch.__version__}', flush=True)
  results = against_torch(_TORCH_SIZE.value, _REPEATS.value, device)

  def ratio(theirs, task):
    best = min(statistics.median(values) for name, values in results[theirs].items() if name != 'ours')
    return best / statistics.median(results[task]['ours'])

  print("\nGoals, best of torch's medians / ours")
  _judge('training step', ratio('train', 'train'), 1.0)
  _judge("inference, ours with cached features, torch's with whole windows", ratio('naive', 'cached'), 1.5)
  print(f'inference, both with cached features: {ratio("cached", "cached"):.2f}')
  print(f'inference, both with whole windows: {ratio("naive", "naive"):.2f}')


def main(_: Sequence[str]) -> None:
  """Prints the tables, then a line for each goal."""
  device = jax.local_devices()[0]
  print(f'{device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores, jax {jax.__version__}', flush=True)
  _all_systems(device)
  with_torch = importlib.util.find_spec('torch') is not None if _TORCH.value is None else _TORCH.value
  if with_torch:
    _torch_table(device)


if __name__ == '__main__':
  cli.run(main)
