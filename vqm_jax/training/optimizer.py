"""Optimisers and learning-rate schedules by name, all from Optax.

Schedules are written in fractions of the run, so that a run of any length has the published shape. The rate is an
argument of an update, not a constant in it: a run of another length or rate finds its program compiled.
"""

import collections
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from optax import contrib

from vqm_jax import errors

# Of the polynomial a x + b x^3 + c x^5 that brings singular values from (0, 1] to about 1 (Jordan et al. 2024).
_A, _B, _C = 3.4445, -4.7750, 2.0315


def muon(
  rate: optax.Schedule, *, consistent_rms: float = 0.2, eps: float = 1e-12, beta: float = 0.95, ns_steps: int = 5
) -> optax.GradientTransformation:
  """Muon (Jordan et al. 2024) on kernels, as matrices of kh*kw*cin by cout; Nesterov Adam on all else, at one rate.

  All directions of a kernel's update are equally large, so that a direction in which features have a mean, which would
  otherwise outweigh all others, does not move what it feeds faster than they do. Rates are comparable to Adam's (Liu
  et al. 2025: root mean square 0.2).

  Args:
    rate: learning rate by update.
    consistent_rms: root mean square of an update at rate 1.
    eps: added to norms before division.
    beta: decay of the momentum.
    ns_steps: Newton-Schulz iterations.
  """

  def as_matrices(params: Any) -> Any:
    kernel = contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    return jax.tree.map(lambda p: kernel if p.ndim == 4 else None, params)

  how = dict(consistent_rms=consistent_rms, eps=eps, beta=beta, muon_weight_dimension_numbers=as_matrices)
  normalised = contrib.muon(rate, ns_steps=0, **how)  # momentum, norm and rate; iterations follow

  def update(updates, state, params=None):
    moves, state = normalised.update(updates, state, params)
    moves, tree = jax.tree.flatten(moves)
    kernels = iter(orthogonalised([move for move in moves if move.ndim == 4], ns_steps))
    return tree.unflatten([next(kernels) if move.ndim == 4 else move for move in moves]), state

  return optax.GradientTransformation(normalised.init, update)


def orthogonalised(kernels: Sequence[jax.Array], steps: int) -> list[jax.Array]:
  """Make all singular values of each kernel about as large as its norm, by Newton-Schulz iterations.

  An iteration X <- (a + b G + c G^2) X with G = X X' multiplies by a polynomial of the first G, as do all that follow:
  small square matrices are iterated, and X is multiplied once. Kernels of one size go together.

  Args:
    kernels: (kh, kw, cin, cout) float32, as matrices of kh*kw*cin by cout.
    steps: iterations, at least one.
  """
  together = collections.defaultdict(list)
  for k, kernel in enumerate(kernels):
    together[tuple(sorted(_matrix(kernel).shape))].append(k)
  found = list(kernels)
  for members in together.values():
    wide = jnp.stack([_wide(_matrix(kernels[k])) for k in members])
    norms = jnp.linalg.norm(wide, axis=(1, 2), keepdims=True)
    moves = norms * _newton_schulz(wide / jnp.where(norms > 0, norms, 1), steps)
    for k, move in zip(members, moves, strict=True):
      rows, columns = _matrix(kernels[k]).shape
      found[k] = (move.T if rows > columns else move).reshape(kernels[k].shape)
  return found


def _newton_schulz(x, steps):
  """x (B, m, n), m <= n, of norm 1 or 0."""
  # Errors of small singular values grow twelvefold a step in the Gram matrix: not for the faster products of GPUs.
  with jax.default_matmul_precision('highest'):
    gram, total = x @ x.mT, jnp.eye(x.shape[1])
    for step in range(steps):
      factor = _A * jnp.eye(x.shape[1]) + _B * gram + _C * gram @ gram
      total = factor @ total if step else factor
      if step < steps - 1:
        gram = factor @ gram @ factor
    return total @ x


def _matrix(kernel):
  return kernel.reshape(-1, kernel.shape[-1])


def _wide(matrix):
  return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


OPTIMIZERS = {'adam': optax.adam, 'adamw': optax.adamw, 'muon': muon, 'sgd': optax.sgd}
SCHEDULES = ('constant', 'cosine', 'linear', 'step')


def schedule(
  name: str,
  lr: float,
  steps: int,
  warmup: float,
  *,
  end: float = 0.0,
  start: float = 0.0,
  milestones: Sequence[float] = (),
  factor: float = 0.5,
) -> optax.Schedule:
  """Return the learning rate as a function of the step.

  Args:
    name: 'constant', 'cosine' (to `end` times `lr`), 'linear' (constant until `start`, then to `end` times `lr`) or
      'step' (times `factor` at every milestone).
    lr: the peak rate.
    steps: length of the run in updates.
    warmup: linear warm-up from zero, as a fraction of the run.
    end: final rate of 'cosine' and 'linear', as a fraction of `lr`.
    start: fraction of the run at which 'linear' begins to fall.
    milestones: fractions of the run at which 'step' acts.
    factor: what 'step' multiplies by; one number for all milestones.

  Raises:
    ConfigError: unknown name.
  """
  rising = round(warmup * steps)
  if name == 'constant':
    main = optax.constant_schedule(lr)
  elif name == 'cosine':
    main = optax.cosine_decay_schedule(lr, max(steps - rising, 1), alpha=end)
  elif name == 'linear':
    begin = max(round(start * steps), rising)
    main = optax.linear_schedule(lr, end * lr, max(steps - begin, 1), transition_begin=begin - rising)
  elif name == 'step':
    main = optax.piecewise_constant_schedule(lr, {round(m * steps) - rising: factor for m in milestones})
  else:
    raise errors.ConfigError(f'schedule={name!r} is unknown; choose one of {list(SCHEDULES)}.')
  if not rising:
    return main
  return optax.join_schedules([optax.linear_schedule(0.0, lr, rising), main], [rising])


def slower(layers: str, factor: float) -> optax.GradientTransformation:
  """Multiply the updates of parameters in whose path, such as 'align/warp/guide/kernel', a regex is found."""

  def scaled(path: tuple, update: jax.Array) -> jax.Array:
    return factor * update if re.search(layers, jax.tree_util.keystr(path, simple=True, separator='/')) else update

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


def _at_rate(make: Callable[[optax.Schedule], optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
  """Make an optimiser whose `update` takes the rate; its state counts updates as that of a scheduled one does."""
  given = []
  scheduled = make(lambda count: given[-1])

  def update(updates, state, params=None, *, rate, **unused):
    given.append(rate)
    try:
      return scheduled.update(updates, state, params)
    finally:
      given.pop()

  return optax.GradientTransformationExtraArgs(scheduled.init, update)


def create(
  config: ml_collections.ConfigDict, critic: bool = False
) -> tuple[optax.GradientTransformationExtraArgs, np.ndarray]:
  """Return the optimiser of a config (clipping by global norm included) and the rate of every update, float32.

  With `critic` those of the critics: `critic_lr` and `critic_optimizer_args`, over as many updates as they make.
  The optimiser is called with the rate: `update(grads, state, params, rate=rates[index])`.

  Raises:
    ConfigError: unknown optimizer or schedule, or arguments that do not fit it.
  """
  if config.optimizer not in OPTIMIZERS:
    raise errors.ConfigError(f'optimizer={config.optimizer!r} is unknown; choose one of {sorted(OPTIMIZERS)}.')
  lr, args, updates = config.lr, config.optimizer_args, config.steps
  if critic:
    lr, args, updates = config.critic_lr, config.critic_optimizer_args, config.steps * config.critic_steps
  try:
    rate = schedule(config.schedule, lr, updates, config.warmup, **config.schedule_args)
    update = _at_rate(lambda given: OPTIMIZERS[config.optimizer](given, **args))
  except TypeError as error:
    raise errors.ConfigError(f'schedule_args or optimizer_args do not fit: {error}.') from error
  if config.clip_norm:
    update = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
  if config.get('slow_layers'):
    update = optax.chain(update, slower(config.slow_layers, config.slow_rate))
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    rates = np.broadcast_to(np.asarray(jax.jit(rate)(jnp.arange(updates)), np.float32), updates)
  return optax.with_extra_args_support(update), rates
