"""Checkpoints: what is kept, chosen, read back, refused; whole runs on them are in training/test_loop.py."""

import functools
import gc
import json
import shutil
import sys
import time

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util
from full_disk import no_file_beyond

from vqm_jax import checkpoints, errors, restorers


def state(value):
  return {'params': {'head': {'v': np.full((2, 3), value, np.float32)}, 'blocks': {0: np.arange(4.0) + value}}}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Steps 1 to 5, of which 2 scored best and 4 was not scored; the last two and the best are kept."""
  folder = tmp_path_factory.mktemp('run') / 'checkpoints'
  with checkpoints.Checkpoints(folder, keep_last=2) as saver:
    for step, psnr in ((1, 30.0), (2, 33.0), (3, 32.0), (4, None), (5, 31.0)):
      saver.save(step, state(step), {'step': step, 'samples': 8 * step}, psnr)
      saver.wait()
  return folder


@pytest.fixture
def copy(saved, tmp_path):
  """A copy to damage."""
  return shutil.copytree(saved, tmp_path / 'checkpoints')


def test_the_last_and_the_best_are_kept(saved):
  assert checkpoints.steps(saved) == [2, 4, 5]
  assert [checkpoints.validation_psnr(saved, step) for step in (2, 4, 5)] == [33.0, None, 31.0]
  assert checkpoints.steps(saved / 'nowhere') == []


@pytest.mark.parametrize(('asked', 'step'), [('best', 2), ('latest', 5), (4, 4), ('4', 4)])
def test_a_step_is_chosen(saved, asked, step):
  assert checkpoints.select(saved, asked) == step


@pytest.mark.parametrize('asked', [3, '3', 'bset', -1])
def test_an_unknown_step_is_refused_with_those_there_are(saved, asked):
  with pytest.raises(
    errors.CheckpointError, match=rf'No checkpoint of step {asked} in .*; there are 2, 4, 5 \(or best'
  ):
    checkpoints.select(saved, asked)


def test_a_folder_without_checkpoints_is_refused(tmp_path):
  with pytest.raises(errors.CheckpointError, match='No checkpoint in .*; train first, or check --workdir'):
    checkpoints.select(tmp_path, 'best')


def test_arrays_and_meta_are_read_back(saved):
  arrays = checkpoints.read_arrays(saved, 4, 'params')
  assert arrays.keys() == {'head/v', 'blocks/0'} and all(type(array) is np.ndarray for array in arrays.values())
  np.testing.assert_array_equal(arrays['head/v'], np.full((2, 3), 4, np.float32))
  np.testing.assert_array_equal(arrays['blocks/0'], np.arange(4.0) + 4)
  assert checkpoints.read_meta(saved, 4) == {'step': 4, 'samples': 32}
  with pytest.raises(errors.CheckpointError, match=r"has no 'ema'; it holds \['params'\]"):
    checkpoints.read_arrays(saved, 4, 'ema')


def abstract():
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(0.0))


def test_the_newest_is_restored_and_a_damaged_one_is_laid_aside(copy, caplog):
  with checkpoints.Checkpoints(copy) as saver:
    restored, meta = saver.restore_latest(abstract())
  assert meta['step'] == 5 and float(restored['params']['head']['v'][0, 0]) == 5
  victim = max((copy / '5' / 'state').rglob('d/*'), key=lambda path: path.stat().st_size)
  victim.write_bytes(victim.read_bytes()[:-1] + b'?')
  with checkpoints.Checkpoints(copy) as saver:
    restored, meta = saver.restore_latest(abstract())
  assert meta['step'] == 4 and float(restored['params']['head']['v'][0, 0]) == 4
  assert victim.name in caplog.text and checkpoints.steps(copy) == [2, 4] and (copy / '5.damaged').is_dir()


def test_nothing_is_restored_where_nothing_is(tmp_path):
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saver:
    assert saver.restore_latest(abstract()) is None


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda folder: (folder / 'digests.json').unlink(), 'no readable digests.json'),
    (lambda folder: (folder / 'digests.json').write_text('[]'), 'no readable digests.json'),
    (lambda folder: (folder / 'digests.json').write_text('{}'), 'has no digest in digests.json'),
    (lambda folder: (folder / 'meta' / 'metadata').write_text('{}'), 'meta/metadata does not match its SHA-256'),
    (lambda folder: (folder / 'meta' / 'metadata').unlink(), 'meta/metadata.? is missing'),
    (lambda folder: (folder / 'state' / 'more').write_text('x'), 'state/more has no digest'),
  ],
)
def test_damage_is_named(copy, damage, message):
  damage(copy / '4')
  with pytest.raises(errors.CheckpointError, match=message):
    checkpoints.verify(copy, 4)


def test_folders_that_are_no_checkpoints_are_left_alone(copy, tmp_path):
  for name in ('007', '٧', '²', '-1', '6.damaged', '1e3', ' 4'):
    (copy / name).mkdir()
  assert checkpoints.steps(copy) == [2, 4, 5]
  (tmp_path / 'none' / '6.damaged').mkdir(parents=True)
  with pytest.raises(errors.CheckpointError, match=r'there are damaged ones \(6.damaged\). Bring one back from a copy'):
    checkpoints.select(tmp_path / 'none', 'best')


def test_notes_beside_a_checkpoint_are_no_damage(copy):
  (copy / '4' / 'notes.txt').write_text('the good one')
  checkpoints.verify(copy, 4)


def test_a_damaged_score_counts_as_none(copy):
  (copy / '2' / 'metrics' / 'metrics').write_text(json.dumps({'psnr': 99.0}))
  assert checkpoints.validation_psnr(copy, 2) is None and checkpoints.select(copy, 'best') == 5
  checkpoints.verify(copy, 2)


def test_a_save_that_does_not_fit_on_the_disk_says_what_it_needs(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saver:
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=10))
    with pytest.raises(errors.CheckpointError, match=r'Could not save checkpoint 1 in .*: .*make room'):
      saver.save(1, state(1.0), {'step': 1})
  assert checkpoints.steps(tmp_path / 'checkpoints') == []


def test_a_disk_that_fills_while_saving_is_told_once_and_keeps_nobody_waiting(tmp_path, monkeypatch):
  told = []
  gc.freeze()  # what other tests left: looking through it below took seconds
  monkeypatch.setattr(sys, 'unraisablehook', told.append)  # where TensorStore's threads would leave tracebacks
  noise = np.random.default_rng(0).standard_normal((20, 40_000)).astype(np.float32)
  layers = {f'layer{index}': jnp.asarray(values) for index, values in enumerate(noise)}
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saver:
    saver.save(1, {'layer': jnp.zeros(5)}, {'step': 1})
    saver.wait()
  assert sys.unraisablehook == told.append
  start = time.monotonic()
  refused = pytest.raises(
    errors.CheckpointError, match=r'Could not save checkpoint 2 in .*: the disk is full; it needs'
  )
  with refused, checkpoints.Checkpoints(tmp_path / 'checkpoints') as saver, no_file_beyond(30_000):
    saver.save(2, layers, {'step': 2})
    saver.wait()
  assert time.monotonic() - start < 100
  time.sleep(0.5)
  gc.collect()  # asyncio tells of failed tasks when they are freed: here, not in the middle of another test
  gc.unfreeze()
  assert [what.exc_value for what in told] == []
  assert checkpoints.steps(tmp_path / 'checkpoints') == [1]
  checkpoints.verify(tmp_path / 'checkpoints', 1)


# Layers that were items of lists, and a system that has them.
NAMED = [
  ('tcl_edvr', 'fusion/spatial2/0', 'fusion/spatial2_reduce'),
  ('tcl_edvr', 'fusion/spatial2/1', 'fusion/spatial2_merge'),
  ('tcl_edvr', 'fusion/spatial2/2', 'fusion/spatial2_last'),
  ('jojo', 'fusion/up0/0', 'fusion/up0_mix'),
  ('jojo', 'fusion/up0/1', 'fusion/up0_last'),
  ('boss_f1', 'fusion/add/0', 'fusion/add1'),
  ('boss_f1', 'fusion/add/1', 'fusion/add2'),
  ('boss_f3', 'trunk/fuse/0', 'trunk/fuse'),
  ('boss_f3', 'trunk/fuse/1', 'trunk/smooth'),
  ('gil', 'stage1/rrcu1/layers/0', 'stage1/rrcu1/first'),
  ('gil', 'stage1/up_rrcu2/layers/1', 'stage1/up_rrcu2/second'),
]
KEPT = ['trunk/blocks/0/fuse', 'trunk/blocks/1/conv1', 'generator/layers/0', 'fuse']


def tree(paths):
  """A parameter for each path, its value the number in the list; whole numbers are keys of lists."""
  keys = [tuple(int(key) if key.isdecimal() else key for key in f'{path}/kernel'.split('/')) for path in paths]
  return traverse_util.unflatten_dict({key: np.full((2,), k, np.float32) for k, key in enumerate(keys)})


def test_what_was_saved_before_layers_had_names_is_read_under_their_names(tmp_path):
  before, now = ([names[k] for names in NAMED] + KEPT for k in (1, 2))
  optimizer = optax.masked(optax.adam(1e-3), lambda params: jax.tree.map(lambda _: True, params))
  old, new = ({'params': tree(paths), 'opt_state': optimizer.init(tree(paths))} for paths in (before, now))
  old, new = ({**state, 'opt_state': optimizer.update(state['params'], state['opt_state'])[1]} for state in (old, new))
  directory = tmp_path / 'checkpoints'
  with checkpoints.Checkpoints(directory) as saver:
    saver.save(3, old, {'step': 3})
    saver.wait()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), new)
    restored, _ = saver.restore_latest(wanted)
  jax.tree.map(np.testing.assert_array_equal, restored, new)  # the same structure, too
  arrays = checkpoints.read_arrays(directory, 3, 'params')
  assert arrays.keys() == checkpoints.flatten(new['params']).keys()
  for found in (arrays, checkpoints.flatten(old['params'])):
    params, report = checkpoints.warm_start(jax.tree.map(np.zeros_like, new['params']), found)
    jax.tree.map(np.testing.assert_array_equal, params, new['params'])
    assert not report['new'] + report['misfit'] + report['unused']


@pytest.mark.parametrize('system', sorted({system for system, _, _ in NAMED}))
def test_names_of_layers_are_those_of_the_networks(system):
  network = networks.shapes(functools.partial(restorers.create, system))
  paths = checkpoints.flatten(nnx.to_pure_dict(nnx.state(network)))
  modules = {path[:end] for path in paths for end, letter in enumerate(path) if letter == '/'}
  for _, before, now in (names for names in NAMED if names[0] == system):
    assert now in modules and before not in modules


def test_warm_start_copies_what_fits_and_reports_the_rest():
  new = {'a': np.zeros(2, np.float32), 'b': [np.zeros(3), np.zeros(1)], 'c': np.ones(4)}
  old = {'a': np.array([1, 2], np.float64), 'b/0': np.ones(5), 'c': np.full(4, 7.0), 'd': np.ones(1)}
  tree, report = checkpoints.warm_start(new, old)
  assert report == {'copied': ['a', 'c'], 'new': ['b/1'], 'misfit': ['b/0 (5,) -> (3,)'], 'unused': ['d']}
  assert tree['a'].dtype == np.float32 and tree['a'].tolist() == [1, 2] and tree['c'].tolist() == [7] * 4
  np.testing.assert_array_equal(tree['b'][0], np.zeros(3))


def test_flatten_names_lists_and_integer_dicts_alike():
  assert checkpoints.flatten({'a': [1, {'b': 2}]}) == checkpoints.flatten({'a': {0: 1, 1: {'b': 2}}})
  assert checkpoints.flatten({'a': [1, {'b': 2}]}) == {'a/0': 1, 'a/1/b': 2}
