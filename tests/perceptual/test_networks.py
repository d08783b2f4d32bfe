"""The feature networks against torchvision (committed file) and PyTorch layers (when installed)."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqm_jax import errors, perceptual
from vqm_jax.perceptual import networks
from vqm_jax.perceptual.weights import random, random_source

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'perceptual.npz'
TAPS = {net: tuple(perceptual.TAPS.get(net, ['relu5_4'])) for net in networks.NETWORKS}


@functools.partial(jax.jit, static_argnames='taps')
def features_and_gradient(weights, images, taps):
  """Features, and the gradient of the sum of their mean squares with respect to the images."""

  def loss(images):
    found = perceptual.features(weights, images, taps)
    return sum(jnp.square(f).mean() for f in found), found

  gradient, found = jax.grad(loss, has_aux=True)(images)
  return found, gradient


def assert_near(found, expected, tolerance):
  np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
  ('net', 'count'),
  [('alexnet', 2_469_696), ('vgg16', 14_714_688), ('vgg19', 20_024_384), ('squeezenet', 722_496)],
)
def test_published_sizes(net, count):
  assert sum(np.prod(p.shape) for p in networks.parameters(net)) == count


def test_content_features_are_those_of_torchvision():
  golden = np.load(GOLDEN)
  images = golden['small/a'][:, :33, :37].astype(np.float32) / 255
  (found,), gradient = features_and_gradient(random('vgg19'), images, ('relu5_4',))
  assert_near(found, golden['relu5_4'], 1e-5)
  assert_near(gradient, golden['gradient'], 1e-4)


@pytest.mark.parametrize(
  ('net', 'size'), [('alexnet', (41, 35)), ('vgg16', (17, 19)), ('squeezenet', (17, 34)), ('squeezenet', (35, 47))]
)
def test_features_and_gradient_are_those_of_torch(net, size):
  torch = pytest.importorskip('torch')
  from golden import torch_perceptual

  images = np.random.default_rng(1).random((1, *size, 3), dtype=np.float32)
  found, gradient = features_and_gradient(random(net), images, TAPS[net])
  theirs = torch_perceptual.Trunk(net)
  theirs.load_state_dict({name: torch.from_numpy(array) for name, array in random_source(net).items()})
  x = torch.from_numpy(images).permute(0, 3, 1, 2).double().requires_grad_()
  expected = theirs.double()(torch_perceptual.normalised(x))
  sum(f.square().mean() for f in expected).backward()
  assert len(found) == len(expected)
  for ours, other in zip(found, expected, strict=True):
    assert_near(ours, other.detach().permute(0, 2, 3, 1).numpy(), 1e-5)
  assert_near(gradient, x.grad.permute(0, 2, 3, 1).numpy(), 1e-4)


def test_weights_are_frozen():
  images = jnp.ones((1, 8, 8, 3))
  gradients = jax.grad(lambda weights: perceptual.features(weights, images, ['relu1'])[0].sum())(random('squeezenet'))
  assert not any(np.any(g) for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize(('net', 'least'), [('alexnet', 31), ('vgg16', 16), ('vgg19', 16), ('squeezenet', 17)])
def test_smallest_image(net, least):
  def shape(size):
    return jax.eval_shape(
      lambda weights, images: perceptual.features(weights, images, TAPS[net][-1:]),
      random_shapes(net), jax.ShapeDtypeStruct((1, size, 60, 3), jnp.float32),
    )[0].shape  # fmt: skip

  assert shape(least)[1] == 1
  with pytest.raises(
    errors.DataError, match=f'{net} needs images of at least {least} pixels a side, found {least - 1}x'
  ):
    shape(least - 1)


def random_shapes(net):
  arrays = {p.name: jax.ShapeDtypeStruct(p.shape, jnp.float32) for p in networks.parameters(net)}
  return perceptual.Weights(net, arrays, None)


def test_pools_reach_over_the_edge_only_where_they_should():
  x = -jnp.arange(1.0, 7.0).reshape(1, 1, 6, 1).repeat(3, axis=1)
  np.testing.assert_array_equal(networks.Pool(3)(x, {}, None).ravel(), [-1, -3])
  np.testing.assert_array_equal(networks.Pool(3, ceil=True)(x, {}, None).ravel(), [-1, -3, -5])
  np.testing.assert_array_equal(networks.Pool(2)(x[:, :, :5], {}, None).ravel(), [-1, -3])


def test_bad_requests_are_told():
  weights = random_shapes('alexnet')
  with pytest.raises(errors.ConfigError, match="alexnet has no features 'relu5_4'; choose from relu1, relu2"):
    perceptual.features(weights, jnp.zeros((1, 64, 64, 3)), ['relu5_4'])
  for images in (jnp.zeros((64, 64, 3)), jnp.zeros((1, 64, 64, 1)), jnp.zeros((1, 64, 64, 3), jnp.uint8)):
    with pytest.raises(errors.DataError, match=r'Images must be float \(B, H, W, 3\)'):
      perceptual.features(weights, images, ['relu1'])
