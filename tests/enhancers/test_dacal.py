"""DACAL: its recurrent generator, bands, projections on the Stiefel manifold, critics and losses."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest
from flax import nnx

from vqm_jax import checkpoints, errors, losses, parallel
from vqm_jax.enhancers import dacal
from vqm_jax.enhancers.base import RecurrentGenerator
from vqm_jax.enhancers.dacal import DACAL, Critic, Generator, SlicedHead, qf, stiefel
from vqm_jax.layers.conv import SymmetricConv

TINY = dict(patch=16, critic_width=2, features=4, marginals=8)
TINY_GENERATOR = dict(width=2)


def enhancer(*, rngs, **changes):
  return DACAL(TINY_GENERATOR, **(TINY | changes), rngs=rngs)


@functools.cache
def fresh():
  """Structure and parameters of a tiny DACAL as its constructor makes it, with critics steep enough for a penalty."""
  build = functools.partial(enhancer, head_gain=300.0)
  params = networks.quick_jit(lambda: nnx.to_pure_dict(nnx.state(build(rngs=nnx.Rngs(0)))))()
  return nnx.graphdef(networks.shapes(build)), params


@functools.cache
def generator(**changes):
  """A tiny generator with noise everywhere, m2 and a2 too."""
  return networks.random(functools.partial(Generator, **(TINY_GENERATOR | changes)))


def clip(count=3, height=16, width=16, seed=0, batch=1):
  return np.random.default_rng(seed).random((batch, count, height, width, 3), np.float32)


@functools.partial(networks.quick_jit, static_argnums=0)
def _step(graphdef, state, carry, frame):
  return nnx.merge(graphdef, state).components_of(carry, frame)


def run(network, frames, carry=None):
  """Frame by frame as streaming does: outputs, M, A (B, T, H, W, 3), and the states after every frame."""
  graphdef, state = nnx.split(network)
  carry = network.init_carry(frames[:, 0]) if carry is None else carry
  found, carries = [], []
  for frame in np.moveaxis(frames, 1, 0):
    carry, *maps = _step(graphdef, state, carry, frame)
    found.append(maps)
    carries.append(carry)
  return *(np.stack(parts, axis=1) for parts in zip(*found, strict=True)), carries


# Sizes


def test_parameter_counts():
  assert networks.count(Generator) == 1_355_638
  assert networks.count(Critic) == 751_424
  assert networks.count(SlicedHead) == 66_560
  assert networks.count(functools.partial(DACAL, {}, patch=256)) == 2_858_486
  both, add, mul = (networks.count(functools.partial(Generator, components=c)) for c in dacal.COMPONENTS)
  assert both - add == both - mul == 4_624 + 435


def test_full_hd_state_and_frame_come_out_as_they_went_in():
  graphdef, state = nnx.split(networks.shapes(Generator))
  frame = jax.ShapeDtypeStruct((1, 1088, 1920, 3), jnp.float32)

  def first(state, frame):
    network = nnx.merge(graphdef, state)
    carry = network.init_carry(frame)
    return carry, network.step(carry, frame)

  before, (after, out) = jax.eval_shape(first, state, frame)
  assert before == after
  assert (out.shape, out.dtype) == ((1, 1088, 1920, 3), jnp.float32)
  assert before['hidden'].size == 8_355_840 and {x.dtype for x in jax.tree.leaves(before)} == {jnp.dtype('float32')}


def test_frames_that_must_be_padded_are_refused_with_what_to_do():
  for shape in ((1, 24, 16, 3), (1, 16, 24, 3), (1, 16, 16, 1), (16, 16, 3)):
    with pytest.raises(ValueError, match='multiples of 16.*pad the clip once') as caught:
      generator().init_carry(jnp.zeros(shape))
    assert str(shape) in str(caught.value)


# The generator


@pytest.mark.parametrize(('height', 'width'), [pytest.param(16, 32, marks=pytest.mark.slow), (33, 47)])
def test_a_fresh_network_is_the_identity_for_every_frame_and_state(height, width):
  graphdef, params = fresh()
  network = nnx.merge(graphdef, params).generator
  assert isinstance(network, RecurrentGenerator)
  frames = clip(3, height, width)
  pad = [(0, -size % network.size_multiple) for size in (height, width)]
  padded = np.pad(frames, ((0, 0), (0, 0), *pad, (0, 0)), mode='symmetric')
  outputs, multipliers, offsets, carries = run(network, padded)
  np.testing.assert_array_equal(outputs[:, :, :height, :width], frames)
  assert np.all(multipliers == 1) and np.all(offsets == 0)
  assert np.ptp(carries[-1]['hidden']) > 0  # the state is alive
  anywhere = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(1).random(x.shape, np.float32)), carries[-1])
  np.testing.assert_array_equal(run(network, padded, anywhere)[0], padded)


def test_a_sequence_is_its_steps_and_a_pass_may_be_cut_where_the_state_is_kept():
  network, frames = generator(), clip(3)
  outputs, multipliers, offsets, carries = run(network, frames)
  graphdef, state = nnx.split(network)
  whole = networks.quick_jit(lambda state: nnx.merge(graphdef, state).sequence(frames))(state)
  for a, b in zip(whole, (outputs, multipliers, offsets), strict=True):
    assert a.shape == frames.shape
    np.testing.assert_allclose(a, b, atol=1e-5)
  carry, out = network.step(network.init_carry(frames[:, 0]), frames[:, 0])
  np.testing.assert_allclose(out, outputs[:, 0], atol=1e-5)
  np.testing.assert_allclose(carry['hidden'], carries[0]['hidden'], atol=1e-5)


def test_frame_six_remembers():
  network, frames = generator(), clip(10)
  whole = run(network, frames)[0]
  first, *_, carries = run(network, frames[:, :5])
  second = run(network, frames[:, 5:], carries[-1])[0]
  np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
  for name in carries[-1]:
    forgotten = carries[-1] | {name: jnp.zeros_like(carries[-1][name])}
    assert np.abs(run(network, frames[:, 5:6], forgotten)[0] - second[:, :1]).max() > 1e-3
  assert np.abs(run(network, frames[:, 5:6])[0] - second[:, :1]).max() > 1e-3


@pytest.mark.parametrize('components', dacal.COMPONENTS)
def test_components_stay_in_their_ranges_and_make_the_output(components):
  network, frames = generator(components=components), clip(2)
  for head in ('m2', 'a2'):
    if getattr(network, head) is not None:
      getattr(network, head).kernel[...] *= 30
  outputs, multipliers, offsets, carries = run(network, frames)
  np.testing.assert_allclose(frames * multipliers + offsets, outputs, atol=1e-6)
  assert 0.2499 < multipliers.min() and multipliers.max() < 4.0001 and np.abs(offsets).max() <= 0.5
  assert np.all(multipliers == 1) if components == 'add' else np.ptp(multipliers) > 3
  assert np.all(offsets == 0) if components == 'mul' else np.ptp(offsets) > 0.8
  np.testing.assert_array_equal(carries[-1]['output'], np.clip(outputs[:, -1], 0, 1))
  np.testing.assert_array_equal(carries[-1]['source'], frames[:, -1])


def test_120_frames_stay_finite_and_bounded():
  network = generator()
  loud = nnx.merge(nnx.graphdef(network), jax.tree.map(lambda p: 10 * p, nnx.state(network)))
  outputs, *_, carries = run(loud, clip(120))
  assert np.all(np.isfinite(outputs)) and -0.5 <= outputs.min() and outputs.max() <= 4.5
  for name, low in (('source', 0), ('output', 0), ('hidden', -1)):
    values = np.stack([carry[name] for carry in carries])
    assert low <= values.min() and values.max() <= 1


def test_bfloat16_computes_near_float32_with_a_float32_state():
  frames = clip(2)
  (low, _, _, carries), (exact, *_) = run(generator(dtype=jnp.bfloat16), frames), run(generator(), frames)
  assert {p.dtype for p in jax.tree.leaves((nnx.state(generator(dtype=jnp.bfloat16)), carries))} == {
    np.dtype('float32')
  }
  assert low.dtype == np.float32 and 0 < np.abs(low - exact).mean() < 0.02


def test_the_border_is_no_special_place():
  conv = SymmetricConv(3, 4, 5, 2, kernel_init=nnx.initializers.he_normal(), rngs=nnx.Rngs(0))
  flat = conv(jnp.full((1, 8, 6, 3), 0.7))
  assert flat.shape == (1, 4, 3, 4)
  np.testing.assert_allclose(flat, jnp.broadcast_to(flat[:, :1, :1], flat.shape), atol=1e-6)


# Bands


@functools.cache
def random_enhancer(**changes):
  return networks.random(functools.partial(enhancer, **changes))


@pytest.mark.parametrize('kind', ['dped', 'paper', 'sigma'])
def test_bands_add_up_and_split_what_is_flat_from_what_is_not(kind):
  network = random_enhancer(band_filter=kind)
  frames = clip(2, 64, 48)
  low, high = network.bands(frames)
  np.testing.assert_allclose(low + high, frames, atol=1e-6)
  np.testing.assert_allclose(network.bands(jnp.full((1, 20, 30, 3), 0.4))[1], 0, atol=1e-6)
  checks = np.broadcast_to((np.indices((64, 64)).sum(0) % 2)[..., None], (1, 64, 64, 3)).astype(np.float32)
  np.testing.assert_allclose(network.bands(checks)[0][:, 16:-16, 16:-16], 0.5, atol=1e-4)


def test_critics_see_a_subsampled_low_band_and_the_whole_high_band():
  frames = clip(3, 32, 32, batch=2)
  low, high = random_enhancer().bands(frames)
  seen = random_enhancer()._seen(frames)
  np.testing.assert_array_equal(seen['critic_low'], low.reshape(6, 32, 32, 3)[:, ::4, ::4])
  np.testing.assert_array_equal(seen['critic_high'], high.reshape(6, 32, 32, 3))


# Sliced Wasserstein


def test_qf_is_orthogonal_idempotent_and_keeps_signs():
  w = qf(jax.random.normal(jax.random.key(0), (4, 16, 16)))
  np.testing.assert_allclose(w.mT @ w, np.broadcast_to(np.eye(16), w.shape), atol=1e-5)
  np.testing.assert_allclose(qf(w), w, atol=1e-5)
  signs = np.array([1, -1] * 8)
  np.testing.assert_allclose(qf(np.diag(signs).astype(np.float32)), np.diag(signs), atol=1e-6)
  upper = np.triu(np.random.default_rng(0).random((16, 16), np.float32)) + np.eye(16, dtype=np.float32)
  np.testing.assert_allclose(qf(w[0] @ upper), w[0], atol=1e-4)  # the factor is unique


def test_head_is_the_mean_of_one_dimensional_functions():
  head = SlicedHead(4, 2, gain=3.0, rngs=nnx.Rngs(0))
  assert head.projections.shape == (2, 4, 4) and np.all(head.scale[...] == 1) and np.all(head.offset[...] == 0)
  f = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
  w = np.asarray(head.projections[...])
  by_hand = [np.where(f @ w[k] > 0, f @ w[k], 0.2 * (f @ w[k])) for k in range(2)]
  np.testing.assert_allclose(head(f), 3 * np.mean(by_hand, axis=(0, 2)), rtol=1e-5)
  head.projections[...] = jnp.broadcast_to(jnp.eye(4), (2, 4, 4))
  np.testing.assert_allclose(head(f), 3 * np.where(f > 0, f, 0.2 * f).mean(1), rtol=1e-5)
  head.scale[...] = jnp.full((2, 4), -2.0)
  head.offset[...] = jnp.full((2, 4), 0.5)
  np.testing.assert_allclose(
    head(f), 3 * np.where(0.5 - 2 * f > 0, 0.5 - 2 * f, 0.2 * (0.5 - 2 * f)).mean(1), rtol=1e-5
  )


def head_loss(graphdef, params, f):
  return nnx.merge(graphdef, params)(f).mean() + nnx.merge(graphdef, params)(-2 * f).mean(), {}


@functools.cache
def trained_heads(count, inner=optax.adam, steps=5):
  """Parameters of a head before and after every update on `count` devices."""
  graphdef, state = nnx.split(SlicedHead(8, 2, rngs=nnx.Rngs(0)))
  optimizer, mesh = stiefel(inner(0.01)), parallel.batch_mesh(devices=jax.devices()[:count])

  def update(params, state, f):
    _, gradients = parallel.value_and_grad(functools.partial(head_loss, graphdef))(params, f)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  step = parallel.data_parallel(update, mesh, shared=2)
  params = nnx.to_pure_dict(state)
  found, state = [jax.device_get(params)], optimizer.init(params)
  for k in range(steps):
    f = np.random.default_rng(k).normal(size=(8, 8)).astype(np.float32)
    params, state = step(params, state, parallel.put_batch(f, mesh))
    found.append(jax.device_get(params))
  return found, step.trace(params, state, parallel.put_batch(f, mesh))


@pytest.mark.parametrize('inner', [optax.adam, functools.partial(optax.adamw, weight_decay=0.5)])
def test_projections_stay_orthogonal_and_never_flip(inner):
  found, _ = trained_heads(1, inner, steps=20)
  for before, after in zip(found, found[1:], strict=False):
    w, old = after['projections'], before['projections']
    np.testing.assert_allclose(w.mT @ w, np.broadcast_to(np.eye(8), w.shape), atol=1e-5)
    assert (w * old).sum(1).min() > 0.99  # each column moves by a step, and keeps its sign against scale and offset
    assert np.abs(w - old).max() > 1e-4


def test_devices_keep_one_set_of_projections_and_every_platform_can_be_compiled_for():
  (one, traced), (four, _) = trained_heads(1), trained_heads(4)
  for a, b in zip(jax.tree.leaves(one[-1]), jax.tree.leaves(four[-1]), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  for platform in ('cuda', 'tpu'):
    traced.lower(lowering_platforms=(platform,))


def test_other_parameters_are_left_to_the_optimizer():
  head = SlicedHead(4, 2, rngs=nnx.Rngs(0))
  params = nnx.to_pure_dict(nnx.state(head))
  gradients = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), params)
  adam = optax.adam(0.1)
  plain, _ = adam.update(gradients, adam.init(params), params)
  ours, _ = stiefel(adam).update(gradients, stiefel(adam).init(params), params)
  for name in ('scale', 'offset'):
    np.testing.assert_array_equal(ours[name], plain[name])
  # Of plain gradient descent the projections take the part along the manifold: W'R is skew.
  along, _ = stiefel(optax.sgd(1e-3)).update(gradients, stiefel(optax.sgd(1e-3)).init(params), params)
  w = params['projections']
  turn = w.mT @ along['projections'] / 1e-3
  np.testing.assert_allclose(turn, -turn.mT, atol=0.02)
  g = gradients['projections']
  np.testing.assert_allclose(along['projections'] / -1e-3, g - w @ (w.mT @ g + g.mT @ w) / 2, atol=0.02)


# Losses


def test_temporal_change_counts_where_the_source_rests():
  x = np.repeat(clip(1, 4, 4), 3, axis=1)
  steady, changing = np.full_like(x, 1.5), np.cumsum(np.full_like(x, 0.1), axis=1)
  assert dacal.temporal_change(x, steady, 0.1 * steady) == 0
  np.testing.assert_allclose(dacal.temporal_change(x, changing, steady), 0.1, rtol=1e-5)
  np.testing.assert_allclose(dacal.temporal_change(x, changing, 2 * changing), 0.3, rtol=1e-5)
  moved = x.copy()
  moved[:, 1, :, :2] += 1.0
  np.testing.assert_allclose(dacal.temporal_change(moved, changing, steady), 0.05, rtol=1e-5)
  slightly = x + np.arange(3, dtype=np.float32)[None, :, None, None, None] / 10
  np.testing.assert_allclose(dacal.temporal_change(slightly, changing, steady), 0.1 * np.exp(-50 * 0.03), rtol=1e-4)
  assert dacal.temporal_change(x[:, :1], steady[:, :1], steady[:, :1]) == 0


KEYS = functools.partial(jax.random.split, jax.random.key(0))
WEIGHTS = {'critic_low': 7.0, 'critic_high': 11.0}


@functools.cache
def gradients(side, start, count=2):
  """(loss, what is told), gradients by path: of one side over two devices, from fresh or noisy parameters."""
  graphdef, params = fresh()
  if start == 'noisy':
    noise = functools.partial(jax.tree.map, lambda p: jnp.full(p.shape, 0.1).at[..., 1].set(-0.2))
    params = params | {
      'generator': params['generator'] | {head: noise(params['generator'][head]) for head in ('m2', 'a2')}
    }
  mesh = parallel.batch_mesh(devices=jax.devices()[:2])

  def loss(params, x, y, keys, weights):
    network = nnx.merge(graphdef, params)
    return network.generator_loss(x, y, keys) if side == 'generator' else network.critic_loss(x, y, keys, weights)

  def step(params, weights, x, y, keys):
    return parallel.value_and_grad(functools.partial(loss, weights=weights))(params, x, y, keys)

  x, y = clip(count, batch=2), clip(count, batch=2, seed=1)
  batch = (*parallel.put_batch((x, y), mesh), parallel.split_over(KEYS(2), mesh))
  value, grads = networks.quick_jit(parallel.data_parallel(step, mesh, shared=2))(params, WEIGHTS, *batch)
  return jax.device_get(value), checkpoints.flatten(jax.device_get(grads))


def alive(found, player):
  return {path for path, g in found.items() if path.startswith(player) and np.any(g != 0)}


@pytest.mark.slow
def test_at_the_start_gradients_reach_the_last_layers_and_then_all_of_the_generator():
  (loss, told), found = gradients('generator', 'fresh')
  assert all(np.all(np.isfinite(g)) for g in found.values())
  assert alive(found, 'generator') == {p for p in found if p.startswith(('generator/m2', 'generator/a2'))}
  assert told['identity'] == told['temporal'] == told['smoothness'] == 0
  np.testing.assert_allclose(loss, told['adversarial_low'] + told['adversarial_high'], rtol=1e-5)

  (loss, told), found = gradients('generator', 'noisy')
  assert all(np.all(np.isfinite(g)) for g in found.values())
  assert alive(found, 'generator') == {path for path in found if path.startswith('generator')}
  assert set(told) == {'adversarial_low', 'adversarial_high', 'identity', 'temporal', 'smoothness'}
  weights = dict(identity=250 * 16 / 512, temporal=10, smoothness=0.1)
  np.testing.assert_allclose(loss, sum(weights.get(name, 1) * told[name] for name in told), rtol=1e-5)
  assert all(told[name] > 0 for name in weights)


@pytest.mark.slow
def test_every_parameter_of_the_critics_gets_gradient_and_the_generator_none():
  (loss, (told, penalties)), found = gradients('critics', 'noisy')
  assert all(np.all(np.isfinite(g)) for g in found.values())
  assert alive(found, 'critic') == {path for path in found if path.startswith('critic')}
  assert not alive(found, 'generator')
  assert set(penalties) == set(WEIGHTS) == set(DACAL.critics)
  for name, weight in WEIGHTS.items():
    assert penalties[name] == told[f'{name}_penalty'] > 0
    np.testing.assert_allclose(told[name], weight * penalties[name] - told[f'{name}_gap'], rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(loss, sum(told[name] for name in WEIGHTS), rtol=1e-5)


class Same(nnx.Module):
  """In the place of a generator where the critics alone matter."""

  def sequence(self, frames):
    return frames, jnp.ones_like(frames), jnp.zeros_like(frames)


def with_same(**changes):
  network = networks.random(functools.partial(enhancer, **changes))
  network.generator = Same()
  return network


def losses_of(network, x, y, weights):
  graphdef, state = nnx.split(network)

  def both(state, x, y, keys):
    network = nnx.merge(graphdef, state)
    return network.generator_loss(x, y, keys), network.critic_loss(x, y, keys, weights)

  return networks.quick_jit(both)(state, x, y, KEYS(len(x)))


@pytest.mark.parametrize('count', [1, 3])
def test_gap_is_that_of_the_critics_over_all_frames(count):
  network, x, y = with_same(), clip(count, 32, 32, batch=2), clip(count, 32, 32, batch=2, seed=1)
  (_, told), (_, (critic_told, _)) = losses_of(network, x, y, WEIGHTS)
  for band in ('low', 'high'):
    critic = getattr(network, f'critic_{band}')
    real, fake = (np.asarray(networks.apply(critic, network._seen(z)[f'critic_{band}'])) for z in (y, x))
    assert real.shape == (2 * count,)
    np.testing.assert_allclose(critic_told[f'critic_{band}_gap'], real.mean() - fake.mean(), atol=1e-6)
    np.testing.assert_allclose(told[f'adversarial_{band}'], -fake.mean(), atol=1e-6)
  assert told['temporal'] == 0


def test_penalty_is_taken_between_bands_with_a_key_for_every_frame_and_critic(monkeypatch):
  seen = []

  def spy(critic, real, fake, keys, kind):
    seen.append((real.shape, keys, kind))
    return critic(real).mean() * 0 + 2.0

  monkeypatch.setattr(losses, 'gradient_penalty', spy)
  network = with_same()
  loss, (told, penalties) = network.critic_loss(clip(3, batch=2), clip(3, batch=2, seed=1), KEYS(2), WEIGHTS)
  assert [shape for shape, _, _ in seen] == [(6, 4, 4, 3), (6, 16, 16, 3)]
  keys = np.concatenate([jax.random.key_data(keys) for _, keys, _ in seen])
  assert len(np.unique(keys, axis=0)) == 12
  np.testing.assert_allclose(loss, 2 * 18.0 - told['critic_low_gap'] - told['critic_high_gap'], rtol=1e-5)


def test_only_the_one_sided_penalty_is_steered():
  steered = random_enhancer().adaptive_weights()
  assert set(steered) == set(DACAL.critics) and steered['critic_low'].start == 10
  network, x, y = with_same(penalty='zero', penalty_weight=20.0), clip(1), clip(1, seed=1)
  assert network.adaptive_weights() == {}
  _, (_, (told, penalties)) = losses_of(network, x, y, {})
  assert penalties == {} and told['critic_low_penalty'] > 0
  np.testing.assert_allclose(told['critic_low'], 20 * told['critic_low_penalty'] - told['critic_low_gap'], rtol=1e-5)


def test_weights_follow_the_arguments():
  assert networks.shapes(functools.partial(DACAL, {}, patch=256)).identity_weight == 125
  assert random_enhancer(identity_weight=0.0).identity_weight == 0


@pytest.mark.parametrize(
  ('changes', 'text'),
  [
    (dict(marginals=500, features=128), 'loss_args.marginals=500 must be a multiple of the 128 features'),
    (dict(marginals=0), 'loss_args.marginals=0'),
    (dict(features=0), 'loss_args.features=0'),
    (dict(band_filter='bilateral'), "loss_args.band_filter='bilateral' is unknown; choose one of dped, paper, sigma"),
    (dict(penalty='two'), "loss_args.penalty='two' is unknown; choose one of one_sided, two_sided, zero"),
    (dict(patch=100), 'config.crop=100 must be a multiple of 16'),
  ],
)
def test_wrong_arguments_are_named(changes, text):
  with pytest.raises(errors.ConfigError) as caught:
    enhancer(rngs=nnx.Rngs(0), **changes)
  assert text in str(caught.value)


def test_wrong_components_are_named():
  with pytest.raises(errors.ConfigError, match="system_args.components='sum' is unknown; choose one of both, add, mul"):
    Generator(components='sum', rngs=nnx.Rngs(0))
