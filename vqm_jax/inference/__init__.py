"""Trained networks on frames: opening runs, streaming, evaluating clips.

`load(workdir)` gives a network for notebooks; `restore_frames(network, frames)` restores a whole clip.
"""

from vqm_jax.inference.excerpts import restore_at
from vqm_jax.inference.run import (
  OPERATION,
  Run,
  count_params,
  create_network,
  load,
  open_run,
  read_config,
  read_params,
)
from vqm_jax.inference.streaming import (
  check_strength,
  parse_tile,
  reflect_index,
  restore_frames,
  stream_frames,
)

__all__ = [
  'OPERATION',
  'Run',
  'check_strength',
  'count_params',
  'create_network',
  'load',
  'open_run',
  'parse_tile',
  'read_config',
  'read_params',
  'reflect_index',
  'restore_at',
  'restore_frames',
  'stream_frames',
]
