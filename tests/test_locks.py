"""One process at a time."""

import errno
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


def test_who_waits_gets_the_folder_when_it_is_free(tmp_path):
  code = (
    'import sys, pathlib\n'
    'from vqm_jax import locks\n'
    'print("begins", flush=True)\n'
    'with locks.folder(pathlib.Path(sys.argv[1]), wait=True):\n'
    '  print("locked", flush=True)\n'
  )
  with locks.folder(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
      assert process.stdout.readline() == 'begins\n'
      with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    except BaseException:
      process.kill()
      raise
  assert process.communicate(timeout=60)[0] == 'locked\n' and process.returncode == 0
  assert not (tmp_path / locks.NAME).exists()


def test_a_folder_may_be_removed_by_who_holds_its_lock(tmp_path):
  path = tmp_path / 'parts' / 'lock'
  with locks.lock(path, 'x'):
    shutil.rmtree(path.parent)
    with locks.lock(path, 'x'):  # another one by now
      assert path.exists()


def test_parts_share_a_lock_which_the_last_of_them_removes(tmp_path):
  told = f'process {os.getpid()} on {re.escape(socket.gethostname())}'
  with locks.folder(tmp_path, shared=True):
    with locks.folder(tmp_path, shared=True):
      with pytest.raises(errors.BusyError, match=told), locks.folder(tmp_path):
        pass
    with pytest.raises(errors.BusyError, match=told), locks.folder(tmp_path):
      pass
  with locks.folder(tmp_path), pytest.raises(errors.BusyError, match=told), locks.folder(tmp_path, shared=True):
    pass
  assert not list(tmp_path.iterdir())


def test_of_those_who_shared_a_lock_one_who_is_still_there_is_told(tmp_path):
  ended = subprocess.Popen([sys.executable, '-c', ''])
  ended.wait()
  with locks.folder(tmp_path, shared=True):
    with (tmp_path / locks.NAME).open('a') as file:
      file.write(f'{socket.gethostname()} {ended.pid}\n')
    with pytest.raises(errors.BusyError, match=f'process {os.getpid()} '), locks.folder(tmp_path):
      pass


@pytest.mark.parametrize('content', [b'', b'\xff\xfe\0', b'host ' + b'9' * 5000, b'only\n\n', b'a -1\n' * 9])
def test_whatever_stands_in_the_file_of_a_lock_the_refusal_is_a_line(tmp_path, content):
  with locks.folder(tmp_path):
    (tmp_path / locks.NAME).write_bytes(content)
    with pytest.raises(errors.BusyError) as caught, locks.folder(tmp_path):
      pass
  assert len(errors.one_line(str(caught.value))) <= errors.LONGEST and 'is at work on it' in str(caught.value)


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_a_file_system_has_no_locks_a_warning_says_so(tmp_path, monkeypatch, caplog, number):
  def flock(handle, kind):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(locks.fcntl, 'flock', flock)
  for held in (locks.folder(tmp_path), locks.folder(tmp_path, wait=True), locks.beside(tmp_path / 'a')):
    caplog.clear()
    with held:
      assert 'cannot be locked here' in caplog.text and 'see that no other process works on it' in caplog.text


def test_evaluations_and_mixes_are_refused_in_a_line(command, micro_data, tmp_path):
  told = f'process {os.getpid()} on {socket.gethostname()} is at work on it; wait until it ends, or end it first\n'
  with locks.folder(tmp_path / 'scores' / 'eval'):
    flags = ['--dataset=vqm_demo/micro_frames', f'--data_dir={micro_data}', f'--out={tmp_path / "scores"}']
    done = command('eval', '--weights=web-small', *flags)
  assert done.returncode == 1 and done.stderr.endswith(f'error: {tmp_path / "scores" / "eval"}: {told}'), done.output
  with locks.beside(tmp_path / 'mix'):
    done = command('combine', f'--members={tmp_path / "a"},{tmp_path / "b"}', f'--workdir={tmp_path / "mix"}')
  assert done.returncode == 1 and done.stderr == f'error: {tmp_path / "mix"}: {told}', done.output
