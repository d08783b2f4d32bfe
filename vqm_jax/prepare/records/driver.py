"""Finds the builder of a data set and runs it so that a failure costs nothing that was there before."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

import vqm_jax
from vqm_jax import errors, files, installed, locks, schemas
from vqm_jax.prepare.records.builder import Shard, VqmBuilder, write

_REPLACED = 'replaced'
# In the folder of an unfinished build: what its files depend on.
NOTE = 'settings.json'

# Makes those files of a build that are not finished in a folder.
Make = Callable[[VqmBuilder, Sequence[Shard], pathlib.Path], None]


def find_builder(dataset: str) -> type[VqmBuilder]:
  """The builder class of a data set of ours, or of a folder <name>/<name>_dataset_builder.py."""
  ours = installed.builders_folder()
  for folder in (ours / dataset, pathlib.Path(dataset).expanduser().resolve()):
    module = folder / f'{folder.name}_dataset_builder.py'
    if module.is_file():
      break
  else:
    known = sorted(path.parent.name for path in ours.glob('*/*_dataset_builder.py'))
    raise errors.ConfigError(
      f'--dataset={dataset}: unknown, choose one of {", ".join(known)} or give the path of a folder <name> of your '
      'own that holds <name>_dataset_builder.py.'
    )
  # In front: the folder's name may be that of an installed package.
  sys.path.insert(0, str(folder.parent))
  imported = importlib.import_module(f'{folder.name}.{module.stem}')
  if pathlib.Path(imported.__file__).resolve() != module.resolve():
    raise errors.ConfigError(f'--dataset={dataset}: another Python package is called {folder.name}; rename the folder.')
  return imported.Builder


def variant(builder_cls: type[VqmBuilder], name: str, config: Any, changes: dict[str, Any]) -> type[VqmBuilder]:
  """The builder class under another name, with one config, whose fields are changed as far as it has them."""
  fields = {field.name for field in dataclasses.fields(config)}
  changes = {key: value for key, value in changes.items() if key in fields}
  config = dataclasses.replace(config, **changes)
  # TFDS finds README, tags and citation through the module of the class.
  body = dict(name=name, BUILDER_CONFIGS=[config], options=changes, __module__=builder_cls.__module__)
  return type(builder_cls)('Builder', (builder_cls,), body, skip_registration=True)


def opened(builder_cls: type[VqmBuilder], data_dir: str | os.PathLike, overwrite: bool = False) -> VqmBuilder:
  """The builder, which reads the description of records that are there already.

  Raises DataError if that is damaged; with `overwrite` it is renamed instead, so that they can be built again.
  """
  try:
    return builder_cls(data_dir=data_dir)
  except Exception as error:  # TFDS and Protobuf raise nearly everything
    (config,) = builder_cls.BUILDER_CONFIGS
    version = str(config.version or builder_cls.VERSION)
    described = pathlib.Path(data_dir, builder_cls.name, config.name, version, 'dataset_info.json')
    if not described.exists():
      raise
    if not overwrite:
      raise errors.DataError(
        f'{described}: this version cannot read the description of the records ({errors.reason(error)}); build them '
        'again with --overwrite.'
      ) from error
    logging.warning('%s: damaged, renamed to %s.damaged', described, described.name)
    described.rename(described.with_name(f'{described.name}.damaged'))
    return builder_cls(data_dir=data_dir)


def build(
  builder: VqmBuilder, manual_dir: pathlib.Path | None, part: tuple[int, int] = (0, 1), make: Make = write
) -> list[str]:
  """Build or rebuild one config; records that are there stay until the new ones are complete.

  Finished files of a build that was stopped are kept in `unfinished.<version>` beside the records and used again. Part
  (i, n) makes every n-th file, from number i on; whoever finds all files there, whichever part or machine made them,
  turns them into the records. Until then the names of the missing files are returned, otherwise an empty list.
  `make` makes files, here one after the other unless it is that of `beam`.
  """
  final = pathlib.Path(builder.data_dir)
  if part != (0, 1):
    with locks.folder(final.parent, shared=True), _unfinished(builder, manual_dir, shared=True) as (folder, shards):
      make(builder, shards[part[0] :: part[1]], folder)
      if missing := [shard.name for shard in shards if not shard.finished(folder)]:
        return missing
  # Several parts may find all files there at the same moment.
  with locks.folder(final.parent, wait=part != (0, 1)):
    _clean(final)
    if part != (0, 1) and final.exists() and not _unfinished_folder(final).exists():
      return []  # another one has made the records meanwhile
    with _unfinished(builder, manual_dir, shared=False) as (folder, shards):
      if make is not write:  # otherwise the builder makes them by itself
        make(builder, shards, folder)
      if not final.exists():
        builder.shards_folder = folder
        _prepare(builder, manual_dir)
        return []
      scratch = final.parent / f'incomplete.{os.getpid()}'
      try:
        fresh = type(builder)(data_dir=scratch)
        fresh.shards_folder, fresh.memory_folder = folder, final.parents[1]
        _prepare(fresh, manual_dir)
        final.rename(scratch / _REPLACED)
        pathlib.Path(fresh.data_dir).rename(final)
      finally:
        _clean(final)
  return []


@contextlib.contextmanager
def _unfinished(
  builder: VqmBuilder, manual_dir: pathlib.Path | None, shared: bool
) -> Iterator[tuple[pathlib.Path, Sequence[Shard]]]:
  """The folder for the files of a build, and its plan.

  Files of another plan are removed before; without any finished file the folder is removed in the end, unless it is
  shared with other parts, which may be about to write there.
  """
  final = pathlib.Path(builder.data_dir)
  folder = _unfinished_folder(final)
  shards = builder.plan(manual_dir)
  settings = settings_of(builder, manual_dir)
  note = folder / NOTE
  if note.exists() and noted(folder) != settings:
    logging.warning('%s: was left by a build with other settings or input, starting afresh.', folder)
    shutil.rmtree(folder)
  if not note.exists():
    files.write_json(note, settings)
  try:
    yield folder, shards
  finally:
    if not shared and not any(shard.finished(folder) for shard in shards):
      shutil.rmtree(folder)


def _unfinished_folder(final: pathlib.Path) -> pathlib.Path:
  return final.parent / f'unfinished.{final.name}'


def noted(folder: pathlib.Path) -> dict[str, Any] | None:
  """The settings of the unfinished build in a folder; None if its note is damaged."""
  try:
    return schemas.load(folder / NOTE, dict[str, Any])
  except schemas.Misfit:
    return None


def settings_of(builder: VqmBuilder, manual_dir: pathlib.Path | None) -> dict[str, Any]:
  """Collect what the files of a build depend on, as JSON gives it back."""
  files = [shard.name for shard in builder.plan(manual_dir)]
  return json.loads(json.dumps(builder.settings(manual_dir) | {'version': vqm_jax.__version__, 'files': files}))


def _clean(final: pathlib.Path) -> None:
  """Remove what stopped builds have left beside their finished files, after putting back records being replaced."""
  for replaced in final.parent.glob(f'incomplete.*/{_REPLACED}'):
    if not final.exists():
      replaced.rename(final)
  for stale in final.parent.glob('incomplete.*'):
    shutil.rmtree(stale)


def _prepare(builder: VqmBuilder, manual_dir: pathlib.Path | None) -> None:
  settings = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
  # TFDS prints its own account of the build, and makes folders for downloads.
  with (
    files.filling(pathlib.Path(builder.data_dir)),
    contextlib.redirect_stdout(io.StringIO()),
    tempfile.TemporaryDirectory() as unused,
  ):
    builder.download_and_prepare(download_dir=unused, download_config=settings)
