"""Shared by all binaries: how they start, how they fail, how they show progress.

A binary is a module with a docstring (its `--help`), absl flags and `main(argv)`; it ends with `cli.run(main)`.
Exit codes: 0 success and `--help`, 2 bad flags or config, 1 everything else.
"""

import collections.abc
import io
import logging as std_logging
import os
import pathlib
import re
import sys
import threading
import time
import traceback
from typing import Any, NoReturn, TypeVar

import ml_collections
import tqdm
from absl import app, flags, logging
from ml_collections import config_flags

from vqm_jax import errors, files, installed

_NUMBERS = {
  'could not convert string to float': 'a number',
  r'invalid literal for int\(\)': 'a whole number',
  'Exceeds the limit': 'a whole number',
}
_FULL = 'A disk is full, and the system does not say which: make room, then start the same command again.'
_PATIENCE = 5  # seconds for each thread that is left after an error

FLAGS = flags.FLAGS
T = TypeVar('T')

# The checkout, where this is one.
ROOT = pathlib.Path(__file__).resolve().parent.parent

flags.DEFINE_bool('debug', False, 'Show the full traceback of an error.')


def define_experiment(name: str, help_string: str) -> flags.FlagHolder:
  """Define a flag whose value is the config of an experiment, by name or path; --<name>.field=value changes fields."""
  holder = config_flags.DEFINE_config_file(name, None, help_string)
  FLAGS[name].parser = _Experiment(FLAGS[name].parser, name)
  return holder


class _Experiment(flags.ArgumentParser):
  """Loads experiments by the parser of `config_flags`, after finding their file; says which fields they do not have."""

  def __init__(self, of_files: flags.ArgumentParser, flag: str):
    self.of_files = of_files
    self.flag = flag

  def parse(self, argument: str) -> ml_collections.ConfigDict:
    name, *size = argument.split(':', 1)
    file = installed.experiment_file(name)
    try:
      with installed.importable_experiments(file):
        config = self.of_files.parse(':'.join([str(file), *size]))
        config.keys  # noqa: B018 (one that could not be read says so when it is touched)
    except errors.ConfigError:
      raise
    except ValueError as error:  # what experiments say of a size
      raise errors.ConfigError(f'--{self.flag}={argument}: {_last_message(error)}') from error
    except Exception as error:  # it is a program, which may fail in any way
      kind, why = type(error.__cause__ or error).__name__, _last_message(error.__cause__ or error)
      raise errors.ConfigError(
        f'--{self.flag}={argument}: expected a file with get_config(), which gives an ml_collections.ConfigDict; found '
        f'{kind}: {why}'
      ) from error
    for option in sys.argv[1:]:
      if match := re.match(rf'--?({re.escape(self.flag)}\.([^=]*))', option):
        _check_field(config, match[1], match[2].split('.'))
    return config

  def flag_type(self) -> str:
    return 'experiment'


def _check_field(config: Any, option: str, path: list[str]) -> None:
  """Raises ConfigError if a config has no field of this path; those that are lists have places, `name[0]`."""
  for name in path:
    name, *places = name.replace(']', '').split('[')
    if not isinstance(config, ml_collections.ConfigDict):
      raise errors.ConfigError(f'--{option}: no such field; {name} would be a field of a plain value.')
    if name not in config:
      known = sorted(config.keys())
      others = errors.did_you_mean(name, known).rstrip() or f'there are {", ".join(known) or "none here"}.'
      raise errors.ConfigError(f'--{option}: no such field; {others}')
    config = config[name]
    if places and not (isinstance(config, tuple | list) and places[0].isdecimal() and int(places[0]) < len(config)):
      found = f'has {len(config)} places, from 0 on' if isinstance(config, tuple | list) else 'is no list'
      raise errors.ConfigError(f'--{option}: no such field; {name} {found}.')
    config = config[int(places[0])] if places else config


class _QuietLibraries(std_logging.Filter):
  """Drops what Orbax, Grain and JAX log about their own inner life; what matters they raise."""

  def filter(self, record: std_logging.LogRecord) -> bool:
    # asyncio tells of Orbax's tasks that failed, with a traceback, whenever they are freed.
    silent = any(library in record.pathname for library in ('orbax', 'asyncio'))
    least = std_logging.CRITICAL if silent else std_logging.WARNING
    return record.levelno >= least or pathlib.Path(record.pathname).is_relative_to(ROOT / 'vqm_jax')


class _AboveTheBar(io.TextIOBase):
  """A stream that prints above a progress bar instead of through it."""

  def write(self, text: str) -> int:
    tqdm.tqdm.write(text, file=sys.stderr, end='')
    return len(text)

  def flush(self) -> None:
    sys.stderr.flush()


def _help(main) -> str:
  module = sys.modules[main.__module__]
  text = [module.__doc__.strip(), '', 'Flags:']
  # absl files the flags of a program that was started as such under its path.
  owner = sys.argv[0] if main.__module__ == '__main__' else main.__module__
  for flag in FLAGS.get_key_flags_for_module(owner) + [FLAGS['debug']]:
    default = '' if flag.default in (None, '', False) else f' (default: {flag.default})'
    text.append(f'  --{flag.name:<18} {flag.help}{default}')
  return '\n'.join(text)


def _parse(main, argv: list[str]) -> list[str]:
  if any(arg in ('--help', '-help', '-h', '--helpshort') for arg in argv[1:]):
    # Config files need no parsing to explain the flags; mark as parsed so that defaults can be read.
    FLAGS.mark_as_parsed()
    print(_help(main))
    sys.exit(0)
  try:
    rest = FLAGS(argv)
    if len(rest) > 1:
      raise errors.ConfigError(f'Unexpected argument {rest[1]!r}; options are written as --name=value.')
    return rest
  except (flags.Error, errors.ConfigError) as error:
    _fail(_last_message(error), 2)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    # ml_collections reports an unknown or mistyped --config.* field in these ways.
    if '--debug' in argv:
      traceback.print_exc()
    _fail(_last_message(error), 2)


def _last_message(error: Exception) -> str:
  """One line: where ml_collections quotes the traceback of a config file, what that file said last."""
  text = str(error).strip()
  if isinstance(error, KeyError) and text[:1] in ('"', "'") and text[-1:] == text[:1]:  # the repr of what it holds
    text = text[1:-1].replace('\\n', ' ').replace("\\'", "'")
  if 'Traceback (most recent call last)' in text:
    text = text.splitlines()[-1].split('Error: ', 1)[-1]
  text = ' '.join(text.split())
  for words, expected in _NUMBERS.items():  # what Python says of a number that is none
    text = re.sub(rf'^flag (--.*): {words}.*', rf'\1: expected {expected}.', text)
  return text


def _fail(message: str, code: int) -> NoReturn:
  head = 'error: '
  print(head + errors.one_line(message, errors.LONGEST - len(head)), file=sys.stderr, flush=True)
  _end_threads(code)
  sys.exit(code)


def _end_threads(code: int) -> None:
  """Leave at once if threads of a library, those of a failed save for example, would be waited for."""
  main = threading.main_thread()
  for thread in threading.enumerate():
    if thread is not main and not thread.daemon:
      thread.join(_PATIENCE)
      if thread.is_alive():
        sys.stdout.flush()
        os._exit(code)


def run(main: collections.abc.Callable[[list[str]], Any]) -> NoReturn:
  """Parse the flags, run `main(argv)` and turn the errors of `errors.py` into one line and an exit code."""
  if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

  def guarded(argv):
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_QuietLibraries())
    logging.get_absl_handler().python_handler.stream = _AboveTheBar()
    logging.get_absl_handler().setFormatter(std_logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
    try:
      main(argv)
    except errors.VqmError as error:
      if FLAGS.debug:
        raise
      _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
      _fail('interrupted', 1)
    except OSError as error:
      if FLAGS.debug:
        raise
      if files.is_full(error):
        path = error.filename2 or error.filename  # of a copy the second is what is written
        _fail(str(files.full(path)) if path else f'{_FULL} {errors.reason(error)}', 1)
      _fail(f'{error.strerror or error}: {error.filename or ""}'.rstrip(': '), 1)

  app.run(guarded, flags_parser=lambda argv: _parse(main, argv))


def share_cores(most: int = 4) -> int:
  """Make JAX's CPU as many devices as there are cores, at most `most`, so that each can work on a frame of its own.

  Returns their number, or 1 where nothing was changed: JAX has started already, or XLA_FLAGS or the environment say how
  many there shall be.
  """
  import jax

  told = (
    'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '') or 'JAX_NUM_CPU_DEVICES' in os.environ
  )
  count = min(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1, most)
  if told or count < 2:
    return 1
  try:
    jax.config.update('jax_num_cpu_devices', count)
  except RuntimeError:
    return 1
  return count


def enable_compilation_cache() -> None:
  """Keep compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
  import jax

  home = pathlib.Path(os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache'))
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    jax.config.update('jax_compilation_cache_dir', str(home / 'vqm_jax' / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def duration(seconds: float) -> str:
  """'0 h 00 min 29 s'."""
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes // 60} h {minutes % 60:02d} min {seconds:02d} s'


def parse_part(text: str | None) -> tuple[int, int]:
  """(1, 4) of '1/4'; the whole, (0, 1), of None. Raises ConfigError for anything else."""
  if text is None:
    return 0, 1
  match = re.fullmatch(r'(\d+)/(\d+)', text)
  if not match or int(match[1]) >= int(match[2]):
    raise errors.ConfigError(f'--part={text}: expected i/n with i from 0 to n - 1, such as 0/4.')
  return int(match[1]), int(match[2])


def progress(
  items: collections.abc.Iterable[T], total: int | None = None, desc: str = '', unit: str = 'it'
) -> collections.abc.Iterator[T]:
  """Yield `items` with rate and ETA: a bar on a terminal, a line every ten seconds in a log."""
  if total is None and isinstance(items, collections.abc.Sized):
    total = len(items)
  if sys.stderr.isatty():
    yield from tqdm.tqdm(items, total=total, desc=desc, unit=unit, dynamic_ncols=True)
    return
  start = last = time.monotonic()
  count = 0
  for item in items:
    yield item
    count += 1
    now = time.monotonic()
    if now - last > 10 or (count == total and count > 1):
      last, rate = now, count / (now - start + 1e-9)
      left = f', {(total - count) / rate:.0f} s left' if total and count < total else ''
      logging.info('%s %d/%s, %.3g %s/s%s', desc, count, total or '?', rate, unit, left)
