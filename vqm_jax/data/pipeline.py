"""Training batches from prepared records, on Grain.

The order of samples, their crops and their augmentation are a pure function of the seed and the
global sample index. The number of samples drawn so far is therefore the whole state of the
iterator: a run resumes by position alone, for any number of workers or processes.
"""

import dataclasses
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags

from vqm_jax import errors
from vqm_jax.data.features import FrameStrip
from vqm_jax.data.records import UNREADABLE, DataSource, Records, describe, prepared_configs

# Grain's own defaults (16 threads, 500 elements) would hold gigabytes of batches. Each thread makes a whole batch.
_THREADS = min(4, os.cpu_count() or 1)
_BATCHES_AHEAD = 4
_THREADS_OF_WORKER = 2
_BATCHES_AHEAD_OF_WORKER = 2


class Batches(Iterator[dict[str, np.ndarray]]):
  """Endless batches {'lq', 'hq'}: uint8 (b, T, crop, crop, 3). Close it, or use it in `with`."""

  def __init__(self, iterator: grain.DatasetIterator, shared_memory: bool):
    self._iterator: grain.DatasetIterator | None = iterator
    self._shared_memory = shared_memory

  def __next__(self) -> dict[str, np.ndarray]:
    if self._iterator is None:
      raise ValueError('These batches have been closed.')
    batch = next(self._iterator)
    if self._shared_memory:
      # Grain frees a block of shared memory with its array, which a caller may hold for ever.
      batch = {name: np.array(array) for name, array in batch.items()}
    return batch

  def close(self) -> None:
    """Stops threads and worker processes and frees their memory."""
    if self._iterator is not None:
      self._iterator.close()
      # Grain's iterator complains when the interpreter deletes it at exit.
      self._iterator = None

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def train_batches(
  sources: DataSource | Sequence[DataSource],
  *,
  num_frames: int,
  crop: int,
  batch_size: int,
  seed: int,
  start: int = 0,
  num_workers: int = 0,
  augment: bool = True,
  process_index: int = 0,
  process_count: int = 1,
  weights: Sequence[float] = (),
) -> Batches:
  """Endless batches {'lq', 'hq'}: uint8 (batch_size / process_count, num_frames, crop, crop, 3).

  Each epoch is shuffled anew. A sample is the window of `num_frames` frames in the middle of its record, cut at a
  random place, the same for lq and hq. Memory: each thread decodes one record, and at most 4 batches are being made or
  wait, with workers 6 for each of them.

  Args:
    sources: from `open_source`; records with FrameStrips `lq` and `hq`. Several are mixed, each shuffled by itself.
    num_frames, crop: size of a sample in time and space, at most that of a record.
    batch_size: samples in a batch over all processes.
    seed: 0 <= seed < 2**32.
    start: number of samples drawn before, over all processes.
    num_workers: processes that decode, with 2 threads each; 0 decodes in up to 4 threads of this process, which is
      enough unless the accelerator waits. Programs that use workers need the `__main__` guard.
    augment: apply one of the 8 symmetries of the square, the same to lq and hq.
    process_index, process_count: this process takes global samples `start + process_index`,
      `start + process_index + process_count`, ...
    weights: how often each of several sources is drawn from, in proportion; equally often when left out.

  Raises:
    ConfigError: an argument out of range.
    DataError: records too small or of another kind; later, a record that cannot be read.
  """
  _check_arguments(batch_size, seed, start, num_workers, process_index, process_count)
  sources = [sources] if isinstance(sources, DataSource) else list(sources)
  for source in sources:
    check_records(source, num_frames, crop)
  shuffled = [
    grain.MapDataset.source(Records(source, ('lq', 'hq'))).seed((seed + k) % 2**32).shuffle().repeat()
    for k, source in enumerate(sources)
  ]
  samples = _mixed(shuffled, weights, seed).random_map(_Window(num_frames, crop, augment))
  if num_workers and not flags.FLAGS.is_parsed():
    # Grain asks absl about profiling when it starts workers; notebooks and tests parse no flags.
    flags.FLAGS.mark_as_parsed()
  # Slicing after the random map keeps each sample's randomness tied to its global index.
  batches = samples[start + process_index :: process_count].batch(batch_size // process_count, drop_remainder=True)
  threads, ahead = (_THREADS_OF_WORKER, _BATCHES_AHEAD_OF_WORKER) if num_workers else (_THREADS, _BATCHES_AHEAD)
  # Workers go over whole batches: splitting samples among them would change the order.
  iterator = iter(
    batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)).mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=ahead),
      worker_init_fn=_init_worker,
    )
  )
  return Batches(iterator, shared_memory=num_workers > 0)


def _mixed(datasets: Sequence[grain.MapDataset], weights: Sequence[float], seed: int) -> grain.MapDataset:
  check_weights(weights, len(datasets))
  return datasets[0] if len(datasets) == 1 else grain.MapDataset.mix(datasets, weights or None).seed(seed)


def _init_worker(index: int, count: int) -> None:
  """Ties a worker's life to the main process."""
  del index, count
  # Ctrl-C and a scheduler's SIGTERM reach every process; the main one decides what they mean.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
  # A main process killed outright cannot tell its workers to stop.
  multiprocessing.parent_process().join()
  os._exit(1)


@dataclasses.dataclass(frozen=True)
class _Window(grain.transforms.RandomMap):
  """Cuts the same window out of lq and hq and mirrors both alike."""

  num_frames: int
  crop: int
  augment: bool

  def random_map(self, element: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    frames, height, width, _ = element['lq'].shape
    t = (frames - self.num_frames) // 2
    y = int(rng.integers(height - self.crop + 1))
    x = int(rng.integers(width - self.crop + 1))
    symmetry = int(rng.integers(8)) if self.augment else 0
    window = np.s_[t : t + self.num_frames, y : y + self.crop, x : x + self.crop]
    # A contiguous copy lets go of the full record, of which a whole batch would be kept alive.
    return {name: np.ascontiguousarray(_symmetry(strip[window], symmetry)) for name, strip in element.items()}


def _symmetry(frames: np.ndarray, index: int) -> np.ndarray:
  """One of the 8 symmetries of the square, for frames (T, H, H, 3)."""
  if index & 1:
    frames = frames[:, ::-1]
  if index & 2:
    frames = frames[:, :, ::-1]
  if index & 4:
    frames = frames.swapaxes(1, 2)
  return frames


def _check_arguments(batch_size, seed, start, num_workers, process_index, process_count) -> None:
  if not 0 <= seed < 2**32:
    raise errors.ConfigError(f'seed={seed}: expected a whole number from 0 to 2**32 - 1.')
  if start < 0:
    raise errors.ConfigError(f'start={start}: expected the number of samples drawn, 0 or more.')
  if num_workers < 0:
    raise errors.ConfigError(f'num_workers={num_workers}: expected 0 or more.')
  if not 0 <= process_index < process_count:
    raise errors.ConfigError(f'process_index={process_index} of process_count={process_count}.')
  if batch_size < 1 or batch_size % process_count:
    raise errors.ConfigError(f'batch_size={batch_size}: expected a multiple of the {process_count} processes.')


def check_weights(weights: Sequence[float], count: int) -> None:
  """Raises ConfigError unless `weights` is empty or has a positive number for each of `count` sources."""
  if weights and (len(weights) != count or min(weights) <= 0):
    raise errors.ConfigError(f'mix_weights={tuple(weights)}: expected {count} positive numbers, one for each source.')


def check_records(source: DataSource, num_frames: int, crop: int) -> None:
  """Checks that samples of this size can be cut out of the records.

  Raises:
    ConfigError: a size below 1.
    DataError: records too small, with a config that fits, or records of another kind.
  """
  if num_frames < 1 or crop < 1:
    raise errors.ConfigError(f'num_frames={num_frames}, crop={crop}: expected 1 or more.')
  features = source.dataset_info.features
  strip = _paired_strip(features)
  if strip is None:
    found = ', '.join(f'{field}={features[field]}' for field in ('lq', 'hq') if field in features)
    raise errors.DataError(
      f'{describe(source)}: expected FrameStrips lq and hq of one size to train from, found '
      f'{found or "neither"}; {_configs_that_fit(source, num_frames, crop)}.'
    )
  if not _fits(strip, num_frames, crop):
    raise errors.DataError(
      f'{describe(source)}: its records are {_size(strip)}, too small for num_frames={num_frames}, '
      f'crop={crop}; {_configs_that_fit(source, num_frames, crop)}.'
    )


def _paired_strip(features: tfds.features.FeaturesDict) -> FrameStrip | None:
  """The feature lq, if records hold pairs to train from."""
  lq, hq = (features[field] if field in features else None for field in ('lq', 'hq'))
  paired = isinstance(lq, FrameStrip) and isinstance(hq, FrameStrip) and lq.shape == hq.shape
  return lq if paired else None


def _fits(strip: FrameStrip, num_frames: int, crop: int) -> bool:
  return num_frames <= strip.num_frames and crop <= min(strip.height, strip.width)


def _size(strip: FrameStrip) -> str:
  return f'{strip.num_frames} frames of {strip.height}x{strip.width}'


def _configs_that_fit(source: DataSource, num_frames: int, crop: int) -> str:
  """What to use instead: the smallest prepared config of the same dataset that is large enough."""
  info = source.dataset_info
  root = pathlib.Path(info.data_dir).parents[2]
  strips = {}
  for config, folder in prepared_configs(root, info.name).items():
    try:
      strip = _paired_strip(tfds.features.FeatureConnector.from_config(folder))
    except UNREADABLE:  # Of another version: nothing to recommend.
      continue
    if strip is not None:
      strips[config] = strip
  fitting = {config: strip for config, strip in strips.items() if _fits(strip, num_frames, crop)}
  if fitting:
    config = min(fitting, key=lambda name: np.prod(fitting[name].shape))
    return f'use config {config!r} ({_size(fitting[config])})'
  there = ', '.join(f'{config} ({_size(strip)})' for config, strip in strips.items()) or 'none'
  return (
    f'no prepared config of {info.name} fits (there is: {there}); build a larger one with '
    f'`python -m vqm_jax.prepare.build --dataset={info.name} --config=... --data_dir={root}`'
  )
