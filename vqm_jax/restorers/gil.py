"""Team GIL (NTIRE 2020 VQM, section 4.3, figure 5): a two-stage recurrent residual U-Net over five frames.

    f0 f1 f2 ── MU ── a1 ─┐
    f1 f2 f3 ── MU ── a2 ─┼── MU ── restored (residual of f2)
    f2 f3 f4 ── MU ── a3 ─┘

    MU: three frames ── conv ── RRCU ───────────────────────────────────────── [‖] ── RRCU ── conv ──(centre frame -)
                                  └─ /2 ── RRCU ──────── [‖] ── conv ── RRCU ── x2 ─┘
                                             └─ /2 ── RRCU ── x2 ─┘

The two stages are FastDVDnet's (Tassano et al. 2020), the U-Net of recurrent residual units R2U-Net's. Widths, wiring
and recipe are those of the team's own release. It has one MU per stage, 7,190,126 parameters, while the report counts
3.60 M, which is one MU: by default both stages share it (3,595,063); `share_stages=False` is the released wiring.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vqm_jax.layers.conv import conv
from vqm_jax.layers.edvr import last_conv
from vqm_jax.layers.resample import pixel_shuffle
from vqm_jax.layers.sums import conv_of_parts
from vqm_jax.restorers.base import Restorer


class DRCLC(nnx.Module):
  """Dense recurrent convolutional layer with concatenation ("DRCL-C"): one 3x3 kernel, used `steps` + 1 times.

  h0 = S(x), then h_k = S(mix_k [x‖h0‖...‖h_{k-1}]) with 1x1 convolutions mix_k. x (B, H, W, width) -> h_steps.

  Args:
    linear: no activation after the last use of the kernel.
  """

  def __init__(self, width: int, steps: int = 3, linear: bool = False, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.shared = conv(width, width, **how)
    self.mix = nnx.List([conv((k + 2) * width, width, 1, **how) for k in range(steps)])
    self.linear = linear

  def __call__(self, x: jax.Array) -> jax.Array:
    states = [x, jax.nn.relu(self.shared(x))]
    for mix in self.mix:
      state = self.shared(conv_of_parts(mix, *states))
      states.append(state if self.linear and mix is self.mix[-1] else jax.nn.relu(state))
    return states[-1]


class RRCU(nnx.Module):
  """Recurrent residual convolutional unit: z = conv1x1(x), then z + DRCL-C(DRCL-C(z)).

  x (B, H, W, cin), in any number of parts -> (B, H, W, width); `linear` is that of the second DRCL-C.
  """

  def __init__(self, cin: int, width: int, linear: bool = False, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    self.enter = conv(cin, width, 1, **how)
    self.first = DRCLC(width, **how)
    self.second = DRCLC(width, linear=linear, **how)

  def __call__(self, *parts: jax.Array) -> jax.Array:
    z = conv_of_parts(self.enter, *parts)
    return z + self.second(self.first(z))


class MU(nnx.Module):
  """Modified U-Net: what to take off a frame, seen from three frames (B, H, W, 9) -> (B, H, W, 3), float32."""

  def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
    how = dict(dtype=dtype, rngs=rngs)
    w1, w2, w4, w8 = width, 2 * width, 4 * width, 8 * width
    # The report's first width, 90 where the others are 32, 64, 128 and 256.
    enter = 90 * width // 32
    self.conv1 = conv(9, enter, **how)
    self.rrcu1 = RRCU(enter, w1, **how)
    self.conv2 = conv(w1, w2, stride=2, **how)
    self.rrcu2 = RRCU(w2, w2, **how)
    self.conv3 = conv(w2, w4, stride=2, **how)
    self.rrcu3 = RRCU(w4, w8, linear=True, **how)
    self.up_conv3 = conv(w4, w4, **how)
    self.up_rrcu3 = RRCU(w4, w4, linear=True, **how)
    self.up_rrcu2 = RRCU(w2, w2, **how)
    self.last = last_conv(w2, **how)

  def freeze(self) -> None:
    """See `frozen`: zeros fill the first width up to a multiple of 8, as accelerators would for every frame."""
    more = -self.conv1.kernel.shape[-1] % 8
    for layer, name, axis in ((self.conv1, 'kernel', 3), (self.conv1, 'bias', 0), (self.rrcu1.enter, 'kernel', 2)):
      value = getattr(layer, name)[...]
      setattr(layer, name, nnx.Param(jnp.pad(value, [(0, more if k == axis else 0) for k in range(value.ndim)])))

  def __call__(self, frames: jax.Array) -> jax.Array:
    e1 = self.rrcu1(jax.nn.relu(self.conv1(frames)))
    e2 = self.rrcu2(jax.nn.relu(self.conv2(e1)))
    e3 = self.rrcu3(jax.nn.relu(self.conv3(e2)))
    d2 = conv_of_parts(self.up_conv3, e2, pixel_shuffle(e3, 2))
    d2 = self.up_rrcu3(jax.nn.relu(d2))
    d1 = self.up_rrcu2(e1, pixel_shuffle(d2, 2))
    return self.last(d1).astype(jnp.float32)


class GIL(Restorer):
  """Restores the centre of five frames; the unit of work is a triplet, the first stage of FastDVDnet.

  Args:
    width: channels at full resolution; twice, four and eight times as many below.
    share_stages: one MU for both stages, as the report counts, instead of one each, as released.
    dtype: compute dtype; parameters stay float32.

  Call: clip (B, 5, H, W, 3) float32 in [0, 1] -> (B, H, W, 3) float32, not clipped.
  """

  num_frames = 5
  size_multiple = 4
  unit_frames = 3

  def __init__(self, width: int = 32, share_stages: bool = True, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
    self.stage1 = MU(width, dtype=dtype, rngs=rngs)
    self.stage2 = self.stage1 if share_stages else MU(width, dtype=dtype, rngs=rngs)

  def encode(self, frames: jax.Array) -> dict[str, jax.Array]:
    """frames (B, 3, H, W, 3) -> {'frame': the middle one as it came, 'denoised': after stage 1}, (B, H, W, 3)."""
    centre = frames[:, 1]
    joined = jnp.concatenate([frames[:, 0], centre, frames[:, 2]], axis=-1)
    return {'frame': centre, 'denoised': centre - self.stage1(joined)}

  def restore(self, features: dict[str, jax.Array]) -> jax.Array:
    """Features of `encode` with a second axis of 3 triplets -> restored centre frame (B, H, W, 3)."""
    first, middle, last = jnp.unstack(features['denoised'], axis=1)
    # The residual is taken against the frame as it came, not against the first stage's.
    return features['frame'][:, 1] - self.stage2(jnp.concatenate([first, middle, last], axis=-1))
