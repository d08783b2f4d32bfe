"""The benchmarks run; what they measure is for the eye."""

import importlib.util
import sys

import jax
import numpy as np
import pytest
from absl import flags

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
