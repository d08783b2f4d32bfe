"""DPE, the first baseline of Track 2 (NTIRE 2020 VQM, section 4.7): Deep Photo Enhancer, frame by frame.

A two-way GAN between source X and target Y (Chen et al., CVPR 2018), in the manner of CycleGAN:

    x ── generator ── y' ── clip ── inverse, path 1 ── x''      critic_y: y against y', x'' should be x
    y ── inverse ──── x' ── clip ── generator, path 1 ── y''    critic_x: x against x', y'' should be y

and y' should stay near x, x' near y. The generator is a U-Net with one global vector of the whole frame:

    frame ── e1 ── e2 ── e3 ── e4 ── e5 ──┬────────────── d1 ── [‖] ── d2 ── d3 ── d4 ── d5 ── d6 ── d7 ── d8 ──(+)
      │      │     │     │     │          │                      │           │     │     │     │                 │
      │      │     │     │     │          └─ resize ── g1 to g4 ─┘           │     │     │     │                 │
      │      │     │     │     └─────────────────────────────────────────────┘     │     │     │                 │
      │      │     │     └─────────────────────────────────────────────────────────┘     │     │                 │
      │      │     └─────────────────────────────────────────────────────────────────────┘     │                 │
      │      └─────────────────────────────────────────────────────────────────────────────────┘                 │
      └──────────────────────────────────────────────────────────────────────────────────────────────────────────┘

Individual batch normalisation: frames of a camera and frames that the other generator made have statistics, scales and
offsets of their own ("paths" 0 and 1), over the same kernels. The critics are Wasserstein critics with the linear,
one-sided penalty of `losses.gradient_penalty`, each under an adaptive weight of its own.

The report gives no sizes: layers, constants and weights are those of the authors' release. Both cameras' critics are
high on real frames here, while the release turns the sign of one; the game is the same. Deployed 3,335,395 parameters.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import he_normal, variance_scaling

from vqm_jax import errors, losses
from vqm_jax.enhancers.base import Enhancer, FrameGenerator, images, lrelu
from vqm_jax.layers.conv import SymmetricConv
from vqm_jax.layers.resample import nearest_up2

EPS = 1e-5


def selu(x: jax.Array) -> jax.Array:
  """c * (x, or below zero a * (exp(x) - 1)).

  The release takes values of a and c close to one, not those of Klambauer et al. (2017).
  """
  a, c = 1.0198755295894968, 1.0026538655307724
  return c * jnp.where(x >= 0, x, a * jnp.expm1(jnp.minimum(x, 0)))


# Starts small, so that generators start near the identity.
_conv = functools.partial(SymmetricConv, kernel_init=variance_scaling(1e-3, 'fan_in', 'truncated_normal'))


class IndividualBatchNorm(nnx.Module):
  """Batch normalisation with statistics, scales and offsets for two kinds of input, the paths 0 and 1.

  Variances are biased, and running ones move by a tenth towards the batch's.

  Args:
    channels: C.
    axis_name: mesh axis over which the statistics of a batch are taken together.

  Call: x (B, H, W, C) -> same shape and dtype, float32 inside. `train` takes the statistics of the batch and moves the
  running ones of this path; otherwise the running ones are taken.
  """

  def __init__(self, channels: int, axis_name: str | None = None):
    self.scale = nnx.Param(jnp.ones((2, channels)))
    self.offset = nnx.Param(jnp.zeros((2, channels)))
    self.mean = nnx.BatchStat(jnp.zeros((2, channels)))
    self.var = nnx.BatchStat(jnp.ones((2, channels)))
    self.axis_name = axis_name

  def __call__(self, x: jax.Array, path: int, train: bool) -> jax.Array:
    y = x.astype(jnp.float32)
    if train:
      mean = self._mean(y)
      var = self._mean(jnp.square(y - mean))  # centred first: E[y^2] - E[y]^2 would lose its digits
      for running, batch in ((self.mean, mean), (self.var, var)):
        moved = 0.9 * running[path] + 0.1 * jax.lax.stop_gradient(batch)
        running[...] = running[...].at[path].set(moved)
    else:
      mean, var = self.mean[path], self.var[path]
    y = (y - mean) * (self.scale[path] * jax.lax.rsqrt(var + EPS)) + self.offset[path]
    return y.astype(x.dtype)

  def _mean(self, y: jax.Array) -> jax.Array:
    mean = y.mean((0, 1, 2))
    return mean if self.axis_name is None else jax.lax.pmean(mean, self.axis_name)


class InstanceNorm(nnx.Module):
  """Each channel of each image to mean 0 and variance 1, then scale and offset: x (B, H, W, C) -> same."""

  def __init__(self, channels: int):
    self.scale = nnx.Param(jnp.ones(channels))
    self.offset = nnx.Param(jnp.zeros(channels))

  def __call__(self, x: jax.Array) -> jax.Array:
    centred = x - x.mean((1, 2), keepdims=True)
    var = jnp.square(centred).mean((1, 2), keepdims=True)
    return centred * (self.scale[...] * jax.lax.rsqrt(var + EPS)) + self.offset[...]


class Generator(FrameGenerator):
  """U-Net with a global vector; convolution, then selu, then normalisation. Both paths: 3,338,115 parameters.

  The skips carry what the convolutions of the encoder gave, before selu and normalisation; both then act on the whole
  concatenation, so that a layer of the encoder is seen under two normalisations.

  Args:
    width: channels at full resolution; all others are multiples of it.
    global_size: side to which the features of a sixteenth of the resolution are brought before the global vector,
      a multiple of 4. 32 is that of frames of 512x512, which are left as they are.
    axis_name: see `IndividualBatchNorm`.
    dtype: compute dtype; parameters and normalisation stay float32.

  Raises:
    ConfigError: another `global_size`.
  """

  size_multiple = 16

  def __init__(
    self,
    width: int = 16,
    global_size: int = 32,
    axis_name: str | None = None,
    *,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    if global_size < 4 or global_size % 4:
      raise errors.ConfigError(f'system_args.global_size={global_size} must be a multiple of 4; DPE has 32.')
    w1, w2, w4, w8 = width, 2 * width, 4 * width, 8 * width

    def conv(*args, **kwargs):
      return _conv(*args, **kwargs, dtype=dtype, rngs=rngs)

    def norm(channels):
      return IndividualBatchNorm(channels, axis_name)

    self.encoder = nnx.List([conv(3, w1), conv(w1, w2, 5, 2), conv(w2, w4, 5, 2), conv(w4, w8, 5, 2)])  # e1 to e4
    self.encoder_norms = nnx.List([norm(w1), norm(w2), norm(w4), norm(w8)])
    self.e5, self.e5_norm = conv(w8, w8, 5, 2), norm(w8)
    self.g1, self.g1_norm = conv(w8, w8, 5, 2), norm(w8)
    self.g2, self.g2_norm = conv(w8, w8, 5, 2), norm(w8)
    self.g3 = conv(w8, w8, global_size // 4, padded=False)
    self.g4 = conv(w8, w8, 1)
    self.d1 = conv(w8, w8)
    self.d2, self.d2_norm = conv(2 * w8, w8, 1), norm(w8)
    self.decoder = nnx.List([conv(w8, w8), conv(w8 + w8, w8), conv(w8 + w4, w4), conv(w4 + w2, w2)])  # d3 to d6
    self.decoder_norms = nnx.List([norm(w8 + w8), norm(w8 + w4), norm(w4 + w2), norm(w2 + w1)])
    self.d7, self.d7_norm = conv(w2 + w1, w1), norm(w1)
    self.d8 = conv(w1, 3)
    self.global_size = global_size

  def enhance(self, frames: jax.Array) -> jax.Array:
    """Source frames (B, H, W, 3) -> frames as of the target camera, float32; every frame by itself."""
    return self.map(frames, path=0, train=False)

  def map(self, frames: jax.Array, path: int, train: bool) -> jax.Array:
    """Frames (B, H, W, 3) -> (B, H, W, 3) float32, not clipped.

    Args:
      frames: RGB in [0, 1].
      path: 0 for frames of a camera, 1 for generated ones.
      train: see `IndividualBatchNorm`.
    """

    def finish(x, norm):
      return norm(selu(x), path, train)

    x, skips = frames, []
    for layer, norm in zip(self.encoder, self.encoder_norms, strict=True):
      skips.append(layer(x))
      x = finish(skips[-1], norm)
    x = finish(self.e5(x), self.e5_norm)

    g = self._to_global_size(x)
    g = finish(self.g1(g), self.g1_norm)
    g = finish(self.g2(g), self.g2_norm)
    g = self.g4(selu(self.g3(g)))

    x = self.d1(x)
    x = finish(self.d2(jnp.concatenate([x, jnp.broadcast_to(g, x.shape)], axis=-1)), self.d2_norm)
    for layer, norm, skip in zip(self.decoder, self.decoder_norms, reversed(skips), strict=True):
      x = finish(jnp.concatenate([nearest_up2(layer(x)), skip], axis=-1), norm)
    x = finish(self.d7(x), self.d7_norm)
    return frames.astype(jnp.float32) + self.d8(x).astype(jnp.float32)

  def _to_global_size(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[0], self.global_size, self.global_size, x.shape[-1])
    return x if x.shape == shape else jax.image.resize(x.astype(jnp.float32), shape, 'linear').astype(x.dtype)


class Critic(nnx.Module):
  """How much an image looks like one of the camera: convolution, leaky ReLU, instance normalisation, six times.

  float32 always, for the sake of the penalty. 1,122,689 parameters at patch 512. Behind a mirrored border the norms
  leave of brightness, contrast and tint only what the leaky ReLUs tell: of an image of one colour nothing at all.

  Args:
    patch: side of the training crops. The last kernel spans what is left of them, so that it belongs to this size.
    width: channels at full resolution; all others are multiples of it.
    input_mean: subtracted from the images.
    norm: 'instance', or 'none', which starts with He's values in all layers but the last: small ones need a norm.

  Call: images (B, H, W, 3) -> (B,); real images should be high. H and W at least `patch`.

  Raises:
    ConfigError: a patch that is no multiple of 32, or 32, of which one place would be left to normalise: a constant.
  """

  def __init__(self, patch: int, width: int = 16, input_mean: float = 0.0, norm: str = 'instance', *, rngs: nnx.Rngs):
    if patch < 64 or patch % 32:
      raise errors.ConfigError(f'config.crop={patch} does not fit the critics of DPE; use a multiple of 32 from 64 on.')
    channels = (3, width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width)
    how = dict(dtype=jnp.float32, rngs=rngs)
    layer = _conv if norm == 'instance' else functools.partial(SymmetricConv, kernel_init=he_normal())
    self.layers = nnx.List(
      [
        layer(cin, cout, *((5, 2) if k else (3, 1)), **how)
        for k, (cin, cout) in enumerate(zip(channels[:-1], channels[1:], strict=True))
      ]
    )
    self.norms = nnx.List([InstanceNorm(cout) for cout in channels[1:]]) if norm == 'instance' else None
    self.last = _conv(channels[-1], 1, patch // 32, padded=False, **how)
    self.patch, self.input_mean = patch, input_mean

  def __call__(self, images: jax.Array) -> jax.Array:
    if min(images.shape[1:3]) < self.patch:
      raise ValueError(f'This critic takes images from {self.patch}x{self.patch} on, got {images.shape}.')
    x = images - self.input_mean
    for k, layer in enumerate(self.layers):
      x = lrelu(layer(x))
      if self.norms is not None:
        x = self.norms[k](x)
    return self.last(x).mean((1, 2, 3))


FAKE_MODES = ('eval', 'train')
CRITIC_NORMS = ('instance', 'none')


class DPE(Enhancer):
  """The two generators and two critics of DPE; see the top of this file.

  Generators lower -mean critic_y(y') - mean critic_x(x') + identity_weight * (identity + cycle_factor * cycle), all
  distances mean squared errors. Critics lower mean critic(fake) - mean critic(real) + weight * penalty.

  Args:
    generator_args: arguments of `Generator`, for both of them.
    patch: side of the training crops, a multiple of 32 from 64 on.
    axis_name: mesh axis over which batch statistics are taken together.
    dtype: compute dtype of the generators.
    critic_width: channels of the critics at full resolution.
    critic_mean: subtracted from the critics' images, 0 as released.
    critic_norm: 'instance', as released, or 'none', see `Critic`.
    identity_weight: 1000 * patch / 512 when left out. The published 1000 belongs to 512x512: what a critic of slope 1
      can tell apart grows with an image's side, a mean squared error does not.
    cycle_factor: how much heavier the cycle weighs.
    penalty: kind of `losses.gradient_penalty`. Bounds of the adaptive weight are made for 'one_sided'; the others keep
      `penalty_start` as their weight.
    penalty_start: first weight of both penalties.
    critic_fake_mode: whether the critics see frames generated with running statistics ('eval', as released) or with
      those of the batch ('train'). Running statistics move with the generators' updates alone.
    supervised: x and y are pairs, pixel by pixel, and the identity term draws y' to y and x' to x instead. The paper of
      DPE has a supervised variant of one direction; keeping both and all other terms is our reading.

  Raises:
    ConfigError: wrong `patch`, `penalty`, `critic_norm` or `critic_fake_mode`.
  """

  critics = ('critic_y', 'critic_x')

  def __init__(
    self,
    generator_args: dict,
    *,
    patch: int,
    axis_name: str | None = None,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
    critic_width: int = 16,
    critic_mean: float = 0.0,
    critic_norm: str = 'instance',
    identity_weight: float | None = None,
    cycle_factor: float = 10.0,
    penalty: str = 'one_sided',
    penalty_start: float = 10.0,
    critic_fake_mode: str = 'eval',
    supervised: bool = False,
  ):
    if penalty not in losses.PENALTIES:
      raise errors.ConfigError(
        f'loss_args.penalty={penalty!r} is unknown; choose one of {", ".join(losses.PENALTIES)}.'
      )
    if critic_fake_mode not in FAKE_MODES:
      raise errors.ConfigError(
        f'loss_args.critic_fake_mode={critic_fake_mode!r} is unknown; choose one of {", ".join(FAKE_MODES)}.'
      )
    if critic_norm not in CRITIC_NORMS:
      raise errors.ConfigError(
        f'loss_args.critic_norm={critic_norm!r} is unknown; choose one of {", ".join(CRITIC_NORMS)}.'
      )
    self.critic_y = Critic(patch, critic_width, critic_mean, critic_norm, rngs=rngs)
    self.critic_x = Critic(patch, critic_width, critic_mean, critic_norm, rngs=rngs)
    self.generator = Generator(**generator_args, axis_name=axis_name, dtype=dtype, rngs=rngs)
    self.inverse = Generator(**generator_args, axis_name=axis_name, dtype=dtype, rngs=rngs)
    self.identity_weight = 1000 * patch / 512 if identity_weight is None else identity_weight
    self.cycle_factor = cycle_factor
    self.penalty = penalty
    self.penalty_start = penalty_start
    self.critic_fake_mode = critic_fake_mode
    self.supervised = supervised

  def generator_loss(self, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """See `Enhancer`; T = 1, nothing is random. Terms: adversarial (as it is lowered), identity, cycle."""
    x, y = _single_frames(x), _single_frames(y)
    y1 = self.generator.map(x, path=0, train=True)
    x1 = self.inverse.map(y, path=0, train=True)
    x2 = self.inverse.map(jnp.clip(y1, 0, 1), path=1, train=True)
    y2 = self.generator.map(jnp.clip(x1, 0, 1), path=1, train=True)
    adversarial = -self.critic_y(y1).mean() - self.critic_x(x1).mean()
    near_y1, near_x1 = (y, x) if self.supervised else (x, y)
    identity = losses.l2(y1, near_y1) + losses.l2(x1, near_x1)
    cycle = losses.l2(x2, x) + losses.l2(y2, y)
    loss = adversarial + self.identity_weight * (identity + self.cycle_factor * cycle)
    return loss, {'adversarial': adversarial, 'identity': identity, 'cycle': cycle}

  def critic_loss(
    self, x: jax.Array, y: jax.Array, keys: jax.Array, weights: dict[str, jax.Array]
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
    """See `Enhancer`; T = 1. Scalars, for each critic: '<critic>', its part of the loss, '_gap' and '_penalty'."""
    x, y = _single_frames(x), _single_frames(y)
    games = {'critic_y': (y, self._fake(self.generator, x)), 'critic_x': (x, self._fake(self.inverse, y))}
    scalars, penalties = {}, {}
    for k, (name, (real, fake)) in enumerate(games.items()):
      critic = getattr(self, name)
      on_real, on_fake = jnp.split(critic(jnp.concatenate([real, fake])), 2)
      gap = on_real.mean() - on_fake.mean()
      own_keys = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys)
      penalty = losses.gradient_penalty(critic, real, fake, own_keys, self.penalty)
      penalties[name] = penalty
      scalars |= {name: weights[name] * penalty - gap, f'{name}_gap': gap, f'{name}_penalty': penalty}
    return scalars['critic_y'] + scalars['critic_x'], (scalars, penalties)

  def _fake(self, generator: Generator, frames: jax.Array) -> jax.Array:
    train = self.critic_fake_mode == 'train'
    if train:
      generator = nnx.clone(generator)  # with whose running statistics nothing happens
    return jax.lax.stop_gradient(generator.map(frames, path=0, train=train))

  def adaptive_weights(self) -> dict[str, losses.AdaptiveWeight]:
    if self.penalty == 'one_sided':
      weight = losses.AdaptiveWeight(self.penalty_start)
    else:
      weight = losses.AdaptiveWeight(self.penalty_start, upper=float('inf'), allow_decrease=False)
    return dict.fromkeys(self.critics, weight)


def _single_frames(clips: jax.Array) -> jax.Array:
  if clips.ndim != 5 or clips.shape[1] != 1:
    raise errors.ConfigError(
      f'DPE learns from single frames, clips (B, 1, H, W, 3), got {clips.shape}; set config.num_frames to 1.'
    )
  return images(clips)
