"""The cost of a restorer or generator: parameters, and multiply-adds of one frame, counted without running it.

Counted are convolutions and matrix products of the program as it is traced, at every output position, the taps that
fall on zero padding included. Elementwise work is left out: activations, attention, resizing, the bilinear reads of
deformable convolutions, the reassembly of CARAFE. A multiply-add is two floating-point operations.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from vqm_jax import enhancers, restorers
from vqm_jax.inference.run import count_params
from vqm_jax.layers.initializers import ParameterKeys

# Primitives that run the program they hold once.
_CALLS = ('jit', 'closed_call', 'custom_jvp_call', 'custom_vjp_call', 'remat2')


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one system.

  Attributes:
    params: trainable scalars, shared ones once.
    window: frames that it looks at to restore one.
    size_multiple: what frame sizes are padded to.
    unit_frames: of a reusable unit of work.
    macs_naive: multiply-adds of one restored frame when its whole window is computed.
    macs_cached: the same in a stream, where one new unit is encoded and the others are at hand.
  """

  params: int
  window: int
  size_multiple: int
  unit_frames: int
  macs_naive: int
  macs_cached: int


def describe(system: str, height: int = 1080, width: int = 1920, system_args: Mapping[str, Any] | None = None) -> Cost:
  """Counts for a system, on frames of `height` x `width` padded as `inference.restore_frames` pads them.

  Nothing is allocated or computed. `system_args` are those of `restorers.create` or `enhancers.create_generator`, whose
  errors are raised. Of a recurrent generator it is one step; of a mixture the sum of its members.
  """
  args = dict(system_args or {})
  network = _abstract(system, **args) if args else _published(system)
  height, width = (size + -size % network.size_multiple for size in (height, width))
  if system in restorers.MIXTURES:
    members = args.get('members') or [(name, {}) for name in restorers.MIXTURES[system]]
    parts = [describe(name, height, width, its) for name, its in members]
    naive, cached = (sum(getattr(part, field) for part in parts) for field in ('macs_naive', 'macs_cached'))
  else:
    naive, cached = _macs(network, height, width) if args else _published_macs(system, height, width)
  recurrent = isinstance(network, enhancers.RecurrentGenerator)
  return Cost(
    params=count_params(network),
    window=1 if recurrent else network.num_frames,
    size_multiple=network.size_multiple,
    unit_frames=1 if recurrent else network.unit_frames,
    macs_naive=naive,
    macs_cached=cached,
  )


def _abstract(system: str, **args: Any) -> nnx.Module:
  create = enhancers.create_generator if system in enhancers.METHODS else restorers.create
  return nnx.eval_shape(lambda: create(system, rngs=ParameterKeys(0), **args))


# Kept, because tracing takes seconds and the members of mixtures are systems, too.
@functools.lru_cache(maxsize=32)
def _published(system: str) -> nnx.Module:
  return _abstract(system)


@functools.lru_cache(maxsize=32)
def _published_macs(system: str, height: int, width: int) -> tuple[int, int]:
  return _macs(_published(system), height, width)


def _macs(network: nnx.Module, height: int, width: int) -> tuple[int, int]:
  """The multiply-adds of a padded frame, naive and cached."""
  graphdef, state = nnx.split(network)

  def frames(count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, count, height, width, 3), jnp.float32)

  if isinstance(network, enhancers.RecurrentGenerator):

    def step(state, frame):
      generator = nnx.merge(graphdef, state)
      return generator.step(generator.init_carry(frame), frame)

    once = macs(step, state, jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32))
    return once, once

  def call(state, clip):
    return nnx.merge(graphdef, state)(clip)

  def encode(state, unit):
    return nnx.merge(graphdef, state).encode(unit)

  def restore(state, features):
    return nnx.merge(graphdef, state).restore(features)

  unit, units = frames(network.unit_frames), network.num_frames - network.unit_frames + 1
  features = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, units, *x.shape[1:]), x.dtype), jax.eval_shape(encode, state, unit)
  )
  naive = macs(call, state, frames(network.num_frames))
  return naive, macs(encode, state, unit) + macs(restore, state, features)


def describe_all(
  height: int = 1080, width: int = 1920, progress: Callable[[Sequence], Iterable] = iter
) -> dict[str, Cost]:
  """`describe` for every system by name, and for GIL's released wiring; `progress` wraps the list of them."""
  mixtures = [name for name, members in restorers.MIXTURES.items() if members]
  systems = [(name, name, {}) for name in [*restorers.NETWORKS, *mixtures]]
  systems += [(name, name, {}) for name in enhancers.METHODS]
  systems.append(('gil, share_stages=False', 'gil', {'share_stages': False}))
  return {label: describe(name, height, width, args) for label, name, args in progress(systems)}


def macs(function: Callable[..., Any], *abstract_args: Any) -> int:
  """Count the multiply-adds of the convolutions and matrix products in `function(*abstract_args)`.

  A scan counts as often as it runs, a branch as its dearest case, a mapped program on all its devices together. Where
  CPUs have a form of their own, the other one counts.

  Args:
    function: of pytrees of arrays; traced, not run.
    *abstract_args: arrays or `jax.ShapeDtypeStruct`s.

  Raises:
    ValueError: convolutions or matrix products where it is unknown how often they run, as in a while loop.
  """
  return _count(jax.make_jaxpr(function)(*abstract_args).jaxpr)


def _count(program: core.Jaxpr) -> int:
  total = 0
  for equation in program.eqns:
    name, params = equation.primitive.name, equation.params
    inner = [_count(held) for held in _programs(list(params.values()))]
    if name == 'conv_general_dilated':
      # The kernel holds the input channels of one feature group: what every output value sums over.
      kernel = equation.invars[1].aval
      sums = math.prod(kernel.shape) // kernel.shape[params['dimension_numbers'].rhs_spec[0]]
      total += equation.outvars[0].aval.size * sums
    elif name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      total += equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
    elif name in _CALLS:
      total += sum(inner)
    elif name == 'scan':
      total += params['length'] * sum(inner)
    elif name == 'cond':
      total += inner[-1] if params.get('branches_platforms') else max(inner)
    elif name == 'shard_map':
      total += math.prod(params['mesh'].shape[axis] for axis in params['newly_manual_axes']) * sum(inner)
    elif any(inner):
      raise ValueError(f'{name} holds convolutions or matrix products; how often they run cannot be told.')
  return total


def _programs(value: Any) -> Iterator[core.Jaxpr]:
  """The programs in the parameters of a primitive."""
  if isinstance(value, core.ClosedJaxpr):
    yield value.jaxpr
  elif isinstance(value, core.Jaxpr):
    yield value
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _programs(item)
