"""Builds the records of a data set, for training (tiles, segments) and evaluation (frames).

python -m vqm_jax.prepare.build --dataset=paired_videos --config=tiles_t5p128,frames --manual_dir=pairs/ --name=mine

What is built already stays as it is. A build that was stopped goes on when it is started again, and leaves nothing that
looks finished. --part=i/n makes a share of the files, on as many machines as you like: whoever sees all of them, in a
common --data_dir or after the folders unfinished.* were copied into one, makes the records of them.
--beam_pipeline_options has Apache Beam share the files out to workers that see all folders under the same paths, with
runner=FnApiRunner,direct_num_workers=8,direct_running_mode=multi_processing to those on this machine, with
runner=SparkRunner and the like to those of a cluster. The records are the same in every case.
"""

import pathlib
import time
from collections.abc import Sequence

from absl import flags

from vqm_jax import cli
from vqm_jax.prepare.records.building import Built, build_records, output_folder
from vqm_jax.prepare.records.configs import FramesConfig, TilesConfig
from vqm_jax.prepare.records.segments import SegmentsConfig

_DATASET = flags.DEFINE_string(
  'dataset', None, 'vqm_demo, paired_videos, … or a data set folder of your own.', required=True
)
_CONFIG = flags.DEFINE_list(
  'config', None, "Configs to build, separated by commas; default the data set's first and frames."
)
_MANUAL_DIR = flags.DEFINE_string('manual_dir', None, 'Folder with your videos, for data sets that need one.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where records go; default $TFDS_DATA_DIR, else that of TFDS.')
_NAME = flags.DEFINE_string('name', None, 'Store under this name instead of that of the data set.')
_HOLDOUT = flags.DEFINE_integer('holdout', None, 'Training videos to set aside as split holdout.', lower_bound=0)
_PER_VIDEO = flags.DEFINE_integer('per_video', None, 'Windows to cut from each video.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', None, 'Seed of the choice of windows.', lower_bound=0)
_SOURCE_SUFFIX = flags.DEFINE_string(
  'source_suffix', None, 'Which source folders to take where several differ in their bitrate, such as 500k.'
)
_CHECK_PAIRS = flags.DEFINE_bool(
  'check_pairs', True, 'Refuse pairs whose sides do not show the same, frame by frame; otherwise warn of them.'
)
_PART = flags.DEFINE_string('part', None, 'Build the i-th of n shares, such as 0/4; i from 0.')
_BEAM = flags.DEFINE_list(
  'beam_pipeline_options', None, "Build with Apache Beam, pip install -e '.[beam]', and its options."
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Build again what is built already.')


def main(_: Sequence[str]) -> None:
  start = time.monotonic()
  found = build_records(
    _DATASET.value, configs=_CONFIG.value, manual_dir=_MANUAL_DIR.value, data_dir=_DATA_DIR.value, name=_NAME.value,
    holdout=_HOLDOUT.value, per_video=_PER_VIDEO.value, seed=_SEED.value, source_suffix=_SOURCE_SUFFIX.value,
    check_pairs=_CHECK_PAIRS.value, part=cli.parse_part(_PART.value), beam_options=_BEAM.value,
    overwrite=_OVERWRITE.value, on_built=_say,
  )  # fmt: skip
  unfinished = any(built.missing for built in found)
  following = 'Build the other parts.' if unfinished else _next_command(found, output_folder(_DATA_DIR.value))
  print(f'{time.monotonic() - start:.0f} s. {following}')


def _say(built: Built) -> None:
  name = f'{built.name}/{built.config.name}'
  if built.missing:
    some = ', '.join(built.missing[:4]) + (' ...' if len(built.missing) > 4 else '')
    print(f'{name}: part {_PART.value} is done, {len(built.missing)} files of other parts are missing: {some}')
    return
  counts = ', '.join(f'{number} {split}' for split, number in built.counts.items())
  state = 'built' if built.fresh else 'was built already'
  print(f'{name} {state}: {counts}; {built.size / 1e6:.1f} MB in {built.folder}')


def _next_command(found: Sequence[Built], data_dir: pathlib.Path) -> str:
  name, configs = found[0].name, [built.config for built in found]
  if not all(isinstance(config, TilesConfig | SegmentsConfig | FramesConfig) for config in configs):
    return (
      f'Next: python -m vqm_jax.prepare.show --dataset={name} --config={configs[0].name} --data_dir={data_dir} '
      '--output=sheet.png'
    )
  training = [config.name for config in configs if not isinstance(config, FramesConfig)]
  if not training:
    return f'Next: python -m vqm_jax.eval --workdir=runs/<run> --dataset={name} --data_dir={data_dir}'
  return (
    'Next, minutes to an hour on a CPU: python -m vqm_jax.train --config=experiments/web_small.py:tiny '
    f'--config.init_from=web-small --config.dataset={name} --config.dataset_config={training[0]} '
    f'--config.data_dir={data_dir} --workdir=runs/{name} (published sizes, as experiments/tcl_edvr.py: days on a GPU)'
  )


if __name__ == '__main__':
  cli.run(main)
