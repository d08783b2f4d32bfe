"""The multi-frame branch of TCL against an implementation in PyTorch (tests/golden/torch_edvr.py)."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax.restorers.tcl import TCLEDVR

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'edvr.npz'


def by_path(tree):
  """{'front': {'stem': {0: {'kernel': x}}}} -> {'front/stem/0/kernel': x}."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


@nnx.jit
def output_and_gradients(network, clip):
  """Gradients are those of the mean squared output."""

  def loss(network):
    out = network(clip)
    return jnp.square(out).mean(), out

  gradients, out = nnx.grad(loss, has_aux=True)(network)
  return out, gradients


def assert_near(found, expected, tolerance, name=''):
  np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


def test_output_and_gradients_are_those_of_the_committed_file():
  golden = np.load(GOLDEN)

  def part(prefix):
    return {name.removeprefix(prefix): golden[name] for name in golden.files if name.startswith(prefix)}

  args = {name: int(value) for name, value in part('args/').items()} | {'input_mean': 0.0}
  graphdef, state = nnx.split(networks.shapes(functools.partial(TCLEDVR, **args)))
  state, params = nnx.to_pure_dict(state), part('params/')
  assert {name: p.shape for name, p in by_path(state).items()} == {name: p.shape for name, p in params.items()}
  leaves = [params[name].astype(np.float32) for name in by_path(state)]
  network = nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(state), leaves))
  out, gradients = output_and_gradients(network, golden['clip'].astype(np.float32) / 255)
  gradients = by_path(nnx.to_pure_dict(gradients))
  np.testing.assert_allclose(out, golden['out'], rtol=0, atol=1e-5)
  for name, expected in part('gradients/').items():
    assert_near(gradients[name], expected, 1e-4, name)


def test_output_and_every_gradient_are_those_of_torch():
  torch = pytest.importorskip('torch')
  from golden import torch_edvr

  args = dict(width=4, num_frames=3, num_front=2, num_blocks=2, groups=4)
  network = networks.random(functools.partial(TCLEDVR, **args), seed=1)
  for warp in (*(level.warp for level in network.align.levels), network.align.cascade_warp):
    warp.guide.kernel[...] *= 10  # offsets of about a pixel
  clip = np.random.default_rng(1).random((2, 3, 32, 48, 3), dtype=np.float32)
  out, gradients = output_and_gradients(network, clip)
  gradients = by_path(nnx.to_pure_dict(gradients))

  theirs = torch_edvr.TorchEDVR(**args).double()
  theirs.load(nnx.to_pure_dict(nnx.state(network)))
  expected = theirs(torch.from_numpy(clip).double().permute(0, 1, 4, 2, 3))
  expected.square().mean().backward()
  np.testing.assert_allclose(out, expected.detach().permute(0, 2, 3, 1), rtol=0, atol=1e-5)
  weights = {torch_edvr.our_name(name): weight for name, weight in theirs.named_parameters()}
  assert weights.keys() == gradients.keys()
  for name, weight in weights.items():
    assert_near(gradients[name], torch_edvr.our_value(weight.grad), 1e-4, name)
