"""The main memory that this process may still have."""

import pathlib
import resource
from collections.abc import Iterator

import psutil

# What lies at the top of a container's own view, and how its files are called: limit, use, and files that it may drop.
_GROUPS = {
  '': ('memory.max', 'memory.current', 'inactive_file'),
  'memory': ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
}


def free() -> int:
  """Return bytes: the least of what the machine has left, and what containers and limits of this process leave it."""
  return max(0, min([psutil.virtual_memory().available, *_of_groups(), *_of_limits()]))


def _of_limits() -> Iterator[int]:
  used = psutil.Process().memory_info()
  for limit, size in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, 'data', 0))):
    soft, _ = resource.getrlimit(limit)
    if soft != resource.RLIM_INFINITY:
      yield soft - size


def _of_groups(root: pathlib.Path = pathlib.Path('/sys/fs/cgroup'), own: str | None = None) -> Iterator[int]:
  """The room in the control groups that hold this process; Linux alone has such."""
  try:
    own = pathlib.Path('/proc/self/cgroup').read_text('utf-8') if own is None else own
  except OSError:
    return
  for line in own.splitlines():
    _, controllers, path = line.split(':', 2)
    if controllers not in _GROUPS:
      continue
    top = root / controllers
    inner = top / path.lstrip('/')
    for folder in (inner, *inner.parents):
      if (left := _left(folder, *_GROUPS[controllers])) is not None:
        yield left
      if folder == top:
        break


def _left(folder, limit, use, droppable) -> int | None:
  try:
    most, used, facts = ((folder / name).read_text('ascii') for name in (limit, use, 'memory.stat'))
  except OSError:
    return None
  if not most.strip().isdecimal():  # 'max'
    return None
  dropped = dict(line.split() for line in facts.splitlines()).get(droppable, 0)
  return int(most) - int(used) + int(dropped)
