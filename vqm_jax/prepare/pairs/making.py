"""A folder of videos becomes a folder of pairs: examine, split, calibrate, code. Every stage can be interrupted.

`degrade.json` in the output records the settings, what was found in each video and pair, the split and the calibration;
`manifest.csv` gets a line for each finished pair, after its files are in place.
"""

import collections
import concurrent.futures
import csv
import dataclasses
import importlib.metadata
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import shutil
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import numpy as np
from absl import logging

import vqm_jax
from vqm_jax import cli, errors, files, locks, names, schemas
from vqm_jax.prepare.pairs import align, calibrate, checked, degradation, footage, scenes, transcode
from vqm_jax.prepare.pairs.degradation import Coding, Degradation
from vqm_jax.video import VideoFile

T = TypeVar('T')

COLUMNS = (
  *('split', 'clip', 'lq', 'hq', 'fps', 'category', 'crf', 'qp', 'scenes', 'frames', 'height', 'width'),
  *('psnr', 'sha256', 'source', 'start', 'lq_kbps', 'hq_kbps', 'degradation'),
)
_NUMBERS = ('frames', 'psnr', 'lq_kbps', 'hq_kbps')
_OURS = (*footage.SPLITS, '.work', 'manifest.csv', 'degrade.json')
_USED = ('split', 'clip', 'lq', 'hq', *_NUMBERS)  # other columns may be of other versions, or of the user
_MAX_CALIBRATION = 16  # videos


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings that decide about the pairs, beside the videos.

  `rate`: 'crf=33', 'crf=28:38' (drawn for each video) or 'bitrate=500k'; or else `target_psnr` in dB, or a `mix` of
  `degradation.MIXES`. `counts`: videos in val, test and holdout; None is a tenth for val and test, none for holdout.
  `categories`: '', 'folders' or a CSV file. `split_csv`: '' or a CSV file. `copies`: pairs made of each video, where
  what is done to it is drawn; a column `copies` of `split_csv` says it for one.
  """

  rate: str = ''
  target_psnr: float | None = None
  counts: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
  split_csv: str = ''
  categories: str = ''
  clip_frames: int = 120
  preset: str = 'medium'
  seed: int = 0
  mix: str = ''
  copies: int = 1

  def __post_init__(self):
    if bool(self.rate) + bool(self.mix) + (self.target_psnr is not None) != 1:
      raise errors.ConfigError(
        'set one of --rate (such as crf=33), --target_psnr (such as 30.55) and --mix (such as web)'
      )
    if self.mix:
      degradation.check_mix(self.mix)
    low, high = parse_rate(self.rate)[1:] if self.rate else (0, 0)
    if self.copies < 1 or (self.copies > 1 and not self.mix and low == high):
      raise errors.ConfigError(
        f'--copies={self.copies}: expected 1 or, with --mix or a range such as --rate=crf=28:38, more; others are alike'
      )
    if self.split_csv and any(count is not None for count in self.counts.values()):
      raise errors.ConfigError('--split_csv and --val_videos, --test_videos, --holdout_videos exclude each other')
    if self.clip_frames < footage.MIN_FRAMES:
      raise errors.ConfigError(f'--clip_frames={self.clip_frames}: expected at least {footage.MIN_FRAMES}')


def parse_rate(text: str) -> tuple[str, float, float]:
  """('crf' | 'bitrate', lowest, highest) of 'crf=28:38' or 'bitrate=500k'; raises ConfigError."""
  kind, _, value = text.partition('=')
  try:
    if kind == 'crf':
      low, _, high = value.partition(':')
      numbers = float(low), float(high or low)
      if 0 < numbers[0] <= numbers[1] <= 51:
        return kind, *numbers
    if kind == 'bitrate':
      scale = {'k': 1e3, 'M': 1e6}.get(value[-1:], 1)
      number = float(value.rstrip('kM')) * scale
      if 1e3 <= number < 1e9:
        return kind, number, number
  except ValueError:
    pass
  raise errors.ConfigError(
    f'--rate={text}: expected crf=33, crf=28:38 (above 0, up to 51) or bitrate=500k (bit/s, from 1k)'
  )


def run(
  folder: pathlib.Path,
  output: pathlib.Path,
  settings: Settings,
  *,
  workers: int = 1,
  overwrite: bool = False,
) -> list[dict[str, str]]:
  """Make the pairs of all videos below `folder` that are missing in `output`; return the whole manifest.

  Videos that cannot be used are skipped and listed. Raises ConfigError if `output` holds pairs of other settings or
  other videos, BusyError if another process makes pairs there, DataError if no video is left, or, after all others are
  done, if the pair of one failed.
  """
  folder, output = folder.resolve(), output.resolve()
  if output.is_relative_to(folder) or folder.is_relative_to(output):
    raise errors.ConfigError(f'--output={output}: must not lie in --input or hold it; choose another folder')
  files = footage.find(folder)
  described = _described(settings, files)
  _check_ours(output)
  with locks.folder(output):
    journal = _open_journal(output, described, overwrite)
    return _make(files, folder, output, settings, journal, workers)


def _make(files, folder, output, settings, journal, workers) -> list[dict[str, str]]:
  with _Pool(workers) as pool:
    jobs = _plan(files, folder, output, settings, journal, pool)
    rows = read_manifest(output)
    done = {row['clip'] for row in rows if all((output / row[side]).exists() for side in ('lq', 'hq'))}
    missing = [job for job in jobs if job.name not in done]
    if done:
      logging.info('%d of %d pairs are there already', len(jobs) - len(missing), len(jobs))
    rows = [row for row in rows if row['clip'] in done]
    failures = []
    for job, made, error in pool.each(transcode.make, missing, output, desc='coded', unit='video'):
      if error:
        logging.error('%s: %s', job.source, error)
        failures.append(error)
        continue
      row, fits = made
      journal.setdefault(checked.IN_JOURNAL, {}).update(_looked_at(job, row, fits, output))
      journal.save()
      rows = sorted([*rows, row], key=lambda row: (footage.SPLITS.index(row['split']), row['clip']))
      _write_manifest(output, rows)
  shutil.rmtree(output / '.work', ignore_errors=True)
  if failures:
    raise errors.DataError(
      f'{len(failures)} of {len(jobs)} videos failed, the others are finished: {"; ".join(failures)}'
    )
  return read_manifest(output)


def _looked_at(
  job: transcode.Job, row: Mapping[str, Any], fits: align.Alignment, output: pathlib.Path
) -> dict[str, Any]:
  """The entry for a pair, so that builds need not look at it again."""
  starts = [start for start, _ in job.footage.scenes[1:]] if job.split in transcode.WHOLE else []
  lq, hq = (VideoFile(output / row[side], variable_rate=True) for side in ('lq', 'hq'))
  return checked.entry(output, lq, hq, checked.Checked(tuple(starts), fits))


def read_manifest(output: pathlib.Path) -> list[dict[str, str]]:
  """The rows of `manifest.csv`; none if there is no such file."""
  path = output / 'manifest.csv'
  try:
    rows = schemas.read_csv(path, _USED)
    for row in rows:
      _check_row(row)
    return rows
  except FileNotFoundError:
    return []
  except schemas.Misfit as error:
    raise errors.DataError(f'{path}: damaged ({error}); remove that line, or use --overwrite') from error


def _check_row(row: schemas.Row) -> None:
  """Raises Misfit for a line that is not ours."""
  if row['split'] not in footage.SPLITS:
    raise schemas.Misfit(
      f'line {row.line}: split: expected one of {", ".join(footage.SPLITS)}, found {row["split"]!r:.60}'
    )
  if wrong := names.problem(row['clip']):
    raise schemas.Misfit(f'line {row.line}: {names.refusal(row["clip"], wrong)}')
  for side in ('lq', 'hq'):
    if pathlib.PurePosixPath(row[side]).parent != pathlib.PurePosixPath(row['split'], side) or '\0' in row[side]:
      expected = f'a file in {row["split"]}/{side}'
      raise schemas.Misfit(f'line {row.line}: {side}: expected {expected}, found {row[side]!r:.60}')
  for key in _NUMBERS:
    if not re.fullmatch('[0-9]{1,9}' if key == 'frames' else r'[0-9]{1,9}(\.[0-9]{1,9})?|inf', row[key]):
      raise schemas.Misfit(f'line {row.line}: {key}: expected a number, found {row[key]!r:.60}')


def summary(output: pathlib.Path) -> str:
  """A table of the pairs in `output`: one line per split."""
  lines = [f'{"split":8}{"clips":>7}{"frames":>9}{"PSNR dB":>9}{"HQ/LQ rate":>12}{"LQ MB":>9}{"HQ MB":>9}']
  groups = collections.defaultdict(list)
  for row in read_manifest(output):
    groups[row['split']].append(row)
  for split, rows in groups.items():

    def total(key, rows=rows):
      return sum(float(row[key]) * float(row['frames']) for row in rows)

    sizes = [sum((output / row[side]).stat().st_size for row in rows) / 1e6 for side in ('lq', 'hq')]
    frames = sum(int(row['frames']) for row in rows)
    psnr = np.mean([float(row['psnr']) for row in rows])
    ratio = total('hq_kbps') / total('lq_kbps')
    lines.append(f'{split:8}{len(rows):7}{frames:9}{psnr:9.2f}{ratio:12.1f}{sizes[0]:9.1f}{sizes[1]:9.1f}')
  return '\n'.join(lines)


def _described(settings: Settings, files: Mapping[str, pathlib.Path]) -> dict[str, Any]:
  """The settings as plain values; of CSV files their content counts, not their place."""
  values = dataclasses.asdict(settings) | {'counts': dict(settings.counts)}
  # Pairs of before these fields were there go on.
  for field, without in (('mix', ''), ('copies', 1)):
    if values[field] == without:
      del values[field]
  if settings.split_csv:
    values['split_csv'] = footage.column(settings.split_csv, 'split', files)
    if copies := footage.column(settings.split_csv, 'copies', files, optional=True):
      values['copies_csv'] = copies
  if settings.categories not in ('', 'folders'):
    values['categories'] = footage.column(settings.categories, 'category', files)
  return json.loads(json.dumps(values))


@dataclasses.dataclass(frozen=True)
class _Video:
  source: str
  split: str
  sha256: str


@dataclasses.dataclass(frozen=True)
class _Calibration:
  probes: list[tuple[float, float]] = dataclasses.field(default_factory=list)
  target: float | None = None
  clips: list[str] = dataclasses.field(default_factory=list)
  crf: float | None = None


@dataclasses.dataclass(frozen=True)
class _Kept:
  """The content of `degrade.json`; `checked` is held to its shape where it is used."""

  FOREIGN = True

  settings: dict[str, Any]
  footage: dict[str, footage.Footage]
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  videos: dict[str, _Video] | None = None
  refused: dict[str, str] = dataclasses.field(default_factory=dict)
  calibration: _Calibration | None = None
  checked: dict[str, Any] | None = None


class _Journal(dict):
  """`degrade.json`: a dict that can be saved."""

  def __init__(self, path: pathlib.Path, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self._path = path

  def save(self) -> None:
    files.write_text(self._path, json.dumps(self, indent=1))


def _check_ours(output: pathlib.Path) -> None:
  """Raises ConfigError for a folder with files of others."""
  if output.exists() and not output.is_dir():
    raise errors.ConfigError(f'--output={output}: is a file; give the name of a folder')
  if output.exists() and not (output / 'degrade.json').exists():
    if any(path.name != locks.NAME for path in output.iterdir()):
      raise errors.ConfigError(
        f'--output={output}: holds other files and no degrade.json; choose a new or empty folder'
      )


def _open_journal(output: pathlib.Path, settings: dict[str, Any], overwrite: bool) -> _Journal:
  path = output / 'degrade.json'
  if path.exists() and overwrite:
    for entry in map(output.joinpath, _OURS):
      shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
  if path.exists():
    try:
      journal = _Journal(path, schemas.load(path, dict[str, Any], paths=True))
      schemas.check(dict(journal), _Kept)
      earlier = journal['settings']
    except schemas.Misfit as error:
      raise errors.DataError(f'{path}: damaged ({error}); delete it or use --overwrite') from error
    differing = [
      f'{key} was {earlier.get(key)!r:.60}, now {settings.get(key)!r:.60}'
      for key in sorted({*earlier, *settings})
      if earlier.get(key) != settings.get(key)
    ]
    if differing:
      raise errors.ConfigError(
        f'--output={output}: made with other settings ({"; ".join(differing)}); choose another '
        'folder, or --overwrite to make all pairs again'
      )
    return journal
  output.mkdir(parents=True, exist_ok=True)
  versions = {name: importlib.metadata.version(name) for name in ('av', 'scenedetect', 'numpy')}
  journal = _Journal(path, settings=settings, versions={'vqm_jax': vqm_jax.__version__, **versions})
  journal['footage'] = {}
  journal.save()
  return journal


def _plan(files, folder, output, settings, journal, pool) -> list[transcode.Job]:
  """Every pair to make: decided once, then read from the journal."""
  described = journal['settings']
  found, refused = _examine(files, folder, journal, pool)
  relative = {name: files[name].relative_to(folder) for name in found}
  categories = dict.fromkeys(found, '')
  if described['categories'] == 'folders':
    categories = {name: path.parts[0] if path.parts[1:] else '' for name, path in relative.items()}
  elif described['categories']:
    categories = {name: described['categories'].get(name, '') for name in found}
  copies = dict.fromkeys(found, settings.copies)
  if settings.split_csv:
    split_of = footage.checked_splits(described['split_csv'], list(found), settings.split_csv)
    copies |= footage.checked_copies(described.get('copies_csv', {}), settings.split_csv)
  else:
    split_of = footage.splits(categories, settings.counts, settings.seed)
  if not split_of:
    raise errors.DataError(f'{settings.split_csv}: skips all usable videos; name some to keep')
  videos = {
    name: {'source': relative[name].as_posix(), 'split': split, 'sha256': found[name].sha256}
    for name, split in sorted(split_of.items())
  }
  if journal.setdefault('videos', videos) != videos:
    changed = sorted(name for name in {*videos, *journal['videos']} if videos.get(name) != journal['videos'].get(name))
    raise errors.ConfigError(
      f'--output={output}: made from other videos ({", ".join(changed)} changed, came or went); '
      'choose another folder, or --overwrite to make all pairs again'
    )
  journal['refused'] = refused
  journal.save()
  _say_what_is_there(found, split_of, settings)

  def job(name: str, what: Degradation, copy: int = 0) -> transcode.Job:
    return transcode.Job(
      path=files[name],
      source=videos[name]['source'],
      name=f'{name}@{copy}' if copies[name] > 1 else name,  # names of videos have no @
      split=split_of[name],
      category=categories[name],
      degradation=what,
      clip_frames=settings.clip_frames,
      footage=found[name],
    )

  if settings.target_psnr is not None:
    probes = [job(name, Degradation((Coding({}, settings.preset),))) for name in videos]
    crf = _calibrated(probes, output, settings, journal, pool)
    return [_at_crf(probe, crf) for probe in probes]
  return [job(name, _drawn(name, copy, found[name], settings), copy) for name in videos for copy in range(copies[name])]


def _at_crf(job: transcode.Job, crf: float) -> transcode.Job:
  codings = tuple(dataclasses.replace(coding, rate={'crf': crf}) for coding in job.degradation.codings)
  return dataclasses.replace(job, degradation=dataclasses.replace(job.degradation, codings=codings))


def _drawn(name: str, copy: int, video: footage.Footage, settings: Settings) -> Degradation:
  """Draw the degradation of a copy: by name, so that a video keeps it whatever other videos are there."""
  if settings.mix:
    return degradation.MIXES[settings.mix](name, copy, settings.seed, video.height, video.width)
  kind, low, high = parse_rate(settings.rate)
  rng = np.random.default_rng([settings.seed, zlib.crc32(name.encode()), *[copy] * (copy > 0)])
  rate = round(float(rng.uniform(low, high)), 2) if low < high else low
  return Degradation((Coding({kind: rate}, settings.preset),))


def _examine(files, folder, journal, pool) -> tuple[dict[str, footage.Footage], dict[str, str]]:
  """Footage by clip name, and why each other file is not used."""
  found, refused = {}, {}
  known = dict(journal['footage'])
  results = pool.each(footage.examine, list(files.values()), known, desc='examined', unit='video')
  names = {path: name for name, path in files.items()}
  for path, result, error in results:
    if error:
      refused[path.relative_to(folder).as_posix()] = error.removeprefix(f'{path}: ')
      continue
    found[names[path]] = result
    if result.sha256 not in journal['footage']:
      journal['footage'][result.sha256] = dataclasses.asdict(result)
      journal.save()
  first: dict[str, str] = {}
  for name in sorted(found):
    original = first.setdefault(found[name].sha256, name)
    if original != name:
      same = files[original].relative_to(folder).as_posix()
      refused[files[name].relative_to(folder).as_posix()] = f'the same file as {same}'
      del found[name]
  if refused:
    logging.warning('%d of %d files are SKIPPED:', len(refused), len(files))
    for source, reason in sorted(refused.items()):
      logging.warning('  %s: %s', source, reason)
  if not found:
    source, reason = next(iter(sorted(refused.items())))
    raise errors.DataError(
      f'--input={folder}: none of the {len(files)} videos can be used, for example {source}: {reason}'
    )
  return found, refused


def _say_what_is_there(found, split_of, settings) -> None:
  for split in footage.SPLITS:
    names = [name for name in split_of if split_of[name] == split]
    if not names:
      continue
    shots = sum(len(found[name].scenes) for name in names)
    frames = sum(found[name].num_frames for name in names)
    logging.info('%-8s %4d videos, %6d frames, %4d scenes', split, len(names), frames, shots)
    for name in names if split in ('val', 'test') else ():
      _, (start, stop) = scenes.window(found[name].scenes, settings.clip_frames)
      if stop - start < settings.clip_frames:
        logging.warning(
          '%s/%s: no scene has %d frames, the clip has %d', split, name, settings.clip_frames, stop - start
        )


def _calibrated(jobs, output, settings, journal, pool) -> float:
  """The CRF for the target PSNR, on the validation clips; without any, on the middle of all videos."""
  chosen = [job for job in jobs if job.split == 'val'] or jobs
  order = np.random.default_rng(settings.seed).permutation(len(chosen))
  chosen = [chosen[k] for k in sorted(order[:_MAX_CALIBRATION])]
  probes = journal.setdefault('calibration', {}).setdefault('probes', [])
  journal['calibration'].update(target=settings.target_psnr, clips=[job.name for job in chosen])

  def measure(crf: float) -> float:
    probe = [_at_crf(job, crf) for job in chosen]
    results = list(pool.each(transcode.score, probe, output, desc=f'CRF {crf:g}', unit='video'))
    problems = [error for _, _, error in results if error]
    if problems:
      raise errors.DataError(problems[0])
    psnr = float(np.mean([score for _, score, _ in results]))
    logging.info('CRF %6.2f: %6.3f dB', crf, psnr)
    probes.append([crf, psnr])
    journal.save()
    return psnr

  logging.info('Looking for %.3f dB on %d of the clips', settings.target_psnr, len(chosen))
  crf = calibrate.crf_for_psnr(measure, settings.target_psnr, known=probes)
  journal['calibration']['crf'] = crf
  journal.save()
  logging.info('CRF %g gives %.3f dB (%d probes)', crf, dict(probes)[crf], len(probes))
  return crf


class _Pool:
  """Runs functions in `workers` processes, or in this one if there is just one."""

  def __init__(self, workers: int):
    if workers < 1:
      raise errors.ConfigError(f'--workers={workers}: expected at least 1')
    self._pool = None
    if workers > 1:
      # Spawned, not forked: libav and JAX have threads by now.
      context = multiprocessing.get_context('spawn')
      self._pool = concurrent.futures.ProcessPoolExecutor(workers, context, _end_with_parent)

  def each(
    self, function: Callable[..., T], items: list, *args, desc: str, unit: str
  ) -> Iterator[tuple[Any, T | None, str]]:
    """Yield (item, function(item, *args), '') as they finish; (item, None, message) for a VqmError."""
    if self._pool is None:
      results = ((item, *_try(function, item, *args)) for item in items)
      yield from cli.progress(results, len(items), desc=desc, unit=unit)
      return
    futures = {self._pool.submit(_try, function, item, *args): item for item in items}
    finished = concurrent.futures.as_completed(futures)
    try:
      for future in cli.progress(finished, len(items), desc=desc, unit=unit):
        yield futures[future], *future.result()
    except BrokenProcessPool as error:
      raise errors.DataError(
        'a worker process died, perhaps for lack of memory; run again with fewer --workers'
      ) from error

  def __enter__(self) -> '_Pool':
    return self

  def __exit__(self, kind, value, trace) -> None:
    if self._pool:
      self._pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
  """Let a worker process end silently on Ctrl-C, and with a parent that was killed."""
  signal.signal(signal.SIGINT, signal.SIG_DFL)

  def watch():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _try(function: Callable[..., T], *args) -> tuple[T | None, str]:
  try:
    return function(*args), ''
  except errors.VqmError as error:
    return None, str(error)


def _write_manifest(output: pathlib.Path, rows: list[Mapping[str, Any]]) -> None:
  text = io.StringIO()
  fields = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
  writer = csv.DictWriter(text, list(fields), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  files.write_text(output / 'manifest.csv', text.getvalue())
