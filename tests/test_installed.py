"""Experiments by name and by path, in a checkout, elsewhere, and in an installed package."""

import pathlib
import sys
import types

import pytest

from vqm_jax import cli, errors, installed
from vqm_jax.prepare.records import driver


def write(folder, **files):
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in files.items():
    (folder / f'{name}.py').write_text(text)


def load(text):
  """The config of an experiment as `--config=text` gives it."""
  from ml_collections.config_flags import config_flags

  return cli._Experiment(config_flags.ConfigFileFlagParser('config'), 'config').parse(text)


CONFIG = "from experiments import common\ndef get_config(size='full'):\n  return {'who': common.WHO, 'size': size}\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
  """An installed package beside another project's folders, with one experiment; the working directory is elsewhere."""
  own = tmp_path / 'site' / 'vqm_jax'
  write(own / 'experiments', ours=CONFIG, common="WHO = 'package'")
  write(own.parent / 'experiments', common="WHO = 'stranger'", stranger=CONFIG)
  write(own / 'builders' / 'ours', ours_dataset_builder='class Builder: pass', __init__='')
  write(own.parent / 'datasets' / 'stranger', stranger_dataset_builder='')
  monkeypatch.setattr(installed, 'PACKAGE', own)
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  return own


@pytest.mark.parametrize('text', ['ours', 'experiments/ours.py'])
def test_experiments_of_the_package_by_name_and_by_the_path_that_a_checkout_has(package, text):
  assert load(text) == {'who': 'package', 'size': 'full'}
  assert load(f'{text}:tiny')['size'] == 'tiny'


def test_experiments_of_the_working_directory_come_first(package):
  write(pathlib.Path('experiments'), ours=CONFIG, mine=CONFIG)
  assert installed.experiments() == ['mine', 'ours']
  assert load('mine')['who'] == 'package'  # which is all that has a common.py
  write(pathlib.Path('experiments'), common="WHO = 'here'")
  assert load('ours')['who'] == load('mine')['who'] == load('experiments/mine.py')['who'] == 'here'


def test_an_experiment_of_the_package_has_its_own_neighbours(package):
  write(pathlib.Path('experiments'), common="WHO = 'here'")
  assert load('ours')['who'] == 'package'


def test_a_file_of_ones_own_anywhere(package, tmp_path):
  write(tmp_path / 'else where', mine=CONFIG)
  assert load(str(tmp_path / 'else where' / 'mine.py'))['who'] == 'package'
  write(tmp_path / 'else where' / 'experiments', mine=CONFIG, common="WHO = 'else where'")
  assert load(str(tmp_path / 'else where' / 'experiments' / 'mine.py'))['who'] == 'else where'


def test_modules_called_experiments_are_as_before(package, monkeypatch):
  before = types.ModuleType('experiments')
  monkeypatch.setitem(sys.modules, 'experiments', before)
  monkeypatch.delitem(sys.modules, 'experiments.common', raising=False)
  load('ours')
  assert sys.modules['experiments'] is before and 'experiments.common' not in sys.modules


@pytest.mark.parametrize('text', ['nothing', 'common.py', 'stranger', 'experiments/nothing.py', 'a/ours.py', '', '.'])
def test_unknown_experiments_are_named_with_those_there_are(package, text):
  said = rf'^--config={text}: no such file or experiment; choose one of ours or give the path'
  with pytest.raises(errors.ConfigError, match=said):
    load(text)


def test_experiments_of_the_checkout_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert load('ecnu:tiny').system == load('experiments/ecnu.py').system == 'ecnu'
  assert 'ecnu' in installed.experiments() and 'common' not in installed.experiments()


def test_builders_of_the_package_not_of_a_stranger(package):
  assert driver.find_builder('ours').__module__ == 'ours.ours_dataset_builder'
  with pytest.raises(errors.ConfigError, match='^--dataset=stranger: unknown, choose one of ours or give the path'):
    driver.find_builder('stranger')


@pytest.mark.parametrize(
  ('content', 'found'),
  [
    ('def get_config(:\n', 'SyntaxError: '),
    ('\0', 'SyntaxError: '),
    ('import nothing_here\n', "ModuleNotFoundError: No module named 'nothing_here'"),
    ('x = 1\n', 'AttributeError: '),
    ('def get_config():\n  return 3\n', "AttributeError: 'int' object has no attribute"),
    ("def get_config():\n  raise KeyError('a\\nb')\n", 'KeyError: a b'),
    ("def get_config():\n  open('/nowhere')\n", 'FileNotFoundError: '),
    ('def get_config():\n  return 1 / 0\n', 'ZeroDivisionError: '),
  ],
)
def test_an_experiment_that_fails_is_named_with_what_it_said(tmp_path, monkeypatch, content, found):
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)  # whose functions would be there still
  (tmp_path / 'mine.py').write_text(content)
  with pytest.raises(errors.ConfigError) as caught:
    load(str(tmp_path / 'mine.py'))
  said = f'--config={tmp_path / "mine.py"}: expected a file with get_config(), which gives an ml_collections.ConfigDict'
  assert str(caught.value).startswith(f'{said}; found {found}')


@pytest.mark.parametrize(
  ('option', 'message'),
  [
    ('rate[0]', 'rate is no list'),
    ('shares[2]', 'shares has 2 places, from 0 on'),
    ('shares[x]', 'shares has 2 places, from 0 on'),
    ('args.widht', "did you mean 'width'?"),
    ('args.width.x', 'x would be a field of a plain value'),
    ('a\nb', 'there are args, rate, shares'),
    ('', 'there are args, rate, shares'),
    ('\ud800', 'there are args, rate, shares'),
  ],
)
def test_fields_that_an_experiment_does_not_have(tmp_path, monkeypatch, option, message):
  content = "import ml_collections\ndef get_config():\n  args = {'args': {'width': 4}, 'rate': 0.5, 'shares': (1, 2)}\n"
  (tmp_path / 'mine.py').write_text(content + '  return ml_collections.ConfigDict(args)\n')
  monkeypatch.setattr(sys, 'argv', ['train', '--config.rate=1', '-config.shares[1]=3', '--config.args.width=5'])
  assert load(str(tmp_path / 'mine.py')).rate == 0.5
  sys.argv.append(f'--config.{option}=3')
  with pytest.raises(errors.ConfigError) as caught:
    load(str(tmp_path / 'mine.py'))
  assert str(caught.value).startswith(f'--config.{option}: no such field; ') and message in str(caught.value)
