"""Damaged files, kills, full disks, wrong clocks, two processes at once: what was tried, and what survived.

python benchmarks/faults.py --count=10000 [--seed=0] [--targets=png,mp4] [--docs=docs/reliability.md]
python benchmarks/faults.py --parts=kill,disk,clock,two [--programs=train,eval] [--kills=3]

Part `fuzz` damages valid files and reads them as the programs do (tests/fuzz, where a suite of a few hundred trials
runs, too). A trial survives when the files are accepted or refused by one of our errors in one line that names the
file; otherwise it is printed with the command that repeats it. Trials run in processes of their own, which are started
again when they crash, hang or take memory.

The other parts run train, prepare.build, eval and enhance as users do. Part `kill` ends them by SIGKILL at random
moments, `disk` lets them write to a file system of a few hundred KiB (as root; else it is skipped), `clock` sets the
times of all files ten years ahead, `two` starts each twice at once. Then the same command again has to end in what an
undisturbed run ends in, bit for bit. About 50 ms of a core for each damaged file, and half an hour for the rest.
"""

import collections
import contextlib
import fnmatch
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags

from vqm_jax import cli, errors, files

sys.path.append(str(cli.ROOT / 'tests'))

MARKS = ('<!-- {} -->', '<!-- end of {} -->')
PARTS = ('fuzz', 'kill', 'disk', 'clock', 'two')
PROGRAMS = ('build', 'train', 'eval', 'enhance')

_PARTS = flags.DEFINE_list('parts', ['fuzz'], f'What to try, of {", ".join(PARTS)}.')
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Number of the first trial of each target, and seed of the kills.', lower_bound=0
)
_COUNT = flags.DEFINE_integer('count', 1000, 'How many damaged files, shared by the targets.', lower_bound=1)
_TARGETS = flags.DEFINE_list('targets', ['*'], 'Kinds of files, or patterns of them.')
_PROGRAMS = flags.DEFINE_list('programs', list(PROGRAMS), 'What to kill.')
_KILLS = flags.DEFINE_integer('kills', 3, 'Kills of each program before it may end.', lower_bound=1)
_WORKERS = flags.DEFINE_integer('workers', 1, 'Processes for trials.', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 60.0, 'A trial that takes longer, of a processor, hangs.', lower_bound=0.1)
_KEEP = flags.DEFINE_string('keep', None, 'JSON file to which counts of damaged files are added as they come.')
_DOCS = flags.DEFINE_string('docs', None, 'Page whose tables are written anew.')

_PATIENCE = 30  # seconds, beyond which a hanging trial is killed
_ROOM = 4 << 30  # bytes that a process may claim beside what its libraries do


# Damaged files.


def _work(connection, seeds: str, seconds: float) -> None:
  """A process that runs trials as they come."""
  from fuzz import trials

  quiet = os.open(os.devnull, os.O_WRONLY)
  os.dup2(quiet, 2)  # libraries in C say what they think of damaged files
  size = next(line for line in open('/proc/self/status') if line.startswith('VmSize'))
  resource.setrlimit(resource.RLIMIT_AS, (_ROOM + (int(size.split()[1]) << 10),) * 2)
  connection.send('ready')
  while True:
    name, seed = connection.recv()
    with tempfile.TemporaryDirectory(prefix='vqm_fuzz') as scratch:
      outcome = trials.attempt(name, seed, pathlib.Path(seeds), pathlib.Path(scratch), seconds)
    connection.send(tuple(outcome))


def _cpu_seconds(pid: int) -> float:
  """Seconds of processors that a process has had; 0 once it has ended."""
  try:
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  except (FileNotFoundError, ProcessLookupError):
    return 0.0
  return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class _Worker:
  """A process, which is started again after a crash."""

  def __init__(self, context, seeds: pathlib.Path):
    self._context, self._seeds = context, seeds
    self.job: tuple[str, int] | None = None
    self.deadline = self.most = 0.0
    self._start()

  def _start(self) -> None:
    self.connection, other = self._context.Pipe()
    self._process = self._context.Process(target=_work, args=(other, str(self._seeds), _SECONDS.value), daemon=True)
    self._process.start()
    other.close()
    self.connection.recv()  # libraries take their time to start

  def give(self, job: tuple[str, int]) -> None:
    from fuzz import trials

    # Of the clock and of a processor: on a busy machine the first says little.
    self.job, self.deadline = job, time.monotonic() + trials.WAITING * _SECONDS.value + _PATIENCE
    self.most = _cpu_seconds(self._process.pid) + _SECONDS.value + _PATIENCE
    self.connection.send(job)

  def outcome(self) -> tuple[str, str] | None:
    """Returns how the trial ended; None while it runs."""
    if self.connection.poll():
      with contextlib.suppress(EOFError, ConnectionResetError):
        return self.connection.recv()
      self._process.join()
      code = self._process.exitcode
      self._start()
      return 'crash', f'the process ended by {signal.Signals(-code).name if code < 0 else f"exit code {code}"}'
    if time.monotonic() > self.deadline or _cpu_seconds(self._process.pid) > self.most:
      self._process.kill()
      self._process.join()
      self._start()
      return 'hang', 'the process had to be killed'
    return None

  def close(self) -> None:
    self._process.kill()
    self._process.join()


def fuzz(targets: Sequence[str], seeds: range) -> dict[str, collections.Counter]:
  """Runs the trials of every target; returns how many ended how, and prints faults as they come."""
  from fuzz import trials

  counts, total = {name: collections.Counter() for name in targets}, len(targets) * len(seeds)
  jobs = iter([(name, seed) for seed in seeds for name in targets])
  context = multiprocessing.get_context('forkserver')
  # Workers are forked from a process that has imported all of it, which finds modules by the environment alone.
  os.environ['PYTHONPATH'] = os.pathsep.join([str(cli.ROOT), str(cli.ROOT / 'tests'), os.environ.get('PYTHONPATH', '')])
  context.set_forkserver_preload(['fuzz.trials'])
  with tempfile.TemporaryDirectory(prefix='vqm_seeds') as folder:
    trials.prepare(targets, pathlib.Path(folder))
    workers = [_Worker(context, pathlib.Path(folder)) for _ in range(_WORKERS.value)]
    try:
      for done, _ in enumerate(cli.progress(_results(workers, jobs, counts), total, 'tried', 'file'), start=1):
        if done % 50 == 0 or done == total:
          _keep(counts, seeds)
    finally:
      for worker in workers:
        worker.close()
  return counts


def _results(workers, jobs, counts) -> Iterator[None]:
  for worker in workers:
    if job := next(jobs, None):
      worker.give(job)
  while busy := [worker for worker in workers if worker.job]:
    multiprocessing.connection.wait([worker.connection for worker in busy], timeout=1)
    for worker in busy:
      if (found := worker.outcome()) is None:
        continue
      (kind, text), (name, seed) = found, worker.job
      counts[name][kind] += 1
      if kind not in ('accepted', 'refused'):
        command = f'python benchmarks/faults.py --targets={name!r} --seed={seed} --count=1'
        print(f'{kind}: {name}: {errors.one_line(text, 800)}\n  {command}', flush=True)
      yield
      worker.job = next(jobs, None)
      if worker.job:
        worker.give(worker.job)


def _keep(counts: dict[str, collections.Counter], seeds: range) -> None:
  """Writes what is known so far, so that a run that ends early leaves that; with --keep beside earlier runs."""
  runs = {}
  if _KEEP.value and pathlib.Path(_KEEP.value).exists():
    runs = json.loads(pathlib.Path(_KEEP.value).read_text())
  runs |= {f'{seeds.start}': {name: dict(found) for name, found in counts.items()}}
  if _KEEP.value:
    files.write_json(pathlib.Path(_KEEP.value), runs)
  write_docs('damaged files', fuzz_table(runs))


def fuzz_table(runs: dict[str, dict[str, dict[str, int]]]) -> str:
  """Of Markdown, from {seed: {target: {kind: count}}}."""
  counts = collections.defaultdict(collections.Counter)
  for found in runs.values():
    for name, kinds in found.items():
      counts[name].update(kinds)
  rows = ['| Files | Damaged | Accepted | Refused in a line | Faults |', '| --- | ---: | ---: | ---: | ---: |']
  total = collections.Counter()
  for name, found in counts.items():
    total += found
    rows.append(f'| {name} | {_numbers(found)} |')
  rows.append(f'| **all** | {_numbers(total)} |')
  faults = total.total() - total['accepted'] - total['refused']
  kinds = ', '.join(f'{count} {kind}' for kind, count in total.items() if kind not in ('accepted', 'refused'))
  told = f'{faults} faults of {total.total():,} damaged files{f" ({kinds})" if kinds else ""}'
  return f'{told}; `--seed` {", ".join(runs)}.\n\n' + '\n'.join(rows)


def _numbers(found: collections.Counter) -> str:
  accepted, refused = found['accepted'], found['refused']
  return f'{found.total()} | {accepted} | {refused} | {found.total() - accepted - refused}'


# Programs that are disturbed.


class Program(NamedTuple):
  """A command, and what it leaves.

  Attributes:
    args: of `python -m vqm_jax.…`, for a folder to write to.
    result: what has to be the same in the end, read from that folder.
  """

  args: Callable[[pathlib.Path], list[str]]
  result: Callable[[pathlib.Path], Any]


class Ended(NamedTuple):
  """Exit code, output and seconds of a command."""

  code: int
  output: str
  seconds: float


def _environment() -> dict[str, str]:
  return os.environ | {'PYTHONPATH': str(cli.ROOT), 'JAX_PLATFORMS': 'cpu'}


def start(args: Sequence[str]) -> subprocess.Popen:
  """A program of ours, in the checkout, with its output in one pipe."""
  return subprocess.Popen(
    [sys.executable, '-m', *args], cwd=cli.ROOT, env=_environment(), text=True,
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip


def run(args: Sequence[str]) -> Ended:
  """The same to its end."""
  begin, process = time.monotonic(), start(args)
  output, _ = process.communicate()
  return Ended(process.returncode, output, time.monotonic() - begin)


def programs(scratch: pathlib.Path) -> dict[str, Program]:
  """The four programs at small sizes; all but the first need what `prepare_programs` leaves in `scratch`."""
  sizes = {
    'crop': 16,
    'batch_size': 8,
    'steps': 60,
    'log_every': 10,
    'save_every': 10,
    'eval_every': 30,
    'keep_last': 3,
  }
  sizes |= {
    'data_dir': scratch / 'data',
    'dataset_config': 'micro_tiles',
    'val_config': 'micro_frames',
    'eval_frames': 2,
  }
  network = {'width': 4, 'mapping_width': 8, 'num_blocks': 1}
  config = [f'--config.{key}={value}' for key, value in sizes.items()]
  config += [f'--config.system_args.{key}={value}' for key, value in network.items()]

  def build(folder):
    return ['vqm_jax.prepare.build', '--dataset=vqm_demo', '--config=micro_tiles,micro_frames', f'--data_dir={folder}']

  def train(folder):
    return ['vqm_jax.train', '--config=experiments/ecnu.py:tiny', *config, f'--workdir={folder}']

  def evaluate(folder):
    given = ['--weights=web-small', '--dataset=vqm_demo/micro_frames', f'--data_dir={scratch / "data"}']
    return ['vqm_jax.eval', *given, '--save_frames', f'--out={folder}']

  def enhance(folder):
    given = ['--weights=web-small', '--crf=20', '--strength=1']
    return ['vqm_jax.enhance', f'--input={scratch / "in.mp4"}', f'--output={folder / "out.mp4"}', *given]

  return {
    'build': Program(build, _records_of),
    'train': Program(train, _parameters_of),
    'eval': Program(evaluate, _scores_of),
    'enhance': Program(enhance, _packets_of),
  }


def prepare_programs(scratch: pathlib.Path) -> None:
  """Makes what the programs read: records and a video."""
  from fuzz import targets

  if {'train', 'eval'} & set(_PROGRAMS.value):
    args = programs(scratch)['build'].args(scratch / 'data')
    if (ended := run(args)).code:
      raise errors.DataError(f'An undisturbed run failed: {" ".join(args)}: {ended.output[-300:]}')
  targets._code(scratch / 'in.mp4', 'libx264', count=300)


def _records_of(folder: pathlib.Path) -> dict[str, str]:
  from vqm_jax import checkpoints

  records = sorted(folder.glob('vqm_demo/*/*/*array_record*'))
  unfinished = [path.name for path in folder.glob('vqm_demo/*/*') if path.name.startswith(('incomplete', 'unfinished'))]
  return {str(path.relative_to(folder)): checkpoints.sha256(path) for path in records} | {'left': str(unfinished)}


def _parameters_of(folder: pathlib.Path) -> dict[str, bytes]:
  from vqm_jax import checkpoints

  step = checkpoints.select(folder / 'checkpoints', 'latest')
  arrays = {
    part: checkpoints.read_arrays(folder / 'checkpoints', step, part) for part in ('params', 'ema', 'opt_state')
  }
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  losses = {f'loss {line["step"]}': str(line.get('train/loss')).encode() for line in lines}
  return {f'{part}/{name}': array.tobytes() for part, its in arrays.items() for name, array in its.items()} | losses


def _scores_of(folder: pathlib.Path) -> dict[str, Any]:
  from vqm_jax import checkpoints, summary

  found = summary.read_summary(folder / 'eval' / 'test' / summary.NAME)
  frames = {str(path.relative_to(folder)): checkpoints.sha256(path) for path in sorted(folder.rglob('*.png'))}
  return {'scores': [found.metrics, found.no_processing, found.frame_indices], **frames}


def _packets_of(folder: pathlib.Path) -> list[bytes]:
  import av

  with av.open(str(folder / 'out.mp4')) as container:
    packets = [bytes(packet) for packet in container.demux(video=0)]
  return [*packets, str(sorted(path.name for path in folder.iterdir())).encode()]


def _same(program: Program, folder: pathlib.Path, expected: Any) -> str:
  """Names the first difference from the undisturbed run; '' if there is none."""
  try:
    return '' if program.result(folder) == expected else 'ends in something else'
  except Exception as error:
    return f'cannot be read ({type(error).__name__}: {errors.reason(error)})'


def _complaint(ended: Ended) -> str:
  """Why an end by error is not a proper one; '' if it is: exit code 1 and the reason in one line, no traceback."""
  lines = [line for line in ended.output.splitlines() if line.startswith('error: ')]
  if 'Traceback' in ended.output:
    return f'a traceback: {ended.output[-300:]}'
  if ended.code != 1 or len(lines) != 1 or len(lines[0]) > errors.LONGEST:
    return f'exit code {ended.code}, {ended.output[-300:]}'
  return ''


def _killed(program: Program, folder: pathlib.Path, moment: float) -> bool:
  """Starts a program and kills it after `moment` seconds; False if it has ended by itself before."""
  process = start(program.args(folder))
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.communicate(timeout=moment)
    return False
  process.kill()
  process.communicate()
  return True


def _killed_often(program: Program, folder: pathlib.Path, count: int, seconds: float, rng: random.Random) -> bool:
  """Kills a program so often at random moments; False if it has ended by itself after fewer kills, but one."""
  done = 0
  while done < count:
    if _killed(program, folder, rng.uniform(0, 1) * seconds):
      done += 1
    elif done:
      return False
    else:  # it was quicker than the undisturbed run: once more, sooner
      shutil.rmtree(folder)
      folder.mkdir()
      seconds /= 2
  return True


def kill(program: Program, folder: pathlib.Path, expected: Any, seconds: float, rng: random.Random) -> str:
  """Kills a program at random moments, then lets it end; what went wrong, or ''."""
  return _ended(program, folder, expected, _killed_often(program, folder, _KILLS.value, seconds, rng))


def _ended(program: Program, folder: pathlib.Path, expected: Any, again: bool) -> str:
  """Says what is wrong after the same command has gone on to its end, where it has not ended before."""
  ended = run(program.args(folder)) if again else None
  return f'does not go on: {ended.output[-300:]}' if ended and ended.code else _same(program, folder, expected)


def clock(program: Program, folder: pathlib.Path, expected: Any, seconds: float, rng: random.Random) -> str:
  """Kills it once, sets the times of what it left ten years ahead, and lets it go on."""
  _killed_often(program, folder, 1, seconds, rng)
  later = time.time() + 10 * 365 * 86400
  for path in [folder, *folder.rglob('*')]:
    os.utime(path, (later, later))
  return _ended(program, folder, expected, again=True)


def two(program: Program, folder: pathlib.Path, expected: Any, seconds: float, rng: random.Random) -> str:
  """Starts it twice at once: one is refused in a line, or finds the work done."""
  del seconds
  both = [start(program.args(folder))]
  time.sleep(rng.uniform(0, 1))
  both.append(start(program.args(folder)))
  ended = [Ended(process.returncode, output, 0) for process in both for output, _ in [process.communicate()]]
  if all(one.code for one in ended):
    return f'neither ends: {ended[0].output[-150:]} and {ended[1].output[-150:]}'
  for one in ended:
    if one.code and (wrong := _complaint(one)):
      return f'the other one: {wrong}'
  return _same(program, folder, expected)


def disk(program: Program, folder: pathlib.Path, expected: Any, seconds: float, rng: random.Random) -> str:
  """Has it write to a file system that is too small, then to one that is not."""
  import full_disk

  del seconds
  size = rng.randrange(16, 600)  # KiB
  while True:
    with full_disk.small_disk(folder, f'{size}k') as mounted:
      if not mounted:
        return 'skipped: making a small file system takes root'
      ended = run(program.args(folder))
      if not ended.code and size > 4:  # there was room enough
        size //= 2
        continue
      if wrong := _complaint(ended):
        return f'{size} KiB: {wrong}'
      subprocess.run(['mount', '-o', 'remount,size=500m', folder], check=True)
      wrong = _ended(program, folder, expected, again=True)
      return wrong and f'{size} KiB: {wrong}'


_DISTURBANCES = {
  'kill': (kill, 'SIGKILL at {kills} random moments'),
  'disk': (disk, 'full disk'),
  'clock': (clock, 'SIGKILL, then files from ten years ahead'),
  'two': (two, 'two processes at once'),
}


def disturb(parts: Sequence[str], names: Sequence[str], rng: random.Random) -> list[tuple[str, str, str]]:
  """(what was done, program, what went wrong or '') for each pair of both."""
  found = []
  with tempfile.TemporaryDirectory(prefix='vqm_faults') as place:
    scratch = pathlib.Path(place)
    prepare_programs(scratch)
    for name in names:
      program, whole = programs(scratch)[name], scratch / f'{name}_whole'
      whole.mkdir()
      ended = run(program.args(whole))
      if ended.code:
        raise errors.DataError(f'An undisturbed run failed: {name}: {ended.output[-300:]}')
      expected = program.result(whole)
      for part in parts:
        folder = scratch / f'{name}_{part}'
        folder.mkdir()
        function, text = _DISTURBANCES[part]
        text = text.format(kills=_KILLS.value)
        wrong = function(program, folder, expected, ended.seconds, rng)
        found.append((text, name, wrong))
        print(f'{name}: {text}: {wrong or "the same in the end"}', flush=True)
        shutil.rmtree(folder)
        write_docs('disturbances', disturbance_table([*_others(found), *found]))
  return found


def _others(found: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
  """Reads the rows of other disturbances and programs from the page: a few at a time make the whole table."""
  if not _DOCS.value:
    return []
  tried = {(_kind(text), name) for text, name, _ in found}
  rows = re.findall(r'^\| (.+) \| `(\w+)` \| (.+) \|$', pathlib.Path(_DOCS.value).read_text(encoding='utf-8'), re.M)
  return [row for row in rows if (_kind(row[0]), row[1]) not in tried]


def _kind(text: str) -> str:
  """A disturbance, however often."""
  return re.sub('[0-9]+', 'n', text)


def disturbance_table(found: Sequence[tuple[str, str, str]]) -> str:
  """Of Markdown."""
  rows = ['| Disturbance | Program | In the end |', '| --- | --- | --- |']
  for text, name, wrong in found:
    rows.append(f'| {text} | `{name}` | {errors.one_line(wrong, 200).replace("|", "/") or "the same, bit for bit"} |')
  return '\n'.join(rows)


def write_docs(name: str, text: str) -> None:
  """Writes a table between its marks in the page."""
  if not _DOCS.value:
    return
  page = pathlib.Path(_DOCS.value)
  start_of, end_of = (mark.format(name) for mark in MARKS)
  head, rest = page.read_text(encoding='utf-8').split(start_of)
  files.write_text(page, f'{head}{start_of}\n\n{text}\n\n{end_of}{rest.split(end_of)[1]}')


def main(argv):
  del argv
  if unknown := [part for part in _PARTS.value if part not in PARTS]:
    raise errors.ConfigError(f'--parts={unknown[0]}: expected some of {", ".join(PARTS)}.')
  if unknown := [name for name in _PROGRAMS.value if name not in PROGRAMS]:
    raise errors.ConfigError(f'--programs={unknown[0]}: expected some of {", ".join(PROGRAMS)}.')
  faults = 0
  if 'fuzz' in _PARTS.value:
    from fuzz.targets import TARGETS

    names = [name for name in TARGETS if any(fnmatch.fnmatch(name, pattern) for pattern in _TARGETS.value)]
    if not names:
      raise errors.ConfigError(f'--targets={",".join(_TARGETS.value)}: none; there are {", ".join(TARGETS)}.')
    each = -(-_COUNT.value // len(names))
    counts = fuzz(names, range(_SEED.value, _SEED.value + each))
    print(fuzz_table({f'{_SEED.value}': counts}))
    faults += sum(
      count for found in counts.values() for kind, count in found.items() if kind not in ('accepted', 'refused')
    )
  if parts := [part for part in PARTS[1:] if part in _PARTS.value]:
    found = disturb(parts, _PROGRAMS.value, random.Random(_SEED.value))
    print(disturbance_table(found))
    faults += sum(bool(wrong) and not wrong.startswith('skipped') for *_, wrong in found)
  if faults:
    raise errors.VqmError(f'{faults} faults.')


if __name__ == '__main__':
  cli.run(main)
