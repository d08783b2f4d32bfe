"""Scoring a restoration against the original while it runs."""

import collections
from collections.abc import Callable, Iterator

import numpy as np

from vqm_jax import errors, metrics, pictures, video
from vqm_jax.inference import streaming

Restore = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]


class AgainstOriginal:
  """Sees input and restored frames go by, and scores both against an original.

  Args:
    source: the input.
    original: what it was made from.

  Attributes:
    before, after: PSNR in dB of each frame so far, of input and restored frames; inf where they are identical.
    picture: the middle frame, uint8 (H', W', 3): input, restored, original, error x4; None until it was there.

  Raises:
    VideoError: number or size of the frames differ.
  """

  def __init__(self, source: video.VideoSource, original: video.VideoSource):
    found, wanted = (f'{s.num_frames} frames of {s.width}x{s.height}' for s in (original, source))
    if found != wanted:
      raise errors.VideoError(f'--reference={original.name}: has {found}, expected {wanted}, as the input')
    self._original = original
    self.before: list[float] = []
    self.after: list[float] = []
    self.picture: np.ndarray | None = None

  def watching(self, restore: Restore) -> Restore:
    """`restore`, whose frames are scored on their way; memory holds those that it has not yet restored."""

    def run(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
      inputs: collections.deque[np.ndarray] = collections.deque()
      originals = self._original.frames()
      for index, restored in enumerate(restore(streaming.remembered(frames, inputs, every=1))):
        # Scores and pictures are of 8 bits.
        frame, original, after = map(video.to_eight_bits, (inputs.popleft(), next(originals), restored))
        self.before.append(float(metrics.psnr(frame, original)))
        self.after.append(float(metrics.psnr(after, original)))
        if index == self._original.num_frames // 2:
          labels = ('input', 'restored', 'original', 'error of the restored frame x4')
          self.picture = pictures.comparison(frame, after, original, labels)
        yield restored

    return run

  def __str__(self) -> str:
    before, after = (metrics.mean_psnr(np.array(scores))[0] for scores in (self.before, self.after))
    return f'PSNR against the original: {before:.2f} dB before, {after:.2f} dB after, {after - before:+.2f} dB'
