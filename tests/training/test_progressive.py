"""Stages: one program trains them in order, a grown network starts as its parent, and mismatches are errors.

Compiling three stages takes a minute and more: those tests run with `./run.sh test -m slow`.
"""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import boss_f1, ecnu
from vqm_jax import checkpoints, errors, inference
from vqm_jax.training import loop, progressive
from vqm_jax.training.supervised import Supervised


@pytest.fixture(scope='module')
def config(micro_data):
  """BossGao's F1 in three stages of 4, 2 and 4 steps, as small as it gets."""
  config = boss_f1.get_config('tiny')
  config.system_args.update(width=8, num_front=1, groups=2, num_blocks=3, num_frames=3)
  config.update(
    data_dir=micro_data, dataset_config='micro_tiles', val_config='micro_frames', crop=32, batch_size=2, num_frames=3,
    steps=10, log_every=2, save_every=2, eval_every=4, eval_frames=1, keep_last=3,
    stage_shares=(0.4, 0.2, 0.4), optimizer_args=dict(ns_steps=1),  # of Muon: five would take most of the compilation
  )  # fmt: skip
  return config


def train(config, folder):
  return jax.device_get(progressive.train(config, folder, devices=jax.devices()[:1]))


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
  folder = tmp_path_factory.mktemp('progressive') / 'f1'
  return folder, train(config, folder)


def changed(config, **changes):
  config = config.copy_and_resolve_references()
  config.update(changes)
  return config


@pytest.mark.slow
def test_every_stage_is_a_run_and_the_last_one_is_the_workdir(whole, config):
  folder, state = whole
  assert int(state.step) == 4
  steps = {name: checkpoints.steps(folder / name / 'checkpoints')[-1] for name in ('stages/1a', 'stages/1b', '.')}
  assert steps == {'stages/1a': 4, 'stages/1b': 2, '.': 4}
  assert inference.read_config(folder) == json.loads(config.to_json())
  assert inference.read_config(folder / 'stages' / '1a')['system_args']['fusion'] == 'conv'
  counts = [inference.open_run(folder / name).num_params for name in ('stages/1a', 'stages/1b', '.')]
  assert counts == sorted(counts) and len(set(counts)) == 3


@pytest.mark.slow
def test_what_was_copied_and_what_is_new_is_written_down(whole):
  folder, _ = whole
  assert not (folder / 'stages' / '1a' / 'growth.json').exists()
  growth = json.loads((folder / 'stages' / '1b' / 'growth.json').read_text())
  assert growth['step'] == 4 and growth['parent'].endswith('stages/1a')
  assert all(leaf.startswith('fusion/') for leaf in growth['new']) and 'fusion/embed/kernel' in growth['new']
  assert 'fusion/fuse/kernel' in growth['copied'] and 'tail/last/kernel' in growth['copied']
  growth = json.loads((folder / 'growth.json').read_text())
  assert {leaf.split('/')[2] for leaf in growth['new']} == {'1', '2'} and 'fusion/embed/kernel' in growth['copied']


@pytest.mark.slow
@pytest.mark.parametrize('index', [1, 2])
def test_a_grown_network_is_its_parent_before_the_first_update(whole, config, index):
  folder, _ = whole
  stage = progressive.stages(config, folder)[index]
  trainer = Supervised(stage.config, jax.devices()[:1])
  params = progressive.grown_params(stage, trainer)
  clip = jax.random.uniform(jax.random.key(0), (1, 3, 32, 32, 3))
  parent = inference.load(stage.config.init_from, step='latest')
  network = trainer.network(trainer.init(params))
  np.testing.assert_allclose(jax.jit(network)(clip), jax.jit(parent)(clip), atol=1e-5)


@pytest.mark.slow
def test_resuming_within_any_stage_is_exact(whole, config, tmp_path):
  folder, state = whole
  for stage, step in (('stages/1a', 2), ('.', 2)):
    copy = shutil.copytree(folder, tmp_path / f'died_in_{stage.replace("/", "_")}')
    if stage != '.':  # nothing of later stages exists yet
      shutil.rmtree(copy / 'stages' / '1b')
      for name in ('checkpoints', 'metrics.jsonl', 'growth.json'):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for later in [s for s in checkpoints.steps(copy / stage / 'checkpoints') if s > step]:
      shutil.rmtree(copy / stage / 'checkpoints' / str(later))
    for a, b in zip(jax.tree.leaves(train(config, copy)), jax.tree.leaves(state), strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_stop_in_one_stage_does_not_begin_the_next(config, tmp_path, monkeypatch):
  monkeypatch.setattr(loop._StopRequest, 'reached', lambda self, saver, step: step == 2)
  state = train(config, tmp_path / 'run')
  assert int(state.step) == 2
  assert checkpoints.steps(tmp_path / 'run' / 'stages' / '1a' / 'checkpoints') == [2]
  assert not (tmp_path / 'run' / 'stages' / '1b').exists()


@pytest.mark.slow
def test_a_single_last_stage_grows_out_of_another_run(whole, config, tmp_path):
  folder, _ = whole
  alone = changed(
    config, stage_names=('1c',), stage_args=({},), stage_new=(('trunk/blocks',),), stage_shares=(1.0,), steps=2,
    init_from=str(folder / 'stages' / '1b'),
  )  # fmt: skip
  train(alone, tmp_path / 'run')
  assert len(json.loads((tmp_path / 'run' / 'growth.json').read_text())['new']) == 8


@pytest.mark.slow
def test_a_parent_of_another_network_is_refused_by_leaf(whole, config, tmp_path):
  folder, _ = whole
  stage = progressive.stages(config, folder)[1]
  trainer = Supervised(stage.config, jax.devices()[:1])

  def refuse(match, **changes):
    other = progressive.Stage('1b', changed(stage.config, **changes), tmp_path, stage.new)
    with pytest.raises(errors.CheckpointError, match=match):
      progressive.grown_params(other, trainer)

  refuse(r'Stage 1b cannot grow out of .*: it adds nothing', init_from=str(folder / 'stages' / '1b'))
  refuse(r'leaves do not fit, first .*expected the same network but for fusion', init_from=str(folder))
  refuse('is not a workdir', init_from=str(tmp_path))
  unforeseen = progressive.Stage('1b', stage.config, tmp_path, ('trunk',))
  with pytest.raises(errors.CheckpointError, match='first fusion/'):
    progressive.grown_params(unforeseen, trainer)
  assert not (tmp_path / 'growth.json').exists()


@pytest.mark.slow
def test_a_network_that_cannot_grow_says_so(config, whole, tmp_path):
  other = ecnu.get_config('tiny')
  other.init_from = str(whole[0])
  stage = progressive.Stage('b', other, tmp_path, ('blocks',))
  with pytest.raises(errors.ConfigError, match="system='ecnu' does not know how to grow"):
    progressive.grown_params(stage, Supervised(other, jax.devices()[:1]))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(stage_shares=(0.5, 0.5)), r'need one entry each .*stage_shares.: 2'),
    (dict(stage_shares=(0.5, 0.4, 0.4)), 'positive shares that add up to 1'),
    (dict(stage_names=('a', 'a', 'b')), 'expected different names'),
    (dict(stage_names=('a', '../b', 'c')), 'names that can be folders'),
    (dict(steps=0), 'config.steps=0'),
  ],
)
def test_stages_that_do_not_fit_are_refused_before_anything_is_written(config, tmp_path, change, message):
  with pytest.raises(errors.ConfigError, match=message):
    train(changed(config, **change), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_every_new_leaf_moves_with_the_second_update(whole, config):
  """The first one cannot reach what lies before weights of zero."""
  stage = progressive.stages(config, whole[0])[1]
  trainer = Supervised(stage.config, jax.devices()[:1])
  state = trainer.init(progressive.grown_params(stage, trainer))
  before = jax.device_get(checkpoints.flatten(state.params))
  rng = np.random.default_rng(0)
  batch = {side: rng.integers(0, 256, (2, 3, 32, 32, 3), np.uint8) for side in ('lq', 'hq')}
  for _ in range(3):
    state, _ = trainer.update(state, batch, 0)
  after = jax.device_get(checkpoints.flatten(state.params))
  still = [name for name in before if name.startswith('fusion/') and jnp.array_equal(before[name], after[name])]
  assert not still
