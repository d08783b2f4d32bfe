"""Measures how fast training batches come from disk, against a plain loop over the records.

python benchmarks/input_pipeline.py --dataset=vqm_demo --config=tiles --data_dir=data

Without --dataset it prepares 32 records of random texture in a temporary folder. Ratios are of measurements that
follow each other; the samples per second depend on the machine and on what else it does.
"""

import contextlib
import io
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.ndimage
import tensorflow_datasets as tfds
from absl import flags

from vqm_jax import cli, data
from vqm_jax.data.records import Records

_DATASET = flags.DEFINE_string('dataset', None, 'Name of a prepared data set.')
_CONFIG = flags.DEFINE_string('config', 'tiles', 'Config of the data set.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where records are; default $TFDS_DATA_DIR.')
_WORKERS = flags.DEFINE_multi_integer('workers', [0, 2], 'Number of worker processes to try; may be repeated.')
_SECONDS = flags.DEFINE_float('seconds', 3, 'Duration of each measurement.', lower_bound=0.1)


class TextureTiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """32 pairs of 7 frames of 256x256: smooth noise that moves, with grain; the degraded side has none."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=codec) for codec in ('webp', 'png')]

  def _info(self) -> tfds.core.DatasetInfo:
    strip = data.FrameStrip(7, 256, 256, codec=self.builder_config.name)
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'lq': strip, 'hq': strip}))

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    return {'train': self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(0)
    texture = scipy.ndimage.gaussian_filter(rng.normal(size=(384, 384, 3)), (3, 3, 0), mode='wrap')
    texture = 128 + 30 * texture / texture.std()
    for record in range(32):
      smooth = np.stack([np.roll(texture, (9 * record + t, t), (0, 1))[:256, :256] for t in range(7)])
      grain = rng.normal(scale=2, size=smooth.shape)
      lq, hq = (side.clip(0, 255).astype(np.uint8) for side in (smooth, smooth + grain))
      yield record, {'lq': lq, 'hq': hq}


def _rate(step: Callable[[], int]) -> float:
  """Samples per second of calls of `step`, each of which returns how many samples it drew."""
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < _SECONDS.value:
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

  _rate(one_record)  # Reads the files once.
  alone = _rate(one_record)
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
      fast = _rate(lambda: len(next(batches)['lq']))  # noqa: B023
    plain = _rate(one_record)
    print(f'{workers:7d} {crop:5d} {batch:6d} {fast:10.1f} {plain:11.1f} {fast / plain:6.2f}', flush=True)


def main(_: Sequence[str]) -> None:
  """Prints one table for each source."""
  if _DATASET.value:
    _measure(data.open_source(_DATASET.value, _CONFIG.value, 'train', _DATA_DIR.value))
    return
  tfds.disable_progress_bar()
  with tempfile.TemporaryDirectory() as folder:
    for config in TextureTiles.BUILDER_CONFIGS:
      builder = TextureTiles(config=config, data_dir=folder, file_format='array_record')
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its own account.
        builder.download_and_prepare(
          download_dir=pathlib.Path(folder) / 'downloads',
          download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
      _measure(data.open_source(builder.name, config.name, 'train', folder))


if __name__ == '__main__':
  cli.run(main)
