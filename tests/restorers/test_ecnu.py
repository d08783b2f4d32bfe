import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vqm_jax import errors, inference, restorers
from vqm_jax.restorers.ecnu import AdaptiveWDSRBlock, C2CNet, WNConv

TINY = dict(width=4, mapping_width=8, num_blocks=2)


def tiny(**kwargs):
  return C2CNet(**(TINY | kwargs), rngs=nnx.Rngs(0))


def clip(height=16, width=24, seed=0):
  return jax.random.uniform(jax.random.key(seed), (1, 1, height, width, 3))


@pytest.mark.parametrize(('r', 'count'), [(4, 22_506_887), (2, 19_846_535)])
def test_published_parameter_count(r, count):
  network = nnx.eval_shape(lambda: restorers.create('ecnu', r=r, rngs=nnx.Rngs(0)))
  assert inference.count_params(network) == count


def test_demo_parameter_count():
  args = dict(width=8, mapping_width=16, num_blocks=3, image_residual=True, tail_gain=0.1)
  assert inference.count_params(nnx.eval_shape(lambda: restorers.create('ecnu', rngs=nnx.Rngs(0), **args))) == 114_413


def test_full_size_shape_without_running():
  network = nnx.eval_shape(lambda: restorers.create('ecnu', rngs=nnx.Rngs(0)))
  graphdef, state = nnx.split(network)
  clips = jax.ShapeDtypeStruct((2, 1, 1080, 1920, 3), jnp.float32)
  out = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, clips)
  assert out.shape == (2, 1080, 1920, 3) and out.dtype == jnp.float32


def test_call_is_restore_of_encode():
  network, x = tiny(), clip()
  np.testing.assert_array_equal(network(x), network.restore(network.encode(x)[:, None]))


def test_weight_norm_is_the_plain_convolution_at_first_and_ignores_the_scale_of_v():
  conv = WNConv(3, 5, rngs=nnx.Rngs(0))
  x = clip()[:, 0]
  plain = jax.lax.conv_general_dilated(x, conv.v[...], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(conv(x), plain + conv.bias[...], atol=1e-5)
  np.testing.assert_allclose(jnp.sqrt(jnp.square(conv.kernel()).sum((0, 1, 2))), jnp.abs(conv.g[...]), rtol=1e-5)
  before = conv(x)
  conv.v[...] = 7 * conv.v[...]
  np.testing.assert_allclose(conv(x), before, atol=1e-5)


def test_block_is_identity_without_residual_and_starts_with_a_fifth_of_it():
  block = AdaptiveWDSRBlock(8, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(1), (1, 8, 8, 8))
  residual = block.project(jax.nn.relu(block.expand(x)))
  np.testing.assert_allclose(block(x), x + 0.2 * residual, atol=1e-6)
  block.beta[...] = jnp.zeros(())
  np.testing.assert_array_equal(block(x), x)


def test_body_is_inert_when_every_beta_is_zero():
  network, x = tiny(), clip()
  network.beta[...] = jnp.zeros(())
  for block in network.blocks:
    block.beta[...] = jnp.zeros(())
  before = network(x)
  network.body_end.v[...] = network.body_end.v[...] * 0 + 1  # must not matter: f = d
  np.testing.assert_array_equal(network(x), before)


def test_output_depends_on_the_head_alone_when_both_shuffled_branches_are_silent():
  network, x = tiny(), clip()
  for branch in (network.sub_pixel, network.upsampling_skip):
    branch.g[...] = branch.g[...] * 0
    branch.bias[...] = branch.bias[...] * 0
  h = network.head((x[:, 0] - 0.5) / 0.5)
  np.testing.assert_allclose(network(x), 0.5 * network.tail(h) + 0.5, atol=1e-6)


def test_image_residual_with_a_silent_tail_is_the_identity():
  network, x = tiny(image_residual=True, tail_gain=0.0), clip()
  network.tail.bias[...] = network.tail.bias[...] * 0
  np.testing.assert_allclose(network(x), x[:, 0], atol=1e-7)


def test_every_parameter_gets_gradient_and_there_are_129_published_scalars():
  graphdef, params = nnx.split(tiny())
  grads = jax.grad(lambda p: (nnx.merge(graphdef, p)(clip()) ** 2).mean())(params)
  dead = [jax.tree_util.keystr(p) for p, g in jax.tree_util.tree_leaves_with_path(grads) if not jnp.any(g != 0)]
  assert not dead
  published = nnx.state(nnx.eval_shape(lambda: restorers.create('ecnu', rngs=nnx.Rngs(0))), nnx.Param)
  assert sum(p.shape == () for p in jax.tree.leaves(published)) == 2 * 64 + 1


def test_bfloat16_computes_near_float32_with_float32_parameters():
  low = tiny(dtype=jnp.bfloat16)
  assert {p.dtype for p in jax.tree.leaves(nnx.state(low, nnx.Param))} == {jnp.dtype('float32')}
  assert low(clip()).dtype == jnp.float32
  np.testing.assert_allclose(low(clip()), tiny()(clip()), atol=0.05)


def test_errors_name_the_remedy():
  with pytest.raises(ValueError, match='multiples of 4'):
    tiny()(clip(17, 24))
  with pytest.raises(errors.ConfigError, match="system='ecno' is unknown; choose one of"):
    restorers.create('ecno', rngs=nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match='num_block'):
    restorers.create('ecnu', num_block=3, rngs=nnx.Rngs(0))
