"""A tiny data set whose pixels say where they come from, see `windows.place`."""

import importlib
import sys

import pytest
import tensorflow_datasets as tfds

from vqm_jax import data

# lq and source hold (y, x, 8 * record + t), hq and target 255 minus that.
BUILDER = """
import io
import itertools

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vqm_jax.data import FrameStrip

SIZES = {
  'tiles': (5, 24), 'tiles_t1p16': (1, 16), 'tiles_t7p40': (7, 40), 'tiles_t7p48': (7, 48),
  'tiles_odd': (5, 24), 'weak': (5, 24), 'weak_odd': (5, 24), 'weak_small': (5, 24),
}
HQ_LARGER = {  # by how many rows, columns
  'tiles_odd': (2, 0), 'weak': (6, 6), 'weak_odd': (1, 0), 'weak_small': (-2, -2),
}
DOMAINS = {  # frames; records of each video
  'unpaired': (5, {'train_source': {'a': 14, 'b': 6, 'c': 10}, 'train_target': {'b': 9, 'd': 8, 'c': 3, 'a': 10}}),
  'unpaired_t7': (7, {'train_source': {'a': 13, 'b': 7}, 'train_target': {'a': 5, 'b': 15}}),
  'unpaired_gap': (5, {'train_source': {'a': 1, 'b': 2, 'c': 1}, 'train_target': {'b': 0, 'c': 2, 'd': 1}}),
}
CLIPS = {'a': (3, 10, 14), 'b': (12, 8, 6)}  # frames, height, width


def strip(record, frames, height, width):
  t, y, x = np.mgrid[:frames, :height, :width]
  return np.stack([y, x, 8 * record + t], -1).astype(np.uint8)


def png(frame):
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, format='PNG')
  return buffer.getvalue()


class VqmTiny(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name) for name in (*SIZES, *DOMAINS, 'frames', 'frames_lq')
  ]

  def _info(self):
    name = self.builder_config.name
    if name in SIZES:
      frames, size = SIZES[name]
      dy, dx = HQ_LARGER.get(name, (0, 0))
      features = {
        'video': tfds.features.Text(),
        'lq': FrameStrip(frames, size, size, codec='png' if name == 'tiles_t7p40' else 'webp'),
        'hq': FrameStrip(frames, size + dy, size + dx),
      }
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))
    if name in DOMAINS:
      features = {'video': tfds.features.Text(), 'frames': FrameStrip(DOMAINS[name][0], 24, 24)}
    else:
      features = {
        'clip': tfds.features.Text(),
        'frame': np.int32,
        'lq': tfds.features.Image(encoding_format='png'),
        'hq': tfds.features.Image(encoding_format='png'),
      }
    if name == 'frames_lq':
      del features['hq']
    return tfds.core.DatasetInfo(builder=self, 
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    name = self.builder_config.name
    if name in SIZES:
      return {'train': self._tiles(*SIZES[name])}
    if name in DOMAINS:
      frames, videos = DOMAINS[name]
      self.info.metadata['videos'] = {split: self._table(counts) for split, counts in videos.items()}
      return {split: self._domain(split, frames, counts) for split, counts in videos.items()}
    return {'val': self._frames('val')}

  def _generate_examples(self):
    raise NotImplementedError

  def _tiles(self, frames, size):
    dy, dx = HQ_LARGER.get(self.builder_config.name, (0, 0))
    for record in range(11):
      lq, hq = strip(record, frames, size, size), 255 - strip(record, frames, size + dy, size + dx)
      yield f'{record:03d}', {'video': f'v{record}', 'lq': lq, 'hq': hq}

  def _table(self, counts):
    ends = itertools.accumulate(counts.values())
    return {
      video: dict(first_record=end - counts[video], num_records=counts[video])
      for video, end in zip(counts, ends)
    }

  def _domain(self, split, frames, counts):
    videos = [video for video, count in counts.items() for _ in range(count)]
    for record, video in enumerate(videos):
      pixels = strip(record, frames, 24, 24)
      yield record, {'video': video, 'frames': pixels if split == 'train_source' else 255 - pixels}

  def _frames(self, split):
    table, first = {}, 0
    for clip, (frames, height, width) in CLIPS.items():
      table[clip] = dict(first_record=first, num_frames=frames, height=height, width=width,
                         fps=25.0, category='test')
      for t in range(frames):
        lq = np.full((height, width, 3), [t, ord(clip), 7], np.uint8)
        record = {'clip': clip, 'frame': t, 'lq': png(lq), 'hq': png(255 - lq)}
        if self.builder_config.name == 'frames_lq':
          del record['hq']
        yield first + t, record
      first += frames
    self.info.metadata['clips'] = {split: table}
"""


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  """Folder with the prepared data set `vqm_tiny`; its builder is not importable any more."""
  code = tmp_path_factory.mktemp('builders')
  folder = tmp_path_factory.mktemp('data')
  (code / 'vqm_tiny.py').write_text(BUILDER)
  tfds.disable_progress_bar()
  sys.path.insert(0, str(code))
  try:
    builders = importlib.import_module('vqm_tiny')
    for config in (*builders.SIZES, *builders.DOMAINS, 'frames', 'frames_lq'):
      builder = builders.VqmTiny(config=config, data_dir=folder, file_format='array_record')
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False, num_shards=2))
  finally:
    sys.path.remove(str(code))
    sys.modules.pop('vqm_tiny', None)
  return folder


@pytest.fixture(scope='module')
def source(data_dir):
  """The training records of 'tiles'."""
  return data.open_source('vqm_tiny', 'tiles', 'train', str(data_dir))
