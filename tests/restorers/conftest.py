"""Quick compilation: the programs of these tests are large, and run once or twice."""

import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)
