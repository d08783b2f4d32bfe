"""Locks between processes: one of them works on a folder, the others are told which."""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from absl import logging

from vqm_jax import errors, files

NAME = '.lock'


@contextlib.contextmanager
def lock(path: pathlib.Path, what: str, *, shared: bool = False) -> Iterator[None]:
  """Hold the lock file `path`, made with its folders, until the context or the process ends, however that ends.

  The file tells host and process; it stays. It may be removed by who holds it. `what` is what the lock is for.
  `shared` with others that ask for the same; then the file tells all of them, and nobody may remove it.
  Raises BusyError if another process, or this one, holds it.
  """
  handle = _take(path, what, shared)
  try:
    _sign(handle, shared)
    yield
  finally:
    os.close(handle)


def _sign(handle, shared):
  with contextlib.suppress(OSError):  # a full disk; what counts is the lock
    if not shared:
      os.ftruncate(handle, 0)
    os.write(handle, f'{socket.gethostname()} {os.getpid()}\n'.encode())


def _take(path, what, shared=False, wait=False):
  while True:
    try:
      with files.filling(pathlib.Path(what)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except FileNotFoundError:
      continue  # the folder was removed in this moment
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
      try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
      except BlockingIOError:
        if not wait:
          raise
        logging.info('%s: waiting for process %s on %s', what, *reversed(_holder(os.pread(handle, 100_000, 0))))
        fcntl.flock(handle, kind)
    except BlockingIOError as error:
      host, process = _holder(os.pread(handle, 100_000, 0))
      os.close(handle)
      raise errors.BusyError(
        f'{what}: process {process} on {host} is at work on it; wait until it ends, or end it first'
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


def _holder(content: bytes) -> tuple[str, str]:
  """Host and process of one who holds a lock: of several that have shared it, one that is not known to have ended."""
  signed = [line.split()[:2] for line in content.decode(errors='replace').splitlines() if len(line.split()) > 1]
  alive = [(host, process) for host, process in signed if host != socket.gethostname() or _runs(process)]
  return tuple((alive or signed or [('?', '?')])[-1])


def _runs(process: str) -> bool:
  try:
    os.kill(int(process), 0)
  except (ProcessLookupError, ValueError, OverflowError):
    return False
  except PermissionError:
    pass  # of another user
  return True


def folder(path: pathlib.Path, *, shared: bool = False, wait: bool = False) -> contextlib.AbstractContextManager[None]:
  """Hold a lock on a folder through its file `.lock`, which the last to hold it removes.

  Raises as `lock`, or waits until the others are done with it.
  """
  return _passing(path / NAME, str(path), shared, wait)


def beside(path: pathlib.Path) -> contextlib.AbstractContextManager[None]:
  """The same for what is replaced as a whole: the file stands beside it."""
  return _passing(path.with_name(f'.{path.name}{NAME}'), str(path))


@contextlib.contextmanager
def _passing(path, what, shared=False, wait=False):
  handle = _take(path, what, shared, wait)
  try:
    _sign(handle, shared)
    yield
  finally:
    # Whoever shares it goes on in a file of this name, to which the next ones have to come, too.
    if not shared or _is_last(handle):
      path.unlink(missing_ok=True)
    os.close(handle)


def _is_last(handle):
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except OSError:
    return False
