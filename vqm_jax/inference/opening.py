"""Opening trained networks by the folder of a run or by the name of weights that ship with the package.

A folder that holds a config.json goes before weights of the same name; the log says which of the two was taken.
"""

import pathlib

import numpy as np
from absl import logging
from flax import nnx

from vqm_jax import checkpoints, errors
from vqm_jax import workdir as workdirs
from vqm_jax.inference import run as runs
from vqm_jax.inference import shipped
from vqm_jax.inference.run import Run


def shipped_name(workdir: str | pathlib.Path) -> str | None:
  """The name of the weights that `workdir` stands for; None where it is, or should be, the folder of a run.

  Raises:
    CheckpointError: it is neither and could be both; lists the names.
  """
  text = str(workdir)
  if not _bare(text) or (pathlib.Path(text) / 'config.json').is_file():
    return None
  if text in shipped.names():
    return text
  raise errors.CheckpointError(
    f'{text} is not a workdir: no config.json; train first, or check the path. It is no name of weights, either: '
    f'{shipped.choices(text)}'
  )


def check_weights(workdir: str | None, weights: str | None, step: int | str = 'best', ema: bool = True) -> None:
  """Look at the flags --workdir, --weights, --step and --ema together, before any work is done.

  Raises:
    ConfigError: --weights beside flags that it excludes, or an unknown name; lists the names.
    CheckpointError: the index of the weights that ship is missing or damaged.
  """
  if not weights:
    return
  if workdir:
    raise errors.ConfigError(f'--workdir={workdir} and --weights={weights} exclude each other; leave one of them out.')
  if step != 'best' or not ema:
    given = f'--step={step}' if step != 'best' else '--noema'
    raise errors.ConfigError(f'{given} chooses among what a --workdir holds; leave it out with --weights={weights}.')
  shipped.describe(weights)


def open_run(workdir: str | pathlib.Path, step: int | str | None = None, ema: bool = True) -> Run:
  """Load the network of a run, or weights that ship with the package.

  Args:
    workdir: the folder given to `train`, or a name of `shipped.names`.
    step: a number, 'latest', or 'best' by validation PSNR (the default). Weights that ship are of one step.
    ema: whether to take the moving average of the weights, when the run kept one.

  Raises:
    CheckpointError: no workdir and no such name, no such checkpoint, damaged, or not of this network.
  """
  name = shipped_name(workdir)
  _say(workdir, name)
  return runs.open_workdir(workdir, step, ema) if name is None else _open_shipped(name, step, ema)


def load(workdir: str | pathlib.Path, step: int | str | None = None, ema: bool = True) -> nnx.Module:
  """Return the network of a run with its trained weights, ready to call: clip (B, T, H, W, 3) -> (B, H, W, 3).

  Args:
    workdir: the folder given to `train`, or the name of weights that ship.
    step: a number, 'latest', or 'best' by validation PSNR (the default). Weights that ship are of one step.
    ema: whether to take the moving average, where there is one.

  Raises:
    CheckpointError: no workdir and no such name, no such checkpoint, damaged, or not of this network.
  """
  return open_run(workdir, step, ema).network


def read_config(workdir: str | pathlib.Path) -> dict:
  """Return the resolved config that `train` wrote to `workdir`, or system and system_args of weights that ship.

  Raises:
    CheckpointError: there is neither.
  """
  name = shipped_name(workdir)
  if name is None:
    return workdirs.read_config(workdir)
  entry = shipped.describe(name)
  return {'system': entry.system, 'system_args': entry.system_args}


def read_strength_by_qp(source: str | pathlib.Path) -> list[list[float]]:
  """Read which strength suits which QP, [[qp, strength], ...], of what `config.init_from` may be; [] if not known."""
  source = pathlib.Path(source)
  workdir = source.parent.parent if source.parent.name == 'checkpoints' else source
  name = shipped_name(workdir)
  if name is None:
    return workdirs.read_strength_by_qp(workdir)
  return [list(pair) for pair in shipped.describe(name).strength_by_qp]


def load_params(
  workdir: str | pathlib.Path, step: int | str = 'best', ema: bool = True
) -> tuple[dict[str, np.ndarray], int, bool]:
  """Return the parameters of a network by path, their checkpoint, and whether they are the moving average.

  Of an enhancer those of the generator, its running statistics among them.

  Args:
    workdir: the folder given to `train`, or the name of weights that ship.
    step: a number, 'latest', or 'best' by validation PSNR.
    ema: whether to take the moving average, where there is one.

  Raises:
    CheckpointError: no workdir and no such name, no such checkpoint, or damaged.
  """
  name = shipped_name(workdir)
  _say(workdir, name)
  if name is None:
    return runs.read_workdir(workdir, step, ema)
  run = _open_shipped(name, step, ema)
  arrays = checkpoints.flatten(nnx.to_pure_dict(nnx.state(run.network)))
  return {path: np.asarray(array) for path, array in arrays.items()}, run.step, run.ema


def _bare(text: str) -> bool:
  """Whether it names no folder but perhaps one right here."""
  return pathlib.Path(text).name == text


def _open_shipped(name: str, step: int | str | None, ema: bool) -> Run:
  run = shipped.open_weights(name)
  if step not in (None, 'best', 'latest', run.step, str(run.step)):
    raise errors.CheckpointError(f'No checkpoint of step {step} in {run.workdir}; it holds step {run.step} alone.')
  if run.ema and not ema:
    raise errors.CheckpointError(f'{run.workdir} holds the moving average of the weights alone; leave out --noema.')
  return run


def _say(workdir: str | pathlib.Path, name: str | None) -> None:
  if name is not None:
    logging.info('%s: weights that ship with the package; no folder of this name is a workdir', name)
  elif _bare(str(workdir)) and shipped.has_file(str(workdir)):
    logging.warning('%s: the workdir of this name, not the weights that ship with the package', workdir)
