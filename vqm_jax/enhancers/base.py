"""The contract of an enhancer of Track 2: a generator to deploy, and the players and losses that it is trained by."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vqm_jax import losses
from vqm_jax.restorers.base import Restorer


class Frozen(nnx.Variable):
  """Weights from elsewhere: not trained, not saved with a run."""


class FrameGenerator(Restorer):
  """A generator that maps each frame by itself: a restorer with a window of one.

  Subclasses define `enhance`. Statistics of the whole frame steer the mapping, so that it cannot work in tiles.
  """

  num_frames = 1
  whole_frames = True

  def enhance(self, frames: jax.Array) -> jax.Array:
    """Source frames (B, H, W, 3) RGB in [0, 1] -> frames as the target camera would show them, not clipped."""
    raise NotImplementedError

  def encode(self, frames: jax.Array) -> jax.Array:
    """Nothing to reuse: frames (B, 1, H, W, 3) -> (B, H, W, 3)."""
    return frames[:, 0]

  def restore(self, features: jax.Array) -> jax.Array:
    """(B, 1, H, W, 3), the one unit of the window -> enhanced frames (B, H, W, 3) float32."""
    return self.enhance(features[:, 0])


class RecurrentGenerator(nnx.Module):
  """A generator that goes through a clip in order and carries a state from frame to frame.

  Attributes:
    size_multiple: frame height and width must be multiples of it (inference pads the clip once, then crops outputs).
  """

  size_multiple: int

  def init_carry(self, frame: jax.Array) -> Any:
    """The state before the first frame (B, H, W, 3) of a clip, or of a new scene: a pytree of (B, ...) arrays."""
    raise NotImplementedError

  def step(self, carry: Any, frame: jax.Array) -> tuple[Any, jax.Array]:
    """One frame (B, H, W, 3) RGB in [0, 1] -> the next state, and the enhanced frame float32, not clipped."""
    raise NotImplementedError


class Enhancer(nnx.Module):
  """A method of Track 2 as it is trained: all players as attributes, and the losses of the two sides.

  The critics are trained on `critic_loss`, all other players together on `generator_loss`; which side is updated when
  is the training loop's business. Losses are pure functions of the players and a batch; running statistics are
  `nnx.BatchStat`s and may change in `generator_loss` only. Weights from elsewhere are `Frozen`.

  Constructor: (generator_args, *, patch, axis_name=None, dtype, rngs, **loss_args). `generator_args` are those of the
  generator, `patch` the side of the training crops, `axis_name` the mesh axis over which batch statistics are taken
  together; `loss_args` are what the method leaves to choose.

  Attributes:
    generator: the player that is deployed, a `FrameGenerator` or a `RecurrentGenerator`.
    critics: names of the attributes that are critics.
  """

  critics: ClassVar[tuple[str, ...]]
  generator: nnx.Module

  def generator_loss(self, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of generator and other players that are no critics.

    Args:
      x: source clips (B, T, H, W, 3) float32 in [0, 1].
      y: target clips of the same shape; they show other things than `x`, or about the same, never pixel by pixel.
      keys: (B,) random keys, one for each sample.

    Returns:
      The loss, and its terms as scalars for the log, unweighted.
    """
    raise NotImplementedError

  def critic_loss(
    self, x: jax.Array, y: jax.Array, keys: jax.Array, weights: dict[str, jax.Array]
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
    """The loss of the critics.

    Args:
      x: source clips (B, T, H, W, 3) float32 in [0, 1].
      y: target clips of the same shape, not aligned with `x`.
      keys: (B,) random keys, one for each sample.
      weights: of the gradient penalties, by the names of `adaptive_weights`.

    Returns:
      The loss; scalars for the log, among them '<critic>_gap', the mean over real minus that over generated samples;
      and the unweighted penalties by the names of `adaptive_weights`.
    """
    raise NotImplementedError

  def adaptive_weights(self) -> dict[str, losses.AdaptiveWeight]:
    """The penalties whose weights are steered, by name; none by default."""
    return {}

  def critic_optimizer(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the optimiser of the critics, for methods with parameters on a manifold; `optimizer` by default."""
    return optimizer


def images(clips: jax.Array) -> jax.Array:
  """Clips of single frames (B, 1, H, W, C) as images (B, H, W, C)."""
  batch, count, *size = clips.shape
  return clips.reshape(batch * count, *size)


def luma(images: jax.Array) -> jax.Array:
  """0.299 R + 0.587 G + 0.114 B: (..., 3) -> (..., 1)."""
  return (images * jnp.array([0.299, 0.587, 0.114])).sum(-1, keepdims=True)


def lrelu(x: jax.Array) -> jax.Array:
  """Slope 0.2 below zero, as in all three methods."""
  return jax.nn.leaky_relu(x, 0.2)
