"""GIL's recurrent units, and what its two stages share."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax import restorers
from vqm_jax.restorers.gil import DRCLC, GIL, MU, RRCU

FLOAT32 = dict(dtype=jnp.float32)
WIDTH = 4


def test_released_wiring_has_twice_the_parameters():
  assert networks.count(functools.partial(restorers.create, 'gil', share_stages=False)) == 7_190_126


@pytest.mark.parametrize(
  ('args', 'params'), [((90, 32), 40_032), ((64, 64), 152_128), ((128, 256), 2_394_368), ((128, 128), 607_360)]
)
def test_published_parameter_counts_of_recurrent_units(args, params):
  assert networks.count(functools.partial(RRCU, *args, **FLOAT32)) == params


@pytest.fixture
def layer():
  return networks.random(functools.partial(DRCLC, WIDTH, **FLOAT32))


def features(channels=WIDTH):
  return jax.random.normal(jax.random.key(0), (1, 6, 6, channels))


def states(layer, x):
  """h0 ... h3, each as the output of a layer of fewer steps with the same weights."""
  out = []
  for steps in range(len(layer.mix) + 1):
    shorter = networks.random(functools.partial(DRCLC, WIDTH, steps, **FLOAT32))
    shorter.shared, shorter.mix = layer.shared, nnx.List(list(layer.mix)[:steps])
    out.append(networks.apply(shorter, x))
  return out


def test_every_state_comes_from_the_input_and_all_states_before(layer):
  x, found = features(), states(layer, features())
  np.testing.assert_allclose(found[0], jax.nn.relu(layer.shared(x)), atol=1e-5)
  for k, mix in enumerate(layer.mix):
    expected = jax.nn.relu(layer.shared(mix(jnp.concatenate([x, *found[: k + 1]], axis=-1))))
    np.testing.assert_allclose(found[k + 1], expected, atol=1e-5)
  np.testing.assert_array_equal(found[3], networks.apply(layer, x))


def test_one_kernel_makes_all_states_and_is_counted_once(layer):
  before = states(layer, features())
  layer.shared.kernel[...] = layer.shared.kernel[...] + 0.1
  for old, new in zip(before, states(layer, features()), strict=True):
    assert np.abs(new - old).max() > 1e-3
  kernels = {
    steps: [p.shape for p in jax.tree.leaves(nnx.state(networks.shapes(functools.partial(DRCLC, 8, steps, **FLOAT32))))]
    for steps in (1, 3, 5)
  }
  assert all(shapes.count((3, 3, 8, 8)) == 1 for shapes in kernels.values())


def test_a_linear_layer_leaves_out_the_last_activation_alone(layer):
  linear = networks.random(functools.partial(DRCLC, WIDTH, linear=True, **FLOAT32))
  nnx.update(linear, nnx.state(layer))
  out = networks.apply(linear, features())
  assert out.min() < 0
  np.testing.assert_allclose(jax.nn.relu(out), networks.apply(layer, features()), atol=1e-6)


def test_a_unit_whose_layers_are_silent_is_its_1x1_convolution():
  unit, x = networks.random(functools.partial(RRCU, 6, WIDTH, linear=True, **FLOAT32)), features(6)
  first, second = unit.first, unit.second
  assert (first.linear, second.linear) == (False, True)
  np.testing.assert_allclose(networks.apply(unit, x), unit.enter(x) + second(first(unit.enter(x))), atol=1e-5)
  for layer in (first, second):
    for mix in layer.mix:
      networks.silence(mix)
    layer.shared.bias[...] = jnp.zeros(WIDTH)
  np.testing.assert_allclose(networks.apply(unit, x), unit.enter(x), atol=1e-6)


def test_only_the_two_units_before_a_shuffle_are_linear():
  unet = networks.shapes(functools.partial(MU, WIDTH, **FLOAT32))
  linear = {
    name: [unit.first.linear, unit.second.linear] for name, unit in vars(unet).items() if isinstance(unit, RRCU)
  }
  ends = {'rrcu1': False, 'rrcu2': False, 'rrcu3': True, 'up_rrcu3': True, 'up_rrcu2': False}
  assert linear == {name: [False, end] for name, end in ends.items()}


def clip():
  return jax.random.uniform(jax.random.key(0), (1, 5, 16, 16, 3))


@pytest.mark.parametrize('share_stages', [True, False])
def test_a_silent_last_layer_gives_the_centre_frame(share_stages):
  network = networks.random(functools.partial(GIL, WIDTH, share_stages))
  networks.silence(network.stage2.last)
  np.testing.assert_array_equal(networks.apply(network, clip()), clip()[:, 2])


def test_the_second_stage_corrects_the_frame_as_it_came():
  network, x = networks.random(functools.partial(GIL, WIDTH, False)), clip()
  triplets = [jnp.concatenate([x[:, k + j] for j in range(3)], axis=-1) for k in range(3)]
  denoised = [x[:, k + 1] - networks.apply(network.stage1, triplet) for k, triplet in enumerate(triplets)]
  expected = x[:, 2] - networks.apply(network.stage2, jnp.concatenate(denoised, axis=-1))
  np.testing.assert_allclose(networks.apply(network, x), expected, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_both_stages_add_up_where_they_share():
  shared = networks.random(functools.partial(GIL, WIDTH, True))
  apart = networks.random(functools.partial(GIL, WIDTH, False))
  for stage in (apart.stage1, apart.stage2):
    nnx.update(stage, nnx.state(shared.stage1))
  together, separate = (networks.by_path(networks.gradients(n, clip())) for n in (shared, apart))
  assert len(separate) == 2 * len(together)
  for path, gradient in together.items():
    parts = [separate[path.replace('stage1', stage)] for stage in ('stage1', 'stage2')]
    assert all(np.abs(part).max() > 0 for part in parts)
    np.testing.assert_allclose(gradient, sum(parts), rtol=1e-3, atol=1e-5 * float(np.abs(gradient).max()))
