"""Scalars from within a network, such as the size of its offsets, for the log.

Layers call `record`; a train step wraps the forward pass in `recording` and returns the scalars with its own. Without
`recording` nothing is computed. Both are decided while the step is traced.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp

_LISTENER: contextvars.ContextVar[dict[str, jax.Array] | None] = contextvars.ContextVar('listener', default=None)


def record(values: Callable[[], dict[str, jax.Array]]) -> None:
  """Add the scalars of `values()` to the step that records; a name ending in 'max' is a maximum, any other a mean."""
  listener = _LISTENER.get()
  if listener is not None:
    listener.update(jax.lax.stop_gradient(values()))


@contextlib.contextmanager
def recording() -> Iterator[dict[str, jax.Array]]:
  """Collect the scalars recorded by layers that run inside the block."""
  listener: dict[str, jax.Array] = {}
  token = _LISTENER.set(listener)
  try:
    yield listener
  finally:
    _LISTENER.reset(token)


def joined(records: Sequence[dict[str, jax.Array]]) -> dict[str, jax.Array]:
  """One record from those of several parts of a batch: the largest of maxima, the mean of all others."""
  over = {name: jnp.max if name.endswith('max') else jnp.mean for name in records[0]}
  return {name: over[name](jnp.stack([record[name] for record in records])) for name in records[0]}
