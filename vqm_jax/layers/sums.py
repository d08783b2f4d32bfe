"""Convolutions whose input comes in parts, without the parts side by side: conv(a ‖ b) = conv_a(a) + conv_b(b).

This is exact in real arithmetic; conv_a and conv_b are the slices of one kernel. A part that several frames or several
layers share is then worked on once. Parts are rounded to the compute dtype one by one, as bfloat16 products are fast on
accelerators only where their results are bfloat16, and summed up in float32.
"""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers.cpu_convolution import convolution


def part_of(layer: nnx.Conv, x: jax.Array, first: int = 0) -> jax.Array:
  """Compute the share of x in `layer`'s output, without bias; its channels are the input's from channel `first` on.

  Args:
    layer: of `conv`, with stride and dilation 1.
    x: (..., H, W, channels).
    first: channel.

  Returns:
    (..., H, W, cout) in the layer's dtype.
  """
  return _convolve(layer.kernel[:, :, first : first + x.shape[-1]], x, layer.dtype)


def sum_of(layer: nnx.Conv, *parts: jax.Array) -> jax.Array:
  """The output of `layer` from its `part_of`s, (..., H, W, cout), whose leading axes are broadcast; float32 sums."""
  return (sum(part.astype(jnp.float32) for part in parts) + layer.bias[...]).astype(layer.dtype)


def conv_of_parts(layer: nnx.Conv, *parts: jax.Array) -> jax.Array:
  """layer(parts side by side): parts (..., H, W, c_k), whose leading axes are broadcast -> (..., H, W, cout)."""
  firsts = itertools.accumulate((x.shape[-1] for x in parts), initial=0)
  return sum_of(layer, *(part_of(layer, x, first) for x, first in zip(parts, firsts, strict=False)))


class Sums:
  """The outputs of layers that see more and more, taken one by one while the parts of their input become known.

  A part is convolved at once for all layers that are left.

  Args:
    layers: of `conv`, with stride and dilation 1, one kernel size and one dtype.
    kernels: of `wide_kernels`, where they were made before.
  """

  def __init__(self, layers: Sequence[nnx.Conv], kernels: Sequence[jax.Array] | None = None):
    self._layers = list(layers)
    self._kernels = kernels
    self._channels = 0
    self._pieces: list[list[jax.Array]] = []  # of each part: what it adds to every layer that is left

  def add(self, x: jax.Array) -> 'Sums':
    """The next channels of the input, (B, H, W, channels). Return itself."""
    kernel = self._kernels[len(self._pieces)] if self._kernels else _wide(self._layers, self._channels, x.shape[-1])
    self._channels += x.shape[-1]
    ends = itertools.accumulate(layer.out_features for layer in self._layers[:-1])
    self._pieces.append(jnp.split(_convolve(kernel, x, self._layers[0].dtype), list(ends), axis=-1))
    return self

  def take(self) -> jax.Array:
    """The output (B, H, W, cout) of the next layer, all of whose input was added."""
    layer = self._layers.pop(0)
    if self._channels != layer.in_features:
      raise ValueError(f'a layer of {layer.in_features} channels was given {self._channels}.')
    return sum_of(layer, *(pieces.pop(0) for pieces in self._pieces))


def wide_kernels(layers: Sequence[nnx.Conv], first: int | None = None) -> list[jax.Array]:
  """Make the kernels of `Sums`, one a part: (kh, kw, channels, couts of all layers that see the part).

  Args:
    layers: of `Sums`, each of which sees one part more than the one before.
    first: channels of the first part; all that the first layer sees, when left out.
  """
  ends = sorted({layer.in_features for layer in layers} | {first or layers[0].in_features})
  return [
    _wide([layer for layer in layers if layer.in_features >= end], start, end - start)
    for start, end in itertools.pairwise([0, *ends])
  ]


def dense(
  layers: Sequence[nnx.Conv],
  x: jax.Array,
  activation: Callable[[jax.Array], jax.Array],
  kernels: Sequence[jax.Array] | None = None,
) -> tuple[list[jax.Array], jax.Array]:
  """Densely connected layers: each sees x and what the layers before it gave, activated.

  Args:
    layers: of `conv`, with stride and dilation 1, one kernel size and one dtype.
    x: (B, H, W, channels).
    activation: of all but the last.
    kernels: of `wide_kernels`, when the layers are frozen. Without them the parts are put side by side, as the
      gradients of sums take CPUs 10 to 20 % longer.

  Returns:
    The input of the last layer, part by part, and its output.
  """
  seen, sums = [x], Sums(layers, kernels)
  for k, layer in enumerate(layers):
    y = sums.add(seen[-1]).take() if kernels else layer(jnp.concatenate(seen, axis=-1))
    if k < len(layers) - 1:
      seen.append(activation(y))
  return seen, y


def _wide(layers, first, channels):
  slices = [layer.kernel[:, :, first : first + channels].astype(layer.dtype) for layer in layers]
  return jnp.concatenate(slices, axis=-1) if len(slices) > 1 else slices[0]


def _convolve(kernel, x, dtype):
  reach = kernel.shape[0] // 2
  images = x.reshape(-1, *x.shape[-3:]).astype(dtype)
  y = convolution(images, kernel.astype(dtype), (1, 1), ((reach, reach), (reach, reach)))
  return y.reshape(*x.shape[:-1], -1)
