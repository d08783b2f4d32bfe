"""Previews to test their page with."""

import numpy as np

from vqm_jax.report.page import preview

RNG = np.random.default_rng(0)
ODD = 'a"<b>.mp4'
EVIL = '</script><script>alert("1")</script>&amp;'
INDICES = [4, 12, 20, 28, 36, 44]
STRENGTHS = (0.5, 1.0, 1.5)


def frames(height=40, width=60):
  return [RNG.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in INDICES]


def make(**changes):
  values = {
    'video': ODD, 'network': f'tcl_unet, step 9 {EVIL}', 'num_frames': 48, 'indices': INDICES, 'before': frames(),
    'after': {strength: frames() for strength in STRENGTHS}, 'strength': 1.0, 'seconds': 93.5,
    'commands': {strength: f"enhance '--input={ODD}'  --strength={strength:g}" for strength in STRENGTHS},
  }  # fmt: skip
  return preview.Preview(**values | changes)
