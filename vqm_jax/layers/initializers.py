"""Initialisers of the published code bases, for kernels in HWIO order."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, variance_scaling


def torch_kernel() -> Initializer:
  """PyTorch's default convolution kernel: U(-b, b) with b = 1 / sqrt(fan_in)."""
  return variance_scaling(1 / 3, 'fan_in', 'uniform')


def torch_bias(fan_in: int) -> Initializer:
  """PyTorch's default convolution bias, U(-b, b) with b = 1 / sqrt(fan_in) and fan_in = cin * kh * kw."""

  def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

  return init


def icnr(base: Initializer, r: int) -> Initializer:
  """Kernel for a convolution before a pixel shuffle by `r`: shuffle(conv(x)) starts as nearest upsampling.

  (Aitken et al. 2017.) A base kernel with r*r fewer output channels is drawn, and each of its output channels is
  repeated r*r times in a row.
  """

  def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    kernel = base(key, (*shape[:-1], shape[-1] // (r * r)), dtype)
    return jnp.repeat(kernel, r * r, axis=-1)

  return init


def scaled(base: Initializer, scale: float) -> Initializer:
  """`base` times `scale`: the published networks shrink residual branches and last layers at the start."""
  return lambda key, shape, dtype=jnp.float32: scale * base(key, shape, dtype)


def passing(gain: float = 1.0, channels: Sequence[int] | None = None) -> Initializer:
  """Kernel whose output channel k is input channel `channels[k]` times `gain`, beside a tenth of PyTorch's default.

  All channels in their order when left out; output channels beyond them start as by default. Together with
  `unshuffling` it makes a network at a quarter of the resolution start with its centre frame, pixel for pixel, before
  the last convolutions. PyTorch's default shrinks a signal to about a third in every layer: after front, alignment,
  fusion and attention too little of the picture is left to learn from (denoising with five frames and 32 channels: no
  noise gone after 400 steps, with this start 13 to 26 % of its energy).
  """

  def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    height, width, cin, cout = shape
    sources = jnp.asarray(range(cin) if channels is None else channels)[:cout]
    targets = jnp.arange(len(sources))
    kernel = torch_kernel()(key, shape, dtype).at[..., targets].multiply(0.1)
    return kernel.at[height // 2, width // 2, sources, targets].add(gain)

  return init


def unshuffling(count: int) -> Initializer:
  """3x3 kernel of stride 2 that starts as `pixel_unshuffle` by 2 of the first `count` channels; see `passing`.

  Output channels beyond these 4 * `count` start by PyTorch's default; with fewer of them, fewer channels pass.
  """

  def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    kernel = torch_kernel()(key, shape, dtype)
    for target in range(min(4 * count, shape[-1])):
      channel, place = divmod(target, 4)
      kernel = kernel.at[..., target].multiply(0.1).at[1 + place // 2, 1 + place % 2, channel, target].add(1.0)
    return kernel

  return init


def kaiming(scale: float = 1.0) -> Initializer:
  """N(0, 2 / fan_in) times `scale` (He et al. 2015), as EDVR and ESRGAN initialise residual blocks with 0.1."""
  return scaled(variance_scaling(2.0, 'fan_in', 'normal'), scale)


class ParameterKeys:
  """What `nnx.Rngs(seed)` is to a constructor, for networks of hundreds of layers: `params()` gives the next key.

  `nnx.Rngs` counts in an array, which makes tracing a constructor quadratic in the number of layers (15 s for GTQ). The
  generator is XLA's own ("rbg") rather than Threefry, whose compilation for every new shape takes CPUs longer than
  everything else at the start of a run. Values may differ between kinds of device.
  """

  def __init__(self, seed: int):
    self._key, self._count = jax.random.key(seed, impl='rbg'), 0

  def params(self) -> jax.Array:
    self._count += 1
    return jax.random.fold_in(self._key, self._count - 1)
