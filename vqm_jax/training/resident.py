"""Training data that live on the devices: samples are cut out and turned there, nothing waits for the host.

They are the very samples that the loader decodes, in the same order: see `data.Tables`.
"""

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from vqm_jax import data, errors, files, host_memory, parallel

# Of the memory that is free; the rest is for the network.
_SHARE = 0.5


class Resident:
  """All training records on each device of a mesh.

  Args:
    sources: training records, of `data.open_training`.
    sampling: one of `data.SAMPLINGS`.
    num_frames, crop: of the samples.
    mesh: the devices that share a batch.

  Raises:
    ConfigError: the records do not fit into half of the free memory of a device, or are decoded as they are drawn.
    DataError: a record that cannot be read.
  """

  def __init__(self, sources: Sequence, sampling: str, num_frames: int, crop: int, mesh: Mesh):
    tables = data.Tables(sources, sampling)
    names = ', '.join(dict.fromkeys(_name(source) for source in sources))
    local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    _check_room(names, tables.nbytes, local)
    start = time.monotonic()
    try:
      self._tables = tuple(
        jax.block_until_ready(parallel.put_shared(tables.decode(number), mesh)) for number in range(len(tables.shapes))
      )
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      raise _too_large(names, tables.nbytes, 'what is free') from error
    took = time.monotonic() - start
    logging.info('%s: on the device, %s, decoded in %.1f s', names, files.size_text(tables.nbytes), took)
    self.read = tables.read
    self._mesh = mesh
    cut = functools.partial(_cut, sides=tables.sides, size=(num_frames, crop))
    self._cut = parallel.data_parallel(cut, mesh, outputs_split=True)

  def put(self, rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Samples {'lq', 'hq'}, uint8 (b, num_frames, crop, crop, 3) over the mesh, of this process's part of a batch.

    Args:
      rows: {'lq', 'hq'}: int32 (b, 6), as `data.train_batches` gives them with `read`.
    """
    return self._cut(self._tables, parallel.put_batch(rows, self._mesh))


def _cut(tables, rows, sides, size):
  def windows(side):
    among = sides[side]
    return jax.vmap(functools.partial(_window, [tables[k] for k in among], among, *size))(rows[side])

  return {side: windows(side) for side in rows}


def _window(tables, numbers, num_frames, crop, row):
  """One sample; what it may have come from is cut out of all tables there are, which is little."""
  number, record, t, y, x, symmetry = row
  window = None
  for table, k in zip(tables, numbers, strict=True):
    found = jax.lax.dynamic_slice(table, (record, t, y, x, 0), (1, num_frames, crop, crop, 3))[0]
    window = found if window is None else jnp.where(number == k, found, window)
  window = jnp.where(symmetry & 1, window[:, ::-1], window)
  window = jnp.where(symmetry & 2, window[:, :, ::-1], window)
  return jnp.where(symmetry & 4, window.swapaxes(1, 2), window)


def _name(source) -> str:
  info = (source if hasattr(source, 'dataset_info') else source[0]).dataset_info
  return f'{info.name}/{info.config_name}'


def _check_room(names: str, size: int, devices: list) -> None:
  for device in devices:
    stats = device.memory_stats() or {}
    free = stats['bytes_limit'] - stats['bytes_in_use'] if 'bytes_limit' in stats else None
    copies = 1
    if device.platform == 'cpu':  # all of which share the host's
      free, copies = host_memory.free(), len(devices)
    if free is not None and copies * size > _SHARE * free:
      raise _too_large(names, copies * size, f'half of the {files.size_text(free)} that are free')
  free = host_memory.free()
  if size > free:
    raise _too_large(names, size, f'the {files.size_text(free)} that are free on the host, through which they go')


def _too_large(names: str, size: int, room: str) -> errors.ConfigError:
  return errors.ConfigError(
    f'config.data_on_device: {names} takes {files.size_text(size)} on its devices, expected at most {room}; leave '
    'it out: the same samples then come from the loader.'
  )
