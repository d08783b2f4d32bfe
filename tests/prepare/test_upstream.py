"""TFDS's own test of data sets, on those with dummy data. TensorFlow reads the records: PNG in tfrecord."""

import dataclasses
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vqm_jax import cli
from vqm_jax.data.features import FrameStrip
from vqm_jax.prepare.records import driver

tf = pytest.importorskip('tensorflow')
pytest.importorskip('dill')

SMALL = dict(num_frames=2, size=24, per_video=5, codec='png')
WEAK = SMALL | dict(margin=4, draws=2, jitter_frames=2, jitter_pixels=4)
CASES = [
  ('intvid', 'tiles', SMALL, {'train': 20}),
  ('intvid', 'frames', {}, {'val': 10}),
  ('intvid', 'frames_lq', {}, {'val': 10}),
  ('vid3oc', 'weak_tiles', WEAK, {'train': 19}),
  ('vid3oc', 'unpaired_tiles_p512', SMALL, {'train_source': 10, 'train_target': 10}),
  ('vid3oc', 'frames', {}, {'val': 10}),
  ('vid3oc', 'frames_lq', {}, {'test': 10}),
]


@pytest.fixture(autouse=True)
def strips_in_tensorflow():
  """Strips are decoded by NumPy and Pillow only; this is what TensorFlow would do."""

  def decode_example(self, data):
    return tf.reshape(tf.io.decode_png(data, channels=3), self.shape)

  with mock.patch.object(FrameStrip, 'decode_example', decode_example):
    yield


def chosen(dataset, config, changes):
  """The builder class of a data set, and one of its configs; a changed one needs a name of its own."""
  found = driver.find_builder(dataset)
  given = next(c for c in found.BUILDER_CONFIGS if c.name == config)
  return found, dataclasses.replace(given, name=f'small_{config}', **changes) if changes else config


@pytest.mark.parametrize('dataset, config, changes, splits', CASES)
def test_what_tfds_asks_of_a_data_set(dataset, config, changes, splits):
  found, config = chosen(dataset, config, changes)

  class Case(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = found
    BUILDER_CONFIG_NAMES_TO_TEST = [config]
    SPLITS = splits

    def _make_builder(self, config=None):
      return found(data_dir=self.tmp_dir, config=config, file_format='tfrecord')

  result = unittest.TestResult()
  unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
  assert result.testsRun >= 5
  assert not [text for _, text in result.errors + result.failures]


@pytest.mark.parametrize('config, changes', [('tiles', SMALL), ('frames', {})])
def test_tfds_loads_by_name_what_our_reader_reads(tmp_path, config, changes):
  found, config = chosen('intvid', config, changes)
  manual_dir = cli.ROOT / 'datasets' / 'intvid' / 'dummy_data'
  settings = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
  for file_format in ('tfrecord', 'array_record'):
    builder = found(data_dir=tmp_path / file_format, config=config, file_format=file_format)
    builder.download_and_prepare(download_config=settings)
  (split,) = builder.info.splits
  name = f'intvid/{builder.builder_config.name}'
  kwargs = dict(file_format='tfrecord')
  loaded = tfds.load(name, split=split, data_dir=tmp_path / 'tfrecord', download=False, builder_kwargs=kwargs)
  ours = tfds.data_source(name, split=split, data_dir=tmp_path / 'array_record')
  for theirs, record in zip(tfds.as_numpy(loaded), ours, strict=True):
    for field in record:
      np.testing.assert_array_equal(theirs[field], record[field])
