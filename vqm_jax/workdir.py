"""The folder of a run: what its config.json, rollbacks.json and metrics.jsonl hold, and whether a run may go on there.

`checkpoints` has the weights in it, `summary` the scores.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import logging

import vqm_jax
from vqm_jax import config as configs
from vqm_jax import errors, files, locks, schemas

ROLLBACK_FACTOR = 0.5  # of the learning rate, for every rollback

# Networks that subtract `input_mean` since version 0.2; before that all took frames as they are.
_SHIFTED = frozenset(('gtq', 'tcl_edvr', 'jojo', 'boss_f1', 'boss_f2', 'boss_f3', 'boss_f4'))


@dataclasses.dataclass(frozen=True)
class _Written:
  """The content of `config.json`."""

  FOREIGN = True  # of later versions

  config: dict[str, Any]
  version: str = ''
  trained_on: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
  strength_by_qp: list[tuple[float, float]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Rollback:
  to_step: schemas.Count
  lr_factor: float
  reason: str


@dataclasses.dataclass(frozen=True)
class _Line:
  FOREIGN = True  # the values, by names with a slash

  step: schemas.Count


class Record(NamedTuple):
  """A line of metrics.jsonl: as it stands, without its end; the step; the values, 'group/name', of that step."""

  line: bytes
  step: int
  values: dict[str, float]


def read_config(workdir: str | pathlib.Path, needs: Sequence[str] = ('system', 'system_args')) -> dict[str, Any]:
  """Read the resolved config that `train` wrote to `workdir`, its fields held to their types.

  Args:
    workdir: the folder of a run.
    needs: fields that have to be there; other versions may lack any.

  Raises:
    CheckpointError: there is none, or it is damaged.
  """
  config = _read(workdir).config
  if lost := [name for name in needs if config.get(name) is None]:
    raise errors.CheckpointError(
      f'{pathlib.Path(workdir) / "config.json"} is damaged (config.{lost[0]}: expected a value, found none); '
      'bring it back from a copy.'
    )
  return config


def read_trained_on(workdir: str | pathlib.Path) -> dict[str, list[float]]:
  """Read how strongly what the run saw was compressed, {'crf': [lowest, highest], 'qp': [...]}; {} if not noted.

  Raises:
    CheckpointError: config.json is missing or damaged.
  """
  return {kind: list(bounds) for kind, bounds in _read(workdir).trained_on.items()}


def read_strength_by_qp(workdir: str | pathlib.Path) -> list[list[float]]:
  """Read which strength suits which QP, [[qp, strength], ...], as the run's first weights had it; [] if not noted.

  Raises:
    CheckpointError: config.json is missing or damaged.
  """
  return [list(pair) for pair in _read(workdir).strength_by_qp]


def write_config(workdir: pathlib.Path, config: Mapping[str, Any], **more: Any) -> None:
  """Write config.json: a resolved config, the version and the command that made it, and what is given beside."""
  content = {'config': dict(config), 'version': vqm_jax.__version__, 'command': sys.argv}
  files.write_json(workdir / 'config.json', content | more)


def _read(workdir: str | pathlib.Path) -> _Written:
  path = pathlib.Path(workdir) / 'config.json'
  try:
    written = schemas.load(path, _Written, paths=True)
    configs.check_types(written.config)
    return dataclasses.replace(written, config=_as_it_was(written.config, written.version))
  except FileNotFoundError as error:
    raise errors.CheckpointError(
      f'{workdir} is not a workdir: no config.json; train first, or check the path.'
    ) from error
  except schemas.Misfit as error:
    raise errors.CheckpointError(f'{path} is damaged ({error}); bring it back from a copy.') from error


def _as_it_was(config: dict[str, Any], version: str) -> dict[str, Any]:
  """Add what the version that wrote a config left unsaid because there was one way only."""
  if version.startswith('0.1.'):
    if config.get('system_args') is None:
      config['system_args'] = {}
    of_all = config['system_args']
    members = of_all.get('members') or []
    schemas.check(members, list[tuple[str, dict[str, Any]]], 'config.system_args.members')
    for system, args in [(config.get('system'), of_all), *members]:
      if system in _SHIFTED:
        args.setdefault('input_mean', 0.0)
  return config


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict, **notes: Any) -> None:
  """Write the resolved config to `workdir`, or check that the run already there is this one.

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
  """Read what `add_rollback` has written for this run, in order. Raises CheckpointError when the file is damaged."""
  path = workdir / 'rollbacks.json'
  try:
    return [dataclasses.asdict(rollback) for rollback in schemas.load(path, list[_Rollback])]
  except FileNotFoundError:
    return []
  except schemas.Misfit as error:
    raise errors.CheckpointError(
      f'{path} is damaged ({error}); expected the list of rollbacks that train writes: without it the learning rate '
      'would be another. Bring it back from a copy.'
    ) from error


def add_rollback(
  workdir: pathlib.Path, past: list[dict], to_step: int, most: int, error: errors.DivergenceError
) -> list[dict]:
  """Write down that the run goes back to `to_step` and why; return all rollbacks, the new one last.

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


def read_metrics(workdir: pathlib.Path) -> tuple[list[Record], str]:
  """Read metrics.jsonl, what training wrote down of its steps, line by line; nothing where there is no such file.

  Returns:
    The records, and what is wrong with a damaged last line, which a kill or a full disk leaves: it is left out.

  Raises:
    DataError: a line before the last one is damaged.
  """
  path = workdir / 'metrics.jsonl'
  try:
    lines, cut = schemas.load_lines(path, _values)
  except FileNotFoundError:
    return [], ''
  except schemas.Misfit as error:
    raise errors.DataError(f'{path}: {error}; remove it.') from error
  return [Record(line, *found) for line, found in lines], cut


def _values(content: Any) -> tuple[int, dict[str, float]]:
  step = schemas.check(content, _Line).step
  return step, schemas.check({name: value for name, value in content.items() if '/' in name}, dict[str, float])
