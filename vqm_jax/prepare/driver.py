"""Finds the builder of a data set and runs it so that a failure costs nothing that was there before."""

import collections
import contextlib
import dataclasses
import fcntl
import functools
import importlib
import io
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

import vqm_jax
from vqm_jax import cli, errors
from vqm_jax.prepare.builder import Shard, VqmBuilder, write
from vqm_jax.report import results

_REPLACED = 'replaced'
_NOTE = 'settings.json'
# Those given come behind and replace these. Without a runner named, Beam downloads one, and its workers tell all they do.
_BEAM_DEFAULTS = ('runner=FnApiRunner', 'default_sdk_harness_log_level=WARNING')


def find_builder(dataset: str) -> type[VqmBuilder]:
  """The builder class of a data set of the checkout, or of a folder <name>/<name>_dataset_builder.py."""
  for folder in (cli.ROOT / 'datasets' / dataset, pathlib.Path(dataset).expanduser().resolve()):
    module = folder / f'{folder.name}_dataset_builder.py'
    if module.is_file():
      break
  else:
    known = sorted(path.parent.name for path in (cli.ROOT / 'datasets').glob('*/*_dataset_builder.py'))
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
  config = dataclasses.replace(config, **{key: value for key, value in changes.items() if key in fields})
  # TFDS finds README, tags and citation through the module of the class.
  body = dict(name=name, BUILDER_CONFIGS=[config], __module__=builder_cls.__module__)
  return type(builder_cls)('Builder', (builder_cls,), body, skip_registration=True)


def beam_options(given: Sequence[str]) -> Any:
  """The PipelineOptions of Apache Beam that 'runner=SparkRunner' and the like ask for.

  Raises ConfigError if Beam is not installed or refuses them.
  """
  try:
    from apache_beam import runners
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise errors.ConfigError(
      f"--beam_pipeline_options needs Apache Beam ({error}): pip install -e '.[beam]', or leave it out."
    ) from error
  printed = io.StringIO()
  try:
    with contextlib.redirect_stderr(printed):
      options = pipeline_options.PipelineOptions([f'--{option}' for option in (*_BEAM_DEFAULTS, *given)])
      runners.create_runner(options.get_all_options()['runner'])
  except (SystemExit, ImportError, AttributeError, ValueError) as error:
    # Beam's parser prints all options there are, then what is wrong, and exits.
    reason = printed.getvalue().splitlines()[-1] if isinstance(error, SystemExit) else error
    raise errors.ConfigError(f'--beam_pipeline_options={",".join(given)}: {reason}') from error
  return options


def build(
  builder: VqmBuilder, manual_dir: pathlib.Path | None, part: tuple[int, int] = (0, 1), beam: Any = None
) -> list[str]:
  """Builds or rebuilds one config; records that are there stay until the new ones are complete.

  Finished files of a build that was stopped are kept in `unfinished.<version>` beside the records and used again. Part
  (i, n) makes every n-th file, from number i on; whoever finds all files there, whichever part or machine made them,
  turns them into the records. Until then the names of the missing files are returned, otherwise an empty list.
  With `beam`, options from `beam_options`, its workers make the files.
  """
  final = pathlib.Path(builder.data_dir)
  make = functools.partial(_write_with_beam, beam, manual_dir) if beam is not None else write
  if part != (0, 1):
    with _locked(final.parent, shared=True), _unfinished(builder, manual_dir, shared=True) as (folder, shards):
      make(builder, shards[part[0] :: part[1]], folder)
      if missing := [shard.name for shard in shards if not shard.finished(folder)]:
        return missing
  with _locked(final.parent):
    _clean(final)
    with _unfinished(builder, manual_dir, shared=False) as (folder, shards):
      make(builder, shards, folder)
      if not final.exists():
        builder.shards_folder = folder
        _prepare(builder, manual_dir)
        return []
      scratch = final.parent / f'incomplete.{os.getpid()}'
      try:
        fresh = type(builder)(data_dir=scratch)
        fresh.shards_folder = folder
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
  folder = final.parent / f'unfinished.{final.name}'
  shards = builder.plan(manual_dir)
  settings = _settings(builder, manual_dir)
  note = folder / _NOTE
  if note.exists() and json.loads(note.read_text()) != settings:
    logging.warning('%s: was left by a build with other settings or input, starting afresh.', folder)
    shutil.rmtree(folder)
  if not note.exists():
    results.write_json(note, settings)
  try:
    yield folder, shards
  finally:
    if not shared and not any(shard.finished(folder) for shard in shards):
      shutil.rmtree(folder)


def _settings(builder: VqmBuilder, manual_dir: pathlib.Path | None) -> dict[str, Any]:
  """What the files of a build depend on, as JSON gives it back."""
  files = [shard.name for shard in builder.plan(manual_dir)]
  return json.loads(json.dumps(builder.settings(manual_dir) | {'version': vqm_jax.__version__, 'files': files}))


def _write_with_beam(
  options: Any, manual_dir: pathlib.Path | None, builder: VqmBuilder, shards: Sequence[Shard], folder: pathlib.Path
) -> None:
  """As `write`, by workers of Apache Beam that see the data set, the input and `folder` under the same paths as we do.

  They make whole files, not records for the Beam writer of TFDS: that would sort all records by hashed key, so that the
  frames of a clip lie apart, and start from nothing after a failure.

  Raises DataError with all that kept files from being made; the others are finished by then.
  """
  import apache_beam

  todo = [shard for shard in shards if not shard.finished(folder)]
  if not todo:
    return
  module = sys.modules[type(builder).__module__]
  dataset = str(pathlib.Path(module.__file__).resolve().parent)
  worker = _BeamWorker(dataset, builder.name, vars(builder.builder_config), manual_dir, folder)
  logging.info('%s/%s: Beam makes %d of %d files.', builder.name, builder.builder_config.name, len(todo), len(shards))
  with apache_beam.Pipeline(options=options) as pipeline:
    names = pipeline | apache_beam.Create([shard.name for shard in todo]) | apache_beam.Reshuffle()
    _ = names | apache_beam.Map(worker)
  problems = {
    note.read_text() if note.exists() else f'all workers have to see {folder} under this path'
    for shard in todo
    if not shard.finished(folder)
    for note in [_error_note(folder, shard.name)]
  }
  if problems:
    raise errors.DataError('; '.join(sorted(problems)))


@dataclasses.dataclass
class _BeamWorker:
  """Makes files of a build wherever Beam sends it; holds plain values, since builders and sources do not pickle."""

  dataset: str
  name: str
  fields: dict[str, Any]
  manual_dir: pathlib.Path | None
  folder: pathlib.Path

  def __call__(self, name: str) -> None:
    """Makes one file. What is wrong is left in a note: no runner hands over an exception as it was raised."""
    if not (self.folder / _NOTE).exists():
      return  # nobody would find a note here
    try:
      shard = self._shards[name]
      if shard.finished(self.folder):  # runners try again what has failed together with others
        return
      # A folder of its own, for runners may have two workers make the same file.
      with tempfile.TemporaryDirectory(dir=self.folder) as own:
        collections.deque(self._builder.write(shard, pathlib.Path(own)), maxlen=0)
        for file in (shard.name, f'{shard.name}.json'):
          pathlib.Path(own, file).rename(self.folder / file)
    except (errors.VqmError, OSError) as error:
      results.write_text(_error_note(self.folder, name), str(error))

  @functools.cached_property
  def _builder(self) -> VqmBuilder:
    found = find_builder(self.dataset)
    config = next(config for config in found.BUILDER_CONFIGS if config.name == self.fields['name'])
    return variant(found, self.name, config, self.fields)(data_dir=self.folder)

  @functools.cached_property
  def _shards(self) -> dict[str, Shard]:
    if json.loads((self.folder / _NOTE).read_text()) != _settings(self._builder, self.manual_dir):
      raise errors.DataError(
        f'{socket.gethostname()}: a worker there sees other input or another version of the program than {self.folder} '
        'was begun with; make them equal.'
      )
    return {shard.name: shard for shard in self._builder.plan(self.manual_dir)}


def _error_note(folder: pathlib.Path, name: str) -> pathlib.Path:
  return folder / f'{name}.error'


def _clean(final: pathlib.Path) -> None:
  """Removes what stopped builds have left beside their finished files, after putting back records being replaced."""
  for replaced in final.parent.glob(f'incomplete.*/{_REPLACED}'):
    if not final.exists():
      replaced.rename(final)
  for stale in final.parent.glob('incomplete.*'):
    shutil.rmtree(stale)


def _prepare(builder: VqmBuilder, manual_dir: pathlib.Path | None) -> None:
  settings = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
  # TFDS prints its own account of the build, and makes folders for downloads.
  with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as unused:
    builder.download_and_prepare(download_dir=unused, download_config=settings)


@contextlib.contextmanager
def _locked(folder: pathlib.Path, shared: bool = False) -> Iterator[None]:
  """Holds a lock on the folder, shared between parts or exclusive, which ends with the process, however that ends."""
  folder.mkdir(parents=True, exist_ok=True)
  handle = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    yield
  except BlockingIOError as error:
    raise errors.DataError(f'{folder}: another build is writing here; wait until it ends.') from error
  finally:
    os.close(handle)
