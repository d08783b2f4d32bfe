"""Pixel losses: arrays in, scalar out, float32 inside.

Every loss takes `pred` and `target` of one shape (values around [0, 1]) and returns the mean over all elements.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vqm_jax import errors


def _difference(pred: jax.Array, target: jax.Array) -> jax.Array:
  if pred.shape != target.shape:
    raise ValueError(f'pred {pred.shape} and target {target.shape} must have the same shape.')
  return pred.astype(jnp.float32) - target.astype(jnp.float32)


def l1(pred: jax.Array, target: jax.Array) -> jax.Array:
  """mean |d|."""
  return jnp.abs(_difference(pred, target)).mean()


def l2(pred: jax.Array, target: jax.Array) -> jax.Array:
  """mean d^2, the loss that PSNR ranks by."""
  return jnp.square(_difference(pred, target)).mean()


def charbonnier(pred: jax.Array, target: jax.Array, eps: float = 1e-3) -> jax.Array:
  """mean sqrt(d^2 + eps^2), the smooth L1 of the EDVR family (Wang et al. 2019)."""
  return jnp.sqrt(jnp.square(_difference(pred, target)) + eps * eps).mean()


PIXEL_LOSSES = {'l1': l1, 'l2': l2, 'charbonnier': charbonnier}


def pixel_loss(name: str, **kwargs) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns the pixel loss `name` with `kwargs` bound. Raises ConfigError for an unknown name or argument."""
  if name not in PIXEL_LOSSES:
    raise errors.ConfigError(f'loss={name!r} is unknown; choose one of {sorted(PIXEL_LOSSES)}.')
  loss = PIXEL_LOSSES[name]
  try:
    loss(jnp.zeros(1), jnp.zeros(1), **kwargs)
  except TypeError as error:
    raise errors.ConfigError(f'loss_args does not fit loss={name!r}: {error}.') from error
  return lambda pred, target: loss(pred, target, **kwargs)
