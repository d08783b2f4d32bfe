"""The enhancers of Track 2, one file per method of the paper; `base` says what an enhancer is.

from flax import nnx
from vqm_jax import enhancers
generator = enhancers.create_generator('wespe', rngs=nnx.Rngs(0))                  # what is deployed, fresh weights
players = enhancers.create('dpe', {}, patch=512, rngs=nnx.Rngs(0))                 # what is trained
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from vqm_jax import errors
from vqm_jax.enhancers import dacal, dpe, wespe
from vqm_jax.enhancers.base import Enhancer, FrameGenerator, Frozen, RecurrentGenerator
from vqm_jax.layers.initializers import ParameterKeys

# (generator, players) of each method.
METHODS = {
  'wespe': (wespe.Generator, wespe.WESPE),
  'dpe': (dpe.Generator, dpe.DPE),
  'dacal': (dacal.Generator, dacal.DACAL),
}


def create_generator(
  name: str, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32, **overrides
) -> FrameGenerator | RecurrentGenerator:
  """Build the generator of `name`, a key of METHODS, at its published size, freshly initialised.

  Args:
    name: which.
    rngs: for the parameters; every call draws one key of `nnx.Rngs`.
    dtype: compute dtype; parameters stay float32.
    **overrides: constructor arguments.

  Raises:
    ConfigError: an argument does not fit.
  """
  if isinstance(rngs, nnx.Rngs):
    rngs = ParameterKeys(rngs)  # faster to trace and to compile
  try:
    return METHODS[name][0](**overrides, dtype=dtype, rngs=rngs)
  except TypeError as error:
    raise errors.ConfigError(f'system_args does not fit system={name!r}: {error}.') from error


def create(
  name: str,
  generator_args: dict[str, Any],
  *,
  patch: int,
  rngs: nnx.Rngs,
  dtype: jnp.dtype = jnp.float32,
  axis_name: str | None = None,
  **loss_args,
) -> Enhancer:
  """Build all players of `name` for crops of `patch` pixels a side, freshly initialised.

  Args:
    name: a key of METHODS.
    generator_args: constructor arguments of the generator.
    patch: side of the training crops.
    rngs: for the parameters; every call draws one key of `nnx.Rngs`.
    dtype: compute dtype; parameters stay float32.
    axis_name: mesh axis over which batch statistics are taken together.
    **loss_args: what the method leaves to choose: weights of its losses, sizes of its critics.

  Raises:
    ConfigError: an argument does not fit.
    MissingWeightsError: a loss needs weights from elsewhere that are not there.
  """
  # By itself first: whose argument it is that does not fit cannot be told afterwards.
  nnx.eval_shape(lambda: create_generator(name, rngs=ParameterKeys(0), dtype=dtype, **generator_args))
  try:
    return METHODS[name][1](generator_args, patch=patch, axis_name=axis_name, dtype=dtype, rngs=rngs, **loss_args)
  except TypeError as error:
    raise errors.ConfigError(f'loss_args does not fit system={name!r}: {error}.') from error


__all__ = [
  'METHODS', 'Enhancer', 'FrameGenerator', 'Frozen', 'RecurrentGenerator', 'create', 'create_generator',
]  # fmt: skip
