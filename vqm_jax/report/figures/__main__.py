"""Draws the paper's figures, and those of our own, from evaluated results.

Example: python -m vqm_jax.report.figures --results=runs/ecnu,runs/gil --out=figures/ --clips=076
         python -m vqm_jax.report.figures --results=runs/ecnu --out=figures/ --crops='40,60,64;500,200,64'

  profile     Figs. 10, 12: one column of pixels of every frame, side by side
  comparison  Figs. 9, 11: a frame and crops of it, where methods differ most and at random (crops.json)
  errors      the absolute error of every method
  frames      PSNR along the frames of each clip
  training    validation score and loss over the steps
  tradeoff    gain against seconds per frame and parameters

Results are those of report.tables, all of one test set. The first three need frames that vqm_jax.eval kept with
--save_frames. Every figure has a .txt with its caption; plots are PNG and SVG.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags, logging

from vqm_jax import cli, errors, files, metrics, pictures
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.figures import plots

PIXELS = ('profile', 'comparison', 'errors')
KINDS = (*PIXELS, 'frames', 'training', 'tradeoff')

_RESULTS = flags.DEFINE_list('results', None, 'Summaries, folders of scores and workdirs, with commas.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the figures.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Which results of a workdir.')
_CLIPS = flags.DEFINE_list('clips', None, 'Clips, or all; by default pictures of the first, curves of all.')
_FRAME = flags.DEFINE_integer('frame', None, 'Frame of comparison and errors, by default the middle one.')
_COLUMN = flags.DEFINE_string('column', 'auto', 'Column of profile: auto (where the target moves most), or x.')
_CROPS = flags.DEFINE_string('crops', 'auto', 'Crops: auto, auto:N (N of both kinds), or x,y,size;x,y,size;...')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the random crops.')
_KINDS = flags.DEFINE_list('kinds', None, 'Which figures; by default all that the results allow.')


def draw(out: pathlib.Path, paths: Sequence[str], kinds: Sequence[str], demanded: bool) -> list[pathlib.Path]:
  """Draws figures into `out`; returns the files. What results do not allow is left out, unless it was `demanded`."""
  block, raw = saved_frames.read_results(paths, _SPLIT.value)
  clips = saved_frames.choose_clips(block, _CLIPS.value or [])
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
      index = saved_frames.choose_frame(saved, clip, _FRAME.value)
      if 'profile' in kinds:
        save(f'profile_{clip}', *panels.profiles(saved, clip, _COLUMN.value))
      if 'comparison' in kinds:
        picture, caption, record[clip] = panels.comparison(saved, block, clip, index, _CROPS.value, _SEED.value)
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


def main(argv: list[str]) -> None:
  del argv
  if not _RESULTS.value or not _OUT.value:
    raise errors.ConfigError('--results and --out are required; see --help.')
  if unknown := [kind for kind in _KINDS.value or [] if kind not in KINDS]:
    raise errors.ConfigError(f'--kinds: {unknown[0]!r} is unknown; choose from {", ".join(KINDS)}.')
  print(*draw(pathlib.Path(_OUT.value), _RESULTS.value, _KINDS.value or KINDS, bool(_KINDS.value)), sep='\n')


if __name__ == '__main__':
  cli.run(main)
