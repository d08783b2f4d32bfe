"""TCL's two branches; their mean is a mixture as any other."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
from flax import nnx
from sizes import TINY

from vqm_jax import restorers
from vqm_jax.layers.resample import bilinear_up2
from vqm_jax.restorers.tcl import TCLEDVR, TCLUNet


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
