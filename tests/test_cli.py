"""What all binaries share: their parts of the command line, how they fail, progress; each starts in test_help.py."""

import logging
import os
import signal
import sys
import time
import types

import pytest

from vqm_jax import cli, errors


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0, '0 h 00 min 00 s'), (29.4, '0 h 00 min 29 s'), (3661, '1 h 01 min 01 s'), (86399.6, '24 h 00 min 00 s')],
)
def test_duration(seconds, text):
  assert cli.duration(seconds) == text


def test_parts():
  assert cli.parse_part(None) == (0, 1) and cli.parse_part('1/4') == (1, 4) and cli.parse_part('0/1') == (0, 1)
  for text in ('4/4', '1', '1/0', '-1/4', '1/4/2', 'a/b', ''):
    with pytest.raises(errors.ConfigError, match=f'--part={text}: expected i/n with i from 0 to n - 1'):
      cli.parse_part(text)


SCRIPT = """
import pathlib, signal, time
from absl import flags
from vqm_jax import cli, errors
flags.DEFINE_integer('count', 3, 'How many.')
flags.DEFINE_string('begun', None, 'A file to make before waiting.')
def main(argv):
  if flags.FLAGS.count == 7:
    raise errors.DataError('seven')
  if flags.FLAGS.count == 8:
    raise KeyboardInterrupt
  if flags.FLAGS.count == 9:
    open('/nowhere/at/all')
  if flags.FLAGS.count == 10:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
    pathlib.Path(flags.FLAGS.begun).touch()
    time.sleep(60)
  print('counted', flags.FLAGS.count)
cli.run(main)
"""


@pytest.fixture(scope='module')
def script(tmp_path_factory):
  path = tmp_path_factory.mktemp('cli') / 'counting.py'
  path.write_text(f'"""Counts."""\n{SCRIPT}')
  return path


@pytest.mark.parametrize(
  ('args', 'code', 'out', 'err'),
  [
    ([], 0, 'counted 3', ''),
    (['--count=5'], 0, 'counted 5', ''),
    (['--help'], 0, 'How many. (default: 3)', ''),
    (['--count=many'], 2, '', 'error: '),
    (['--cuont=5'], 2, '', "error: Unknown command line flag 'cuont'"),
    (['more'], 2, '', "error: Unexpected argument 'more'; options are written as --name=value."),
    (['--count=7'], 1, '', 'error: seven'),
    (['--count=8'], 1, '', 'error: interrupted'),
    (['--count=9'], 1, '', 'error: No such file or directory: /nowhere/at/all'),
  ],
)
def test_exit_codes_and_messages(command, script, args, code, out, err):
  done = command(script, *args)
  assert (done.returncode, out in done.stdout) == (code, True), done.output
  assert done.stderr.startswith(err) and len(done.stderr.splitlines()) == bool(err), done.stderr


def test_ctrl_c_ends_in_a_line(command, script, tmp_path):
  def interrupt(pid):
    deadline = time.monotonic() + 60
    while not (tmp_path / 'begun').exists() and time.monotonic() < deadline:
      time.sleep(0.02)
    os.kill(pid, signal.SIGINT)

  done = command(script, '--count=10', f'--begun={tmp_path / "begun"}', meanwhile=interrupt)
  assert (done.returncode, done.stderr, done.stdout) == (1, 'error: interrupted\n', '')


def test_debug_shows_the_traceback(command, script):
  done = command(script, '--count=7', '--debug')
  assert done.returncode == 1 and 'Traceback' in done.stderr and 'DataError: seven' in done.stderr


@pytest.mark.parametrize(
  ('library', 'level', 'passes'),
  [('orbax/checkpoint/a.py', logging.ERROR, False), ('asyncio/base_events.py', logging.ERROR, False),
   ('grain/a.py', logging.INFO, False), ('grain/a.py', logging.WARNING, True)],
)  # fmt: skip
def test_what_libraries_log_is_dropped_where_they_raise_it_too(library, level, passes):
  record = logging.LogRecord(
    'a', level, f'/lib/site-packages/{library}', 1, 'Task exception was never retrieved', (), None
  )
  assert cli._QuietLibraries().filter(record) == passes
  own = logging.LogRecord('a', logging.INFO, str(cli.ROOT / 'vqm_jax' / 'cli.py'), 1, 'step 1', (), None)
  assert cli._QuietLibraries().filter(own)


def test_progress_of_a_log_has_rate_and_rest(monkeypatch, caplog):
  caplog.set_level(logging.INFO)
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: False, raising=False)
  clock = iter(range(0, 1000, 6))
  monkeypatch.setattr(cli, 'time', types.SimpleNamespace(monotonic=lambda: next(clock)))
  assert list(cli.progress(range(4), desc='clips', unit='clip')) == [0, 1, 2, 3]
  said = [record.getMessage() for record in caplog.records]
  assert said == ['clips 2/4, 0.167 clip/s, 12 s left', 'clips 4/4, 0.167 clip/s']


@pytest.mark.parametrize(
  'told', [('XLA_FLAGS', '--xla_force_host_platform_device_count=3'), ('JAX_NUM_CPU_DEVICES', '3')]
)
def test_cores_are_left_as_they_were_told(monkeypatch, told):
  """What becomes of them where nothing was told is in test_enhance.py: JAX must not have started."""
  monkeypatch.delenv('XLA_FLAGS')
  monkeypatch.setenv(*told)
  monkeypatch.setattr(cli.os, 'sched_getaffinity', lambda pid: {0, 1}, raising=False)
  assert cli.share_cores() == 1
