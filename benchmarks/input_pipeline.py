"""Measures how fast training batches come from disk: against a plain loop over the records, and for published steps.

python benchmarks/input_pipeline.py --dataset=vqm_demo --config=tiles --data_dir=data
python benchmarks/input_pipeline.py --systems=ecnu,tcl_edvr --step_ms=ecnu:120,tcl_edvr:410
python benchmarks/input_pipeline.py --systems=tcl_edvr --steps=100   # on a GPU: published steps take minutes on a CPU

Without --dataset it prepares 32 records of random texture in a temporary folder. Ratios are of measurements that
follow each other; the samples per second depend on the machine and on what else it does.

Behind the first tables: how many samples per second are drawn where the data are on the device (`data_on_device`), for
which the host only says where they lie.

Last table: what a step of experiments/*.py draws, with the first of --workers. Records have the size that the
experiment asks for (its `dataset_config`); a --dataset without that config is read at --config. Times are in ms:

  keeps up  the shortest step for which the loader, with the machine to itself, is fast enough
  MB        by how much memory grew at most while it loaded; a worker counts from where the process itself began
  rule      what the docstring of `train_batches` says of that: for each thread a record and the samples of a batch,
            and the batches ahead
  step      a training step on one batch over and over; with --step_ms, the given time
  fed       a training step on the loader's batches; with --step_ms, a prediction
  lost      the share of `fed` that better loading would save, in percent
  wait      "data wait" of the training log, in percent: how long the loop waited for batches. Steps are only queued,
            so the device may be at work meanwhile, and this is more than what is lost

--steps measures the last four, without the first step and with no batches ahead, so let it be many. They are for a
GPU: on a CPU, loader and step share the cores, and a step slows down without waiting for anything.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib
import io
import itertools
import math
import multiprocessing
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.ndimage
import tensorflow_datasets as tfds
from absl import flags

from vqm_jax import cli, data
from vqm_jax.data.records import Records, prepared_configs

_DATASET = flags.DEFINE_string('dataset', None, 'Name of a prepared data set.')
_CONFIG = flags.DEFINE_string('config', 'tiles', 'Config of the data set.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where records are; default $TFDS_DATA_DIR.')
_WORKERS = flags.DEFINE_multi_integer('workers', [0, 2], 'Number of worker processes to try; may be repeated.')
_SECONDS = flags.DEFINE_float('seconds', 3, 'Duration of each measurement.', lower_bound=0.1)
_SYSTEMS = flags.DEFINE_list(
  'systems', ['ecnu', 'gil', 'tcl_edvr', 'tcl_unet', 'jojo', 'gtq', 'boss_f1', 'seventh'], 'Of the last table.'
)
_SIZE = flags.DEFINE_enum('size', 'full', ['tiny', 'full'], 'Of the experiments.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, "Samples of a step; the experiment's when left out.")
_STEPS = flags.DEFINE_integer('steps', 0, 'Training steps to measure for each system.', lower_bound=0)
_STEP_MS = flags.DEFINE_list('step_ms', [], 'Steps that were measured elsewhere, system:ms.')
flags.register_validator(
  'step_ms', lambda given: all(re.fullmatch(r'\w+:\d+(\.\d+)?', text) for text in given), 'expected system:ms'
)

# What `open_source` takes.
Names = tuple[str, str, str, str | None]


@dataclasses.dataclass(kw_only=True)
class TextureConfig(tfds.core.BuilderConfig):
  """Records of `num_frames` frames of `size` x `size` pixels."""

  num_frames: int = 7
  size: int = 256
  codec: str = 'webp'


class TextureTiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """32 pairs of windows on smooth noise that moves, with grain; the degraded side has none."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [TextureConfig(name='webp'), TextureConfig(name='png', codec='png')] + [
    TextureConfig(name=f'tiles_t{frames}p{size}', num_frames=frames, size=size)
    for frames, size in ((5, 128), (1, 256), (1, 128), (1, 96))  # of experiments
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    strip = data.FrameStrip(config.num_frames, config.size, config.size, codec=config.codec)
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'lq': strip, 'hq': strip}))

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    return {'train': self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(0)
    frames, size = self.builder_config.num_frames, self.builder_config.size
    texture = scipy.ndimage.gaussian_filter(rng.normal(size=(384, 384, 3)), (3, 3, 0), mode='wrap')
    texture = 128 + 30 * texture / texture.std()
    for record in range(32):
      smooth = np.stack([np.roll(texture, (9 * record + t, t), (0, 1))[:size, :size] for t in range(frames)])
      grain = rng.normal(scale=2, size=smooth.shape)
      lq, hq = (side.clip(0, 255).astype(np.uint8) for side in (smooth, smooth + grain))
      yield record, {'lq': lq, 'hq': hq}


def prepare(config: str, folder: str) -> Names:
  """Writes textures, unless they are there; those of 'webp' for a config that has none of its own."""
  config = config if config in TextureTiles.builder_configs else 'webp'
  builder = TextureTiles(config=config, data_dir=folder, file_format='array_record')
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its own account.
    builder.download_and_prepare(
      download_dir=pathlib.Path(folder) / 'downloads',
      download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
  return builder.name, config, 'train', folder


def _rate(step: Callable[[], int], seconds: float) -> float:
  """Samples per second of calls of `step`, each of which returns how many samples it drew."""
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds:
    count += step()
  return count / elapsed


def _measure(source) -> None:
  shape = source.dataset_info.features['lq'].shape
  records = Records(source, ('lq', 'hq'))
  indices = itertools.cycle(range(len(records)))
  split = source.dataset_info.splits[source.split]

  def one_record() -> int:
    records[next(indices)]
    return 1

  _rate(one_record, _SECONDS.value)  # Reads the files once.
  alone = _rate(one_record, _SECONDS.value)
  print(
    f'\n{source.dataset_info.full_name}: {len(source)} records of {shape[0]} frames {shape[1]}x{shape[2]}, '
    f'{split.num_bytes / split.num_examples / 1e3:.0f} kB each, decoded in {1e3 / alone:.1f} ms'
  )
  print('workers  crop  batch  samples/s  plain loop  ratio')
  for workers, (crop, batch) in itertools.product(_WORKERS.value, [(shape[1] // 2, 8), (shape[1] // 4, 32)]):
    with data.train_batches(
      source, num_frames=shape[0], crop=crop, batch_size=batch, seed=0, num_workers=workers
    ) as batches:
      next(batches)  # Starts threads and workers.
      fast = _rate(lambda: len(next(batches)['lq']), _SECONDS.value)  # noqa: B023
    plain = _rate(one_record, _SECONDS.value)
    print(f'{workers:7d} {crop:5d} {batch:6d} {fast:10.1f} {plain:11.1f} {fast / plain:6.2f}', flush=True)
  tables = data.Tables([source], 'paired')
  with data.train_batches(source, num_frames=1, crop=1, batch_size=32, seed=0, read=tables.read) as batches:
    next(batches)
    drawn = _rate(lambda: len(next(batches)['lq']), _SECONDS.value)
  print(f'with data_on_device, {tables.nbytes / 1e6:.0f} MB: {drawn:.1f} samples/s are drawn', flush=True)


def _ahead(workers: int) -> tuple[int, int]:
  """Threads that decode and batches that are being made or wait, as the docstring of `train_batches` has it."""
  return (2 * workers, 6 * workers) if workers else (min(4, os.cpu_count() or 1), 4)


def memory_rule(record: Sequence[int], config, workers: int) -> int:
  """Bytes that the docstring of `train_batches` allows for records of a shape (T, H, W, 3)."""
  threads, batches = _ahead(workers)
  batch = config.batch_size * config.num_frames * config.crop**2 * 3
  return 2 * (threads * (math.prod(record) + batch) + batches * batch)  # lq and hq


def _resident(field: str, process: int) -> float:
  """Bytes of a process now (VmRSS) or at most until now (VmHWM); NaN where there is no /proc."""
  status = pathlib.Path(f'/proc/{process}/status')
  return 1024 * int(re.search(rf'{field}:\s+(\d+) kB', status.read_text())[1]) if status.exists() else math.nan


def load_alone(names: Names, sample: dict[str, int], workers: int, seconds: float) -> tuple[float, float]:
  """Returns samples per second and the bytes by which memory grew; meant for a process of its own."""
  source = data.open_source(*names)
  Records(source, ('lq', 'hq'))[0]  # Loads the decoder.
  before = _resident('VmRSS', os.getpid())
  with data.train_batches(source, **sample, seed=0, num_workers=workers) as batches:
    for _ in range(_ahead(workers)[1]):
      next(batches)
    rate = _rate(lambda: len(next(batches)['lq']), seconds)
    processes = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
    # Workers import what this process had imported by then.
    growth = sum(_resident('VmHWM', process) - before for process in processes)
  return rate, growth


def train_fed(config, batches: Iterator[dict[str, np.ndarray]], ahead: int, steps: int) -> tuple[float, float, float]:
  """Returns ms of a training step on one batch and on `batches`, and the share that the loop calls data wait."""
  import jax  # Here, so that workers go without.

  from vqm_jax.training import loop
  from vqm_jax.training.supervised import Supervised

  trainer = Supervised(config)
  state = trainer.init(trainer.fresh())

  def run(batches, steps):
    nonlocal state
    meter, pending = loop._Meter(), []
    for _ in range(steps):
      state, scalars = trainer.update(state, meter.draw(batches), 0)
      pending.append(scalars)
    jax.device_get(pending)
    rates = meter.read(config.batch_size, trainer.updates_per_step)
    return 1e3 / rates['train/steps_per_s'], rates['train/data_wait']

  batch = next(batches)
  run(itertools.repeat(batch), 1)  # Compiles.
  alone, _ = run(itertools.repeat(batch), steps)
  for _ in range(ahead):  # They were made in the meantime, for which no step had to wait.
    next(batches)
  return alone, *run(batches, steps)


def predict_fed(step: float, keeps_up: float) -> tuple[float, float, float]:
  """As `train_fed`, for a step of that many ms where the loader delivers a batch every `keeps_up` ms."""
  return step, max(step, keeps_up), math.nan


def published_step(config, names: Names, workers: int, load: Callable, steps: int, step_ms: float | None) -> str:
  """Returns one line of the last table; `load` is `load_alone`, or calls it elsewhere."""
  source = data.open_source(*names)
  record = source.dataset_info.features['lq'].shape
  sample = dict(num_frames=config.num_frames, crop=config.crop, batch_size=config.batch_size)
  line = f'{config.system:9} {"x".join(map(str, record[:2])):>7} {"x".join(map(str, sample.values())):>8}'
  if config.num_frames > record[0] or config.crop > min(record[1:3]):
    return f'{line}  needs records of {config.num_frames} frame(s) of {config.crop}x{config.crop} or more'
  rate, growth = load(names, sample, workers)
  keeps_up = 1e3 * config.batch_size / rate
  times = (math.nan,) * 3
  if steps:
    with data.train_batches(source, **sample, seed=0, num_workers=workers) as batches:
      times = train_fed(config, batches, _ahead(workers)[1], steps)
  elif step_ms is not None:
    times = predict_fed(step_ms, keeps_up)
  step, fed, wait = times
  line += f' {rate:9.1f} {keeps_up:8.1f} {growth / 1e6:6.0f} {memory_rule(record, config, workers) / 1e6:6.0f}'
  line += f' {step:9.1f} {fed:9.1f} {100 * (1 - step / fed):5.0f} {100 * wait:5.0f}'
  return line.replace('nan', '  -')


def _published_steps(names_of: Callable[[str], Names]) -> None:
  """Prints the last table; `names_of` tells the records of an experiment's `dataset_config`."""
  workers = _WORKERS.value[0]
  step_ms = {system: float(ms) for system, ms in (text.split(':') for text in _STEP_MS.value)}
  print(f'\nPublished steps: experiments/*.py:{_SIZE.value}, frames x crop x batch, {workers} workers')
  print(
    f'{"system":9} {"records":>7} {"batch":>8} {"samples/s":>9} {"keeps up":>8} {"MB":>6} {"rule":>6} '
    f'{"step":>9} {"fed":>9} {"lost":>5} {"wait":>5}',
    flush=True,
  )
  # Each in a process of its own: memory that was used before and given back would hide growth.
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
    for system in _SYSTEMS.value:
      config = importlib.import_module(f'experiments.{system}').get_config(_SIZE.value)
      config.batch_size = _BATCH_SIZE.value or config.batch_size
      names = names_of(config.dataset_config)
      load = lambda *args: pool.submit(load_alone, *args, _SECONDS.value).result()  # noqa: E731
      print(published_step(config, names, workers, load, _STEPS.value, step_ms.get(system)), flush=True)


def main(_: Sequence[str]) -> None:
  """Prints one table for each source, and that of published steps."""
  if _DATASET.value:
    source = data.open_source(_DATASET.value, _CONFIG.value, 'train', _DATA_DIR.value)
    _measure(source)
    prepared = prepared_configs(pathlib.Path(source.dataset_info.data_dir).parents[2], _DATASET.value)
    _published_steps(
      lambda config: (_DATASET.value, config if config in prepared else _CONFIG.value, 'train', _DATA_DIR.value)
    )
    return
  tfds.disable_progress_bar()
  with tempfile.TemporaryDirectory() as folder:
    for codec in ('webp', 'png'):
      _measure(data.open_source(*prepare(codec, folder)))
    _published_steps(lambda config: prepare(config, folder))


if __name__ == '__main__':
  cli.run(main)
