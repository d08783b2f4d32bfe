"""What every restorer is: a window of frames in, the restored centre frame out, in two separable halves."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class Restorer(nnx.Module):
  """A network that restores the centre of a clip by `encode` and `restore`, which streaming calls one by one.

  Attributes:
    num_frames: the odd temporal window it looks at (1: single frame).
    size_multiple: frame height and width must be multiples of it (inference pads and crops).
    unit_frames: how many consecutive frames one reusable unit of work needs.
    whole_frames: whether it measures the whole frame, so that tiles of a frame would come out differently.

  Call: clip (B, num_frames, H, W, 3), RGB float32 in [0, 1] -> restored centre frame (B, H, W, 3) float32, not
  clipped. It is `restore` of `encode` of every unit, by construction. Raises ValueError for another clip.
  """

  num_frames: int
  size_multiple: int
  unit_frames: int = 1
  whole_frames: bool = False

  def encode(self, frames: jax.Array) -> Any:
    """The reusable part: frames (B, unit_frames, H, W, 3) -> features of one unit, a pytree of (B, ...) arrays."""
    raise NotImplementedError

  def restore(self, features: Any) -> jax.Array:
    """The rest: leaves (B, units, ...) in frame order -> restored centre frame (B, H, W, 3)."""
    raise NotImplementedError

  def __call__(self, clip: jax.Array) -> jax.Array:
    self._check(clip)
    batch, count = clip.shape[0], self.num_frames - self.unit_frames + 1
    units = jnp.stack([clip[:, k : k + self.unit_frames] for k in range(count)], axis=1)
    features = self.encode(units.reshape(batch * count, *units.shape[2:]))
    return self.restore(jax.tree.map(lambda x: x.reshape(batch, count, *x.shape[1:]), features))

  def _check(self, clip: jax.Array) -> None:
    name, multiple = type(self).__name__, self.size_multiple
    if clip.ndim != 5 or clip.shape[-1] != 3:
      raise ValueError(f'{name} takes a clip (B, T, H, W, 3) of RGB frames, got {clip.shape}.')
    if not jnp.issubdtype(clip.dtype, jnp.floating):
      raise ValueError(f'{name} takes floats in [0, 1], got {clip.dtype}; divide 8-bit frames by 255.')
    if clip.shape[1] != self.num_frames:
      raise ValueError(
        f'{name} takes windows of {self.num_frames} frames, got {clip.shape[1]}; '
        '`inference.restore_frames` makes them, by reflection at the ends of a clip of any length.'
      )
    if clip.shape[2] % multiple or clip.shape[3] % multiple:
      raise ValueError(
        f'{name} takes sizes that are multiples of {multiple}, got {clip.shape[2]}x{clip.shape[3]}; pad at the bottom '
        'right, then crop, as `inference.restore_frames` does.'
      )
