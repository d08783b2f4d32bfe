"""The run's folder: who it belongs to, and when a second start may continue it."""

import json
import pathlib
import sys

import jax
from absl import logging

import vqm_jax
from vqm_jax import errors, files, inference

ROLLBACK_FACTOR = 0.5  # of the learning rate, for every rollback


def flat(config: dict, prefix: str = '') -> dict:
  """Returns {'lr': 0.0002, 'system_args.width': 64, ...} of nested dicts."""
  out = {}
  for key, value in config.items():
    out.update(flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value})
  return out


def resolved(config) -> dict:
  """Returns a config as the plain dict that JSON gives back (tuples as lists)."""
  return json.loads(config.to_json())


def check(config) -> None:
  """Checks the ranges of the shared fields. Raises ConfigError naming the field."""
  for name in (
    'batch_size',
    'grad_accum',
    'steps',
    'crop',
    'num_frames',
    'log_every',
    'save_every',
    'eval_every',
    'keep_last',
  ):
    if config[name] < 1:
      raise errors.ConfigError(f'config.{name}={config[name]} must be at least 1.')
  if config.batch_size % config.grad_accum:
    raise errors.ConfigError(
      f'config.grad_accum={config.grad_accum} does not divide config.batch_size={config.batch_size}.'
    )
  for name in ('ema', 'warmup'):
    if not 0 <= config[name] < 1:
      raise errors.ConfigError(f'config.{name}={config[name]} must be in [0, 1).')
  if config.on_divergence not in ('stop', 'rollback'):
    raise errors.ConfigError(f"config.on_divergence={config.on_divergence!r} must be 'stop' or 'rollback'.")
  if config.dtype not in ('float32', 'bfloat16'):
    raise errors.ConfigError(f"config.dtype={config.dtype!r} must be 'float32' or 'bfloat16'.")


def claim(workdir: pathlib.Path, config, trained_on: dict[str, list[float]] | None = None) -> None:
  """Writes the resolved config to `workdir`, or checks that the run already there is this one.

  With it goes what the run is `trained_on`, as `data.trained_on`.

  Raises:
    ConfigError: the folder holds a run with other defining fields (the differences are named), or other files.
    CheckpointError: its config.json is damaged.
  """
  wanted = resolved(config)
  path = workdir / 'config.json'
  if path.exists():
    old, new = flat(inference.read_config(workdir)), flat(wanted)
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    # A field that an earlier version did not have is no change; an argument of the network always is one.
    defining = [k for k in changed if k not in inference.OPERATION and (k in old or '.' in k)]
    if defining:
      diff = '; '.join(f'{k}: {old.get(k)!r} there, {new.get(k)!r} now' for k in defining)
      raise errors.ConfigError(
        f'{workdir} holds another run ({diff}). Choose another --workdir, or start from its weights with '
        f'--config.init_from={workdir}.'
      )
    for k in changed:
      logging.info('config.%s changed from %r to %r', k, old.get(k), new.get(k))
  elif workdir.exists() and any(workdir.iterdir()):
    raise errors.ConfigError(f'{workdir} is neither empty nor a workdir (no config.json); choose another --workdir.')
  content = {'config': wanted, 'version': vqm_jax.__version__, 'command': sys.argv, 'trained_on': trained_on or {}}
  files.write_json(path, content)


def rollbacks(workdir: pathlib.Path) -> list[dict]:
  """What `add_rollback` has written down for this run, in order. Raises CheckpointError when the file is damaged."""
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
    raise errors.DivergenceError(f'{error} It went back {len(past)} times already (config.max_rollbacks={most}).')
  factor = ROLLBACK_FACTOR ** (len(past) + 1)
  logging.error('%s Going back to step %d with %g of the learning rate.', error, to_step, factor)
  all_of_them = [*past, {'to_step': to_step, 'lr_factor': factor, 'reason': str(error)}]
  if jax.process_index() == 0:
    files.write_json(workdir / 'rollbacks.json', all_of_them)
  return all_of_them
