"""Pixel losses, total variation, gradient penalties and their adaptive weight against closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqm_jax import errors, losses

SHAPE = (4, 3, 5, 2)
every_kind = pytest.mark.parametrize('kind', losses.PENALTIES)


def keys(count=SHAPE[0], seed=0):
  return jax.random.split(jax.random.key(seed), count)


def pair(shape=SHAPE):
  rng = np.random.default_rng(0)
  return rng.random(shape, np.float32), rng.random(shape, np.float32)


def linear(norm):
  """A critic with a gradient of this norm everywhere, and its weights."""
  weights = np.random.default_rng(1).normal(size=SHAPE[1:]).astype(np.float32)
  weights *= norm / np.linalg.norm(weights)
  return (lambda w, x: (x * w).sum((1, 2, 3))), weights


def test_losses_equal_their_formulas_and_refuse_to_broadcast():
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 3, 4, 3)), rng.random((2, 3, 4, 3))
  d = a - b
  np.testing.assert_allclose(losses.l1(a, b), np.abs(d).mean(), rtol=1e-6)
  np.testing.assert_allclose(losses.l2(a, b), (d**2).mean(), rtol=1e-6)
  np.testing.assert_allclose(losses.charbonnier(a, b), np.sqrt(d**2 + 1e-6).mean(), rtol=1e-6)
  np.testing.assert_allclose(losses.pixel_loss('charbonnier', eps=0.1)(a, b), np.sqrt(d**2 + 0.01).mean(), rtol=1e-6)
  with pytest.raises(ValueError, match='same shape'):
    losses.l1(a, b[:1])
  with pytest.raises(errors.ConfigError, match='l3'):
    losses.pixel_loss('l3')
  with pytest.raises(errors.ConfigError, match='loss_args'):
    losses.pixel_loss('l1', eps=1)


def test_rmse_weighs_samples_alike():
  a, b = pair()
  each = np.sqrt(np.square(a - b).reshape(len(a), -1).mean(axis=1) + 1e-6)
  np.testing.assert_allclose(losses.rmse(a, b), each.mean(), rtol=1e-6)
  assert losses.rmse(a, a) == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize('name', losses.PIXEL_LOSSES)
def test_half_precision_is_summed_in_float32(name):
  a, b = (x.astype(jnp.bfloat16) for x in map(jnp.asarray, pair((2, 64, 64, 3))))
  found = losses.pixel_loss(name)(a, b)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, losses.pixel_loss(name)(a.astype(jnp.float32), b.astype(jnp.float32)), rtol=1e-5)


@pytest.mark.parametrize(('norm', 'expected'), [(0.0, 0), (0.5, 0), (1.0, 0), (2.0, 1)])
def test_one_sided_penalty_of_a_linear_critic(norm, expected):
  critic, weights = linear(norm)
  penalty, gradient = jax.value_and_grad(
    lambda w: losses.gradient_penalty(functools.partial(critic, w), *pair(), keys(), 'one_sided')
  )(weights)
  np.testing.assert_allclose(penalty, expected, atol=1e-6)
  if norm == 1:  # a corner
    assert np.isfinite(gradient).all()
  else:
    np.testing.assert_allclose(gradient, weights / 2 if norm == 2 else 0 * weights, atol=1e-6)


@pytest.mark.parametrize('norm', [0.5, 1.0, 2.0])
def test_two_sided_and_zero_penalty_of_a_linear_critic(norm):
  critic, weights = linear(norm)
  penalty = functools.partial(losses.gradient_penalty, functools.partial(critic, weights), *pair(), keys())
  np.testing.assert_allclose(penalty('two_sided'), (norm - 1) ** 2, atol=1e-6)
  u = np.asarray(jax.vmap(jax.random.uniform)(keys()))
  np.testing.assert_allclose(penalty('zero'), np.mean(((1 - u) * norm) ** 2), rtol=1e-5)


@every_kind
def test_flat_critic_gives_finite_gradients(kind):
  critic, weights = linear(0.0)
  gradient = jax.grad(lambda w: losses.gradient_penalty(functools.partial(critic, w), *pair(), keys(), kind))(weights)
  assert np.isfinite(gradient).all()


@every_kind
def test_one_u_for_each_sample_between_real_and_generated(kind):
  """D = a |x|^2 / 2 has the gradient a x, so that the penalty tells where it was taken."""
  real, fake = pair()
  penalty = losses.gradient_penalty(lambda x: 3 * jnp.square(x).sum((1, 2, 3)) / 2, real, fake, keys(), kind)
  u = np.asarray(jax.vmap(jax.random.uniform)(keys()))
  assert len(set(u.tolist())) == SHAPE[0] and (u >= 0).all() and (u < 1).all()
  between = (1 - u)[:, None, None, None] * real + u[:, None, None, None] * fake
  n = 3 * np.sqrt(np.square(between).sum((1, 2, 3)))
  assert n.min() > 1
  expected = {'one_sided': n - 1, 'two_sided': (n - 1) ** 2, 'zero': ((1 - u) * n) ** 2}[kind]
  np.testing.assert_allclose(penalty, expected.mean(), rtol=1e-5)


def test_the_one_sided_penalty_is_a_mean_over_samples_of_which_gentle_ones_count_nothing():
  real = np.zeros(SHAPE, np.float32)
  real[0], real[1] = 2, 0.01  # gradients of norm 2 sqrt(30) and 0.01 sqrt(30), the others 0
  penalty = losses.gradient_penalty(lambda x: jnp.square(x).sum((1, 2, 3)) / 2, real, real, keys())
  np.testing.assert_allclose(penalty, (2 * math.sqrt(30) - 1) / 4, rtol=1e-6)


@every_kind
def test_second_order_gradients_are_those_of_finite_differences(kind):
  """A critic of two layers with curvature; the penalty must not be a constant to its parameters."""
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    real, fake = rng.random((3, 4, 4, 2)), rng.random((3, 4, 4, 2))
    params = {'first': rng.normal(size=(32, 6)), 'bias': rng.normal(size=6), 'second': 2 * rng.normal(size=6)}

    def critic(p, x):
      return jnp.tanh(x.reshape(x.shape[0], -1) @ p['first'] + p['bias']) @ p['second']

    @jax.jit
    def penalty(p):
      return losses.gradient_penalty(functools.partial(critic, p), real, fake, keys(3), kind)

    gradient = jax.grad(penalty)(params)
    for name, value in params.items():
      direction = rng.normal(size=value.shape)
      ahead, behind = (penalty(params | {name: value + sign * 1e-5 * direction}) for sign in (1, -1))
      slope = float(jnp.vdot(gradient[name], direction))
      assert abs(slope) > 1e-3
      np.testing.assert_allclose((ahead - behind) / 2e-5, slope, rtol=1e-5)


def test_unknown_kinds_are_refused():
  with pytest.raises(errors.ConfigError, match="penalty='half_sided' is unknown; choose one of one_sided, "):
    losses.gradient_penalty(lambda x: x.sum((1, 2, 3)), *pair(), keys(), 'half_sided')


def weights_over(penalty, steps, **kwargs):
  """The weight in use after each critic update that saw this penalty."""
  controller = losses.AdaptiveWeight(**kwargs)

  def step(state, _):
    state = controller.update(state, jnp.float32(penalty))
    return state, state['weight']

  return np.asarray(jax.lax.scan(step, controller.init(), length=steps)[1])


def changes(weights, start=10.0):
  """{update: new weight}"""
  before = [start, *weights[:-1].tolist()]
  return {k + 1: new for k, (old, new) in enumerate(zip(before, weights.tolist(), strict=True)) if new != old}


def test_adaptive_weight_doubles_halves_and_stays():
  assert changes(weights_over(0.1, 200)) == {50: 20, 100: 40, 150: 80, 200: 160}
  assert changes(weights_over(0.0, 150)) == {50: 5, 100: 2.5, 150: 1.25}
  assert changes(weights_over(0.02, 300)) == {}


def test_released_weight_never_falls_and_counts_from_an_average_of_zero():
  assert changes(weights_over(0.0, 200, allow_decrease=False)) == {}
  # 1 - 0.99^n > 1/2 from n = 69 on
  assert changes(weights_over(0.1, 140, allow_decrease=False)) == {69: 20, 138: 40}
  # A large penalty acts at once, then after each cooldown of 50 updates.
  assert changes(weights_over(100.0, 120, allow_decrease=False)) == {1: 20, 51: 40, 101: 80}


def test_adaptive_weight_keeps_its_limits():
  assert weights_over(1.0, 200, most=35.0)[-1] == 35
  assert weights_over(0.0, 200, least=4.0)[-1] == 4


def test_adaptive_weight_continues_from_a_stored_state():
  controller = losses.AdaptiveWeight()
  state = controller.init()
  assert set(state) == {'weight', 'mean', 'count', 'cooldown'}
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
  update = jax.jit(controller.update)
  for _ in range(73):
    state = update(state, jnp.float32(0.1))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
  again = jax.tree.map(np.array, state)
  for _ in range(40):
    state, again = update(state, jnp.float32(0.1)), jax.device_get(update(again, jnp.float32(0.1)))
  assert jax.device_get(state) == again and state['weight'] == 40


def test_total_variation_is_the_mean_over_each_direction():
  images = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
  expected = np.square(np.diff(images, axis=1)).mean() + np.square(np.diff(images, axis=2)).mean()
  np.testing.assert_allclose(losses.total_variation(images), expected, rtol=1e-6)
  assert losses.total_variation(np.full((1, 4, 4, 3), 0.3, np.float32)) == 0
  ramp = np.broadcast_to(0.5 * np.arange(6, dtype=np.float32)[:, None, None], (6, 4, 3))
  np.testing.assert_allclose(losses.total_variation(ramp), 0.25)
