import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from experiments import common, ecnu, gtq, tcl_edvr
from vqm_jax import errors
from vqm_jax.training import optimizer


def test_step_schedule_halves_at_fractions_of_the_run():
  config = ecnu.get_config()
  _, rates = optimizer.create(config)
  n = config.steps
  at = [rates[min(round(f * n), n - 1)] for f in (0, 0.19, 0.21, 0.41, 0.61, 0.81, 1)]
  np.testing.assert_allclose(at, [1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5, 6.25e-5], rtol=1e-6)


def test_milestones_count_from_the_start_of_the_run_with_warm_up_too():
  rate = optimizer.schedule('step', 1.0, 1000, warmup=0.1, milestones=(0.5,), factor=0.1)
  np.testing.assert_allclose([float(rate(s)) for s in (0, 50, 100, 499, 501)], [0, 0.5, 1, 1, 0.1], rtol=1e-6)


def test_cosine_ends_at_its_fraction():
  rate = optimizer.schedule('cosine', 2e-3, 1000, warmup=0.02, end=0.01)
  np.testing.assert_allclose([float(rate(s)) for s in (0, 20, 1000)], [0, 2e-3, 2e-5], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(optimizer='adamm'), "optimizer='adamm' is unknown; choose one of"),
    (dict(schedule='linea'), "schedule='linea' is unknown; choose one of"),
    (dict(schedule_args=dict(ende=0.1)), 'schedule_args or optimizer_args do not fit'),
    (dict(optimizer_args=dict(beta=0.1)), 'schedule_args or optimizer_args do not fit'),
  ],
)
def test_wrong_names_are_config_errors(change, message):
  config = common.base_config()
  config.update(change)
  with pytest.raises(errors.ConfigError, match=message):
    optimizer.create(config)


def test_muon_moves_a_kernel_equally_in_all_directions_and_a_bias_as_nadam_does():
  rng = np.random.default_rng(0)
  # A gradient that is nearly all of one direction, as features with a large mean make it.
  kernel = rng.normal(size=(3, 3, 16, 8)) + 100 * np.ones((3, 3, 16, 8))
  gradients = {'kernel': jnp.asarray(1e-6 * kernel, jnp.float32), 'bias': jnp.asarray([1e-3, -1e-5])}
  params = jax.tree.map(jnp.zeros_like, gradients)
  update = optimizer.muon(optax.constant_schedule(1e-2))
  moved, _ = update.update(gradients, update.init(params), params)
  sizes = np.linalg.svd(moved['kernel'].reshape(-1, 8), compute_uv=False)
  assert sizes.max() / sizes.min() < 3  # of the gradient: more than 300
  assert np.sqrt(np.square(moved['kernel']).mean()) == pytest.approx(0.2 * 1e-2, rel=0.3)  # as large as Adam's
  nadam = optax.nadam(1e-2)
  expected, _ = nadam.update(gradients['bias'], nadam.init(params['bias']))
  np.testing.assert_allclose(moved['bias'], expected, rtol=1e-2)


@pytest.mark.parametrize('steps', [1, 5])
def test_muon_is_that_of_optax(steps):
  rng = np.random.default_rng(0)
  shapes = {'wide': (1, 1, 8, 24), 'tall': (3, 3, 8, 8), 'twin': (3, 3, 8, 8), 'turned': (1, 1, 8, 72), 'bias': (8,)}
  params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
  kernel = contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
  theirs = contrib.muon(
    1e-2,
    consistent_rms=0.2,
    eps=1e-12,
    ns_steps=steps,
    muon_weight_dimension_numbers=lambda tree: jax.tree.map(lambda p: kernel if p.ndim == 4 else None, tree),
  )
  both = [theirs, optimizer.muon(1e-2, ns_steps=steps)]
  states = [each.init(params) for each in both]
  for step in range(3):
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    gradients['twin'] = gradients['twin'].at[..., 1:].multiply(1e-4)  # singular values of very different sizes
    if step == 0:
      gradients['wide'] *= 0
    moves = []
    for k, each in enumerate(both):
      move, states[k] = each.update(gradients, states[k], params)
      moves.append(move)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max()), *moves)
  jax.tree.map(np.testing.assert_array_equal, *states)


def test_eps_in_the_units_of_a_recipe():
  """Adam on a loss of larger numbers moves as ours does with the converted eps."""
  gradients = [jnp.asarray(g) for g in np.random.default_rng(0).normal(scale=1e-8, size=(3, 5)).astype(np.float32)]

  def moves(factor, eps):
    update = optax.adam(1e-3, eps=eps)
    state, out = update.init(gradients[0]), []
    for gradient in gradients:
      move, state = update.update(factor * gradient, state)
      out.append(move)
    return np.array(out)

  for units in (dict(peak=255), dict(summed=3000), dict(peak=255, summed=12)):
    factor = float(np.prod(list(units.values())))
    np.testing.assert_allclose(moves(1.0, common.adam_eps(**units)), moves(factor, 1e-8), rtol=1e-4)
  assert gtq.get_config().optimizer_args.eps == ecnu.get_config().optimizer_args.eps == 1e-8 / 255
  assert tcl_edvr.get_config().optimizer_args.eps == pytest.approx(1e-8 / (16 * 256 * 256 * 3))


@pytest.mark.parametrize('name', optimizer.OPTIMIZERS)
def test_updates_are_those_of_a_schedule(name):
  config = tcl_edvr.get_config('tiny')
  config.update(optimizer=name, steps=5, warmup=0.4, optimizer_args={}, slow_layers='', clip_norm=0.0)
  ours, rates = optimizer.create(config)
  rate = optimizer.schedule(config.schedule, config.lr, 5, 0.4, **config.schedule_args)
  theirs = optimizer.OPTIMIZERS[name](rate)
  params = {'kernel': jnp.full((3, 3, 2, 2), 0.1), 'bias': jnp.zeros(2)}
  states = [optimizer_.init(params) for optimizer_ in (ours, theirs)]
  assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])  # checkpoints of earlier versions load
  for step in range(5):
    gradients = jax.tree.map(
      lambda p, step=step: jnp.cos(jnp.arange(p.size, dtype=p.dtype) + step).reshape(p.shape), params
    )
    found, states[0] = ours.update(gradients, states[0], params, rate=rates[step])
    expected, states[1] = theirs.update(gradients, states[1], params)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_layers_can_be_slower():
  config = tcl_edvr.get_config('tiny')
  config.update(optimizer='sgd', schedule='constant', schedule_args={}, warmup=0.0, clip_norm=0.0, lr=1.0)
  assert config.slow_rate == 0.1
  update, _ = optimizer.create(config)
  params = {'align': {'warp': {'guide': {'kernel': jnp.ones(2)}, 'kernel': jnp.ones(2)}}}
  moved, _ = update.update(params, update.init(params), params, rate=1.0)
  np.testing.assert_allclose(moved['align']['warp']['guide']['kernel'], -0.1)
  np.testing.assert_allclose(moved['align']['warp']['kernel'], -1.0)
