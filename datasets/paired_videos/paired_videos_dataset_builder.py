"""paired_videos: any folder of degraded and original videos, such as `vqm_jax.prepare.degrade` writes."""

import csv
import pathlib
from collections.abc import Iterator
from fractions import Fraction

import tensorflow_datasets as tfds

from vqm_jax import errors
from vqm_jax.prepare.challenge.packing import short_hash
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import ClipPair, FramesConfig, tile_configs
from vqm_jax.prepare.records.segments import SegmentsConfig
from vqm_jax.video import list_videos, open_video


class Builder(VqmBuilder):
  """<manual_dir>/{train,val,test,holdout}/{lq,hq}/<clip> and, optionally, <manual_dir>/manifest.csv."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'manual_dir holds <split>/lq/<clip> and <split>/hq/<clip> for the splits train, val, test and holdout, as far '
    'as there are any; a clip is a video file or a folder of images, of equal name, length and size on both sides. '
    'python -m vqm_jax.prepare.degrade makes such a folder from your own videos.'
  )
  BUILDER_CONFIGS = [
    *tile_configs(),
    SegmentsConfig(name='segments', description='All of the training videos, as they are coded.'),
    FramesConfig(name='frames', description='Whole frames for evaluation.'),
  ]

  def clips(self, split: str, manual_dir: pathlib.Path) -> Iterator[ClipPair]:
    """The clips of <manual_dir>/<split>, with what the manifest says about them.

    Raises DataError if a clip lacks a side or the manifest cannot be understood.
    """
    rows = {row['clip']: row for row in _manifest(manual_dir) if row['split'] == split}
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
    for name in names:
      row = rows.get(name, {})
      fps = _parsed(Fraction, row, 'fps', None, manual_dir)
      yield ClipPair(
        clip_id=name,
        # Frame by frame, whenever the frames are shown.
        lq=open_video(sides['lq'][name], fps=fps, variable_rate=True),
        hq=open_video(sides['hq'][name], fps=fps, variable_rate=True),
        category=row.get('category') or '',
        crf=_parsed(float, row, 'crf', float('nan'), manual_dir),
        qp=_parsed(float, row, 'qp', float('nan'), manual_dir),
        scenes=_parsed(_scenes, row, 'scenes', (), manual_dir),
      )

  def memory(self, manual_dir: pathlib.Path) -> pathlib.Path:
    """Beside the pairs, so that whoever builds of them, anywhere, need not look at them again."""
    return manual_dir

  def fingerprint(self, split: str, manual_dir: pathlib.Path) -> str:
    """Digest of the names and sizes of the split's files and of its lines in the manifest."""
    files = sorted(path for path in (manual_dir / split).rglob('*') if path.is_file())
    lines = [f'{path.relative_to(manual_dir).as_posix()} {path.stat().st_size}' for path in files]
    lines += [str(sorted(row.items())) for row in _manifest(manual_dir) if row['split'] == split]
    return short_hash(lines)


def _manifest(manual_dir: pathlib.Path) -> list[dict[str, str]]:
  """The lines of manifest.csv; none without one."""
  path = manual_dir / 'manifest.csv'
  if not path.is_file():
    return []
  with path.open(newline='', encoding='utf-8-sig') as file:
    rows = list(csv.DictReader(file))
  for number, row in enumerate(rows, start=2):
    if not row.get('split') or not row.get('clip'):
      raise errors.DataError(
        f'{path}, line {number}: expected columns split, clip and, optionally, lq, hq, fps, category, crf, qp, scenes.'
      )
  return rows


def _parsed(kind, row: dict[str, str], field: str, default, manual_dir: pathlib.Path):
  text = (row.get(field) or '').strip()
  try:
    return kind(text) if text else default
  except (ValueError, ZeroDivisionError) as error:
    raise errors.DataError(
      f'{manual_dir / "manifest.csv"}, clip {row["clip"]}: {field}={text!r} is not understood; expected for '
      'example fps=25 or 30000/1001, crf=33, qp=36.2, scenes=0-120;120-300.'
    ) from error


def _scenes(text: str) -> tuple[tuple[int, int], ...]:
  """((0, 120), (120, 300)) of '0-120;120-300'."""
  ranges = (part.split('-') for part in text.split(';'))
  return tuple((int(start), int(stop)) for start, stop in ranges)
