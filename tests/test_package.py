"""What is packed, and that version, changelog and citation agree."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile

import numpy as np
import pytest

import vqm_jax
from vqm_jax import pictures

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def parsed(version):
  return tuple(map(int, version.split('.')))


def test_version_changelog_and_citation_agree():
  assert PROJECT['dynamic'] == ['version'] and re.fullmatch(r'\d+\.\d+\.\d+', vqm_jax.__version__)
  cited = re.search(r'^version: (.+)$', (ROOT / 'CITATION.cff').read_text(), re.MULTILINE)[1]
  assert cited == vqm_jax.__version__
  headings = re.findall(r'^## \[(.+?)\](.*)$', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
  assert headings[0] == ('Unreleased', '')
  released = [parsed(version) for version, _ in headings[1:]]
  assert released == sorted(released, reverse=True)
  assert all(re.fullmatch(r' - \d{4}-\d\d-\d\d', date) for _, date in headings[1:])
  assert not released or parsed(vqm_jax.__version__) >= released[0]


@pytest.mark.slow
def test_an_installed_package_builds_trains_evaluates_and_enhances_without_a_checkout(tmp_path):
  """The wheel in an environment of its own, which sees the libraries of this one but not its vqm_jax."""
  import setuptools

  # An older one cannot read our metadata; pip then fetches another.
  alone = ['--no-build-isolation'] if int(setuptools.__version__.split('.')[0]) >= 77 else []
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
  source = tmp_path / 'source'
  source.mkdir()  # a copy, for setuptools builds in the folder itself
  for folder in ('vqm_jax', 'experiments', 'datasets'):
    shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns('__pycache__', 'dummy_data'))
  for file in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / file, source)
  made = subprocess.run(
    [*pip, 'wheel', '-q', '--no-deps', *alone, '-w', tmp_path / 'dist', source], capture_output=True, text=True
  )
  if made.returncode and not alone:
    pytest.skip(f'no setuptools >= 77 to make a wheel with: {made.stderr.strip().splitlines()[-1]}')
  assert made.returncode == 0, made.stderr
  venv.create(tmp_path / 'venv', symlinks=True)
  [site] = (tmp_path / 'venv').glob('lib/python*/site-packages')
  [wheel] = (tmp_path / 'dist').glob('*.whl')
  zipfile.ZipFile(wheel).extractall(site)
  assert {path.name for path in site.iterdir() if 'dist-info' not in path.name} == {'vqm_jax'}
  # In a .pth file the .pth files there, and with them an editable vqm_jax, are not read.
  (site / 'libraries.pth').write_text('\n'.join(path for path in sys.path if path.endswith('site-packages')))
  [record] = site.glob('vqm_jax-*.dist-info/entry_points.txt')
  scripts = configparser.ConfigParser()
  scripts.read_string(record.read_text())
  assert dict(scripts['console_scripts']) == PROJECT['scripts']
  here = tmp_path / 'here'
  here.mkdir()

  def run(name, *args):
    module, function = PROJECT['scripts'][f'vqm-{name}'].split(':')
    start = f'import {module} as m; assert "{site}" in m.__file__; m.{function}()'
    env = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'XLA_FLAGS')}
    done = subprocess.run(
      [tmp_path / 'venv/bin/python', '-c', start, *args], cwd=here, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  run('build', '--dataset=vqm_demo', '--config=micro_tiles,micro_frames', '--data_dir=data')
  changes = dict(
    dataset_config='micro_tiles', val_config='micro_frames', data_dir='data', crop=32, batch_size=2, steps=2,
    eval_every=2, eval_frames=1, save_every=2, log_every=1,
  )  # fmt: skip
  run('train', '--config=ecnu:tiny', '--workdir=run', *(f'--config.{key}={value}' for key, value in changes.items()))
  run('eval', '--workdir=run')
  assert (here / 'run/eval/test/table.md').is_file()
  for k in range(2):
    frame = np.random.default_rng(k).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    pictures.save_png(here / f'frames/{k:06d}.png', frame)
  run('enhance', '--workdir=run', '--input=frames', '--output=out.mp4')
  assert (here / 'out.mp4').is_file()
  assert 'web-small' in run('enhance', '--list_weights')
  run('report', 'tables', '--results=run', '--out=tables')
  assert (here / 'tables/table1.md').is_file()
  assert 'report.page' in run('report', 'page', '--help')
