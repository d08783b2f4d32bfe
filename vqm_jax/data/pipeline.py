"""Training batches from prepared records, on Grain.

The order of samples, their crops and their augmentation are a pure function of the seed and the
global sample index. The number of samples drawn so far is therefore the whole state of the
iterator: a run resumes by position alone, for any number of workers or processes.
"""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags

from vqm_jax import errors
from vqm_jax.data.records import DataSource, Records
from vqm_jax.data.sampling import Domains, Read, check_records, endless_strips, windows

# Grain's own defaults (16 threads, 500 elements) would hold gigabytes of batches. Each thread makes a whole batch.
_THREADS = min(4, os.cpu_count() or 1)
_BATCHES_AHEAD = 4
_THREADS_OF_WORKER = 2
_BATCHES_AHEAD_OF_WORKER = 2


class Batches(Iterator[dict[str, np.ndarray]]):
  """Endless batches {'lq', 'hq'}: uint8 (b, T, crop, crop, 3), or rows. Close it, or use it in `with`."""

  def __init__(self, iterator: grain.DatasetIterator, shared_memory: bool):
    self._iterator: grain.DatasetIterator | None = iterator
    self._shared_memory = shared_memory

  def __next__(self) -> dict[str, np.ndarray]:
    if self._iterator is None:
      raise ValueError('These batches have been closed.')
    try:
      records = next(self._iterator)
    except RuntimeError as error:
      if killed := re.search(r'Worker process was terminated unexpectedly with exit code (-?\d+)', str(error)):
        raise errors.DataError(_killed(int(killed[1]))) from error
      raise
    # Of each record, the samples that were cut out of it; in one row they are the batch.
    batch = {name: array.reshape(-1, *array.shape[2:]) for name, array in records.items()}
    if self._shared_memory:
      # Grain frees a block of shared memory with its array, which a caller may hold for ever.
      batch = {name: np.array(array) for name, array in batch.items()}
    return batch

  def close(self) -> None:
    """Stop threads and worker processes and free their memory."""
    if self._iterator is not None:
      self._iterator.close()
      # Grain's iterator complains when the interpreter deletes it at exit.
      self._iterator = None

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def _killed(code: int) -> str:
  """Say how a data worker ended that nobody here has ended."""
  how = f'signal {signal.Signals(-code).name}' if -code in set(signal.Signals) else f'exit code {code}'
  likely = ', most likely by the kernel for want of memory' if code == -signal.SIGKILL else ''
  return (
    f'A process that decodes training data ended by {how}{likely}: lower --config.num_workers (0 decodes in threads) '
    'and start the same command again, which resumes.'
  )


def train_batches(
  sources: DataSource | Domains | Sequence[DataSource | Domains],
  *,
  num_frames: int,
  crop: int,
  batch_size: int,
  seed: int,
  start: int = 0,
  num_workers: int = 0,
  sampling: str = 'paired',
  augment: str = 'symmetries',
  crops_per_record: int = 1,
  process_index: int = 0,
  process_count: int = 1,
  weights: Sequence[float] = (),
  read: Read = Records,
) -> Batches:
  """Endless batches {'lq', 'hq'}: uint8 (batch_size / process_count, num_frames, crop, crop, 3).

  Each epoch of a split is shuffled anew. A sample is two windows of `num_frames` frames in the middle of their records,
  cut at random places; out of `segments`, from any frame on, and a record comes up as often in an epoch as `num_frames`
  fit into it. Memory: each thread decodes one record (of segments: so many whole frames), or one of each domain, and
  holds the samples of its batch; at most 4 batches are being made or wait, with workers 6 for each of them.

  Args:
    sources: from `open_training`, or from `open_source`. Several are mixed, each shuffled by itself.
    num_frames, crop: size of a sample in time and space, at most that of a record.
    batch_size: samples in a batch over all processes.
    seed: 0 <= seed < 2**32.
    start: number of samples drawn before, over all processes.
    num_workers: processes that decode, with 2 threads each; 0 decodes in up to 4 threads of this process, which is
      enough unless the accelerator waits. Programs that use workers need the `__main__` guard.
    sampling: which records and windows make a sample, one of SAMPLINGS; see `vqm_jax.data.sampling`.
    augment: 'symmetries' (the 8 of the square), 'flip' (left and right, half of the time) or 'none'; the same for lq
      and hq unless their windows are independent.
    crops_per_record: samples cut out of a record at a time, each at a place of its own and mirrored by itself, all of
      the same frames. Decoding one of segments takes as long as cutting hundreds, so ask for 8 or more there.
      `batch_size` of each process, and `start`, must be multiples.
    process_index, process_count: this process takes global samples `start + process_index`,
      `start + process_index + process_count`, ... With several crops per record, read: runs of so many samples.
    weights: how often each of several sources is drawn from, in proportion; equally often when left out.
    read: makes the records of a source; `Tables.read` for rows that say where the samples are, in their place.

  Raises:
    ConfigError: an argument out of range, or sources that `open_training` opened for another sampling.
    DataError: records too small or of another kind; later, a record that cannot be read.
  """
  _check_arguments(batch_size, seed, start, num_workers, crops_per_record, process_index, process_count)
  sources = [sources] if isinstance(sources, DataSource | Domains) else list(sources)
  for source in sources:
    check_records(source, num_frames, crop, sampling)
  strips = [endless_strips(source, sampling, seed + k, num_frames, read) for k, source in enumerate(sources)]
  records = _mixed(strips, weights, seed).random_map(windows(sampling, num_frames, crop, augment, crops_per_record))
  if num_workers and not flags.FLAGS.is_parsed():
    # Grain asks absl about profiling when it starts workers; notebooks and tests parse no flags.
    flags.FLAGS.mark_as_parsed()
  # Slicing after the random map keeps each record's randomness tied to its global index.
  ours = records[start // crops_per_record + process_index :: process_count]
  batches = ours.batch(batch_size // (process_count * crops_per_record), drop_remainder=True)
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


def _check_arguments(batch_size, seed, start, num_workers, crops_per_record, process_index, process_count) -> None:
  if not 0 <= seed < 2**32:
    raise errors.ConfigError(f'seed={seed}: expected a whole number from 0 to 2**32 - 1.')
  if crops_per_record < 1:
    raise errors.ConfigError(f'crops_per_record={crops_per_record}: expected 1 or more.')
  if start < 0 or start % crops_per_record:
    raise errors.ConfigError(
      f'start={start}: expected the number of samples drawn, 0 or more, a multiple of {crops_per_record} crops.'
    )
  if num_workers < 0:
    raise errors.ConfigError(f'num_workers={num_workers}: expected 0 or more.')
  if not 0 <= process_index < process_count:
    raise errors.ConfigError(f'process_index={process_index} of process_count={process_count}.')
  if batch_size < 1 or batch_size % (process_count * crops_per_record):
    raise errors.ConfigError(
      f'batch_size={batch_size}: expected a multiple of {process_count} processes x {crops_per_record} crops.'
    )


def check_weights(weights: Sequence[float], count: int) -> None:
  """Raises ConfigError unless `weights` is empty or has a positive number for each of `count` sources."""
  if weights and (len(weights) != count or min(weights) <= 0):
    raise errors.ConfigError(f'mix_weights={tuple(weights)}: expected {count} positive numbers, one for each source.')
