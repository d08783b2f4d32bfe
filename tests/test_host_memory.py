"""The least of what the machine has left, and what containers and limits of the process leave it."""

import resource
import subprocess
import sys

import psutil
import pytest

from vqm_jax import host_memory

MB = 1 << 20


def test_the_machine_bounds_it():
  assert 10 * MB < host_memory.free() <= psutil.virtual_memory().total


@pytest.mark.parametrize('limit', [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_limits_of_the_process_bound_it(limit):
  code = 'from vqm_jax.host_memory import free; before = free(); kept = bytearray(80 << 20); print(before, free())'
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, check=True, text=True,
    preexec_fn=lambda: resource.setrlimit(limit, (600 * MB, 600 * MB)),
  )  # fmt: skip
  before, after = map(int, found.stdout.split())
  assert 100 * MB < before < 600 * MB and before - after == pytest.approx(80 * MB, abs=2 * MB)


def group(folder, names, limit, use, stat):
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in zip((*names, 'memory.stat'), (limit, use, stat), strict=True):
    (folder / name).write_text(f'{text}\n')


def test_groups_that_hold_it_bound_it(tmp_path):
  names = ('memory.max', 'memory.current')
  group(tmp_path, names, 'max', 10, 'inactive_file 0')
  group(tmp_path / 'a', names, 900, 500, 'anon 7\ninactive_file 100')
  group(tmp_path / 'a/b', names, 700, 600, 'inactive_file 0')
  assert list(host_memory._of_groups(tmp_path, '0::/a/b\n')) == [100, 500]
  # Within a container its own group is the top.
  group(tmp_path, names, 300, 100, 'inactive_file 50')
  assert list(host_memory._of_groups(tmp_path, '0::/elsewhere\n')) == [250]


def test_groups_of_the_first_version(tmp_path):
  group(tmp_path / 'memory/a', ('memory.limit_in_bytes', 'memory.usage_in_bytes'), 900, 500, 'total_inactive_file 100')
  assert list(host_memory._of_groups(tmp_path, '9:cpu:/a\n4:memory:/a\n0::/\n')) == [500]
