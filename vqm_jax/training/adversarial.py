"""Adversarial training of Track 2: the state of all players, and the updates of the two sides.

One cycle is an update of the generator side, then `critic_steps` updates of the critics, each on a batch of its own.
Which side is next follows from the number of updates so far, so that the loop chooses between two compiled programs
without waiting for the device. `steps` counts cycles; checkpoints are numbered by updates, because one may fall
between two critic updates. Randomness is a function of the seed, the number of the update and the sample's place in the
batch; running statistics, moving average and the steered weights of the critics are part of the state.
"""

import functools
import pathlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from vqm_jax import checkpoints, enhancers, errors, inference, parallel
from vqm_jax.layers.initializers import ParameterKeys
from vqm_jax.training import optimizer


@flax.struct.dataclass
class AdversarialState:
  """All that a run needs to continue.

  Attributes:
    updates: finished updates of either side, int32.
    params: {player: trainable parameters}, float32.
    stats: {player: running statistics}.
    generator_opt, critic_opt: Optax states of the two sides.
    penalties: {name: state of the steered weight}.
    ema: moving averages of the deployed generator, or None when the run keeps none: 'generator', its parameters, and
      'stats', its running statistics, if it has any: each belongs to the other.
  """

  updates: jax.Array
  params: dict[str, Any]
  stats: dict[str, Any]
  generator_opt: optax.OptState
  critic_opt: optax.OptState
  penalties: dict[str, Any]
  ema: dict[str, Any] | None


class Adversarial:
  """The updates of one config on one mesh; what the loop asks of it is what `Supervised` has, too.

  Args:
    config: a ConfigDict with the fields of `config.adversarial_config`.
    devices: all devices of all processes by default.

  Attributes:
    mesh: the devices that share a batch.
    put: puts this process's part of a batch there; another one where the data are there already.
    updates_per_step: updates in a cycle.

  Raises:
    ConfigError: fields that do not fit the method.
    MissingWeightsError: a loss needs weights that are not there.
  """

  def __init__(self, config: ml_collections.ConfigDict, devices: list | None = None):
    if 'critic_steps' not in config:
      raise errors.ConfigError(
        f'system={config.system!r} is trained against critics, of which this config knows nothing; start from '
        f'experiments/{config.system}.py or common.adversarial_config().'
      )
    if config.grad_accum != 1:
      raise errors.ConfigError(f'config.grad_accum={config.grad_accum}: adversarial updates take whole batches, use 1.')
    if config.critic_steps < 1:
      raise errors.ConfigError(f'config.critic_steps={config.critic_steps}: expected at least 1 per generator update.')
    if 'allow_random' in config.loss_args:
      raise errors.ConfigError('config.loss_args.allow_random is for tests: nothing is learned from random features.')
    self._config = config
    self.updates_per_step: int = 1 + config.critic_steps
    self.mesh: Mesh = parallel.batch_mesh(config.batch_size, devices)
    self.put: parallel.Put = functools.partial(parallel.put_batch, mesh=self.mesh)
    self._model = model = nnx.eval_shape(self._create)
    self._critics, self._steered = model.critics, model.adaptive_weights()
    self._graphdef, _, _, frozen = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    if jax.tree.leaves(frozen):
      *_, frozen = nnx.split(self._create(), nnx.Param, nnx.BatchStat, ...)
    self._frozen = jax.device_put(nnx.to_pure_dict(frozen), parallel.replicated(self.mesh))
    self._generator_optimizer, self._rates = optimizer.create(config)
    critics, self._critic_rates = optimizer.create(config, critic=True)
    self._critic_optimizer = model.critic_optimizer(critics)
    mapped = functools.partial(parallel.data_parallel, mesh=self.mesh, shared=3, donate=(0,))
    self._generator_step, self._critic_step = mapped(self._update_generator), mapped(self._update_critics)

  def _create(self) -> enhancers.Enhancer:
    config = self._config
    return enhancers.create(
      config.system,
      dict(config.system_args),
      patch=config.crop,
      rngs=ParameterKeys(config.seed),
      dtype=jnp.dtype(config.dtype),
      axis_name=parallel.AXIS,
      **config.loss_args,
    )

  def abstract_network(self) -> nnx.Module:
    """Return the generator without arrays."""
    return self._model.generator

  def fresh(self) -> dict[str, Any]:
    """Return the new players: {'params': {player: ...}, 'stats': {player: ...}}, pure dicts of arrays."""
    return _players(self._create())

  def read(self, workdir: pathlib.Path, step: int | str) -> tuple[dict[str, np.ndarray], int, bool]:
    """Return all players of another run as `fresh` would by path, their checkpoint, and False: never the average.

    Raises:
      ConfigError: `workdir` is a name of weights that ship, which are of a network alone.
      CheckpointError: no such checkpoint, or damaged.
    """
    if name := inference.shipped_name(workdir):
      raise errors.ConfigError(
        f'config.init_from={name}: weights that ship are of a network alone, expected those of all players of '
        f'system={self._config.system!r}; give the folder of a run.'
      )
    directory = workdir / 'checkpoints'
    step = checkpoints.select(directory, step)
    arrays = {}
    for part in ('params', 'stats'):
      found = checkpoints.read_arrays(directory, step, part)
      arrays |= {f'{part}/{path}': array for path, array in found.items()}
    return arrays, step, False

  def init(self, players: dict[str, Any]) -> AdversarialState:
    """Return the state before the first update, replicated over the mesh."""
    build = functools.partial(jax.tree.map, jnp.copy)  # donation must never reach a buffer somebody else holds
    make = jax.jit(lambda p: self._init(build(p)), out_shardings=parallel.replicated(self.mesh))
    return make(jax.device_get(players))

  def _init(self, players: dict[str, Any]) -> AdversarialState:
    params = players['params']
    ours, critics = self._sides(params)
    return AdversarialState(
      updates=jnp.zeros((), jnp.int32),
      params=params,
      stats=players['stats'],
      generator_opt=self._generator_optimizer.init(ours),
      critic_opt=self._critic_optimizer.init(critics),
      penalties={name: steered.init() for name, steered in self._steered.items()},
      ema=jax.tree.map(jnp.copy, _deployed(players)) if self._config.ema else None,
    )

  def abstract_state(self) -> AdversarialState:
    """Return shapes, dtypes and shardings of the state without computing it."""
    state = jax.eval_shape(self._init, _players(self._model))
    sharding = parallel.replicated(self.mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)

  def network(self, state: AdversarialState) -> nnx.Module:
    """Return the generator to validate and use: EMA weights when the run keeps them."""
    params, stats = state.params, state.stats
    if state.ema is not None:
      params = params | {'generator': state.ema['generator']}
      stats = stats | ({'generator': state.ema['stats']} if 'stats' in state.ema else {})
    return self._merge(*map(parallel.to_host, (params, stats, self._frozen))).generator

  def rates(self, step: int) -> dict[str, float]:
    """Return the learning rates of cycle number `step` (from 1)."""
    critic = float(self._critic_rates[(step - 1) * self._config.critic_steps])
    return {'train/lr': float(self._rates[step - 1]), 'train/critic_lr': critic}

  def update(self, state: AdversarialState, batch: dict, index: int) -> tuple[AdversarialState, dict[str, jax.Array]]:
    """Update number `index` (from 0) from this process's part of a batch: what `put` takes.

    Returns the next state and scalars; nothing waits for the device.
    """
    cycle, place = divmod(index, self.updates_per_step)
    if place:
      step, rate = self._critic_step, self._critic_rates[cycle * self._config.critic_steps + place - 1]
    else:
      step, rate = self._generator_step, self._rates[cycle]
    rate = parallel.put_shared(rate, self.mesh)
    return step(state, self._frozen, rate, self.put(batch))

  def lower(self, state: AdversarialState, batch: dict, platforms: tuple[str, ...]) -> list[jax.stages.Lowered]:
    """Lower both updates for other platforms from this host, to see that nothing in them is refused there."""
    steps = (self._generator_step, self._critic_step)
    return [
      step.trace(state, self._frozen, self._rates[0], batch).lower(lowering_platforms=platforms) for step in steps
    ]

  def _sides(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of the generator side, and of the critics."""
    critics = {name: params[name] for name in self._critics}
    return {name: part for name, part in params.items() if name not in critics}, critics

  def _merge(self, params, stats, frozen) -> enhancers.Enhancer:
    return nnx.merge(self._graphdef, params, stats, frozen)

  def _inputs(self, state: AdversarialState, batch: dict) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Source and target clips in [0, 1], and a random key for each sample."""
    x, y = (batch[name].astype(jnp.float32) / 255.0 for name in ('lq', 'hq'))
    # Threefry by name: XLA's own generator draws from the first of several keys only, whichever sample that is.
    key = jax.random.fold_in(jax.random.key(self._config.seed, impl='threefry2x32'), state.updates)
    places = jax.lax.axis_index(parallel.AXIS) * len(x) + jnp.arange(len(x))
    return x, y, jax.vmap(functools.partial(jax.random.fold_in, key))(places)

  def _update_generator(self, state: AdversarialState, frozen, rate, batch):
    ours, critics = self._sides(state.params)

    def loss_fn(ours, batch):
      model = self._merge(ours | critics, state.stats, frozen)
      loss, terms = model.generator_loss(*self._inputs(state, batch))
      return loss, (terms, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    (loss, (terms, stats)), grads = parallel.value_and_grad(loss_fn)(ours, batch)
    updates, generator_opt = self._generator_optimizer.update(grads, state.generator_opt, ours, rate=rate)
    params = optax.apply_updates(ours, updates) | critics
    ema = None
    if self._config.ema:
      now = _deployed({'params': params, 'stats': stats})
      ema = optax.incremental_update(now, state.ema, 1 - self._config.ema)
    scalars = {'train/loss': loss, 'train/grad_norm': optax.tree.norm(grads)}
    scalars |= {f'generator/{name}': value for name, value in terms.items()}
    state = state.replace(updates=state.updates + 1, params=params, stats=stats, generator_opt=generator_opt, ema=ema)
    return state, scalars

  def _update_critics(self, state: AdversarialState, frozen, rate, batch):
    ours, critics = self._sides(state.params)
    weights = {name: steered['weight'] for name, steered in state.penalties.items()}

    def loss_fn(critics, batch):
      model = self._merge(ours | critics, state.stats, frozen)
      return model.critic_loss(*self._inputs(state, batch), weights)

    (loss, (terms, seen)), grads = parallel.value_and_grad(loss_fn)(critics, batch)
    updates, critic_opt = self._critic_optimizer.update(grads, state.critic_opt, critics, rate=rate)
    penalties = {name: self._steered[name].update(state.penalties[name], seen[name]) for name in state.penalties}
    scalars = {'train/critic_loss': loss, 'train/critic_grad_norm': optax.tree.norm(grads)}
    scalars |= {f'critic/{name}': value for name, value in terms.items()}
    scalars |= {f'critic/{name}_weight': weight for name, weight in weights.items()}
    params = ours | optax.apply_updates(critics, updates)
    return (
      state.replace(updates=state.updates + 1, params=params, critic_opt=critic_opt, penalties=penalties),
      scalars,
    )


def _players(model: enhancers.Enhancer) -> dict[str, Any]:
  """Select what is trained and what follows from it; weights from elsewhere are left out."""
  _, params, stats, _ = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
  return {'params': nnx.to_pure_dict(params), 'stats': nnx.to_pure_dict(stats)}


def _deployed(players: dict[str, Any]) -> dict[str, Any]:
  """Select the players' parts that are averaged."""
  stats = players['stats'].get('generator')
  return {'generator': players['params']['generator'], **({'stats': stats} if stats else {})}
