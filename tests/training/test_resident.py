"""Training data on the devices: what does not fit is refused; that samples are the loader's, `data/test_tables.py`."""

import jax
import pytest

from vqm_jax import errors
from vqm_jax.training import resident


@pytest.mark.parametrize(('size', 'devices'), [(600, 1), (300, 2)])
def test_data_that_do_not_fit_are_refused(monkeypatch, size, devices):
  monkeypatch.setattr(resident, '_free_on_host', lambda: 1000)
  with pytest.raises(
    errors.ConfigError, match='config.data_on_device: mine takes .* expected at most half .* leave it out'
  ):
    resident._check_room('mine', size, jax.local_devices()[:devices])
  resident._check_room('mine', 250, jax.local_devices()[:devices])


def test_free_memory_is_that_of_the_host():
  assert 1e7 < resident._free_on_host() < 1e13
