"""A reader of clips of noise, and what restores nothing."""

import numpy as np

from vqm_jax.data.clips import Clip

LENGTHS = {'cat': 5, 'dog': 3}


class Reader:
  """A ClipReader over noise that counts the frames it hands out."""

  def __init__(self, withheld=False):
    rng = np.random.default_rng(0)
    self.clips, self.pairs, self.read = {}, {}, []
    for first, (name, frames) in enumerate(LENGTHS.items()):
      self.clips[name] = Clip(name, 10 * first, frames, 12, 16, 25.0, 'pet' if first else 'cats')
      hq = rng.integers(20, 230, (frames, 12, 16, 3), dtype=np.uint8)
      lq = (hq + rng.integers(-9, 10, hq.shape)).astype(np.uint8)
      self.pairs[name] = lq, None if withheld else hq

  def frames(self, name, start=0, stop=None):
    lq, hq = self.pairs[name]
    for t in range(start, len(lq) if stop is None else stop):
      self.read.append((name, t))
      yield lq[t], None if hq is None else hq[t]


def identity(frames):
  return frames
