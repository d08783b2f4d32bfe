"""Team BossGao (NTIRE 2020 VQM, section 4.6, figure 8), the winner: EDVR front, deep trunks, progressive training.

    5 frames ── pyramid front ── PCD ──┬── 1x1 conv ──┬──┬── 10 + 30 residual blocks ──┬── shuffle tail ──(+ centre)
                                       └── TSA ───────┘  ├── RDN1: 10 RDBs x 8 convs ──┤
                                                         └── RDN2:  8 RDBs x 6 convs ──┘

    framework   fusion   trunk                parameters
    F1          TSA      40 residual blocks   20,928,995
    F2          conv     RDN1                 25,413,219
    F3          TSA      RDN1                 26,627,171
    F4          TSA      RDN2                 18,039,651

They are trained progressively: a smaller network first, then the larger one, which starts as the same function and
trains old and new weights together. The final videos came from F1, F3 and F4; `boss` is the mean of the three. F2 was
used for the last submission of the development phase only. The report gives frameworks, block counts and the order:
alignment and a shallow trunk, then TSA, then more of the trunk. Ours: width 128, five frames, G0 128 and G 64 (RDN's),
the mean, an activation after the 1x1 fusion (so that TSA can take its place), how a grown network starts
(`BossGao.ease_in`), and that F3 and F4 start with their full RDN: only F1's trunk comes in two parts (10 + 30) in the
report, so that nothing is left to stack on theirs.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from vqm_jax import errors
from vqm_jax.layers.conv import conv
from vqm_jax.layers.edvr import INPUT_MEAN, TSA, ConvFusion, ShuffleTail
from vqm_jax.layers.residual import ResidualBlock
from vqm_jax.layers.sums import dense, wide_kernels
from vqm_jax.restorers import base

FRAMEWORKS = {
  'boss_f1': dict(fusion='tsa', trunk='residual', num_blocks=40),
  'boss_f2': dict(fusion='conv', trunk='rdn', num_blocks=10, num_convs=8),
  'boss_f3': dict(fusion='tsa', trunk='rdn', num_blocks=10, num_convs=8),
  'boss_f4': dict(fusion='tsa', trunk='rdn', num_blocks=8, num_convs=6),
}
MEMBERS = ('boss_f1', 'boss_f3', 'boss_f4')  # of `boss`


class ResidualTrunk(nnx.Module):
  """`num_blocks` residual blocks in a row. x (B, h, w, width) -> same."""

  def __init__(self, width: int, num_blocks: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.blocks = nnx.List([ResidualBlock(width, dtype=dtype, rngs=rngs) for _ in range(num_blocks)])

  def __call__(self, x: jax.Array) -> jax.Array:
    for block in self.blocks:
      x = block(x)
    return x


class RDB(nnx.Module):
  """Residual dense block (Zhang et al. 2018): dense convolutions, 1x1 local fusion, local residual."""

  def __init__(self, width: int, growth: int, num_convs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.convs = nnx.List([conv(width + k * growth, growth, **how) for k in range(num_convs)])
    self.fuse = conv(width + num_convs * growth, width, 1, **how)
    self.wide = nnx.data(None)  # kernels, once frozen

  def freeze(self) -> None:
    """See `frozen`."""
    self.wide = nnx.List(map(nnx.Param, wide_kernels(self.convs)))

  def __call__(self, x: jax.Array) -> jax.Array:
    seen, last = dense(self.convs, x, jax.nn.relu, self.wide)
    # Sums would move more: a part of 64 channels gives 128 of the output.
    return x + self.fuse(jnp.concatenate([*seen, jax.nn.relu(last)], axis=-1))


class RDNTrunk(nnx.Module):
  """Residual dense network between the fused features and the tail: RDBs and global fusion of all their outputs.

  Args:
    width, growth: channels G0 and G.
    num_blocks, num_convs: residual dense blocks D and convolutions C in each.

  Call: x (B, h, w, width) -> same.
  """

  def __init__(self, width: int, growth: int, num_blocks: int, num_convs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.enter = conv(width, width, **how)
    self.blocks = nnx.List([RDB(width, growth, num_convs, **how) for _ in range(num_blocks)])
    self.fuse = conv(num_blocks * width, width, 1, **how)
    self.smooth = conv(width, width, **how)

  def __call__(self, x: jax.Array) -> jax.Array:
    y, outputs = self.enter(x), []
    for block in self.blocks:
      y = block(y)
      outputs.append(y)
    return x + self.smooth(self.fuse(jnp.concatenate(outputs, axis=-1)))


class BossGao(base.EDVR):
  """Restores the centre of five frames with one of the team's frameworks.

  Args:
    width: channels.
    num_frames: of the window.
    num_front: residual blocks of the front.
    groups: deformable groups.
    fusion: 'conv' (1x1) or 'tsa'.
    trunk: 'residual' or 'rdn'.
    num_blocks: residual blocks, or residual dense blocks.
    growth, num_convs: of the residual dense blocks.
    tail_width: channels at full resolution.
    input_mean: subtracted from the frames, see `edvr.INPUT_MEAN`.
    dtype: compute dtype; parameters stay float32.

  Call: clip (B, num_frames, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped.

  Raises:
    ConfigError: another fusion or trunk.
  """

  def __init__(
    self,
    width: int = 128,
    num_frames: int = 5,
    num_front: int = 5,
    groups: int = 8,
    fusion: str = 'tsa',
    trunk: str = 'residual',
    num_blocks: int = 40,
    growth: int = 64,
    num_convs: int = 8,
    tail_width: int = 64,
    input_mean: float = INPUT_MEAN,
    *,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    if fusion not in ('conv', 'tsa') or trunk not in ('residual', 'rdn'):
      raise errors.ConfigError(
        f"fusion={fusion!r}, trunk={trunk!r}: expected 'conv' or 'tsa', and 'residual' or 'rdn'."
      )
    how = dict(dtype=dtype, rngs=rngs)
    super().__init__(width, num_frames, num_front, groups, input_mean, **how)
    self.fusion = (TSA if fusion == 'tsa' else ConvFusion)(width, num_frames, **how)
    self.trunk = (
      ResidualTrunk(width, num_blocks, **how)
      if trunk == 'residual'
      else RDNTrunk(width, growth, num_blocks, num_convs, **how)
    )
    self.tail = ShuffleTail(width, tail_width, **how)

  def correction(self, features: dict[str, Any]) -> jax.Array:
    """Features of the window -> what the centre frame lacks (B, H, W, 3), float32."""
    return self.tail(self.trunk(self.fusion(self.aligned(features))))

  @staticmethod
  def ease_in(params: dict[str, Any], new: Collection[str]) -> dict[str, Any]:
    """Set newly added modules so that a grown network computes what its parent does, until the first update.

    New residual blocks start as the identity (second convolution zero). TSA in the place of the 1x1 convolution starts
    with weights of one half for every frame, made up for by a doubled kernel, and with inert spatial attention.

    Args:
      params: of the grown network, a pure dict, with the parent's weights in place.
      new: paths of the leaves that the parent does not have, such as 'trunk/blocks/10/conv1/kernel'.

    Returns:
      `params`, changed.
    """
    flat = traverse_util.flatten_dict(params)
    added = {tuple(int(key) if key.isdecimal() else key for key in path.split('/')) for path in new}
    tsa = ('fusion', 'embed', 'kernel') in added
    inert = [('fusion', 'embed'), ('fusion', 'up0_last'), ('fusion', 'add2')] if tsa else []
    for path in flat:
      if path in added and (path[-2] == 'conv2' or path[:-1] in inert):
        flat[path] = jnp.zeros_like(flat[path])
    if tsa:
      flat['fusion', 'fuse', 'kernel'] = 2 * flat['fusion', 'fuse', 'kernel']
    return traverse_util.unflatten_dict(flat)
