"""One process at a time."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from vqm_jax import errors, locks


def test_the_second_is_refused_and_told_by_whom(tmp_path):
  path = tmp_path / 'new' / 'lock'
  message = f'^out.mp4: process {os.getpid()} on {re.escape(socket.gethostname())} is at work on it; wait until it ends'
  with locks.lock(path, 'out.mp4'):
    with pytest.raises(errors.BusyError, match=message), locks.lock(path, 'out.mp4'):
      pass
  with locks.lock(path, 'out.mp4'):
    assert path.exists()


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
  code = (
    'import sys, time, pathlib\n'
    'from vqm_jax import locks\n'
    'with locks.lock(pathlib.Path(sys.argv[1]), "x"):\n'
    '  print("locked", flush=True)\n'
    '  time.sleep(60)\n'
  )
  process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path / 'lock')], stdout=subprocess.PIPE, text=True)
  try:
    assert process.stdout.readline() == 'locked\n'
    with pytest.raises(errors.BusyError, match=f'process {process.pid} '), locks.lock(tmp_path / 'lock', 'x'):
      pass
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
  with locks.lock(tmp_path / 'lock', 'x'):
    pass


def test_a_folder_may_be_removed_by_who_holds_its_lock(tmp_path):
  path = tmp_path / 'parts' / 'lock'
  with locks.lock(path, 'x'):
    shutil.rmtree(path.parent)
    with locks.lock(path, 'x'):  # another one by now
      assert path.exists()
