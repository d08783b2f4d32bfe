"""The convolution that `conv` should be, in terms of JAX alone."""

import jax


def convolved(layer, x, padding, stride=1, dilation=1):
  return layer.bias[...] + jax.lax.conv_general_dilated(
    x,
    layer.kernel[...],
    (stride, stride),
    ((padding, padding), (padding, padding)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
