"""The plain convolution of the published networks: PyTorch's initialisation and explicit, symmetric zero padding."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from vqm_jax.layers.initializers import torch_bias, torch_kernel


def conv(
  cin: int,
  cout: int,
  size: int = 3,
  *,
  stride: int = 1,
  dilation: int = 1,
  kernel_init: Initializer | None = None,
  bias_init: Initializer | None = None,
  preferred_element_type: jnp.dtype | None = None,
  dtype: jnp.dtype = jnp.float32,
  rngs: nnx.Rngs,
) -> nnx.Conv:
  """A `size` x `size` convolution (B, H, W, cin) -> (B, ceil(H / stride), ceil(W / stride), cout).

  Padding is dilation * (size - 1) / 2 on every side. 'SAME' would pad strided layers at the bottom right only, which
  is another function, half a pixel off.

  Args:
    cin, cout: channels.
    size: odd extent of the kernel.
    stride, dilation: as usual.
    kernel_init, bias_init: PyTorch's defaults when left out.
    preferred_element_type: dtype of the output, when it is not `dtype`.
    dtype: compute dtype; parameters stay float32.
  """
  padding = dilation * (size - 1) // 2
  return nnx.Conv(
    cin,
    cout,
    (size, size),
    strides=stride,
    kernel_dilation=dilation,
    padding=((padding, padding), (padding, padding)),
    kernel_init=kernel_init or torch_kernel(),
    bias_init=bias_init or torch_bias(cin * size * size),
    preferred_element_type=preferred_element_type,
    dtype=dtype,
    rngs=rngs,
  )


def leaky_relu(x: jax.Array) -> jax.Array:
  """The activation of the EDVR family: slope 0.1 below zero."""
  return jnp.maximum(x, 0.1 * x)
