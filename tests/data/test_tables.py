"""Samples cut out on the devices are those that the loader decodes."""

import jax
import numpy as np
import pytest
from data.windows import CONFIGS, assert_equal, draw

from vqm_jax import data, errors, host_memory, parallel
from vqm_jax.training import resident

SIZE = dict(num_frames=3, crop=9)


def opened(data_dir, sampling, config):
  return data.open_training('vqm_tiny', config, str(data_dir), sampling=sampling)


def both(sources, devices, sampling='paired', count=2, **options):
  """Batches of the loader, and of tables on so many devices."""
  held = resident.Resident(sources, sampling, mesh=parallel.batch_mesh(devices=jax.devices()[:devices]), **SIZE)
  rows = draw(sources, count, sampling=sampling, read=held.read, **options)
  assert all(side.dtype == np.int32 for batch in rows for side in batch.values())
  return draw(sources, count, sampling=sampling, **options), [parallel.local_part(held.put(batch)) for batch in rows]


@pytest.mark.parametrize('sampling', data.SAMPLINGS)
def test_samples_are_those_of_the_loader(data_dir, sampling):
  sources = [opened(data_dir, sampling, CONFIGS[sampling])]
  augment = {'weak': 'flip', 'identity': 'none'}.get(sampling, 'symmetries')
  assert_equal(*both(sources, 2, sampling, batch_size=12, start=24, augment=augment))


def test_of_several_sources_of_several_sizes_and_crops_of_a_record(data_dir):
  sources = [opened(data_dir, 'paired', config) for config in ('tiles', 'tiles_t7p40')]
  expected, found = both(sources, 4, batch_size=16, weights=(1, 3), crops_per_record=2)
  assert_equal(found, expected)
  parts = [both(sources, 1, count=1, batch_size=16, process_index=i, process_count=2)[1][0] for i in range(2)]
  whole = both(sources, 1, count=1, batch_size=16)[0][0]
  for side, samples in whole.items():
    np.testing.assert_array_equal(np.stack([part[side] for part in parts], axis=1).reshape(samples.shape), samples)


def test_what_does_not_fit_is_refused(data_dir, monkeypatch):
  source = opened(data_dir, 'paired', 'tiles')
  size = 2 * 11 * 5 * 24 * 24 * 3
  mesh = parallel.batch_mesh(devices=jax.devices()[:2])
  monkeypatch.setattr(host_memory, 'free', lambda: 4 * size)  # two devices, and half of it
  resident.Resident([source], 'paired', mesh=mesh, **SIZE)
  monkeypatch.setattr(host_memory, 'free', lambda: 4 * size - 1)
  with pytest.raises(
    errors.ConfigError,
    match=r'^config.data_on_device: vqm_tiny/tiles takes 380 kB on its devices, expected at most half of the 760 kB '
    'that are free; leave it out: the same samples then come from the loader.$',
  ):
    resident.Resident([source], 'paired', mesh=mesh, **SIZE)


def test_memory_that_runs_out_is_told(data_dir, monkeypatch):
  def full(*args):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr(parallel, 'put_shared', full)
  with pytest.raises(errors.ConfigError, match='vqm_tiny/tiles takes 190 kB on its devices, expected at most what is'):
    resident.Resident([opened(data_dir, 'paired', 'tiles')], 'paired', mesh=parallel.batch_mesh(), **SIZE)
