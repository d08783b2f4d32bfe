"""Training data on the devices: what does not fit is refused; that samples are the loader's, `data/test_tables.py`."""

import types

import jax
import numpy as np
import pytest

from vqm_jax import errors, host_memory
from vqm_jax.data import windows
from vqm_jax.training import resident


@pytest.mark.parametrize(('size', 'devices'), [(600, 1), (300, 2)])
def test_data_that_do_not_fit_are_refused(monkeypatch, size, devices):
  monkeypatch.setattr(host_memory, 'free', lambda: 1000)
  with pytest.raises(
    errors.ConfigError, match='config.data_on_device: mine takes .* expected at most half .* leave it out'
  ):
    resident._check_room('mine', size, jax.local_devices()[:devices])
  resident._check_room('mine', 250, jax.local_devices()[:devices])


def test_windows_are_cut_and_turned_as_by_the_loader():
  rng = np.random.default_rng(0)
  tables = [rng.integers(0, 256, (3, 5, size, size + 4, 3), np.uint8) for size in (12, 16)]
  rows = np.array([(k % 2, k % 3, k % 3, k % 4, k % 7, k) for k in range(8)], np.int32)
  found = resident._cut(tables, {'lq': rows, 'hq': rows[:1]}, {'lq': [0, 1], 'hq': [0]}, (3, 9))
  assert found['lq'].shape == (8, 3, 9, 9, 3) and found['lq'].dtype == np.uint8
  for sample, (table, record, t, y, x, symmetry) in zip(found['lq'], rows, strict=True):
    window = tables[table][record, t : t + 3, y : y + 9, x : x + 9]
    np.testing.assert_array_equal(sample, windows.turned(window, symmetry))
  np.testing.assert_array_equal(found['hq'], found['lq'][:1])


def device(**stats):
  return types.SimpleNamespace(platform='gpu', memory_stats=lambda: stats)


def test_half_of_the_memory_that_is_free_may_be_taken(monkeypatch):
  monkeypatch.setattr(host_memory, 'free', lambda: 1 << 40)
  resident._check_room('mine/tiles', 3_000_000, [device(bytes_limit=8_000_000, bytes_in_use=2_000_000)])
  with pytest.raises(
    errors.ConfigError, match='^config.data_on_device: mine/tiles takes 3.5 MB on its devices, .* half of the 6 MB that'
  ):
    resident._check_room('mine/tiles', 3_500_000, [device(bytes_limit=8_000_000, bytes_in_use=2_000_000)])
  monkeypatch.setattr(host_memory, 'free', lambda: 2_000_000)
  with pytest.raises(errors.ConfigError, match='at most the 2 MB that are free on the host'):
    resident._check_room('mine/tiles', 3_000_000, [device()])
  with pytest.raises(errors.ConfigError, match='at most half of the 2 MB'):
    resident._check_room('mine/tiles', 1_100_000, jax.devices()[:1])
