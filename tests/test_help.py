import re

import pytest

BINARIES = [
  'train',
  'combine',
  'eval',
  'enhance',
  'export',
  'prepare.check',
  'prepare.show',
  'prepare.build',
  'prepare.degrade',
  'prepare.demo_videos',
  'report.figures',
  'report.gallery',
  'report.page',
  'report.study',
  'report.study_results',
  'report.submission',
  'report.tables',
  'perceptual.convert',
]


@pytest.mark.parametrize('name', BINARIES)
def test_help_teaches_and_succeeds(command, name):
  done = command(name, '--help')
  assert done.returncode == 0, done.output
  assert f'python -m vqm_jax.{name}' in done.output and '--debug' in done.output
  assert len(done.output.splitlines()) <= 40
  assert not re.search('Traceback|xla_|absl', done.output)


@pytest.mark.parametrize('name', BINARIES)
def test_without_arguments_one_line_says_what_is_missing(command, name):
  done = command(name)
  assert done.returncode == 2, done.output
  assert len(done.output.strip().splitlines()) == 1 and done.output.startswith('error: ')
