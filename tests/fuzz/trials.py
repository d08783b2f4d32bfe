"""One trial: a valid set of files, one of them damaged, read as the programs read it; and what became of it.

A trial survives when the reader accepts the files or refuses them by an error of `vqm_jax.errors` that is one line and
names the file. Everything else is a fault.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import random
import resource
import shutil
import signal
import tempfile
import traceback
import warnings
import zlib
from typing import NamedTuple

import av
from fuzz import mutations
from fuzz.targets import TARGETS, Wrong

from vqm_jax import errors

ACCEPTED, REFUSED = 'accepted', 'refused'
WAITING = 30  # times as many seconds of the clock as of a processor may pass: on a busy machine most of them do
LEVELS = 6  # of folders around the files of a trial: what climbs out of its own is seen there
MEMORY = 1 << 30  # bytes that a trial may take; pictures of 179 million pixels, which are allowed, take half of it


class Outcome(NamedTuple):
  """What became of a trial.

  Attributes:
    kind: 'accepted', 'refused', or of faults 'traceback', 'message', 'wrong', 'hang', 'memory', 'escape', 'crash'.
    text: the error or, of faults, what is wrong.
  """

  kind: str
  text: str = ''

  @property
  def is_fault(self) -> bool:
    return self.kind not in (ACCEPTED, REFUSED)


class Hang(BaseException):
  """A trial took too long. No `except Exception` stops it."""


def prepare(names, seeds: pathlib.Path) -> None:
  """Makes the valid files of targets, each in `seeds/<target>`, and reads them: an error here is one of the target."""
  for name in names:
    folder = seeds / name
    if folder.exists():
      continue
    folder.mkdir(parents=True)
    with _quietly(), tempfile.TemporaryDirectory() as scratch:
      TARGETS[name].make(folder)
      box = pathlib.Path(scratch) / 'box'
      shutil.copytree(folder, box)
      TARGETS[name].read(box, random.Random(0))


@contextlib.contextmanager
def _quietly():
  """Without what programs log of damage, and warnings of libraries."""
  logging.disable(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logging.disable(logging.NOTSET)


def attempt(name: str, seed: int, seeds: pathlib.Path, scratch: pathlib.Path, seconds: float) -> Outcome:
  """Runs the trial of a target and a seed; the same ones damage in the same way.

  Args:
    seeds: of `prepare`.
    scratch: an empty folder, emptied again in the end.
    seconds: of a processor, from which on it hangs; of the clock `WAITING` times as many.
  """
  target = TARGETS[name]
  rng = random.Random(zlib.crc32(name.encode()) * 1_000_003 + seed)
  outer = scratch / 'outer'
  box = outer.joinpath(*map(str, range(LEVELS)), 'box')
  shutil.copytree(seeds / name, box)
  try:
    victims = sorted(path for path in box.glob(target.victims) if path.is_file())
    victim = rng.choice(victims)
    with _quietly():
      content = (target.mutate or mutations.mutate)(victim.read_bytes(), victim.name, rng)
    victim.unlink()
    if content is not None:
      victim.write_bytes(content)
    if target.after:
      target.after(box)
    before = _outside(outer, box)
    outcome = _read(target, box, victim, rng, seconds)
    if outcome.is_fault:
      return outcome
    if left := sorted(_outside(outer, box) ^ before):
      return Outcome('escape', f'outside of its folder: {left[0]}')
    return outcome
  finally:
    shutil.rmtree(outer, ignore_errors=True)


def _read(target, box, victim, rng, seconds) -> Outcome:
  _reset_peak()
  held = _peak()
  try:
    with _quietly(), _limited(seconds):
      target.read(box, rng)
    outcome = Outcome(ACCEPTED)
  except Wrong as error:
    outcome = Outcome('wrong', str(error))
  except errors.VqmError as error:
    outcome = _judged(error, box, victim)
  except Hang as error:
    outcome = Outcome('hang', _short_trace(error))
  except FileNotFoundError as error:  # of which `cli` makes a line
    outcome = Outcome(REFUSED, f'{error.strerror}: {error.filename}') if error.filename else _traceback(error)
  except MemoryError as error:
    outcome = Outcome('memory', _short_trace(error))
  except Exception as error:
    outcome = _traceback(error)
  taken = _peak() - held
  if taken > MEMORY and not outcome.is_fault:
    return Outcome('memory', f'{taken >> 20} MiB; {outcome.kind} {outcome.text}'.strip())
  return outcome


def _judged(error: errors.VqmError, box: pathlib.Path, victim: pathlib.Path) -> Outcome:
  """Whether an error of ours is what a user should see."""
  said, shown = str(error), errors.one_line(str(error))
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, MemoryError) and not isinstance(cause, av.FFmpegError):  # libav refuses by the same name
      return Outcome('memory', f'{shown} <- {_short_trace(cause)}')
    cause = cause.__cause__ or cause.__context__
  if '\n' in said:
    return Outcome('message', f'more than one line: {said!r}')
  if not any(name in shown for name in (str(box), *victim.relative_to(box).parts)):
    return Outcome('message', f'names no file: {shown}')
  return Outcome(REFUSED, shown.replace(str(box), '.'))


def _traceback(error: BaseException) -> Outcome:
  return Outcome('traceback', _short_trace(error))


def _short_trace(error: BaseException) -> str:
  """The exception and the lines of ours that it came through, in one line."""
  frames = [f for f in traceback.extract_tb(error.__traceback__) if 'vqm_jax' in f.filename or 'datasets' in f.filename]
  last = traceback.extract_tb(error.__traceback__)[-1:]
  places = ' > '.join(f'{pathlib.PurePath(f.filename).name}:{f.lineno}' for f in [*frames[-5:], *last])
  return f'{type(error).__name__}: {errors.one_line(str(error), 160)} [{places}]'


@contextlib.contextmanager
def _limited(seconds: float):
  """Raises Hang after so many seconds of a processor, or `WAITING` times as many of the clock."""
  timers = (
    (signal.ITIMER_PROF, signal.SIGPROF, seconds),
    (signal.ITIMER_REAL, signal.SIGALRM, WAITING * seconds),
  )
  before = [signal.signal(number, _hangs) for _, number, _ in timers]
  try:
    for timer, _, limit in timers:
      signal.setitimer(timer, limit)
    yield
  finally:
    for (timer, number, _), handler in zip(timers, before, strict=True):
      signal.setitimer(timer, 0)
      signal.signal(number, handler)


def _hangs(*_) -> None:
  raise Hang('took too long')


def _outside(outer: pathlib.Path, box: pathlib.Path) -> set[str]:
  """What lies around the box, with sizes and contents of files."""
  found = set()
  for folder, folders, names in os.walk(outer):
    here = pathlib.Path(folder)
    if here == box.parent:
      folders.remove('box')
    for name in [*folders, *names]:
      path = here / name
      digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.is_file() else ''
      found.add(f'{path.relative_to(outer)} {digest}'.strip())
  return found


def _reset_peak() -> None:
  try:
    pathlib.Path('/proc/self/clear_refs').write_text('5')
  except OSError:  # then the peak is that of the process so far
    pass


def _peak() -> int:
  try:
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith('VmHWM'))
  except (OSError, StopIteration):
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
