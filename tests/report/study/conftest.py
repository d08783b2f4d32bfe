"""A study that raters took part in."""

import numpy as np
import pytest
from report.study.answers import chooser, export, make_key, read


@pytest.fixture(scope='module')
def voted(tmp_path_factory):
  """A study of pairs that 40 raters took part in."""
  key, rng = make_key(), np.random.default_rng(3)
  values = [export(key, f'P{k:02d}', chooser(rng)) for k in range(40)]
  return key, read(tmp_path_factory.mktemp('voted'), key, values)
