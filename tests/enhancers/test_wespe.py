"""WESPE's networks against NumPy, what its losses are made of and reach, its frozen VGG-19, and its errors."""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest
from flax import nnx

from vqm_jax import checkpoints, errors, losses, perceptual
from vqm_jax.enhancers import wespe
from vqm_jax.enhancers.base import FrameGenerator, Frozen, luma
from vqm_jax.layers.initializers import ParameterKeys
from vqm_jax.perceptual import weights
from vqm_jax.restorers.base import Restorer

HEADS = pathlib.Path(__file__).parent.parent / 'golden' / 'lpips_alex_legacy.pth'
TINY = dict(generator_args=dict(width=4, num_blocks=1), critic_width=1 / 16, patch=20)


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
  """The machine's own weights are not looked at."""
  monkeypatch.setenv(weights.ENVIRONMENT, str(tmp_path / 'empty'))


def pixel(**changes):
  return wespe.WESPE(**(TINY | dict(content_loss='pixel', rngs=ParameterKeys(0)) | changes))


def noise(state):
  """Parameters of a size that makes every layer matter."""
  rng = np.random.default_rng(0)

  def draw(path, p):
    scale = 0.3 if p.ndim == 1 else np.prod(p.shape[:-1]) ** -0.5
    return jnp.asarray(rng.normal('scale' in jax.tree_util.keystr(path), scale, p.shape), jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, state)


def noisy(build):
  """The module that `build(rngs=...)` makes, with noise in its parameters."""
  graphdef, state = nnx.split(networks.shapes(build))
  return nnx.merge(graphdef, noise(state))


def noisy_pixel(**changes):
  return noisy(functools.partial(pixel, **changes))


@functools.cache
def random_vgg19():
  return weights.random('vgg19')


@pytest.fixture(scope='module')
def with_vgg19(tmp_path_factory):
  empty = str(tmp_path_factory.mktemp('none'))
  model = wespe.WESPE(**TINY, rngs=ParameterKeys(0), perceptual_dir=empty, allow_random=True)
  nnx.update(model, noise(nnx.state(model, nnx.Param)))
  return model


def clips(seed, batch=2, patch=20):
  """x, y and keys: smooth pictures with noise, of two looks."""
  rng = np.random.default_rng(seed)
  ramp = np.linspace(0, 1, patch, dtype=np.float32)[:, None, None]
  x, y = (0.6 * ramp + 0.4 * rng.random((batch, 1, patch, patch, 3), dtype=np.float32) for _ in 'xy')
  return x, 0.8 * y + 0.1, jax.random.split(jax.random.key(seed), batch)


def split(model):
  """graphdef, parameters of the generator's side, those of the critics, and what is frozen, as pure dicts."""
  graphdef, params, frozen, rest = nnx.split(model, nnx.Param, Frozen, ...)
  assert not jax.tree.leaves(rest)
  params, frozen = nnx.to_pure_dict(params), nnx.to_pure_dict(frozen)
  critics = {name: params.pop(name) for name in model.critics}
  return graphdef, params, critics, frozen


def _generator_loss(graphdef, params, critics, frozen, x, y, keys):
  return nnx.merge(graphdef, params | critics, frozen).generator_loss(x, y, keys)


def _critic_loss(graphdef, params, critics, frozen, x, y, keys):
  return nnx.merge(graphdef, params | critics, frozen).critic_loss(x, y, keys, {})


generator_loss = networks.quick_jit(_generator_loss, static_argnums=0)
generator_side = networks.quick_jit(jax.value_and_grad(_generator_loss, 1, has_aux=True), static_argnums=0)
both_sides = networks.quick_jit(jax.value_and_grad(_critic_loss, (1, 2), has_aux=True), static_argnums=0)


# NumPy, float64, written from the description.


def same(x, layer, stride=1):
  """Convolution with TensorFlow's padding."""
  kernel, bias = (np.asarray(layer[name], np.float64) for name in ('kernel', 'bias'))
  extent, out = x.shape[1:3], [-(-n // stride) for n in x.shape[1:3]]
  total = [max((o - 1) * stride + k - n, 0) for o, k, n in zip(out, kernel.shape, extent, strict=False)]
  x = np.pad(x, ((0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)))
  y = np.zeros((len(x), *out, kernel.shape[-1])) + bias
  for i in range(out[0]):
    for j in range(out[1]):
      window = x[:, i * stride : i * stride + kernel.shape[0], j * stride : j * stride + kernel.shape[1]]
      y[:, i, j] += np.tensordot(window, kernel, 3)
  return y


def norm(x, layer):
  centred = x - x.mean((1, 2), keepdims=True)
  return centred / np.sqrt((centred**2).mean((1, 2), keepdims=True) + 1e-3) * layer['scale'] + layer['bias']


def relu(x, slope=0.0):
  return np.where(x > 0, x, slope * x)


def params(module):
  return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param)))


def generator_in_numpy(p, x):
  h = relu(same(x, p['head']))
  for block in p['blocks'].values():
    (conv1, conv2), (norm1, norm2) = block['convs'].values(), block['norms'].values()
    h = h + relu(norm(same(relu(norm(same(h, conv1), norm1)), conv2), norm2))
  for layer in p['body_end'].values():
    h = relu(same(h, layer))
  return 0.58 * np.tanh(same(h, p['tail'])) + 0.5


def discriminator_in_numpy(p, x):
  h = x
  for k, stride in enumerate((4, 2, 1, 1, 2)):
    h = relu(same(h, p['convs'][k], stride), 0.2)
    h = norm(h, p['norms'][k - 1]) if k else h
  h = relu(h.reshape(len(h), -1) @ p['hidden']['kernel'] + p['hidden']['bias'], 0.2)
  return (h @ p['logit']['kernel'] + p['logit']['bias'])[:, 0]


def softplus(x):
  return np.log1p(np.exp(x))


# Networks.


@functools.cache
def published():
  return networks.shapes(functools.partial(wespe.WESPE, {}, patch=100, content_loss='pixel'))


def test_published_parameter_counts():
  counts = {}
  for name in ('generator', 'inverse', *wespe.WESPE.critics):
    counts[name] = sum(p.size for p in jax.tree.leaves(nnx.state(getattr(published(), name), nnx.Param)))
  assert counts == dict(generator=401_475, inverse=401_475, colour_critic=7_371_713, texture_critic=7_360_097)
  assert sum(p.size for p in jax.tree.leaves(nnx.state(published()))) == 15_534_760


def test_full_hd_comes_out_as_it_went_in():
  generator = published().generator
  assert isinstance(generator, Restorer) and generator.size_multiple == 1
  graphdef, state = nnx.split(generator)
  clip = jax.ShapeDtypeStruct((1, 1, 1080, 1920, 3), jnp.float32)
  out = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, clip)
  assert (out.shape, out.dtype) == ((1, 1080, 1920, 3), jnp.float32)


@pytest.mark.parametrize('size', [(33, 47), (1, 5)])
def test_generator_is_that_of_numpy_at_any_size(size):
  generator = noisy(functools.partial(wespe.Generator, width=4, num_blocks=2))
  x = np.random.default_rng(1).random((2, 1, *size, 3), dtype=np.float32)
  out = networks.apply(generator, x)
  np.testing.assert_allclose(out, generator_in_numpy(params(generator), x[:, 0]), atol=1e-5)
  assert np.abs(networks.apply(generator, x[..., ::-1]) - out).max() > 1e-3  # RGB, not BGR


@pytest.mark.parametrize(('channels', 'patch'), [(3, 100), (1, 33), (3, 17)])
def test_discriminator_is_that_of_numpy(channels, patch):
  critic = noisy(functools.partial(wespe.Discriminator, channels, patch, 1 / 16))
  x = np.random.default_rng(1).random((2, patch, patch, channels), dtype=np.float32)
  logits = networks.apply(critic, x)
  assert logits.shape == (2,) and logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, discriminator_in_numpy(params(critic), x), atol=1e-4)
  assert abs(logits[0] - logits[1]) > 1e-3


def test_norm_is_exact_far_from_zero_and_for_constants():
  x = np.random.default_rng(0).normal(1000, 0.1, (2, 40, 50, 3)).astype(np.float32)
  x[1] = 7
  layer = wespe._norm(3, dtype=jnp.float32, rngs=ParameterKeys(0))
  layer.scale[...], layer.bias[...] = jnp.array([1.0, 2, 3]), jnp.array([4.0, 5, 6])
  np.testing.assert_allclose(layer(x), norm(x.astype(np.float64), params(layer)), atol=0.01)
  np.testing.assert_allclose(layer(x)[1], np.broadcast_to(layer.bias[...], (40, 50, 3)), atol=1e-4)


def test_output_stays_in_its_range_however_large_the_tail():
  generator = noisy(functools.partial(wespe.Generator, width=4, num_blocks=1))
  generator.tail.kernel[...] = 1e4 * generator.tail.kernel[...]
  out = networks.apply(generator, clips(0)[0])
  assert -0.0801 < out.min() < 0 and 1 < out.max() < 1.0801


def test_start_of_dped():
  kernels = []
  for path, p in networks.by_path(nnx.state(pixel(), nnx.Param)).items():
    if path.endswith('kernel'):
      kernels.append(np.asarray(p).ravel())
    else:
      assert (p == (1 if path.endswith('scale') else 0 if 'norms' in path else np.float32(0.01))).all(), path
  drawn = np.concatenate(kernels)
  assert np.abs(drawn).max() <= 0.02 and abs(drawn.mean()) < 3e-4
  assert abs(drawn.std() / 0.0088 - 1) < 0.02  # cut at two deviations, not widened again


def test_bfloat16_computes_near_float32_with_float32_parameters():
  low, full = noisy_pixel(dtype=jnp.bfloat16), noisy_pixel()
  assert {p.dtype for p in jax.tree.leaves(nnx.state(low))} == {jnp.dtype('float32')}
  x, y, keys = clips(0)
  for player, images in (('generator', x), ('colour_critic', y[:, 0])):
    out, expected = (networks.apply(getattr(m, player), images) for m in (low, full))
    assert out.dtype == jnp.float32 and 0 < np.abs(out - expected).mean() < 0.02 * np.abs(expected).mean()
  losses = jax.eval_shape(functools.partial(_generator_loss, nnx.graphdef(low)), *split(low)[1:], x, y, keys)
  assert {v.dtype for v in jax.tree.leaves(losses)} == {jnp.dtype('float32')}


# Losses.


def logits_in_numpy(model, frames):
  """Of both critics for frames (B, H, W, 3)."""
  seen = model.critic_inputs(jnp.asarray(frames, jnp.float32))
  return {
    name: discriminator_in_numpy(params(getattr(model, f'{name}_critic')), np.asarray(s)) for name, s in seen.items()
  }


def test_terms_of_the_generator_are_those_computed_by_hand():
  model = noisy_pixel()
  x, y, keys = clips(1)
  enhanced = generator_in_numpy(params(model.generator), x[:, 0])
  restored = generator_in_numpy(params(model.inverse), enhanced)
  terms = {name: softplus(-logits).mean() for name, logits in logits_in_numpy(model, enhanced).items()}
  terms['content'] = np.square(x[:, 0] - restored).mean()
  terms['tv'] = np.square(np.diff(enhanced, axis=1)).mean() + np.square(np.diff(enhanced, axis=2)).mean()
  (_, found), _ = generator_side(*split(model), x, y, keys)
  assert found.keys() == terms.keys() == {'content', 'colour', 'texture', 'tv'}
  for name, value in terms.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-3)


def test_loss_of_the_critics_is_that_computed_by_hand(with_vgg19):
  x, y, keys = clips(1)
  real = logits_in_numpy(with_vgg19, y[:, 0])
  generated = logits_in_numpy(with_vgg19, generator_in_numpy(params(with_vgg19.generator), x[:, 0]))
  (loss, (logged, penalties)), _ = both_sides(*split(with_vgg19), x, y, keys)
  assert penalties == {} and with_vgg19.adaptive_weights() == {}
  expected = {}
  for name in ('colour', 'texture'):
    expected[f'{name}_critic'] = (softplus(-real[name]).mean() + softplus(generated[name]).mean()) / 2
    expected[f'{name}_critic_gap'] = real[name].mean() - generated[name].mean()
  assert logged.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(logged[name], value, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(loss, expected['colour_critic'] + expected['texture_critic'], rtol=1e-3)


@pytest.mark.parametrize(
  ('content', 'content_weight'), [pytest.param('vgg19', 1.0, marks=pytest.mark.slow), ('pixel', 10.0)]
)
def test_published_weights_of_the_terms(with_vgg19, content, content_weight):
  model = with_vgg19 if content == 'vgg19' else noisy_pixel()
  (loss, terms), _ = generator_side(*split(model), *clips(0))
  weights = dict(content=content_weight, colour=5e-3, texture=5e-3, tv=10)
  np.testing.assert_allclose(loss, sum(weights[name] * value for name, value in terms.items()), rtol=1e-5)
  args = {f'{name}_weight': float(k) for k, name in enumerate(weights)}
  assert dict(pixel(**args).term_weights) == dict(content=0, colour=1, texture=2, tv=3)


@pytest.mark.slow
def test_generator_loss_reaches_every_layer_of_generator_and_inverse(with_vgg19):
  for model in (with_vgg19, noisy_pixel()):
    _, gradients = generator_side(*split(model), *clips(0))
    assert gradients.keys() == {'generator', 'inverse'}
    for player in gradients.values():
      largest = {path: np.abs(gradient).max() for path, gradient in checkpoints.flatten(player).items()}
      scale = max(largest.values())
      assert 0 < scale < np.inf
      for path, found in largest.items():
        # The norm takes these biases away again; what is left is rounding.
        cancelled = 'blocks' in path and 'convs' in path and path.endswith('bias')
        assert found < 1e-4 * scale if cancelled else found > 0.01 * scale, path


def test_critic_loss_reaches_every_layer_of_the_critics_and_no_other(with_vgg19):
  _, (others, critics) = both_sides(*split(with_vgg19), *clips(0))
  assert not any(np.any(g) for g in jax.tree.leaves(others))
  for path, gradient in checkpoints.flatten(critics).items():
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-5, path


def test_content_is_nothing_when_the_inverse_brings_the_frame_back(with_vgg19):
  class Identity(FrameGenerator):
    def enhance(self, frames):
      return frames

  x, y, keys = clips(0)
  model = nnx.merge(*nnx.split(with_vgg19))
  model.generator, model.inverse = Identity(), Identity()
  _, terms = generator_loss(*split(model), x, y, keys)
  assert terms['content'] == 0
  np.testing.assert_allclose(terms['tv'], losses.total_variation(x[:, 0]), rtol=1e-5)


@pytest.mark.slow
def test_content_is_the_distance_of_relu5_4(with_vgg19):
  x, y, keys = clips(0)
  enhanced = networks.apply(with_vgg19.generator, x)
  restored = networks.apply(with_vgg19.inverse, enhanced[:, None])
  (features,) = perceptual.features(random_vgg19(), jnp.concatenate([restored, x[:, 0]]), ('relu5_4',))
  a, b = jnp.split(features, 2)
  assert a.shape == (2, 1, 1, 512)
  (_, terms), _ = generator_side(*split(with_vgg19), x, y, keys)
  np.testing.assert_allclose(terms['content'], jnp.square(a - b).mean(), rtol=1e-3)


def test_the_texture_critic_sees_no_colour_and_the_colour_critic_no_texture():
  model = wespe.WESPE(TINY['generator_args'], patch=100, content_loss='pixel', rngs=ParameterKeys(0))
  rows, columns = np.indices((100, 100))
  plain = np.full((1, 100, 100, 3), 0.5, np.float32)
  board = plain + 0.2 * np.where((rows + columns) % 2, 1, -1)[None, :, :, None].astype(np.float32)
  tinted = plain + np.float32([0.2, 0.0, -0.2 * 0.299 / 0.114])
  np.testing.assert_allclose(luma(tinted), luma(plain), atol=1e-6)
  critics = dict(colour=model.colour_critic, texture=model.texture_critic)

  def moved(images):
    seen, before = model.critic_inputs(images), model.critic_inputs(plain)
    return {n: abs(float(networks.apply(c, seen[n])[0] - networks.apply(c, before[n])[0])) for n, c in critics.items()}

  by_texture, by_colour = moved(board), moved(tinted)
  assert by_texture['colour'] < 1e-3 and by_texture['texture'] > 1e-2
  assert by_colour['texture'] < 1e-5 and by_colour['colour'] > 100 * by_colour['texture']


def test_real_and_generated_images_are_seen_alike(with_vgg19):
  x, _, keys = clips(0)
  enhanced = networks.apply(with_vgg19.generator, x)[:, None]
  (_, (logged, _)), _ = both_sides(*split(with_vgg19), x, enhanced, keys)
  np.testing.assert_allclose([logged['colour_critic_gap'], logged['texture_critic_gap']], 0, atol=1e-4)


@pytest.mark.parametrize('blur', ['paper', 'sigma'])
def test_other_readings_of_the_blur(blur):
  picture = clips(0)[0][:, 0]
  default, other = (pixel(**args).critic_inputs(picture) for args in ({}, dict(blur=blur)))
  assert jnp.abs(default['colour'] - other['colour']).max() > 0.01
  np.testing.assert_array_equal(default['texture'], other['texture'])


# Training, and what is frozen.


def descend(params, gradients):
  """One step of Adam at its start, when all are of the size of the learning rate."""

  def move(p, g):
    p, g = np.asarray(p), np.asarray(g)
    return p - np.float32(2e-3) * g / (np.abs(g) + np.float32(1e-8))

  return jax.tree.map(move, params, gradients)


def test_three_steps_change_all_players_and_leave_vgg19_alone(with_vgg19):
  graphdef, params, critics, frozen = split(with_vgg19)
  assert 'vgg19' not in params and set(frozen) == {'vgg19'}
  before = jax.tree.map(np.asarray, (params, critics, frozen))
  for step in range(3):
    (loss, _), gradients = generator_side(graphdef, params, critics, frozen, *clips(2 * step))
    params = descend(params, gradients)
    (critics_loss, _), (_, gradients) = both_sides(graphdef, params, critics, frozen, *clips(2 * step + 1))
    critics = descend(critics, gradients)
    assert np.isfinite([loss, critics_loss]).all()
  for old, new in zip(before[:2], (params, critics), strict=True):
    changed = jax.tree.map(lambda a, b: (a != b).any(), old, new)
    assert all(jax.tree.leaves(changed)), changed
  jax.tree.map(np.testing.assert_array_equal, before[2], frozen)
  known = random_vgg19().arrays
  jax.tree.map(np.testing.assert_array_equal, checkpoints.flatten(frozen['vgg19']['layers']), known)


def test_vgg19_is_an_argument_of_the_step_not_a_part_of_the_program(with_vgg19):
  graphdef, *parts = split(with_vgg19)
  step = jax.make_jaxpr(functools.partial(_generator_loss, graphdef))(*parts, *clips(0))
  assert sum(np.size(constant) for constant in step.consts) < 10_000
  assert sum(p.size for p in jax.tree.leaves(parts[-1])) == 20_024_384
  hash(graphdef)  # a static argument


def test_critics_come_to_tell_the_looks_apart(with_vgg19):
  graphdef, params, critics, frozen = split(with_vgg19)
  gaps = []
  for step in range(30):
    (_, (logged, _)), (_, gradients) = both_sides(graphdef, params, critics, frozen, *clips(step))
    critics = descend(critics, gradients)
    gaps.append([logged['colour_critic_gap'], logged['texture_critic_gap']])
  gaps = np.array(gaps)
  assert (gaps[-5:].mean(0) > gaps[:5].mean(0) + 1).all(), gaps


def looks(seed, batch=4, patch=24):
  """x, y and keys: x of a camera that is dull and reddish, y of one that shows other scenes as they are."""
  rng = np.random.default_rng(seed)

  def scenes():
    level = rng.uniform(0.2, 0.8, (batch, 1, 1, 1, 3))
    slope = rng.uniform(-0.4, 0.4, (batch, 1, 1, 1, 1)) * np.linspace(-0.5, 0.5, patch)[:, None, None]
    return np.clip(level + slope + 0.05 * rng.standard_normal((batch, 1, patch, patch, 1)), 0, 1).astype(np.float32)

  dull = np.float32([0.12, 0.06, 0.0]) + np.float32(0.7) * scenes()
  return dull, scenes(), jax.random.split(jax.random.key(seed), batch)


@pytest.mark.slow
def test_small_recipe_moves_colours_towards_the_target():
  config = importlib.import_module('experiments.wespe').get_config('tiny')
  generator_args = dict(config.system_args) | dict(width=4, num_blocks=1)
  loss_args = dict(config.loss_args) | dict(critic_width=1 / 8)
  model = wespe.WESPE(generator_args, patch=24, rngs=ParameterKeys(0), **loss_args)
  graphdef, params, critics, frozen = split(model)
  optimizers = optax.adam(3 * config.lr), optax.adam(4 * config.critic_lr)  # a hundred steps are all there is
  states = [optimizer.init(side) for optimizer, side in zip(optimizers, (params, critics), strict=True)]
  average = params
  for step in range(100):
    _, gradients = generator_side(graphdef, params, critics, frozen, *looks(2 * step))
    updates, states[0] = optimizers[0].update(gradients, states[0])
    params = optax.apply_updates(params, updates)
    average = optax.incremental_update(params, average, 0.05)
    _, (_, gradients) = both_sides(graphdef, params, critics, frozen, *looks(2 * step + 1))
    updates, states[1] = optimizers[1].update(gradients, states[1])
    critics = optax.apply_updates(critics, updates)
  x, y, _ = looks(1000, batch=64)
  enhanced = nnx.merge(graphdef, average | critics, frozen).generator.enhance(x[:, 0])
  source, target = (clip.mean((0, 1, 2, 3)) for clip in (x, y))
  way = (enhanced.mean((0, 1, 2)) - source) @ (target - source) / np.square(target - source).sum()
  assert 0.5 < way < 1.5, way


# Errors.


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    (dict(content_loss='vgg16'), r"loss_args\.content_loss='vgg16' is not one of vgg19, pixel"),
    (dict(content_weight=-1.0), r'loss_args\.content_weight=-1\.0 is not a number of at least 0'),
    (dict(colour_weight=-1.0), r'loss_args\.colour_weight=-1\.0'),
    (dict(texture_weight=float('nan')), r'loss_args\.texture_weight=nan'),
    (dict(tv_weight=float('inf')), r'loss_args\.tv_weight=inf'),
    (dict(blur='gauss'), r"loss_args\.blur='gauss' is not one of dped, paper, sigma"),
    (dict(critic_norm='batch'), r"loss_args\.critic_norm='batch' is not one of instance, none"),
    (dict(critic_width=0), r'loss_args\.critic_width=0 is not a number above 0'),
    (dict(patch=16), r"config.crop=16 is too small for WESPE's discriminators; expected 17 or more \(published 100\)"),
  ],
)
def test_wrong_arguments_are_named(wrong, message):
  with pytest.raises(errors.ConfigError, match=message):
    pixel(**wrong)
  with pytest.raises(errors.ConfigError, match=message):  # before weights are looked for
    wespe.WESPE(**(TINY | dict(rngs=ParameterKeys(0)) | wrong))


@pytest.mark.parametrize('shape', [(2, 2, 20, 20, 3), (2, 1, 19, 19, 3), (2, 20, 20, 3), (2, 1, 20, 20, 1)])
def test_other_clips_are_refused_with_what_was_expected_and_found(shape):
  model, (x, y, keys), wrong = pixel(), clips(0), jnp.zeros(shape)
  for loss in (model.generator_loss, functools.partial(model.critic_loss, weights={})):
    for name, pair in dict(x=(wrong, y), y=(x, wrong)).items():
      with pytest.raises(ValueError) as caught:
        loss(*pair, keys)
      assert f'expected {name} (B, 1, 20, 20, 3), got {shape}' in str(caught.value)
  with pytest.raises(ValueError, match=r'takes images \(B, 20, 20, 3\), got \(1, 21, 20, 3\)'):
    model.colour_critic(jnp.zeros((1, 21, 20, 3)))


def test_missing_weights_stop_everything_and_say_what_to_do(tmp_path):
  for folder in ('', str(tmp_path / 'mine')):
    with pytest.raises(errors.MissingWeightsError) as caught:
      wespe.WESPE({}, patch=100, rngs=None, perceptual_dir=folder)  # before a parameter is drawn
    text = str(caught.value)
    path = pathlib.Path(folder or tmp_path / 'empty') / 'vgg19.npz'
    for part in (
      f"WESPE's content loss needs the ImageNet weights vgg19, which are not in {path}",
      '--config.loss_args.perceptual_dir or $VQM_JAX_PERCEPTUAL_DIR',
      'vgg19-dcbb9e9d.pth',
      f'python -m vqm_jax.perceptual.convert --net=vgg19 --input=vgg19-dcbb9e9d.pth --output={path}',
      '--config.loss_args.content_loss=pixel',
    ):
      assert part in text


def test_weights_of_another_network_are_refused(tmp_path):
  weights.convert('lpips-alex', HEADS, tmp_path / 'vgg19.npz')
  with pytest.raises(errors.DataError, match=r'vgg19\.npz: expected vgg19 .* found lpips-alex'):
    wespe.WESPE(**TINY, rngs=ParameterKeys(0), perceptual_dir=str(tmp_path))


def test_a_residual_generator_starts_near_the_identity():
  generator = wespe.Generator(width=8, num_blocks=1, residual=True, rngs=nnx.Rngs(0))
  frames = jax.random.uniform(jax.random.key(0), (1, 20, 24, 3))
  assert float(jnp.abs(generator.enhance(frames) - frames).max()) < 0.1
