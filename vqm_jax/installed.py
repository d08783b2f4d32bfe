"""Where experiments and builders lie: beside the package in a checkout, in the package once it is installed.

Files of experiments and builders are found by name and by path, never imported by name; what an experiment imports
from its neighbours (`from experiments import common`) is found in both places.
"""

import contextlib
import pathlib
import sys
import types
from collections.abc import Iterator

from vqm_jax import errors

PACKAGE = pathlib.Path(__file__).resolve().parent


def experiment_folders() -> list[pathlib.Path]:
  """The folders of experiments, those to look into first in front: that of the working directory, then our own."""
  folders = (pathlib.Path('experiments').absolute(), _own('experiments', 'experiments'))
  return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def experiments() -> list[str]:
  """The names of all experiments that are found by name."""
  files = [file for folder in experiment_folders() for file in folder.glob('*.py')]
  return sorted({file.stem for file in files if b'def get_config(' in file.read_bytes()})


def experiment_file(text: str) -> pathlib.Path:
  """The file of an experiment.

  Args:
    text: a name such as 'ecnu', or a path; 'experiments/ecnu.py' is one of those that `experiment_folders` have where
      there is no such file here.

  Raises:
    ConfigError: there is no such experiment or file.
  """
  path = pathlib.Path(text).expanduser()
  if path.is_file():
    return path
  name = path.stem if path.parent == pathlib.Path('experiments') else text
  hint = ''
  if name == pathlib.Path(name).name:
    hint = errors.did_you_mean(name, experiments())
    for folder in experiment_folders():
      if (file := folder / f'{name}.py').is_file():
        return file
  raise errors.ConfigError(
    f'--config={text}: no such file or experiment; {hint}choose one of '
    f'{", ".join(experiments())} or give the path of a file of your own with get_config().'
  )


@contextlib.contextmanager
def importable_experiments(file: pathlib.Path) -> Iterator[None]:
  """While it lasts, `from experiments import common` finds neighbours of `file`, then those of `experiment_folders`."""
  folder = file.absolute().parent
  first = [folder] if folder.name == 'experiments' else []
  package = types.ModuleType('experiments')
  package.__path__ = [str(path) for path in dict.fromkeys([*first, *experiment_folders()])]
  before = {name: sys.modules.pop(name) for name in _experiment_modules()}
  sys.modules['experiments'] = package
  try:
    yield
  finally:
    for name in _experiment_modules():
      del sys.modules[name]
    sys.modules.update(before)


def _experiment_modules() -> list[str]:
  return [name for name in sys.modules if name.split('.')[0] == 'experiments']


def builders_folder() -> pathlib.Path:
  """The folder with a folder for every data set that can be built."""
  return _own('builders', 'datasets')


def _own(inside: str, beside: str) -> pathlib.Path:
  # What lies beside an installed package, such as a folder `datasets`, is another project's.
  folder = PACKAGE / inside
  return folder if folder.is_dir() else PACKAGE.parent / beside
