"""Losses that several systems share: arrays in, scalar out, float32 inside.

The pixel losses take `pred` and `target` of one shape (values around [0, 1]) and return the mean over all elements.
"""

import dataclasses
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


def rmse(pred: jax.Array, target: jax.Array, eps: float = 1e-3) -> jax.Array:
  """Mean over samples, the first axis, of sqrt(mean d^2 + eps^2).

  Within a sample as `l2`; between samples a badly compressed one does not outweigh the others as it does there, while
  PSNR counts the same relative gain on each alike.
  """
  d = _difference(pred, target)
  return jnp.sqrt(jnp.square(d).mean(axis=range(1, d.ndim)) + eps * eps).mean()


PIXEL_LOSSES = {'l1': l1, 'l2': l2, 'charbonnier': charbonnier, 'rmse': rmse}


def pixel_loss(name: str, **kwargs) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Return the pixel loss `name` with `kwargs` bound. Raises ConfigError for an unknown name or argument."""
  if name not in PIXEL_LOSSES:
    raise errors.ConfigError(f'loss={name!r} is unknown; choose one of {sorted(PIXEL_LOSSES)}.')
  loss = PIXEL_LOSSES[name]
  try:
    loss(jnp.zeros(1), jnp.zeros(1), **kwargs)
  except TypeError as error:
    raise errors.ConfigError(f'loss_args does not fit loss={name!r}: {error}.') from error
  return lambda pred, target: loss(pred, target, **kwargs)


def total_variation(images: jax.Array) -> jax.Array:
  """mean (difference of vertical neighbours)^2 + mean (of horizontal ones)^2, each over its own count.

  (..., H, W, C), H and W at least 2. As in DPED and WESPE (Ignatov et al. 2017, 2018).
  """
  vertical = images[..., 1:, :, :] - images[..., :-1, :, :]
  horizontal = images[..., :, 1:, :] - images[..., :, :-1, :]
  return jnp.square(vertical).mean() + jnp.square(horizontal).mean()


PENALTIES = ('one_sided', 'two_sided', 'zero')


def gradient_penalty(
  critic: Callable[[jax.Array], jax.Array], real: jax.Array, fake: jax.Array, keys: jax.Array, kind: str = 'one_sided'
) -> jax.Array:
  """How far the critic's slope is from what a Wasserstein critic may have, between real and generated images.

  At x = real + u (fake - real), one u in [0, 1] for each sample, n is the norm of the critic's gradient over the whole
  image:

    one_sided   mean max(0, n - 1), linear       DPE (Chen et al. 2018), DACAL
    two_sided   mean (n - 1)^2                   WGAN-GP (Gulrajani et al. 2017)
    zero        mean ((1 - u) n)^2               sliced Wasserstein generative models (Wu et al. 2019)

  Differentiable with respect to the critic's parameters: never detach it.

  Args:
    critic: images (B, H, W, C) -> (B,); a sample's value must depend on this sample alone.
    real, fake: (B, H, W, C) float32.
    keys: (B,) random keys, one for each sample.
    kind: one of PENALTIES.

  Raises:
    ConfigError: unknown kind.
  """
  if kind not in PENALTIES:
    raise errors.ConfigError(f'penalty={kind!r} is unknown; choose one of {", ".join(PENALTIES)}.')
  u = jax.vmap(jax.random.uniform)(keys).astype(jnp.float32)
  between = real + u.reshape(-1, 1, 1, 1) * (fake - real)
  gradient = jax.grad(lambda x: critic(x).sum())(between)
  norm = jnp.sqrt(jnp.square(gradient).sum((1, 2, 3)) + 1e-12)  # the root has no second derivative at 0
  if kind == 'one_sided':
    return jax.nn.relu(norm - 1).mean()
  return jnp.square(norm - 1 if kind == 'two_sided' else (1 - u) * norm).mean()


@dataclasses.dataclass(frozen=True)
class AdaptiveWeight:
  """The weight of a critic's `one_sided` penalty, steered so that the penalty stays within bounds (DPE's A-WGAN).

  A moving average of the unweighted penalty is compared with the bounds after every critic update; beyond them the
  weight is doubled or halved, and for `cooldown` updates it then stays. The average is corrected for its start at 0
  and needs `cooldown` values. Start, factor of the average, upper bound, doubling and cooldown are those of DPE's
  released configuration, which never lowers the weight (`allow_decrease=False`); the lower bound is the paper's.

  The state is a dict of scalars: weight, mean, count, cooldown. A new weight counts from the next update on.
  """

  start: float = 10.0
  lower: float = 0.001
  upper: float = 0.05
  decay: float = 0.99
  cooldown: int = 50
  allow_decrease: bool = True
  least: float = 1e-3
  most: float = 1e6

  def init(self) -> dict[str, jax.Array]:
    """Return the state before the first critic update."""
    zero = jnp.zeros((), jnp.int32)
    return {'weight': jnp.float32(self.start), 'mean': jnp.float32(0), 'count': zero, 'cooldown': zero}

  def update(self, state: dict[str, jax.Array], penalty: jax.Array) -> dict[str, jax.Array]:
    """Return the state after a critic update that saw this unweighted penalty, the mean over the whole batch."""
    count = state['count'] + 1
    mean = self.decay * state['mean'] + (1 - self.decay) * penalty
    unbiased = mean / (1 - self.decay ** count.astype(jnp.float32)) if self.allow_decrease else mean
    ready = (state['cooldown'] <= 0) & (count >= self.cooldown if self.allow_decrease else True)
    double = ready & (unbiased > self.upper)
    halve = ready & (unbiased < self.lower) & self.allow_decrease
    changed = double | halve
    weight = state['weight'] * jnp.where(double, 2.0, jnp.where(halve, 0.5, 1.0))
    cooldown = jnp.where(changed, self.cooldown, state['cooldown'])
    return {
      'weight': jnp.clip(weight, self.least, self.most),
      'mean': jnp.where(changed, 0.0, mean),
      'count': jnp.where(changed, 0, count),
      'cooldown': jnp.maximum(cooldown - 1, 0),
    }
