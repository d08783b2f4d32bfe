"""Every experiment: its config is whole, and its `:tiny` trains, evaluates and resumes."""

import functools
import importlib
import pathlib
import shutil

import jax
import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax import checkpoints, cli, data, enhancers, errors, inference, restorers
from vqm_jax import config as configs
from vqm_jax.evaluation import scoring
from vqm_jax.training import progressive

EXPERIMENTS = sorted(path.stem for path in (cli.ROOT / 'experiments').glob('*.py') if path.stem != 'common')


def get_config(name, size='full'):
  return importlib.import_module(f'experiments.{name}').get_config(size)


@pytest.fixture
def micro_config(micro_data):
  """Makes an experiment's `:tiny` config on the micro data: four steps of a moment each, saved at every second one."""

  def make(name, **changes):
    config = get_config(name, 'tiny')
    config.update(
      data_dir=micro_data, dataset_config='micro_tiles', val_config='micro_frames', crop=32, batch_size=2, steps=4,
      log_every=2, save_every=2, eval_every=4, eval_frames=1, keep_last=3,
    )  # fmt: skip
    if config.optimizer == 'muon':  # five iterations for every kernel, all unrolled, take most of the compilation
      config.optimizer_args = dict(ns_steps=1)
    config.update(changes)
    config.lock()
    return config

  return make


def train(config, folder):
  return jax.device_get(progressive.train(config, folder, devices=jax.devices()[:1]))


def evaluate(folder):
  run = inference.open_run(folder)
  source = data.open_source('vqm_demo', 'micro_frames', 'test', run.config['data_dir'])
  restore = functools.partial(inference.restore_frames, run.network)
  return scoring.mean_scores(scoring.evaluate_clips(restore, data.ClipReader(source)))


def test_every_trainable_system_has_an_experiment():
  systems = {get_config(name).system for name in EXPERIMENTS}
  assert systems == (restorers.NETWORKS.keys() | enhancers.METHODS.keys()) - {'none'}


@pytest.mark.parametrize('size', ['full', 'tiny'])
@pytest.mark.parametrize('name', EXPERIMENTS)
def test_config_fits_its_network(name, size):
  config = get_config(name, size)
  configs.check(config)
  network = nnx.eval_shape(lambda: inference.create_network(config))
  frames = getattr(network, 'num_frames', config.num_frames)  # recurrent generators take any number
  assert (frames, config.crop % network.size_multiple) == (config.num_frames, 0)
  if size == 'full' and name != 'web_small':  # which is of no published size
    create = enhancers.create_generator if config.system in enhancers.METHODS else restorers.create
    assert inference.count_params(network) == networks.count(functools.partial(create, config.system))
  else:
    assert inference.count_params(network) < 2_000_000
  stages = progressive.stages(config, pathlib.Path('runs')) if config.stage_names else []
  assert sum(stage.config.steps for stage in stages) == (config.steps if stages else 0)


def test_an_unknown_size_is_refused_by_name():
  with pytest.raises(ValueError, match=r'experiments/gtq.py:huge is unknown; use experiments/gtq.py or'):
    get_config('gtq', 'huge')


def dropped_to(step, source, target):
  """A copy of a run as if it had died after `step`."""
  shutil.copytree(source, target)
  for later in [s for s in checkpoints.steps(target / 'checkpoints') if s > step]:
    shutil.rmtree(target / 'checkpoints' / str(later))
  return target


def _trained_here(name):
  """Those that grow are trained in test_progressive.py, enhancers in test_enhancers.py, in the same way."""
  config = get_config(name)
  return not config.stage_names and config.system not in enhancers.METHODS


# The others take up to a minute each, and are the same but for their networks: `./run.sh test -m slow`.
_QUICK = ('ecnu',)
_TRAINED = [
  name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in filter(_trained_here, EXPERIMENTS)
]


@pytest.mark.parametrize('name', _TRAINED)
def test_tiny_trains_evaluates_and_resumes(name, micro_config, tmp_path):
  config = micro_config(name)
  whole = train(config, tmp_path / 'whole')
  assert int(whole.step) == 4
  resumed = train(config, dropped_to(2, tmp_path / 'whole', tmp_path / 'again'))
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
    np.testing.assert_array_equal(a, b)
  scores = evaluate(tmp_path / 'whole')
  assert np.isfinite(scores['ssim']) and -10 < scores['gain'] < 3  # four steps; GIL starts at a random residual


def test_training_needs_what_the_network_looks_at(micro_config, tmp_path):
  with pytest.raises(errors.ConfigError, match=r'config.num_frames=1, but .* looks at 3 frames'):
    train(micro_config('tcl_edvr', num_frames=1), tmp_path / 'run')
  with pytest.raises(errors.ConfigError, match='config.crop=24 must be a multiple of 16'):
    train(micro_config('tcl_edvr', crop=24), tmp_path / 'run')
