"""Networks under test, without the minutes that initialising and running them operation by operation would take."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vqm_jax import checkpoints

# In the place of nnx.Rngs where the drawn values do not matter; counting keys makes tracing of deep networks slow.
_ANY_KEYS = types.SimpleNamespace(params=lambda: jax.random.key(0))


def shapes(build) -> nnx.Module:
  """The module that `build(rngs=...)` makes, with shapes in the place of its parameters."""
  return nnx.eval_shape(lambda: build(rngs=_ANY_KEYS))


def count(build) -> int:
  """How many parameters it has."""
  return sum(p.size for p in jax.tree.leaves(nnx.state(shapes(build), nnx.Param)))


def random(build, seed=0) -> nnx.Module:
  """The same with noise in every parameter, those that start at zero too, of a size that keeps features near one."""
  graphdef, state = nnx.split(shapes(build))
  rng = np.random.default_rng(seed)

  def noise(p):
    scale = np.prod(p.shape[:-1]) ** -0.5 if p.ndim == 4 else 0.1
    return jnp.asarray(rng.normal(scale=scale, size=p.shape).astype(p.dtype))

  return nnx.merge(graphdef, jax.tree.map(noise, state))


def silence(module) -> None:
  """Sets every parameter of a module to zero."""
  nnx.update(module, jax.tree.map(jnp.zeros_like, nnx.state(module)))


# `jax.jit` for large programs that run a few times: the usual one spends many times longer on compiling them.
quick_jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


@functools.partial(quick_jit, static_argnums=0)
def _apply(graphdef, state, inputs):
  return nnx.merge(graphdef, state)(*inputs)


def apply(network, *inputs):
  """network(*inputs), compiled once for networks of one structure."""
  return _apply(*nnx.split(network), inputs)


def call(function, network, *inputs):
  """function(network, *inputs), compiled each time: for what a network is compared with."""
  graphdef, state = nnx.split(network)
  return quick_jit(lambda state, inputs: function(nnx.merge(graphdef, state), *inputs))(state, inputs)


@functools.partial(quick_jit, static_argnums=0)
def _gradients(graphdef, state, inputs):
  return jax.grad(lambda s: jnp.square(nnx.merge(graphdef, s)(*inputs)).mean())(state)


def gradients(network, *inputs):
  """The state of gradients of the mean squared output, compiled as by `apply`."""
  return _gradients(*nnx.split(network), inputs)


def by_path(state):
  """{'a/b/0/kernel': array}"""
  return checkpoints.flatten(nnx.to_pure_dict(state))
