"""The plain convolution of the published networks: PyTorch's initialisation, zeros around; and a mirrored one."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from vqm_jax.layers.cpu_convolution import convolution
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
    conv_general_dilated=_convolve if dilation == 1 else jax.lax.conv_general_dilated,
    dtype=dtype,
    rngs=rngs,
  )


class SymmetricConv(nnx.Conv):
  """A convolution behind a border of mirrored pixels, the edge among them: any size, constants stay constant.

  x (B, H, W, cin) -> (B, ceil(H / stride), ceil(W / stride), cout). `padded=False` leaves the border out. XLA's own
  gradients, which losses with a gradient penalty take twice. Biases start at 0.
  """

  def __init__(
    self,
    cin: int,
    cout: int,
    size: int = 3,
    stride: int = 1,
    padded: bool = True,
    *,
    kernel_init: Initializer,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    how = dict(strides=stride, padding='VALID', kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    super().__init__(cin, cout, (size, size), **how)
    self.border = (size - 1) // 2 if padded else 0

  def __call__(self, x: jax.Array) -> jax.Array:
    around = (self.border, self.border)
    return super().__call__(jnp.pad(x, ((0, 0), around, around, (0, 0)), mode='symmetric'))


def leaky_relu(x: jax.Array) -> jax.Array:
  """The activation of the EDVR family: slope 0.1 below zero."""
  return jnp.where(x > 0, x, 0.1 * x)


def _convolve(x, kernel, strides, padding, *, preferred_element_type=None, **unused):
  """Convolve for `nnx.Conv`, in the place of `jax.lax.conv_general_dilated`."""
  return convolution(x, kernel, tuple(strides), tuple(map(tuple, padding)), preferred_element_type)
