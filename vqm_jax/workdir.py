"""The folder of a run: what stands in its config.json and rollbacks.json, and whether a second start may continue it.

`checkpoints` has the weights in it, `summary` the scores.
"""

import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging

import vqm_jax
from vqm_jax import config as configs
from vqm_jax import errors, files, locks

ROLLBACK_FACTOR = 0.5  # of the learning rate, for every rollback

# Networks that subtract `input_mean` since version 0.2; before that all took frames as they are.
_SHIFTED = frozenset(('gtq', 'tcl_edvr', 'jojo', 'boss_f1', 'boss_f2', 'boss_f3', 'boss_f4'))


def read_config(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Reads the resolved config that `train` wrote to `workdir`. Raises CheckpointError when there is none."""
  return _read(workdir)['config']


def read_trained_on(workdir: str | pathlib.Path) -> dict[str, list[float]]:
  """Reads how strongly what the run saw was compressed, {'crf': [lowest, highest], 'qp': [...]}; {} if not noted.

  Errors as of `read_config`.
  """
  return _read(workdir).get('trained_on', {})


def read_strength_by_qp(workdir: str | pathlib.Path) -> list[list[float]]:
  """Reads which strength suits which QP, [[qp, strength], ...], as the run's first weights had it; [] if not noted.

  Errors as of `read_config`.
  """
  return _read(workdir).get('strength_by_qp', [])


def write_config(workdir: pathlib.Path, config: Mapping[str, Any], **more: Any) -> None:
  """Writes config.json: a resolved config, the version and the command that made it, and what is given beside."""
  content = {'config': dict(config), 'version': vqm_jax.__version__, 'command': sys.argv}
  files.write_json(workdir / 'config.json', content | more)


def _read(workdir: str | pathlib.Path) -> dict[str, Any]:
  path = pathlib.Path(workdir) / 'config.json'
  try:
    content = json.loads(path.read_text())
    return content | {'config': _as_it_was(content['config'], content.get('version', ''))}
  except FileNotFoundError as error:
    raise errors.CheckpointError(
      f'{workdir} is not a workdir: no config.json; train first, or check the path.'
    ) from error
  except (ValueError, KeyError) as error:
    raise errors.CheckpointError(f'{path} is damaged ({error}); expected the JSON that train writes.') from error


def _as_it_was(config: dict[str, Any], version: str) -> dict[str, Any]:
  """Adds what the version that wrote a config left unsaid because there was one way only."""
  if version.startswith('0.1.'):
    for system, args in [(config['system'], config['system_args']), *config['system_args'].get('members', ())]:
      if system in _SHIFTED:
        args.setdefault('input_mean', 0.0)
  return config


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict, **notes: Any) -> None:
  """Writes the resolved config to `workdir`, or checks that the run already there is this one.

  With it go `notes`: what the run is `trained_on`, and the `strength_by_qp` of the weights that it starts from.

  Raises:
    ConfigError: the folder holds a run with other defining fields (the differences are named), or other files.
    CheckpointError: its config.json is damaged.
  """
  wanted = configs.resolved(config)
  path = workdir / 'config.json'
  if path.exists():
    old, new = configs.flat(read_config(workdir)), configs.flat(wanted)
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    # A field that one of the versions does not have is no change; an argument of the network always is one.
    defining = [k for k in changed if k not in configs.OPERATION and ((k in old and k in new) or '.' in k)]
    if defining:
      diff = '; '.join(f'{k}: {old.get(k)!r} there, {new.get(k)!r} now' for k in defining)
      raise errors.ConfigError(
        f'{workdir} holds another run ({diff}). Choose another --workdir, or start from its weights with '
        f'--config.init_from={workdir}.'
      )
    for k in changed:
      logging.info('config.%s changed from %r to %r', k, old.get(k), new.get(k))
  elif workdir.exists() and any(path.name != locks.NAME for path in workdir.iterdir()):
    raise errors.ConfigError(f'{workdir} is neither empty nor a workdir (no config.json); choose another --workdir.')
  write_config(workdir, wanted, **notes)


def rollbacks(workdir: pathlib.Path) -> list[dict]:
  """Reads what `add_rollback` has written for this run, in order. Raises CheckpointError when the file is damaged."""
  path = workdir / 'rollbacks.json'
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    return []
  except ValueError as error:
    raise errors.CheckpointError(f'{path} is damaged ({error}); expected the JSON list that train writes.') from error


def add_rollback(
  workdir: pathlib.Path, past: list[dict], to_step: int, most: int, error: errors.DivergenceError
) -> list[dict]:
  """Writes down that the run goes back to `to_step` and why; returns all rollbacks, the new one last.

  Raises:
    DivergenceError: the run went back `most` times already.
  """
  if len(past) >= most:
    raise errors.DivergenceError(
      f'{error} It went back {len(past)} times already (config.max_rollbacks={most}). In a new workdir start by '
      f'--config.init_from={workdir} with less than {ROLLBACK_FACTOR ** len(past):g} of its --config.lr.'
    )
  factor = ROLLBACK_FACTOR ** (len(past) + 1)
  logging.error('%s Going back to step %d with %g of the learning rate.', error, to_step, factor)
  all_of_them = [*past, {'to_step': to_step, 'lr_factor': factor, 'reason': str(error)}]
  if jax.process_index() == 0:
    files.write_json(workdir / 'rollbacks.json', all_of_them)
  return all_of_them
