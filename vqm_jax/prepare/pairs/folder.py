"""The pairs in a folder: <split>/{lq,hq}/<clip> and, optionally, a manifest.csv with what is known of them."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping

from vqm_jax import errors, schemas
from vqm_jax.prepare.records.configs import ClipPair
from vqm_jax.video import list_videos, open_video
from vqm_jax.video.sources import Readable

SPLITS = ('train', 'val', 'test', 'holdout')


@dataclasses.dataclass(frozen=True)
class Listed:
  """One pair: its name, its sides, which nobody has opened yet, and its line in the manifest, if there is one."""

  name: str
  lq: Readable
  hq: Readable
  row: Mapping[str, str]


def listed(split: str, manual_dir: pathlib.Path) -> list[Listed]:
  """The pairs of a split; raises DataError if one lacks a side or the manifest cannot be understood."""
  rows = {row['clip']: row for row in manifest(manual_dir) if row['split'] == split}
  sides = {}
  for side in ('lq', 'hq'):
    folder = manual_dir / split / side
    sides[side] = list_videos(folder) if folder.is_dir() else {}
    sides[side] |= {clip: manual_dir / row[side] for clip, row in rows.items() if row.get(side)}
  names = sides['lq'] | sides['hq'] | rows
  missing = [f'{split}/{side}/{name}' for name in names for side in sides if name not in sides[side]]
  if missing:
    raise errors.DataError(
      f'{manual_dir}: every clip needs a file of the same name in {split}/lq and {split}/hq, missing: '
      f'{", ".join(missing)}.'
    )
  return [Listed(name, sides['lq'][name], sides['hq'][name], rows.get(name, {})) for name in names]


def opened(pair: Listed, manual_dir: pathlib.Path) -> ClipPair:
  """The pair, with what the manifest says about it.

  Raises VideoError for what cannot be read exactly, DataError for what the manifest says in words not understood.
  """
  row = pair.row
  fps = _parsed(schemas.rate, row, 'fps', None, manual_dir)
  return ClipPair(
    clip_id=pair.name,
    # Sides are compared frame by frame, whenever the frames are shown.
    lq=open_video(pair.lq, fps=fps, variable_rate=True),
    hq=open_video(pair.hq, fps=fps, variable_rate=True),
    category=row.get('category') or '',
    crf=_parsed(_finite, row, 'crf', float('nan'), manual_dir),
    qp=_parsed(_finite, row, 'qp', float('nan'), manual_dir),
    scenes=_parsed(_scenes, row, 'scenes', (), manual_dir),
  )


def manifest(manual_dir: pathlib.Path) -> list[schemas.Row]:
  """The lines of manifest.csv; none without one."""
  path = manual_dir / 'manifest.csv'
  if not path.is_file():
    return []
  try:
    rows = schemas.read_csv(path)
  except schemas.Misfit as error:
    raise errors.DataError(f'{path}: cannot be read as CSV ({error}); save it again as CSV in UTF-8.') from error
  for row in rows:
    if not row.get('split') or not row.get('clip'):
      raise errors.DataError(
        f'{path}, line {row.line}: expected columns split, clip and, optionally, lq, hq, fps, category, crf, qp, '
        'scenes.'
      )
  return rows


def _parsed(kind, row: dict[str, str], field: str, default, manual_dir: pathlib.Path):
  text = (row.get(field) or '').strip()
  try:
    return kind(text) if text else default
  except ValueError as error:
    raise errors.DataError(
      f'{manual_dir / "manifest.csv"}, clip {row["clip"]:.120}: {field}={text!r:.60} is not understood; expected for '
      'example fps=25 or 30000/1001, crf=33, qp=36.2, scenes=0-120;120-300.'
    ) from error


def _finite(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError('not finite')
  return value


def _scenes(text: str) -> tuple[tuple[int, int], ...]:
  """((0, 120), (120, 300)) of '0-120;120-300'."""
  ranges = (part.split('-') for part in text.split(';'))
  return tuple((int(start), int(stop)) for start, stop in ranges)
