"""The contract of a restorer: a window of frames in, the restored centre frame out, in two separable halves.

`SingleFrameRestorer` and `EDVR` are what several systems share of that; all others are plain `Restorer`s.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers.edvr import PCD, PyramidFront


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


class SingleFrameRestorer(Restorer):
  """A restorer of each frame on its own: the window is one frame, and there is nothing to reuse.

  Subclasses give `restore_frame`.
  """

  num_frames = 1

  def restore_frame(self, frame: jax.Array) -> jax.Array:
    """frame (B, H, W, 3) -> restored frame (B, H, W, 3)."""
    raise NotImplementedError

  def encode(self, frames: jax.Array) -> jax.Array:
    """frames (B, 1, H, W, 3) -> the frame itself (B, H, W, 3)."""
    return frames[:, 0]

  def restore(self, features: jax.Array) -> jax.Array:
    """features (B, units, H, W, 3) -> restored frame (B, H, W, 3) of the middle unit, in a window the only one."""
    return self.restore_frame(features[:, features.shape[1] // 2])


class EDVR(Restorer):
  """A restorer that starts as EDVR does (Wang et al. 2019): features of each frame, aligned to the centre frame.

  Subclasses give `correction`: what is added to the centre frame.

  Args:
    width: channels.
    num_frames: of the window.
    num_front: residual blocks of the front.
    groups: deformable groups.
    input_mean: subtracted from the frames, see `edvr.INPUT_MEAN`.
    dtype: compute dtype; parameters stay float32.
  """

  size_multiple = 16

  def __init__(
    self,
    width: int,
    num_frames: int,
    num_front: int,
    groups: int,
    input_mean: float,
    *,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.front = PyramidFront(width, num_front, input_mean, dtype=dtype, rngs=rngs)
    self.align = PCD(width, groups, dtype=dtype, rngs=rngs)
    self.num_frames = num_frames

  def correction(self, features: dict[str, Any]) -> jax.Array:
    """Features of `encode` with a second axis of num_frames -> what the centre frame lacks (B, H, W, 3), float32."""
    raise NotImplementedError

  def encode(self, frames: jax.Array) -> dict[str, Any]:
    """frames (B, 1, H, W, 3) -> {'frame': (B, H, W, 3), 'pyramid': features at 1/4, 1/8, 1/16, 'own': of `PCD.own`}."""
    pyramid = self.front(frames[:, 0])
    return {'frame': frames[:, 0], 'pyramid': pyramid, 'own': self.align.own(pyramid)}

  def aligned(self, features: dict[str, Any]) -> jax.Array:
    """Features of the window -> those at 1/4 of all frames, aligned to the centre: (B, num_frames, h, w, width)."""
    return self.align(features['pyramid'], features['own'])

  def restore(self, features: dict[str, Any]) -> jax.Array:
    """Features of `encode` with a second axis of num_frames -> restored centre frame (B, H, W, 3)."""
    return features['frame'][:, self.num_frames // 2] + self.correction(features)
