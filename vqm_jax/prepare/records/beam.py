"""Builds with Apache Beam: its workers make the files of a config, wherever they are.

Beam is imported where it is used: it is an extra.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import pathlib
import socket
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import logging

from vqm_jax import errors, files
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.builder import Shard, VqmBuilder

# Beam's own default, DirectRunner, downloads a program and starts it.
_RUNNER = 'runner=FnApiRunner'


def options(given: Sequence[str]) -> Any:
  """The PipelineOptions of Apache Beam that 'runner=SparkRunner' and the like ask for; on this machine by default.

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
      parsed = pipeline_options.PipelineOptions([f'--{option}' for option in (_RUNNER, *given)])
      runners.create_runner(parsed.get_all_options()['runner'])
  except (SystemExit, ImportError, AttributeError, ValueError) as error:
    # Beam's parser prints all options there are, then what is wrong, and exits.
    reason = printed.getvalue().splitlines()[-1] if isinstance(error, SystemExit) else error
    raise errors.ConfigError(f'--beam_pipeline_options={",".join(given)}: {reason}') from error
  return parsed


def write(
  options: Any, manual_dir: pathlib.Path | None, builder: VqmBuilder, shards: Sequence[Shard], folder: pathlib.Path
) -> None:
  """As `builder.write`, by workers of Beam that see the data set, the input and `folder` under the same paths as we do.

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
  worker = _Worker(dataset, builder.name, vars(builder.builder_config), manual_dir, folder)
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
class _Worker:
  """Makes files of a build wherever Beam sends it; holds plain values, since builders and sources do not pickle."""

  dataset: str
  name: str
  fields: dict[str, Any]
  manual_dir: pathlib.Path | None
  folder: pathlib.Path

  def __call__(self, name: str) -> None:
    """Make one file. What is wrong is left in a note: no runner hands over an exception as it was raised."""
    if not (self.folder / driver.NOTE).exists():
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
      files.write_text(_error_note(self.folder, name), str(error))

  @functools.cached_property
  def _builder(self) -> VqmBuilder:
    found = driver.find_builder(self.dataset)
    config = next(config for config in found.BUILDER_CONFIGS if config.name == self.fields['name'])
    builder = driver.variant(found, self.name, config, self.fields)(data_dir=self.folder)
    builder.memory_folder = self.folder.parents[1]  # where the program that started the workers has looked already
    return builder

  @functools.cached_property
  def _shards(self) -> dict[str, Shard]:
    if driver.noted(self.folder) != driver.settings_of(self._builder, self.manual_dir):
      raise errors.DataError(
        f'{socket.gethostname()}: a worker there sees other input or another version of the program than {self.folder} '
        'was begun with; make them equal.'
      )
    return {shard.name: shard for shard in self._builder.plan(self.manual_dir)}


def _error_note(folder: pathlib.Path, name: str) -> pathlib.Path:
  return folder / f'{name}.error'
