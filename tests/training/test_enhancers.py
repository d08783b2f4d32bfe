"""The three methods of Track 2 at the smallest sizes: trained, killed, resumed, evaluated, used on a video."""

import importlib
import json
import signal

import jax
import numpy as np
import pytest

from vqm_jax import checkpoints, inference
from vqm_jax.training import loop, progressive
from vqm_jax.training.adversarial import Adversarial

# Compiling takes a minute each: `./run.sh test -m slow`. test_adversarial.py has the quick ones.
pytestmark = pytest.mark.slow
METHODS = pytest.mark.parametrize('name', ['wespe', 'dpe', 'dacal'])


@pytest.fixture(scope='module')
def make_config(two_cameras_data):
  def make(name, **changes):
    config = importlib.import_module(f'experiments.{name}').get_config('tiny')
    small = {
      'wespe': dict(crop=32, system_args=dict(width=4, num_blocks=1), loss_args=dict(critic_width=0.05)),
      'dpe': dict(crop=64, system_args=dict(width=2, global_size=4), loss_args=dict(critic_width=2), critic_steps=2),
      'dacal': dict(crop=32, system_args=dict(width=2), num_frames=2, critic_steps=2),
    }[name]
    config.update(small)
    if name == 'dacal':
      config.loss_args.update(critic_width=2, features=4, marginals=8)
      config.stage_fields = (
        dict(dataset_config='micro_unpaired_tiles', sampling='clip'),
        dict(schedule='linear', schedule_args=dict(start=0.5)),
      )
      config.stage_shares = (0.5, 0.5)
    config.update(
      dataset_config='micro_weak_tiles' if name == 'dacal' else 'micro_unpaired_tiles', val_config='micro_weak_frames',
      data_dir=two_cameras_data, batch_size=4, crops_per_record=1, steps=2, log_every=1, save_every=1, eval_every=2,
      eval_frames=3,
    )  # fmt: skip
    config.update(changes)
    return config

  return make


@pytest.fixture(scope='module')
def runs(make_config, tmp_path_factory):
  """{method: (config, workdir, last state)} of runs that were never interrupted; each is made when it is asked for."""
  made = {}

  def get(name):
    if name not in made:
      config, workdir = make_config(name), tmp_path_factory.mktemp('runs') / name
      state = progressive.train(config, workdir, devices=jax.devices()[:1])
      made[name] = config, workdir, jax.device_get(state)
    return made[name]

  return get


def assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


@METHODS
def test_interrupted_between_two_updates_a_run_ends_the_same(name, runs, tmp_path, monkeypatch):
  config, _, whole = runs(name)
  interrupted, real = [], Adversarial.update

  def update(self, state, batch, index):
    if not interrupted and index == 1:
      interrupted.append(index)
      signal.raise_signal(signal.SIGTERM)
    return real(self, state, batch, index)

  monkeypatch.setattr(Adversarial, 'update', update)
  for _ in range(2):  # stopped after the first update of the critics
    state = progressive.train(config, tmp_path / name, devices=jax.devices()[:1])
  assert interrupted
  assert_equal(jax.device_get(state), whole)


@METHODS
def test_four_devices_make_the_same_curve(name, make_config):
  """Losses within 1 % of their size after an update of each side: float sums of gradients in another order."""
  config = make_config(name)
  config.stage_names = ()
  rng = np.random.default_rng(0)
  shape = (config.batch_size, config.num_frames, config.crop, config.crop, 3)
  batches = [{side: rng.integers(0, 256, shape, np.uint8) for side in ('lq', 'hq')} for _ in range(3)]
  curves = []
  for count in (1, 4):
    trainer = loop.make_trainer(config, jax.devices()[:count])
    state, curve = trainer.init(trainer.fresh()), []
    for index, batch in enumerate(batches):
      state, scalars = trainer.update(state, batch, index)
      curve.append({key: float(value) for key, value in scalars.items() if 'loss' in key or 'gap' in key})
    curves.append(curve)
  for one, four in zip(*curves, strict=True):
    for key, value in one.items():
      assert four[key] == pytest.approx(value, rel=1e-2, abs=1e-4), key


@METHODS
def test_a_run_is_evaluated_and_used_on_a_video(name, runs, tmp_path, binary, command):
  from vqm_jax import video

  _, workdir, _ = runs(name)
  run = inference.open_run(workdir)
  assert run.step == (1 if name == 'dacal' else 2) and run.config['system'] == name
  given = ['eval', f'--workdir={workdir}', '--metrics=colour,sharpness,warping,flicker,change,lpips_alex']
  blocked = ('av', 'cv2', 'tensorflow') if name == 'wespe' else ()  # evaluating records needs none of them
  if blocked:
    process = binary(*given, blocked=blocked)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
  else:
    done = command(*given)
    output = done.output
    assert done.returncode == 0, output
  summary = json.loads((workdir / 'eval' / 'test' / 'summary.json').read_text())
  assert (
    summary['aligned'] is False
    and set(summary['missing']) == {'lpips_alex', *(['warping'] if blocked else [])}
    and 'Source' in output
  )
  assert summary['metrics']['change']['mean'] >= 0 and summary['no_processing']['change']['mean'] == 0
  assert summary['train']['notes'] == (['content_loss=pixel'] if name == 'wespe' else [])

  colour = video.Colour('bt709', False)
  rng = np.random.default_rng(1)
  scene = [rng.integers(0, 256, (50, 74, 3), np.uint8) for _ in range(2)]
  frames = [scene[t // 20] for t in range(40)]
  video.encode([video.rgb_to_yuv(f, colour) for f in frames], tmp_path / 'in.mp4', fps=25, colour=colour, crf=12)
  given = ['enhance', f'--workdir={workdir}', f'--input={tmp_path}/in.mp4']
  done = command(*given, f'--output={tmp_path}/out.mp4')
  assert done.returncode == 0, done.output
  enhanced = video.open_video(tmp_path / 'out.mp4')
  assert (enhanced.num_frames, enhanced.height, enhanced.width) == (40, 50, 74)
  done = command(*given, f'--output={tmp_path}/t.mp4', '--tile=16')
  assert 'measures whole frames' in done.output and done.returncode == 2


def test_stages_of_dacal_hand_on_all_players_and_start_their_critics_weights_anew(runs):
  config, workdir, state = runs('dacal')
  first = workdir / 'stages' / 'quarter'
  assert json.loads((first / 'config.json').read_text())['config']['dataset_config'] == 'micro_unpaired_tiles'
  last = json.loads((workdir / 'config.json').read_text())['config']
  assert last['stage_names'] == ['quarter', 'full']
  assert int(state.updates) == 3 and float(state.penalties['critic_low']['weight']) == 10.0
  old = checkpoints.read_arrays(first / 'checkpoints', 3, 'params')
  new = checkpoints.read_arrays(workdir / 'checkpoints', 3, 'params')
  assert old.keys() == new.keys() and any(name.startswith('critic_high/') for name in old)
  moved = [np.abs(old[name] - new[name]).max() for name in old]
  assert 0 < max(moved) < 0.1  # by one update of each player, not by other initial values


def test_state_is_carried_through_a_clip_and_dropped_at_a_cut(runs):
  from vqm_jax import video

  network = inference.open_run(runs('dacal')[1]).network
  state = np.random.default_rng(0)
  for layer in (network.m2, network.a2):  # trained for a moment they would hardly do anything
    layer.kernel[...] = state.normal(0, 0.3, layer.kernel.shape).astype(np.float32)
  scenes = [state.integers(0, 256, (32, 48, 3), np.uint8) for _ in range(2)]
  frames = [scenes[t // 20] for t in range(40)]
  carried = list(inference.restore_frames(network, frames))
  with_cuts = list(inference.restore_frames(network, frames, find_cuts=video.mark_cuts))
  alone = list(inference.restore_frames(network, frames[20:]))
  assert [start for _, start in video.mark_cuts(iter(frames))] == [t == 20 for t in range(40)]
  for t in range(20):
    np.testing.assert_array_equal(with_cuts[t], carried[t])
    np.testing.assert_array_equal(with_cuts[20 + t], alone[t])
  assert any((a != b).any() for a, b in zip(carried[20:], alone, strict=True))
  assert any((a != b).any() for a, b in zip(carried[:1] * 19, carried[1:20], strict=True))  # it remembers
  third = list(inference.restore_frames(network, frames, every=3))
  for a, b in zip(third, carried[2::3], strict=True):
    np.testing.assert_array_equal(a, b)


def test_killed_outright_between_two_critic_updates_and_started_again(make_config, tmp_path, command):
  """A subprocess that dies by SIGKILL, as on a machine that loses power, ends in the parameters of one that did not."""
  config = make_config('wespe', critic_steps=3, steps=3)
  script = tmp_path / 'train.py'
  script.write_text(
    'import json, os, pathlib, signal, sys\n'
    'import jax\n'
    'import ml_collections\n'
    'from vqm_jax.training import adversarial, progressive\n'
    'config = ml_collections.ConfigDict(json.loads(pathlib.Path(sys.argv[1]).read_text()))\n'
    'kill, real = int(sys.argv[3]), adversarial.Adversarial.update\n'
    'def update(self, state, batch, index):\n'
    '  if index == kill:\n'
    '    os.kill(os.getpid(), signal.SIGKILL)\n'
    '  return real(self, state, batch, index)\n'
    'adversarial.Adversarial.update = update\n'
    'progressive.train(config, sys.argv[2], devices=jax.devices()[:1])\n'
  )
  (tmp_path / 'config.json').write_text(config.to_json())

  def start(workdir, kill):
    return command(script, tmp_path / 'config.json', workdir, kill)

  killed = start(tmp_path / 'killed', 10)  # cycles begin at 0, 4 and 8
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert checkpoints.steps(tmp_path / 'killed' / 'checkpoints')[-1] in (4, 8)  # the last one may not be on disk yet
  for workdir in ('killed', 'whole'):
    done = start(tmp_path / workdir, -1)
    assert done.returncode == 0, done.stderr
  ends = [checkpoints.read_arrays(tmp_path / w / 'checkpoints', 12, 'params') for w in ('killed', 'whole')]
  for name, array in ends[0].items():
    np.testing.assert_array_equal(array, ends[1][name], err_msg=name)
