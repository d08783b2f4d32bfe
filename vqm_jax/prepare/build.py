"""Builds the records of a data set, for training (tiles, segments) and evaluation (frames).

python -m vqm_jax.prepare.build --dataset=paired_videos --config=tiles_t5p128,frames --manual_dir=pairs/ --name=mine

What is built already stays as it is. A build that was stopped goes on when it is started again, and leaves nothing that
looks finished. --part=i/n makes a share of the files, on as many machines as you like: whoever sees all of them, in a
common --data_dir or after the folders unfinished.* were copied into one, makes the records of them.
--beam_pipeline_options has Apache Beam share the files out to workers that see all folders under the same paths, with
runner=FnApiRunner,direct_num_workers=8,direct_running_mode=multi_processing to those on this machine, with
runner=SparkRunner and the like to those of a cluster. The records are the same in every case.
"""

import datetime
import functools
import os
import pathlib
import re
import shutil
import time
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import flags, logging

from vqm_jax import cli, errors
from vqm_jax.prepare.records import beam, driver
from vqm_jax.prepare.records.builder import VqmBuilder
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
  """Builds each config that is not built yet and prints what there is."""
  start = time.monotonic()
  builder_cls = driver.find_builder(_DATASET.value)
  configs = _choose(builder_cls, _CONFIG.value or [builder_cls.BUILDER_CONFIGS[0].name, 'frames'])
  manual_dir = _input_folder(builder_cls)
  data_dir = _output_folder()
  part = cli.parse_part(_PART.value)
  make = driver.write if _BEAM.value is None else functools.partial(beam.write, beam.options(_BEAM.value), manual_dir)
  given = {
    'holdout': _HOLDOUT.value, 'per_video': _PER_VIDEO.value, 'seed': _SEED.value,
    'source_suffix': _SOURCE_SUFFIX.value,
  }  # fmt: skip
  given = {key: value for key, value in given.items() if value is not None}
  given |= {} if _CHECK_PAIRS.value else {'check_pairs': False}
  for key in given:
    if not any(hasattr(config, key) for config in configs):
      raise errors.ConfigError(
        f'--{key} means nothing for {",".join(config.name for config in configs)}; leave it out.'
      )
  name = _NAME.value or builder_cls.name
  if not re.fullmatch(r'[A-Za-z]\w*', name):
    raise errors.ConfigError(f'--name={name}: expected letters, digits and underscores.')
  tfds.disable_progress_bar()
  # All checks come before the first, possibly long, build.
  builders = [driver.variant(builder_cls, name, config, given)(data_dir=data_dir) for config in configs]
  unfinished = []
  todo = [builder for builder in builders if _OVERWRITE.value or not _is_built(builder, manual_dir, given)]
  _check_holdout(todo)
  for builder in todo:
    _say_what_it_takes(builder, manual_dir, part)
    if missing := driver.build(builder, manual_dir, part, make):
      print(
        f'{name}/{builder.builder_config.name}: part {_PART.value} is done, {len(missing)} files of other parts are '
        f'missing: {", ".join(missing[:4])}{" ..." if len(missing) > 4 else ""}'
      )
      unfinished.append(builder)
  for builder in [builder for builder in builders if builder not in unfinished]:
    done = tfds.builder_from_directory(builder.data_dir)
    size = sum(file.stat().st_size for file in pathlib.Path(builder.data_dir).iterdir())
    counts = ', '.join(f'{split.num_examples} {key}' for key, split in done.info.splits.items())
    state = 'built' if builder in todo else 'was built already'
    print(f'{name}/{builder.builder_config.name} {state}: {counts}; {size / 1e6:.1f} MB in {builder.data_dir}')
  following = 'Build the other parts.' if unfinished else _next_command(name, configs, data_dir)
  print(f'{time.monotonic() - start:.0f} s. {following}')


def _say_what_it_takes(builder: VqmBuilder, manual_dir: pathlib.Path | None, part: tuple[int, int]) -> None:
  """Logs records, size and time that are to be expected; raises DataError if the disk is too small for that."""
  shards = builder.plan(manual_dir)[part[0] :: part[1]]
  if not shards:
    return
  size, seconds = builder.probe(shards)
  free = shutil.disk_usage(_output_folder()).free
  logging.info(
    '%s/%s: up to %d records of %d clips in %d files, about %.3g GB and %s; %.3g GB are free.',
    builder.name, builder.builder_config.name, sum(shard.records for shard in shards),
    sum(len(shard.clips) for shard in shards), len(shards), size / 1e9,
    datetime.timedelta(seconds=round(seconds)), free / 1e9,
  )  # fmt: skip
  if size > 1.2 * free:  # the estimate of one clip may be wrong
    raise errors.DataError(
      f'{builder.data_dir}: needs about {size / 1e9:.3g} GB, {free / 1e9:.3g} GB are free; make room, choose another '
      '--data_dir or fewer windows with --per_video.'
    )


def _choose(builder_cls: type[VqmBuilder], names: Sequence[str]) -> list[Any]:
  known = {config.name: config for config in builder_cls.BUILDER_CONFIGS}
  for name in names:
    if name not in known:
      raise errors.ConfigError(f'--config={name}: unknown, {builder_cls.name} has {", ".join(known)}.')
  return [known[name] for name in dict.fromkeys(names)]


def _input_folder(builder_cls: type[VqmBuilder]) -> pathlib.Path | None:
  if not builder_cls.MANUAL_DOWNLOAD_INSTRUCTIONS:
    if _MANUAL_DIR.value:
      raise errors.ConfigError(f'--manual_dir={_MANUAL_DIR.value}: {builder_cls.name} reads no folder; leave it out.')
    return None
  expected = ' '.join(builder_cls.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
  if not _MANUAL_DIR.value:
    raise errors.ConfigError(f'--manual_dir is missing, the folder with your videos. {expected}')
  folder = pathlib.Path(_MANUAL_DIR.value).expanduser().resolve()
  if not folder.is_dir() or not any(folder.iterdir()):
    state = 'is empty' if folder.is_dir() else 'is no folder'
    raise errors.DataError(f'--manual_dir={folder} {state}. {expected}')
  return folder


def _output_folder() -> pathlib.Path:
  text = _DATA_DIR.value or tfds.core.constants.get_default_data_dir()
  if '://' in str(text):
    raise errors.ConfigError(f'--data_dir={text}: records are written to local disk; copy them afterwards.')
  folder = pathlib.Path(text).expanduser().resolve()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.DataError(f'--data_dir={folder}: cannot be created ({error.strerror}); choose another.') from error
  if not os.access(folder, os.W_OK):
    raise errors.DataError(f'--data_dir={folder}: not writable; choose another or change its permissions.')
  return folder


def _is_built(builder: VqmBuilder, manual_dir: pathlib.Path | None, given: dict[str, Any]) -> bool:
  """Whether the records exist; raises DataError if they were built from other input or with other flags."""
  if not os.path.exists(builder.data_dir) or not builder.is_prepared():
    return False
  stored = _settings(builder)
  wanted = builder.settings(manual_dir)
  differing = [key for key in given if key in wanted and stored.get(key) != wanted[key]]
  changed = [split for split, digest in stored['input'].items() if builder.fingerprint(split, manual_dir) != digest]
  if not differing and not changed:
    return True
  reasons = [f'{key}={stored.get(key)}, now {key}={wanted[key]}' for key in differing]
  reasons += [f'other files of split {split}' for split in changed]
  raise errors.DataError(
    f'{builder.data_dir}: was built with {", ".join(reasons)}; give --overwrite to build it again or --name to keep '
    'both.'
  )


def _settings(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
  settings = (builder.info.metadata or {}).get('settings')
  if settings is None:
    raise errors.DataError(f'{builder.data_dir}: was not built by this program; remove it or use another --name.')
  return settings


def _check_holdout(todo: Sequence[VqmBuilder]) -> None:
  """Raises DataError if other records of this name disagree on what is held out from training."""
  being_built = {builder.builder_config.name for builder in todo}
  for builder in todo:
    for path in pathlib.Path(builder.data_dir).parents[1].glob('*/*/dataset_info.json'):
      folder = path.parent
      if folder.parent.name in being_built or folder.name != str(builder.version):
        continue
      other = _settings(tfds.builder_from_directory(folder))['holdout']
      wanted = builder.builder_config.holdout
      if other != wanted:
        raise errors.DataError(
          f'{folder}: was built with --holdout={other}, asked now: {wanted}; build tiles and frames with the same '
          'number, so that no training video is held out, or use another --name.'
        )


def _next_command(name: str, configs: Sequence[Any], data_dir: pathlib.Path) -> str:
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
