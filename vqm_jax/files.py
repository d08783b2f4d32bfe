"""Text, JSON and CSV files, written whole or not at all."""

import contextlib
import csv
import errno
import io
import json
import math
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vqm_jax import errors

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary name beside `path` for a file or a folder; it becomes `path` when all went well, in the place of what
  is there. Folders around it are made as needed.

  Raises:
    DiskFullError: there is no room; nothing is left of it then.
  """
  # Not of the process alone: containers that share a disk count theirs alike.
  partial = path.with_name(f'.{path.name}.{os.getpid()}{secrets.randbelow(10**6):06d}.partial')
  replaced = partial.with_suffix('.replaced')
  try:
    with filling(path, lambda: _size(partial)):
      path.parent.mkdir(parents=True, exist_ok=True)
      yield partial
      if partial.is_dir() and path.exists():
        path.rename(replaced)
        try:
          partial.rename(path)
        except BaseException:
          replaced.rename(path)
          raise
      else:
        partial.replace(path)
  finally:
    for left in (partial, replaced):
      _remove(left)


def _size(path: pathlib.Path) -> int:
  return sum(file.stat().st_size for file in [path, *path.rglob('*')] if file.is_file())


def _remove(path: pathlib.Path) -> None:
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def filling(path: pathlib.Path, written: Callable[[], int] = lambda: 0) -> Iterator[None]:
  """Turn the error of a disk that is full, raised while `path` is written, into a DiskFullError that names it.

  `written` finds out how many bytes there was room for.
  """
  try:
    yield
  except errors.VqmError:
    raise
  except Exception as error:
    if not is_full(error):
      raise
    least = 0
    with contextlib.suppress(OSError):
      least = written()
    raise full(path, least) from error


def is_full(error: BaseException) -> bool:
  """Whether an error, or what it came of, says that a disk or quota is full, or a file as large as files may be."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _FULL:
      return True
    if any(os.strerror(number) in str(error) for number in _FULL):  # as C++ libraries say it
      return True
    error = error.__cause__ or error.__context__
  return False


def full(path: str | os.PathLike, least: int = 0) -> errors.DiskFullError:
  """The error to raise for `path` on a full disk; `least` is how many bytes of it there was room for, if known."""
  folder = pathlib.Path(path).resolve()
  while not folder.is_dir():
    folder = folder.parent
  needed = f'it needs more than {size_text(least)}' if least else 'it needs more'
  return errors.DiskFullError(
    f'{path}: no room to write this; {needed}, {size_text(shutil.disk_usage(folder).free)} are free (a quota may allow '
    'less). Make room, then start the same command again.'
  )


def write_text(path: pathlib.Path, text: str) -> None:
  """Write `text` to `path` under a temporary name first, making folders as needed."""
  with replacing(path) as partial, partial.open('w', encoding='utf-8', newline='') as file:
    file.write(text)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Write nested dicts, lists and numbers; numbers that JSON lacks become "inf", "-inf", "nan"."""
  write_text(path, json.dumps(_finite(value), indent=1) + '\n')


def size_text(size: float) -> str:
  """A number of bytes for people: '1.25 GB', '12 MB', '3.4 kB'."""
  for unit, scale in (('GB', 1e9), ('MB', 1e6)):
    if size >= scale:
      return f'{size / scale:.3g} {unit}'
  return f'{size / 1e3:.3g} kB'


def csv_of(fields: Iterable[str], lines: Sequence[Mapping[str, Any]]) -> str:
  """RFC 4180 with a header: the fields given, then whatever else the lines have."""
  out = io.StringIO()
  writer = csv.DictWriter(out, list(dict.fromkeys([*fields, *(name for line in lines for name in line)])))
  writer.writeheader()
  writer.writerows(lines)
  return out.getvalue()


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value
