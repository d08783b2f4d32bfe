"""The residual block that the multi-frame restorers are made of."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from vqm_jax.layers.conv import conv
from vqm_jax.layers.initializers import kaiming


class ResidualBlock(nnx.Module):
  """x + conv(activation(conv(x))), without normalisation (Lim et al. 2017; EDVR's "ResidualBlockNoBN").

  Args:
    width: channels.
    activation: between the convolutions.
    kernel_init: of both; EDVR's small one when left out, so that a fresh block is near the identity.
    bias_init: of both; zero when left out.

  Call: x (B, H, W, width) -> same.
  """

  def __init__(
    self,
    width: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    init = dict(
      kernel_init=kernel_init or kaiming(0.1), bias_init=bias_init or nnx.initializers.zeros_init(), dtype=dtype
    )
    self.conv1 = conv(width, width, **init, rngs=rngs)
    self.conv2 = conv(width, width, **init, rngs=rngs)
    self.activation = activation

  def __call__(self, x: jax.Array) -> jax.Array:
    return x + self.conv2(self.activation(self.conv1(x)))
