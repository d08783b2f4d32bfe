import json
import os
import shutil
import subprocess
import sys

import pytest

from vqm_jax import cli

DUMMY = cli.ROOT / 'datasets' / 'intvid' / 'dummy_data'

# Many command lines in one process. Imported here, the binary's flags would meet those of `build`.
RUNS = """
import contextlib, io, json, sys
from absl import flags
from vqm_jax import cli
from vqm_jax.prepare import check
assert not {'jax', 'tensorflow_datasets'} & set(sys.modules), 'a look at folders should start at once'
results = []
for args in json.loads(sys.argv[1]):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  sys.argv = ['check', *args]
  out, err = io.StringIO(), io.StringIO()
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      cli.run(check.main)
  except SystemExit as end:
    results.append((end.code or 0, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


def runs(*command_lines):
  """[(exit code, stdout, stderr)] of `python -m vqm_jax.prepare.check` with each of the argument lists."""
  result = subprocess.run(
    [sys.executable, '-c', RUNS, json.dumps(command_lines)], capture_output=True, text=True, timeout=60, env=os.environ
  )
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def copy(tmp_path):
  """A copy of the dummy data to change at will."""
  return shutil.copytree(DUMMY, tmp_path / 'copy')


def test_what_is_found(tmp_path, copy):
  shutil.copytree(copy, tmp_path / 'both' / 'Vid3oC')
  (copy / 'manifest.csv').write_text('split,clip_id,fps\ntrain,002,23.976\nval,061,24\n')
  shutil.copytree(copy / 'TrainingSourceDomain', copy / 'TrainingSource1M')
  results = runs(
    ['--dataset=intvid', f'--manual_dir={DUMMY}'],
    ['--dataset=vid3oc', f'--manual_dir={tmp_path / "both"}'],
    ['--dataset=intvid', f'--manual_dir={copy}', '--source_suffix=1M'],
  )
  assert [code for code, _, _ in results] == [0, 0, 0] and not any('error' in error for _, _, error in results), results
  whole, weak, part = (output for _, output, _ in results)
  lines = [line.split('  ') for line in whole.splitlines()]
  cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
  assert ['train', '4', '4', '40', '96x64', '30, 25'] in cells and ['val', '2', '1', '20', '96x64', '30'] in cells
  for row in (
    ['train', '001', '10', '96x64', '30', '0', 'TrainingSourceDomain/001', 'TrainingTargetDomain/001'],
    ['train', '003', '10', '96x64', '25', '-', 'TrainingSourceDomain/003.mp4', 'TrainingTargetDomain/003.mp4'],
    ['val', '061', '10', '96x64', '30', '0', 'ValidationSource/061_*.png', '-'],
  ):
    assert row in cells
  # Columns are aligned.
  starts = {line.index('Training') for line in whole.splitlines() if line.startswith('train  0')}
  assert len(starts) == 1
  assert 'the challenge has 60 train' in whole and 'Problems' not in whole
  assert f'Next: python -m vqm_jax.prepare.build --dataset=intvid --manual_dir={DUMMY}' in whole
  assert f'vid3oc in {tmp_path}/both/Vid3oC' in weak and 'the challenge has 50 train' in weak
  assert '23.976' in part and 'TrainingSource1M/002' in part and '060' not in part


def test_every_problem_is_shown(tmp_path, copy):
  (copy / 'TrainingSourceDomain/000/000004.png').unlink()
  (copy / 'TrainingTargetDomain/003.mp4').write_bytes(b'rubbish')
  (copy / 'ValidationTarget/060_000009.png').unlink()
  ((code, output, error), nothing) = runs(
    ['--dataset=intvid', f'--manual_dir={copy}'], ['--dataset=intvid', f'--manual_dir={tmp_path}/nowhere']
  )
  assert code == 1
  assert error.endswith(f'error: {copy}: 3 problems, listed above, must be mended before a build.\n')
  problems = output.split('Problems:\n')[1].splitlines()
  assert len(problems) == 3 and all(line.startswith('  ') for line in problems)
  # The clips are shown all the same, with what could be read.
  rows = {
    line.split()[1]: line.split()[2:] for line in output.splitlines() if line.startswith(('train  0', 'val    0'))
  }
  assert len(rows) == 6
  assert rows['000'][:3] == ['?', '/', '10'] and rows['060'][:3] == ['10', '/', '9']
  assert nothing[0] == 1 and 'no such folder' in nothing[1] and 'Traceback' not in nothing[2]


def test_flags():
  results = runs([], ['--dataset=reds', '--manual_dir=x'], ['--dataset=intvid'])
  assert [code for code, _, _ in results] == [2, 2, 2]
  for (_, output, error), flag in zip(results, ('dataset', 'dataset', 'manual_dir'), strict=True):
    assert not output and error.startswith('error: ') and error.count('\n') == 1 and f'--{flag}' in error


def test_as_a_program(binary, command):
  output = command('prepare.check', '--help').output
  assert 'python -m vqm_jax.prepare.check --dataset=intvid' in output and '--source_suffix' in output
  assert len(output.splitlines()) < 40
  process = binary('prepare.check', '--dataset=intvid', f'--manual_dir={DUMMY}')
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0 and 'No problems' in output
