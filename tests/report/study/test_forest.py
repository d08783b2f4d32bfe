"""The plot of a study."""

import math

import pytest
from full_disk import no_file_beyond

from vqm_jax import errors


def test_plot_is_the_same_each_time(tmp_path):
  pytest.importorskip('matplotlib')
  from vqm_jax.report.study import forest

  estimates = {'$a_b$': (0.5, 0.3, 0.8), 'b': (-0.5, math.nan, math.nan), 'none': (math.nan,) * 3}
  paths = [forest.save(tmp_path / name, estimates, 'Log-strength', 0.0) for name in 'xy']
  assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]
  assert paths[0][1].read_text().startswith('<?xml')
  with pytest.raises(errors.DiskFullError, match='forest.png: no room to write this'), no_file_beyond(1000):
    forest.save(tmp_path / 'z', estimates, 'Log-strength', 0.0)
  assert not list((tmp_path / 'z').iterdir())
