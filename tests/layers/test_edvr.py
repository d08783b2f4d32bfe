"""The parts of EDVR: sizes, what alignment and fusion may depend on, and that alignment learns to align."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest
from flax import nnx

from vqm_jax.layers import conv as conv_module
from vqm_jax.layers import diagnostics, initializers
from vqm_jax.layers.conv import leaky_relu
from vqm_jax.layers.edvr import INPUT_MEAN, PCD, TSA, ConvFusion, PyramidFront, ShuffleTail
from vqm_jax.layers.resample import avg_pool3, bilinear_up2, max_pool3

FLOAT32 = dict(dtype=jnp.float32)


@pytest.mark.parametrize(
  ('part', 'args', 'params'),
  [
    (PyramidFront, (128, 5), 298_752 + 1_475_840 + 590_336),
    (PyramidFront, (64, 5), 75_648 + 369_280 + 147_712),
    (PCD, (64,), 1_384_288),
    (PCD, (128,), 4_537_184),
    (TSA, (64, 5), 324_416),
    (TSA, (128, 5), 1_296_000),
    (TSA, (128, 7), 1_361_536),
    (ConvFusion, (128, 5), 82_048),
    (ShuffleTail, (64,), 334_083),
    (ShuffleTail, (128,), 924_163),
  ],
)
def test_published_parameter_counts(part, args, params):
  assert networks.count(functools.partial(part, *args, **FLOAT32)) == params


def features(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def pyramid(frames, size=8, width=4):
  return [features(1, frames, size >> level, size >> level, width, seed=level) for level in range(3)]


def test_front_gives_three_scales():
  front = networks.random(functools.partial(PyramidFront, 4, 1, **FLOAT32))
  shapes = [level.shape for level in networks.apply(front, features(2, 32, 48, 3))]
  assert shapes == [(2, 8, 12, 4), (2, 4, 6, 4), (2, 2, 3, 4)]


def test_alignment_of_a_frame_depends_on_itself_and_the_centre_alone():
  align, levels = networks.random(functools.partial(PCD, 4, 2, **FLOAT32)), pyramid(5)
  out = networks.apply(align, levels)
  assert out.shape == levels[0].shape
  order = np.array([4, 0, 2, 1, 3])  # the centre stays
  permuted = networks.apply(align, [level[:, order] for level in levels])
  np.testing.assert_allclose(permuted, out[:, order], atol=1e-5)
  moved = networks.apply(align, [level.at[:, 2].add(1.0) for level in levels])
  assert (np.abs(moved - out).max(axis=(0, 2, 3, 4)) > 1e-3).all()


def joined(*features):
  return jnp.concatenate(features, axis=-1)


def test_alignment_doubles_coarse_offsets_and_activates_all_but_the_finest_features():
  align, levels = networks.random(functools.partial(PCD, 4, 2, **FLOAT32)), pyramid(3)
  n1, n2, n3 = (level[:, 0] for level in levels)
  r1, r2, r3 = (level[:, 1] for level in levels)
  first, second, third = align.levels
  act, up = leaky_relu, bilinear_up2

  @networks.quick_jit
  def by_definition():
    o3 = act(third.offset2(act(third.offset1(joined(n3, r3)))))
    o2 = act(second.offset_merge(joined(act(second.offset1(joined(n2, r2))), 2 * up(o3))))
    o2 = act(second.offset2(o2))
    o1 = act(first.offset_merge(joined(act(first.offset1(joined(n1, r1))), 2 * up(o2))))
    o1 = act(first.offset2(o1))
    f3 = act(third.warp(n3, o3))
    f2 = act(second.merge(joined(second.warp(n2, o2), up(f3))))
    f1 = first.merge(joined(first.warp(n1, o1), up(f2)))
    cascade = act(align.cascade2(act(align.cascade1(joined(f1, r1)))))
    return act(align.cascade_warp(f1, cascade))

  np.testing.assert_allclose(networks.apply(align, levels)[:, 0], by_definition(), atol=1e-5)


@pytest.mark.slow
def test_alignment_learns_to_undo_a_translation():
  """By one place at 1/4 of the resolution, four pixels, in both directions, so that no fixed convolution can."""
  width, size = 4, 12
  graphdef, params = nnx.split(PCD(width, 2, **FLOAT32, rngs=nnx.Rngs(0)))
  optimizer = optax.adam(1e-2)

  def scene(key):
    noise = jax.random.normal(key, (2, size + 6, size + 4, width))
    smooth = sum(noise[:, k : k + size + 2] for k in range(5)) / 5**0.5
    smooth = jnp.abs(sum(smooth[:, :, k : k + size + 2] for k in range(3)) / 3**0.5)
    ahead, centre, behind = (smooth[:, 1:-1, k : k + size] for k in range(3))
    finest = jnp.stack([ahead, centre, behind], axis=1)
    levels = [finest]
    for _ in range(2):
      b, t, h, w, c = levels[-1].shape
      levels.append(levels[-1].reshape(b, t, h // 2, 2, w // 2, 2, c).mean(axis=(3, 5)))
    return levels, centre

  def distance(frames, centre):
    return jnp.abs(frames[:, ::2] - centre[:, None]).mean()

  def loss(params, key):
    levels, centre = scene(key)
    with diagnostics.recording() as heard:
      aligned = nnx.merge(graphdef, params)(levels)
    return distance(aligned, centre), (heard, distance(levels[0], centre))

  @networks.quick_jit
  def step(params, state, key):
    (value, aside), gradient = jax.value_and_grad(loss, has_aux=True)(params, key)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value, aside

  state, values = optimizer.init(params), []
  for key in jax.random.split(jax.random.key(1), 140):
    params, state, value, (heard, unaligned) = step(params, state, key)
    values.append(float(value / unaligned))
  assert np.mean(values[-10:]) < 0.75  # with offsets held at zero, 0.8
  assert heard['offset/pcd_level1_mean'] > 0


def test_temporal_attention_ignores_the_order_of_the_neighbours():
  fusion = networks.random(functools.partial(TSA, 4, 3, **FLOAT32))
  aligned = features(2, 3, 8, 8, 4)
  out = networks.apply(fusion, aligned)
  assert out.shape == (2, 8, 8, 4)
  swapped = networks.apply(fusion, aligned[:, ::-1])
  assert np.abs(swapped - out).max() > 1e-3
  for layer in (fusion.fuse, fusion.spatial0):
    frame_by_frame = layer.kernel[...].reshape(1, 1, 3, 4, 4)
    layer.kernel[...] = frame_by_frame[:, :, ::-1].reshape(1, 1, 12, 4)
  np.testing.assert_allclose(networks.apply(fusion, aligned[:, ::-1]), out, atol=1e-5)


def test_temporal_weights_are_similarities_over_channels():
  fusion, aligned = networks.random(functools.partial(TSA, 4, 3, **FLOAT32)), features(2, 3, 8, 8, 4)
  weights = fusion.temporal_weights(aligned)
  centre, last = fusion.embed_centre(aligned[:, 1]), fusion.embed(aligned[:, 2])
  expected = jax.nn.sigmoid(jnp.einsum('bhwc,bhwc->bhw', centre, last))
  np.testing.assert_allclose(weights[:, 2, :, :, 0], expected, atol=1e-5)
  networks.silence(fusion.embed)
  np.testing.assert_array_equal(fusion.temporal_weights(aligned), np.full((2, 3, 8, 8, 1), 0.5))


def test_silent_spatial_attention_leaves_the_fused_features():
  fusion, aligned = networks.random(functools.partial(TSA, 4, 3, **FLOAT32)), features(2, 3, 8, 8, 4)
  networks.silence(fusion.up0_last)
  networks.silence(fusion.add2)
  weighted = aligned * fusion.temporal_weights(aligned)
  frame_by_frame = joined(*(weighted[:, t] for t in range(3)))
  np.testing.assert_allclose(networks.apply(fusion, aligned), leaky_relu(fusion.fuse(frame_by_frame)), atol=1e-5)


def test_spatial_attention_gates_and_adds_from_two_coarser_scales():
  fusion, aligned = networks.random(functools.partial(TSA, 4, 3, **FLOAT32)), features(2, 3, 8, 8, 4)
  act, up = leaky_relu, bilinear_up2

  def pooled(x):
    return joined(max_pool3(x), avg_pool3(x))

  @networks.quick_jit
  def by_definition():
    weighted = aligned * fusion.temporal_weights(aligned)
    weighted = joined(*(weighted[:, t] for t in range(3)))
    s1 = act(fusion.spatial1(pooled(act(fusion.spatial0(weighted)))))
    s2 = act(fusion.spatial2_last(act(fusion.spatial2_merge(pooled(act(fusion.spatial2_reduce(s1)))))))
    s0 = fusion.up0_last(up(act(fusion.up0_mix(act(fusion.up1(s1)) + up(s2)))))
    return act(fusion.fuse(weighted)) * 2 * jax.nn.sigmoid(s0) + fusion.add2(act(fusion.add1(s0)))

  np.testing.assert_allclose(networks.apply(fusion, aligned), by_definition(), atol=1e-5)


def test_plain_fusion_is_temporal_attention_without_attention():
  plain = networks.random(functools.partial(ConvFusion, 4, 3, **FLOAT32))
  aligned = features(2, 3, 8, 8, 4)
  frame_by_frame = joined(*(aligned[:, t] for t in range(3)))
  np.testing.assert_allclose(plain(aligned), leaky_relu(plain.fuse(frame_by_frame)), atol=1e-5)


def test_fresh_tail_adds_nothing_at_four_times_the_size():
  tail = ShuffleTail(16, **FLOAT32, rngs=nnx.Rngs(0))
  np.testing.assert_array_equal(tail(features(1, 4, 6, 16)), np.zeros((1, 16, 24, 3)))
  assert np.abs(tail.features(features(1, 4, 6, 16))).min(axis=(0, 1, 2)).max() > 0  # what it learns from is there


def test_front_sees_frames_without_their_mean():
  shifted, plain = (
    networks.random(functools.partial(PyramidFront, 4, 1, mean, **FLOAT32)) for mean in (INPUT_MEAN, 0.0)
  )
  frames = features(2, 32, 48, 3)
  for a, b in zip(networks.apply(shifted, frames), networks.apply(plain, frames - 0.5), strict=True):
    np.testing.assert_array_equal(a, b)


def detail(plane):
  """Four times what each pixel of (B, H, W) has over the mean of its 3x3, zeros outside."""
  height, width = plane.shape[1:]
  padded = np.pad(plane, ((0, 0), (1, 1), (1, 1)))
  return 4 * (plane - sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9)


@pytest.mark.slow
def test_networks_start_from_the_pixels_of_the_centre_frame(monkeypatch):
  """Without the random part the features before the last convolution hold the centre frame as it is."""
  width, frames, size = 48, 3, 16
  zeros = nnx.initializers.zeros_init()
  for module in (initializers, conv_module):
    monkeypatch.setattr(module, 'torch_kernel', lambda: zeros)
  monkeypatch.setattr(conv_module, 'torch_bias', lambda fan_in: zeros)
  front, align, tail = (
    make(rngs=nnx.Rngs(0), **FLOAT32)
    for make in (
      functools.partial(PyramidFront, width, 0), functools.partial(PCD, width, 4), functools.partial(ShuffleTail, width)
    )
  )  # fmt: skip
  clip = jax.random.uniform(jax.random.key(0), (1, frames, size, size, 3))
  levels = [level.reshape(1, frames, *level.shape[1:]) for level in networks.apply(front, clip[0])]
  aligned = networks.apply(align, levels)
  for make in (TSA, ConvFusion):
    fused = networks.apply(make(width, frames, rngs=nnx.Rngs(0), **FLOAT32), aligned)
    planes = networks.quick_jit(tail.features)(fused)[..., :6]
    brightness, *colours = jnp.moveaxis(
      planes[..., ::2] - planes[..., 1::2], -1, 0
    )  # what ReLUs took from one, or both
    red, green, blue = jnp.moveaxis(clip[:, frames // 2], -1, 0)
    np.testing.assert_allclose(brightness, detail((red + green + blue) / 3 - INPUT_MEAN), atol=1e-5)
    for colour, expected in zip(colours, (red - green, blue - green), strict=True):
      halves = expected.reshape(1, size // 2, 2, size // 2, 2).mean(axis=(2, 4))
      # Where both signs meet in a mean, each still holds a tenth of the other, from the first leaky ReLU.
      assert (np.abs(colour[:, ::2, ::2] - halves) <= 0.1 * np.abs(halves) + 1e-5).all()
      np.testing.assert_array_equal(colour[:, ::2, ::2], colour[:, 1::2, 1::2])


def test_other_output_channels_and_too_wide_starts_are_left_as_they_come():
  key, shape = jax.random.key(0), (3, 3, 4, 8)
  plain, wired = (make(key, shape) for make in (initializers.torch_kernel(), initializers.wired([(1, 2, 1, 0, 0.5)])))
  np.testing.assert_allclose(wired[..., 2], (0.1 * plain[..., 2]).at[2, 1, 1].add(0.5), rtol=1e-6)
  np.testing.assert_array_equal(np.delete(wired, 2, axis=-1), np.delete(plain, 2, axis=-1))
  np.testing.assert_array_equal(initializers.wired([(4, 0, 0, 0, 1.0), (0, 8, 0, 0, 1.0)])(key, shape), plain)
