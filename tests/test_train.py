import json
import os
import random
import shutil
import signal
import socket
import time

import jax
import numpy as np
import pytest

from vqm_jax import checkpoints
from vqm_jax.training import loop


@pytest.fixture
def arguments(micro_data):
  """Flags of a run of 150 short steps that saves often, and the same as a config."""
  from experiments import ecnu

  config = ecnu.get_config('tiny')
  changes = dict(data_dir=micro_data, dataset_config='micro_tiles', val_config='micro_frames', crop=16, batch_size=8,
                 steps=150, log_every=10, save_every=20, eval_every=75, eval_frames=2, keep_last=3)  # fmt: skip
  network = dict(width=4, mapping_width=8, num_blocks=1)
  config.update(changes)
  config.system_args.update(network)
  flags = [f'--config.{k}={v}' for k, v in changes.items()]
  flags += [f'--config.system_args.{k}={v}' for k, v in network.items()]
  return ['--config=experiments/ecnu.py:tiny', *flags], config


def wait_for_checkpoint(process, workdir, beyond=0):
  deadline = time.monotonic() + 120
  while not [s for s in checkpoints.steps(workdir / 'checkpoints') if s > beyond]:
    assert process.poll() is None, process.stdout.read()
    assert time.monotonic() < deadline
    time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_terminated_runs_end_in_the_same_parameters(binary, arguments, tmp_path):
  flags, config = arguments
  workdir = tmp_path / 'killed'
  flags = ['train', *flags, f'--workdir={workdir}']
  delay = random.uniform(0, 0.5)
  print('killed after', delay)

  process = binary(*flags)
  wait_for_checkpoint(process, workdir)
  time.sleep(delay)
  process.send_signal(signal.SIGKILL)
  process.wait()
  reached = checkpoints.steps(workdir / 'checkpoints')[-1]
  assert reached < 150

  process = binary(*flags)
  wait_for_checkpoint(process, workdir, beyond=reached)
  process.send_signal(signal.SIGTERM)
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0, output
  assert f'Resuming at step {reached} of 150' in output and 'SIGTERM received' in output
  stopped = checkpoints.steps(workdir / 'checkpoints')[-1]
  assert f'Saved step {stopped}.' in output or stopped == 150

  process = binary(*flags)
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 0, output
  assert 'Finished 150 steps' in output

  whole = jax.device_get(loop.train(config, tmp_path / 'whole'))
  for part in ('params', 'ema', 'opt_state'):
    restored = checkpoints.read_arrays(workdir / 'checkpoints', 150, part)
    expected = checkpoints.read_arrays(tmp_path / 'whole' / 'checkpoints', 150, part)
    assert restored.keys() == expected.keys()
    for name in expected:
      np.testing.assert_array_equal(restored[name], expected[name], err_msg=f'{part}/{name}')
  np.testing.assert_array_equal(checkpoints.read_arrays(workdir / 'checkpoints', 150, 'params')['head/v'],
                                whole.params['head']['v'])  # fmt: skip


@pytest.mark.slow
def test_two_processes_match_one_and_continue_on_one(binary, arguments, tmp_path):
  flags, config = arguments
  short = ['--config.steps=40', '--config.eval_every=40', '--config.save_every=20']
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  two = tmp_path / 'two'
  processes = [
    binary(
      'train', *flags, *short, f'--workdir={two}', f'--coordinator=localhost:{port}', '--num_processes=2',
      f'--process_id={index}', XLA_FLAGS=os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=2',
    )
    for index in range(2)
  ]  # fmt: skip
  outputs = [process.communicate(timeout=300)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], '\n'.join(outputs)
  assert '4 device(s) (cpu) in 2 process(es)' in outputs[0]

  config.update(steps=40, eval_every=40, save_every=20)
  whole = jax.device_get(loop.train(config, tmp_path / 'one', devices=jax.devices()[:4]))
  expected = checkpoints.flatten(whole.params)
  for name, value in checkpoints.read_arrays(two / 'checkpoints', 40, 'params').items():
    np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)
  psnr = [checkpoints.validation_psnr(tmp_path / run / 'checkpoints', 40) for run in ('one', 'two')]
  assert psnr[0] == pytest.approx(psnr[1], abs=1e-3)

  shutil.rmtree(two / 'checkpoints' / '40')
  continued = jax.device_get(loop.train(config, two, devices=jax.devices()[:1]))
  for name, value in checkpoints.flatten(continued.params).items():
    np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


def test_training_and_evaluation_need_no_codec_no_opencv_no_tensorflow(binary, arguments, tmp_path):
  flags, _ = arguments
  blocked = ('av', 'cv2', 'tensorflow')
  workdir = tmp_path / 'run'
  process = binary('train', *flags, '--config.steps=2', f'--workdir={workdir}', blocked=blocked)
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0 and 'Finished 2 steps' in output, output
  process = binary('eval', f'--workdir={workdir}', blocked=blocked)
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0 and 'No processing' in output, output
  summary = json.loads((workdir / 'eval' / 'test' / 'summary.json').read_text())
  assert summary['n_frames'] == 8 and set(summary['category'].values()) == {'coffee'}


@pytest.mark.slow
def test_a_full_disk_while_saving_leaves_the_checkpoint_before(binary, arguments, tmp_path):
  flags, _ = arguments
  workdir = tmp_path / 'run'
  flags = ['train', *flags, '--config.system_args.num_blocks=4', '--config.save_every=2', f'--workdir={workdir}']
  process = binary(*flags, '--config.steps=2')
  assert process.wait(timeout=120) == 0, process.stdout.read()

  # No file may grow beyond 64 KiB: to the program this is what a full disk is, an error from write().
  process = binary(*flags, '--config.steps=4', limit_kib=64)
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 1, output
  assert output.count('error: ') == output.count('\nerror: Could not save checkpoint 4') == 1, output
  assert 'Traceback' not in output and 'make room' in output.splitlines()[-1]
  assert checkpoints.steps(workdir / 'checkpoints') == [2]
  checkpoints.verify(workdir / 'checkpoints', 2)

  process = binary(*flags, '--config.steps=4')
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0 and 'Resuming at step 2 of 4' in output, output


@pytest.mark.parametrize(
  ('args', 'code', 'words'),
  [
    (['--help'], 0, ['Trains a restorer', '--workdir', '--profile_steps']),
    ([], 2, ['error: --config is required']),
    (['--config=experiments/ecnu.py:huge', '--workdir=x'], 2, ['experiments/ecnu.py:huge is unknown']),
    (['--config=experiments/nothing.py', '--workdir=x'], 2, ['experiments/nothing.py']),
    (['--config=nothing', '--workdir=x'], 2, ['--config=nothing: no such file or experiment', 'boss_f1, ', ' wespe ']),
    (
      ['--config=ecnu', '--config.batchsize=3', '--workdir=x'],
      2,
      ["error: --config.batchsize: no such field; did you mean 'batch_size'?\n"],
    ),
    (['--config=ecnu', '--config.zzz=3', '--workdir=x'], 2, ['--config.zzz: no such field; there are augment, ']),
    (['--config=ecnu', '--config.system_args.widht=3', '--workdir=x'], 2, ["no such field; did you mean 'width'?"]),
    (['--config=ecnu', '--config.lr.x=3', '--workdir=x'], 2, ['--config.lr.x: no such field;']),
    (['--config=ecnu', '--config.lr=fast', '--workdir=x'], 2, ['error: --config.lr=fast: expected a number.\n']),
    (['--config=ecnu', '--config.batch_size=2.5', '--workdir=x'], 2, ['batch_size=2.5: expected a whole number.\n']),
    (['--config=experiments/ecnu.py', '--workdr=x'], 2, ["workdr"]),
  ],
)  # fmt: skip
def test_flags(command, args, code, words):
  done = command('train', *args)
  output = done.output
  assert done.returncode == code, output
  assert 'Traceback' not in output
  for word in words:
    assert word in output
  if code:
    assert len(output.strip().splitlines()) == 1 and len(output) <= 501 and '\\' not in output, output
