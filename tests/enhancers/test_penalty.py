"""Gradient penalties, their adaptive weight, total variation and blur against closed forms and other libraries."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from vqm_jax import errors, losses
from vqm_jax.layers.blur import BLURS, blur, taps

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


@pytest.mark.parametrize(
  ('kind', 'count', 'deviation', 'gains'),
  [
    ('dped', 21, 4.337, (0.0071, -0.0051, 0.0172, 0.1854, 0.6876)),
    ('paper', 15, 1.732, (0.000, 0.025, 0.396, 0.793, 0.944)),
  ],
)
def test_blur_weights_have_the_width_and_gains_of_their_definition(kind, count, deviation, gains):
  weights = taps(kind)
  places = np.arange(count) - count // 2
  assert weights.shape == (count,)
  np.testing.assert_allclose(weights, weights[::-1], rtol=1e-12)
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
  np.testing.assert_allclose(np.sqrt((weights * places**2).sum()), deviation, atol=2e-3)
  found = [(weights * np.cos(2 * np.pi * places * f)).sum() for f in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)]
  np.testing.assert_allclose(found, gains, atol=1e-3)


def test_blur_weights_of_dped_and_of_a_plain_gaussian():
  weights = taps('dped')
  np.testing.assert_allclose([weights[10], weights[0], weights[20]], [0.086966, 0.009104, 0.009104], atol=1e-6)
  weights = taps('sigma', 2.0)
  expected = np.exp(-(np.arange(-7, 8) ** 2) / 8)
  np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize('kind', BLURS)
@pytest.mark.parametrize('size', [(33, 47), (5, 9), (1, 1)])
def test_blur_is_that_of_scipy(kind, size):
  """scipy's 'reflect' mirrors with the edge, as often as the weights reach."""
  images = np.random.default_rng(0).random((2, *size, 3), np.float32)
  expected = images.astype(np.float64)
  for axis in (1, 2):
    expected = scipy.ndimage.correlate1d(expected, taps(kind, 3.0), axis, mode='reflect')
  blurred = blur(images, kind, 3.0)
  assert blurred.dtype == jnp.float32
  np.testing.assert_allclose(blurred, expected, atol=2e-6)


def test_blur_keeps_constants_and_refuses_other_kinds():
  np.testing.assert_allclose(blur(np.full((1, 12, 8, 3), 0.7, np.float32)), 0.7, atol=1e-6)
  with pytest.raises(errors.ConfigError, match="blur='box'.*choose one of dped, paper, sigma"):
    taps('box')
  with pytest.raises(errors.ConfigError, match='sigma=0'):
    taps('sigma', 0)
