"""The adversarial loop, with a method of a few parameters; the real ones are in test_enhancers.py."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shipped_weights
from flax import nnx

from experiments import common
from vqm_jax import checkpoints, enhancers, errors, inference, losses
from vqm_jax.enhancers import base
from vqm_jax.enhancers.dpe import IndividualBatchNorm
from vqm_jax.training import collapse, loop
from vqm_jax.training.adversarial import Adversarial


class ToyGenerator(base.FrameGenerator):
  """A colour matrix behind a batch normalisation: frame + mix(normalised frame)."""

  size_multiple = 2

  def __init__(self, axis_name=None, *, dtype=jnp.float32, rngs):
    self.norm = IndividualBatchNorm(3, axis_name)
    self.mix = nnx.Linear(3, 3, dtype=dtype, kernel_init=nnx.initializers.normal(0.1), rngs=rngs)

  def map(self, frames, train):
    return frames + self.mix(self.norm(frames, 0, train))

  def enhance(self, frames):
    return self.map(frames, train=False)


class Toy(base.Enhancer):
  """One critic that looks at mean colours, with a steered penalty; a frozen number scales the generator's loss."""

  critics = ('critic',)

  def __init__(self, generator_args, *, patch, axis_name=None, dtype=jnp.float32, rngs, poison=0.0):
    del patch
    self.generator = ToyGenerator(**generator_args, axis_name=axis_name, dtype=dtype, rngs=rngs)
    self.critic = nnx.Linear(3, 1, rngs=rngs)
    self.scale = base.Frozen(jnp.float32(2.0))
    self.poison = poison

  def look(self, images):
    return self.critic(jnp.square(images).mean((1, 2)))[:, 0]

  def generator_loss(self, x, y, keys):
    made = self.generator.map(base.images(x), train=True)
    noise = jax.vmap(jax.random.uniform)(keys)  # one number for each sample, wherever it lies
    change = jnp.square(made - base.images(x)).mean((1, 2, 3)) * (1 + noise)
    terms = {'adversarial': -self.look(made).mean(), 'noise': noise.mean()}
    return self.scale[...] * terms['adversarial'] + change.mean(), terms

  def critic_loss(self, x, y, keys, weights):
    made = jax.lax.stop_gradient(self.generator.enhance(base.images(x)))
    gap = self.look(base.images(y)).mean() - self.look(made).mean()
    penalty = losses.gradient_penalty(self.look, base.images(y), made, keys)
    loss = weights['critic'] * penalty - gap + jnp.log(1.0 - self.poison)
    return loss, ({'critic_gap': gap}, {'critic': penalty})

  def adaptive_weights(self):
    return {'critic': losses.AdaptiveWeight(cooldown=2)}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  monkeypatch.setitem(enhancers.METHODS, 'toy', (ToyGenerator, Toy))


@pytest.fixture
def config(two_cameras_data):
  config = common.adversarial_config()
  config.system = 'toy'
  config.update(
    dataset='vqm_demo', data_dir=two_cameras_data, dataset_config='micro_unpaired_tiles', sampling='unpaired',
    val_config='micro_weak_frames', crop=16, batch_size=4, steps=4, critic_steps=2, lr=1e-2, critic_lr=2e-2, ema=0.5,
    schedule='linear', log_every=1, save_every=1, eval_every=4, eval_frames=2, keep_last=9,
  )  # fmt: skip
  return config


def batch_of(config, seed):
  rng = np.random.default_rng(seed)
  shape = (config.batch_size, 1, config.crop, config.crop, 3)
  return {'lq': rng.integers(0, 128, shape, np.uint8), 'hq': rng.integers(64, 256, shape, np.uint8)}


def updates(trainer, config, state, first, last):
  """Makes the updates first, ..., last - 1; returns the state and the scalars of each."""
  seen = []
  for index in range(first, last):
    state, scalars = trainer.update(state, batch_of(config, index), index)
    seen.append(jax.device_get(scalars))
  return state, seen


def assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def changed(a, b):
  """Top-level names under which two trees differ."""
  return {
    name for name in a if any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (a[name], b[name])), strict=True))
  }


def test_each_side_moves_its_own_players_and_nothing_else(config):
  trainer = Adversarial(config, jax.devices()[:1])
  assert trainer.updates_per_step == 3
  state = start = jax.device_get(trainer.init(trainer.fresh()))
  after, (generator, critic, _) = updates(trainer, config, trainer.init(trainer.fresh()), 0, 3)
  one, _ = updates(trainer, config, trainer.init(trainer.fresh()), 0, 1)
  deployed, first = trainer.network(one), jax.device_get(one)
  assert changed(first.params, start.params) == {'generator'} and changed(first.stats, start.stats) == {'generator'}
  after = jax.device_get(after)
  assert changed(after.params, first.params) == {'critic'} and not changed(after.stats, first.stats)
  for averaged, part in (('generator', 'params'), ('stats', 'stats')):  # weights, and what was measured with them
    pair = (getattr(s, part)['generator'] for s in (start, first))
    assert_equal(first.ema[averaged], jax.tree.map(lambda a, b: 0.5 * (a + b), *pair))
  np.testing.assert_array_equal(deployed.norm.mean[...], first.ema['stats']['norm']['mean'])
  assert int(after.updates) == 3 and 'scale' not in state.params
  assert {'train/loss', 'train/grad_norm', 'generator/adversarial'} <= generator.keys()
  assert {'train/critic_loss', 'critic/critic_gap', 'critic/critic_weight'} <= critic.keys()
  assert 'train/loss' not in critic


def test_penalty_weight_is_steered_by_what_the_critic_showed(config):
  config.steps = 8
  trainer = Adversarial(config, jax.devices()[:1])
  state, seen = updates(trainer, config, trainer.init(trainer.fresh()), 0, 9)
  weights = [float(s['critic/critic_weight']) for s in seen if 'critic/critic_weight' in s]
  assert weights[0] == 10.0 and weights[-1] < 10.0  # a linear critic of small slope: no penalty, so less weight
  assert float(state.penalties['critic']['weight']) <= weights[-1]


def test_no_update_moves_anything_unasked(config):
  trainer = Adversarial(config, jax.devices()[:2])
  state, _ = updates(trainer, config, trainer.init(trainer.fresh()), 0, 3)  # compiles those of both sides
  with jax.transfer_guard('disallow'):
    for index in range(3, 6):
      state, scalars = trainer.update(state, batch_of(config, index), index)
    assert int(jax.device_get(state.updates)) == 6 and jax.device_get(scalars)


@pytest.mark.parametrize('devices', [2, 4])
def test_device_count_does_not_change_the_curve(config, devices):
  """Batch statistics and the samples' random numbers are those of the whole batch."""
  config.optimizer, config.critic_optimizer_args = 'sgd', {}
  ends = []
  for count in (1, devices):
    trainer = Adversarial(config, jax.devices()[:count])
    state, seen = updates(trainer, config, trainer.init(trainer.fresh()), 0, 6)
    ends.append((jax.device_get((state.params, state.stats, state.penalties)), seen))
  for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
    np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-6)


def train(config, workdir, devices=1):
  return jax.device_get(loop.train(config, workdir, devices=jax.devices()[:devices]))


def records(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_resume_is_exact_between_steps_and_between_two_critic_updates(config, tmp_path, monkeypatch, caplog):
  caplog.set_level('INFO')
  whole = train(config, tmp_path / 'whole')
  assert checkpoints.steps(tmp_path / 'whole' / 'checkpoints') == [3, 6, 9, 12]
  meta = checkpoints.read_meta(tmp_path / 'whole' / 'checkpoints', 12)
  assert (meta['step'], meta['updates'], meta['samples']) == (4, 12, 48) and meta['seconds'] > 0 and meta['hardware']

  interrupted, real = [], Adversarial.update

  def update(self, state, batch, index):
    if index + 1 in (2, 7) and index + 1 not in interrupted:  # within the first and the third cycle
      interrupted.append(index + 1)
      signal.raise_signal(signal.SIGTERM)
    return real(self, state, batch, index)

  monkeypatch.setattr(Adversarial, 'update', update)
  for expected in (2, 7, 12):
    state = train(config, tmp_path / 'stopped')
    assert int(state.updates) == expected
  assert_equal(state, whole)
  assert 'Resuming at step 2 of 4' in caplog.text
  curves = [
    [(r['step'], r['train/loss']) for r in records(tmp_path / w) if 'train/loss' in r] for w in ('whole', 'stopped')
  ]
  assert [step for step, _ in curves[0]] == [1, 2, 3, 4]
  # The line of the interrupted first step lacks its generator update, which was made before the interruption.
  assert set(curves[1]) < set(curves[0]) or curves[0] == curves[1]


def test_a_run_leaves_pictures_clips_and_scores_and_is_opened_by_its_generator(config, tmp_path):
  train(config, tmp_path / 'run')
  (line,) = [r for r in records(tmp_path / 'run') if 'val/colour' in r]
  assert line['val/colour'] > 0 and line['val/colour_source'] > 0 and line['val/change'] > 0
  (clip,) = (tmp_path / 'run' / 'samples').iterdir()
  assert {p.suffix for p in clip.iterdir()} == {'.png', '.webp'}
  from PIL import Image

  with Image.open(clip / '0000004.webp') as moving:
    assert moving.n_frames == 2
  run = inference.open_run(tmp_path / 'run')
  assert (run.step, run.checkpoint, run.ema, run.num_params) == (4, 12, True, 24)
  assert run.training['hardware'].endswith('CPU') and run.training['seconds'] > 0
  state = checkpoints.read_arrays(tmp_path / 'run' / 'checkpoints', 12, 'ema')
  np.testing.assert_array_equal(run.network.mix.kernel[...], state['generator/mix/kernel'])
  np.testing.assert_array_equal(run.network.norm.mean[...], state['stats/norm/mean'])
  stats = checkpoints.read_arrays(tmp_path / 'run' / 'checkpoints', 12, 'stats')
  plain = inference.open_run(tmp_path / 'run', ema=False).network
  np.testing.assert_array_equal(plain.norm.mean[...], stats['generator/norm/mean'])
  assert (stats['generator/norm/mean'] != state['stats/norm/mean']).any()
  frames = [np.full((6, 10, 3), 100, np.uint8)] * 2
  assert len(list(inference.restore_frames(run.network, frames))) == 2
  with pytest.raises(errors.ConfigError, match='measures whole frames'):
    next(inference.restore_frames(run.network, frames, tile=(4, 4)))


def test_warm_start_takes_all_players_and_their_statistics(config, tmp_path, caplog):
  caplog.set_level('INFO')
  train(config, tmp_path / 'first')
  old = Adversarial(config, jax.devices()[:1]).read(tmp_path / 'first', 'latest')[0]
  config.init_from, config.lr = str(tmp_path / 'first'), 1e-3
  trainer = Adversarial(config, jax.devices()[:1])
  state = trainer.init(loop.init_params(config, trainer))
  np.testing.assert_array_equal(state.params['critic']['kernel'], old['params/critic/kernel'])
  np.testing.assert_array_equal(state.stats['generator']['norm']['var'], old['stats/generator/norm/var'])
  assert int(state.updates) == 0 and '0 new' in caplog.text


def test_weights_that_ship_are_no_players(config, tmp_path, monkeypatch):
  shipped_weights.empty(monkeypatch, tmp_path / 'checkout')
  shipped_weights.add('web-small')
  config.init_from, trainer = 'web-small', Adversarial(config, jax.devices()[:1])
  message = r'^config\.init_from=web-small: weights that ship are of a network alone, expected those of all players of '
  with pytest.raises(errors.ConfigError, match=message):
    loop.init_params(config, trainer)


def test_not_a_number_in_one_player_names_it_and_the_step(config, tmp_path):
  config.loss_args.poison = 1.5  # log of a negative number, in the critic's loss alone
  with pytest.raises(errors.DivergenceError, match=r'train/critic_loss is nan at step 1'):
    train(config, tmp_path / 'run')
  assert not checkpoints.steps(tmp_path / 'run' / 'checkpoints')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(grad_accum=2), 'config.grad_accum=2'),
    (dict(critic_steps=0), 'config.critic_steps=0'),
    (dict(loss_args=dict(wrong=1)), "loss_args does not fit system='toy'.*wrong"),
    (dict(system_args=dict(wrong=1)), "system_args does not fit system='toy'.*wrong"),
    (dict(loss_args=dict(allow_random=True)), 'allow_random is for tests'),
    (dict(crop=15), 'config.crop=15 must be a multiple of 2'),
    (dict(num_frames=3), "num_frames=3, but system='toy' looks at 1 frames"),
  ],
)
def test_wrong_fields_are_named_before_anything_is_written(config, tmp_path, change, message):
  config.update(change)
  with pytest.raises(errors.ConfigError, match=message):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_every_sampling_of_track_2_can_be_trained_on(config, tmp_path):
  config.update(steps=1, eval_every=1)
  for sampling in ('clip', 'identity', 'weak'):
    config.sampling = sampling
    config.dataset_config = 'micro_weak_tiles' if sampling == 'weak' else 'micro_unpaired_tiles'
    assert int(train(config, tmp_path / sampling).updates) == 3


def test_a_config_without_critics_is_refused(config):
  plain = common.base_config()
  plain.system = 'toy'
  with pytest.raises(errors.ConfigError, match=r"system='toy' is trained against critics.*adversarial_config"):
    Adversarial(plain)


def test_records_of_one_domain_are_refused(config, tmp_path):
  config.dataset_config = 'micro_weak_tiles'
  with pytest.raises(errors.DataError, match="sampling='unpaired' needs FrameStrips frames"):
    train(config, tmp_path / 'run')


def test_step_lowers_for_accelerators(config):
  trainer = Adversarial(config, jax.devices()[:1])
  state, batch = trainer.abstract_state(), batch_of(config, 0)
  for lowered in trainer.lower(state, batch, ('cpu', 'cuda', 'tpu')):
    assert 'func' in lowered.as_text()


def test_collapse_is_warned_of_after_a_while_and_stops_when_asked(config, caplog):
  config.update(critic_bounds=(0.0, 1.0), collapse_steps=10)
  guard = collapse.CollapseGuard(config)
  for step, loss in ((5, 0.5), (10, -3.0), (12, 0.5), (15, -1.0), (20, -1.0), (22, -1.0)):
    guard.look(step, {'train/critic_loss': loss})
  assert len(caplog.records) == 1 and 'for 10 steps' in caplog.text and 'config.critic_bounds=(0.0, 1.0)' in caplog.text
  config.on_collapse = 'stop'
  guard = collapse.CollapseGuard(config)
  guard.look(5, {'train/critic_loss': 7.0})
  with pytest.raises(errors.DivergenceError, match='probably collapsed'):
    guard.look(20, {'train/critic_loss': 7.0})


def test_critics_without_a_generator_are_refused(config):
  config.system = 'ecnu'
  config.system_args = {}
  with pytest.raises(errors.ConfigError, match=r"system='ecnu' is trained with a pixel loss.*base_config"):
    loop.make_trainer(config)
