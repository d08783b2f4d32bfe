"""Data parallelism: one mesh axis, one mapped step.

`data_parallel` is the modern `jax.pmap`: since JAX 0.8 pmap itself is `jax.jit` around `jax.shard_map`, and spelling
that out keeps global arrays (no leading device axis), several hosts and donation in one form. A step is written for
one device; the state is the same on all of them, the batch is split along its first axis, and nothing is
communicated unless the step says so. The compiler's own partitioning is not used, because it gathers the whole batch
around data-dependent indexing such as deformable sampling.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vqm_jax import errors

AXIS = 'batch'

# Puts a process's part of a batch, numpy {'lq', 'hq'} with samples along the first axis, on the devices of a mesh.
Put = Callable[[dict[str, np.ndarray]], dict[str, jax.Array]]


def batch_mesh(batch_size: int | None = None, devices: list | None = None) -> Mesh:
  """Return a one-axis mesh over all devices (of all processes) that can share a batch of `batch_size`.

  When the batch does not divide over the devices of a single process, the largest dividing subset is used and a
  warning says so. Over several processes every device must take part, so that is an error.

  Raises:
    ConfigError: the batch does not divide and the run has several processes.
  """
  devices = list(devices if devices is not None else jax.devices())
  count = len(devices)
  if batch_size is not None and batch_size % count:
    if jax.process_count() > 1:
      raise errors.ConfigError(
        f'batch_size={batch_size} does not divide over {count} devices in {jax.process_count()} processes; '
        f'use a multiple of {count}.'
      )
    count = max(n for n in range(1, count + 1) if batch_size % n == 0)
    logging.warning(
      'batch_size=%d does not divide over %d devices: using %d of them. A multiple of %d would use all.',
      batch_size, len(devices), count, len(devices),
    )  # fmt: skip
  return Mesh(np.array(devices[:count]), (AXIS,))


def hardware(mesh: Mesh) -> str:
  """Name the devices of a mesh for people: '8 x NVIDIA H100', '2-core CPU'; virtual CPU devices are one CPU."""
  device = mesh.devices.flat[0]
  return f'{os.cpu_count()}-core CPU' if device.platform == 'cpu' else f'{mesh.size} x {device.device_kind}'


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of the state: a full copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  """The sharding of a batch: along its first axis."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Put this process's part of a batch (numpy leaves, first axis = samples) on the devices, split along axis 0."""
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split(mesh), x), batch)


def put_shared(tree: Any, mesh: Mesh) -> Any:
  """Put numpy values that are the same in all processes on every device, without comparing them over the network."""
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(x)), tree)


def split_over(tree: Any, mesh: Mesh) -> Any:
  """Spread arrays of this process over its mesh along axis 0."""
  return jax.device_put(tree, split(mesh))


def per_device(tree: Any, mesh: Mesh) -> list[Any]:
  """Split arrays along axis 0 into what each device of this process's mesh holds: trees of views, without a copy."""

  def parts(x):
    held = {shard.device: shard.data for shard in x.addressable_shards}
    return [held[device] for device in mesh.devices.flat]

  leaves, structure = jax.tree.flatten(tree)
  return [jax.tree.unflatten(structure, part) for part in zip(*map(parts, leaves), strict=True)]


def from_devices(trees: list[Any], mesh: Mesh) -> Any:
  """The inverse of `per_device`: one tree for each device, copied there from where it is, to arrays split along axis 0.

  Only copies from device to device. Indexing a split array instead would run collective programs, and several of
  those in flight can wait for each other forever when there are fewer cores than CPU devices.
  """

  def join(*parts):
    parts = [jax.device_put(part, device) for part, device in zip(parts, mesh.devices.flat, strict=True)]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return jax.make_array_from_single_device_arrays(shape, split(mesh), parts)

  return jax.tree.map(join, *trees)


def data_parallel(
  step: Callable,
  mesh: Mesh,
  *,
  shared: int = 1,
  outputs_split: bool = False,
  donate: tuple[int, ...] = (),
) -> Callable:
  """Compile `step(*shared_args, *batches)` over the mesh.

  The first `shared` arguments are replicated, the rest are split along axis 0. Results must be equal on all devices
  (checked by JAX: a forgotten `pmean` is an error), unless `outputs_split`, when they are split like the batches.

  Args:
    step: a function written for one device.
    mesh: from `batch_mesh`.
    shared: how many leading arguments are replicated.
    outputs_split: whether the results are per-sample.
    donate: indices of arguments whose memory the results may reuse.
  """
  out = PartitionSpec(AXIS) if outputs_split else PartitionSpec()

  def mapped(*args):
    specs = (PartitionSpec(),) * shared + (PartitionSpec(AXIS),) * (len(args) - shared)
    return jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=out)(*args)

  return jax.jit(mapped, donate_argnums=donate)


def value_and_grad(loss_fn: Callable) -> Callable:
  """Like `jax.value_and_grad(loss_fn, has_aux=True)` inside `data_parallel`; all results are means over the devices.

  Parameters are cast to device-varying first: differentiating with respect to replicated values would make JAX
  return the sum of the devices' gradients instead, a learning rate that grows with the device count.
  """

  def fn(params, *args):
    local = jax.lax.pcast(params, AXIS, to='varying')
    return jax.lax.pmean(jax.value_and_grad(loss_fn, has_aux=True)(local, *args), AXIS)

  return fn


def across_devices(scalars: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Inside `data_parallel`: each scalar over all devices, a maximum where its name ends in 'max', else a mean."""
  over = {name: jax.lax.pmax if name.endswith('max') else jax.lax.pmean for name in scalars}
  return {name: over[name](value, AXIS) for name, value in scalars.items()}


def local_part(batch: Any) -> Any:
  """The inverse of `put_batch`: this process's part of arrays split along axis 0, as numpy arrays."""

  def part(x):
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])

  return jax.tree.map(part, batch)


def to_host(tree: Any) -> Any:
  """Return replicated arrays as numpy arrays of this process."""
  return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)
