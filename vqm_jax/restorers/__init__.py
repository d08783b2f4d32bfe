"""The restorers of Track 1, one file per system of the paper.

A restorer is an `nnx.Module` whose instances know

    num_frames      the odd temporal window it looks at (1: single frame)
    size_multiple   frame height and width must be multiples of it (inference pads and crops)
    unit_frames     how many consecutive frames one reusable unit of work needs

and that has three methods with `__call__(clip) == restore(encode of every unit)` exactly:

    __call__(clip (B, num_frames, H, W, 3))    -> restored centre frame (B, H, W, 3)
    encode(frames (B, unit_frames, H, W, 3))   -> features of one unit, a pytree of (B, ...) arrays
    restore(features)                          -> restored centre frame; leaves are (B, units, ...), in frame order

Frames are RGB float32 in [0, 1]; outputs are not clipped.
"""

from flax import nnx

from vqm_jax import errors
from vqm_jax.restorers.baselines import NoProcessing
from vqm_jax.restorers.ecnu import C2CNet

NETWORKS = {'ecnu': C2CNet, 'none': NoProcessing}


def create(name: str, *, rngs: nnx.Rngs, **overrides) -> nnx.Module:
  """Builds the restorer `name` at its published size; `overrides` are constructor arguments.

  Raises:
    ConfigError: unknown name or argument.
  """
  if name not in NETWORKS:
    raise errors.ConfigError(f'system={name!r} is unknown; choose one of {sorted(NETWORKS)}.')
  try:
    return NETWORKS[name](**overrides, rngs=rngs)
  except TypeError as error:
    raise errors.ConfigError(f'system_args does not fit system={name!r}: {error}.') from error
