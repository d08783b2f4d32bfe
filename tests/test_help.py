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
def test_help_teaches_and_succeeds(binary, name):
  process = binary(name, '--help')
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 0, output
  assert f'python -m vqm_jax.{name}' in output and '--debug' in output
  assert len(output.splitlines()) < 40
  assert not re.search('Traceback|xla_|absl', output)


@pytest.mark.parametrize('name', BINARIES)
def test_without_arguments_one_line_says_what_is_missing(binary, name):
  process = binary(name)
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 2, output
  assert len(output.strip().splitlines()) == 1 and output.startswith('error: ')
