import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from vqm_jax import errors
from vqm_jax.training.writer import Writer


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_lines_after_the_restored_step_and_torn_ones_are_dropped(tmp_path):
  with Writer(tmp_path) as writer:
    for step in (1, 2, 3):
      writer.scalars(step, {'train/loss': step / 2})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "tra')
  with Writer(tmp_path, last_step=2) as writer:
    writer.scalars(3, {'train/loss': np.inf})
  assert [(line['step'], line['train/loss']) for line in lines(tmp_path)] == [(1, 0.5), (2, 1.0), (3, 'inf')]
  assert list(tmp_path.glob('events.out.tfevents.*'))


def test_pictures_are_png(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  with Writer(tmp_path) as writer:
    writer.picture(7, 'clip', picture)
  np.testing.assert_array_equal(Image.open(tmp_path / 'samples' / 'clip' / '0000007.png'), picture)


def test_wandb_gets_the_same_scalars(tmp_path, monkeypatch):
  logged = []
  run = types.SimpleNamespace(
    log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append('end')
  )
  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=lambda **kwargs: run))
  with Writer(tmp_path, wandb_project='vqm') as writer:
    writer.scalars(5, {'train/loss': 1.0})
  assert logged == [(5, {'train/loss': 1.0}), 'end']


def test_wandb_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(errors.ConfigError, match=r'\[wandb\]'):
    Writer(tmp_path, wandb_project='vqm')
