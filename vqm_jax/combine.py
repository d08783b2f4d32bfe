"""Joins trained runs into one network, their weighted mean, in a workdir of its own.

  python -m vqm_jax.combine --members=runs/tcl_edvr,runs/tcl_unet --workdir=runs/tcl --grid_search
  python -m vqm_jax.combine --members=runs/boss_f1,runs/boss_f3,runs/boss_f4 --workdir=runs/boss

--grid_search finds the weight of two members on whole training videos that were held out when the data was built
(--holdout of vqm_jax.prepare.build); otherwise give --weights, or all weigh the same. eval and enhance open the new
workdir like any other. combination.json in it says what was joined.
"""

import dataclasses
import functools
import pathlib

from absl import flags, logging

from vqm_jax import cli, data, errors, inference, locks
from vqm_jax.inference import mixing

_MEMBERS = flags.DEFINE_list('members', [], 'Workdirs of the runs to join, with commas.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the mix; must not exist unless --overwrite.')
_WEIGHTS = flags.DEFINE_list('weights', None, 'One number for each member; equal ones by default.')
_GRID_SEARCH = flags.DEFINE_bool('grid_search', False, 'Search the weight of two members on --split.')
_SPLIT = flags.DEFINE_string('split', 'holdout', 'Split of the frames config to search on.')
_FRAMES = flags.DEFINE_integer('frames', 20, 'Evenly spaced frames of each clip to search on.', lower_bound=1)
_DATASET = flags.DEFINE_string('dataset', None, "Data set to search on, by default the first member's.")
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Where data sets are, by default the first member's data_dir.")
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint of every member: best, latest, or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving averages of the weights where the runs kept them.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace an existing mix.')


def search(runs: list[inference.Run]) -> mixing.Search:
  """Grid search of the weight of two runs on clips that were held out."""
  config = runs[0].config
  data_dir = _DATA_DIR.value or config['data_dir'] or None
  try:
    source = data.open_source(_DATASET.value or config['dataset'], config['val_config'], _SPLIT.value, data_dir)
  except errors.DataError as error:
    raise errors.DataError(
      f'{error} The search wants training videos that no member saw: build the data with --holdout=3, or name another '
      'split with --split.'
    ) from error
  progress = functools.partial(cli.progress, desc='grid search', unit='clip')
  triples = mixing.holdout_outputs(mixing.mixture(runs, [0.5, 0.5]), data.ClipReader(source), _FRAMES.value, progress)
  return mixing.grid_search(triples)


def _weights(count: int) -> list[float]:
  if _WEIGHTS.value is None:
    return [1 / count] * count
  try:
    weights = [float(weight) for weight in _WEIGHTS.value]
  except ValueError:
    raise errors.ConfigError(f'--weights={",".join(_WEIGHTS.value)} should be numbers with commas between.') from None
  if len(weights) != count:
    raise errors.ConfigError(f'--weights has {len(weights)} numbers for {count} members; give one for each.')
  if abs(sum(weights) - 1) > 1e-3:
    raise errors.ConfigError(f'--weights={",".join(_WEIGHTS.value)} add up to {sum(weights):g}, expected 1.')
  return weights


def main(argv: list[str]) -> None:
  del argv
  members = [pathlib.Path(member).resolve() for member in _MEMBERS.value]
  for flag, given in (('members', members), ('workdir', _WORKDIR.value)):
    if not given:
      raise errors.ConfigError(f'--{flag} is required; see --help.')
  if len(set(members)) < max(2, len(members)):
    raise errors.ConfigError(f'--members={",".join(_MEMBERS.value)}: expected two or more different workdirs.')
  if _GRID_SEARCH.value and (len(members) != 2 or _WEIGHTS.value):
    raise errors.ConfigError('--grid_search finds the weight of exactly two members, without --weights.')
  weights = _weights(len(members))
  workdir = pathlib.Path(_WORKDIR.value).resolve()
  if workdir.exists() and not ((workdir / 'combination.json').exists() and _OVERWRITE.value):
    raise errors.ConfigError(f'{workdir} exists; choose another --workdir, or --overwrite if it is an older mix.')
  # Beside the folder, which appears when it is complete.
  with locks.beside(workdir):
    _combine(members, weights, workdir)


def _combine(members, weights, workdir) -> None:
  cli.enable_compilation_cache()
  runs = [inference.open_run(member, _STEP.value, _EMA.value) for member in members]
  for run in runs:
    logging.info(
      '%s: %s, step %d, %.2f M parameters', run.workdir, run.config['system'], run.step, run.num_params / 1e6
    )
  notes = {}
  if _GRID_SEARCH.value:
    found = search(runs)
    weights = [found.beta, 1 - found.beta]
    notes = {'grid_search': {'split': _SPLIT.value, **dataclasses.asdict(found)}}
    alone = {beta: psnr for beta, psnr in zip(found.betas, found.psnr, strict=True) if beta in (0.0, 1.0)}
    print(
      f'beta = {found.beta:.2f}: {max(found.psnr):.3f} dB on {found.frames} frames of {_SPLIT.value}; '
      f'{members[0].name} alone {alone[1.0]:.3f} dB, {members[1].name} alone {alone[0.0]:.3f} dB'
    )
  mixing.write(runs, weights, workdir, notes)
  print(workdir)


if __name__ == '__main__':
  cli.run(main)
