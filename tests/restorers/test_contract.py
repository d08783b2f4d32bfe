"""What every restorer keeps to: size, shapes, units of work, frames of any size, gradients, precision, errors."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import nnx
from inference.whole import assert_same, whole
from restorers.sizes import TINY

from vqm_jax import errors, restorers
from vqm_jax.inference import restore_frames, stream_frames
from vqm_jax.restorers import tcl

PUBLISHED = {
  'gtq': 19_755_067,
  'ecnu': 22_506_887,
  'gil': 3_595_063,
  'tcl_edvr': 4_112_547,
  'tcl_unet': 4_814_643,
  'tcl': 8_927_190,
  'jojo': 22_758_827,
  'boss_f1': 20_928_995,
  'boss_f2': 25_413_219,
  'boss_f3': 26_627_171,
  'boss_f4': 18_039_651,
  'boss': 65_595_817,
  'seventh': 7_932_720,
  'none': 0,
}
MULTIPLE = {'gtq': 4, 'ecnu': 4, 'gil': 4, 'tcl_unet': 8, 'seventh': 4, 'none': 1}  # 16 for all others
TINY_TCL = dict(members=[(member, TINY[member]) for member in tcl.MEMBERS])

every_system = pytest.mark.parametrize('system', PUBLISHED)
# The other frameworks of BossGao, and their mean, are made of the same parts: test_bossgao.py runs them.
RUN = [system for system in TINY if system not in ('boss_f1', 'boss_f3', 'boss_f4')]
# jojo and boss_f2 have tcl_edvr's parts, tcl is a mean of two that run: with `./run.sh test -m slow`.
_SLOW = ('boss_f2', 'jojo', 'tcl')


def runs(*systems, slow=_SLOW):
  return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in systems]


every_tiny = pytest.mark.parametrize('system', runs(*RUN, 'tcl'))
every_network = pytest.mark.parametrize('system', runs(*(system for system in RUN if system != 'none')))


@functools.cache
def published(system):
  return networks.shapes(functools.partial(restorers.create, system))


@functools.cache
def tiny(system, dtype=jnp.float32):
  args = (TINY | {'tcl': TINY_TCL})[system]
  return networks.random(functools.partial(restorers.create, system, dtype=dtype, **args))


def clip(network, height=16, width=16):
  rng = np.random.default_rng(0)
  return rng.random((1, network.num_frames, height, width, 3), dtype=np.float32)


def test_these_are_all_systems():
  assert set(TINY) == set(restorers.NETWORKS)
  assert set(PUBLISHED) | {'mixture'} == set(restorers.NETWORKS | restorers.MIXTURES)


@every_system
def test_published_parameter_count(system):
  assert sum(p.size for p in jax.tree.leaves(nnx.state(published(system), nnx.Param))) == PUBLISHED[system]


def test_layers_and_networks_start_apart_from_each_other_and_alike_from_one_seed():
  def kernels(rngs):
    network = restorers.create('seventh', rngs=rngs, **TINY['seventh'])
    found = networks.by_path(nnx.state(network, nnx.Param))
    return [np.asarray(array).ravel() for array in found.values() if array.ndim == 4 and np.any(array)]

  rngs = nnx.Rngs(3)
  first, second, again = kernels(rngs), kernels(rngs), kernels(nnx.Rngs(3))
  assert len(first) > 3 and len({array[:9].tobytes() for array in first + second}) == 2 * len(first)
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a, b)


@every_system
def test_full_hd_comes_out_as_it_went_in(system):
  network = published(system)
  assert network.size_multiple == MULTIPLE.get(system, 16)
  height = 1080 + -1080 % network.size_multiple
  graphdef, state = nnx.split(network)
  clips = jax.ShapeDtypeStruct((2, network.num_frames, height, 1920, 3), jnp.float32)
  out = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, clips)
  assert (out.shape, out.dtype) == ((2, height, 1920, 3), jnp.float32)


@every_system
def test_other_clips_are_refused_with_what_was_expected_and_found(system):
  network = published(system)
  name, frames, side = type(network).__name__, network.num_frames, 2 * network.size_multiple

  def refused(*shape, dtype=jnp.float32):
    with pytest.raises(ValueError) as caught:
      network(jnp.zeros(shape, dtype))
    assert name in str(caught.value)
    return str(caught.value)

  for channels in (1, 4):
    shape = (1, frames, side, side, channels)
    assert 'RGB' in (text := refused(*shape)) and str(shape) in text
  assert '(B, T, H, W, 3)' in (text := refused(1, side, side, 3)) and str((1, side, side, 3)) in text
  assert 'floats in [0, 1], got uint8' in refused(1, frames, side, side, 3, dtype=jnp.uint8)
  assert f'{frames} frames, got {frames + 2}' in refused(1, frames + 2, side, side, 3)
  if network.size_multiple > 1:
    expected = f'multiples of {network.size_multiple}, got '
    assert f'{expected}{side + 1}x{side}' in refused(1, frames, side + 1, side, 3)
    assert f'{expected}{side}x{side + 2}' in refused(1, frames, side, side + 2, 3)


@every_tiny
def test_streaming_encode_and_restore_is_the_bare_network_where_no_padding_is_needed(system):
  network = tiny(system)
  frames = np.random.default_rng(0).integers(0, 256, (network.num_frames, 16, 16, 3), np.uint8)
  streamed = list(stream_frames(network, frames, devices=jax.devices()[:1]))[network.num_frames // 2]
  bare = networks.apply(network, frames[None].astype(np.float32) / 255)[0]
  np.testing.assert_allclose(streamed, bare, atol=1e-5)


@pytest.mark.parametrize(
  ('size', 'length'), [((17, 23), 2), pytest.param((33, 64), 1, marks=pytest.mark.slow)], ids=['small', 'one frame']
)
@every_tiny
def test_odd_sizes_and_clips_shorter_than_the_window_are_restored_as_whole_windows_are(system, size, length):
  network = tiny(system)
  frames = np.random.default_rng(0).integers(0, 256, (length, *size, 3), np.uint8)
  restored = np.stack(list(restore_frames(network, iter(frames), devices=jax.devices()[:1])))
  assert_same(restored, whole(network, frames))


# Compiling all cells of GIL's two stages takes twenty seconds, GTQ's cascade eight.
@pytest.mark.parametrize('system', runs(*(system for system in RUN if system != 'none'), slow=(*_SLOW, 'gil', 'gtq')))
def test_every_parameter_gets_gradient(system):
  network = tiny(system)
  found = networks.by_path(networks.gradients(network, clip(network)))
  assert not [path for path, gradient in found.items() if not jnp.any(gradient != 0)]


@every_network
def test_bfloat16_computes_near_float32_with_float32_parameters(system):
  low, x = tiny(system, jnp.bfloat16), clip(tiny(system))
  assert {p.dtype for p in jax.tree.leaves(nnx.state(low, nnx.Param))} == {jnp.dtype('float32')}
  out, expected = networks.apply(low, x), networks.apply(tiny(system), x)
  assert out.dtype == jnp.float32
  difference = np.abs(out - expected)
  assert 0 < difference.mean() < 0.01 and difference.max() < 0.1


@every_system
def test_wrong_arguments_are_named(system):
  with pytest.raises(errors.ConfigError, match=f"system={system!r}.*'widht'"):
    restorers.create(system, widht=4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  ('name', 'meant'), [('ecno', 'ecnu'), ('boss_f5', 'boss_f'), ('TCL_UNET', 'tcl_unet'), ('x', None)]
)
def test_unknown_names_suggest_the_nearest(name, meant):
  with pytest.raises(errors.ConfigError) as caught:
    restorers.create(name, rngs=nnx.Rngs(0))
  text = str(caught.value)
  assert f'system={name!r} is unknown' in text and str(sorted(PUBLISHED | {'mixture': 0})) in text
  assert ('did you mean' in text) == (meant is not None)
  assert meant is None or f"did you mean '{meant}" in text
