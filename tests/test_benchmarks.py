"""The benchmarks run; what they measure is for the eye."""

import importlib.util
import math
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from absl import flags

from experiments import seventh
from vqm_jax.cli import ROOT


@pytest.fixture(autouse=True)
def quick_compilation():
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture
def load(monkeypatch):
  """Imports benchmarks/NAME.py, with flags at their defaults that are gone afterwards."""

  def load(name):
    spec = importlib.util.spec_from_file_location(f'benchmark_{name}', ROOT / 'benchmarks' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    before = set(flags.FLAGS)
    spec.loader.exec_module(module)
    added.extend(set(flags.FLAGS) - before)
    return module

  added = []
  monkeypatch.setenv('OMP_WAIT_POLICY', 'passive')
  yield load
  flags.FLAGS.remove_flag_values(added)


def test_a_system_is_measured(load):
  restorers = load('restorers')
  config = restorers._experiment('seventh', 'tiny', 'float32', batch_size=1, crop=16)
  config.system_args.update(width=4, num_blocks=1)
  frames = list(np.random.default_rng(0).integers(0, 256, (3, 18, 24, 3), np.uint8))
  name, dtype, _, batch, *numbers = restorers.measure_system(config, frames, jax.devices()[0], 1, True, True).split()
  assert (name, dtype, batch) == ('seventh', 'float32', '1x16')
  assert len(numbers) == 7 and all(float(number) > 0 for number in numbers[1:])


@pytest.mark.slow
def test_naive_frames_are_those_of_streaming(load):
  restorers = load('restorers')
  network = restorers.inference.create_network(
    restorers._experiment('gil', 'tiny', 'float32', system_args=dict(width=4, share_stages=True))
  )
  frames = list(np.random.default_rng(0).integers(0, 256, (4, 18, 24, 3), np.uint8))
  naive = list(restorers.restore_naively(network, frames, restorers.naive_program(network)))
  cached = list(restorers.inference.restore_frames(network, frames, devices=jax.devices()[:1]))
  assert len(naive) == len(cached) == 4
  assert np.abs(np.stack(naive).astype(int) - np.stack(cached)).max() <= 1


@pytest.mark.slow
def test_torch_is_compared_with(load, capsys):
  pytest.importorskip('torch')
  restorers = load('restorers')
  tiny = dict(width=8, num_front=1, groups=2)
  results = restorers.against_torch(16, 1, jax.devices()[0], **tiny)
  assert list(results) == ['train', 'naive', 'cached']
  assert all(len(times) == 3 for times in results.values())
  differences = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if 'largest difference' in line]
  assert len(differences) == 2 and max(map(float, differences)) < 1e-5


@pytest.fixture
def small_step(load):
  """benchmarks/input_pipeline.py and the config of a quick step."""
  config = seventh.get_config('tiny')
  config.update(batch_size=2, crop=16)
  config.system_args.update(width=4, num_blocks=1)
  return load('input_pipeline'), config


def test_the_line_of_a_published_step(small_step, tmp_path):
  pipeline, config = small_step
  names = pipeline.prepare('tiles_t1p96', str(tmp_path))

  def line(step_ms, growth=5e6):
    return pipeline.published_step(config, names, 1, lambda *_: (40.0, growth), 0, step_ms).split()

  assert line(25.0) == 'seventh 1x96 1x16x2 40.0 50.0 5 0 25.0 50.0 50 -'.split()
  assert line(80.0, math.nan) == 'seventh 1x96 1x16x2 40.0 50.0 - 0 80.0 80.0 0 -'.split()
  assert line(None)[-4:] == ['-'] * 4
  # lq and hq: a record and a batch for each of 2 threads, and 6 batches.
  record, batch = 96 * 96 * 3, 2 * 16 * 16 * 3
  assert pipeline.memory_rule((1, 96, 96, 3), config, 1) == 2 * (2 * (record + batch) + 6 * batch)
  rate, growth = pipeline.load_alone(names, dict(num_frames=1, crop=16, batch_size=2), 0, 0.2)
  assert rate > 0 and (growth > 0 or not os.path.exists('/proc'))
  config.crop = 100
  assert ' '.join(line(1.0)).endswith('needs records of 1 frame(s) of 100x100 or more')


def test_steps_that_wait_for_data(small_step):
  pipeline, config = small_step
  made = []

  def batches(seconds):
    while True:
      time.sleep(seconds)
      made.append({side: np.zeros((2, 1, 16, 16, 3), np.uint8) for side in ('lq', 'hq')})
      yield made[-1]

  step, fed, wait = pipeline.train_fed(config, batches(0.3), 2, 3)
  assert len(made) == 1 + 2 + 3
  assert step < fed
  assert 300 <= wait * fed < fed


def test_memory_is_seen_to_grow(load):
  pipeline = load('input_pipeline')
  before = pipeline._resident('VmRSS', os.getpid())
  if math.isnan(before):
    pytest.skip('there is no /proc here')
  held = np.ones(2**26, np.uint8)
  growth = pipeline._resident('VmRSS', os.getpid()) - before
  assert growth == pytest.approx(held.nbytes, rel=0.1)
  assert pipeline._resident('VmHWM', os.getpid()) >= before + growth


@pytest.mark.slow
def test_published_steps_from_the_command_line(load, tmp_path):
  dataset, config, _, folder = load('input_pipeline').prepare('tiles_t1p96', str(tmp_path))
  where = [f'--dataset={dataset}', f'--config={config}', f'--data_dir={folder}', '--systems=seventh', '--size=tiny']
  command = [sys.executable, ROOT / 'benchmarks' / 'input_pipeline.py', *where, '--seconds=0.1', '--steps=2']
  told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
  assert told[:3] == ['seventh', '1x96', '1x96x2']
  assert all(float(number) >= 0 for number in told[3:9] if number != '-')
