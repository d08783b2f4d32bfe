"""Draws figures of evaluated results into a folder: what `python -m vqm_jax.report.figures` does."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from vqm_jax import cli, errors, files, metrics, pictures
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.figures import plots

# Those that need the frames of an evaluation, and all.
PIXELS = ('profile', 'comparison', 'errors')
KINDS = (*PIXELS, 'frames', 'training', 'tradeoff')


def draw(
  results: Sequence[str | os.PathLike],
  out: str | os.PathLike,
  *,
  kinds: Sequence[str] | None = None,
  split: str = 'test',
  clips: Sequence[str] = (),
  frame: int | None = None,
  column: str | int = 'auto',
  crops: str = 'auto',
  seed: int = 0,
) -> list[pathlib.Path]:
  """Draw figures of results on one test set.

  Args:
    results: summaries, folders of scores and workdirs.
    out: folder for the figures: PNG, plots also SVG, captions in .txt, the crops in crops.json.
    kinds: which of KINDS; None draws all that the results allow, and warns of the others.
    split: which results of a workdir.
    clips: names, or ['all']; by default pictures are of the first and curves of all.
    frame: index of the frame of comparison and errors; None for the middle one.
    column: of profile: 'auto', where the target moves most, or x in pixels.
    crops: 'auto', 'auto:N' (N of both kinds), or 'x,y,size;x,y,size;...' in pixels.
    seed: of the random crops.

  Returns:
    The files that were written.

  Raises:
    ConfigError: an unknown kind or clip, or a frame, column or crop that is none.
    DataError: results are missing, damaged or not of one test set, frames were not kept, or a figure of `kinds` cannot
      be drawn from these results.
  """
  if unknown := [kind for kind in kinds or [] if kind not in KINDS]:
    raise errors.ConfigError(f'--kinds: {unknown[0]!r} is unknown; choose from {", ".join(KINDS)}.')
  demanded, kinds = bool(kinds), kinds or KINDS
  out = pathlib.Path(out)
  block, raw = saved_frames.read_results([os.fspath(result) for result in results], split)
  clips = saved_frames.choose_clips(block, clips)
  if 'errors' in kinds and not block.aligned:
    if demanded:
      raise errors.DataError(
        f'{block.results[0].paths[0]}: targets are of another camera and not aligned, so that there are no errors to '
        'draw; leave errors out of --kinds.'
      )
    kinds = [kind for kind in kinds if kind != 'errors']
  written, record = [], {}

  def save(name: str, picture: np.ndarray, caption: str) -> None:
    path = out / f'{name}.png'
    pictures.save_png(path, picture)
    written.extend([path, _caption(out, name, caption)])

  if set(kinds) & set(PIXELS):
    try:
      saved = saved_frames.SavedFrames(block, raw)
    except errors.DataError as error:
      others = ','.join(kind for kind in KINDS if kind not in PIXELS)
      raise errors.DataError(f'{error} Without frames there are --kinds={others}.') from error
    shown = clips or list(block.clips[:1])
    saved.check(shown)
    for clip in cli.progress(shown, desc='drawn', unit='clip'):
      index = saved_frames.choose_frame(saved, clip, frame)
      if 'profile' in kinds:
        save(f'profile_{clip}', *panels.profiles(saved, clip, str(column)))
      if 'comparison' in kinds:
        picture, caption, record[clip] = panels.comparison(saved, block, clip, index, crops, seed)
        save(f'comparison_{clip}', picture, caption)
      if 'errors' in kinds:
        save(f'errors_{clip}', *panels.error_maps(saved, block, clip, index))
    if record:
      files.write_json(out / 'crops.json', record)
      written.append(out / 'crops.json')

  curves = {'frames': lambda: _frames(block, raw, clips)}
  curves |= {'training': lambda: _training(block), 'tradeoff': lambda: _tradeoff(block)}
  for kind in (kind for kind in kinds if kind in curves):
    try:
      figure, caption = curves[kind]()
    except plots.Unavailable as error:
      if demanded:
        raise
      logging.warning('No figure %s: %s', kind, error)
      continue
    written += [*plots.save(out / kind, figure), _caption(out, kind, caption)]
  return written


def _caption(out: pathlib.Path, name: str, text: str) -> pathlib.Path:
  path = out / f'{name}.txt'
  files.write_text(path, text + '\n')
  return path


def _frames(block, raw, clips):
  name, curves = plots.along_frames(block, raw, clips or block.clips)
  caption = f'{metrics.label(name)} of every scored frame ({block.dataset}, {block.split}).'
  caption += ' Frames that equal their targets are left out.' if name.startswith('psnr') else ''
  return plots.frames(name, curves), caption


def _training(block):
  found = plots.runs(block.results)
  caption = 'Validation score and training loss over the steps.'
  if any(len(curves) > 1 for run in found for curves in run.curves.values()):
    caption += ' Several seeds of one experiment: mean and one sample standard deviation.'
  if len({run.loss for run in found}) > 1:
    caption += f' Losses differ and do not compare: {", ".join(f"{run.label}: {run.loss}" for run in found)}.'
  if staged := [run.label for run in found if run.staged]:
    caption += f' Of {", ".join(staged)}, which grew in stages, the last stage.'
  if lost := set(saved_frames.short_labels(block.results)) - {run.label for run in found}:
    caption += f' Without a run of their own: {", ".join(sorted(lost))}.'
  return plots.training(found), caption


def _tradeoff(block):
  own = plots.points(block)
  sizes = {result.method: result.timing for result in block.results if result.timing}
  caption = f'Gain in PSNR over no processing ({block.dataset}, {block.split}) against cost. Seconds per frame: '
  caption += '; '.join(
    f'{method} on {timing["device"] or "an unknown device"}'
    + (f', {timing["frame_size"][1]}x{timing["frame_size"][0]}' if timing['frame_size'] else '')
    for method, timing in sizes.items()
  )
  caption += ' not measured.' if not sizes else '.'
  caption += (
    " The paper's teams (grey) were measured on the same test set, each on hardware of its own."
    if block.original
    else " The paper's teams had other videos and timed themselves on hardware of their own: not comparable."
  )
  return plots.tradeoff(own, block.original), caption
