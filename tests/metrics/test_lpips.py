"""LPIPS against the package lpips (committed file) and PyTorch layers (when installed), with random weights."""

import pathlib

import numpy as np
import pytest

from vqm_jax import errors, metrics
from vqm_jax.perceptual.weights import convert, random_source

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'
NETS = {'alex': 'alexnet', 'vgg': 'vgg16', 'squeeze': 'squeezenet'}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  empty = tmp_path_factory.mktemp('empty')
  return {net: metrics.lpips_weights(net, empty, allow_random=True) for net in NETS}


def frames(*shape, seed=0):
  rng = np.random.default_rng(seed)
  a = rng.integers(0, 256, shape, np.uint8)
  return a, (a + rng.integers(-30, 31, shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('size', ['small', 'odd'])
@pytest.mark.parametrize('net', NETS)
def test_distances_are_those_of_the_package(weights, net, size):
  golden = np.load(GOLDEN / 'perceptual.npz')
  found = metrics.lpips(golden[f'{size}/a'], golden[f'{size}/b'], weights[net])
  np.testing.assert_allclose(found, golden[f'{size}/{net}'], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize('net', NETS)
def test_distances_are_those_of_torch(weights, net):
  torch = pytest.importorskip('torch')
  from golden import torch_perceptual

  trunk, heads = (random_source(name) for name in (NETS[net], f'lpips-{net}'))
  theirs = torch_perceptual.LPIPS(NETS[net], [torch.from_numpy(head).double() for head in heads.values()])
  theirs.trunk.load_state_dict({name: torch.from_numpy(array) for name, array in trunk.items()})
  a, b = frames(2, 33, 37, 3)
  x, y = (torch.from_numpy(v / 127.5 - 1).permute(0, 3, 1, 2) for v in (a, b))
  expected = theirs.double()(x, y).detach().numpy()
  np.testing.assert_allclose(metrics.lpips(a, b, weights[net]), expected, rtol=2e-6, atol=1e-6)


def test_identical_frames_symmetry_and_leading_axes(weights):
  a, b = (v.reshape(1, 2, 40, 40, 3) for v in frames(2, 40, 40, 3))
  found = metrics.lpips(a, b, weights['alex'])
  assert found.shape == (1, 2) and found.dtype == np.float64 and (found > 0.01).all()
  np.testing.assert_allclose(metrics.lpips(b, a, weights['alex']), found, rtol=0, atol=1e-7)
  np.testing.assert_array_equal(metrics.lpips(a, a, weights['alex']), np.zeros((1, 2)))
  assert metrics.lpips(a[0, 0], b[0, 0], weights['alex']) == found[0, 0]


def test_floats_are_in_zero_to_one(weights):
  a, b = frames(40, 40, 3)
  as_float = [(v / 255).astype(np.float32) for v in (a, b)]
  np.testing.assert_allclose(
    metrics.lpips(*as_float, weights['alex']), metrics.lpips(a, b, weights['alex']), rtol=0, atol=1e-7
  )
  for bad in (2 * as_float[0] - 1, as_float[0] * 255, as_float[0] * np.nan):
    with pytest.raises(errors.DataError, match=r'Float frames must be in \[0, 1\]'):
      metrics.lpips(bad, as_float[1], weights['alex'])


def test_bad_frames_are_told(weights):
  a, b = frames(40, 40, 3)
  for x, y, message in (
    (a, b[1:], 'one shape and dtype'),
    (a, b / 255, 'one shape and dtype'),
    (a[..., :1], b[..., :1], r'\(..., H, W, 3\), uint8 or float'),
    (a.astype(int), b.astype(int), r'\(..., H, W, 3\), uint8 or float'),
    (a[:30], b[:30], 'alexnet needs images of at least 31 pixels a side, found 30x40'),
  ):
    with pytest.raises(errors.DataError, match=message):
      metrics.lpips(x, y, weights['alex'])


def test_missing_and_unknown_weights_are_told(tmp_path):
  with pytest.raises(errors.MissingWeightsError, match=r'LPIPS \(alex\) needs the ImageNet weights alexnet.*--weights'):
    metrics.lpips_weights(path=tmp_path, setting='--weights')
  np.savez(tmp_path / 'x.npz', **random_source('alexnet'))
  convert('alexnet', tmp_path / 'x.npz', tmp_path / 'alexnet.npz')
  with pytest.raises(errors.MissingWeightsError, match=r'LPIPS \(alex\) needs the LPIPS v0.1 heads lpips-alex'):
    metrics.lpips_weights('alex', tmp_path)
  convert('lpips-alex', GOLDEN / 'lpips_alex_zip.pth', tmp_path / 'lpips-alex.npz')
  found = metrics.lpips_weights('alex', tmp_path)
  assert (found.trunk.net, found.heads.net) == ('alexnet', 'lpips-alex')
  with pytest.raises(errors.ConfigError, match=r"expected one of \['alex', 'vgg', 'squeeze'\], found 'vgg19'"):
    metrics.lpips_weights('vgg19', tmp_path)
