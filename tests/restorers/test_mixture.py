"""Weighted means of networks, for TCL, BossGao and any others."""

import functools

import jax
import networks
import numpy as np
import pytest
from restorers.sizes import TINY

from vqm_jax import errors, restorers
from vqm_jax.restorers.mixture import Mixture

MEMBERS = ('gtq', 'tcl_unet')  # windows of three frames and of one


def member(system):
  return networks.random(functools.partial(restorers.create, system, **TINY[system]))


@pytest.fixture(scope='module')
def members():
  return [member(system) for system in MEMBERS]


@pytest.fixture(scope='module')
def clip():
  return jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))


@pytest.fixture(scope='module')
def outputs(members, clip):
  """Of each member alone, the single-frame one on the middle frame."""
  long, short = members
  return [networks.apply(long, clip), networks.apply(short, clip[:, 1:2])]


@pytest.mark.parametrize('weights', [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7), None])
def test_mixture_is_the_weighted_sum_over_the_middle_of_the_window(members, clip, outputs, weights):
  expected = sum(w * y for w, y in zip(weights or (0.5, 0.5), outputs, strict=True))
  np.testing.assert_allclose(networks.apply(Mixture(members, weights), clip), expected, atol=1e-6)


@pytest.mark.slow
def test_outputs_are_those_of_the_members(members, clip, outputs):
  mixture = Mixture(members)
  features = mixture.encode(clip.reshape(3, 1, 16, 16, 3))
  found = mixture.outputs(jax.tree.map(lambda x: x[None], features))
  for got, expected in zip(found, outputs, strict=True):
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_mixture_needs_the_longest_window_and_a_size_that_fits_all():
  mixture = Mixture([member('tcl_edvr'), member('tcl_unet')])
  assert (mixture.num_frames, mixture.size_multiple, mixture.unit_frames) == (3, 16, 1)
  thirds = networks.shapes(functools.partial(restorers.create, 'ecnu', r=3))
  assert Mixture([member('gtq'), thirds]).size_multiple == 12


@pytest.mark.parametrize(('name', 'classes'), [('tcl', ['TCLEDVR', 'TCLUNet']), ('boss', ['BossGao'] * 3)])
def test_published_mixtures_weigh_their_members_equally(name, classes):
  mixture = networks.shapes(functools.partial(restorers.create, name))
  assert [type(m).__name__ for m in mixture.members] == classes
  assert mixture.weights == (1 / len(classes),) * len(classes)


def test_members_and_weights_come_from_the_config():
  args = dict(members=[(system, TINY[system]) for system in MEMBERS], weights=[0.2, 0.8])
  mixture = networks.shapes(functools.partial(restorers.create, 'mixture', **args))
  assert [type(m).__name__ for m in mixture.members] == ['GTQ', 'TCLUNet']
  assert mixture.weights == (0.2, 0.8)


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (dict(members=[('none', {}), ('none', {})], weights=[1.0]), r'2 members need as many weights, got \(1.0,\)'),
    (dict(members=[('none', {}), ('gil', TINY['gil'])]), 'unit of work is one frame'),
    (dict(members=[]), 'members of a mixture is empty'),
    (dict(members=[('ecno', {})]), "'ecno' is unknown; did you mean 'ecnu'"),
  ],
)
def test_what_cannot_be_mixed_is_refused(args, message):
  with pytest.raises(errors.ConfigError, match=message):
    networks.shapes(functools.partial(restorers.create, 'mixture', **args))
