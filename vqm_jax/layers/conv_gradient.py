"""A convolution with a kernel gradient of our own on CPUs.

There XLA takes two to ten times as long for it as the matrix products that it amounts to. Forward pass, input gradient
and other devices are XLA's.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolution(
  x: jax.Array,
  kernel: jax.Array,
  strides: tuple[int, int],
  padding: tuple[tuple[int, int], tuple[int, int]],
  preferred_element_type: jnp.dtype | None = None,
) -> jax.Array:
  """x (B, H, W, cin) and kernel (kh, kw, cin, cout) of one dtype -> (B, H', W', cout), zeros around x.

  Args:
    x, kernel: float32 or bfloat16.
    strides: of height and width.
    padding: zeros before and after height and width.
    preferred_element_type: dtype of the output, when it is not that of x.
  """
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    preferred_element_type=preferred_element_type,
  )


def _forward(x, kernel, *how):
  return convolution(x, kernel, *how), (x, kernel)


def _backward(strides, padding, preferred_element_type, saved, gradient):
  return _gradients(strides, padding, preferred_element_type, *saved, gradient)


# Traced once for all layers of one shape, of which a network has a dozen: tracing takes longer than compiling.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gradients(strides, padding, preferred_element_type, x, kernel, gradient):
  plain = functools.partial(
    convolution.fun, strides=strides, padding=padding, preferred_element_type=preferred_element_type
  )
  (dx,) = jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)
  dkernel = jax.lax.platform_dependent(
    x,
    gradient,
    cpu=functools.partial(_kernel_gradient, size=kernel.shape[:2], strides=strides, padding=padding),
    default=lambda x, gradient: jax.vjp(lambda k: plain(x, k), kernel)[1](gradient)[0].astype(jnp.float32),
  )
  return dx, dkernel.astype(kernel.dtype)


convolution.defvjp(_forward, _backward)

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
