"""Opening a workdir: the network of a run with its trained weights."""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vqm_jax import checkpoints, errors, restorers
from vqm_jax.layers.initializers import ParameterKeys


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained network and where it came from.

  Attributes:
    network: the restorer, weights in place.
    config: the run's resolved config as a plain dict.
    workdir: the run's folder.
    step: the checkpoint's step.
    ema: whether the weights are the exponential moving average.
    num_params: trainable scalars.
  """

  network: nnx.Module
  config: dict
  workdir: pathlib.Path
  step: int
  ema: bool
  num_params: int


def read_config(workdir: str | pathlib.Path) -> dict:
  """Returns the resolved config that `train` wrote to `workdir`. Raises CheckpointError when there is none."""
  path = pathlib.Path(workdir) / 'config.json'
  try:
    return json.loads(path.read_text())['config']
  except FileNotFoundError as error:
    raise errors.CheckpointError(
      f'{workdir} is not a workdir: no config.json; train first, or check the path.'
    ) from error
  except (ValueError, KeyError) as error:
    raise errors.CheckpointError(f'{path} is damaged ({error}); expected the JSON that train writes.') from error


def create_network(config: dict, seed: int = 0) -> nnx.Module:
  """Builds the restorer that a config describes, freshly initialised from `seed`."""
  return restorers.create(
    config['system'], rngs=ParameterKeys(seed), dtype=jnp.dtype(config['dtype']), **config['system_args']
  )


def count_params(network: nnx.Module) -> int:
  """Returns the number of trainable scalars, shared ones once."""
  return sum(p.size for p in checkpoints.flatten(nnx.to_pure_dict(nnx.state(network, nnx.Param))).values())


def read_params(
  workdir: str | pathlib.Path, step: int | str = 'best', ema: bool = True
) -> tuple[dict[str, np.ndarray], int, bool]:
  """Returns a run's parameters by path, the step they are of, and whether they are the moving average.

  Arguments and errors as of `open_run`.
  """
  directory = pathlib.Path(workdir) / 'checkpoints'
  ema = ema and read_config(workdir)['ema'] > 0
  step = checkpoints.select(directory, step)
  return checkpoints.read_arrays(directory, step, 'ema' if ema else 'params'), step, ema


def open_run(workdir: str | pathlib.Path, step: int | str | None = None, ema: bool = True) -> Run:
  """Loads the network of a run.

  Args:
    workdir: the folder given to `train`.
    step: a number, 'latest', or 'best' by validation PSNR (the default).
    ema: whether to take the moving average of the weights, when the run kept one.

  Raises:
    CheckpointError: no workdir, no such checkpoint, damaged, or not of this network.
  """
  workdir = pathlib.Path(workdir)
  config = read_config(workdir)
  arrays, step, ema = read_params(workdir, 'best' if step is None else step, ema)
  # Built abstractly: published networks take seconds to initialise only to be overwritten.
  graphdef, abstract = nnx.split(nnx.eval_shape(lambda: create_network(config)))
  params, report = checkpoints.warm_start(nnx.to_pure_dict(abstract), arrays)
  if report['new'] or report['misfit'] or report['unused']:
    problems = report['new'] + report['misfit'] + report['unused']
    raise errors.CheckpointError(
      f'Checkpoint {workdir / "checkpoints" / str(step)} does not fit the network of {workdir / "config.json"}: '
      f'{len(problems)} leaves differ, first {problems[0]}.'
    )
  network = nnx.merge(graphdef, params)
  return Run(network, config, workdir, step, ema, count_params(network))


def load(workdir: str | pathlib.Path, step: int | str | None = None, ema: bool = True) -> nnx.Module:
  """Returns the network of a run with its trained weights, ready to call: clip (B, T, H, W, 3) -> (B, H, W, 3).

  Same arguments and errors as `open_run`.
  """
  return open_run(workdir, step, ema).network
