"""Disks that are full: a limit on the size of files, quick and for this process, or a small disk where it may mount."""

import contextlib
import os
import pathlib
import resource
import shutil
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
  """While it lasts no file of this process grows beyond `size` bytes: writing fails as it does on a full disk."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str = '16m') -> Iterator[bool]:
  """Mounts a disk of its own in `folder` if this process may; says whether it did."""
  folder.mkdir(parents=True, exist_ok=True)
  mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
  mounted = bool(shutil.which('mount')) and subprocess.run(mount, capture_output=True, check=False).returncode == 0
  try:
    yield mounted
  finally:
    if mounted:
      subprocess.run(['umount', str(folder)], check=True)


def leave(folder: pathlib.Path, size: int) -> None:
  """Fills the disk of `folder` until `size` bytes are free."""
  file = folder / 'filler'
  file.unlink(missing_ok=True)
  with file.open('wb') as filler:
    if (rest := shutil.disk_usage(folder).free - size) > 0:
      os.posix_fallocate(filler.fileno(), 0, rest)
