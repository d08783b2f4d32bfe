"""A restorer and frames to test streaming with."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Window(nnx.Module):
  """A restorer of any window whose encode is not linear and whose units may overlap, to test the streaming."""

  size_multiple = 4
  whole_frames = False

  def __init__(self, num_frames, unit_frames, rngs):
    self.num_frames, self.unit_frames = num_frames, unit_frames
    self.units = num_frames - unit_frames + 1
    self.weights = nnx.Param(jax.random.normal(rngs.params(), (self.units, unit_frames)) / num_frames)

  def encode(self, frames):
    return {'sum': jnp.square(frames).sum(1), 'frames': frames}

  def restore(self, features):
    mixed = jnp.einsum('buthwc,ut->bhwc', features['frames'], self.weights[...])
    return 0.5 + 0.1 * mixed + 0.01 * features['sum'].mean(1)

  def __call__(self, clip):
    units = [self.encode(clip[:, k : k + self.unit_frames]) for k in range(self.units)]
    return self.restore(jax.tree.map(lambda *x: jnp.stack(x, 1), *units))


def clip(length, height=8, width=12, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (length, height, width, 3), np.uint8)
