"""Weighted means of trained networks: TCL's two branches, BossGao's three frameworks, or any others.

Members are trained in runs of their own and joined by `vqm_jax.combine`; the weights are numbers of the config, not
parameters.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from vqm_jax.restorers.base import Restorer


class Mixture(Restorer):
  """sum of weights[k] * member_k(clip), each member looking at as much of the window's middle as it needs.

  Frames are padded once, for all members, to a common multiple.

  Args:
    members: networks whose unit of work is one frame.
    weights: one for each; equal ones when left out.

  Call: clip (B, num_frames, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped; num_frames is the longest
  window among the members.

  Raises:
    ValueError: another number of weights, or members whose unit is longer.
  """

  def __init__(self, members: Sequence[Restorer], weights: Sequence[float] | None = None):
    weights = tuple([1 / len(members)] * len(members) if weights is None else weights)
    if len(weights) != len(members):
      raise ValueError(f'{len(members)} members need as many weights, got {weights}.')
    if any(member.unit_frames != 1 for member in members):
      raise ValueError('Only networks whose unit of work is one frame can be mixed.')
    self.members = nnx.List(members)
    self.weights = weights
    self.num_frames = max(member.num_frames for member in members)
    self.size_multiple = math.lcm(*(member.size_multiple for member in members))

  def encode(self, frames: jax.Array) -> list[Any]:
    """frames (B, 1, H, W, 3) -> the features of every member."""
    return [member.encode(frames) for member in self.members]

  def restore(self, features: list[Any]) -> jax.Array:
    """Features of `encode` with a second axis of num_frames -> restored centre frame (B, H, W, 3)."""
    return sum(w * y for w, y in zip(self.weights, self.outputs(features), strict=True))

  def outputs(self, features: list[Any]) -> list[jax.Array]:
    """Restore the window by each member, unclipped."""

    def middle(x, size):
      first = (self.num_frames - size) // 2
      return x[:, first : first + size]

    return [
      member.restore(jax.tree.map(lambda x, m=member: middle(x, m.num_frames), part))
      for member, part in zip(self.members, features, strict=True)
    ]
