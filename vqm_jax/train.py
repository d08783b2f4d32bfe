"""Trains a restorer, or continues a run.

  python -m vqm_jax.train --config=ecnu:tiny --workdir=runs/ecnu_tiny

An experiment is a file with get_config(), given by its path or, as one of experiments/, by its name. Any field can be
set: --config.batch_size=8 --config.lr=1e-4 --config.system_args.num_blocks=16. Starting the same command again resumes.
Ctrl-C or SIGTERM saves first. The workdir holds config.json, checkpoints/, metrics.jsonl, TensorBoard events and sample
pictures.
"""

import pathlib

import jax
from absl import flags

from vqm_jax import cli, errors
from vqm_jax.training import progressive

_CONFIG = cli.define_experiment('config', 'Experiment, e.g. ecnu, ecnu:tiny or experiments/ecnu.py.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; made if absent, resumed if it holds this run.')
_PROFILE = flags.DEFINE_string('profile_steps', None, 'first:last step of a profiler trace, e.g. 10:15.')
_WANDB = flags.DEFINE_string('wandb_project', None, 'Also log to this Weights & Biases project (extra [wandb]).')
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'One of several processes: call jax.distributed.initialize (Slurm, TPU pods: found by itself).',
)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'host:port of process 0, where no cluster tells it.')
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Number of processes, with --coordinator.')
_PROCESS = flags.DEFINE_integer('process_id', None, 'Number of this process from 0, with --coordinator.')


def _profile_steps(text: str | None) -> tuple[int, int] | None:
  if text is None:
    return None
  try:
    first, last = map(int, text.split(':'))
  except ValueError:
    raise errors.ConfigError(f'--profile_steps={text} should be first:last, e.g. 10:15.') from None
  if not 0 < first <= last:
    raise errors.ConfigError(f'--profile_steps={text}: the first step must be at least 1 and not after the last.')
  return first, last


def main(argv: list[str]) -> None:
  del argv
  for flag in (_CONFIG, _WORKDIR):
    if not flag.value:
      raise errors.ConfigError(f'--{flag.name} is required; see --help.')
  profile_steps = _profile_steps(_PROFILE.value)
  cli.enable_compilation_cache()
  if _DISTRIBUTED.value or _COORDINATOR.value:
    jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  progressive.train(
    _CONFIG.value,
    pathlib.Path(_WORKDIR.value),
    profile_steps=profile_steps,
    wandb_project=_WANDB.value,
  )


if __name__ == '__main__':
  cli.run(main)
