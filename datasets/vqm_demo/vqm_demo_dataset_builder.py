"""vqm_demo: video rendered from photographs that come with scikit-image, coded heavily or filmed by two cameras."""

import pathlib

import tensorflow_datasets as tfds

from vqm_jax.prepare.challenge.two_cameras import UnpairedTilesConfig, WeakTilesConfig
from vqm_jax.prepare.demo import rendered
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import ClipPair, FramesConfig, TilesConfig

# Holdout scenes show training photographs that are filmed once more.
_NUM_SCENES = {'train': 24, 'val': 3, 'test': 3, 'holdout': 2}
_NUM_MICRO_SCENES = {'train': 2, 'val': 1, 'test': 1, 'holdout': 1}
_MICRO_SHAPE = dict(num_frames=8, height=64, width=96)
# Two cameras need scenes that are longer, to find their offset, and larger, so that half of a frame holds 128 pixels.
_NUM_RIG_SCENES = {'train': 12, 'val': 2, 'test': 3, 'holdout': 0}
_RIG_SHAPE = dict(num_frames=96, height=270, width=480)
_EVALUATED_FRAMES = 24


class Builder(VqmBuilder):
  """24 training, 3 validation, 3 test and 2 holdout scenes of 24 frames, 320x180; fewer and larger for two cameras."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  BUILDER_CONFIGS = [
    TilesConfig(name='tiles', description='Windows of 7 frames, 96x96.', num_frames=7, size=96, per_video=24),
    TilesConfig(name='tiles_t1p96', description='Single frames, 96x96.', num_frames=1, size=96, per_video=144),
    FramesConfig(name='frames', description='Whole frames for evaluation.'),
    TilesConfig(name='micro_tiles', description='For tests: 7 x 48x48.', num_frames=7, size=48, per_video=4),
    FramesConfig(name='micro_frames', description='For tests: whole frames, 96x64.'),
    WeakTilesConfig(
      name='weak_tiles',
      description='Two cameras: pairs of 5 frames, 128x128, about the same place and time.',
      size=128, margin=16, per_video=20, jitter_frames=8, jitter_pixels=16,
    ),
    UnpairedTilesConfig(
      name='unpaired_tiles_p128', description='Two cameras: single frames of each, 128x128.', size=128, per_video=80
    ),
    UnpairedTilesConfig(
      name='unpaired_tiles_q',
      description='Two cameras: 5 frames of each, 128x128, at half of their width and height.',
      num_frames=5, size=128, scale=2, per_video=40,
    ),
    FramesConfig(name='weak_frames', description='Two cameras: whole frames for evaluation.', aligned=False),
    WeakTilesConfig(
      name='micro_weak_tiles', description='For tests: pairs of 3 x 32x32.',
      num_frames=3, size=32, margin=4, per_video=4, draws=2, jitter_frames=2, jitter_pixels=4,
    ),
    UnpairedTilesConfig(
      name='micro_unpaired_tiles', description='For tests: 3 x 64x64 of each camera.',
      num_frames=3, size=64, per_video=6,
    ),
    FramesConfig(name='micro_weak_frames', description='For tests: two cameras, whole frames, 96x64.', aligned=False),
  ]  # fmt: skip

  def clips(self, split: str, manual_dir: pathlib.Path | None) -> list[ClipPair]:
    """Scenes that are rendered when they are read."""
    name = self.builder_config.name
    micro, rig = name.startswith('micro_'), 'weak' in name or 'unpaired' in name
    shape = _MICRO_SHAPE if micro else _RIG_SHAPE if rig else {}
    if rig and split != 'train' and not micro:
      shape = _RIG_SHAPE | dict(num_frames=_EVALUATED_FRAMES)
    # Every scene of a photograph has a number of its own, from which its randomness comes.
    source, first = ('train', _NUM_SCENES['train']) if split == 'holdout' else (split, 0)
    photos = rendered.PHOTOGRAPHS[source]
    chosen = [
      rendered.Scene(
        clip_id=f'{split}_{index:02d}', split=source, photo=photos[index % len(photos)], index=first + index, **shape
      )
      for index in range((_NUM_MICRO_SCENES if micro else _NUM_RIG_SCENES if rig else _NUM_SCENES)[split])
    ]
    return rendered.rig_clips(chosen) if rig else rendered.clips(chosen)
