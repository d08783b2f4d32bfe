import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqm_jax import errors, parallel


def test_largest_dividing_subset_with_a_warning(caplog):
  assert parallel.batch_mesh(16).size == 8
  assert not caplog.text
  assert parallel.batch_mesh(12).size == 6
  assert 'batch_size=12 does not divide over 8 devices: using 6' in caplog.text
  assert parallel.batch_mesh(7).size == 7 and parallel.batch_mesh(1).size == 1


def test_several_processes_must_all_take_part(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(errors.ConfigError, match='batch_size=12 does not divide over 8 devices in 2 processes; use a'):
    parallel.batch_mesh(12)


def test_gradients_are_means_not_sums():
  x, w = np.random.default_rng(0).random((8, 3), np.float32), np.ones(3, np.float32)

  def loss(w, x):
    return jnp.square(x @ w).mean(), {'rows': jnp.float32(x.shape[0])}

  expected = jax.value_and_grad(loss, has_aux=True)(w, x)
  for count in (1, 4, 8):
    mesh = parallel.batch_mesh(devices=jax.devices()[:count])
    step = parallel.data_parallel(parallel.value_and_grad(loss), mesh)
    (value, aux), grads = step(w, parallel.put_batch(x, mesh))
    np.testing.assert_allclose(value, expected[0][0], rtol=1e-6)
    np.testing.assert_allclose(grads, expected[1], rtol=1e-5)
    assert float(aux['rows']) == 8 / count


def test_a_forgotten_mean_is_an_error():
  mesh = parallel.batch_mesh()
  with pytest.raises(ValueError, match='replicat'):
    parallel.data_parallel(lambda w, x: (w * x).mean(), mesh)(1.0, parallel.put_batch(np.ones(8), mesh))


def test_split_outputs_keep_the_order_of_samples():
  mesh = parallel.batch_mesh()
  double = parallel.data_parallel(lambda scale, x: scale * x, mesh, outputs_split=True)
  np.testing.assert_array_equal(double(2, parallel.put_batch(np.arange(16), mesh)), 2 * np.arange(16))


def test_parts_move_between_devices_without_a_program(caplog):
  """A program over several devices would have to wait for all of them, and two of those for each other."""
  mesh = parallel.batch_mesh(devices=jax.devices()[:4])
  tree = {'a': np.arange(8.0).reshape(8, 1), 'b': np.arange(4)}
  spread = parallel.split_over(tree, mesh)
  with jax.log_compiles(), caplog.at_level('WARNING'):
    parts = parallel.per_device(spread, mesh)
    turned = parallel.from_devices(parts[::-1], mesh)
  assert 'Compiling' not in caplog.text
  np.testing.assert_array_equal(parts[1]['a'], [[2], [3]])
  np.testing.assert_array_equal(turned['a'][:, 0], [6, 7, 4, 5, 2, 3, 0, 1])
  np.testing.assert_array_equal(turned['b'], [3, 2, 1, 0])
  assert turned['b'].sharding == spread['b'].sharding
