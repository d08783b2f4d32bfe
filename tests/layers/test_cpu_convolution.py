"""`conv` and its gradients are XLA's: on CPU, on several devices, and in the programs for others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vqm_jax import parallel
from vqm_jax.layers import cpu_convolution
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


# What one wide image is made of: images, or strips of lines, of which a single line may fill the last.
@pytest.mark.parametrize(
  ('shape', 'size', 'wide'),
  [
    ((5, 48, 200), 1, (48, 5 * 200)),
    ((3, 42, 41), 3, (14 + 2, 3 * 3 * 42)),
    ((3, 42, 41), 5, (14 + 4, 3 * 3 * 43)),
    ((1, 73, 84), 3, (15 + 2, 5 * 85)),
  ],
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_small_images_side_by_side_are_those_one_by_one(shape, size, wide, dtype):
  layer = conv(64, 48, size, dtype=dtype, rngs=nnx.Rngs(0))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 64)), dtype)
  around = ((size // 2, size // 2),) * 2

  def xla(x, kernel, *_):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), around, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  def out_and_gradient(convolution, x, kernel):
    out, pullback = jax.vjp(lambda x: convolution(x, kernel, (1, 1), around), x)
    return out, *pullback(jnp.sin(7 * out))

  args = x, layer.kernel[...].astype(dtype)
  traced = jax.jit(functools.partial(out_and_gradient, cpu_convolution.convolution)).trace(*args)
  wide = f'tensor<1x{wide[0]}x{wide[1]}x'
  assert wide in traced.lower(lowering_platforms=('cpu',)).as_text()
  assert wide not in traced.lower(lowering_platforms=('cuda',)).as_text()
  found, expected = traced.lower().compile()(*args), jax.jit(functools.partial(out_and_gradient, xla))(*args)
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == b.dtype == dtype
    np.testing.assert_array_equal(a, b)


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
