"""`conv` and its gradients are XLA's: on CPU, on several devices, and in the programs for others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vqm_jax import parallel
from vqm_jax.layers.conv import conv

CASES = [
  (3, 20, 3, 1),
  (20, 3, 3, 1),
  (20, 24, 3, 1),
  (20, 24, 3, 2),
  (3, 20, 3, 2),
  (20, 3, 3, 2),
  (20, 24, 1, 1),
  (4, 5, 5, 1),
  (20, 24, 5, 2),
]
# In several parts, with something left over: of lines; of images; of single lines; behind a stride.
PARTS = [((1, 70, 40), 64, 3, 1), ((7, 16, 17), 64, 3, 1), ((1, 3, 1000), 64, 3, 1), ((2, 71, 73), 48, 3, 2)]


def gradients(cin, cout, size, stride, dtype=jnp.float32, shape=(2, 9, 12)):
  """Ours, then XLA's: of bias, kernel and input."""
  layer = conv(cin, cout, size, stride=stride, dtype=dtype, rngs=nnx.Rngs(0))
  rng = np.random.default_rng(0)
  count, height, width = shape
  x = jnp.asarray(rng.normal(size=(*shape, cin)), jnp.float32)
  weights = jnp.asarray(rng.normal(size=(count, -(-height // stride), -(-width // stride), cout)), jnp.float32)
  graphdef, params = nnx.split(layer)

  def ours(params, x):
    return (nnx.merge(graphdef, params)(x) * weights).sum()

  def plain(params, x):
    reach = size // 2
    y = jax.lax.conv_general_dilated(
      x.astype(dtype), params['kernel'][...].astype(dtype), (stride, stride), ((reach, reach), (reach, reach)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    return ((y + params['bias'][...].astype(dtype)) * weights).sum()

  return (jax.tree.leaves(jax.jit(jax.grad(f, (0, 1)))(params, x)) for f in (ours, plain))


@pytest.mark.parametrize('case', CASES)
def test_equals_the_gradient_of_xla(case):
  for a, b in zip(*gradients(*case), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(('shape', 'cin', 'size', 'stride'), PARTS)
def test_equals_the_gradient_of_xla_in_several_parts(shape, cin, size, stride):
  for a, b in zip(*gradients(cin, 8, size, stride, shape=shape), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize('size', [1, 3, 5])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_small_images_side_by_side_are_those_one_by_one(size, dtype):
  layer = conv(64, 48, size, dtype=dtype, rngs=nnx.Rngs(0))
  graphdef, params = nnx.split(layer)
  shape = (5, 48, 200, 64) if size == 1 else (3, 42, 41, 64)
  x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)

  def out_and_gradient(params, x):
    return jax.value_and_grad(lambda x: jnp.square(nnx.merge(graphdef, params)(x).astype(jnp.float32)).sum())(x)

  traced = jax.jit(out_and_gradient).trace(params, x)
  wide = f'tensor<1x{shape[1]}x{shape[0] * (shape[2] + size // 2)}x'
  assert wide in traced.lower(lowering_platforms=('cpu',)).as_text()
  assert wide not in traced.lower(lowering_platforms=('cuda',)).as_text()
  ones = [jax.jit(out_and_gradient)(params, x[k : k + 1]) for k in range(len(x))]  # nothing to lay beside them
  total, gradient = jax.jit(out_and_gradient)(params, x)
  np.testing.assert_allclose(total, sum(one for one, _ in ones), rtol=1e-5)
  expected = jnp.concatenate([each for _, each in ones]).astype(jnp.float32)
  np.testing.assert_allclose(gradient.astype(jnp.float32), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('case', CASES[:4])
def test_bfloat16_sums_in_float32(case):
  (_, *exact), (_, *low) = next(gradients(*case)), next(gradients(*case, jnp.bfloat16))  # without the bias's
  for a, b in zip(low, exact, strict=True):
    np.testing.assert_allclose(a, b, atol=0.01 * np.abs(b).max())


def test_four_devices_give_the_gradient_of_one_and_every_platform_can_be_compiled_for():
  layer = conv(20, 24, rngs=nnx.Rngs(0))
  graphdef, params = nnx.split(layer)
  params = nnx.to_pure_dict(params)
  x = np.random.default_rng(0).random((4, 8, 8, 20), np.float32)

  def loss(params, x):
    return jnp.square(nnx.merge(graphdef, params)(x)).mean(), {}

  found = []
  for count in (1, 4):
    mesh = parallel.batch_mesh(devices=jax.devices()[:count])
    step = parallel.data_parallel(lambda p, x: parallel.value_and_grad(loss)(p, x)[1], mesh)
    found.append(jax.device_get(step(params, parallel.put_batch(x, mesh))))
    for platform in ('cpu', 'cuda', 'tpu'):
      text = step.trace(params, parallel.put_batch(x, mesh)).lower(lowering_platforms=(platform,)).as_text()
      # The forward pass is a convolution everywhere, the kernel gradient where XLA's is good.
      assert text.count('stablehlo.convolution') == (1 if platform == 'cpu' else 2)
  for a, b in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
