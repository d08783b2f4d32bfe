import collections
import json
import os
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pytest
import shipped_weights

from vqm_jax import checkpoints, errors, inference, locks
from vqm_jax import workdir as workdirs
from vqm_jax.prepare.demo.rendered import LQ_CRF
from vqm_jax.training import loop
from vqm_jax.training.supervised import Supervised


def train(config, workdir, devices=1, **kwargs):
  return jax.device_get(loop.train(config, workdir, devices=jax.devices()[:devices], **kwargs))


def records(workdir):
  return [json.loads(line) for line in (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()]


def assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


@pytest.fixture(scope='module')
def whole(tmp_path_factory, make_tiny_config):
  """A run that was never interrupted: (config, workdir, last state)."""
  config = make_tiny_config(keep_last=5)
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  return config, workdir, train(config, workdir)


def copy_until(whole, tmp_path, step):
  """A copy of the run as if it had died after `step`."""
  config, workdir, _ = whole
  copy = tmp_path / 'again'
  shutil.copytree(workdir, copy)
  for later in checkpoints.steps(copy / 'checkpoints'):
    if later > step:
      shutil.rmtree(copy / 'checkpoints' / str(later))
  return config, copy


def test_a_run_leaves_what_explains_it(whole):
  config, workdir, state = whole
  assert int(state.step) == 6
  assert json.loads((workdir / 'config.json').read_text())['config'] == json.loads(config.to_json())
  trained_on = inference.open_run(workdir).trained_on
  assert trained_on['crf'] == [LQ_CRF, LQ_CRF] and LQ_CRF - 3 < trained_on['qp'][0] <= trained_on['qp'][1] < LQ_CRF + 10
  assert checkpoints.steps(workdir / 'checkpoints') == [2, 4, 6]
  assert checkpoints.read_meta(workdir / 'checkpoints', 6)['samples'] == 48
  train_steps = [r['step'] for r in records(workdir) if 'train/loss' in r]
  assert train_steps == [2, 4, 6]
  (validated,) = [r for r in records(workdir) if 'val/psnr' in r]
  assert checkpoints.validation_psnr(workdir / 'checkpoints', 6) == pytest.approx(validated['val/psnr'])
  assert list(workdir.glob('events.out.tfevents.*'))
  (sample,) = (workdir / 'samples').glob('*/*.png')
  from PIL import Image

  assert Image.open(sample).size[0] > 4 * 96


def test_a_run_that_does_not_leave_the_identity_is_warned_of_once(tiny_config, tmp_path, caplog):
  tiny_config.update(lr=1e-9, steps=8, log_every=2, save_every=8, eval_every=8)
  train(tiny_config, tmp_path)
  ratios = [r['train/loss_over_input'] for r in records(tmp_path) if 'train/loss' in r]
  assert len(ratios) == 4 and min(ratios) > 0.999
  assert caplog.text.count('still gives its input back') == 1
  assert all('train/input_loss' not in r for r in records(tmp_path))


@pytest.mark.parametrize('grad_accum', [1, 2])
def test_no_step_moves_anything_unasked(tiny_config, tmp_path, monkeypatch, grad_accum):
  """Between host and devices: an implicit transfer in a step would make it wait."""
  tiny_config.update(grad_accum=grad_accum, steps=4, save_every=4, eval_every=4)
  update, fetch, guarded = Supervised.update, loop._fetch, []

  def guarded_update(self, state, batch, index):
    if index < 2:  # compiles
      return update(self, state, batch, index)
    guarded.append(index)
    with jax.transfer_guard('disallow'):
      return update(self, state, batch, index)

  def guarded_fetch(*args):
    with jax.transfer_guard('disallow'):
      return fetch(*args)

  monkeypatch.setattr(Supervised, 'update', guarded_update)
  monkeypatch.setattr(loop, '_fetch', guarded_fetch)
  assert int(train(tiny_config, tmp_path, devices=4).step) == 4 and guarded == [2, 3]


@pytest.mark.parametrize('step', [2, 4])
def test_resuming_is_exact(whole, tmp_path, step):
  config, copy = copy_until(whole, tmp_path, step)
  assert_equal(train(config, copy), whole[2])
  assert [r['step'] for r in records(copy) if 'train/loss' in r] == [2, 4, 6]  # no line twice
  again, before = ([r['train/loss'] for r in records(w) if 'train/loss' in r] for w in (copy, whole[1]))
  assert again == before


@pytest.mark.slow
def test_workers_do_not_change_the_run(whole, tmp_path):
  config, copy = copy_until(whole, tmp_path, 4)
  config = config.copy_and_resolve_references()
  config.num_workers = 1
  assert_equal(train(config, copy), whole[2])


def test_data_on_the_device_do_not_change_the_run(whole, tmp_path, caplog):
  config, copy = copy_until(whole, tmp_path, 4)
  config = config.copy_and_resolve_references()
  config.data_on_device = True
  caplog.set_level('INFO')
  assert_equal(train(config, copy), whole[2])
  assert 'vqm_demo/micro_tiles: on the device, ' in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 8])
def test_a_run_saved_on_four_devices_continues_on_one_and_on_eight(whole, tmp_path, devices):
  config, copy = whole[0].copy_and_resolve_references(), tmp_path / 'four'
  config.steps = 4
  train(config, copy, devices=4)
  config.steps = 6
  state = train(config, copy, devices=devices)
  # The cosine of the first four steps was shorter, so compare with the same two starts on one device.
  reference = tmp_path / 'one'
  config.steps = 4
  train(config, reference)
  config.steps = 6
  expected = train(config, reference)
  for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
    np.testing.assert_allclose(x, y, atol=2e-5)


def test_a_finished_run_says_so_and_changes_nothing(whole, caplog):
  before = records(whole[1])
  caplog.set_level('INFO')
  assert_equal(train(whole[0], whole[1]), whole[2])
  assert 'Already finished' in caplog.text and records(whole[1]) == before


def test_another_experiment_in_the_workdir_is_refused_with_the_difference(whole):
  config = whole[0].copy_and_resolve_references()
  config.lr = 1.0
  config.log_every = 1
  with pytest.raises(errors.ConfigError, match=r'lr: 0.002 there, 1.0 now\)'):
    train(config, whole[1])


def test_a_folder_that_is_no_workdir_is_refused(whole, tmp_path):
  (tmp_path / 'thesis.tex').write_text('precious')
  with pytest.raises(errors.ConfigError, match='neither empty nor a workdir'):
    train(whole[0], tmp_path)


def test_flipped_bits_are_refused_by_name_and_the_checkpoint_before_is_used(whole, tmp_path, caplog):
  config, copy = copy_until(whole, tmp_path, 4)
  victim = max((copy / 'checkpoints' / '4' / 'state').rglob('d/*'), key=lambda p: p.stat().st_size)
  data = bytearray(victim.read_bytes())
  data[len(data) // 2] ^= 1
  victim.write_bytes(data)
  with pytest.raises(errors.CheckpointError, match=f'{victim.name} does not match its SHA-256'):
    inference.load(copy, step=4)
  assert_equal(train(config, copy), whole[2])
  assert victim.name in caplog.text and 'Going back' in caplog.text
  assert (copy / 'checkpoints' / '4.damaged').is_dir()


def test_a_missing_file_and_a_missing_digest_are_noticed(whole, tmp_path):
  _, copy = copy_until(whole, tmp_path, 6)
  (copy / 'checkpoints' / '6' / 'state' / '_METADATA').unlink()
  with pytest.raises(errors.CheckpointError, match='state/_METADATA.? is missing'):
    checkpoints.verify(copy / 'checkpoints', 6)
  (copy / 'checkpoints' / '4' / 'digests.json').unlink()
  with pytest.raises(errors.CheckpointError, match='no readable digests.json'):
    checkpoints.verify(copy / 'checkpoints', 4)


def test_when_every_checkpoint_is_damaged_the_run_does_not_start_over_silently(whole, tmp_path):
  config, copy = copy_until(whole, tmp_path, 6)
  for step in (2, 4, 6):
    (copy / 'checkpoints' / str(step) / 'digests.json').unlink()
  with pytest.raises(errors.CheckpointError, match='No checkpoint in .* is intact, and there are damaged ones'):
    train(config, copy)


def test_trained_weights_are_loaded(whole):
  config, workdir, state = whole
  network = inference.load(workdir)
  np.testing.assert_array_equal(network.head.v[...], state.ema['head']['v'])
  np.testing.assert_array_equal(inference.load(workdir, ema=False).head.v[...], state.params['head']['v'])
  run = inference.open_run(workdir, step='latest')
  assert (run.step, run.ema, run.config['system']) == (6, True, 'ecnu')
  frame = np.random.default_rng(0).random((1, 1, 8, 8, 3), np.float32)
  assert network(frame).shape == (1, 8, 8, 3)
  with pytest.raises(errors.CheckpointError, match=r'No checkpoint of step 5 in .*; there are 2, 4, 6'):
    inference.load(workdir, step=5)
  with pytest.raises(errors.CheckpointError, match='is not a workdir'):
    inference.load(workdir / 'nowhere')


def test_warm_start_copies_what_fits_and_reports_the_rest(whole, tmp_path, caplog):
  caplog.set_level('INFO')
  config = whole[0].copy_and_resolve_references()
  config.init_from = str(whole[1])
  config.system_args.num_blocks = 2
  trainer = Supervised(config, jax.devices()[:1])
  params = loop.init_params(config, trainer)
  np.testing.assert_array_equal(params['head']['v'], whole[2].ema['head']['v'])
  np.testing.assert_array_equal(params['blocks'][0]['alpha'], whole[2].ema['blocks'][0]['alpha'])
  assert 'new: blocks/1/expand/v' in caplog.text and '8 new, 0 misfit, 0 unused' in caplog.text
  config.system_args.update(num_blocks=1, width=8)
  loop.init_params(config, Supervised(config, jax.devices()[:1]))
  assert 'misfit: head/v (3, 3, 3, 4) -> (3, 3, 3, 8)' in caplog.text
  config.init_from = str(whole[1] / 'checkpoints' / '2')
  assert loop.init_params(config, Supervised(config, jax.devices()[:1])) is not None
  config.init_from = str(tmp_path)
  with pytest.raises(errors.CheckpointError, match='is not a workdir'):
    loop.init_params(config, Supervised(config, jax.devices()[:1]))


def test_warm_start_from_weights_that_ship(whole, tmp_path, monkeypatch, caplog):
  caplog.set_level('INFO')
  config = whole[0].copy_and_resolve_references()
  folder = shipped_weights.empty(monkeypatch, tmp_path / 'checkout')
  strengths = [[20, 0.5], [40, 1.5]]
  shipped_weights.add('web-small', 'ecnu', config.system_args.to_dict(), strength_by_qp=strengths)
  config.init_from = 'web-small'
  trainer = Supervised(config, jax.devices()[:1])
  params = checkpoints.flatten(loop.init_params(config, trainer))
  arrays, step, _ = inference.load_params('web-small')
  assert step == 0 and params.keys() == arrays.keys()
  for path, array in arrays.items():
    np.testing.assert_array_equal(params[path], array)
  assert 'Warm start from web-small, step 0' in caplog.text and '0 new, 0 misfit, 0 unused' in caplog.text
  # A run goes on with the strengths that suit what it began with, and so does one that begins with that run.
  assert inference.read_strength_by_qp('web-small') == strengths
  workdirs.claim(tmp_path / 'run', config, strength_by_qp=strengths)
  assert inference.read_strength_by_qp(tmp_path / 'run' / 'checkpoints' / '5') == strengths
  config.init_from = 'web-smal'
  with pytest.raises(
    errors.CheckpointError, match=r"web-smal is not a workdir.*did you mean 'web-small'\? with the pack"
  ):
    loop.init_params(config, trainer)
  path = folder / 'web-small.safetensors'
  path.write_bytes(path.read_bytes()[:-1] + b'?')
  config.init_from = 'web-small'
  with pytest.raises(errors.CheckpointError, match=r'web-small\.safetensors: damaged, expected'):
    loop.init_params(config, trainer)


def test_weights_of_other_frames_are_refused(tmp_path):
  def check(system, args, origin, its_args, version='0.2.0'):
    config = ml_collections.ConfigDict({'system': system, 'system_args': args, 'init_from': str(tmp_path)})
    content = {'config': {'system': origin, 'system_args': its_args}, 'version': version}
    (tmp_path / 'config.json').write_text(json.dumps(content))
    loop.check_input_mean(config, config.init_from)

  def refused(message, *args, **options):
    with pytest.raises(errors.ConfigError, match=f'^config.init_from={tmp_path}: {message}'):
      check(*args, **options)

  old = (
    r'its weights were trained on frames less input_mean=0 \(those of version 0\.1 on frames as they are\), but this '
    r'network subtracts 0\.5; set --config\.system_args\.input_mean=0\.0\.$'
  )
  refused(old, 'gtq', {}, 'gtq', {}, version='0.1.0')
  refused(old, 'boss_f2', {'input_mean': 0.5}, 'boss_f1', {'input_mean': 0.0})
  mix = {'members': [['ecnu', {}], ['tcl_edvr', {'input_mean': 0.25}]]}
  refused(
    r'its weights of members/1 .* less input_mean=0\.25 .* set config\.system_args\.members/1: input_mean=0\.25\.$',
    'mixture', {'members': [['ecnu', {}], ['tcl_edvr', {}]]}, 'mixture', mix,
  )  # fmt: skip
  check('gtq', {'input_mean': 0.0}, 'gtq', {}, version='0.1.0')
  check('gtq', {}, 'gtq', {})
  check('mixture', mix, 'mixture', mix)
  check('ecnu', {}, 'gtq', {}, version='0.1.0')
  check('gtq', {}, 'tcl_unet', {})
  old_mix = {'members': [['tcl_edvr', {'input_mean': 0.0}], ['tcl_unet', {}]]}
  refused(r'its weights of members/0 .* less input_mean=0 .* subtracts 0\.5; ', 'tcl', {}, 'tcl', old_mix)


def test_not_a_number_stops_before_it_reaches_a_checkpoint(whole, tmp_path):
  config, copy = copy_until(whole, tmp_path, 2)
  config = config.copy_and_resolve_references()
  config.steps = 40
  with pytest.MonkeyPatch.context() as patch:
    exploding(patch, lambda config, loss, recorded: (loss * np.inf, recorded))
    with pytest.raises(errors.DivergenceError, match=r'train/loss is inf at step 3; last good checkpoint: 2'):
      train(config, copy)
  assert checkpoints.steps(copy / 'checkpoints') == [2]
  assert json.loads((copy / 'diverged' / 'step_3.json').read_text())['first_bad_step'] == 3
  with np.load(copy / 'diverged' / 'batch_4.npz') as saved:
    assert saved['lq'].shape == (8, 1, 16, 16, 3)


def exploding(monkeypatch, trouble):
  """Lets every trainer's gradients go through `trouble(config, loss, recorded)` -> (loss, recorded)."""
  whole = Supervised._gradients

  def gradients(self, params, batch):
    (loss, grads), recorded = whole(self, params, batch)
    loss, recorded = trouble(self._config, loss, recorded)
    return (loss, grads), recorded

  monkeypatch.setattr(Supervised, '_gradients', gradients)


@pytest.mark.slow
def test_a_diverged_run_goes_back_with_half_the_rate_and_says_so(whole, tmp_path, monkeypatch, caplog):
  config, copy = copy_until(whole, tmp_path, 2)
  config = config.copy_and_resolve_references()
  config.on_divergence = 'rollback'
  # Infinite until the rate has been halved twice.
  exploding(monkeypatch, lambda config, loss, recorded: (loss / (config.lr < 0.6e-3), recorded))
  assert int(train(config, copy).step) == 6
  rollbacks = json.loads((copy / 'rollbacks.json').read_text())
  assert [(r['to_step'], r['lr_factor']) for r in rollbacks] == [(2, 0.5), (2, 0.25)]
  assert 'train/loss is inf at step 3' in rollbacks[0]['reason'] and 'Going back to step 2' in caplog.text
  lr = {r['step']: r['train/lr'] for r in records(copy) if 'train/lr' in r}
  before = {r['step']: r['train/lr'] for r in records(whole[1]) if 'train/lr' in r}
  assert lr[2] == before[2] and lr[4] == pytest.approx(before[4] / 4)
  # The lower rate belongs to the run: resuming is exact here, too.
  again = tmp_path / 'resumed'
  shutil.copytree(copy, again)
  shutil.rmtree(again / 'checkpoints' / '6')
  assert_equal(train(config, again), train(config, copy))


def test_rollbacks_are_capped(whole, tmp_path, monkeypatch):
  config, copy = copy_until(whole, tmp_path, 2)
  config = config.copy_and_resolve_references()
  config.update(on_divergence='rollback', max_rollbacks=1)
  exploding(monkeypatch, lambda config, loss, recorded: (loss * np.inf, recorded))
  with pytest.raises(errors.DivergenceError, match=r'It went back 1 times already \(config.max_rollbacks=1\)'):
    train(config, copy)
  assert len(json.loads((copy / 'rollbacks.json').read_text())) == 1
  assert checkpoints.steps(copy / 'checkpoints') == [2]


def test_a_run_that_went_back_before_is_not_told_to(whole, tmp_path, monkeypatch):
  config, copy = copy_until(whole, tmp_path, 2)
  exploding(monkeypatch, lambda config, loss, recorded: (loss * np.inf, recorded))
  with pytest.raises(errors.DivergenceError, match='--config.on_divergence=rollback, or in a new workdir'):
    train(config, copy)
  (copy / 'rollbacks.json').write_text(json.dumps([{'to_step': 2, 'lr_factor': 0.5, 'reason': 'test'}]))
  with pytest.raises(errors.DivergenceError) as caught:
    train(config, copy)
  advice = str(caught.value).partition('It went back 1 times already; ')[2]
  assert advice.endswith(f'--config.lr={config.lr / 4:g}') and 'rollback' not in advice
  assert len(str(caught.value)) <= errors.LONGEST


def test_large_offsets_are_warned_of_and_exploding_ones_stop_the_run(whole, tmp_path, monkeypatch, caplog):
  config, copy = copy_until(whole, tmp_path, 2)
  config = config.copy_and_resolve_references()
  exploding(
    monkeypatch, lambda config, loss, _: (loss, {'offset/level1_mean': loss * 0 + 70, 'offset/level1_max': loss})
  )
  train(config, copy)
  assert 'offset/level1_mean is 70.0 pixels of its grid, over offset_warn=50' in caplog.text
  last = [r for r in records(copy) if 'offset/level1_mean' in r][-1]
  assert last['offset/level1_mean'] == 70 and last['offset/level1_max'] == pytest.approx(last['train/loss'], rel=0.5)
  shutil.rmtree(copy)
  config.offset_limit = 60.0
  config, copy = config, copy_until(whole, tmp_path, 2)[1]
  with pytest.raises(errors.DivergenceError, match=r'offset/level1_mean is 70 at step 3'):
    train(config, copy)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(batch_size=0), 'config.batch_size=0'),
    (dict(on_divergence='hope'), "config.on_divergence='hope' must be 'stop' or 'rollback'"),
    (dict(grad_accum=3), 'config.grad_accum=3 does not divide config.batch_size=8'),
    (dict(ema=1.0), 'config.ema=1.0'),
    (dict(dtype='float16'), "config.dtype='float16'"),
    (dict(system='ecno'), "system='ecno' is unknown"),
    (dict(loss='l3'), "loss='l3' is unknown"),
    (dict(num_frames=5), 'config.num_frames=5, but'),
    (dict(crop=18), 'config.crop=18 must be a multiple of 4'),
    (dict(crop=64), 'too small for num_frames=1, crop=64'),
    (dict(data_dir='/nowhere'), 'data_dir=/nowhere does not exist'),
    (dict(dataset='intwid'), "no dataset 'intwid'"),
    (dict(val_split='vall'), "no split 'vall'"),
    (dict(mix_with=('vqm_demo',)), "config.mix_with: 'vqm_demo', expected 'dataset/config'"),
    (dict(mix_with=('vqm_demo/nothing',)), "no config 'nothing'"),
    (dict(mix_weights=(1.0, 2.0)), 'expected 1 positive numbers'),
  ],
)
def test_wrong_fields_are_named_before_anything_is_written(tiny_config, tmp_path, change, message):
  tiny_config.update(change)
  with pytest.raises(errors.VqmError, match=message):
    train(tiny_config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_disk_that_is_too_small_is_seen_before_the_save(whole, tmp_path, monkeypatch):
  config, copy = copy_until(whole, tmp_path, 2)
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(checkpoints.shutil, 'disk_usage', lambda path: usage(10**6, 10**6 - 1000, 1000))
  with pytest.raises(errors.CheckpointError, match=r'Could not save checkpoint 4 in .* needs .* kB, .* are free'):
    train(config, copy)
  assert checkpoints.steps(copy / 'checkpoints') == [2]


@pytest.mark.slow
def test_profile_is_written(whole, tmp_path):
  config, copy = copy_until(whole, tmp_path, 2)
  train(config, copy, profile_steps=(4, 5))
  assert list((copy / 'profile').rglob('*.xplane.pb'))


def test_best_is_kept_besides_the_latest(whole, tmp_path):
  state = jax.device_put(whole[2])
  with checkpoints.Checkpoints(tmp_path, keep_last=1) as saver:
    for step, psnr in ((1, 30.0), (2, 31.0), (3, None), (4, 30.5), (5, None)):
      saver.save(step, state, {'step': step}, psnr)
  assert checkpoints.steps(tmp_path) == [2, 5]
  assert checkpoints.select(tmp_path, 'best') == 2 and checkpoints.select(tmp_path, 'latest') == 5


def test_one_process_to_a_workdir(whole, tmp_path):
  config, copy = copy_until(whole, tmp_path, 2)
  with locks.folder(copy), pytest.raises(errors.BusyError, match=f'process {os.getpid()} on .* is at work on it'):
    train(config, copy)
  assert_equal(train(config, copy), whole[2])
  assert not (copy / '.lock').exists()


def test_damage_is_not_forgotten_at_the_second_start(whole, tmp_path):
  config, copy = copy_until(whole, tmp_path, 4)
  for step in (2, 4):
    (copy / 'checkpoints' / str(step) / 'digests.json').write_text('{}')
  lines = (copy / 'metrics.jsonl').read_bytes()
  for _ in range(3):
    with pytest.raises(errors.CheckpointError, match=r'2\.damaged, 4\.damaged.*--config\.init_from.* or delete'):
      train(config, copy)
  assert (copy / 'metrics.jsonl').read_bytes() == lines


@pytest.mark.parametrize('content', ['{}', '[]', '{"a": 1}', 'null', '[' * 100_000, '{"meta/metadata": "0"}'])
def test_a_list_of_digests_that_is_none_is_damage(whole, tmp_path, content):
  _, copy = copy_until(whole, tmp_path, 6)
  (copy / 'checkpoints' / '6' / 'digests.json').write_text(content)
  with pytest.raises(errors.CheckpointError, match='digests.json|has no digest'):
    checkpoints.verify(copy / 'checkpoints', 6)


def test_a_file_without_its_digest_is_damage(whole, tmp_path):
  _, copy = copy_until(whole, tmp_path, 6)
  path = copy / 'checkpoints' / '6' / 'digests.json'
  digests = json.loads(path.read_text())
  name = next(name for name in digests if name.startswith('state/'))
  path.write_text(json.dumps({key: value for key, value in digests.items() if key != name}))
  with pytest.raises(errors.CheckpointError, match=f'{name} has no digest'):
    checkpoints.verify(copy / 'checkpoints', 6)


def test_a_damaged_validation_record_costs_no_steps(whole, tmp_path, caplog):
  config, copy = copy_until(whole, tmp_path, 6)
  (copy / 'checkpoints' / '6' / 'metrics' / 'metrics').write_text('{"psnr": 1e4')
  assert checkpoints.validation_psnr(copy / 'checkpoints', 6) is None
  assert_equal(train(config, copy), whole[2])
  assert 'the validation record is damaged and removed; the checkpoint stays' in caplog.text
  assert checkpoints.steps(copy / 'checkpoints')[-1] == 6
