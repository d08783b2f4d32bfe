"""A convolution in forms of our own on CPUs; other devices take XLA's.

XLA shares an image out over the threads of a CPU by columns and channels: small ones, 64 x 64 of 64 channels, are left
to one thread, a batch of them too. Here they, and strips of them, are laid side by side. For the gradient of the kernel
it takes two to ten times as long as the matrix products that this amounts to. And behind a stride of 2 it multiplies by
the zeros between lines and columns of a gradient, which make three of four products.
"""

import functools
import math

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
  plain = functools.partial(_plain, strides=strides, padding=padding, dtype=preferred_element_type)
  if not _shareable(x.shape, kernel.shape, strides, padding):
    return plain(x, kernel)
  own = functools.partial(_side_by_side, padding=padding, dtype=preferred_element_type)
  return jax.lax.platform_dependent(x, kernel, cpu=own, default=plain)


def _plain(x, kernel, strides, padding, dtype):
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=_NUMBERS, preferred_element_type=dtype
  )


_NUMBERS = ('NHWC', 'HWIO', 'NHWC')
# From so many columns times channels on XLA has enough to share out; below so many products it is no gain.
_COLUMNS, _PRODUCTS = 1 << 14, 1 << 27


def _shareable(shape, kernel, strides, padding):
  """Whether images of this shape are convolved faster side by side than one after the other."""
  if strides != (1, 1) or any(2 * n != k - 1 for k, pad in zip(kernel, padding, strict=False) for n in pad):
    return False
  if not all(isinstance(n, int) for n in shape):  # exported for any size
    return False
  count, height, width, _ = shape
  return width * kernel[3] < _COLUMNS and count * height * width * math.prod(kernel) > _PRODUCTS


def _side_by_side(x, kernel, padding, dtype):
  """The convolution of one wide image, with zeros between those, or strips of those, that it is made of."""
  (count, height, width, cin), (around, _), (gap, _) = x.shape, *padding
  strips = min(height, 8, -(-_COLUMNS // (count * width * kernel.shape[3])))
  lines = -(-height // strips)
  # Strips share the lines around their borders; zeros fill the last one.
  x = jax.lax.pad(
    x, jnp.zeros((), x.dtype), [(0, 0, 0), (around, around + strips * lines - height, 0), (0, gap, 0), (0, 0, 0)]
  )
  x = jnp.stack([x[:, k * lines : (k + 1) * lines + 2 * around] for k in range(strips)], axis=1)
  x = x.transpose(2, 0, 1, 3, 4).reshape(1, lines + 2 * around, count * strips * (width + gap), cin)
  y = _plain(x, kernel, (1, 1), ((0, 0), padding[1]), dtype)
  y = y.reshape(lines, count, strips, width + gap, -1)[:, :, :, :width]
  return y.transpose(1, 2, 0, 3, 4).reshape(count, strips * lines, width, -1)[:, :height]


def _forward(x, kernel, *how):
  return convolution(x, kernel, *how), (x, kernel)


def _backward(strides, padding, preferred_element_type, saved, gradient):
  return _gradients(strides, padding, preferred_element_type, *saved, gradient)


# Traced once for all layers of one shape, of which a network has a dozen: tracing takes longer than compiling.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gradients(strides, padding, preferred_element_type, x, kernel, gradient):
  plain = functools.partial(_plain, strides=strides, padding=padding, dtype=preferred_element_type)

  def of_kernel(x, gradient):
    return jax.vjp(lambda kernel: plain(x, kernel), kernel)[1](gradient)[0].astype(jnp.float32)

  def of_input(kernel, gradient):
    return jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)[0]

  own = functools.partial(_kernel_gradient, size=kernel.shape[:2], strides=strides, padding=padding)
  dkernel = jax.lax.platform_dependent(x, gradient, cpu=own, default=of_kernel).astype(kernel.dtype)
  if strides == (2, 2) and min(kernel.shape[:2]) > 1:
    own = functools.partial(_input_gradient, extent=x.shape[1:3], padding=padding)
  elif _shareable(gradient.shape, (*kernel.shape[:2], *kernel.shape[:1:-1]), strides, padding):
    own = functools.partial(_shared_input_gradient, padding=padding)
  else:
    return of_input(kernel, gradient), dkernel
  return jax.lax.platform_dependent(kernel, gradient, cpu=own, default=of_input), dkernel


convolution.defvjp(_forward, _backward)

# Below this many channels a matrix product of one tap is too thin, and all taps are put side by side.
_THIN = 16
# Bytes of what all taps read, side by side: what stays in the cache of a core, and from where on it pays to work in
# parts of that size. Below, taps take turns: less to compile, and more for two cores to share.
_PART, _LARGE = 2 << 20, 16 << 20


def _kernel_gradient(x, gradient, size, strides, padding):
  """The gradient of the kernel, float32 (kh, kw, cin, cout): matrix products over all positions."""
  if strides == (1, 1) and gradient.shape[-1] < _THIN:  # the taps read the gradient, the smaller one
    turned = [(k - 1 - before, k - 1 - after) for k, (before, after) in zip(size, padding, strict=True)]
    return _turned(_products(gradient.astype(x.dtype), x, size, strides, turned))
  return _products(x, gradient.astype(x.dtype), size, strides, padding)


def _products(x, gradient, size, strides, padding):
  """Multiply the gradient with what every tap reads of x."""
  (kh, kw), (sy, sx), (cin, cout) = size, strides, (x.shape[-1], gradient.shape[-1])
  count, height, width = gradient.shape[:3]
  taps = [(i, j) for i in range(kh) for j in range(kw)]
  per_position = len(taps) * cin * x.dtype.itemsize
  large = len(taps) > 1 and count * height * width * per_position > _LARGE
  images, lines = _part(count, height, width, _PART // per_position) if large else (count, height)
  groups, strips = -(-count // images), -(-height // lines)
  # Zeros fill the last parts. Behind x there may be less than was padded: a stride need not reach the end.
  rest, extent = groups * images - count, ((strips * lines - 1) * sy + kh, (width - 1) * sx + kw)
  around = [(pad[0], n - pad[0] - m, 0) for pad, n, m in zip(padding, extent, x.shape[1:3], strict=True)]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, rest, 0), *around, (0, 0, 0)])
  gradient = jnp.pad(gradient, ((0, rest), (0, strips * lines - height), (0, 0), (0, 0)))

  def read(part, tap):
    """What a tap reads in (images, lines) of x, one row a position."""
    (image, line), (i, j) = part, tap
    extent = images, (lines - 1) * sy + 1, (width - 1) * sx + 1, cin
    return jax.lax.dynamic_slice(x, (image, line * sy + i, j, 0), extent)[:, ::sy, ::sx]

  def product(n):
    part = n // strips * images, n % strips * lines
    flat = jax.lax.dynamic_slice(gradient, (*part, 0, 0), (images, lines, width, cout)).reshape(-1, cout)
    side_by_side = jnp.concatenate([read(part, tap) for tap in taps], axis=-1).reshape(-1, len(taps) * cin)
    narrow, wide = sorted((flat, side_by_side), key=lambda side: side.shape[1])
    found = jnp.dot(narrow.T, wide, preferred_element_type=jnp.float32)
    return found if narrow is flat else found.T

  if not large and cin >= _THIN:
    flat = gradient.reshape(-1, cout)

    def of_tap(tap):
      return jnp.dot(flat.T, read((0, 0), tap).reshape(-1, cin), preferred_element_type=jnp.float32)

    return jax.lax.map(of_tap, tuple(jnp.array(taps).T)).reshape(kh, kw, cout, cin).swapaxes(2, 3)
  total = product(0)
  if large:
    total = jax.lax.fori_loop(0, groups * strips, lambda n, total: total + product(n), jnp.zeros_like(total))
  return total.reshape(cout, kh, kw, cin).transpose(1, 2, 3, 0)


def _part(count, height, width, positions):
  """How many images, and how many lines of each, make parts of equal size with about so many positions."""
  if height * width <= positions:
    parts = -(-count * height * width // positions)
    return -(-count // min(count, parts)), height
  parts = -(-height * width // positions)
  return 1, -(-height // min(height, parts))


def _turned(kernel):
  """The kernel that takes the other way: (kh, kw, cin, cout) -> (kh, kw, cout, cin)."""
  return kernel[::-1, ::-1].swapaxes(2, 3)


def _shared_input_gradient(kernel, gradient, padding):
  return _side_by_side(gradient.astype(kernel.dtype), _turned(kernel), padding, None)


def _input_gradient(kernel, gradient, extent, padding):
  """The gradient of the input behind a stride of 2, (B, *extent, cin): lines and columns by parity.

  Every second tap reads line 2 n + p of the input, for lines n + s of the gradient; p is 0 or 1, and s a few shifts.
  """
  lines, columns = (
    [{(p + before - tap) // 2: tap for tap in range(k) if (p + before - tap) % 2 == 0} for p in (0, 1)]
    for k, (before, _) in zip(kernel.shape[:2], padding, strict=True)
  )
  (height, width), (rows, per_row) = (-(-n // 2) for n in extent), gradient.shape[1:3]
  across = range(min(map(min, columns)), max(map(max, columns)) + 1)
  kernel, gradient = kernel.swapaxes(2, 3), gradient.astype(kernel.dtype)
  nothing = jnp.zeros_like(kernel[0, 0])

  def pair(tap, s):
    """The kernels of both columns of a pair at once: as channels they lie side by side in what comes out."""
    return jnp.concatenate([kernel[tap, column[s]] if s in column else nothing for column in columns], axis=-1)

  found = [
    jax.lax.conv_general_dilated(
      gradient,
      jnp.stack([jnp.stack([pair(tap, s) for s in across]) for _, tap in sorted(line.items())]),
      (1, 1),
      [(-min(line), height + max(line) - rows), (-min(across), width + max(across) - per_row)],
      dimension_numbers=_NUMBERS,
    )
    for line in lines
  ]
  both = jnp.stack(found, axis=2).reshape(gradient.shape[0], 2 * height, 2 * width, -1)
  return both[:, : extent[0], : extent[1]]
