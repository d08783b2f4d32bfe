"""vqm_demo: coded video rendered from photographs that come with scikit-image."""

import pathlib

import tensorflow_datasets as tfds

from vqm_jax.prepare import demo_scenes
from vqm_jax.prepare.builder import ClipPair, FramesConfig, TilesConfig, VqmBuilder

# Holdout scenes show training photographs that are filmed once more.
_NUM_SCENES = {'train': 24, 'val': 3, 'test': 3, 'holdout': 2}
_NUM_MICRO_SCENES = {'train': 2, 'val': 1, 'test': 1, 'holdout': 1}
_MICRO_SHAPE = dict(num_frames=8, height=64, width=96)


class Builder(VqmBuilder):
  """24 training, 3 validation, 3 test and 2 holdout scenes of 24 frames, 320x180."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  BUILDER_CONFIGS = [
    TilesConfig(name='tiles', description='Windows of 7 frames, 96x96.', num_frames=7, size=96, per_video=24),
    TilesConfig(name='tiles_t1p96', description='Single frames, 96x96.', num_frames=1, size=96, per_video=144),
    FramesConfig(name='frames', description='Whole frames for evaluation.'),
    TilesConfig(name='micro_tiles', description='For tests: 7 x 48x48.', num_frames=7, size=48, per_video=4),
    FramesConfig(name='micro_frames', description='For tests: whole frames, 96x64.'),
  ]

  def clips(self, split: str, manual_dir: pathlib.Path | None) -> list[ClipPair]:
    """Scenes that are rendered when they are read."""
    micro = self.builder_config.name.startswith('micro_')
    # Every scene of a photograph has a number of its own, from which its randomness comes.
    source, first = ('train', _NUM_SCENES['train']) if split == 'holdout' else (split, 0)
    photos = demo_scenes.PHOTOGRAPHS[source]
    return demo_scenes.clips(
      [
        demo_scenes.Scene(
          clip_id=f'{split}_{index:02d}',
          split=source,
          photo=photos[index % len(photos)],
          index=first + index,
          **(_MICRO_SHAPE if micro else {}),
        )
        for index in range((_NUM_MICRO_SCENES if micro else _NUM_SCENES)[split])
      ]
    )
