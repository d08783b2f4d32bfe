"""The command that tries damaged files by the thousand: its tables, and a short run of it."""

import collections
import importlib.util
import re
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from vqm_jax import cli

PAGE = 'Before.\n<!-- damaged files -->\nold\n<!-- end of damaged files -->\nAfter.\n'


@pytest.fixture
def faults(monkeypatch):
  spec = importlib.util.spec_from_file_location('benchmark_faults', cli.ROOT / 'benchmarks' / 'faults.py')
  module = importlib.util.module_from_spec(spec)
  monkeypatch.setitem(sys.modules, spec.name, module)
  before = set(flags.FLAGS)
  spec.loader.exec_module(module)
  flags.FLAGS.mark_as_parsed()
  yield module
  flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)


def test_tables_count_every_run(faults, tmp_path):
  page, keep = tmp_path / 'page.md', tmp_path / 'keep.json'
  page.write_text(PAGE)
  with flagsaver.flagsaver(docs=str(page), keep=str(keep)):
    faults._keep({'png': collections.Counter(accepted=3, refused=5)}, range(0, 8))
    faults._keep({'png': collections.Counter(accepted=1, hang=1), 'bmp': collections.Counter(refused=2)}, range(8, 10))
  text = page.read_text()
  assert text.startswith('Before.') and text.endswith('After.\n') and 'old' not in text
  assert '1 faults of 12 damaged files (1 hang); `--seed` 0, 8.' in text
  assert (
    '| png | 10 | 4 | 5 | 1 |' in text and '| bmp | 2 | 0 | 2 | 0 |' in text and '| **all** | 12 | 4 | 7 | 1 |' in text
  )
  page.write_text(
    '| kill 2 times | `train` | a |\n| disk | `train` | b |\n| kill 2 times | `eval` | the same, bit for bit |\n'
  )
  with flagsaver.flagsaver(docs=str(page)):
    others = faults._others([('kill 3 times', 'train', '')])
  assert others == [('disk', 'train', 'b'), ('kill 2 times', 'eval', 'the same, bit for bit')]
  assert '| SIGKILL | `train` | the same, bit for bit |' in faults.disturbance_table([('SIGKILL', 'train', '')])


def test_what_is_a_proper_end(faults):
  assert not faults._complaint(faults.Ended(1, '12:00:00 working\nerror: a.mp4: is full; make room.\n', 1.0))
  assert faults._complaint(faults.Ended(1, 'Traceback (most recent call last)\nerror: x\n', 1.0))
  assert faults._complaint(faults.Ended(-9, 'error: x\n', 1.0)) and faults._complaint(faults.Ended(1, '', 1.0))


@pytest.mark.slow
def test_as_a_command(tmp_path):
  page = tmp_path / 'page.md'
  page.write_text(PAGE)
  command = [sys.executable, 'benchmarks/faults.py', '--targets=bmp,names', '--count=20', f'--docs={page}']
  done = subprocess.run(command, cwd=cli.ROOT, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr
  assert re.search(r'^0 faults of 20 damaged files; `--seed` 0\.$', page.read_text(), re.M)
