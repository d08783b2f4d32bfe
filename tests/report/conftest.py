"""Evaluated runs."""

import pytest
from report.runs import frames_of, workdir


@pytest.fixture
def pair(tmp_path):
  """Two evaluated runs."""
  one = workdir(tmp_path / 'one', frames_of(12))
  return one, workdir(tmp_path / 'two', frames_of(6), 'gil (step 7)', params=57_721)
