"""Deformable networks learn: on real compressed windows, at small width, they leave the identity and stay aligned."""

import jax
import numpy as np
import pytest

from experiments import common
from vqm_jax import data
from vqm_jax.training.supervised import Supervised

_EDVR = dict(width=48, num_frames=3, num_front=1, num_blocks=1, groups=4, tail_width=16)
NETWORKS = {
  'tcl_edvr': _EDVR,
  'gtq': dict(width=48, num_frames=3, num_extraction=1, num_stages=1, groups=4, num_rrdb=1, growth=8),
  'jojo': _EDVR,
  'boss_f1': _EDVR,
}
STEPS = 400


@pytest.fixture(scope='module')
def windows(tmp_path_factory):
  """Windows of demo scenes, rendered and coded with H.264."""
  from conftest import _demo

  folder = _demo(tmp_path_factory.mktemp('windows'), ['tiles'])
  return data.open_training('vqm_demo', 'tiles', folder)


@pytest.mark.slow
@pytest.mark.parametrize('system', NETWORKS)
def test_a_deformable_network_leaves_the_identity(system, windows):
  config = common.base_config()
  config.update(
    system=system, system_args=NETWORKS[system], num_frames=3, crop=48, batch_size=4, steps=STEPS, loss='l2', lr=3e-4,
    optimizer_args=dict(b2=0.99, eps=1e-12), warmup=0.02, ema=0.0,
  )  # fmt: skip
  trainer = Supervised(config, jax.devices()[:1])
  state, told = trainer.init(trainer.fresh()), []
  with data.train_batches([windows], num_frames=3, crop=48, batch_size=4, seed=0) as batches:
    for step in range(STEPS):
      state, scalars = trainer.update(state, next(batches), step)
      told.append(scalars)
  last = jax.device_get(told[-STEPS // 4 :])
  mean = {name: np.mean([scalars[name] for scalars in last]) for name in last[0]}
  # Before frames were centred and last convolutions zero: 1.000 and more, offsets of several pixels.
  assert mean['train/loss'] / mean['train/input_loss'] < 0.99
  offsets = {name: value for name, value in mean.items() if name.startswith('offset/') and name.endswith('mean')}
  assert offsets and max(offsets.values()) < 2
