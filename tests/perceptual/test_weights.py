"""Conversion of published weights, and what loading says when they are missing, foreign or changed."""

import hashlib
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from vqm_jax import errors, perceptual
from vqm_jax.perceptual import weights

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'
HEADS = GOLDEN / 'lpips_alex_legacy.pth'


@pytest.fixture(scope='module')
def source():
  return weights.random_source('squeezenet')


def assert_same(found, net):
  jax.tree.map(np.testing.assert_array_equal, found.arrays, weights.random(net).arrays)


def test_what_is_converted_is_loaded(tmp_path, source, monkeypatch):
  extra = {'classifier.1.weight': np.zeros((1000, 512, 1, 1)), 'scaling_layer.shift': np.zeros(3)}
  np.savez(tmp_path / 'published.npz', **source, **extra)
  meta = weights.convert('squeezenet', tmp_path / 'published.npz', tmp_path / 'folder' / 'squeezenet.npz')
  assert meta['sha256'] == hashlib.sha256((tmp_path / 'published.npz').read_bytes()).hexdigest()
  assert meta['source'] == 'published.npz' and meta['converter'] == weights.VERSION
  monkeypatch.setenv(weights.ENVIRONMENT, str(tmp_path / 'folder'))
  for path in (None, tmp_path / 'folder', tmp_path / 'folder' / 'squeezenet.npz'):
    found = perceptual.load('squeezenet', path)
    assert (found.net, found.sha256) == ('squeezenet', meta['sha256'])
    assert_same(found, 'squeezenet')
  with np.load(tmp_path / 'folder' / 'squeezenet.npz') as stored:  # anyone can read it
    assert json.loads(str(stored['__meta__'])) == meta
    kernel = stored['fire2/expand3x3/kernel']
  np.testing.assert_array_equal(kernel, source['features.3.expand3x3.weight'].transpose(2, 3, 1, 0))
  assert [path.name for path in (tmp_path / 'folder').iterdir()] == ['squeezenet.npz']


@pytest.mark.parametrize('prefix', ['module.', 'backbone.', 'module.backbone.'])
def test_names_of_a_whole_lpips_module(source, prefix):
  slices = {'0': 1, '3': 2, '4': 2, '6': 3, '7': 3, '9': 4, '10': 5, '11': 6, '12': 7}
  state = {}
  for name, array in source.items():
    index, rest = name.removeprefix('features.').split('.', 1)
    state[f'{prefix}net.slice{slices[index]}.{index}.{rest}'] = array
  state |= {f'{prefix}{name}': array for name, array in weights.random_source('lpips-squeeze').items()}
  state |= {f'{prefix}lins.0.model.1.weight': np.zeros(1)}
  for net in ('squeezenet', 'lpips-squeeze'):
    assert_same(perceptual.Weights(net, weights.from_source(net, state), None), net)


def test_every_problem_is_listed(source):
  bad = dict(source)
  del bad['features.0.weight'], bad['features.12.squeeze.bias']
  bad['features.3.squeeze.bias'] = np.zeros(17, np.float32)
  bad['features.4.squeeze.bias'] = np.full(16, np.nan, np.float32)
  bad['features.6.squeeze.bias'] = np.zeros(32, np.int32)
  with pytest.raises(errors.DataError) as caught:
    weights.from_source('squeezenet', bad)
  assert str(caught.value) == (
    'not the weights of squeezenet: features.0.weight is missing; features.3.squeeze.bias has shape (17,), not (16,); '
    'features.4.squeeze.bias is not finite; features.6.squeeze.bias is int32, not floating point; '
    'features.12.squeeze.bias is missing.'
  )


def test_another_network_is_recognised(source):
  with pytest.raises(errors.DataError, match=r'not the weights of vgg19: .* It is a file of squeezenet\.'):
    weights.from_source('vgg19', source)
  with pytest.raises(errors.DataError, match=r'lin0.model.1.weight is missing; .*lin4'):
    weights.from_source('lpips-alex', source)


def test_half_precision_becomes_float32(source):
  found = weights.from_source('squeezenet', {name: array.astype(np.float16) for name, array in source.items()})
  assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


def test_hash_in_the_name(tmp_path, caplog):
  digits = hashlib.sha256(HEADS.read_bytes()).hexdigest()[:8]
  good, bad = tmp_path / f'alex-{digits}.pth', tmp_path / 'alex-0123abcd.pth'
  for path in (good, bad):
    shutil.copy(HEADS, path)
  weights.convert('lpips-alex', good, tmp_path / 'a.npz')
  message = f'begins with {digits}, not with 0123abcd'
  with pytest.raises(errors.DataError, match=message):
    weights.convert('lpips-alex', bad, tmp_path / 'b.npz')
  assert not (tmp_path / 'b.npz').exists() and not caplog.text
  weights.convert('lpips-alex', bad, tmp_path / 'b.npz', check_hash=False)
  assert message in caplog.text
  assert_same(perceptual.load('lpips-alex', tmp_path / 'b.npz'), 'lpips-alex')


def test_heads_of_the_first_version_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(weights, '_LPIPS_V00', {hashlib.sha256(HEADS.read_bytes()).hexdigest()[:8]})
  with pytest.raises(errors.DataError, match='heads of LPIPS v0.0'):
    weights.convert('lpips-alex', HEADS, tmp_path / 'x.npz')


def test_a_failed_conversion_leaves_nothing(tmp_path, monkeypatch):
  output = tmp_path / 'lpips-alex.npz'
  weights.convert('lpips-alex', HEADS, output)
  before = output.read_bytes()

  def full(file, **arrays):
    file.write(b'half')
    raise OSError('No space left on device')

  monkeypatch.setattr(np, 'savez', full)
  with pytest.raises(errors.DiskFullError, match='lpips-alex.npz: no room to write this'):
    weights.convert('lpips-alex', HEADS, output)
  assert output.read_bytes() == before and list(tmp_path.iterdir()) == [output]


def test_missing_weights_are_explained(tmp_path, monkeypatch):
  with pytest.raises(errors.MissingWeightsError) as caught:
    perceptual.load(
      'vgg19', tmp_path, needed_by="WESPE's content loss", setting='--config.perceptual_dir',
      instead='--config.content_loss=pixel',
    )  # fmt: skip
  message = str(caught.value)
  for part in (
    "WESPE's content loss needs the ImageNet weights vgg19",
    f'not in {tmp_path}/vgg19.npz',
    '--config.perceptual_dir or $VQM_JAX_PERCEPTUAL_DIR',
    'vgg19-dcbb9e9d.pth',
    'torchvision',
    f'convert --net=vgg19 --input=vgg19-dcbb9e9d.pth --output={tmp_path}/vgg19.npz',
    'or do without: --config.content_loss=pixel',
  ):
    assert part in message
  assert '\n' not in message
  monkeypatch.delenv(weights.ENVIRONMENT, raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  with pytest.raises(
    errors.MissingWeightsError, match=f'{tmp_path}/vqm_jax/perceptual/lpips-vgg.npz .* vgg.pth: in the'
  ):
    perceptual.load('lpips-vgg')


def test_random_weights_only_on_request(tmp_path):
  found = perceptual.load('squeezenet', tmp_path, allow_random=True)
  assert found.sha256 is None
  assert_same(found, 'squeezenet')
  weights.convert('lpips-alex', HEADS, tmp_path / 'lpips-alex.npz')
  assert perceptual.load('lpips-alex', tmp_path, allow_random=True).sha256 is not None
  with pytest.raises(errors.ConfigError, match="Unknown feature network 'resnet'; choose from alexnet"):
    perceptual.load('resnet', tmp_path)


def test_foreign_cut_and_changed_files_are_told(tmp_path):
  path = tmp_path / 'lpips-alex.npz'
  weights.convert('lpips-alex', HEADS, path)
  with np.load(path) as stored:
    arrays = dict(stored)
  whole = path.read_bytes()

  def told(message, net='lpips-alex'):
    with pytest.raises(errors.DataError, match=f'lpips-alex.npz: {message}'):
      perceptual.load(net, path)

  told('expected lpips-vgg of converter version 1, found lpips-alex of version 1; convert it again', 'lpips-vgg')
  path.write_bytes(whole[: len(whole) // 2])
  told('cut or damaged')
  middle = len(whole) // 2
  path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
  told('cut or damaged .*CRC')
  np.savez(path, **(arrays | {'lin2': arrays['lin2'] * 1.001}))
  told('its arrays are not those that were written')
  np.savez(path, **{name: array for name, array in arrays.items() if name != 'lin2'})
  told('its arrays are not those that were written')
  np.savez(path, **{name: array for name, array in arrays.items() if name != '__meta__'})
  told('not written by our converter; convert it again with python -m vqm_jax.perceptual.convert --net=lpips-alex')
  np.savez(path, **(arrays | {'__meta__': '[1]'}))
  told('not written by our converter')
  shutil.copy(HEADS, path)
  told('not written by our converter')


def test_installed_heads_are_found_without_importing(tmp_path, monkeypatch):
  assert weights.installed_heads('vgg16') is None
  folder = tmp_path / 'lpips'
  (folder / 'weights' / 'v0.1').mkdir(parents=True)
  (folder / '__init__.py').write_text('raise ImportError("needs torch")')
  monkeypatch.syspath_prepend(tmp_path)
  assert weights.installed_heads('lpips-alex') is None
  shutil.copy(HEADS, folder / 'weights' / 'v0.1' / 'alex.pth')
  assert weights.installed_heads('lpips-alex') == folder / 'weights' / 'v0.1' / 'alex.pth'
