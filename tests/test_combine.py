"""Mixes of trained runs: the binary `vqm_jax.combine`, the grid search, and what is written."""

import functools
import importlib
import json
import os
import shutil

import jax
import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax import checkpoints, errors, inference, locks, restorers
from vqm_jax import workdir as workdirs
from vqm_jax.inference import mixing
from vqm_jax.layers.initializers import ParameterKeys


@pytest.fixture(scope='module')
def members(micro_data, tmp_path_factory):
  """Workdirs as two runs would leave them, of TCL's EDVR and U-Net at their smallest, with random weights."""
  root = tmp_path_factory.mktemp('members')
  sizes = {
    'tcl_edvr': dict(width=8, num_front=1, num_blocks=1, groups=2, num_frames=3),
    'tcl_unet': dict(width=4, depth=2),
  }
  for name, args in sizes.items():
    config = importlib.import_module(f'experiments.{name}').get_config('tiny')
    config.system_args.update(args)
    config.update(data_dir=micro_data, dataset_config='micro_tiles', val_config='micro_frames')
    config.num_frames = args.get('num_frames', 1)
    workdirs.claim(root / name, config)
    build = functools.partial(restorers.create, name, **config.system_args)
    params = nnx.to_pure_dict(nnx.state(networks.random(build), nnx.Param))
    quiet = jax.tree.map(lambda p: 0.3 * p, params)  # outputs not far beyond [0, 1]
    with checkpoints.Checkpoints(root / name / 'checkpoints') as saver:
      saver.save(2, {'params': params, 'ema': quiet}, {'step': 2, 'updates': 2}, psnr=30.0)
  return [root / name for name in sizes]


def write(members, workdir, weights=(0.5, 0.5)):
  runs = [inference.open_run(member) for member in members]
  mixing.write(runs, weights, workdir, {'why': 'test'})
  return json.loads((workdir / 'combination.json').read_text())


def clip(frames=3):
  """Of a size that needs no padding: a mix pads once for all members, some of which would pad less on their own."""
  return np.random.default_rng(0).integers(0, 256, (frames, 32, 48, 3), np.uint8)


@pytest.mark.slow
def test_a_searched_mix_opens_like_any_run(command, members, tmp_path):
  mix = tmp_path / 'tcl'
  paths = ','.join(map(str, members))
  done = command('combine', f'--members={paths}', f'--workdir={mix}', '--grid_search', '--frames=4')
  output = done.output
  assert done.returncode == 0, output
  record = json.loads((mix / 'combination.json').read_text())
  search = record['grid_search']
  assert f'beta = {search["beta"]:.2f}' in output and 'tcl_unet alone' in output
  assert (search['split'], search['frames'], len(search['psnr'])) == ('holdout', 4, 101)
  assert max(search['psnr']) == search['psnr'][round(100 * search['beta'])]
  assert max(search['psnr']) >= max(search['psnr'][0], search['psnr'][-1])
  assert [m['weight'] for m in record['members']] == pytest.approx([search['beta'], 1 - search['beta']])
  run = inference.open_run(mix)
  assert run.config['system'] == 'tcl' and run.network.num_frames == 3
  assert run.num_params == sum(m['parameters'] for m in record['members'])

  done = command('eval', f'--workdir={mix}', '--frames=every:4')
  assert done.returncode == 0, done.output
  summary = json.loads((mix / 'eval' / 'test' / 'summary.json').read_text())
  assert summary['method'] == 'tcl (step 2)' and summary['n_frames'] == 2


@pytest.mark.slow
def test_the_mix_is_the_weighted_mean_of_the_unclipped_members(members, tmp_path):
  weights = (0.25, 0.75)
  write(members, tmp_path / 'mix', weights)
  one = jax.devices()[:1]
  outputs = [
    np.stack(list(inference.stream_frames(inference.load(path), clip(), devices=one)))
    for path in (tmp_path / 'mix', *members)
  ]
  expected = sum(weight * part for weight, part in zip(weights, outputs[1:], strict=True))
  np.testing.assert_allclose(outputs[0], expected, atol=1e-6)


def test_any_runs_can_be_mixed(members, tmp_path):
  again = shutil.copytree(members[1], tmp_path / 'unet_again')
  record = write([members[1], again], tmp_path / 'mix')
  assert [m['weight'] for m in record['members']] == [0.5, 0.5] and record['why'] == 'test'
  assert inference.read_config(tmp_path / 'mix')['system'] == 'mixture'
  a, b = (list(inference.restore_frames(inference.load(path), clip(1))) for path in (members[1], tmp_path / 'mix'))
  np.testing.assert_array_equal(a, b)


def test_a_mix_replaces_an_older_one_and_leaves_no_partial_files(members, tmp_path):
  write(members, tmp_path / 'mix')
  write(members, tmp_path / 'mix', (0.9, 0.1))
  assert inference.load(tmp_path / 'mix').weights == (0.9, 0.1)
  assert [path.name for path in tmp_path.iterdir()] == ['mix']
  for member in members:
    checkpoints.verify(member / 'checkpoints', 2)


def test_one_combination_at_a_time(command, tmp_path):
  mix = tmp_path / 'mix'
  with locks.beside(mix):
    done = command('combine', f'--members={tmp_path / "a"},{tmp_path / "b"}', f'--workdir={mix}')
  assert done.returncode == 1 and len(done.output.splitlines()) == 1
  assert f'error: {mix}: process {os.getpid()} on ' in done.output and 'is at work on it' in done.output
  assert not list(tmp_path.iterdir())


def test_members_that_cannot_be_mixed_are_refused(members, tmp_path):
  with pytest.raises(errors.ConfigError, match='unit of work is one frame'):
    members_ = [['gil', {'width': 4}], ['none', {}]]
    nnx.eval_shape(lambda: restorers.create('mixture', rngs=ParameterKeys(0), members=members_))
  with pytest.raises(errors.ConfigError, match='members of a mixture is empty'):
    restorers.create('mixture', rngs=ParameterKeys(0))
  with pytest.raises(errors.ConfigError, match='2 members need as many weights'):
    write(members, tmp_path / 'mix', (1.0,))
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('args', 'code', 'message'),
  [
    ([], 2, '--members is required'),
    (['--members=a', '--workdir=b'], 2, 'expected two or more different workdirs'),
    (['--members=a,./a', '--workdir=b'], 2, 'expected two or more different workdirs'),
    (['--members=a,b', '--workdir=c', '--weights=1'], 2, '--weights has 1 numbers for 2 members'),
    (['--members=a,b', '--workdir=c', '--weights=0.5,0.6'], 2, 'add up to 1.1, expected 1'),
    (['--members=a,b', '--workdir=c', '--weights=x,y'], 2, '--weights=x,y should be numbers'),
    (['--members=a,b', '--workdir=c', '--weights=1,0', '--grid_search'], 2, 'without --weights'),
    (['--members=a,b', '--workdir=tests'], 2, 'tests exists; choose another --workdir, or --overwrite'),
    (['--members=tests/data,tests/video', '--workdir=c'], 1, 'tests/data is not a workdir'),
  ],
)
def test_wrong_flags_are_named(command, args, code, message):
  done = command('combine', *args)
  assert done.returncode == code and message in done.output and 'Traceback' not in done.output, done.output


def triples(count=5, seed=0):
  rng = np.random.default_rng(seed)
  for _ in range(count):
    target = rng.uniform(0.3, 0.7, (12, 16, 3)).astype(np.float32)
    first = target + rng.normal(scale=0.02, size=target.shape).astype(np.float32)
    second = target + rng.normal(scale=0.03, size=target.shape).astype(np.float32)
    yield first, second, target


def test_the_grid_optimum_is_the_least_squares_solution():
  ((e, u, t),) = triples(1)
  closed = float(((t - u) * (e - u)).sum() / np.square(e - u).sum())
  assert mixing.grid_search([(e, u, t)], clip=False).beta == pytest.approx(closed, abs=0.01)


def test_the_mix_is_at_least_as_good_as_the_better_member():
  search = mixing.grid_search(triples())
  assert max(search.psnr) >= max(search.psnr[0], search.psnr[-1]) and search.frames == 5
  first, second, target = next(triples(1))
  mse = np.square(np.clip(0.3 * first + 0.7 * second, 0, 1) - target).mean()
  assert mixing.grid_search([(first, second, target)]).psnr[30] == pytest.approx(-10 * np.log10(mse), abs=1e-4)


def test_ties_go_to_the_even_mix_and_no_frames_are_an_error():
  same = np.full((4, 4, 3), 0.5, np.float32)
  assert mixing.grid_search([(same, same, same)]).beta == 0.5
  with pytest.raises(errors.DataError, match='no frames'):
    mixing.grid_search([])
