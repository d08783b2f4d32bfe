import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from vqm_jax import inference, parallel
from vqm_jax.layers import deform_conv, diagnostics
from vqm_jax.layers.deform_conv import DeformConv, modulated_deform_conv2d

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'deform_conv.npz'
INPUTS = ('x', 'offset', 'mask', 'kernel', 'bias', 'gradient')
RESULTS = ('out', 'dx', 'doffset', 'dmask', 'dkernel', 'dbias')


def oracle(x, offset, mask, kernel, bias, gradient, stride=1, dilation=1):
  """The definition in float64, one read at a time: the output, and the five gradients of sum(output * gradient)."""
  x, offset, mask, kernel, bias, gradient = (
    np.asarray(v, np.float64) for v in (x, offset, mask, kernel, bias, gradient)
  )
  _, h, w, c = x.shape
  kh, kw = kernel.shape[:2]
  size = c // mask.shape[4]
  out = np.zeros(gradient.shape) + bias
  dx, doffset, dmask, dkernel = (np.zeros(v.shape) for v in (x, offset, mask, kernel))
  for n, i, j, k, g in np.ndindex(mask.shape):
    ky, kx = divmod(k, kw)
    channels = slice(g * size, (g + 1) * size)
    py = i * stride + (ky - kh // 2) * dilation + offset[n, i, j, 0, k, g]
    px = j * stride + (kx - kw // 2) * dilation + offset[n, i, j, 1, k, g]
    y0, x0 = int(np.floor(py)), int(np.floor(px))
    fy, fx = py - y0, px - x0
    read, read_dy, read_dx = np.zeros(size), np.zeros(size), np.zeros(size)
    dread = mask[n, i, j, k, g] * kernel[ky, kx, channels] @ gradient[n, i, j]
    for y, weight_y, slope_y in ((y0, 1 - fy, -1), (y0 + 1, fy, 1)):
      for z, weight_x, slope_x in ((x0, 1 - fx, -1), (x0 + 1, fx, 1)):
        if 0 <= y < h and 0 <= z < w:
          read += weight_y * weight_x * x[n, y, z, channels]
          read_dy += slope_y * weight_x * x[n, y, z, channels]
          read_dx += weight_y * slope_x * x[n, y, z, channels]
          dx[n, y, z, channels] += weight_y * weight_x * dread
    out[n, i, j] += mask[n, i, j, k, g] * read @ kernel[ky, kx, channels]
    doffset[n, i, j, :, k, g] = read_dy @ dread, read_dx @ dread
    dmask[n, i, j, k, g] = read @ kernel[ky, kx, channels] @ gradient[n, i, j]
    dkernel[ky, kx, channels] += mask[n, i, j, k, g] * np.outer(read, gradient[n, i, j])
  return dict(zip(RESULTS, (out, dx, doffset, dmask, dkernel, gradient.sum((0, 1, 2))), strict=True))


def ours(x, offset, mask, kernel, bias, gradient, stride=1, dilation=1):
  """What `oracle` computes."""

  @jax.jit
  def run(*inputs):
    out, pullback = jax.vjp(lambda *v: modulated_deform_conv2d(*v, stride=stride, dilation=dilation), *inputs)
    return out, *pullback(jnp.asarray(gradient, out.dtype))

  return dict(zip(RESULTS, run(x, offset, mask, kernel, bias), strict=True))


def inputs(n=1, h=6, w=7, c=4, out=3, groups=2, size=(3, 3), stride=1, scale=2.0, seed=0):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  places = (n, -(-h // stride), -(-w // stride))
  taps = size[0] * size[1]
  offset = scale * normal(*places, 2, taps, groups)
  mask = rng.uniform(size=(*places, taps, groups)).astype(np.float32)
  return normal(n, h, w, c), offset, mask, normal(*size, c, out), normal(out), normal(*places, out)


def plain(*args, **kwargs):
  return jax.jit(lambda *arrays: modulated_deform_conv2d(*arrays, **kwargs))(*args)


@functools.partial(jax.jit, static_argnums=(2, 3))
def convolution(x, kernel, stride=1, dilation=1):
  padding = [(dilation * (k - 1) // 2,) * 2 for k in kernel.shape[:2]]
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, rhs_dilation=(dilation,) * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def assert_equal(found, expected, skip=()):
  for name in RESULTS:
    if name not in skip:
      assert found[name].shape == expected[name].shape
      np.testing.assert_allclose(
        found[name], expected[name], rtol=0, atol=1e-5 * np.abs(expected[name]).max(), err_msg=name
      )


# As on CPUs, and as on accelerators but in small tiles.
@pytest.mark.parametrize('tile', [(6144, 1), (20, None)], ids=['a tap', 'all taps'])
@pytest.mark.parametrize(
  ('shape', 'stride', 'dilation'),
  [
    (dict(scale=0.3), 1, 1),
    (dict(n=2, h=5, w=8, scale=2.0), 1, 1),
    (dict(scale=8.0), 1, 1),
    (dict(h=7, w=5, stride=2, groups=4), 2, 1),
    (dict(h=8, w=5, groups=1, c=3), 1, 2),
    (dict(n=2, h=9, w=6, stride=3, c=6), 3, 2),
    (dict(size=(1, 1)), 1, 1),
    (dict(size=(5, 5), groups=1), 1, 1),
  ],
)
def test_values_and_gradients_are_those_of_the_definition(shape, stride, dilation, tile, monkeypatch):
  positions, taps = tile
  taps = taps or math.prod(shape.get('size', (3, 3)))
  monkeypatch.setattr(deform_conv, '_CPU_TILE', (positions, taps))
  arrays = inputs(stride=stride, **{k: v for k, v in shape.items() if k != 'stride'})
  assert_equal(ours(*arrays, stride, dilation), oracle(*arrays, stride, dilation))


def test_reads_on_and_beyond_every_border():
  along = np.array([-30, -2, -1.25, -1, -0.5, 0, 4.25, 11, 11.5, 12, 12.25, 1e9], np.float32)
  arrays = x, offset, mask, kernel, bias, gradient = inputs(h=12, w=12, size=(1, 1), groups=1)
  targets = np.stack(np.meshgrid(along, along, indexing='ij'), axis=-1)
  offset[0, :, :, :, 0, 0] = targets - np.stack(np.mgrid[:12, :12], axis=-1)
  found, expected = ours(*arrays), oracle(*arrays)
  assert_equal(found, expected, skip=['doffset'])
  smooth = (targets % 1 != 0).all(-1)  # elsewhere the derivative has two sides
  np.testing.assert_allclose(found['doffset'][:, smooth], expected['doffset'][:, smooth], atol=1e-4)
  outside = ((targets <= -1) | (targets >= 12)).any(-1)
  np.testing.assert_array_equal(found['out'][:, outside], np.broadcast_to(bias, (1, outside.sum(), 3)))


def test_offsets_that_are_not_finite_read_no_memory_of_others():
  arrays = inputs()
  arrays[1][0, 0, 0], arrays[1][0, 3, 3] = np.nan, np.inf
  found = ours(*arrays)
  assert np.isnan(found['out'][0, 0, 0]).all() and np.isfinite(found['out'][0, 1:]).all()
  np.testing.assert_allclose(found['out'][0, 3, 3], arrays[4], atol=1e-6)


def taps_first(name, values):
  """The stored values, in which offsets are (N, H, W, G, K, 2) and masks (N, H, W, G, K), as the operator has them."""
  if 'offset' in name:
    return values.transpose(0, 1, 2, 5, 4, 3)
  return values.swapaxes(3, 4) if 'mask' in name else values


def test_matches_golden_values_made_with_torch():
  with np.load(GOLDEN) as file:
    cases = sorted({name.split('/')[0] for name in file})
    assert cases == ['dilated', 'plain', 'strided']
    for case in cases:
      values = {name: taps_first(name, file[f'{case}/{name}']) for name in (*INPUTS, *RESULTS)}
      arrays, expected = ([values[name] for name in INPUTS], {name: values[name] for name in RESULTS})
      how = file[f'{case}/stride_dilation'].tolist()
      assert_equal(oracle(*arrays, *how), expected)
      assert_equal(ours(*arrays, *how), expected)


@pytest.mark.parametrize(('size', 'stride', 'dilation'), [((3, 3), 1, 1), ((5, 3), 2, 2)])
def test_without_offsets_it_is_the_convolution(size, stride, dilation):
  x, offset, mask, kernel, bias, _ = inputs(h=9, w=12, size=size, stride=stride)
  found = plain(x, 0 * offset, 0 * mask + 1, kernel, bias, stride=stride, dilation=dilation)
  np.testing.assert_allclose(found, convolution(x, kernel, stride, dilation) + bias, atol=1e-5)


def test_constant_offsets_shift_the_image():
  x, offset, mask, kernel, *_ = inputs(h=12, w=13)

  def displaced(dy, dx):
    return plain(x, 0 * offset + np.array([dy, dx], np.float32)[:, None, None], 0 * mask + 1, kernel)

  inside = np.s_[:, 4:-4, 4:-4]
  shifted = convolution(np.roll(x, (-2, 1), (1, 2)), kernel)
  np.testing.assert_allclose(displaced(2, -1)[inside], shifted[inside], atol=1e-5)
  assert jnp.abs(displaced(-1, 2) - shifted)[inside].max() > 0.1
  average = convolution((x + np.roll(x, -1, 2)) / 2, kernel)
  np.testing.assert_allclose(displaced(0, 0.5)[inside], average[inside], atol=1e-5)


def test_bfloat16_keeps_coordinates_and_sums_in_float32():
  x, *others = inputs(h=2, w=480, c=2, groups=1)
  x = np.sin(np.arange(480) / 3)[:, None] * np.ones_like(x)
  found, expected = ours(jnp.asarray(x, jnp.bfloat16), *others), oracle(x, *others)
  assert found['out'].dtype == found['dx'].dtype == jnp.bfloat16
  assert {found[name].dtype for name in RESULTS[2:]} == {jnp.dtype('float32')}
  for name in RESULTS:
    error = np.asarray(found[name], np.float64) - expected[name]
    # What it costs to round data and kernel to 8 bits. Rounded coordinates cost ten times as much.
    assert np.sqrt((error**2).mean() / (expected[name] ** 2).mean()) < 6e-3, name

  # 1440 reads of one pixel: in bfloat16 a sum of ones ends at 256.
  ones = jnp.ones((1, 3, 480, 1), jnp.bfloat16)
  offset = -np.stack(np.mgrid[:3, :480], axis=-1).astype(np.float32)[None, ..., None, None]
  found = ours(
    ones, offset, np.ones((1, 3, 480, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32), ones[0, 0, 0], ones
  )
  assert found['dx'][0, 0, 0, 0] == 1440 and found['dkernel'].item() == 1440


# 20 positions are two lines of 7, but no whole number of lines divides 11: single lines.
@pytest.mark.parametrize(('shape', 'count'), [(dict(n=2, h=6, w=7), 6), (dict(h=11, w=5), 11)])
def test_tiles_do_not_change_the_result(shape, count, monkeypatch):
  arrays = inputs(**shape)
  whole = ours(*arrays)
  monkeypatch.setattr(deform_conv, '_CPU_TILE', (20, 1))
  assert len(deform_conv._tiles(*arrays[1:3], 1, 20)[0]) == count
  assert_equal(ours(*arrays), whole)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='the limits are those of CPUs')
@pytest.mark.parametrize(('height', 'width', 'limit'), [(64, 64, 40e6), (270, 480, 0.6e9)])
def test_temporary_memory_of_forward_and_backward(height, width, limit):
  def loss(*args):
    return jnp.square(modulated_deform_conv2d(*args)).sum()

  places = (1, height, width, 9, 8)
  shapes = (1, height, width, 64), (1, height, width, 2, 9, 8), places, (3, 3, 64, 64), (64,)
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  compiled = jax.jit(jax.grad(loss, range(5))).lower(*arrays).compile()
  assert 1e6 < compiled.memory_analysis().temp_size_in_bytes < limit


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_lowers_for_every_platform(dtype):
  def loss(x, *args):
    return modulated_deform_conv2d(x.astype(dtype), *args).astype(jnp.float32).sum()

  traced = jax.jit(jax.grad(loss, range(5))).trace(*inputs()[:5])
  assert traced.lower(lowering_platforms=('cpu', 'cuda', 'tpu')).as_text()


def test_what_is_made_for_a_gpu_on_a_cpu_works_on_all_taps_at_once():
  traced = jax.jit(modulated_deform_conv2d).trace(*inputs()[:5])
  columns = {'a tap': 'tensor<42x4xf32>', 'all taps': 'tensor<42x36xf32>'}
  for platform, expected in (('cpu', ['a tap']), ('cuda', ['all taps'])):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    products = ''.join(line for line in text.splitlines() if 'dot_general' in line)
    assert [name for name, shape in columns.items() if shape in products] == expected


def test_four_devices_give_the_gradients_of_one(monkeypatch):
  x, offset, mask, kernel, bias, gradient = inputs(n=4)
  monkeypatch.setattr(deform_conv, '_CPU_TILE', (21, 1))  # two tiles for each image
  batch = x, offset, mask, gradient

  def loss(parameters, x, offset, mask, gradient):
    out = jax.checkpoint(modulated_deform_conv2d)(x, offset, mask, *parameters)
    return (out * gradient).sum(), {}

  (_, _), expected = jax.jit(jax.value_and_grad(loss, has_aux=True))((kernel, bias), *batch)
  devices = jax.devices()[:4]
  mesh = parallel.batch_mesh(devices=devices)
  step = parallel.data_parallel(parallel.value_and_grad(loss), mesh)
  (_, _), means = step((kernel, bias), *parallel.put_batch(batch, mesh))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(len(devices) * a, b, rtol=1e-4, atol=1e-4), means, expected)

  # Without the cast of parameters to values per device that `parallel` makes, JAX sums over the devices.
  spec = PartitionSpec(parallel.AXIS)
  grads = jax.jit(
    jax.shard_map(
      jax.grad(lambda *args: loss(*args)[0], (0, 1, 2, 3)),
      mesh=mesh,
      in_specs=(PartitionSpec(), *[spec] * 4),
      out_specs=(PartitionSpec(), *[spec] * 3),
    )
  )((kernel, bias), *parallel.put_batch(batch, mesh))
  single = oracle(x, offset, mask, kernel, bias, gradient)
  found = dict(zip(RESULTS, (single['out'], *grads[1:], *grads[0]), strict=True))
  assert_equal(found, single)


def test_shapes_that_do_not_fit_are_errors_that_say_so():
  x, offset, mask, kernel, bias, _ = inputs()

  def check(message, **changes):
    args = dict(x=x, offset=offset, mask=mask, kernel=kernel, bias=bias) | changes
    with pytest.raises(ValueError, match=message):
      modulated_deform_conv2d(**args)

  check(r'x must be \(N, H, W, C\), got \(6, 7, 4\)', x=x[0])
  check(r"offset must be \(N, H', W', 2, K, G\), got \(1, 6, 7, 2, 18\)", offset=offset.reshape(1, 6, 7, 2, 18))
  check(r"offset must be \(N, H', W', 2, K, G\) .* stride 2 = \(1, 3, 4, 2, 9, 2\), got \(1, 6, 7, 2, 9, 2\)", stride=2)
  check(
    r"mask must be \(N, H', W', K, G\) like offset = \(1, 6, 7, 9, 2\), got \(1, 6, 7, 8, 2\)", mask=mask[..., 1:, :]
  )
  check(r'kernel must be \(kh, kw, C, O\) .* = \(3, 3, 4, 3\), got \(3, 3, 2, 3\)', kernel=kernel[:, :, 2:])
  check(r'kernel must be odd in height and width, got 2x3', kernel=kernel[1:])
  check(r'bias must be \(O,\) = \(3,\), got \(2,\)', bias=bias[1:])
  check(r'the 3 channels of x must divide into the 2 groups', x=x[..., 1:], kernel=kernel[:, :, 1:])


def layer(width=8, groups=2):
  return DeformConv(width, width, width, groups, label='here', rngs=nnx.Rngs(0))


@pytest.mark.parametrize(('width', 'count'), [(64, 161_560), (128, 396_632)])
def test_published_parameter_count(width, count):
  assert inference.count_params(nnx.eval_shape(lambda: layer(width, 8))) == count


def test_fresh_layer_is_half_a_convolution():
  deform, x = layer(), jax.random.normal(jax.random.key(0), (1, 6, 7, 8))
  np.testing.assert_allclose(nnx.jit(deform)(x, x), convolution(x, deform.kernel[...]) / 2, atol=1e-5)


def test_fresh_guide_learns_but_does_not_tell_its_features_yet():
  graphdef, params = nnx.split(layer())
  x, guide = jax.random.normal(jax.random.key(0), (2, 1, 6, 7, 8))

  @jax.jit
  def gradients(params, guide):
    return jax.grad(lambda p, g: jnp.square(nnx.merge(graphdef, p)(x, g)).sum(), (0, 1))(params, guide)

  grads, guide_gradient = gradients(params, guide)
  kernel = grads['guide']['kernel'][...]
  assert jnp.abs(kernel[..., :36]).max() > 0.1 and jnp.abs(kernel[..., 36:]).max() > 0.1  # offsets, masks
  np.testing.assert_array_equal(guide_gradient, jnp.zeros_like(guide))


def test_sizes_of_offsets_are_recorded_for_who_listens():
  deform, x = layer(), jax.random.normal(jax.random.key(0), (1, 6, 7, 8))
  deform.guide.bias[...] = jnp.full(54, -2.0).at[0].set(5)

  @nnx.jit
  def listen(deform, x):
    with diagnostics.recording() as found:
      deform(x, x)
    return found

  found = listen(deform, x)
  assert found.keys() == {'offset/here_mean', 'offset/here_max'}
  np.testing.assert_allclose(found['offset/here_max'], 5)
  np.testing.assert_allclose(found['offset/here_mean'], (5 + 35 * 2) / 36, rtol=1e-6)
