"""WESPE (NTIRE 2020 VQM, section 4.8; Ignatov et al. 2018): unpaired enhancement of frames by two discriminators.

    x ── generator ── G(x) ── inverse ── F(G(x))
    │                  │                    │
    │                  ├── blur ── colour discriminator ── looks like a blurred y?
    │                  ├── luma ── texture discriminator ── looks like the luma of a y?
    │                  └── total variation      │
    └───────── relu5_4 of VGG-19 ── equal? ─────┘

    generator: 9x9 conv, relu ── 4 x [conv, norm, relu, conv, norm, relu](+) ── 2 x [3x3 conv, relu] ── 9x9 conv, tanh

The content that the generator must keep is what the inverse can bring back: x and F(G(x)) are compared, never G(x) and
y, which show different things. Layers, norms and starting values are those of the same authors' released DPED code,
whose networks WESPE takes over; "sigma = 3" of the blur has three readings, see `layers.blur`. Weights of the terms,
and softplus where DPED's generator maximises its discriminator's loss, follow the public re-implementations. We add:
the blur mirrors the border rather than darken it, `content_loss='pixel'` compares x and F(G(x)) pixel by pixel where
there are no VGG-19 weights, and means and norms can be changed for short runs (`input_mean`, `critic_mean`,
`critic_norm`): with DPED's norms, a discriminator of a few hundred updates does not see colours. Parameters: generator
and inverse 401,475 each, discriminators 7,371,713 (colour) and 7,360,097 (texture) for patches of 100. Attributes and
fields are called critics, as those of all methods: the loop knows one word.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import constant, he_normal, truncated_normal

from vqm_jax import errors, losses, perceptual
from vqm_jax.enhancers.base import Enhancer, FrameGenerator, Frozen, images, lrelu, luma
from vqm_jax.layers import blur as gaussian
from vqm_jax.layers.conv import conv

CONTENT_WEIGHTS = {'vgg19': 1.0, 'pixel': 10.0}
CRITIC_NORMS = ('instance', 'none')

_INIT = dict(kernel_init=truncated_normal(0.01), bias_init=constant(0.01))


def _norm(width, *, dtype, rngs) -> nnx.InstanceNorm:
  """Every sample and channel to mean 0 and variance 1 over H and W, then a trained scale and offset."""
  return nnx.InstanceNorm(width, epsilon=1e-3, use_fast_variance=False, dtype=dtype, rngs=rngs)


class ResidualBlock(nnx.Module):
  """x + relu(norm(conv(relu(norm(conv(x)))))): the last ReLU comes before the sum. x (B, H, W, width) -> same.

  The norms cancel what the convolutions' biases add. These stay, as in the published parameter count.
  """

  def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.convs = nnx.List([conv(width, width, **_INIT, **how) for _ in range(2)])
    self.norms = nnx.List([_norm(width, **how) for _ in range(2)])

  def __call__(self, x: jax.Array) -> jax.Array:
    residual = x
    for layer, norm in zip(self.convs, self.norms, strict=True):
      residual = jax.nn.relu(norm(layer(residual)))
    return x + residual


class Generator(FrameGenerator):
  """Maps frames of any size; norms take their statistics from the frame that is mapped.

  Args:
    width: channels.
    num_blocks: residual blocks.
    residual: whether the frame is added to the output, in the place of 0.5. Not published: a generator that starts as
      the identity gets somewhere in minutes.
    input_mean: subtracted from what the convolutions see, 0 as published. Pixels in [0, 1] are all positive: Adam moves
      a kernel's weights in step, and the output's mean colour shakes from update to update.
    dtype: compute dtype; parameters and statistics stay float32.

  Call: clip (B, 1, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32 in [-0.08, 1.08], unless it is residual.
  """

  size_multiple = 1

  def __init__(
    self,
    width: int = 64,
    num_blocks: int = 4,
    residual: bool = False,
    input_mean: float = 0.0,
    *,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    how = dict(dtype=dtype, rngs=rngs)
    # Of three channels, 9x9 and on CPUs, XLA's kernel gradient is faster than that of `conv`, and compiles sooner.
    self.head = nnx.Conv(3, width, (9, 9), padding='SAME', **_INIT, **how)
    self.blocks = nnx.List([ResidualBlock(width, **how) for _ in range(num_blocks)])
    self.body_end = nnx.List([conv(width, width, **_INIT, **how) for _ in range(2)])
    self.tail = conv(width, 3, 9, **_INIT, **how)
    self.residual, self.input_mean = residual, input_mean

  def enhance(self, frames: jax.Array) -> jax.Array:
    """(B, H, W, 3) -> same."""
    h = jax.nn.relu(self.head(frames - self.input_mean))
    for block in self.blocks:
      h = block(h)
    for layer in self.body_end:
      h = jax.nn.relu(layer(h))
    # A little beyond [0, 1], so that black and white are within reach of tanh.
    out = 0.58 * jnp.tanh(self.tail(h).astype(jnp.float32))
    return out + (frames.astype(jnp.float32) if self.residual else 0.5)


class Discriminator(nnx.Module):
  """Tells target images from generated ones, by patches of one size that its dense layers are tied to.

      100 ── 11x11 /4 ── 25 ── 5x5 /2 ── 13 ── 3x3 ── 13 ── 3x3 ── 13 ── 3x3 /2 ── 7 ── dense ── dense ── logit

  Leaky ReLU (0.2) after all layers but the last, then a norm after all convolutions but the first. Padding is
  TensorFlow's: at strides 4 and 2 one pixel more at the bottom right where the sum is odd.

  The norms leave of brightness, contrast and tint what the leaky ReLUs before them and the zeros around the image tell.
  Where all pixels are positive that is next to nothing.

  Args:
    channels: of the images.
    patch: their side, at least `LEAST_PATCH`.
    width: factor on the published numbers of channels.
    input_mean: subtracted from the images.
    norm: 'instance', or 'none', which starts with He's values in all layers but the last: small ones need a norm.
    dtype: compute dtype; parameters and statistics stay float32.

  Call: images (B, patch, patch, channels) -> logits (B,) float32, high for images of the target.
  """

  # One pixel less, and the last norm sees a single pixel, of which it leaves nothing.
  LEAST_PATCH = 17

  def __init__(
    self,
    channels: int,
    patch: int,
    width: float = 1.0,
    input_mean: float = 0.0,
    norm: str = 'instance',
    *,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    how = dict(dtype=dtype, rngs=rngs)
    start = _INIT if norm == 'instance' else dict(kernel_init=he_normal())
    # cout, kernel, stride
    layers = [(48, 11, 4), (128, 5, 2), (192, 3, 1), (192, 3, 1), (128, 3, 2)]
    sizes = [channels, *(max(1, round(width * cout)) for cout, _, _ in layers)]
    self.convs = nnx.List(
      [
        nnx.Conv(cin, cout, (size, size), strides=stride, padding='SAME', **start, **how)
        for cin, cout, (_, size, stride) in zip(sizes[:-1], sizes[1:], layers, strict=True)
      ]
    )
    self.norms = nnx.List([_norm(cout, **how) for cout in sizes[2:]]) if norm == 'instance' else None
    side = math.ceil(patch / math.prod(stride for _, _, stride in layers))
    hidden = max(1, round(width * 1024))
    self.hidden = nnx.Linear(side * side * sizes[-1], hidden, **start, **how)
    self.logit = nnx.Linear(hidden, 1, **_INIT, **how)
    self.image_shape, self.input_mean = (patch, patch, channels), input_mean

  def __call__(self, images: jax.Array) -> jax.Array:
    if images.shape[1:] != self.image_shape:
      expected = ', '.join(map(str, self.image_shape))
      raise ValueError(f'This discriminator takes images (B, {expected}), got {images.shape}.')
    h = images - self.input_mean
    for k, layer in enumerate(self.convs):
      h = lrelu(layer(h))
      if k and self.norms is not None:
        h = self.norms[k - 1](h)
    h = lrelu(self.hidden(h.reshape(len(h), -1)))
    return self.logit(h)[:, 0].astype(jnp.float32)


class VGG19(nnx.Module):
  """relu5_4 of VGG-19 with weights from elsewhere: images (B, H, W, 3) in [0, 1] -> (B, H // 16, W // 16, 512)."""

  def __init__(self, weights: perceptual.Weights):
    self.layers = nnx.Dict()
    for name, array in weights.arrays.items():
      layer, part = name.split('/')
      if layer not in self.layers:
        self.layers[layer] = nnx.Dict()
      self.layers[layer][part] = Frozen(array)

  def __call__(self, images: jax.Array) -> jax.Array:
    arrays = {f'{layer}/{part}': v[...] for layer, parts in self.layers.items() for part, v in parts.items()}
    (features,) = perceptual.features(perceptual.Weights('vgg19', arrays, None), images, ('relu5_4',))
    return features


class WESPE(Enhancer):
  """The players and losses; losses take single frames of the discriminators' patch size, (B, 1, patch, patch, 3).

  Args:
    generator_args: of `Generator`, for generator and inverse.
    patch: side of the training crops.
    axis_name: not needed, no statistics are taken over the batch.
    dtype: compute dtype of generator, inverse and discriminators; losses, blur and VGG-19 stay float32.
    critic_width: factor on the discriminators' published numbers of channels.
    critic_mean: subtracted from the discriminators' images, 0 as published.
    critic_norm: 'instance', as published, or 'none', see `Discriminator`.
    content_loss: 'vgg19', mean squared difference of its features, or 'pixel', that of the pixels.
    content_weight: that of CONTENT_WEIGHTS when left out.
    colour_weight, texture_weight, tv_weight: of the generator's other terms.
    blur: what the colour discriminator's images are blurred by, see `layers.blur`.
    perceptual_dir: folder of the converted VGG-19 weights; '' is the usual one, see `perceptual.path_of`.
    allow_random: for tests: random weights where there are none. No flag or config may set it.

  Raises:
    ConfigError: an argument is out of range, or `patch` too small for the discriminators.
    MissingWeightsError, DataError: VGG-19's weights are not there, or damaged, or another network's.
  """

  critics = ('colour_critic', 'texture_critic')

  def __init__(
    self,
    generator_args: dict,
    *,
    patch: int,
    axis_name: str | None = None,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
    critic_width: float = 1.0,
    critic_mean: float = 0.0,
    critic_norm: str = 'instance',
    content_loss: str = 'vgg19',
    content_weight: float | None = None,
    colour_weight: float = 5e-3,
    texture_weight: float = 5e-3,
    tv_weight: float = 10.0,
    blur: str = 'dped',
    perceptual_dir: str = '',
    allow_random: bool = False,
  ):
    del axis_name
    _expect('content_loss', content_loss, content_loss in CONTENT_WEIGHTS, f'one of {", ".join(CONTENT_WEIGHTS)}')
    if content_weight is None:
      content_weight = CONTENT_WEIGHTS[content_loss]
    weights = dict(content=content_weight, colour=colour_weight, texture=texture_weight, tv=tv_weight)
    for term, weight in weights.items():
      _expect(f'{term}_weight', weight, 0 <= weight < math.inf, 'a number of at least 0')
    _expect('blur', blur, blur in gaussian.BLURS, f'one of {", ".join(gaussian.BLURS)}')
    _expect('critic_width', critic_width, 0 < critic_width < math.inf, 'a number above 0')
    _expect('critic_norm', critic_norm, critic_norm in CRITIC_NORMS, f'one of {", ".join(CRITIC_NORMS)}')
    if patch < Discriminator.LEAST_PATCH:
      least = Discriminator.LEAST_PATCH
      raise errors.ConfigError(
        f"config.crop={patch} is too small for WESPE's discriminators; expected {least} or more (published 100)."
      )
    # First of all players: who lacks the weights should know at once.
    features = _load_vgg19(perceptual_dir, allow_random) if content_loss == 'vgg19' else None
    self.vgg19 = VGG19(features) if features else None
    how = dict(dtype=dtype, rngs=rngs)
    self.generator = Generator(**generator_args, **how)
    self.inverse = Generator(**generator_args, **how)
    self.colour_critic = Discriminator(3, patch, critic_width, critic_mean, critic_norm, **how)
    self.texture_critic = Discriminator(1, patch, critic_width, critic_mean, critic_norm, **how)
    self.patch, self.blur = patch, blur
    self.term_weights = tuple(weights.items())

  def critic_inputs(self, images: jax.Array) -> dict[str, jax.Array]:
    """Split images (B, H, W, 3) for the two: their colours without texture, and their texture without colour."""
    return {'colour': gaussian.blur(images, self.blur), 'texture': luma(images)}

  def generator_loss(self, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """See `Enhancer`; the terms are content, tv, colour and texture."""
    del keys
    x, _ = self._images(x, y)
    enhanced = self.generator.enhance(x)
    restored = self.inverse.enhance(enhanced)
    described = (self.vgg19(restored), self.vgg19(x)) if self.vgg19 else (restored, x)
    terms = {'content': losses.l2(*described), 'tv': losses.total_variation(enhanced)}
    for name, seen in self.critic_inputs(enhanced).items():
      terms[name] = jax.nn.softplus(-self._critic(name)(seen)).mean()
    return sum(weight * terms[name] for name, weight in self.term_weights), terms

  def critic_loss(
    self, x: jax.Array, y: jax.Array, keys: jax.Array, weights: dict[str, jax.Array]
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
    """See `Enhancer`; the sum of the discriminators' cross-entropies, each with real and generated images by halves."""
    del keys, weights
    x, y = self._images(x, y)
    enhanced = jax.lax.stop_gradient(self.generator.enhance(x))
    loss, logged = 0.0, {}
    for name, seen in self.critic_inputs(jnp.concatenate([y, enhanced])).items():
      real, generated = jnp.split(self._critic(name)(seen), 2)
      term = 0.5 * jax.nn.softplus(-real).mean() + 0.5 * jax.nn.softplus(generated).mean()
      loss += term
      logged |= {f'{name}_critic': term, f'{name}_critic_gap': real.mean() - generated.mean()}
    return loss, (logged, {})

  def _critic(self, name: str) -> Discriminator:
    return getattr(self, f'{name}_critic')

  def _images(self, *clips: jax.Array) -> list[jax.Array]:
    for name, clip in zip('xy', clips, strict=True):
      if clip.shape[1:] != (1, self.patch, self.patch, 3):
        raise ValueError(
          f'WESPE is trained on single frames, cropped to the patch of its discriminators: expected {name} '
          f'(B, 1, {self.patch}, {self.patch}, 3), got {clip.shape}.'
        )
    return [images(clip) for clip in clips]


def _load_vgg19(perceptual_dir: str, allow_random: bool) -> perceptual.Weights:
  return perceptual.load(
    'vgg19',
    perceptual_dir or None,
    needed_by="WESPE's content loss",
    setting='--config.loss_args.perceptual_dir',
    instead='--config.loss_args.content_loss=pixel',
    allow_random=allow_random,
  )


def _expect(field: str, value: object, fits: bool, allowed: str) -> None:
  if not fits:
    raise errors.ConfigError(f'loss_args.{field}={value!r} is not {allowed}.')
