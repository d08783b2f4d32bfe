import numpy as np
import pytest

from experiments import common, ecnu
from vqm_jax import errors
from vqm_jax.training import optimizer


def test_step_schedule_halves_at_fractions_of_the_run():
  config = ecnu.get_config()
  _, rate = optimizer.create(config)
  n = config.steps
  at = [float(rate(round(f * n))) for f in (0, 0.19, 0.21, 0.41, 0.61, 0.81, 1)]
  np.testing.assert_allclose(at, [1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5, 6.25e-5], rtol=1e-6)


def test_milestones_count_from_the_start_of_the_run_with_warm_up_too():
  rate = optimizer.schedule('step', 1.0, 1000, warmup=0.1, milestones=(0.5,), factor=0.1)
  np.testing.assert_allclose([float(rate(s)) for s in (0, 50, 100, 499, 501)], [0, 0.5, 1, 1, 0.1], rtol=1e-6)


def test_cosine_ends_at_its_fraction():
  rate = optimizer.schedule('cosine', 2e-3, 1000, warmup=0.02, end=0.01)
  np.testing.assert_allclose([float(rate(s)) for s in (0, 20, 1000)], [0, 2e-3, 2e-5], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(optimizer='adamm'), "optimizer='adamm' is unknown; choose one of"),
    (dict(schedule='linea'), "schedule='linea' is unknown; choose one of"),
    (dict(schedule_args=dict(ende=0.1)), 'schedule_args or optimizer_args do not fit'),
    (dict(optimizer_args=dict(beta=0.1)), 'schedule_args or optimizer_args do not fit'),
  ],
)
def test_wrong_names_are_config_errors(change, message):
  config = common.base_config()
  config.update(change)
  with pytest.raises(errors.ConfigError, match=message):
    optimizer.create(config)
