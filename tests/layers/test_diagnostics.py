"""Scalars that layers record, and who gets them."""

import jax
import jax.numpy as jnp
import pytest

from vqm_jax.layers import diagnostics


def test_nothing_is_computed_when_nobody_listens():
  diagnostics.record(lambda: pytest.fail('computed'))
  with diagnostics.recording():
    pass
  diagnostics.record(lambda: pytest.fail('computed after the listener left'))


def test_values_are_collected_inside_without_gradient():
  @jax.value_and_grad
  def loss(x):
    with diagnostics.recording() as heard:
      diagnostics.record(lambda: {'a_mean': x**2})
      diagnostics.record(lambda: {'b_max': 3 * x})
    assert set(heard) == {'a_mean', 'b_max'}
    return x + heard['a_mean'] + heard['b_max']

  value, gradient = loss(2.0)
  assert (value, gradient) == (2 + 4 + 6, 1)


def test_each_listener_hears_what_runs_inside_it():
  with diagnostics.recording() as outer:
    diagnostics.record(lambda: {'a': 1.0})
    with diagnostics.recording() as inner:
      diagnostics.record(lambda: {'b': 2.0})
    diagnostics.record(lambda: {'c': 3.0})
  assert (outer, inner) == ({'a': 1.0, 'c': 3.0}, {'b': 2.0})


def test_records_of_parts_of_a_batch_are_joined_by_maximum_or_mean():
  parts = [{'a_max': jnp.array(a), 'b_mean': jnp.array(b)} for a, b in ((1.0, 2.0), (5.0, 4.0), (3.0, 9.0))]
  assert diagnostics.joined(parts) == {'a_max': 5, 'b_mean': 5}
