"""DPE's layers against NumPy, its two normalisation paths, its losses, and batches over several devices."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from inference.whole import assert_same, whole

from vqm_jax import checkpoints, errors, losses, parallel
from vqm_jax.enhancers.dpe import DPE, Critic, Generator, IndividualBatchNorm, _conv, selu
from vqm_jax.inference import restore_frames
from vqm_jax.layers.initializers import ParameterKeys

TINY = dict(width=2, global_size=8)
PATCH = 64
WEIGHTS = {'critic_y': 3.0, 'critic_x': 5.0}


def noisy(build, seed=0):
  """The module with noise in all parameters and in the running statistics, both paths different."""
  module = networks.random(build, seed)
  rng = np.random.default_rng(seed + 1)
  for norm in norms(module):
    for variable in (norm.scale, norm.var):
      variable[...] = jnp.asarray(rng.uniform(0.5, 1.5, variable.shape), jnp.float32)
  return module


@functools.cache
def _generator():
  return noisy(functools.partial(Generator, **TINY))


def generator():
  return nnx.clone(_generator())


def norms(module):
  return [node for _, node in nnx.iter_graph(module) if isinstance(node, IndividualBatchNorm)]


def frames(*shape, seed=0):
  return np.random.default_rng(seed).random((*shape, 3), np.float32)


@functools.partial(networks.quick_jit, static_argnums=(0, 3, 4))
def _mapped(graphdef, state, x, path, train):
  network = nnx.merge(graphdef, state)
  return network.map(x, path, train), nnx.state(network, nnx.BatchStat)


def mapped(network, x, path, train):
  """network.map, which moves running statistics when training."""
  out, stats = _mapped(*nnx.split(network), x, path, train)
  nnx.update(network, stats)
  return np.asarray(out)


# A second way to compute the same, in float64.


def np_conv(layer, x, stride=1, padded=True):
  kernel = np.asarray(layer.kernel[...], np.float64)
  border = (kernel.shape[0] - 1) // 2 if padded else 0
  x = np.pad(x, ((0, 0), (border,) * 2, (border,) * 2, (0, 0)), mode='symmetric')
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
  return np.einsum('bhwcij,ijco->bhwo', windows, kernel) + np.asarray(layer.bias[...])


def np_selu(x):
  return 1.0026538655307724 * np.where(x >= 0, x, 1.0198755295894968 * (np.exp(np.minimum(x, 0)) - 1))


def np_norm(norm, x, path, train):
  """The normalised input, and the running statistics afterwards."""
  scale, offset, mean, var = (np.asarray(v[path], np.float64) for v in (norm.scale, norm.offset, norm.mean, norm.var))
  if train:
    batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    after = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * batch_var
    mean, var = batch_mean, batch_var
  else:
    after = mean, var
  return scale * (x - mean) / np.sqrt(var + 1e-5) + offset, after


def np_enlarge(x, size):
  for axis in (1, 2):
    n = x.shape[axis]
    places = (np.arange(size) + 0.5) * n / size - 0.5
    x = np.apply_along_axis(lambda row, at=places, n=n: np.interp(at, np.arange(n), row), axis, x)
  return x


def np_generator(network, x, path, train):
  """The rows of the generator's table one by one, and the running statistics they leave, by place of the norm."""
  moved = {}

  def finish(x, norm):
    y, moved[id(norm)] = np_norm(norm, np_selu(x), path, train)
    return y

  x = x.astype(np.float64)
  raw1 = np_conv(network.encoder[0], x)
  raw2 = np_conv(network.encoder[1], finish(raw1, network.encoder_norms[0]), 2)
  raw3 = np_conv(network.encoder[2], finish(raw2, network.encoder_norms[1]), 2)
  raw4 = np_conv(network.encoder[3], finish(raw3, network.encoder_norms[2]), 2)
  e5 = finish(np_conv(network.e5, finish(raw4, network.encoder_norms[3]), 2), network.e5_norm)
  g = np_enlarge(e5, network.global_size)
  g = finish(np_conv(network.g1, g, 2), network.g1_norm)
  g = finish(np_conv(network.g2, g, 2), network.g2_norm)
  g = np_conv(network.g4, np_selu(np_conv(network.g3, g, padded=False)))
  assert g.shape[1:3] == (1, 1)
  d = np_conv(network.d1, e5)
  d = finish(np_conv(network.d2, np.concatenate([d, g + 0 * d], -1)), network.d2_norm)
  for layer, norm, raw in zip(network.decoder, network.decoder_norms, (raw4, raw3, raw2, raw1), strict=True):
    d = np.kron(np_conv(layer, d), np.ones((1, 2, 2, 1)))
    d = finish(np.concatenate([d, raw], -1), norm)
  d = finish(np_conv(network.d7, d), network.d7_norm)
  return x + np_conv(network.d8, d), moved


# Layers


def test_selu_has_the_constants_of_the_release():
  x = np.linspace(-3, 3, 13, dtype=np.float32)
  np.testing.assert_allclose(selu(x), np_selu(x), rtol=1e-5)
  assert np.isfinite(jax.grad(lambda x: selu(x).sum())(np.float32([-200, 0, 200]))).all()


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (7, 4)])
@pytest.mark.parametrize(('extent', 'stride'), [(3, 1), (5, 2)])
def test_convolution_mirrors_with_the_edge_at_any_size(size, extent, stride):
  layer = networks.random(functools.partial(_conv, 3, 4, extent, stride, dtype=jnp.float32))
  x = frames(2, *size)
  np.testing.assert_allclose(layer(x), np_conv(layer, x.astype(np.float64), stride), atol=1e-5)
  flat = np.asarray(layer(np.full((1, *size, 3), 0.3, np.float32)))
  np.testing.assert_allclose(flat, np.broadcast_to(flat[:, :1, :1], flat.shape), atol=1e-6)


def test_convolutions_start_small_and_without_bias():
  layer = _conv(64, 64, 5, dtype=jnp.float32, rngs=nnx.Rngs(0))
  np.testing.assert_allclose(layer.kernel[...].std(), np.sqrt(1e-3 / (25 * 64)), rtol=0.02)
  assert not layer.bias[...].any()


@pytest.mark.parametrize('path', [0, 1])
def test_individual_batch_norm_normalises_and_moves_its_own_path_alone(path):
  norm = noisy(lambda rngs: IndividualBatchNorm(3))
  x = 300 + frames(4, 5, 6)  # whose mean square would hide the variance in float32
  before = {name: np.asarray(getattr(norm, name)[...]) for name in ('scale', 'offset', 'mean', 'var')}
  for train in (False, True):
    expected, (mean, var) = np_norm(norm, x.astype(np.float64), path, train)
    np.testing.assert_allclose(norm(x, path, train), expected, atol=1e-3 if train else 1e-4, rtol=1e-5)
    np.testing.assert_allclose(norm.mean[path], mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[path], var, rtol=1e-4)
  for name, value in before.items():
    after = np.asarray(getattr(norm, name)[...])
    np.testing.assert_array_equal(after[1 - path], value[1 - path])
    assert (after[path] != value[path]).all() == (name in ('mean', 'var'))


def test_individual_batch_norm_keeps_the_dtype_of_its_input_and_float32_statistics():
  norm = IndividualBatchNorm(3)
  x = jnp.asarray(frames(4, 5, 6), jnp.bfloat16)
  assert norm(x, 0, True).dtype == jnp.bfloat16
  assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
  np.testing.assert_allclose(norm.mean[0], 0.1 * np.asarray(x, np.float32).mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize('count', [2, 4])
def test_statistics_of_a_batch_are_those_of_all_devices(count):
  """Without a mean of our own around them: JAX would refuse statistics that could differ between devices."""
  x = frames(4, 5, 6) + np.arange(4, dtype=np.float32)[:, None, None, None]
  norm = noisy(lambda rngs: IndividualBatchNorm(3, parallel.AXIS))
  graphdef, *state = nnx.split(norm, nnx.Param, nnx.BatchStat)
  params, stats = map(nnx.to_pure_dict, state)

  def moved(params, stats, x):
    norm = nnx.merge(graphdef, params, stats)
    norm(x, 1, True)
    return nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))

  def loss(params, x, stats):  # that looks at each sample apart
    params, gain = params
    y = nnx.merge(graphdef, params, stats)(gain * x, 1, True)
    return (y**4).mean(), y.max()

  def gradients(params, stats, x):
    gain = jnp.ones(3)
    (value, _), (gradient, gain) = parallel.value_and_grad(loss)((params, gain), x, stats)
    return value, gradient, gain

  def run(step, count):
    mesh = parallel.batch_mesh(devices=jax.devices()[:count])
    return parallel.data_parallel(step, mesh, shared=2)(params, stats, parallel.put_batch(x, mesh))

  for step in (moved, gradients):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run(step, count), run(step, 1))
  norm.axis_name = None
  norm(x, 1, True)
  alone = nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), run(moved, count), alone)


# Generator


def sizes(module, kind):
  return sum(p.size for p in jax.tree.leaves(nnx.state(module, kind)))


def test_published_sizes():
  whole = networks.shapes(functools.partial(DPE, {}, patch=512))
  network = whole.generator
  paths = sum(norm.scale.size + norm.offset.size for norm in norms(network))
  assert len(norms(network)) == 13 and paths == 2 * 2_720
  assert sizes(network, nnx.Param) == 3_338_115
  assert sizes(network, nnx.Param) - paths // 2 == 3_335_395
  assert sizes(network, nnx.BatchStat) == 5_440
  assert [norm.scale.shape[1] for norm in network.decoder_norms] == [256, 192, 96, 48]
  assert sizes(whole.critic_y, nnx.Param) == sizes(whole.critic_x, nnx.Param) == 1_122_689
  assert sizes(whole, nnx.Param) == 8_921_608 and sizes(whole, nnx.BatchStat) == 10_880
  assert whole.identity_weight == 1000


@pytest.mark.parametrize('size', [(512, 512), (1088, 1920), (16, 16)])
def test_frames_come_out_as_they_went_in(size):
  network = networks.shapes(Generator)
  assert (network.num_frames, network.size_multiple, network.whole_frames) == (1, 16, True)
  graphdef, state = nnx.split(network)
  clips = jax.ShapeDtypeStruct((2, 1, *size, 3), jnp.float32)
  out = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, clips)
  assert (out.shape, out.dtype) == ((2, *size, 3), jnp.float32)


def test_other_sizes_are_refused():
  with pytest.raises(ValueError, match='Generator takes sizes that are multiples of 16, got 1080x1920'):
    networks.shapes(Generator)(jnp.zeros((1, 1, 1080, 1920, 3)))


def test_any_frame_is_padded_enhanced_and_cropped():
  video = np.random.default_rng(0).integers(0, 256, (2, 31, 47, 3), np.uint8)
  restored = np.stack(list(restore_frames(generator(), iter(video), devices=jax.devices()[:1])))
  assert_same(restored, whole(generator(), video))


@pytest.mark.parametrize(
  ('size', 'path', 'train'),
  [((32, 48), 0, False), ((32, 48), 0, True), ((32, 48), 1, True), ((16, 16), 0, False)],
)
def test_generator_is_the_published_table_row_by_row(size, path, train):
  """Among it: skips before selu and normalisation, mirrored borders, selu before the norm, statistics that move."""
  network, x = generator(), frames(2, *size)
  expected, moved = np_generator(network, x, path, train)
  moved = [moved[id(norm)] for norm in norms(network)]
  np.testing.assert_allclose(mapped(network, x, path, train), expected, atol=1e-3)
  for norm, (mean, var) in zip(norms(network), moved, strict=True):
    np.testing.assert_allclose(norm.mean[path], mean, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(norm.var[path], var, atol=1e-4, rtol=1e-3)


def test_enhancing_is_path_0_with_running_statistics():
  x = frames(2, 32, 48)
  expected = mapped(generator(), x, 0, False)
  np.testing.assert_allclose(networks.apply(generator(), x[:, None]), expected, atol=1e-5)
  assert np.abs(mapped(generator(), x, 1, False) - expected).max() > 0.01
  # Frame by frame
  np.testing.assert_allclose(mapped(generator(), x[:1], 0, False), expected[:1], atol=1e-5)


def test_features_of_the_published_patch_enter_the_global_vector_as_they_are():
  network = networks.shapes(Generator)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 4)), jnp.float32)
  assert network._to_global_size(x) is x
  assert network._to_global_size(x[:, :20]).shape == x.shape


@pytest.mark.parametrize('path', [0, 1])
def test_training_on_one_path_leaves_the_other_as_it_was(path):
  network, untouched = generator(), generator()
  mapped(network, frames(2, 32, 48), path, True)
  for norm, before in zip(norms(network), norms(untouched), strict=True):
    for name in ('mean', 'var'):
      after, was = (np.asarray(getattr(n, name)[...]) for n in (norm, before))
      np.testing.assert_array_equal(after[1 - path], was[1 - path])
      assert (after[path] != was[path]).any()


def test_paths_share_all_but_their_normalisation():
  network, x = generator(), frames(2, 32, 48)
  for norm in norms(network):
    for variable in (norm.scale, norm.offset, norm.mean, norm.var):
      variable[...] = jnp.stack([variable[0]] * 2)
  for train in (False, True):
    first, second = (mapped(nnx.clone(network), x, path, train) for path in (0, 1))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_silent_last_layer_is_the_identity():
  network, x = generator(), frames(2, 32, 48)
  networks.silence(network.d8)
  np.testing.assert_array_equal(mapped(network, x, 0, False), x)


def test_fresh_network_is_near_the_identity():
  network, x = generator(), frames(2, 32, 48)
  nnx.update(network, networks.quick_jit(lambda: nnx.state(Generator(**TINY, rngs=ParameterKeys(0))))())
  out = mapped(network, x, 0, False)
  assert 0 < np.abs(out - x).max() < 0.05


def test_bfloat16_computes_near_float32():
  low = networks.shapes(functools.partial(Generator, **TINY, dtype=jnp.bfloat16))
  low, x = nnx.merge(nnx.graphdef(low), nnx.state(generator())), frames(2, 32, 48)
  out, expected = mapped(low, x, 0, False), mapped(generator(), x, 0, False)
  assert out.dtype == np.float32
  difference = np.abs(out - expected) / np.abs(expected - x).mean()
  assert 0 < difference.mean() < 0.05


# Critic


@functools.cache
def critic():
  return networks.random(functools.partial(Critic, PATCH, 2))


def test_critic_is_the_published_table_row_by_row():
  images = frames(3, PATCH, PATCH)
  x = images.astype(np.float64)
  for k, (layer, norm) in enumerate(zip(critic().layers, critic().norms, strict=True)):
    x = np_conv(layer, x, 2 if k else 1)
    x = np.maximum(x, 0.2 * x)
    x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    x = x * np.asarray(norm.scale[...]) + np.asarray(norm.offset[...])
  assert x.shape[1:3] == (2, 2)
  expected = np_conv(critic().last, x, padded=False)[:, 0, 0, 0]
  np.testing.assert_allclose(networks.apply(critic(), images), expected, atol=1e-4)


def test_critic_averages_over_the_map_of_larger_images_and_refuses_smaller_ones():
  assert networks.apply(critic(), frames(2, PATCH + 32, PATCH)).shape == (2,)
  with pytest.raises(ValueError, match='images from 64x64 on'):
    critic()(jnp.zeros((1, 32, 64, 3)))


@pytest.mark.parametrize(('norm', 'seen'), [('instance', False), ('none', True)])
def test_only_without_norms_a_critic_sees_the_colour_of_a_flat_image(norm, seen):
  flat = jnp.broadcast_to(jnp.array([0.2, 0.4, 0.8])[:, None, None, None], (3, PATCH, PATCH, 3))
  found = networks.apply(Critic(PATCH, 2, 0.5, norm, rngs=ParameterKeys(0)), flat)
  assert (float(jnp.ptp(found)) > 1e-4) == seen, found


# Losses


def build(seed=0, **kwargs):
  args = dict(patch=PATCH, critic_width=2) | kwargs
  return noisy(functools.partial(DPE, TINY, **args), seed)


@functools.cache
def _enhancer():
  return build()


def enhancer(**attributes):
  """The tiny enhancer with other values for what its losses read."""
  network = nnx.clone(_enhancer())
  for name, value in attributes.items():
    setattr(network, name, value)
  return network


class Brightness(nnx.Module):
  """A critic for which bright images are real."""

  def __call__(self, images):
    return images.mean((1, 2, 3))


def bright_enhancer(**attributes):
  return enhancer(critic_y=Brightness(), critic_x=Brightness(), **attributes)


def batch(count=2, height=PATCH, width=PATCH):
  return frames(count, 1, height, width, seed=1), frames(count, 1, height, width, seed=2)


def keys(count=2, seed=0):
  # The generator whose numbers do not depend on how a batch of keys is split.
  return jax.random.split(jax.random.key(seed, impl='threefry2x32'), count)


@functools.partial(networks.quick_jit, static_argnums=(0, 1))
def _loss(graphdef, side, state, args):
  network = nnx.merge(graphdef, state)
  told = getattr(network, side)(*args)
  return told, nnx.state(network, nnx.BatchStat)


def generator_loss(network, x, y):
  told, stats = _loss(nnx.graphdef(network), 'generator_loss', nnx.state(network), (x, y, keys(len(x))))
  nnx.update(network, stats)
  return told


def critic_loss(network, x, y, seed=0):
  told, stats = _loss(nnx.graphdef(network), 'critic_loss', nnx.state(network), (x, y, keys(len(x), seed), WEIGHTS))
  nnx.update(network, stats)
  return told


def same_stats(a, b):
  same = jax.tree.map(lambda a, b: bool((a == b).all()), nnx.state(a, nnx.BatchStat), nnx.state(b, nnx.BatchStat))
  return all(jax.tree.leaves(same))


@pytest.mark.slow
def test_generators_are_trained_on_these_paths_and_terms():
  network, (x, y) = bright_enhancer(), batch(2, 32, 48)
  loss, terms = generator_loss(network, x, y)

  by_hand = enhancer()
  clip = functools.partial(np.clip, a_min=0, a_max=1)
  x, y = x[:, 0], y[:, 0]
  y1, x1 = mapped(by_hand.generator, x, 0, True), mapped(by_hand.inverse, y, 0, True)
  x2, y2 = mapped(by_hand.inverse, clip(y1), 1, True), mapped(by_hand.generator, clip(x1), 1, True)
  assert y1.min() < 0 and y1.max() > 1 and x1.min() < 0 and x1.max() > 1
  expected = {
    'adversarial': -y1.mean() - x1.mean(),  # of frames as the generators gave them, not clipped
    'identity': np.square(y1 - x).mean() + np.square(x1 - y).mean(),
    'cycle': np.square(x2 - x).mean() + np.square(y2 - y).mean(),
  }
  assert set(terms) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-4)
  assert network.identity_weight == 1000 * PATCH / 512
  total = expected['adversarial'] + 125 * expected['identity'] + 1250 * expected['cycle']
  np.testing.assert_allclose(loss, total, rtol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    nnx.state(network, nnx.BatchStat),
    nnx.state(by_hand, nnx.BatchStat),
  )


class Brighten(nnx.Module):
  """In the place of a generator."""

  def __init__(self, by):
    self.by = by

  def map(self, frames, path, train):
    return frames + self.by[path]


def test_supervised_identity_compares_with_the_other_of_the_pair():
  network = bright_enhancer(supervised=True, identity_weight=2.0, cycle_factor=3.0)
  network.generator, network.inverse = Brighten((0.3, 0.01)), Brighten((-0.2, -0.02))
  x, y = jnp.full((2, 1, 4, 4, 3), 0.4), jnp.full((2, 1, 4, 4, 3), 0.6)
  loss, terms = network.generator_loss(x, y, keys())
  np.testing.assert_allclose(terms['identity'], (0.7 - 0.6) ** 2 + (0.4 - 0.4) ** 2, rtol=1e-5)
  np.testing.assert_allclose(terms['cycle'], (0.68 - 0.4) ** 2 + (0.41 - 0.6) ** 2, rtol=1e-5)
  np.testing.assert_allclose(terms['adversarial'], -0.7 - 0.4, rtol=1e-5)
  np.testing.assert_allclose(loss, terms['adversarial'] + 2 * (terms['identity'] + 3 * terms['cycle']), rtol=1e-5)


@pytest.mark.parametrize('mode', ['eval', 'train'])
def test_critics_are_high_on_real_frames_and_leave_the_running_statistics(mode):
  network, (x, y) = bright_enhancer(critic_fake_mode=mode), batch(2, 32, 48)
  loss, (scalars, penalties) = critic_loss(network, x, y)
  assert same_stats(network, enhancer())
  y1 = mapped(enhancer().generator, x[:, 0], 0, mode == 'train')
  x1 = mapped(enhancer().inverse, y[:, 0], 0, mode == 'train')
  np.testing.assert_allclose(scalars['critic_y_gap'], y.mean() - y1.mean(), atol=1e-5)
  np.testing.assert_allclose(scalars['critic_x_gap'], x.mean() - x1.mean(), atol=1e-5)
  assert penalties == {'critic_y': 0, 'critic_x': 0}  # so gentle is this critic
  np.testing.assert_allclose(loss, -scalars['critic_y_gap'] - scalars['critic_x_gap'], rtol=1e-6)


@pytest.mark.slow
def test_penalties_come_unweighted_and_enter_weighted():
  x, y = batch()
  loss, (scalars, penalties) = critic_loss(enhancer(penalty='zero'), x, y)
  assert set(penalties) == set(DPE.critics) == set(enhancer().adaptive_weights())
  for name, penalty in penalties.items():
    assert penalty > 0 and scalars[f'{name}_penalty'] == penalty
    np.testing.assert_allclose(scalars[name], WEIGHTS[name] * penalty - scalars[f'{name}_gap'], rtol=1e-5)
  np.testing.assert_allclose(loss, scalars['critic_y'] + scalars['critic_x'], rtol=1e-6)
  _, (_, again) = critic_loss(enhancer(penalty='zero'), x, y)
  _, (_, other) = critic_loss(enhancer(penalty='zero'), x, y, seed=1)
  assert again == penalties and all(other[name] != penalties[name] for name in penalties)


def test_critics_look_at_other_places_between_the_same_images():
  network, (x, _) = enhancer(penalty='zero'), batch()
  network.critic_x, network.inverse = nnx.clone(network.critic_y), nnx.clone(network.generator)
  _, (scalars, penalties) = critic_loss(network, x, x)
  np.testing.assert_allclose(scalars['critic_y_gap'], scalars['critic_x_gap'], rtol=1e-4)
  assert abs(penalties['critic_y'] / penalties['critic_x'] - 1) > 1e-3


def test_weights_are_steered_for_the_one_sided_penalty_alone():
  weight = enhancer(penalty_start=7.0).adaptive_weights()['critic_x']
  assert weight == losses.AdaptiveWeight(start=7.0)
  for name, weight in enhancer(penalty='two_sided').adaptive_weights().items():
    assert name in DPE.critics
    state = weight.init()
    for penalty in (1e3, 0.0):
      state = weight.update(state, jnp.float32(penalty))
    assert state['weight'] == 10


def players(network):
  """Graph, parameters of the generators' side, those of the critics, and running statistics, all pure dicts."""
  graphdef, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
  params = nnx.to_pure_dict(params)
  critics = {name: params.pop(name) for name in network.critics}
  return graphdef, params, critics, nnx.to_pure_dict(stats)


def steps(network):
  """What a training loop differentiates on each side, and its arguments that are alike on all devices."""
  graphdef, generators, critics, stats = players(network)

  def generator_side(generators, critics, stats, x, y, keys):
    network = nnx.merge(graphdef, generators | critics, stats)
    loss, terms = network.generator_loss(x, y, keys)
    return loss, (terms, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat)))

  def critic_side(critics, generators, stats, x, y, keys):
    return nnx.merge(graphdef, generators | critics, stats).critic_loss(x, y, keys, WEIGHTS)

  return (generator_side, (generators, critics, stats)), (critic_side, (critics, generators, stats))


def means(loss):
  return lambda *args: jax.lax.pmean(loss(*args), parallel.AXIS)


@functools.cache
def on_devices(count, transform, side):
  """Of the generators' (0) or the critics' side (1), for a batch of four over so many devices: what it tells."""
  mesh = parallel.batch_mesh(devices=jax.devices()[:count])
  data = [parallel.put_batch(clips, mesh) for clips in batch(4)]
  data.append(parallel.split_over(keys(4), mesh))
  loss, shared = steps(build(axis_name=parallel.AXIS))[side]
  step = parallel.data_parallel(transform(loss), mesh, shared=len(shared))
  shared = jax.device_put(shared, parallel.replicated(mesh))
  compiled = step.lower(*shared, *data).compile({'xla_backend_optimization_level': 0})
  return jax.device_get(compiled(*shared, *data))


@pytest.mark.slow
def test_every_parameter_of_the_generators_is_trained():
  _, gradients = on_devices(1, parallel.value_and_grad, 0)
  for path, gradient in checkpoints.flatten(gradients).items():
    assert np.isfinite(gradient).all(), path
    rows = gradient if 'norm' in path else gradient[None]  # both paths of a normalisation
    assert all(np.any(row != 0) for row in rows), path


@pytest.mark.slow
def test_every_parameter_of_the_critics_is_trained_but_constants():
  _, gradients = on_devices(1, parallel.value_and_grad, 1)
  for path, gradient in checkpoints.flatten(gradients).items():
    assert np.isfinite(gradient).all(), path
    if path.endswith(('last/bias', 'norms/5/offset')):  # what is added to all images alike cancels
      np.testing.assert_allclose(gradient, 0, atol=1e-5)
    else:
      assert np.any(gradient != 0), path


@pytest.mark.slow
def test_several_devices_give_what_one_gives():
  """Of gradients through a batch's statistics, `test_statistics_of_a_batch_are_those_of_all_devices` makes sure."""
  for side in (0, 1):
    one, _ = on_devices(1, parallel.value_and_grad, side)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), on_devices(4, means, side), one)


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (dict(patch=100), 'config.crop=100 does not fit the critics of DPE; use a multiple of 32'),
    (dict(patch=32), 'config.crop=32 '),
    (dict(generator_args=dict(global_size=6)), 'system_args.global_size=6 must be a multiple of 4'),
    (dict(penalty='both'), "loss_args.penalty='both' is unknown; choose one of one_sided, two_sided, zero"),
    (dict(critic_norm='batch'), "loss_args.critic_norm='batch' is unknown; choose one of instance, none"),
    (dict(critic_fake_mode='test'), "loss_args.critic_fake_mode='test' is unknown; choose one of eval, train"),
  ],
)
def test_wrong_arguments_are_named(args, message):
  with pytest.raises(errors.ConfigError, match=message):
    networks.shapes(functools.partial(DPE, **(dict(generator_args=TINY, patch=PATCH) | args)))


def test_clips_of_several_frames_are_refused():
  x = jnp.zeros((2, 3, PATCH, PATCH, 3))
  network = networks.shapes(functools.partial(DPE, TINY, patch=PATCH))
  for loss in (lambda: network.generator_loss(x, x, keys()), lambda: network.critic_loss(x, x, keys(), WEIGHTS)):
    with pytest.raises(errors.ConfigError, match=r'got \(2, 3, 64, 64, 3\); set config.num_frames to 1'):
      loss()
