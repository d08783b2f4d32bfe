"""Opening a workdir: the network of a run with its trained weights."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vqm_jax import checkpoints, enhancers, errors, restorers
from vqm_jax import workdir as workdirs
from vqm_jax.config import OPERATION
from vqm_jax.layers.initializers import ParameterKeys

# Over so many QPs below those of a run's training its corrections fall to half.
_FADE_QP = 6.0
_LARGEST = 4096  # of numbers in system_args: channels, frames, blocks


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained network and where it came from.

  Attributes:
    network: the restorer or generator, weights in place.
    config: the run's resolved config as a plain dict; of weights that ship: system, system_args and dtype.
    workdir: the run's folder, or the file of weights that ship with the package.
    step: the checkpoint's step: finished updates of the network.
    checkpoint: the checkpoint's number, finished updates of all players; the same for restorers.
    ema: whether the weights are the exponential moving average.
    num_params: trainable scalars.
    training: what it took, for tables: hardware, seconds, extra_data, notes; None where it was not recorded.
    trained_on: how strongly what it was trained on was compressed, {'crf': [lowest, highest], 'qp': [...]}; what was
      not recorded is missing. QP is that of `video.compression`.
    strength_by_qp: (QP, strength) in rising order, between which strengths are interpolated; of weights that ship, and
      of runs that began with them.
  """

  network: nnx.Module
  config: dict
  workdir: pathlib.Path
  step: int
  checkpoint: int
  ema: bool
  num_params: int
  training: dict | None
  trained_on: dict[str, Sequence[float]] = dataclasses.field(default_factory=dict)
  strength_by_qp: Sequence[Sequence[float]] = ()

  def strength_at(self, qp: float | None) -> float:
    """The strength of the correction that suits input of this mean QP best; 1 where that is not known.

    Below the QPs that the run was trained on it falls to half: a network that began with other weights and has since
    seen strong compression alone corrects light compression too much.
    """
    if qp is None or not self.strength_by_qp:
      return 1.0
    qps, strengths = zip(*self.strength_by_qp, strict=True)
    lowest = self.trained_on.get('qp', [0.0])[0]
    trained = np.interp(qp, [lowest - _FADE_QP, lowest], [0.5, 1.0])
    return round(float(trained * np.interp(qp, qps, strengths)), 2)

  @property
  def experiment(self) -> str:
    """A name for what defines the run but for its seed: runs that share it differ by chance only."""
    defining = {key: value for key, value in self.config.items() if key not in OPERATION | {'seed'}}
    defining['steps'] = self.config.get('steps')
    return hashlib.sha256(json.dumps(defining, sort_keys=True).encode()).hexdigest()[:16]


def create_network(config: dict, seed: int = 0) -> nnx.Module:
  """Build the restorer or generator that a config describes, freshly initialised from `seed`."""
  create = enhancers.create_generator if config['system'] in enhancers.METHODS else restorers.create
  return create(config['system'], rngs=ParameterKeys(seed), dtype=jnp.dtype(config['dtype']), **config['system_args'])


def abstract_network(config: Mapping[str, Any]) -> tuple[nnx.GraphDef, nnx.State]:
  """The structure of the network that a config from a file describes, and the shapes of its parameters.

  Raises:
    ConfigError: unknown system, or arguments or a dtype that it does not take: constructors raise whatever they like.
  """
  try:
    _check_sizes(config['system_args'])
    return nnx.split(nnx.eval_shape(lambda: create_network(config)))
  except errors.VqmError:
    raise
  except Exception as error:
    raise errors.ConfigError(
      f'system={config["system"]!r:.60} cannot be built with its system_args and dtype ({errors.reason(error)}).'
    ) from error


def _check_sizes(args: Any) -> None:
  """Raises ConfigError for numbers that would keep a constructor busy for ever."""
  items = args.values() if isinstance(args, Mapping) else args if isinstance(args, list | tuple) else ()
  for item in items:
    if isinstance(item, int | float) and abs(item) > _LARGEST:
      raise errors.ConfigError(f'system_args: {item:.6g} is too large, expected at most {_LARGEST}.')
    _check_sizes(item)


def count_params(network: nnx.Module) -> int:
  """Return the number of trainable scalars, shared ones once."""
  return sum(p.size for p in checkpoints.flatten(nnx.to_pure_dict(nnx.state(network, nnx.Param))).values())


def read_workdir(
  workdir: str | pathlib.Path, step: int | str = 'best', ema: bool = True
) -> tuple[dict[str, np.ndarray], int, bool]:
  """Return the parameters of a run's network by path, their checkpoint, and whether they are the moving average.

  Of an enhancer those of the generator, its running statistics among them. Arguments and errors as of
  `open_workdir`.
  """
  directory = pathlib.Path(workdir) / 'checkpoints'
  config = workdirs.read_config(workdir, needs=('system', 'ema'))
  ema = ema and config['ema'] > 0
  step = checkpoints.select(directory, step)
  arrays = checkpoints.read_arrays(directory, step, 'ema' if ema else 'params')
  if config['system'] in enhancers.METHODS:
    found = checkpoints.read_arrays(directory, step, 'stats') | arrays
    # The average has running statistics of its own, since version 0.2.
    found |= {path.replace('stats/', 'generator/', 1): a for path, a in arrays.items() if path.startswith('stats/')}
    arrays = {path.removeprefix('generator/'): array for path, array in found.items() if path.startswith('generator/')}
  return arrays, step, ema


def open_workdir(workdir: str | pathlib.Path, step: int | str | None = None, ema: bool = True) -> Run:
  """Load the network of a run.

  Args:
    workdir: the folder given to `train`.
    step: a number, 'latest', or 'best' by validation PSNR (the default).
    ema: whether to take the moving average of the weights, when the run kept one.

  Raises:
    CheckpointError: no workdir, no such checkpoint, damaged, or not of this network.
  """
  workdir = pathlib.Path(workdir)
  config = workdirs.read_config(workdir, needs=('system', 'system_args', 'dtype', 'ema'))
  arrays, checkpoint, ema = read_workdir(workdir, 'best' if step is None else step, ema)
  # Built abstractly: published networks take seconds to initialise only to be overwritten.
  try:
    graphdef, abstract = abstract_network(config)
  except errors.ConfigError as error:
    raise errors.CheckpointError(f'{workdir / "config.json"}: {error}') from error
  params, report = checkpoints.warm_start(nnx.to_pure_dict(abstract), arrays)
  if report['new'] or report['misfit'] or report['unused']:
    problems = report['new'] + report['misfit'] + report['unused']
    raise errors.CheckpointError(
      f'Checkpoint {workdir / "checkpoints" / str(checkpoint)} does not fit the network of {workdir / "config.json"}: '
      f'{len(problems)} leaves differ, first {problems[0]}.'
    )
  network = nnx.merge(graphdef, params)
  meta = checkpoints.read_meta(workdir / 'checkpoints', checkpoint)
  training, trained_on = _training(config, meta), workdirs.read_trained_on(workdir)
  strengths, params = workdirs.read_strength_by_qp(workdir), count_params(network)
  return Run(network, config, workdir, meta['step'], checkpoint, ema, params, training, trained_on, strengths)


def _training(config: dict, meta: dict) -> dict | None:
  """Collect how the network was trained, for tables."""
  if 'seconds' not in meta:
    return None
  notes = []
  if source := config.get('init_from'):
    path = pathlib.Path(source)  # where it lies here is nothing to publish
    notes = [f'init_from={path.parents[1].name + "/" if path.parent.name == "checkpoints" else ""}{path.name}']
  if config['system'] in enhancers.METHODS and 'content_loss' in config['loss_args']:
    notes.append(f'content_loss={config["loss_args"]["content_loss"]}')
  hardware = ', then '.join(meta['hardware'])
  return {'hardware': hardware, 'seconds': meta['seconds'], 'extra_data': bool(config['mix_with']), 'notes': notes}
