"""Scoring a restoration against the original while it runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vqm_jax import errors, metrics, pictures, video


class AgainstOriginal:
  """Sees input and restored frames go by, and scores both against an original.

  Args:
    source: the input.
    original: what it was made from.

  Attributes:
    original: as given.
    before, after: PSNR in dB of each frame so far, of input and restored frames; inf where they are identical.
    middle: the number of the frame of which there is to be a picture.
    picture: of that frame, uint8 (H', W', 3): input, restored, original, error x4; None until it was there.

  Raises:
    VideoError: number or size of the frames differ.
  """

  def __init__(self, source: video.VideoSource, original: video.VideoSource):
    found, wanted = (f'{s.num_frames} frames of {s.width}x{s.height}' for s in (original, source))
    if found != wanted:
      raise errors.VideoError(f'--reference={original.name}: has {found}, expected {wanted}, as the input')
    self.original, self._originals = original, None
    self.before: list[float] = []
    self.after: list[float] = []
    self.middle = original.num_frames // 2
    self.picture: np.ndarray | None = None

  def look(self, index: int, frame: np.ndarray, restored: np.ndarray) -> None:
    """Score frame `index`, which follows the one before, and what was made of it."""
    if self._originals is None:
      self._originals = self.original.frames(index)
    # Scores and pictures are of 8 bits.
    frame, restored, original = map(video.to_eight_bits, (frame, restored, next(self._originals)))
    self.before.append(float(metrics.psnr(frame, original)))
    self.after.append(float(metrics.psnr(restored, original)))
    if index == self.middle:
      self.show(frame, restored, original)

  def show(self, frame: np.ndarray, restored: np.ndarray, original: np.ndarray | None = None) -> None:
    """Make the picture of the middle frame."""
    if original is None:
      original = next(self.original.frames(self.middle, self.middle + 1))
    frame, restored, original = map(video.to_eight_bits, (frame, restored, original))
    labels = ('input', 'restored', 'original', 'error of the restored frame x4')
    self.picture = pictures.comparison(frame, restored, original, labels)

  def notes(self, start: int, stop: int) -> dict[str, list[float]]:
    """The scores of these frames, from which `recall` has them back."""
    return {'before': self.before[start:stop], 'after': self.after[start:stop]}

  def recall(self, notes: Mapping[str, Any]) -> None:
    """Take up the scores of the next frames from an earlier run."""
    self.before += map(float, notes['before'])
    self.after += map(float, notes['after'])

  def __str__(self) -> str:
    before, after = (metrics.mean_psnr(np.array(scores))[0] for scores in (self.before, self.after))
    return f'PSNR against the original: {before:.2f} dB before, {after:.2f} dB after, {after - before:+.2f} dB'
