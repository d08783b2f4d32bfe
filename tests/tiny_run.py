"""A run that changes nothing on a data set of two clips whose input is a 5x5 blur of the target.

So least squares has something to win, and scores are known beforehand.
"""

import io
import json
import pathlib

import numpy as np
import scipy.ndimage
import tensorflow_datasets as tfds
from PIL import Image

from vqm_jax import checkpoints
from vqm_jax.data import FrameStrip

CLIPS = {'one': (3, 'cats'), 'two': (2, 'dogs')}
LENGTHS = [(clip, frames) for clip, (frames, _) in CLIPS.items()]


def pair(seed, frames):
  hq = np.random.default_rng(seed).random((frames, 32, 40, 3))
  hq = scipy.ndimage.gaussian_filter(hq, (0, 1.2, 1.2, 0))
  hq = (hq - hq.min()) / (hq.max() - hq.min())
  lq = scipy.ndimage.gaussian_filter(hq, (0, 0.8, 0.8, 0), truncate=2.5)
  return [np.rint(255 * x).astype(np.uint8) for x in (lq, hq)]


def png(frame):
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, format='PNG')
  return buffer.getvalue()


class EvalTiny(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ('tiles', 'frames')]

  def _info(self):
    if self.builder_config.name == 'tiles':
      features = {'lq': FrameStrip(3, 32, 40), 'hq': FrameStrip(3, 32, 40)}
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))
    features = {
      'clip': tfds.features.Text(),
      'frame': np.int32,
      'lq': tfds.features.Image(encoding_format='png'),
      'hq': tfds.features.Image(encoding_format='png'),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    if self.builder_config.name == 'tiles':
      return {'train': self._tiles()}
    return {'test': self._frames()}

  def _generate_examples(self):
    raise NotImplementedError

  def _tiles(self):
    for seed in range(6):
      yield seed, dict(zip(('lq', 'hq'), pair(100 + seed, 3), strict=True))

  def _frames(self):
    table, first = {}, 0
    for seed, (clip, (frames, category)) in enumerate(CLIPS.items()):
      table[clip] = dict(first_record=first, num_frames=frames, height=32, width=40, fps=25.0, category=category)
      for t, (lq, hq) in enumerate(zip(*pair(seed, frames), strict=True)):
        yield first + t, {'clip': clip, 'frame': t, 'lq': png(lq), 'hq': png(hq)}
      first += frames
    self.info.metadata['clips'] = {'test': table}


def make(folder: pathlib.Path) -> pathlib.Path:
  """A run of the system `none` and its data set; returns the workdir."""
  quiet = tfds.download.DownloadConfig(try_download_gcs=False)
  for name in ('tiles', 'frames'):
    builder = EvalTiny(config=name, data_dir=folder / 'data', file_format='array_record')
    builder.download_and_prepare(download_config=quiet)
  run = folder / 'run'
  run.mkdir()
  config = {
    'system': 'none', 'system_args': {}, 'dtype': 'float32', 'ema': 0.0, 'dataset': 'eval_tiny',
    'dataset_config': 'tiles', 'val_config': 'frames', 'data_dir': str(folder / 'data'),
  }  # fmt: skip
  (run / 'config.json').write_text(json.dumps({'config': config}))
  with checkpoints.Checkpoints(run / 'checkpoints') as saver:
    saver.save(3, {'step': np.int32(3), 'params': {}}, {'step': 3})
  return run
