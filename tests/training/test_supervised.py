import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from experiments import seventh
from vqm_jax import inference, losses, parallel
from vqm_jax.training.supervised import Supervised


def batch_of(config, seed=0):
  rng = np.random.default_rng(seed)
  shape = (config.batch_size, 1, config.crop, config.crop, 3)
  hq = rng.integers(0, 256, shape, np.uint8)
  noise = rng.integers(-8, 9, shape)
  return {'lq': np.clip(hq + noise, 0, 255).astype(np.uint8), 'hq': hq}


def run(config, devices, steps=4):
  trainer = Supervised(config, jax.devices()[:devices])
  state, curve = trainer.init(trainer.fresh()), []
  for step in range(steps):
    state, scalars = trainer.update(state, batch_of(config, step), step)
    curve.append(float(scalars['train/loss']))
  return trainer, jax.device_get(state), curve


def assert_close(a, b, atol):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, atol=atol)


@pytest.fixture(scope='module')
def one_device(request):
  cache = {}

  def get(config):
    key = config.to_json()
    if key not in cache:
      cache[key] = run(config, 1)
    return cache[key]

  return get


def test_first_step_is_the_textbook_update(tiny_config, one_device):
  config = tiny_config
  config.update(optimizer='sgd', schedule='constant', schedule_args={}, warmup=0.0, clip_norm=0.0, ema=0.9, lr=0.1)
  trainer, _, _ = one_device(config)
  params = trainer.fresh()
  batch = batch_of(config)
  graphdef = nnx.graphdef(inference.create_network(config, config.seed))

  def loss(params):
    return losses.l2(nnx.merge(graphdef, params)(batch['lq'] / 255.0), batch['hq'][:, 0] / 255.0)

  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  state, scalars = trainer.update(trainer.init(params), batch, 0)
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
  assert_close(state.params, expected, atol=1e-6)
  assert_close(state.ema, jax.tree.map(lambda p, q: 0.9 * p + 0.1 * q, params, expected), atol=1e-6)
  np.testing.assert_allclose(scalars['train/loss'], value, rtol=1e-5)
  np.testing.assert_allclose(scalars['train/grad_norm'], optax.tree.norm(grads), rtol=1e-4)


def test_same_batch_gives_the_same_curve_on_one_and_four_devices(tiny_config, one_device):
  """Tolerance: 1e-5 relative in the loss, 1e-5 in a parameter; sums of floats in another order differ by 1e-7."""
  _, one, curve_one = one_device(tiny_config)
  _, four, curve_four = run(tiny_config, 4)
  np.testing.assert_allclose(curve_four, curve_one, rtol=1e-5)
  assert_close(four.params, one.params, atol=1e-5)


def test_an_update_equals_that_of_a_literal_pmap_bit_for_bit(tiny_config):
  """The same step, written for one device, under `jax.pmap`, which is these two functions of ours since JAX 0.8."""
  count = 4
  trainer = Supervised(tiny_config, jax.devices()[:count])
  batch, start = batch_of(tiny_config), trainer.init(trainer.fresh())
  mapped = jax.pmap(
    trainer._whole_step, axis_name=parallel.AXIS, in_axes=(None, None, 0), out_axes=None, devices=jax.devices()[:count]
  )
  parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
  expected = jax.device_get(mapped(jax.device_get(start), trainer._rates[0], parts))
  found = jax.device_get(trainer.update(start, batch, 0))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_gradient_accumulation_equals_the_whole_batch(tiny_config, one_device):
  _, whole, curve = one_device(tiny_config)
  tiny_config.grad_accum = 4
  _, parts, curve_parts = run(tiny_config, 2)
  np.testing.assert_allclose(curve_parts, curve, rtol=1e-5)
  assert_close(parts.params, whole.params, atol=1e-5)


def test_bfloat16_keeps_parameters_and_optimiser_in_float32(tiny_config):
  tiny_config.dtype = 'bfloat16'
  trainer, state, curve = run(tiny_config, 1, steps=1)
  assert {x.dtype for x in jax.tree.leaves(state.params)} == {np.dtype('float32')}
  assert {x.dtype for x in jax.tree.leaves(state.opt_state)} <= {np.dtype('float32'), np.dtype('int32')}
  assert 'bf16' in trainer.lower(trainer.abstract_state(), abstract_batch(tiny_config, trainer), ('cpu',)).as_text()
  assert np.isfinite(curve).all()


def abstract_batch(config, trainer):
  sharding = jax.sharding.NamedSharding(trainer.mesh, jax.sharding.PartitionSpec(parallel.AXIS))
  shape = (config.batch_size, 1, config.crop, config.crop, 3)
  return {k: jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=sharding) for k in ('lq', 'hq')}


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_step_lowers_for_every_platform(tiny_config, platform, dtype):
  tiny_config.dtype = dtype
  trainer = Supervised(tiny_config)
  lowered = trainer.lower(trainer.abstract_state(), abstract_batch(tiny_config, trainer), (platform,))
  assert 'convolution' in lowered.as_text()


def test_length_and_rate_of_a_run_are_no_part_of_its_program(tiny_config):
  """So that a run of another length, or one that went back with half the rate, finds it compiled."""
  texts = []
  for changes in ({}, {'steps': 50, 'lr': 7e-5, 'schedule': 'constant', 'schedule_args': {}}):
    tiny_config.update(changes)
    trainer = Supervised(tiny_config, jax.devices()[:1])
    texts.append(trainer.lower(trainer.abstract_state(), batch_of(tiny_config), ('cpu',)).as_text())
  assert texts[0] == texts[1]


def test_a_batch_that_does_not_divide_uses_the_largest_subset(tiny_config, caplog):
  tiny_config.batch_size = 6
  assert Supervised(tiny_config, jax.devices()[:4]).mesh.size == 3
  assert 'batch_size=6 does not divide over 4 devices' in caplog.text


def test_without_ema_the_raw_weights_are_used(tiny_config):
  tiny_config.ema = 0.0
  trainer = Supervised(tiny_config, jax.devices()[:1])
  state = trainer.init(trainer.fresh())
  assert state.ema is None
  np.testing.assert_array_equal(trainer.network(state).head.v[...], state.params['head']['v'])


def test_a_network_is_made_once_for_its_structure_and_once_for_its_values(tiny_config, monkeypatch):
  made, create = [], inference.create_network
  monkeypatch.setattr(inference, 'create_network', lambda *args: made.append(args) or create(*args))
  trainer = Supervised(tiny_config, jax.devices()[:1])
  trainer.abstract_network(), trainer.abstract_state()
  assert len(made) == 1
  trainer.fresh()
  assert len(made) == 2


def test_a_run_of_another_length_and_rate_compiles_no_step(tmp_path):
  """Counted in a cache of its own: one program of a step for all of them."""
  config = seventh.get_config('tiny')
  config.system_args.update(width=4, num_blocks=1)
  config.update(crop=8, batch_size=2)
  before = jax.config.jax_compilation_cache_dir
  compilation_cache.reset_cache()
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  steps = []
  try:
    for changes in ({}, {'steps': 9, 'lr': 3e-5}, {'steps': 50, 'schedule': 'linear', 'schedule_args': {'start': 0.5}}):
      config.update(changes)
      run(config, 1, steps=1)
      steps.append(len([path for path in tmp_path.iterdir() if path.name.startswith('jit_mapped-')]))
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
    compilation_cache.reset_cache()
  assert steps[0] > 0 and steps == steps[:1] * 3
