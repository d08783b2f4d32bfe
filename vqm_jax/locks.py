"""Locks between processes: one of them works on a folder, the others are told which."""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from absl import logging

from vqm_jax import errors

NAME = '.lock'


@contextlib.contextmanager
def lock(path: pathlib.Path, what: str) -> Iterator[None]:
  """Holds the lock file `path`, made with its folders, until the context or the process ends, however that ends.

  The file tells host and process; it stays. It may be removed by who holds it. `what` is what the lock is for.
  Raises BusyError if another process, or this one, holds it.
  """
  handle = _take(path, what)
  try:
    os.ftruncate(handle, 0)
    os.pwrite(handle, f'{socket.gethostname()} {os.getpid()}\n'.encode(), 0)
    yield
  finally:
    os.close(handle)


def _take(path, what):
  while True:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
      continue  # the folder was removed in this moment
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      host, _, process = os.pread(handle, 1000, 0).decode(errors='replace').strip().partition(' ')
      os.close(handle)
      raise errors.BusyError(
        f'{what}: process {process or "?"} on {host or "?"} is at work on it; wait until it ends, or end it first'
      ) from error
    except OSError as error:
      logging.warning('%s: cannot be locked here (%s); see that no other process works on it', what, error.strerror)
      return handle
    try:
      if os.path.samestat(os.fstat(handle), os.stat(path)):
        return handle
    except FileNotFoundError:
      pass
    os.close(handle)  # who held it has removed it


def folder(path: pathlib.Path) -> contextlib.AbstractContextManager[None]:
  """Holds a lock on a folder through its file `.lock`, which is removed in the end. Raises as `lock`."""
  return _passing(path / NAME, str(path))


def beside(path: pathlib.Path) -> contextlib.AbstractContextManager[None]:
  """The same for what is replaced as a whole: the file stands beside it."""
  return _passing(path.with_name(f'.{path.name}{NAME}'), str(path))


@contextlib.contextmanager
def _passing(path, what):
  with lock(path, what):
    try:
      yield
    finally:
      path.unlink(missing_ok=True)
