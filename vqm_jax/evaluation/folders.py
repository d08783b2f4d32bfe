"""Outputs and targets that lie in folders or videos already, as clips to score."""

import functools
import itertools
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from vqm_jax import errors
from vqm_jax.evaluation.scoring import ClipFrames, every_nth


def folder_clips(pred: str, gt: str, lq: str | None = None, every: int = 1) -> tuple[list[ClipFrames], list[Any]]:
  """Pairs outputs, targets and optionally inputs by clip name.

  Args:
    pred, gt, lq: each a video file, a folder of frames, or a folder of such clips. Clips are
      matched by name; when each side is one clip, names do not matter.
    every: score every n-th frame only (n-1, 2n-1, ...).

  Returns:
    The clips, and the identity of every file read (path, size, time) for a `fingerprint`.

  Raises:
    DataError: clips without a partner, or of other lengths or sizes; the message names them all.
    VideoError: a file or folder that cannot be read.
  """
  from vqm_jax import video  # PyAV is only needed here

  given = {'--pred_dir': pred, '--gt_dir': gt, '--lq_dir': lq}
  paths = {flag: _clips(pathlib.Path(path), video) for flag, path in given.items() if path}
  single = all(len(clips) == 1 for clips in paths.values())
  if single and any(_is_clip(given[flag], clips) for flag, clips in paths.items()):
    name = next(iter(paths['--gt_dir']))
    paths = {flag: dict(zip([name], clips.values(), strict=True)) for flag, clips in paths.items()}
  problems = []
  for flag, clips in paths.items():
    if lost := [name for name in paths['--gt_dir'] if name not in clips]:
      problems.append(f'{flag}={given[flag]} lacks {", ".join(lost)}')
    if extra := [name for name in clips if name not in paths['--gt_dir']]:
      problems.append(f'--gt_dir={gt} lacks {", ".join(extra)} of {flag}')
  if problems or not paths['--gt_dir']:
    raise errors.DataError(
      f'Clips do not match: {"; ".join(problems) or f"no clips in {gt}"}; clips are matched by folder or file name.'
    )
  out = []
  for name in paths['--gt_dir']:
    sources = {flag: video.open_video(clips[name], variable_rate=True) for flag, clips in paths.items()}
    shapes = {flag: (s.num_frames, s.height, s.width) for flag, s in sources.items()}
    if len(set(shapes.values())) > 1:
      found = ', '.join(f'{flag} {n} x {w}x{h}' for flag, (n, h, w) in shapes.items())
      problems.append(f'{name} ({found})')
    indices = every_nth(name, shapes['--gt_dir'][0], every)
    lq_source = sources.get('--lq_dir')
    frames = functools.partial(_triples, sources['--pred_dir'], sources['--gt_dir'], lq_source, every)
    out.append(ClipFrames(name, indices, '', frames))
  if problems:
    raise errors.DataError(f'Clips differ in frames x width x height: {"; ".join(problems)}; make them equal first.')
  return out, [_identity(path) for clips in paths.values() for path in clips.values()]


def _triples(pred, gt, lq, every: int) -> Iterator[tuple[np.ndarray | None, np.ndarray, np.ndarray]]:
  """(input or None, output, target) of every n-th frame of one clip."""
  inputs = lq.frames() if lq else itertools.repeat(None, gt.num_frames)
  return itertools.islice(zip(inputs, pred.frames(), gt.frames(), strict=True), every - 1, None, every)


def _clips(path: pathlib.Path, video) -> dict[str, Any]:
  if path.is_file() and path.suffix.lower() != '.zip':
    return {path.stem: path}
  return video.list_videos(path)


def _is_clip(given: str, clips: dict[str, Any]) -> bool:
  """Whether the path on the command line is a clip itself, not a folder that holds clips."""
  (path,) = clips.values()
  return str(path).rstrip('/') == str(pathlib.Path(given))


def _identity(path: pathlib.Path | zipfile.Path) -> list[Any]:
  if isinstance(path, zipfile.Path):
    return [path.at, *_identity(pathlib.Path(path.root.filename))]
  if '*' in path.name:
    files = sorted(path.parent.glob(path.name))
  else:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
  stats = [(os.fspath(file.resolve()), file.stat()) for file in files]
  return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
