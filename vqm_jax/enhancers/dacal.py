"""DACAL (Huang et al. 2019; NTIRE 2020 VQM, section 4.9): divide-and-conquer adversarial learning, on video.

A re-design from the abstract and from the same group's sliced Wasserstein models (Wu et al. 2019): neither code nor a
description of the layers was to be had. It may differ strongly from the original. Documented are the three divisions,
that the generator is recurrent, and training from coarse to fine scales; all that fills them is ours:

    perception   an additive and a multiplicative component     maps M and A of full size: output = x * M + A
    frequency    low and high band, learned separately          a Gaussian blur and what it takes away, a critic each
    dimension    one-dimensional marginals                      512 learned, orthogonal projections in each critic
    video        an efficient recurrent design                  a state at a quarter of the size, a loss on M and A

The generator is a U-Net; steps down halve the size and steps up double it:

    frames ── e1 ────────────────────────────────────────────────────────────────────────────── ‖ ─┬─ m1 ── m2 ── M
              └─ e2 ───────────────────────────────────────────────────────────────── ‖ ── d6 ──┘  └─ a1 ── a2 ── A
                 └─ e3 ── ‖ ── rf ───────────────────────────────────────── ‖ ── d5 ──┘
                 last h ──┘    ├─ rh ── h
                               └─ e4 ──────────────────────────── ‖ ── d4 ──┘
                                  └─ e5 ─┬─ d1 ── ‖ ── d2 ── d3 ──┘
                                         └─ gl ───┘

`frames` are the frame, the one before it and the output for that one, `gl` a mean over the frame and two dense layers.
No normalisation, so no statistics that flicker, and no optical flow. M and A start at 1 and 0, so that a fresh network
is the identity. 1,355,638 parameters, and 751,424 in each critic.

Left out: the sliced Wasserstein models' second penalty, on the slopes of the one-dimensional functions, and losses on
warped frames and on deep features.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vqm_jax import errors, losses
from vqm_jax.enhancers.base import Enhancer, RecurrentGenerator, images, lrelu
from vqm_jax.layers.blur import BLURS, blur
from vqm_jax.layers.conv import SymmetricConv
from vqm_jax.layers.resample import nearest_up2

COMPONENTS = ('both', 'add', 'mul')
LOW_STRIDE = 4  # by which the low band is subsampled; what the blur 'paper' leaves would alias


def _require(holds: bool, text: str) -> None:
  if not holds:
    raise errors.ConfigError(f'{text}.')


_HE = nnx.initializers.he_normal()


class Generator(RecurrentGenerator):
  """Brightens, darkens and shifts every pixel by maps that know the past: output = x * M + A.

  M is in [1/4, 4] and A in [-0.5, 0.5]. The state of a clip is a dict of float32: 'source' and 'output', the last frame
  as it came and as it left, and 'hidden' (B, H / 4, W / 4, 4 * width). The output is clipped before it is fed back:
  unclipped, errors could grow over a long clip. Pad a clip once and keep the state; crop outputs alone.

  Args:
    width: channels at full resolution; all others are multiples of it.
    components: 'both', or for ablation 'add' (M = 1) or 'mul' (A = 0).
    dtype: compute dtype; parameters stay float32.
  """

  size_multiple = 16

  def __init__(self, width: int = 16, components: str = 'both', *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
    known = ', '.join(COMPONENTS)
    _require(components in COMPONENTS, f'system_args.components={components!r} is unknown; choose one of {known}')
    self.width = width
    w1, w2, w4, w8 = width, 2 * width, 4 * width, 8 * width
    conv = functools.partial(SymmetricConv, kernel_init=_HE, dtype=dtype, rngs=rngs)
    last = functools.partial(conv, w1, 3, kernel_init=nnx.initializers.zeros)
    dense = functools.partial(nnx.Linear, kernel_init=_HE, dtype=dtype, rngs=rngs)
    self.e1 = conv(9, w1)
    self.e2 = conv(w1, w2, 5, 2)
    self.e3 = conv(w2, w4, 5, 2)
    self.rf = conv(w8, w4)
    self.rh = conv(w4, w4)
    self.e4 = conv(w4, w8, 5, 2)
    self.e5 = conv(w8, w8, 5, 2)
    self.gl1 = dense(w8, w8)
    self.gl2 = dense(w8, w8)
    self.d1 = conv(w8, w8)
    self.d2 = conv(2 * w8, w8, 1)
    self.d3 = conv(w8, w8)
    self.d4 = conv(2 * w8, w4)
    self.d5 = conv(w8, w2)
    self.d6 = conv(w4, w1)
    self.m1, self.m2 = (conv(w2, w1), last()) if components != 'add' else (None, None)
    self.a1, self.a2 = (conv(w2, w1), last()) if components != 'mul' else (None, None)

  def init_carry(self, frame: jax.Array) -> dict[str, jax.Array]:
    multiple = self.size_multiple
    if frame.ndim != 4 or frame.shape[3] != 3 or frame.shape[1] % multiple or frame.shape[2] % multiple:
      raise ValueError(
        f'DACAL takes RGB frames (B, H, W, 3) with H and W multiples of {multiple}, got {frame.shape}; pad the clip '
        'once at the bottom right, then crop outputs, never the state.'
      )
    frame = frame.astype(jnp.float32)
    none = jnp.zeros_like(frame[:, ::4, ::4, :1])  # derived from the frame: under shard_map it varies as the frame does
    hidden = jnp.broadcast_to(none, (*none.shape[:3], 4 * self.width))
    return {'source': frame, 'output': jnp.clip(frame, 0, 1), 'hidden': hidden}

  def step(self, carry: dict[str, jax.Array], frame: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    return self.components_of(carry, frame)[:2]

  def sequence(self, frames: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whole clips from the start of a scene: (B, T, H, W, 3) -> outputs, M and A, each of this shape.

    Unrolled: XLA's gradients of convolutions inside a loop are many times slower on CPUs.
    """
    carry, found = self.init_carry(frames[:, 0]), []
    for frame in jnp.unstack(frames, axis=1):
      carry, *maps = self.components_of(carry, frame)
      found.append(maps)
    outputs, multipliers, offsets = (jnp.stack(parts, axis=1) for parts in zip(*found, strict=True))
    return outputs, multipliers, offsets

  def components_of(
    self, carry: dict[str, jax.Array], frame: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array, jax.Array, jax.Array]:
    """Compute `step`: the next state, the output, and the M and A that it is made of, (B, H, W, 3) float32."""
    frame = frame.astype(jnp.float32)
    e1 = lrelu(self.e1(_join(frame, carry['source'], carry['output'])))
    e2 = lrelu(self.e2(e1))
    e3 = lrelu(self.e3(e2))
    f = lrelu(self.rf(_join(e3, carry['hidden'].astype(e3.dtype))))
    e4 = lrelu(self.e4(f))
    e5 = lrelu(self.e5(e4))
    overall = self.gl2(lrelu(self.gl1(e5.mean((1, 2)))))[:, None, None]
    d1 = self.d1(e5)
    d2 = lrelu(self.d2(_join(d1, jnp.broadcast_to(overall, d1.shape))))
    d3 = nearest_up2(lrelu(self.d3(d2)))
    d4 = nearest_up2(lrelu(self.d4(_join(d3, e4))))
    d5 = nearest_up2(lrelu(self.d5(_join(d4, f))))
    d6 = _join(nearest_up2(lrelu(self.d6(_join(d5, e2)))), e1)

    multiplier, offset = jnp.ones_like(frame), jnp.zeros_like(frame)
    if self.m1 is not None:
      multiplier = jnp.exp(math.log(4) * jnp.tanh(self.m2(lrelu(self.m1(d6))).astype(jnp.float32)))
    if self.a1 is not None:
      offset = 0.5 * jnp.tanh(self.a2(lrelu(self.a1(d6))).astype(jnp.float32))
    output = frame * multiplier + offset
    hidden = jnp.tanh(self.rh(f).astype(jnp.float32))
    return {'source': frame, 'output': jnp.clip(output, 0, 1), 'hidden': hidden}, output, multiplier, offset


def _join(*parts: jax.Array) -> jax.Array:
  return jnp.concatenate(parts, axis=-1)


def qf(matrices: jax.Array) -> jax.Array:
  """The orthogonal factors of (..., d, d): Q of QR with R's diagonal positive, which makes it unique.

  Plain QR flips columns, a random half of them even of an orthogonal matrix; what was learned for a projection would
  then meet its negative.
  """
  q, r = jnp.linalg.qr(matrices)
  return q * jnp.where(jnp.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[..., None, :]


# Parameters of this name are orthogonal matrices (..., d, d).
PROJECTIONS = 'projections'


def stiefel(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """`optimizer`, but the leaves called 'projections' stay orthogonal (Wu et al. 2019).

  It is given their Riemannian gradients g - W (W'g + g'W) / 2; where its step leads off the manifold, W goes to
  qf(W + step). All other leaves are its own business. `update` needs the parameters.
  """
  product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

  def along(gradient, w):
    inner = product(w.mT, gradient)
    return gradient - product(w, inner + inner.mT) / 2

  def on_projections(change, tree, params):
    named = jax.tree_util.DictKey(PROJECTIONS)
    return jax.tree_util.tree_map_with_path(lambda path, x, w: change(x, w) if named in path else x, tree, params)

  def update(gradients, state, params, **rate):
    updates, state = optimizer.update(on_projections(along, gradients, params), state, params, **rate)
    return on_projections(lambda step, w: qf(w + step) - w, updates, params), state

  return optax.GradientTransformation(optimizer.init, update)


class SlicedHead(nnx.Module):
  """The mean of one-dimensional critics, each on a learned projection: leaky ReLU of scale * (W'f) + offset.

  Args:
    features: d, the length of f.
    projections: K, the number of orthogonal matrices W (d, d); K * d marginals in all.
    gain: factor on the mean. sqrt(K * d) starts with slopes near one.

  Call: (B, d) -> (B,), float32.
  """

  def __init__(self, features: int = 128, projections: int = 4, gain: float = 1.0, *, rngs: nnx.Rngs):
    self.projections = nnx.Param(qf(jax.random.normal(rngs.params(), (projections, features, features))))
    self.scale = nnx.Param(jnp.ones((projections, features)))
    self.offset = nnx.Param(jnp.zeros((projections, features)))
    self.gain = gain

  def __call__(self, f: jax.Array) -> jax.Array:
    marginals = jnp.einsum('bd,kde->bke', f, self.projections[...])
    return self.gain * lrelu(self.scale[...] * marginals + self.offset[...]).mean((1, 2))


class Critic(nnx.Module):
  """How much a band looks like the target camera's: four convolutions, their mean, and a `SlicedHead` on features.

  Args:
    width: channels of the first convolution; twice and four times as many follow.
    features: length of the vector that the head sees.
    projections: the number of orthogonal matrices of the head.
    gain: factor on the mean over its critics.

  Call: (B, H, W, 3) of any size -> (B,), float32.
  """

  def __init__(self, width: int = 32, features: int = 128, projections: int = 4, gain: float = 1.0, *, rngs: nnx.Rngs):
    channels = (3, width, 2 * width, 4 * width, 4 * width)
    self.convs = nnx.List(
      [SymmetricConv(*sides, 5, 2, kernel_init=_HE, rngs=rngs) for sides in itertools.pairwise(channels)]
    )
    self.dense = nnx.Linear(channels[-1], features, kernel_init=_HE, rngs=rngs)
    self.head = SlicedHead(features, projections, gain, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    for conv in self.convs:
      x = lrelu(conv(x))
    return self.head(self.dense(x.mean((1, 2))))


def temporal_change(x: jax.Array, multipliers: jax.Array, offsets: jax.Array) -> jax.Array:
  """How much M and A change from frame to frame where the source x does not; clips (B, T, H, W, 3), 0 for T = 1."""
  weight = jnp.exp(-50 * jnp.square(x[:, 1:] - x[:, :-1]).sum(-1, keepdims=True))
  change = sum(jnp.abs(maps[:, 1:] - maps[:, :-1]) for maps in (multipliers, offsets))
  return (weight * change).sum() / max(change.size, 1)


class DACAL(Enhancer):
  """The generator, a critic of the low band and one of the high band, as they are trained.

  The low critic sees a blurred frame at a quarter of the size, the high critic what the blur took away, with its
  penalty between bands, not frames. Frames of a clip are samples of their own; only the generator knows their order.

  Args:
    generator_args: of `Generator`.
    patch: side of the training crops.
    axis_name: unused, there are no batch statistics.
    dtype: compute dtype of the generator; critics are float32.
    critic_width: `width` of both critics.
    features: length of their features.
    marginals: one-dimensional critics of each head, a multiple of `features`.
    head_gain: `gain` of the heads.
    band_filter: the blur between the bands, `kind` of `layers.blur`.
    identity_weight: of the mean squared difference between source and output; 250 * patch / 512 when left out. It is a
      quarter of DPE's, because a colour shift moves the subsampled low critic a quarter as far.
    temporal_weight: of `temporal_change`.
    smoothness_weight: of the total variation of log M.
    penalty: kind of `losses.gradient_penalty`. The weight of 'one_sided' is steered; with 'zero', that of the sliced
      Wasserstein models, critics become flat and `identity_weight` should be about a hundredth.
    penalty_weight: of the other kinds, which are not steered.

  Raises:
    ConfigError: an argument is unknown or out of range.
  """

  critics = ('critic_low', 'critic_high')

  def __init__(
    self,
    generator_args: dict,
    *,
    patch: int,
    axis_name: str | None = None,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
    critic_width: int = 32,
    features: int = 128,
    marginals: int = 512,
    head_gain: float = 1.0,
    band_filter: str = 'dped',
    identity_weight: float | None = None,
    temporal_weight: float = 10.0,
    smoothness_weight: float = 0.1,
    penalty: str = 'one_sided',
    penalty_weight: float = 20.0,
  ):
    multiple = Generator.size_multiple
    _require(patch % multiple == 0, f'config.crop={patch} must be a multiple of {multiple}')
    _require(features > 0, f'loss_args.features={features} must be at least 1')
    _require(
      marginals > 0 and marginals % features == 0,
      f'loss_args.marginals={marginals} must be a multiple of the {features} features',
    )
    _require(
      band_filter in BLURS, f'loss_args.band_filter={band_filter!r} is unknown; choose one of {", ".join(BLURS)}'
    )
    kinds = losses.PENALTIES
    _require(penalty in kinds, f'loss_args.penalty={penalty!r} is unknown; choose one of {", ".join(kinds)}')
    self.generator = Generator(**generator_args, dtype=dtype, rngs=rngs)
    critic = functools.partial(Critic, critic_width, features, marginals // features, head_gain, rngs=rngs)
    self.critic_low, self.critic_high = critic(), critic()
    self.band_filter = band_filter
    self.identity_weight = 250 * patch / 512 if identity_weight is None else identity_weight
    self.temporal_weight, self.smoothness_weight = temporal_weight, smoothness_weight
    self.penalty, self.penalty_weight = penalty, penalty_weight

  def bands(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(..., H, W, 3) -> low and high band of this shape, whose sum it is."""
    low = blur(frames, self.band_filter)
    return low, frames - low

  def _seen(self, clips: jax.Array) -> dict[str, jax.Array]:
    """Cut clips (B, T, H, W, 3) into the bands that the critics see, of all frames (B * T, ...)."""
    low, high = self.bands(images(clips))
    return {'critic_low': low[:, ::LOW_STRIDE, ::LOW_STRIDE], 'critic_high': high}

  def generator_loss(self, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    outputs, multipliers, offsets = self.generator.sequence(x)
    seen = self._seen(outputs)
    terms = {
      'adversarial_low': -self.critic_low(seen['critic_low']).mean(),
      'adversarial_high': -self.critic_high(seen['critic_high']).mean(),
      'identity': losses.l2(outputs, x),
      'temporal': temporal_change(x, multipliers, offsets),
      'smoothness': losses.total_variation(jnp.log(multipliers)),
    }
    loss = (
      terms['adversarial_low']
      + terms['adversarial_high']
      + self.identity_weight * terms['identity']
      + self.temporal_weight * terms['temporal']
      + self.smoothness_weight * terms['smoothness']
    )
    return loss, terms

  def critic_loss(
    self, x: jax.Array, y: jax.Array, keys: jax.Array, weights: dict[str, jax.Array]
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
    outputs = jax.lax.stop_gradient(self.generator.sequence(x)[0])
    real, fake = self._seen(y), self._seen(outputs)
    # One key for every sample, critic and frame.
    keys = jax.vmap(lambda key: jax.random.split(key, (len(self.critics), x.shape[1])))(keys)
    scalars, penalties = {}, {}
    for k, name in enumerate(self.critics):
      critic = getattr(self, name)
      gap = critic(real[name]).mean() - critic(fake[name]).mean()
      penalty = losses.gradient_penalty(critic, real[name], fake[name], keys[:, k].reshape(-1), self.penalty)
      scalars[name] = weights.get(name, self.penalty_weight) * penalty - gap
      scalars[f'{name}_gap'], scalars[f'{name}_penalty'] = gap, penalty
      penalties[name] = penalty
    return sum(scalars[name] for name in self.critics), (scalars, {name: penalties[name] for name in weights})

  def adaptive_weights(self) -> dict[str, losses.AdaptiveWeight]:
    """One for each critic with the 'one_sided' penalty, the only one that the bounds are made for."""
    return {name: losses.AdaptiveWeight() for name in self.critics} if self.penalty == 'one_sided' else {}

  def critic_optimizer(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return stiefel(optimizer)
