"""Initialisers of the published code bases, for kernels in HWIO order."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
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


# One entry of a kernel: input channel, output channel, row and column from the middle, weight.
Wire = tuple[int, int, int, int, float]


def wired(wires: Iterable[Wire]) -> Initializer:
  """Kernel with the given entries, beside a tenth of PyTorch's default in the output channels that have some.

  Other output channels start by default; wires of channels that the layer does not have are left out. With it a
  network at a quarter of the resolution starts with its centre frame, pixel for pixel, before the last convolution.
  PyTorch's default shrinks a signal to about a third in every layer: after front, alignment, fusion and attention too
  little of the picture is left to learn from.
  """
  wires = list(wires)

  def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    height, width, cin, cout = shape
    kernel = torch_kernel()(key, shape, dtype)
    fitting = [wire for wire in wires if wire[0] < cin and wire[1] < cout]
    if not fitting:
      return kernel
    sources, targets, rows, columns, weights = map(np.array, zip(*fitting, strict=True))
    kernel = kernel.at[..., np.unique(targets)].multiply(0.1)
    return kernel.at[height // 2 + rows, width // 2 + columns, sources, targets].add(weights)

  return init


def dirac(gain: float = 1.0, channels: Sequence[int] | None = None) -> Initializer:
  """Dirac kernel: output channel k starts as input channel `channels[k]` times `gain`, all in order when left out.

  Unlike `torch.nn.init.dirac_` it leaves a tenth of PyTorch's default beside, see `wired`.
  """

  def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    sources = range(shape[2]) if channels is None else channels
    return wired((source, target, 0, 0, gain) for target, source in enumerate(sources))(key, shape, dtype)

  return init


def kaiming(scale: float = 1.0) -> Initializer:
  """N(0, 2 / fan_in) times `scale` (He et al. 2015), as EDVR and ESRGAN initialise residual blocks with 0.1."""
  return scaled(variance_scaling(2.0, 'fan_in', 'normal'), scale)


class ParameterKeys:
  """Keys for constructors of hundreds of layers, in the place of `nnx.Rngs(seed)`: `params()` gives the next key.

  `nnx.Rngs` counts in an array, which makes tracing a constructor quadratic in the number of layers (15 s for GTQ). The
  generator is XLA's own ("rbg") rather than Threefry, whose compilation for every new shape takes CPUs longer than
  everything else at the start of a run. Values may differ between kinds of device.

  Args:
    seed: a number, or the generators of a caller, of which one key is drawn.
  """

  def __init__(self, seed: int | nnx.Rngs):
    if isinstance(seed, nnx.Rngs):
      self._key = jax.random.wrap_key_data(jax.random.bits(seed.params(), (4,), jnp.uint32), impl='rbg')
    else:
      self._key = jax.random.key(seed, impl='rbg')
    self._count = 0

  def params(self) -> jax.Array:
    """Return the next key."""
    self._count += 1
    return jax.random.fold_in(self._key, self._count - 1)
