"""A tiny data set whose pixels say where they come from."""

import importlib
import sys

import pytest
import tensorflow_datasets as tfds

# lq holds (y, x, 8 * record + t), hq = 255 - lq: a crop tells its record, place and symmetry.
BUILDER = """
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vqm_jax.data import FrameStrip

SIZES = {
  'tiles': (5, 24), 'tiles_t1p16': (1, 16), 'tiles_t7p40': (7, 40), 'tiles_t7p48': (7, 48),
  'tiles_odd': (5, 24),
}
CLIPS = {'a': (3, 10, 14), 'b': (12, 8, 6)}  # frames, height, width


def strip(record, frames, size):
  t, y, x = np.mgrid[:frames, :size, :size]
  return np.stack([y, x, 8 * record + t], -1).astype(np.uint8)


def png(frame):
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, format='PNG')
  return buffer.getvalue()


class VqmTiny(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name) for name in (*SIZES, 'frames', 'frames_lq')
  ]

  def _info(self):
    name = self.builder_config.name
    if name in SIZES:
      frames, size = SIZES[name]
      features = {
        'video': tfds.features.Text(),
        'lq': FrameStrip(frames, size, size, codec='png' if name == 'tiles_t7p40' else 'webp'),
        'hq': FrameStrip(frames, size + 2 * (name == 'tiles_odd'), size),
      }
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))
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
    if self.builder_config.name in SIZES:
      return {'train': self._tiles(*SIZES[self.builder_config.name])}
    return {'val': self._frames('val')}

  def _generate_examples(self):
    raise NotImplementedError

  def _tiles(self, frames, size):
    for record in range(11):
      lq = strip(record, frames, size)
      hq = 255 - lq
      if self.builder_config.name == 'tiles_odd':
        hq = np.pad(hq, ((0, 0), (1, 1), (0, 0), (0, 0)))
      yield f'{record:03d}', {'video': f'v{record}', 'lq': lq, 'hq': hq}

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
    for config in (*builders.SIZES, 'frames', 'frames_lq'):
      builder = builders.VqmTiny(config=config, data_dir=folder, file_format='array_record')
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False, num_shards=2))
  finally:
    sys.path.remove(str(code))
    sys.modules.pop('vqm_tiny', None)
  return folder
