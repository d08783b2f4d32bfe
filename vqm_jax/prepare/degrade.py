"""Makes a paired data set from any folder of videos: originals (HQ) and their compressed copies (LQ).

  python -m vqm_jax.prepare.degrade --input=my_videos/ --output=pairs/ --target_psnr=30.55
  python -m vqm_jax.prepare.degrade --input=my_videos/ --output=pairs/ --mix=web --copies=6

Finds scene cuts, splits by video into train, val, test and holdout, codes LQ with H.264 from the samples of HQ, and
checks that every pair is in step. Run again, it goes on where it was interrupted. val and test clips are windows of
one scene, stored without loss; train and holdout are whole videos. --mix=web codes each copy another way: many rates,
presets and sizes, H.264 and H.265, once or twice, with and without grain; manifest.csv tells which.
"""

import os
import pathlib
import re

import jax
from absl import flags, logging

from vqm_jax import cli, errors
from vqm_jax.prepare.pairs import degradation, making
from vqm_jax.video.codec import PRESETS

_PRESETS = PRESETS[:-1]  # placebo is slow to no effect

_INPUT = flags.DEFINE_string('input', None, 'Folder with videos, searched with its sub-folders.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder of the pairs; new, empty, or of an earlier run.')
_RATE = flags.DEFINE_string('rate', '', 'crf=33, crf=28:38 (drawn for each video) or bitrate=500k.')
_TARGET_PSNR = flags.DEFINE_float(
  'target_psnr', None, 'Instead of --rate: PSNR in dB that the val clips shall have (IntVid: 30.55).'
)
_MIX = flags.DEFINE_enum('mix', '', ['', *degradation.MIXES], 'Instead of --rate: draw all that is done to a copy.')
_COPIES = flags.DEFINE_integer('copies', 1, 'Pairs to make of each video, with --mix or a range.', lower_bound=1)
_COUNTS = {
  split: flags.DEFINE_integer(f'{split}_videos', None, text, lower_bound=0)
  for split, text in (
    ('val', 'Videos for validation; a tenth if not given.'),
    ('test', 'Videos for testing; a tenth if not given.'),
    ('holdout', 'Whole videos set aside for recipes that need them; none if not given.'),
  )
}
_SPLIT_CSV = flags.DEFINE_string(
  'split_csv', '', 'Instead of numbers: CSV file video,split (train, val, test, holdout, skip) and perhaps copies.'
)
_CATEGORIES = flags.DEFINE_string(
  'categories', '', '"folders" (names of the sub-folders) or a CSV file video,category.'
)
_CLIP_FRAMES = flags.DEFINE_integer('clip_frames', 120, 'Frames of a val or test clip.')
_PRESET = flags.DEFINE_enum('preset', 'medium', _PRESETS, 'Preset of libx264, with --rate and --target_psnr.')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the split and of drawn rates.', lower_bound=0)
_WORKERS = flags.DEFINE_integer(
  'workers', None, 'Videos coded at a time; the number of CPU cores if not given.', lower_bound=1
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Delete the pairs of an earlier run with other settings.')


def main(argv: list[str]) -> None:
  del argv
  for flag in (_INPUT, _OUTPUT):
    if not flag.value:
      raise errors.ConfigError(f'--{flag.name} is missing; name a folder')
  # Scoring needs no accelerator, and every worker would claim its memory.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  jax.config.update('jax_platforms', 'cpu')
  settings = making.Settings(
    rate=_RATE.value,
    target_psnr=_TARGET_PSNR.value,
    counts={split: flag.value for split, flag in _COUNTS.items()},
    split_csv=_SPLIT_CSV.value,
    categories=_CATEGORIES.value,
    clip_frames=_CLIP_FRAMES.value,
    preset=_PRESET.value,
    seed=_SEED.value,
    mix=_MIX.value,
    copies=_COPIES.value,
  )
  output = pathlib.Path(_OUTPUT.value)
  workers = _WORKERS.value or os.cpu_count() or 1
  rows = making.run(pathlib.Path(_INPUT.value), output, settings, workers=workers, overwrite=_OVERWRITE.value)
  print(making.summary(output))
  logging.info('%s holds %d pairs, described in manifest.csv and degrade.json', output, len(rows))
  smallest = min((min(int(r['height']), int(r['width'])) for r in rows if r['split'] == 'train'), default=0)
  configs = ['tiles' if smallest >= 256 else 'tiles_t7p128'] if smallest else []
  configs += ['frames'] if any(row['split'] != 'train' for row in rows) else []
  name = re.sub(r'\W', '_', output.resolve().name)
  print(
    f'Next: python -m vqm_jax.prepare.build --dataset=paired_videos --config={",".join(configs)} '
    f'--manual_dir={output} --name={name}'
  )


if __name__ == '__main__':
  cli.run(main)
