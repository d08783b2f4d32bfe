"""The way of a video to the web: reduced, grainy, coded once or twice.

One network for any web video has to see many of these, and originals that lost next to nothing, or it learns that every
video is to be smoothed. `web` draws from what uploads go through. Size and grain belong to the original: it has them,
too, so that a network learns to undo the coding and to leave grain where it is.
"""

import dataclasses
import zlib

import av
import numpy as np
import scipy.ndimage
from av.video.reformatter import Interpolation, VideoReformatter

from vqm_jax import errors
from vqm_jax.video.codec import Codec

_REDUCING = int(Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)
_GRAIN_RADIUS = 0.6  # pixels; sensors' noise is a little smoothed by what cameras do
_MIN_SIDE = 288  # pixels that a video keeps when it is reduced: enough for windows of 256


@dataclasses.dataclass(frozen=True)
class Coding:
  """One generation: `rate` are the arguments of `encode` that set it, {'crf': 33.0} or {'bitrate': 500000}."""

  rate: dict[str, float]
  preset: str = 'medium'
  codec: Codec = 'h264'

  def __str__(self) -> str:
    return f'{self.codec}:{self.preset}:' + ','.join(f'{key}={value:g}' for key, value in self.rate.items())


@dataclasses.dataclass(frozen=True)
class Degradation:
  """The degradation of one video, in this order.

  Attributes:
    codings: generations, the first to the last.
    scale: factor by which both sides of the original are reduced first.
    grain: standard deviation of the noise added to the original's luma, in levels of 255; half of it to chroma.
    seed: of the grain.
  """

  codings: tuple[Coding, ...]
  scale: float = 1.0
  grain: float = 0.0
  seed: int = 0

  def __str__(self) -> str:
    """As the manifest tells it, for example 'scale=1.5 grain=1.2 h264:fast:crf=24 h264:medium:crf=33'."""
    return ' '.join(
      [f'scale={self.scale:g}'] * (self.scale > 1)
      + [f'grain={self.grain:g}'] * (self.grain > 0)
      + [*map(str, self.codings)]
    )

  @property
  def keeps_original(self) -> bool:
    """Whether the original stays as it is."""
    return self.scale == 1 and self.grain == 0

  def size(self, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the original as it is coded: even, not enlarged."""
    return tuple(min(round(side / self.scale / 2) * 2, side) for side in (height, width))

  def original(self, frame: av.VideoFrame, index: int) -> av.VideoFrame:
    """Frame `index` of the original, yuv420p of even size, reduced and with its grain."""
    if self.scale > 1:
      height, width = self.size(frame.height, frame.width)
      frame = VideoReformatter().reformat(frame, width, height, interpolation=_REDUCING, threads=1)
    return self._grainy(frame, index) if self.grain else frame

  def _grainy(self, frame: av.VideoFrame, index: int) -> av.VideoFrame:
    rng = np.random.default_rng([self.seed, index])
    planes = frame.to_ndarray()
    # libav's layout of yuv420p as an array: luma, then both chroma planes, packed below it.
    sigma = np.full((len(planes), 1), self.grain, np.float32)
    sigma[frame.height :] /= 2
    noise = scipy.ndimage.gaussian_filter(rng.standard_normal(planes.shape, np.float32), _GRAIN_RADIUS)
    noisy = np.clip(np.rint(planes + sigma * noise / noise.std()), 0, 255).astype(np.uint8)
    grainy = av.VideoFrame.from_ndarray(noisy, format='yuv420p')
    for name in ('colorspace', 'color_primaries', 'color_trc', 'color_range'):
      setattr(grainy, name, getattr(frame, name))
    return grainy


# Presets of x264 by how often they are drawn: hosts use the quick ones, phones' encoders are weaker than any.
_PRESETS = {
  'ultrafast': 0.12,
  'superfast': 0.1,
  'veryfast': 0.23,
  'faster': 0.1,
  'fast': 0.15,
  'medium': 0.2,
  'slow': 0.1,
}


def web(name: str, copy: int, seed: int, height: int, width: int) -> Degradation:
  """Draw what copy `copy` of video `name`, of that size, goes through; the same whatever other videos are there.

  H.264 at CRF 18 to 41 by presets from ultrafast to slow. Of all, an eighth is H.265, a fifth was coded before at CRF
  16 to 26, a seventh is almost clean (CRF 8 to 18), a third is reduced by 1 to 2, a fifth has grain of 0.5 to 2.5
  levels.
  """
  rng = np.random.default_rng([seed, copy, zlib.crc32(name.encode())])

  def between(low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 2)

  def preset() -> str:
    return str(rng.choice(list(_PRESETS), p=list(_PRESETS.values())))

  # All are drawn whether they are used or not, so that one choice does not change the next.
  reduced, grainy, twice, clean, modern = (rng.random(5) < (0.35, 0.2, 0.2, 0.15, 0.125)).tolist()
  scale, grain = between(1.0, 2.0), between(0.5, 2.5)
  first = Coding({'crf': between(16, 26)}, preset())
  crf = {True: between(8, 18), False: between(18, 41)}[clean]
  last = Coding({'crf': crf}, preset(), 'h265' if modern else 'h264')
  return Degradation(
    codings=(first, last) if twice else (last,),
    scale=max(1.0, min(scale, min(height, width) / _MIN_SIDE)) if reduced else 1.0,
    grain=grain if grainy else 0.0,
    seed=zlib.crc32(f'{seed} {copy} {name}'.encode()),
  )


# What --mix can name.
MIXES = {'web': web}


def check_mix(mix: str) -> None:
  """Raises ConfigError for a mix that is none of `MIXES`."""
  if mix not in MIXES:
    raise errors.ConfigError(f'--mix={mix}: unknown, expected one of {", ".join(MIXES)}')
