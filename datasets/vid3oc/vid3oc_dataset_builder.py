"""vid3oc: track 2 of the NTIRE 2020 challenge on video quality mapping, from the files of its organisers."""

import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from vqm_jax.prepare.challenge import packing, two_cameras
from vqm_jax.prepare.challenge.two_cameras import TwoCameras, UnpairedTilesConfig, WeakTilesConfig
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import FramesConfig


class Builder(VqmBuilder):
  """The ZED (source) and the Canon 5D Mark IV (target), as `challenge.packing` finds them in <manual_dir>."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'The data come from the organisers of the NTIRE 2020 challenge on video quality mapping, track 2. manual_dir or '
    'manual_dir/vid3oc holds a source (ZED) and a target (Canon) for training, validation and test, such as train/ZED '
    'and train/Canon or TrainingSource and TrainingTarget, as folders or zips of clips of equal names. '
    'python -m vqm_jax.prepare.check --dataset=vid3oc --manual_dir=... shows what is found there.'
  )
  BUILDER_CONFIGS = [
    WeakTilesConfig(name='weak_tiles', description='Pairs of 5 frames, 256x256, about the same place and time.'),
    WeakTilesConfig(
      name='weak_tiles_t1p256', description='Pairs of single frames, 256x256.', num_frames=1, per_video=200
    ),
    UnpairedTilesConfig(name='unpaired_tiles_p512', description='Single frames of each camera, 512x512.'),
    UnpairedTilesConfig(
      name='unpaired_tiles_q',
      description='5 frames, 256x256, of each camera at a quarter of its width and height.',
      num_frames=5,
      size=256,
      scale=4,
    ),
    FramesConfig(name='frames', description='Whole frames of the clips with targets.', aligned=False),
    FramesConfig(
      name='frames_lq', description='Whole frames of the clips without targets.', targets=False, aligned=False
    ),
  ]

  def __init__(self, **kwargs):
    # Looking at a folder reads each of its videos once.
    self._layouts: dict[pathlib.Path, packing.Layout] = {}
    super().__init__(**kwargs)

  def clips(self, split: str, manual_dir: pathlib.Path) -> Iterator[TwoCameras]:
    """The clips of a split, those without targets among them.

    Raises DataError with every problem of every split.
    """
    yield from two_cameras.clips(self._layout(manual_dir), split)

  def fingerprint(self, split: str, manual_dir: pathlib.Path) -> str:
    """Digest of the names and sizes of the split's files and of what manifest and offsets.csv say of its clips."""
    found = self._layout(manual_dir)
    return f'{found.digest(split)} {two_cameras.offsets_digest(found, split)}'.strip()

  def _layout(self, manual_dir: pathlib.Path) -> packing.Layout:
    if manual_dir not in self._layouts:
      self._layouts[manual_dir] = packing.resolve(manual_dir, 'vid3oc')
    return self._layouts[manual_dir]
