"""TCL's two branches; their mean is a mixture as any other."""

import functools
import importlib

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from restorers.sizes import TINY

from vqm_jax import restorers
from vqm_jax.layers.resample import bilinear_up2, pixel_shuffle
from vqm_jax.restorers.tcl import TCLEDVR, TCLUNet, _squares


def test_published_unet_has_four_scales():
  unet = networks.shapes(functools.partial(restorers.create, 'tcl_unet'))
  kernels = [[layer.kernel.shape[2:] for layer in block.convs] for block in [*unet.encoder, unet.middle]]
  assert kernels == [[(3, 48), (48, 48)], [(48, 96), (96, 96)], [(96, 192), (192, 192)], [(192, 384), (384, 384)]]
  assert [layer.kernel.shape[2:] for layer in unet.up] == [(384, 192), (192, 96), (96, 48)]


def test_unet_is_its_definition():
  network = networks.random(functools.partial(TCLUNet, width=4, depth=1))
  x = jax.random.uniform(jax.random.key(0), (2, 1, 8, 12, 3))
  relu, (encoder,), (up,), (decoder,) = jax.nn.relu, network.encoder, network.up, network.decoder

  def double(block, x):
    first, second = block.convs
    return relu(second(relu(first(x))))

  skip = double(encoder, x[:, 0])
  pooled = jnp.stack([skip[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).max(axis=0)
  raised = relu(up(bilinear_up2(double(network.middle, pooled))))
  expected = x[:, 0] + network.last(double(decoder, jnp.concatenate([raised, skip], axis=-1)))
  np.testing.assert_allclose(networks.apply(network, x), expected, atol=1e-5)


def test_unet_of_squares_of_pixels():
  network = networks.random(functools.partial(TCLUNet, width=4, depth=1, unshuffle=2))
  assert network.size_multiple == 4 and network.last.kernel.shape[2:] == (4, 12)
  x = jax.random.uniform(jax.random.key(0), (2, 1, 8, 12, 3))
  # The same convolutions as in a network at full resolution, in between.
  seen = _squares(x[:, 0], 2)
  skip = network.encoder[0](seen)
  pooled = jnp.stack([skip[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).max(axis=0)
  raised = jax.nn.relu(network.up[0](bilinear_up2(network.middle(pooled))))
  squares = network.last(network.decoder[0](jnp.concatenate([raised, skip], axis=-1)))
  np.testing.assert_allclose(networks.apply(network, x), x[:, 0] + pixel_shuffle(squares, 2), atol=1e-5)


def test_what_is_seen_of_squares():
  frame = np.asarray(jax.random.uniform(jax.random.key(0), (1, 6, 8, 3)))
  seen = np.asarray(_squares(frame, 2))
  assert seen.shape == (1, 3, 4, 15)
  around = np.pad(frame, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  for c, i, j in ((0, 0, 0), (1, 0, 1), (2, 1, 0)):
    pixel, box = frame[0, 2 + i, 4 + j, c], around[0, 2 + i : 5 + i, 4 + j : 7 + j, c].mean()
    assert seen[0, 1, 2, 4 * c + 2 * i + j] == pytest.approx(4 * (pixel - box), abs=1e-5)
  np.testing.assert_allclose(seen[0, 1, 2, 12:], frame[0, 2:4, 4:6].mean((0, 1)) - 0.5, atol=1e-6)


def test_the_network_that_ships_for_cpus_has_its_size():
  config = importlib.import_module('experiments.web_small').get_config()
  assert networks.count(functools.partial(TCLUNet, **config.system_args)) == 521_548


def test_fresh_branches_are_the_identity():
  for branch in (TCLEDVR(**TINY['tcl_edvr'], rngs=nnx.Rngs(0)), TCLUNet(**TINY['tcl_unet'], rngs=nnx.Rngs(0))):
    x = jax.random.uniform(jax.random.key(0), (1, branch.num_frames, 16, 16, 3))
    np.testing.assert_array_equal(networks.apply(branch, x), x[:, branch.num_frames // 2])


def test_branches_without_their_last_layer_are_the_identity():
  for branch in (TCLEDVR, TCLUNet):
    network = networks.random(functools.partial(branch, **TINY['tcl_edvr' if branch is TCLEDVR else 'tcl_unet']))
    networks.silence(network.tail.last if branch is TCLEDVR else network.last)
    x = jax.random.uniform(jax.random.key(0), (1, network.num_frames, 16, 16, 3))
    np.testing.assert_array_equal(networks.apply(network, x), x[:, network.num_frames // 2])
