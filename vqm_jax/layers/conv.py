"""The plain convolution of the published networks: PyTorch's initialisation, explicit zero padding; and a mirrored one.

The plain one has a kernel gradient of our own on CPUs, where XLA takes two to ten times as long as the matrix products
that it amounts to. Forward pass, input gradient and other devices are XLA's.
"""

import functools

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
  """What `nnx.Conv` calls in the place of `jax.lax.conv_general_dilated`."""
  return _convolution(x, kernel, tuple(strides), tuple(map(tuple, padding)), preferred_element_type)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolution(x, kernel, strides, padding, preferred_element_type):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    preferred_element_type=preferred_element_type,
  )


def _forward(x, kernel, *how):
  return _convolution(x, kernel, *how), (x, kernel)


def _backward(strides, padding, preferred_element_type, saved, gradient):
  x, kernel = saved
  plain = functools.partial(
    _convolution.fun, strides=strides, padding=padding, preferred_element_type=preferred_element_type
  )
  (dx,) = jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)
  dkernel = jax.lax.platform_dependent(
    x,
    gradient,
    cpu=functools.partial(_kernel_gradient, size=kernel.shape[:2], strides=strides, padding=padding),
    default=lambda x, gradient: jax.vjp(lambda k: plain(x, k), kernel)[1](gradient)[0].astype(jnp.float32),
  )
  return dx, dkernel.astype(kernel.dtype)


_convolution.defvjp(_forward, _backward)

# Below this many channels a matrix product of one tap is too thin, and all taps are put side by side.
_THIN = 16


def _kernel_gradient(x, gradient, size, strides, padding):
  """The gradient of the kernel as matrix products over all positions, float32 (kh, kw, cin, cout)."""
  taps = [(i, j) for i in range(size[0]) for j in range(size[1])]
  cin, cout = x.shape[-1], gradient.shape[-1]
  product = functools.partial(jnp.dot, preferred_element_type=jnp.float32)
  gradient = gradient.astype(x.dtype)
  pad = ((0, 0), *padding, (0, 0))
  if strides == (1, 1) and cout < _THIN:  # shift the gradient, the smaller one
    padded, (height, width) = jnp.pad(gradient, pad), x.shape[1:3]
    shifted = [padded[:, size[0] - 1 - i :, size[1] - 1 - j :][:, :height, :width] for i, j in taps]
    out = product(x.reshape(-1, cin).T, jnp.concatenate(shifted, axis=-1).reshape(-1, len(taps) * cout))
    return out.reshape(cin, *size, cout).transpose(1, 2, 0, 3)
  padded = jnp.pad(x, pad)
  extent = [(n - 1) * stride + 1 for n, stride in zip(gradient.shape[1:3], strides, strict=True)]

  def read(i, j):
    window = jax.lax.dynamic_slice(padded, (0, i, j, 0), (x.shape[0], *extent, cin))
    return window[:, :: strides[0], :: strides[1]]

  flat = gradient.reshape(-1, cout)
  if cin < _THIN:
    columns = jnp.concatenate([read(i, j) for i, j in taps], axis=-1).reshape(-1, len(taps) * cin)
    return product(columns.T, flat).reshape(*size, cin, cout)
  # A loop over the taps: side by side they would take as many times the memory.
  per_tap = jax.lax.map(lambda tap: product(flat.T, read(*tap).reshape(-1, cin)), tuple(jnp.array(taps).T))
  return per_tap.reshape(*size, cout, cin).swapaxes(2, 3)
