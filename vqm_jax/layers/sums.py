"""Convolutions whose input comes in parts, without the parts side by side: conv(a ‖ b) = conv_a(a) + conv_b(b).

This is exact in real arithmetic; conv_a and conv_b are the slices of one kernel. A part that several frames or several
layers share is then worked on once. Parts are rounded to the compute dtype one by one, as bfloat16 products are fast on
accelerators only where their results are bfloat16. Parts that are kept are summed up in float32. Those made on the spot
are added in the compute dtype: a convolution on a GPU adds what is there, its bias and a ReLU before it rounds.
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
  y, *others = (part_of(layer, x, first) for x, first in zip(parts, firsts, strict=False))
  for other in others:
    y = other + y
  return y + layer.bias[...].astype(layer.dtype)


def wide_kernels(layers: Sequence[nnx.Conv]) -> list[jax.Array]:
  """Make the kernels of `dense`, one a part of its features: (kh, kw, channels, couts of all layers that see it)."""
  ends = [layer.in_features for layer in layers]
  return [
    jnp.concatenate([layer.kernel[:, :, start:end].astype(layer.dtype) for layer in layers[k:]], axis=-1)
    for k, (start, end) in enumerate(itertools.pairwise([0, *ends]))
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
    kernels: of `wide_kernels`, when the layers are frozen: a part is convolved at once for all layers that see it.
      Without them the parts are put side by side, as the gradients of sums take CPUs 10 to 20 % longer.

  Returns:
    The input of the last layer, part by part, and its output.
  """
  seen, pieces = [x], []  # of each part: what it adds to every layer that is left
  for k, layer in enumerate(layers):
    if kernels:
      ends = itertools.accumulate(each.out_features for each in layers[k:-1])
      pieces.append(jnp.split(_convolve(kernels[k], seen[-1], layer.dtype), list(ends), axis=-1))
      y = sum_of(layer, *(of_part.pop(0) for of_part in pieces))
    else:
      y = layer(jnp.concatenate(seen, axis=-1))
    if k < len(layers) - 1:
      seen.append(activation(y))
  return seen, y


def _convolve(kernel, x, dtype):
  reach = kernel.shape[0] // 2
  images = x.reshape(-1, *x.shape[-3:]).astype(dtype)
  y = convolution(images, kernel.astype(dtype), (1, 1), ((reach, reach), (reach, reach)))
  return y.reshape(*x.shape[:-1], -1)
