"""Supervised restoration: the state and the update.

The state is a flat bundle of pure dicts of arrays: what a checkpoint holds and what a step maps to its successor.
Randomness is not part of it: data order and augmentation are functions of the seed and the position in the data.
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

from vqm_jax import errors, inference, losses, parallel
from vqm_jax.layers import diagnostics
from vqm_jax.training import optimizer


@flax.struct.dataclass
class TrainState:
  """All that a run needs to continue.

  Attributes:
    step: finished updates, int32.
    params: trainable parameters, float32.
    opt_state: Optax state.
    ema: moving average of `params`, or None when the run keeps none.
  """

  step: jax.Array
  params: Any
  opt_state: optax.OptState
  ema: Any


class Supervised:
  """The supervised update of one config on one mesh.

  Args:
    config: a ConfigDict with the fields of `experiments/common.py`.
    devices: all devices of all processes by default.

  Attributes:
    mesh: the devices that share a micro-batch.
    put: puts this process's part of a batch there; another one where the data are there already.
    updates_per_step: 1, because there is one player.

  Raises:
    ConfigError: fields that do not fit the system.
  """

  updates_per_step = 1

  def __init__(self, config: ml_collections.ConfigDict, devices: list | None = None):
    if 'loss' not in config:
      raise errors.ConfigError(
        f'system={config.system!r} is trained with a pixel loss, of which this config knows nothing; start from '
        f'experiments/{config.system}.py or common.base_config().'
      )
    self.mesh: Mesh = parallel.batch_mesh(config.batch_size // config.grad_accum, devices)
    self.put: parallel.Put = functools.partial(parallel.put_batch, mesh=self.mesh)
    self._config = config
    self._optimizer, self._rates = optimizer.create(config)
    self._loss = losses.pixel_loss(config.loss, **config.loss_args)
    self._graphdef, self._abstract = nnx.split(nnx.eval_shape(self._create))  # a large network takes seconds to make
    mapped = functools.partial(parallel.data_parallel, mesh=self.mesh)
    self._step = mapped(self._whole_step, shared=2, donate=(0,))
    self._zeros = jax.jit(
      lambda params: (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)), out_shardings=parallel.replicated(self.mesh)
    )
    self._accumulate = mapped(self._add_gradients, shared=2, donate=(1,))
    self._apply = mapped(self._update, shared=4, donate=(0, 1))

  def _create(self) -> nnx.Module:
    return inference.create_network(self._config, self._config.seed)

  def abstract_network(self) -> nnx.Module:
    """Return the network without arrays: shapes, counts and attributes only."""
    return nnx.merge(self._graphdef, self._abstract)

  def fresh(self) -> Any:
    """Return newly initialised parameters, a pure dict of arrays."""
    return nnx.to_pure_dict(nnx.state(self._create(), nnx.Param))

  def read(self, workdir: pathlib.Path, step: int | str) -> tuple[dict[str, np.ndarray], int, bool]:
    """Return the parameters of another run by path, as `inference.load_params`."""
    return inference.load_params(workdir, step)

  def init(self, params: Any) -> TrainState:
    """Return the state before the first update, replicated over the mesh."""

    def build(params):
      copy = functools.partial(jax.tree.map, jnp.copy)  # donation must never reach a buffer somebody else holds
      ema = copy(params) if self._config.ema else None
      return TrainState(jnp.zeros((), jnp.int32), copy(params), self._optimizer.init(params), ema)

    return jax.jit(build, out_shardings=parallel.replicated(self.mesh))(jax.device_get(params))

  def abstract_state(self) -> TrainState:
    """Return shapes, dtypes and shardings of the state without computing it."""
    params = nnx.to_pure_dict(self._abstract)
    ema = params if self._config.ema else None
    step = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(step, params, jax.eval_shape(self._optimizer.init, params), ema)
    sharding = parallel.replicated(self.mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)

  def network(self, state: TrainState) -> nnx.Module:
    """Return the network to validate and use: EMA weights when the run keeps them."""
    params = state.params if state.ema is None else state.ema
    return nnx.merge(self._graphdef, parallel.to_host(params))

  def rates(self, step: int) -> dict[str, float]:
    """Return the learning rate of update number `step` (from 1)."""
    return {'train/lr': float(self._rates[step - 1])}

  def update(self, state: TrainState, batch: dict, index: int) -> tuple[TrainState, dict[str, jax.Array]]:
    """Update number `index` from this process's part of a batch: what `put` takes.

    Returns the next state and scalars; nothing waits for the device. With `grad_accum` the batch is cut into
    micro-batches whose gradients are added up by separate calls of one compiled program: a loop inside the program
    would be many times slower on CPU.
    """
    rate, parts = parallel.put_shared(self._rates[index], self.mesh), self._config.grad_accum
    if parts == 1:
      return self._step(state, rate, self.put(batch))
    total, recorded = self._zeros(state.params), []
    for k in range(parts):
      micro = jax.tree.map(lambda x, k=k: x[k::parts], batch)
      total, told = self._accumulate(state.params, total, self.put(micro))
      recorded.append(told)
    return self._apply(state, total, recorded, rate)

  def lower(self, state: TrainState, batch: dict, platforms: tuple[str, ...]) -> jax.stages.Lowered:
    """Lower the step for other platforms from this host, to see that nothing in it is refused there."""
    return self._step.trace(state, self._rates[0], batch).lower(lowering_platforms=platforms)

  def _gradients(self, params, batch):
    """Return (loss, gradients) and what the layers recorded, over all devices."""

    def loss_fn(params, batch):
      lq = batch['lq'].astype(jnp.float32) / 255.0
      hq = batch['hq'][:, batch['hq'].shape[1] // 2].astype(jnp.float32) / 255.0
      with diagnostics.recording() as recorded:
        restored = nnx.merge(self._graphdef, params)(lq)
      recorded['train/input_loss'] = self._loss(lq[:, lq.shape[1] // 2], hq)  # what the identity would have
      return self._loss(restored, hq), parallel.across_devices(recorded)

    (loss, recorded), grads = parallel.value_and_grad(loss_fn)(params, batch)
    return (loss, grads), recorded

  def _whole_step(self, state, rate, batch):
    total, recorded = self._gradients(state.params, batch)
    return self._update(state, total, [recorded], rate)

  def _add_gradients(self, params, total, batch):
    more, recorded = self._gradients(params, batch)
    return jax.tree.map(jnp.add, total, more), recorded

  def _update(self, state, total, recorded, rate):
    """The update from gradients summed over micro-batches, of which there are as many as records."""
    loss, grads = jax.tree.map(lambda x: x / len(recorded), total)
    updates, opt_state = self._optimizer.update(grads, state.opt_state, state.params, rate=rate)
    params = optax.apply_updates(state.params, updates)
    ema = None
    if self._config.ema:
      ema = optax.incremental_update(params, state.ema, 1 - self._config.ema)
    scalars = {'train/loss': loss, 'train/grad_norm': optax.tree.norm(grads), **diagnostics.joined(recorded)}
    return TrainState(state.step + 1, params, opt_state, ema), scalars
