"""Weights that ship with the package: the index, digests, and every way to open them by name."""

import dataclasses
import json
import pathlib
import re

import networks
import numpy as np
import pytest
import shipped_weights
from flax import nnx

from vqm_jax import checkpoints, errors, inference, restorers
from vqm_jax.inference import exporting, shipped

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(monkeypatch, tmp_path):
  """The folder of two weights, one of each device; the working directory is empty."""
  folder = shipped_weights.empty(monkeypatch, tmp_path / 'checkout')
  shipped_weights.add('web-small', 'ecnu', description='for a quick look', pixels_per_second=1e6)
  shipped_weights.add('web-tcl', device='gpu', trained_on={'crf': [18, 40]}, seed=1)
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  return folder


@pytest.mark.parametrize('name', shipped.names())
def test_what_ships_is_whole(name):
  entry, run = shipped.describe(name), inference.open_run(name)
  assert (entry.system, entry.system_args) == (run.config['system'], run.config['system_args'])
  assert entry.params == run.num_params and (ROOT / entry.model_card).is_file()


def test_all_that_lies_there_is_in_the_index():
  found = {path.name for path in shipped.FOLDER.iterdir()}
  assert found == {'index.json', *(shipped.describe(name).file for name in shipped.names())}


def test_weights_are_the_rounded_ones(folder):
  run = inference.open_run('web-tcl')
  net = networks.random(lambda rngs: restorers.create('tcl_unet', rngs=rngs, **shipped_weights.UNET), seed=1)
  before = networks.by_path(nnx.state(net))
  for path, array in networks.by_path(nnx.state(run.network)).items():
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.asarray(before[path]).astype(np.float16).astype(np.float32))
  assert run.config == {'system': 'tcl_unet', 'system_args': shipped_weights.UNET, 'dtype': 'float32'}
  assert run.workdir == folder / 'web-tcl.safetensors' and (run.step, run.checkpoint, run.ema) == (0, 0, False)
  assert run.num_params == sum(array.size for array in before.values()) and run.training is None
  assert type(inference.load('web-tcl')) is type(net)
  arrays, step, ema = inference.load_params('web-tcl', 'latest')
  assert (step, ema) == (0, False) and arrays.keys() == before.keys()
  assert inference.read_config(pathlib.Path('web-tcl'))['system_args'] == shipped_weights.UNET


def test_step_average_and_training_come_along(folder, tmp_path):
  training = {'hardware': '1 x H100', 'seconds': 3600.0, 'extra_data': False, 'notes': []}
  run = dataclasses.replace(inference.open_run('web-tcl'), step=7, checkpoint=7, ema=True, training=training)
  exporting.save_safetensors(run, tmp_path / 'x.safetensors', dtype='float16')
  options = dict(
    device='gpu', description='trained', trained_on={'qp': [14, 46]}, licence='CC0', model_card='docs/card.md'
  )
  shipped.add('web-tcl', tmp_path / 'x.safetensors', **options)
  again = shipped.open_weights('web-tcl')
  assert (again.step, again.checkpoint, again.ema, again.training) == (7, 7, True, training)
  assert inference.open_run('web-tcl', step=7).step == inference.open_run('web-tcl', step='latest').step == 7
  with pytest.raises(errors.CheckpointError, match=r'^No checkpoint of step 5 in .*; it holds step 7 alone\.$'):
    inference.open_run('web-tcl', step=5)
  with pytest.raises(errors.CheckpointError, match=r'holds the moving average of the weights alone; leave out --noema'):
    inference.open_run('web-tcl', ema=False)


def test_the_index_tells_all(folder):
  assert shipped.names() == ['web-small', 'web-tcl']
  entry = shipped.describe('web-small')
  path = folder / 'web-small.safetensors'
  assert (entry.file, entry.bytes) == (path.name, path.stat().st_size)
  assert (entry.system, entry.system_args) == ('ecnu', shipped_weights.ECNU)
  assert entry.params == inference.open_run('web-small').num_params
  assert (entry.device, entry.trained_on) == ('cpu', shipped_weights.TRAINED_ON)
  assert (entry.licence, entry.model_card, entry.pixels_per_second) == ('Apache-2.0', 'docs/card.md', 1e6)
  content = json.loads((folder / 'index.json').read_text())
  assert content['schema_version'] == 1 and list(content['weights']) == ['web-small', 'web-tcl']
  assert content['weights']['web-small'].keys() == {f.name for f in dataclasses.fields(entry)} - {'name'}


def test_adding_is_repeatable_and_keeps_the_others(folder):
  def contents():
    return {path.name: path.read_bytes() for path in folder.iterdir()}

  before = contents()
  assert before.keys() == {'index.json', 'web-small.safetensors', 'web-tcl.safetensors'}
  shipped_weights.add('web-small', 'ecnu', description='for a quick look', pixels_per_second=1e6)
  assert contents() == before
  shipped_weights.add('web-small', 'ecnu', seed=5)
  assert (
    shipped.names() == ['web-small', 'web-tcl'] and contents()['web-tcl.safetensors'] == before['web-tcl.safetensors']
  )
  inference.load('web-small')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'name': 'Web Small'}, r"^name='Web Small': expected small letters and digits .* such as web-small\.$"),
    ({'device': 'tpu'}, r"^device='tpu': expected one of cpu, gpu\.$"),
    ({'description': 'two\nlines'}, r'^description=.*: expected one line\.$'),
    ({'trained_on': {}}, r'^trained_on=.*: expected \{"crf": \[lowest, highest\]'),
    ({'trained_on': {'crf': [42, 16]}}, r'^trained_on=.*42, 16'),
    ({'licence': ''}, r"^licence='': expected a licence"),
    (
      {'model_card': 'docs/none.md'},
      r"^model_card='docs/none\.md': no such page in the checkout .*; write it first\.$",
    ),
  ],
)
def test_entries_that_say_too_little_are_refused(folder, change, message):
  before = (folder / 'index.json').read_bytes()
  with pytest.raises(errors.ConfigError, match=message):
    shipped_weights.add(**({'name': 'new'} | change))
  assert (folder / 'index.json').read_bytes() == before and len(list(folder.iterdir())) == 3


def test_a_file_that_is_no_network_is_refused(folder, tmp_path):
  (tmp_path / 'x.safetensors').write_bytes(b'nothing of the kind')
  options = dict(device='cpu', description='x', trained_on={'crf': [1, 2]}, licence='CC0', model_card='docs/card.md')
  with pytest.raises(errors.DataError, match=r'x\.safetensors: expected'):
    shipped.add('new', tmp_path / 'x.safetensors', **options)
  assert len(list(folder.iterdir())) == 3


def test_damage_is_told_whatever_it_is(folder):
  path = folder / 'web-small.safetensors'
  whole, digest = path.read_bytes(), shipped.describe('web-small').sha256
  flipped = bytearray(whole)
  flipped[-1] ^= 1
  for damaged in (bytes(flipped), whole[:-2]):
    path.write_bytes(damaged)
    message = (
      rf'^{re.escape(str(path))}: damaged, expected {len(whole)} bytes with SHA-256 {digest}, found {len(damaged)} '
      rf'bytes with [0-9a-f]{{64}}; install the package again, or in a checkout: git checkout vqm_jax/weights\.$'
    )
    for opening in (inference.load, inference.open_run, inference.load_params, shipped.open_weights):
      with pytest.raises(errors.CheckpointError, match=message):
        opening('web-small')
  path.unlink()
  with pytest.raises(
    errors.CheckpointError, match=r'web-small\.safetensors: missing, expected the weights web-small; '
  ):
    inference.load('web-small')
  inference.load('web-tcl')


@pytest.mark.parametrize(
  'text', [None, '', '[]', '{"schema_version": 2}', '{"schema_version": 1, "weights": {"a": {}}}']
)
def test_a_damaged_index_is_told(folder, text):
  (folder / 'index.json').unlink()
  if text is not None:
    (folder / 'index.json').write_text(text)
  kind = 'missing' if text is None else 'damaged'
  with pytest.raises(errors.CheckpointError, match=rf'index\.json: {kind}.*expected the .*; install the package again'):
    inference.load('web-small')
  with pytest.raises(errors.CheckpointError, match=r'runs/mine is not a workdir'):
    inference.load('runs/mine')  # needs no index


def test_unknown_names_get_a_list(folder):
  listed = r'with the package ship web-small \(for CPUs: for a quick look\); web-tcl \(for GPUs: a small one\)\.$'
  with pytest.raises(errors.ConfigError, match=r"^weights='web-smal' is unknown; did you mean 'web-small'\? " + listed):
    shipped.open_weights('web-smal')
  with pytest.raises(errors.ConfigError, match=r"^weights='qqq' is unknown; " + listed):
    shipped.describe('qqq')
  unknown = r'^{} is not a workdir: no config\.json; .* It is no name of weights, either: {}'
  for name in ('Web-Small', pathlib.Path('web_small')):
    with pytest.raises(errors.CheckpointError, match=unknown.format(name, r"did you mean 'web-small'\? " + listed)):
      inference.load(name)
  with pytest.raises(
    errors.CheckpointError, match=r'^runs/web-small is not a workdir: no config\.json; train first, or'
  ):
    inference.open_run('runs/web-small')


def test_without_any_weights_everything_says_so(monkeypatch, tmp_path):
  shipped_weights.empty(monkeypatch, tmp_path)
  none = r'no weights ship with this version of the package \(.*index\.json lists none\); train a network and give its'
  assert shipped.names() == [] and re.match(none, shipped.table())
  for call, kind in (
    (lambda: shipped.open_weights('web-small'), errors.ConfigError),
    (lambda: inference.load('web-small'), errors.CheckpointError),
    (lambda: shipped.default('cpu'), errors.ConfigError),
  ):
    with pytest.raises(kind, match=none):
      call()


def test_a_workdir_goes_before_weights_of_its_name(folder, caplog):
  caplog.set_level('INFO')
  here = pathlib.Path('web-small')
  here.mkdir()
  assert inference.shipped_name('web-small') == 'web-small'
  assert inference.open_run('web-small').workdir == folder / 'web-small.safetensors'
  assert 'web-small: weights that ship with the package; no folder of this name is a workdir' in caplog.text
  args = shipped_weights.UNET
  config = {'system': 'tcl_unet', 'system_args': args, 'dtype': 'float32', 'ema': 0.0}
  (here / 'config.json').write_text(json.dumps({'config': config, 'version': '0.2.0'}))
  net = networks.random(lambda rngs: restorers.create('tcl_unet', rngs=rngs, **args))
  (here / 'checkpoints').mkdir()
  with checkpoints.Checkpoints(here / 'checkpoints') as saver:
    saver.save(3, {'params': nnx.to_pure_dict(nnx.state(net))}, {'step': 3})
  run = inference.open_run('web-small')
  assert (run.workdir, run.step, run.config['system']) == (here, 3, 'tcl_unet')
  assert 'web-small: the workdir of this name, not the weights that ship with the package' in caplog.text
  assert shipped.open_weights('web-small').config['system'] == 'ecnu'


def test_the_device_chooses(folder, monkeypatch, tmp_path):
  assert shipped.default('cpu') == ('web-small', 'JAX runs on CPU here, and they are made for CPUs')
  assert shipped.default('gpu') == ('web-tcl', 'JAX runs on GPU here, and they are made for GPUs')
  assert shipped.default('tpu') == ('web-tcl', 'JAX runs on TPU here, and they are made for GPUs')
  shipped_weights.add('web-other', device='gpu')
  assert shipped.default('gpu')[0] == 'web-tcl'  # the first
  shipped_weights.empty(monkeypatch, tmp_path / 'cpu')
  shipped_weights.add('web-small')
  assert shipped.default('gpu') == ('web-small', 'JAX runs on GPU here, and no weights are made for GPUs')


def test_the_table(folder):
  lines = [[cell.strip() for cell in line.strip('| \n').split('|')] for line in shipped.table().splitlines()]
  assert lines[0] == ['Name', 'Made for', 'System', 'Parameters', 'Size', 'Trained on H.264', 'What it is']
  params, size = (lines[2][column] for column in (3, 4))
  assert re.fullmatch(r'[\d.]+k?', params) and re.fullmatch(r'[\d.]+ MB', size)
  assert lines[2] == ['web-small', 'CPU', 'ecnu', params, size, 'CRF 16 to 42, QP 14 to 46', 'for a quick look']
  assert lines[3][:3] == ['web-tcl', 'GPU', 'tcl_unet'] and lines[3][5:] == ['CRF 18 to 40', 'a small one']
  assert len(lines) == 4


def test_flags_that_exclude_each_other(folder):
  inference.check_weights('runs/a', None, '7', False)
  inference.check_weights(None, 'web-small')
  for args, message in {
    ('runs/a', 'web-small'): '--workdir=runs/a and --weights=web-small exclude each other; leave one of them out.',
    (None, 'web-small', '7'): '--step=7 chooses among what a --workdir holds; leave it out with --weights=web-small.',
    (None, 'web-small', 'best', False): '--noema chooses among what',
    (None, 'web-tiny'): "weights='web-tiny' is unknown; did you mean",
  }.items():
    with pytest.raises(errors.ConfigError, match=f'^{re.escape(message)}'):
      inference.check_weights(*args)


def test_files_do_not_tell_where_they_were_made():
  for name in shipped.names():
    _, meta = exporting.read_safetensors(shipped.FOLDER / shipped.describe(name).file)
    assert meta['training'] and '=/' not in str(meta)
