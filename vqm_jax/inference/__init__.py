"""Trained networks on frames: opening runs, streaming, evaluating clips.

`load(workdir)` gives a network for notebooks, as does `load(name)` of weights that ship with the package (`shipped`);
`restore_frames(network, frames)` restores a whole clip.
"""

from vqm_jax.inference.excerpts import restore_at
from vqm_jax.inference.opening import (
  check_weights,
  load,
  load_params,
  open_run,
  read_config,
  read_strength_by_qp,
  shipped_name,
)
from vqm_jax.inference.resuming import Read, restore_from
from vqm_jax.inference.run import Run, count_params, create_network
from vqm_jax.inference.shipped import open_weights
from vqm_jax.inference.streaming import (
  check_strength,
  known_cuts,
  parse_tile,
  reflect_index,
  restore_frames,
  sees_several,
  stream_frames,
)

__all__ = [
  'Read',
  'Run',
  'check_strength',
  'check_weights',
  'count_params',
  'create_network',
  'known_cuts',
  'load',
  'open_run',
  'open_weights',
  'parse_tile',
  'read_config',
  'load_params',
  'read_strength_by_qp',
  'reflect_index',
  'restore_at',
  'restore_frames',
  'restore_from',
  'sees_several',
  'shipped_name',
  'stream_frames',
]
