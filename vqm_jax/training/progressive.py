"""Progressive training: a network that grows from stage to stage (paper section 4.6, team BossGao).

An experiment lists its stages as parallel tuples, one entry each, the last being the network of the experiment itself:

    stage_names    what the stages are called
    stage_args     constructor arguments that differ from `system_args`
    stage_new      paths of the parameters that the stage adds to the one before, such as ('fusion', 'trunk/blocks')
    stage_shares   of `steps`
    stage_fields   other fields that differ in the stage, such as the records it is trained on; may be left empty

Every stage is an ordinary run, resumable at any point: all but the last in `<workdir>/stages/<name>`, the last in the
workdir itself, which `eval` and `enhance` then open like any other. A stage starts from the weights at the end of the
one before (moving average, if kept); old and new weights are trained together, optimiser and schedule start afresh.
The network's `ease_in` makes the grown network equal to its parent before the first update. `growth.json` in the
stage's folder lists the leaves that were copied and those that are new; anything unforeseen is an error.

The first stage starts from scratch or from `init_from`, whose weights may grow, too, if `stage_new` of the first stage
says by what.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import ml_collections
from absl import logging

from vqm_jax import checkpoints, errors, files, inference
from vqm_jax import config as configs
from vqm_jax import names as naming
from vqm_jax.training import loop

_FIELDS = ('stage_names', 'stage_args', 'stage_new', 'stage_shares')


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage: a config to train, where, and what it adds to the weights it starts from."""

  name: str
  config: Any
  workdir: pathlib.Path
  new: tuple[str, ...]


def stages(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Stage]:
  """The stages of a config, in order.

  Raises:
    ConfigError: the tuples do not fit each other.
  """
  lengths = {name: len(config[name]) for name in _FIELDS}
  if config.stage_fields:
    lengths |= {'stage_fields': len(config.stage_fields)}
  if len(set(lengths.values())) > 1:
    raise errors.ConfigError(f'The stages need one entry each in {", ".join(_FIELDS)}; found {lengths}.')
  unknown = {name for fields in config.stage_fields for name in fields if name not in config}
  if unknown:
    raise errors.ConfigError(f'config.stage_fields names {sorted(unknown)}, which the config does not have.')
  names, shares = list(config.stage_names), list(config.stage_shares)
  if len(set(names)) < len(names) or any(naming.problem(name) for name in names):
    raise errors.ConfigError(f'config.stage_names={names}: expected different names that can be folders.')
  if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
    raise errors.ConfigError(f'config.stage_shares={shares}: expected positive shares that add up to 1.')
  ends = [round(sum(shares[: k + 1]) * config.steps) for k in range(len(names))]
  out = []
  for k, name in enumerate(names):
    stage = config.copy_and_resolve_references()
    with stage.unlocked():
      stage.system_args.update(config.stage_args[k])
      stage.update(config.stage_fields[k] if config.stage_fields else {})
    stage.steps = ends[k] - (ends[k - 1] if k else 0)
    stage.seed = config.seed + k  # another order of samples
    for field in (*_FIELDS, 'stage_fields'):
      stage[field] = ()
    if k:
      stage.init_from = str(out[-1].workdir)
    folder = workdir if k == len(names) - 1 else workdir / 'stages' / name
    out.append(Stage(name, stage, folder, tuple(config.stage_new[k])))
  return out


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path, **options: Any) -> Any:
  """Train `config` with or without stages, or continue; return the last state.

  A stage whose successor has begun stays as it is, also when `steps` was raised. `options` are those of `loop.train`.
  """
  if not config.stage_names:
    return loop.train(config, workdir, **options)
  workdir = pathlib.Path(workdir).resolve()
  configs.check(config)
  todo = stages(config, workdir)
  for index, stage in enumerate(todo):
    if stage is not todo[-1] and checkpoints.steps(todo[index + 1].workdir / 'checkpoints'):
      logging.info('Stage %s is finished.', stage.name)
      continue
    logging.info(
      'Stage %s, %d of %d: %d steps in %s', stage.name, index + 1, len(todo), stage.config.steps, stage.workdir
    )
    grows = stage.config.init_from and stage.new

    def start(stage_config, trainer, stage=stage, grows=grows):
      return grown_params(stage, trainer) if grows else loop.init_params(stage_config, trainer)

    state = loop.train(stage.config, stage.workdir, start=start, stage_of=(workdir, config), **options)
    directory = stage.workdir / 'checkpoints'
    if checkpoints.read_meta(directory, checkpoints.steps(directory)[-1])['step'] < stage.config.steps:
      break  # asked to stop
  return state


def grown_params(stage: Stage, trainer: loop.Trainer) -> Any:
  """Return the parameters of a stage's network grown out of the run that it starts from.

  Writes `growth.json` into the stage's folder.

  Raises:
    ConfigError: the system cannot grow, or subtracts another `input_mean` than the run.
    CheckpointError: the run cannot be read or holds another network: leaves that do not fit, that are left over, or
      that are new and not foreseen by `stage_new`.
  """
  parent = pathlib.Path(stage.config.init_from)
  ease_in = getattr(trainer.abstract_network(), 'ease_in', None)
  if ease_in is None:
    raise errors.ConfigError(f'system={stage.config.system!r} does not know how to grow; train it in one piece.')
  loop.check_input_mean(stage.config, parent)
  arrays, step, ema = inference.load_params(parent, 'latest')
  params, report = checkpoints.warm_start(trainer.fresh(), arrays)

  def foreseen(leaf: str) -> bool:
    return any(f'{leaf}/'.startswith(f'{path}/') for path in stage.new)

  problems = report['misfit'] + report['unused'] + [leaf for leaf in report['new'] if not foreseen(leaf)]
  if problems or not report['new']:
    raise errors.CheckpointError(
      f'Stage {stage.name} cannot grow out of {parent}, step {step}: '
      + (f'{len(problems)} leaves do not fit, first {problems[0]}' if problems else 'it adds nothing to that network')
      + f'; expected the same network but for {", ".join(stage.new)}.'
    )
  logging.info(
    'Stage %s grows out of %s, step %d: %d leaves copied, %d new', stage.name, parent, step,
    len(report['copied']), len(report['new']),
  )  # fmt: skip
  if jax.process_index() == 0:
    record = {
      'parent': str(parent),
      'step': step,
      'part': 'ema' if ema else 'params',
      'copied': report['copied'],
      'new': report['new'],
    }
    files.write_json(stage.workdir / 'growth.json', record)
  return ease_in(params, report['new'])
