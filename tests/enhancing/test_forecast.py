"""The lines of a forecast: time of devices that work beside the host or not, sums over videos."""

import jax
import pytest

from vqm_jax.enhancing import forecast


def found(**changes):
  values = dict(seconds=2.0, around=0.5, frames=1800, size=3e6, needed=6e6, memory={'host': 5e8})
  return forecast.Forecast(**values | changes)


@pytest.mark.parametrize(('backend', 'seconds'), [('cpu', 4500), ('gpu', 3600)])
def test_a_cpu_decodes_and_codes_as_well(monkeypatch, backend, seconds):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  assert found().whole == seconds


def test_lines(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  assert forecast.time_line(0.1, 36_000) == 'estimate: 0.1 s per frame, 1 h 00 min 00 s for 36000 frames'
  assert forecast.total([found(), found(frames=200)]) == 'together: 1 h 23 min 20 s for 2 videos, 6 MB'


def test_memory_is_that_of_this_process():
  assert all(10e6 < size < 1e12 for size in forecast.peak_memory().values())
