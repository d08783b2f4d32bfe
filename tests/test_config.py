"""Every field is said once: its default, what it may be, whether it defines the run."""

import importlib
import pathlib

import pytest

from vqm_jax import config as configs
from vqm_jax import errors

EXPERIMENTS = sorted(path.stem for path in pathlib.Path('experiments').glob('*.py') if path.stem != 'common')


def test_every_field_of_every_experiment_is_known():
  for name in EXPERIMENTS:
    for size in ('full', 'tiny'):
      config = importlib.import_module(f'experiments.{name}').get_config(size)
      assert set(config.keys()) <= configs.FIELDS.keys(), name
      configs.check(config)


def test_enhancers_have_no_pixel_loss_and_their_own_defaults():
  config = configs.adversarial_config()
  assert 'loss' not in config and config.dataset == 'vid3oc' and config.critic_steps == 1
  assert configs.base_config().dataset == 'intvid' and 'critic_steps' not in configs.base_config()


def test_defaults_are_not_shared_between_configs():
  configs.base_config().system_args.width = 4
  assert configs.base_config().system_args.to_dict() == {}


@pytest.mark.parametrize(
  'name, value, problem',
  [
    ('batch_size', 0, 'config.batch_size=0 must be at least 1.'),
    ('warmup', 1.0, 'config.warmup=1.0 must be in [0, 1).'),
    ('ema', -0.1, 'config.ema=-0.1 must be in [0, 1).'),
    ('dtype', 'float16', "config.dtype='float16' must be 'float32' or 'bfloat16'."),
    ('on_collapse', 'go', "config.on_collapse='go' must be 'warn' or 'stop'."),
    ('grad_accum', 3, 'config.grad_accum=3 does not divide config.batch_size=16.'),
  ],
)
def test_check_names_field_value_and_what_it_must_be(name, value, problem):
  config = configs.adversarial_config()
  config[name] = value
  with pytest.raises(errors.ConfigError) as caught:
    configs.check(config)
  assert str(caught.value) == problem


def test_what_may_change_when_a_run_is_resumed():
  assert {'steps', 'data_dir', 'log_every', 'on_divergence', 'generator_bounds'} <= configs.OPERATION
  assert not {'system', 'lr', 'seed', 'batch_size', 'critic_steps', 'num_frames'} & configs.OPERATION


def test_flat_and_resolved():
  config = configs.base_config()
  config.system_args.width, config.mix_with = 8, ('a/b',)
  plain = configs.resolved(config)
  assert plain['mix_with'] == ['a/b']
  assert configs.flat(plain)['system_args.width'] == 8
