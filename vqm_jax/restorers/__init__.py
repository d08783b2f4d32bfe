"""The restorers of Track 1, one file per team of the paper; `base.Restorer` says what a restorer is.

from flax import nnx
from vqm_jax import restorers
network = restorers.create('tcl_edvr', rngs=nnx.Rngs(0))   # published size, fresh weights
restored = network(clip)                                   # (B, 5, H, W, 3) in [0, 1] -> (B, H, W, 3)
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from vqm_jax import errors
from vqm_jax.layers.edvr import INPUT_MEAN
from vqm_jax.layers.initializers import ParameterKeys
from vqm_jax.restorers import bossgao, tcl
from vqm_jax.restorers.base import Restorer
from vqm_jax.restorers.ecnu import C2CNet
from vqm_jax.restorers.gil import GIL
from vqm_jax.restorers.gtq import GTQ
from vqm_jax.restorers.jojo_mvig import JOJO
from vqm_jax.restorers.mixture import Mixture
from vqm_jax.restorers.seventh import NoProcessing, SeventhStandIn

NETWORKS = {
  'gtq': GTQ,
  'ecnu': C2CNet,
  'gil': GIL,
  'tcl_edvr': tcl.TCLEDVR,
  'tcl_unet': tcl.TCLUNet,
  'jojo': JOJO,
  'boss_f1': functools.partial(bossgao.BossGao, **bossgao.FRAMEWORKS['boss_f1']),
  'boss_f2': functools.partial(bossgao.BossGao, **bossgao.FRAMEWORKS['boss_f2']),
  'boss_f3': functools.partial(bossgao.BossGao, **bossgao.FRAMEWORKS['boss_f3']),
  'boss_f4': functools.partial(bossgao.BossGao, **bossgao.FRAMEWORKS['boss_f4']),
  'seventh': SeventhStandIn,
  'none': NoProcessing,
}
# Those that subtract `input_mean` from their frames.
SHIFTED = ('gtq', 'tcl_edvr', 'jojo', 'boss_f1', 'boss_f2', 'boss_f3', 'boss_f4')
# Weighted means of networks that are trained apart; `mixture` is one of any members.
MIXTURES = {'tcl': tcl.MEMBERS, 'boss': bossgao.MEMBERS, 'mixture': ()}


def create(name: str, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32, **overrides) -> Restorer:
  """Build the restorer `name` at its published size, freshly initialised.

  Args:
    name: a key of `NETWORKS` or `MIXTURES`.
    rngs: for the parameters; every call draws one key of `nnx.Rngs`.
    dtype: compute dtype; parameters stay float32.
    **overrides: constructor arguments. Those of a mixture are `members`, pairs of (system, its arguments), and
      `weights`.

  Raises:
    ConfigError: unknown name or argument.
  """
  known = NETWORKS | MIXTURES
  if name not in known:
    raise errors.ConfigError(
      f'system={name!r} is unknown; {errors.did_you_mean(name, known)}choose one of {sorted(known)}.'
    )
  if isinstance(rngs, nnx.Rngs):
    rngs = ParameterKeys(rngs)  # deep networks are made in a second instead of twenty
  build = functools.partial(_mix, MIXTURES[name]) if name in MIXTURES else NETWORKS[name]
  try:
    return build(**overrides, dtype=dtype, rngs=rngs)
  except TypeError as error:
    raise errors.ConfigError(f'system_args does not fit system={name!r}: {error}.') from error


def input_means(name: str, args: Mapping[str, Any]) -> dict[str, float]:
  """Return what a network subtracts from its frames, by the path of the part that does: {'': 0.5}, {'members/0': 0.0}.

  Args:
    name: a system; one that is none of ours, such as an enhancer, subtracts nothing.
    args: its constructor arguments.
  """
  if name in SHIFTED:
    return {'': args.get('input_mean', INPUT_MEAN)}
  if name not in MIXTURES:
    return {}
  members = args.get('members') or [(system, {}) for system in MIXTURES[name]]
  return {
    f'members/{k}/{path}'.rstrip('/'): mean
    for k, (system, its) in enumerate(members)
    for path, mean in input_means(system, its).items()
  }


def _mix(
  published: Sequence[str],
  members: Sequence[tuple[str, dict]] = (),
  weights: Sequence[float] | None = None,
  *,
  dtype: jnp.dtype,
  rngs: nnx.Rngs,
) -> Mixture:
  members = members or [(system, {}) for system in published]
  if not members:
    raise errors.ConfigError('system_args.members of a mixture is empty; `vqm_jax.combine` makes mixtures.')
  try:
    return Mixture([create(system, dtype=dtype, rngs=rngs, **args) for system, args in members], weights)
  except ValueError as error:
    raise errors.ConfigError(f'system_args of the mixture: {error}') from error
