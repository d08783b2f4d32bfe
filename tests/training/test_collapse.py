"""Runs that learn nothing are noticed: losses out of bounds for long, restorers that stay at the identity."""

import ml_collections
import pytest

from vqm_jax import errors
from vqm_jax.training import collapse


def guard(**changes):
  values = dict(generator_bounds=(0.1, 2.0), critic_bounds=None, collapse_steps=10, on_collapse='warn')
  return collapse.CollapseGuard(ml_collections.ConfigDict(values | changes))


def test_a_loss_has_to_be_out_of_bounds_on_end(caplog):
  watch = guard()
  for step, loss in ((5, 3.0), (10, 1.0), (15, 3.0), (19, 3.0)):
    watch.look(step, {'train/loss': loss, 'train/critic_loss': 99.0})
  assert not caplog.records
  watch.look(20, {'train/loss': 3.0})
  assert 'train/loss is 3, out of config.generator_bounds=(0.1, 2.0) for 10 steps' in caplog.text


def test_it_stops_where_that_is_asked_for():
  watch = guard(on_collapse='stop')
  watch.look(10, {'train/loss': 0.5})
  with pytest.raises(errors.DivergenceError, match='Step 20: train/loss is 0.01'):
    watch.look(20, {'train/loss': 0.01})


def test_the_identity_is_told_once_after_a_tenth_of_the_run(caplog):
  watch = collapse.IdentityGuard(steps=100)
  for step, ratio in ((5, 1.0), (10, 0.99), (20, 0.9995), (30, 1.0)):
    watch.look(step, {'train/loss_over_input': ratio})
  watch.look(40, {})
  (record,) = caplog.records
  assert 'Step 20: the loss is 0.9995 of what the input itself would have' in record.getMessage()
