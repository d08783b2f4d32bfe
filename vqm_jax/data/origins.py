"""How prepared records were built, for messages: the command that builds them again, or those that are missing."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from vqm_jax import installed, schemas

# Flags of a build that change its records: those that say which videos are read hold for all configs of a data set.
_OF_ALL = ('holdout', 'source_suffix', 'check_pairs')
FLAGS = (*_OF_ALL, 'per_video', 'seed')


@dataclasses.dataclass(frozen=True)
class Origin:
  """The arguments of `prepare.build`, stored under 'origin' in the metadata of the records.

  Attributes:
    dataset: a data set of ours by name, or the folder of another builder.
    manual_dir: the folder with the videos; None where the data set needs none.
    options: those of FLAGS that were given, such as {'holdout': 3}.
  """

  dataset: str
  manual_dir: str | None = None
  options: dict[str, bool | int | str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Metadata:
  FOREIGN = True

  origin: Origin | None = None


def of_builder(module: pathlib.Path, manual_dir: pathlib.Path | None, options: Mapping[str, Any]) -> Origin | None:
  """The origin of what the builder in the file `module` makes; None if `prepare.build` would not find it there."""
  folder = module.resolve().parent
  if module.name != f'{folder.name}_dataset_builder.py':
    return None
  ours = folder.parent == installed.builders_folder().resolve()
  given = {name: value for name, value in options.items() if name in FLAGS}
  return Origin(folder.name if ours else str(folder), manual_dir and str(manual_dir.resolve()), given)


def read(folder: pathlib.Path) -> Origin | None:
  """The origin of the records in `<data_dir>/<dataset>/<config>/<version>`; None if they do not tell."""
  try:
    return schemas.load(folder / 'metadata.json', _Metadata).origin
  except (OSError, schemas.Misfit):
    return None


def again(folder: pathlib.Path) -> str:
  """'`python -m vqm_jax.prepare.build ... --overwrite`' for the records in such a folder, and what it leaves open."""
  return _how(read(folder), folder.parents[1].name, folder.parent.name, folder.parents[2], '--overwrite')


def missing(root: pathlib.Path, dataset: str, config: str, beside: pathlib.Path | None = None) -> str:
  """Return the command that builds a config that is not there, and what it leaves open.

  Args:
    root: the data_dir.
    dataset: name of the data set, such as 'mine'.
    config: name of the builder config, such as 'frames'; '...' for one that is to be chosen.
    beside: `<data_dir>/<dataset>/<config>/<version>` of another config of this data set, if there is one.
  """
  origin = read(beside) if beside else None
  if origin:
    options = {name: value for name, value in origin.options.items() if name in _OF_ALL}
    origin = dataclasses.replace(origin, options=options)
  return _how(origin, dataset, config, root)


def _how(origin: Origin | None, name: str, config: str, root: pathlib.Path, *more: str) -> str:
  to_fill_in = ''
  if origin is None:
    origin, to_fill_in = _likely(name)
  flags = [f'--dataset={origin.dataset}']
  if pathlib.PurePath(origin.dataset).name != name:
    flags.append(f'--name={name}')
  if origin.manual_dir is not None:
    flags.append(f'--manual_dir={origin.manual_dir}')
  flags += [f'--config={config}', f'--data_dir={root}']
  flags += [_flag(*option) for option in sorted(origin.options.items())]
  return f'`python -m vqm_jax.prepare.build {shlex.join([*flags, *more])}`{to_fill_in}'


def _likely(name: str) -> tuple[Origin, str]:
  """Guess the origin of a data set from its name; the text says which words the user has to fill in."""
  builders = {path.parent.name: path for path in installed.builders_folder().glob('*/*_dataset_builder.py')}
  if name not in builders:
    known = ', '.join(sorted(builders))
    return Origin('BUILDER', 'FOLDER'), f' (BUILDER: {known} or a folder of your own; FOLDER: that of the videos)'
  # Not imported: builders need libraries that training does without.
  if 'MANUAL_DOWNLOAD_INSTRUCTIONS' not in builders[name].read_text(encoding='utf-8'):
    return Origin(name), ''
  return Origin(name, 'FOLDER'), ' (FOLDER: that of the videos)'


def _flag(name: str, value: bool | int | str) -> str:
  if isinstance(value, bool):
    return f'--{name}' if value else f'--no{name}'
  return f'--{name}={value}'
