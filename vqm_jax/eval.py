"""Scores a trained run, or any folders or videos, over whole clips; describes the systems.

Example: python -m vqm_jax.eval --workdir=runs/ecnu --split=test
         python -m vqm_jax.eval --weights=web-small --dataset=mine --data_dir=data/ --out=scores/web-small/
         python -m vqm_jax.eval --pred_dir=restored/ --gt_dir=originals/ [--lq_dir=inputs/]
         python -m vqm_jax.eval --pred_dir=A=one/,B=other/ --gt_dir=originals/ --metrics=auto,tof --out=scores/
         python -m vqm_jax.eval --describe

A run's results go to <workdir>/eval/<split>: table.md, table.csv, clips.csv, frames.csv, summary.json, pictures/; those
of weights that ship with the package to <out>/eval/<split>. Started again, it goes on with the clips and metrics that
are not there yet; --part=0/4, --part=1/4, ... share the clips between processes. Folders are scored, and systems
described (parameters and multiply-adds beside the paper's figures), to the terminal, and into --out when given.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

from absl import flags

from vqm_jax import cli, errors, evaluation, inference, metrics, names
from vqm_jax.evaluation.choice import FRECHET
from vqm_jax.inference import cost
from vqm_jax.report import describe

_WORKDIR = flags.DEFINE_string('workdir', None, 'Run to evaluate.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights that ship with the package, by name, in place of --workdir.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Split of the frames config.')
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint: best (by validation PSNR), latest, or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving average of the weights when the run kept one.')
_DATASET = flags.DEFINE_string('dataset', None, "Data set, or NAME/FRAMES_CONFIG, by default the run's own.")
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Where data sets are, by default the run's own data_dir.")
_SELF_ENSEMBLE = flags.DEFINE_integer('self_ensemble', 1, '8 averages over flips and transposes.')
_TILE = flags.DEFINE_string(
  'tile', None, 'Work in tiles, e.g. 512 or 540x960, where whole frames need too much memory.'
)
_OVERLAP = flags.DEFINE_integer('overlap', 64, 'Pixels that a tile sees around itself.')
_CUTS = flags.DEFINE_bool(
  'cuts', True, 'Keep windows of several frames within the scenes, whose cuts the records know.'
)
_BASELINES = flags.DEFINE_bool('baselines', False, 'Add rows for simple filters.')
_SAVE_FRAMES = flags.DEFINE_bool('save_frames', False, 'Keep the restored frames, inputs and targets as PNG.')
_PRED_DIR = flags.DEFINE_list(
  'pred_dir', None, 'Outputs to score: a video, or a folder of frames or clips; several as NAME=PATH,NAME=PATH.'
)
_GT_DIR = flags.DEFINE_string('gt_dir', None, 'Their targets.')
_LQ_DIR = flags.DEFINE_string('lq_dir', None, 'Their unprocessed inputs, for the gain.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the scores of --pred_dir or --weights, or the table of --describe.')
_DESCRIBE = flags.DEFINE_bool('describe', False, 'Print what every system is and costs; needs nothing else.')
_PROTOCOL = flags.DEFINE_enum('protocol', 'ntire', list(metrics.PROTOCOLS), 'How the table scores frames.')
_METRICS = flags.DEFINE_list(
  'metrics',
  ['auto'],
  f'What to measure: auto (PSNR and SSIM, or what suits unaligned cameras), {", ".join(metrics.NAMES)}, {FRECHET}.',
)
_PERCEPTUAL_DIR = flags.DEFINE_string('perceptual_dir', None, 'Folder of converted weights for LPIPS.')
_ALIGNED = flags.DEFINE_bool(
  'aligned', True, 'Whether targets show the inputs pixel by pixel; with --noaligned they are of another camera.'
)
_FRAMES = flags.DEFINE_string('frames', 'all', 'Frames to score: all, or every:10 (the 10th, 20th, ...).')
_PART = flags.DEFINE_string(
  'part', None, 'Score the i-th of n shares of the clips, such as 0/4; whoever comes last makes the table. i from 0.'
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Score everything again.')


def describe_systems(height: int = 1080, width: int = 1920) -> None:
  """Print parameters and cost of every system beside the paper's."""
  costs = cost.describe_all(height, width, functools.partial(cli.progress, desc='described', unit='system'))
  table = describe.rows({label: dataclasses.asdict(found) for label, found in costs.items()})
  print(describe.markdown(table, describe.notes(height, width)))
  if _OUT.value:
    print(*describe.write(pathlib.Path(_OUT.value), table, height, width), sep='\n')


def _methods(given: list[str]) -> dict[str, str]:
  """{name: path} of --pred_dir; the name of a single path is the path."""
  named = [text.partition('=') for text in given]
  if len(named) == 1:
    name, _, path = named[0]
    return {name: path or name}
  methods = {name: path for name, _, path in named}
  if len(methods) < len(named) or not all(path and not names.problem(name) for name, path in methods.items()):
    raise errors.ConfigError(
      f'--pred_dir={",".join(given)}: expected NAME=PATH,NAME=PATH with different names that can be folders.'
    )
  return methods


def _every(frames: str) -> int:
  if frames == 'all':
    return 1
  kind, _, number = frames.partition(':')
  if kind != 'every' or not number.isdecimal() or int(number) < 1:
    raise errors.ConfigError(f'--frames={frames} is not all or every:N, for example every:10.')
  return int(number)


def main(_: Sequence[str]) -> None:
  every = _every(_FRAMES.value)
  tasks = [bool(_WORKDIR.value or _WEIGHTS.value), bool(_PRED_DIR.value or _GT_DIR.value), _DESCRIBE.value]
  if sum(tasks) != 1 or bool(_PRED_DIR.value) != bool(_GT_DIR.value):
    raise errors.ConfigError('Give one of --workdir, --weights, --pred_dir with --gt_dir, and --describe.')
  if _DESCRIBE.value:
    describe_systems()
    return
  part = cli.parse_part(_PART.value)
  if _PART.value and _PRED_DIR.value:
    raise errors.ConfigError(f'--part={_PART.value}: shares the clips that --workdir or --weights restores.')
  inference.check_weights(_WORKDIR.value, _WEIGHTS.value, _STEP.value, _EMA.value)
  how = {
    'metrics': _METRICS.value, 'protocol': _PROTOCOL.value, 'every': every, 'aligned': _ALIGNED.value,
    'perceptual_dir': _PERCEPTUAL_DIR.value, 'overwrite': _OVERWRITE.value,
    'progress': functools.partial(cli.progress, desc='evaluated', unit='frame'),
  }  # fmt: skip
  cli.enable_compilation_cache()
  if _PRED_DIR.value:
    found = evaluation.evaluate_folders(_methods(_PRED_DIR.value), _GT_DIR.value, _LQ_DIR.value, _OUT.value, **how)
  else:
    weights = _WEIGHTS.value or inference.shipped_name(_WORKDIR.value)
    run = inference.open_weights(weights) if weights else inference.open_run(_WORKDIR.value, _STEP.value, _EMA.value)
    found = evaluation.evaluate_run(
      run, _OUT.value if weights else None, split=_SPLIT.value, dataset=_DATASET.value, data_dir=_DATA_DIR.value,
      self_ensemble=_SELF_ENSEMBLE.value, tile=inference.parse_tile(_TILE.value), overlap=_OVERLAP.value,
      cuts=_CUTS.value, baselines=_BASELINES.value, save_frames=_SAVE_FRAMES.value, part=part, **how,
    )  # fmt: skip
  if found.missing:
    listed, more = ', '.join(found.missing[:4]), ' ...' if len(found.missing) > 4 else ''
    print(f'Part {_PART.value} is scored, {len(found.missing)} clips of other parts are missing: {listed}{more}')
    return
  print(found.table)
  print(*found.files, sep='\n')


if __name__ == '__main__':
  cli.run(main)
