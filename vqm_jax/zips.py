"""Zip archives of strangers: looked at before they are read, and what `zipfile` raises turned into our errors."""

import contextlib
import os
import pathlib
import zipfile
from collections.abc import Iterator

from vqm_jax import errors

# What `zipfile` can decompress. 9 is deflate64, which Windows writes for large files.
_METHODS = {
  zipfile.ZIP_STORED: 'stored', zipfile.ZIP_DEFLATED: 'deflate', zipfile.ZIP_BZIP2: 'bzip2', zipfile.ZIP_LZMA: 'lzma',
}  # fmt: skip
_OTHERS = {1: 'shrink', 6: 'implode', 9: 'deflate64', 93: 'zstd', 95: 'xz', 98: 'ppmd', 99: 'AES encryption'}
_ENCRYPTED = 0x1


@contextlib.contextmanager
def fenced(
  path: str | os.PathLike,
  error: type[errors.VqmError] = errors.DataError,
  says: str = ': not a readable zip archive',
) -> Iterator[None]:
  """Turn whatever `zipfile` raises on damaged archives, which is nearly everything, into `error` naming `path`.

  Raises:
    error: of the kind given. Our own errors, and files that are missing or may not be read, pass as they are.
  """
  try:
    yield
  except (errors.VqmError, FileNotFoundError, PermissionError):
    raise
  except Exception as caught:
    raise error(f'{path}{says} ({errors.reason(caught)}); copy or download it again.') from caught


def check(archive: zipfile.ZipFile, path: str | os.PathLike, error: type[errors.VqmError] = errors.DataError) -> None:
  """Look at the list of entries.

  Raises:
    error: an entry's name leads out of the archive or to no place in it (`//0.png`, over which `zipfile.Path` of Python
      3.11 never ends), an entry is encrypted, or packed by a method that `zipfile` does not know.
  """
  for entry in archive.infolist():
    name = entry.filename
    parts = name.removesuffix('/').split('/')
    if not all(parts) or {'.', '..'} & set(parts) or any(ord(letter) < 32 for letter in name):
      raise error(f'{path}: entry {name[:80]!r} is no proper path within an archive; unpack it and pack it anew.')
    if entry.flag_bits & _ENCRYPTED:
      raise error(f'{path}: entry {name[:80]!r} is encrypted; unpack it with its password, then give the folder.')
    if entry.compress_type not in _METHODS:
      method = _OTHERS.get(entry.compress_type, 'unknown')
      raise error(
        f'{path}: entry {name[:80]!r} is packed by method {entry.compress_type} ({method}), expected one of '
        f'{", ".join(_METHODS.values())}; unpack it with another program, then give the folder.'
      )


def root(path: str | os.PathLike, error: type[errors.VqmError] = errors.DataError) -> zipfile.Path:
  """The top folder of an archive that was looked at. Raises `error` when it cannot be read, or as `check`."""
  with fenced(path, error):
    with zipfile.ZipFile(path) as archive:
      check(archive, path, error)
    return zipfile.Path(pathlib.Path(path))
