"""Small videos for the tests: every scene is a texture of its own that moves by a few pixels a frame."""

import pathlib
from fractions import Fraction

import cv2
import numpy as np

from vqm_jax.video import Colour, encode, rgb_to_yuv

COLOUR = Colour('bt709')


def scene(seed: int, num_frames: int = 20, height: int = 64, width: int = 96) -> list[np.ndarray]:
  """uint8 (H, W, 3) frames of one moving texture."""
  rng = np.random.default_rng(seed)
  texture = rng.uniform(0, 1, (height + 2 * num_frames, width + 2 * num_frames, 3))
  texture = sum(cv2.GaussianBlur(texture, (0, 0), s, borderType=cv2.BORDER_REFLECT) * s for s in (1.5, 4.0))
  texture = (texture - texture.mean()) / texture.std() * 35 + rng.uniform(70, 190, 3)
  texture = texture.clip(0, 255).round().astype(np.uint8)
  dy, dx = rng.integers(1, 3, 2)
  return [texture[t * dy :, t * dx :][:height, :width] for t in range(num_frames)]


def frames(*seeds: int, num_frames: int = 20, height: int = 64, width: int = 96) -> list[np.ndarray]:
  """The frames of several scenes, one after another."""
  return [frame for seed in seeds for frame in scene(seed, num_frames, height, width)]


def write(path: pathlib.Path, images: list[np.ndarray], fps=25, **rate) -> pathlib.Path:
  """Codes frames without loss (unless `rate` says otherwise)."""
  path.parent.mkdir(parents=True, exist_ok=True)
  yuv = (rgb_to_yuv(image, COLOUR) for image in images)
  encode(yuv, path, fps=Fraction(fps), colour=COLOUR, **rate or {'crf': 0.0, 'preset': 'ultrafast'})
  return path
