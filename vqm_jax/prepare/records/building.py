"""Builds the records of a data set from arguments: what `vqm_jax.prepare.build` does."""

import dataclasses
import datetime
import functools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from vqm_jax import errors
from vqm_jax.data import records
from vqm_jax.files import size_text
from vqm_jax.prepare.records import beam, driver
from vqm_jax.prepare.records.builder import VqmBuilder


@dataclasses.dataclass(frozen=True)
class Built:
  """The outcome for one config.

  Attributes:
    name: of the data set, as it is stored.
    config: the builder config: of tiles, segments, frames.
    folder: of the records.
    fresh: whether they were built now.
    missing: files that other parts have yet to make; without any, the records are there.
    counts: {split: records}; empty while files are missing.
    size: of the records in bytes; 0 while files are missing.
  """

  name: str
  config: Any
  folder: pathlib.Path
  fresh: bool
  missing: Sequence[str] = ()
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  size: int = 0


def build_records(
  dataset: str,
  *,
  configs: Sequence[str] | None = None,
  manual_dir: str | os.PathLike | None = None,
  data_dir: str | os.PathLike | None = None,
  name: str | None = None,
  holdout: int | None = None,
  per_video: int | None = None,
  seed: int | None = None,
  source_suffix: str | None = None,
  check_pairs: bool = True,
  part: tuple[int, int] = (0, 1),
  beam_options: Sequence[str] | None = None,
  overwrite: bool = False,
  on_built: Callable[[Built], None] | None = None,
) -> list[Built]:
  """Build each config that is not built yet. All checks come before the first, possibly long, build.

  Args:
    dataset: name of a builder, or the path of a data set folder.
    configs: names; None for the first of the data set and 'frames'.
    manual_dir: folder with the videos, for data sets that need one.
    data_dir: where records go; None for $TFDS_DATA_DIR, else that of TFDS.
    name: what they are stored under; None for the name of the data set.
    holdout: training videos to set aside as split holdout; None, here and below, for what the config says.
    per_video: windows to cut from each video.
    seed: of the choice of windows.
    source_suffix: which source folders to take where several differ in their bitrate.
    check_pairs: refuse pairs whose sides do not show the same, frame by frame; otherwise warn of them.
    part: (i, n) to build the i-th of n shares, i from 0.
    beam_options: build with Apache Beam and these pipeline options.
    overwrite: build again what is built already.
    on_built: called for each config as soon as it is built, or is found to be.

  Returns:
    What became of the configs, in their order.

  Raises:
    ConfigError: an unknown data set, config, name or option, or one that means nothing here.
    DataError: input is missing or unusable, records were built from something else, or the disk is too small.
  """
  builder_cls = driver.find_builder(dataset)
  chosen = _choose(builder_cls, configs or [builder_cls.BUILDER_CONFIGS[0].name, 'frames'])
  manual_dir = _input_folder(builder_cls, manual_dir)
  data_dir = output_folder(data_dir)
  make = driver.write if beam_options is None else functools.partial(beam.write, beam.options(beam_options), manual_dir)
  given = {'holdout': holdout, 'per_video': per_video, 'seed': seed, 'source_suffix': source_suffix}
  given = {key: value for key, value in given.items() if value is not None}
  given |= {} if check_pairs else {'check_pairs': False}
  for key in given:
    if not any(hasattr(config, key) for config in chosen):
      raise errors.ConfigError(f'--{key} means nothing for {",".join(config.name for config in chosen)}; leave it out.')
  name = name or builder_cls.name
  if not re.fullmatch(r'[A-Za-z]\w*', name):
    raise errors.ConfigError(f'--name={name}: expected letters, digits and underscores.')
  tfds.disable_progress_bar()
  classes = [driver.variant(builder_cls, name, config, given) for config in chosen]
  builders = [driver.opened(cls, data_dir, overwrite) for cls in classes]
  todo = [builder for builder in builders if overwrite or not _is_built(builder, manual_dir, given)]
  _check_holdout(todo)
  found = []
  for builder in builders:
    missing = []
    if builder in todo:
      _check_room(builder, manual_dir, data_dir, part)
      missing = driver.build(builder, manual_dir, part, make)
    found.append(_built(builder, name, builder in todo, missing))
    if on_built:
      on_built(found[-1])
  return found


def _choose(builder_cls: type[VqmBuilder], names: Sequence[str]) -> list[Any]:
  known = {config.name: config for config in builder_cls.BUILDER_CONFIGS}
  for name in names:
    if name not in known:
      raise errors.ConfigError(f'--config={name}: unknown, {builder_cls.name} has {", ".join(known)}.')
  return [known[name] for name in dict.fromkeys(names)]


def _input_folder(builder_cls: type[VqmBuilder], given: str | os.PathLike | None) -> pathlib.Path | None:
  if not builder_cls.MANUAL_DOWNLOAD_INSTRUCTIONS:
    if given:
      raise errors.ConfigError(f'--manual_dir={given}: {builder_cls.name} reads no folder; leave it out.')
    return None
  expected = ' '.join(builder_cls.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
  if not given:
    raise errors.ConfigError(f'--manual_dir is missing, the folder with your videos. {expected}')
  folder = pathlib.Path(given).expanduser().resolve()
  if not folder.is_dir() or not any(folder.iterdir()):
    state = 'is empty' if folder.is_dir() else 'is no folder'
    raise errors.DataError(f'--manual_dir={folder} {state}. {expected}')
  return folder


def output_folder(given: str | os.PathLike | None) -> pathlib.Path:
  """The folder for records, made if needed. Raises ConfigError or DataError if it cannot be one."""
  text = given or tfds.core.constants.get_default_data_dir()
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


def _is_built(builder: VqmBuilder, manual_dir: pathlib.Path | None, given: Mapping[str, Any]) -> bool:
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
      other = _settings(records.open_folder(folder))['holdout']
      wanted = builder.builder_config.holdout
      if other != wanted:
        raise errors.DataError(
          f'{folder}: was built with --holdout={other}, asked now: {wanted}; build tiles and frames with the same '
          'number, so that no training video is held out, or use another --name.'
        )


def _check_room(
  builder: VqmBuilder, manual_dir: pathlib.Path | None, data_dir: pathlib.Path, part: tuple[int, int]
) -> None:
  """Log records, size and time that are to be expected. Raises DataError if the disk is too small for that."""
  shards = builder.plan(manual_dir)[part[0] :: part[1]]
  if not shards:
    return
  size, seconds = builder.probe(shards)
  free = shutil.disk_usage(data_dir).free
  logging.info(
    '%s/%s: up to %d records of %d clips in %d files, about %s and %s; %s are free.',
    builder.name, builder.builder_config.name, sum(shard.records for shard in shards),
    sum(len(shard.clips) for shard in shards), len(shards), size_text(size),
    datetime.timedelta(seconds=round(seconds)), size_text(free),
  )  # fmt: skip
  if size > 1.2 * free:  # the estimate of one clip may be wrong
    raise errors.DataError(
      f'{builder.data_dir}: needs about {size_text(size)}, {size_text(free)} are free; make room, choose another '
      '--data_dir or fewer windows with --per_video.'
    )


def _built(builder: VqmBuilder, name: str, fresh: bool, missing: Sequence[str]) -> Built:
  found = Built(name, builder.builder_config, pathlib.Path(builder.data_dir), fresh, missing)
  if missing:
    return found
  splits = records.open_folder(pathlib.Path(builder.data_dir)).info.splits
  counts = {key: split.num_examples for key, split in splits.items()}
  return dataclasses.replace(found, counts=counts, size=sum(file.stat().st_size for file in found.folder.iterdir()))
