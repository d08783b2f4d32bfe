"""Evaluated runs, and their page."""

import json

import pytest
from report.page.runs import EVIL, frames_of, make, workdir

from vqm_jax import files
from vqm_jax.report.page import build


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """Two evaluated runs."""
  folder = tmp_path_factory.mktemp('runs')
  one = workdir(folder / 'one', frames_of(12), 'ecnu (step 9)', missing={'lpips_alex': 'no <weights>'})
  timing = {'seconds_per_frame': 0.3, 'device': 'CPU', 'frame_size': [40, 60]}
  return one, workdir(folder / 'two', frames_of(6), EVIL, params=57_721, timing=timing)


@pytest.fixture
def no_plots(monkeypatch):
  """They take most of the time."""
  monkeypatch.setattr(build, '_plots', lambda *_: ([], []))


@pytest.fixture(scope='module')
def parsed(pair, tmp_path_factory):
  """A page with all that there is."""
  for folder in pair:
    lines = [{'step': step, 'time': 1.0, 'train/loss': 1 / step, 'val/psnr': 30.0 + step / 99} for step in (10, 20)]
    files.write_text(folder / 'metrics.jsonl', ''.join(json.dumps(line) + '\n' for line in lines))
  return make(tmp_path_factory.mktemp('page') / 'page.html', *pair)
