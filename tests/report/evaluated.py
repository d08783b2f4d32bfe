"""Runs that were evaluated with --save_frames, as vqm_jax.eval leaves them, of two small clips."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import summaries

from vqm_jax import files, pictures


class Clips:
  """Targets and inputs of clips of four frames, and runs on them.

  Attributes:
    targets, inputs: uint8 (4, 40, 60, 3) by clip.
  """

  def __init__(self, *names: str):
    rng = np.random.default_rng(0)
    self.targets = {clip: rng.integers(40, 216, (4, 40, 60, 3), dtype=np.uint8) for clip in names}
    self.inputs = self.noisy(20)

  def noisy(self, noise: int, seed: int = 1) -> dict[str, np.ndarray]:
    """The targets with some noise, by clip."""
    rng = np.random.default_rng(seed)
    add = {clip: rng.integers(-noise, noise + 1, frames.shape) for clip, frames in self.targets.items()}
    return {clip: (frames + add[clip]).astype(np.uint8) for clip, frames in self.targets.items()}

  def psnr(self, frames: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The metric as a summary has it."""
    return summaries.psnr(frames, self.targets)

  def workdir(
    self,
    folder: pathlib.Path,
    outputs: Mapping[str, np.ndarray],
    method: str = 'ecnu (step 9)',
    keep: bool = True,
    train: bool = False,
    **changes: Any,
  ) -> pathlib.Path:
    """Writes a run; returns its folder.

    Args:
      folder: of the run.
      outputs: its frames by clip.
      method: its name.
      keep: whether the frames were saved.
      train: whether the records of its training are there, too.
      **changes: fields of the summary.
    """
    kept = folder / 'eval' / 'f00d' / 'test'
    for side, clips in (('output', outputs), ('input', self.inputs), ('target', self.targets)):
      for clip, frames in clips.items() if keep else ():
        for index, frame in enumerate(frames):
          pictures.save_png(kept / side / clip / f'{index:06d}.png', frame)
    summary = {
      'method': method, 'metrics': {'psnr': self.psnr(outputs)}, 'no_processing': {'psnr': self.psnr(self.inputs)},
      'frame_indices': {clip: list(range(4)) for clip in self.targets},
      'folders': summaries.kept('f00d') if keep else None,
    }  # fmt: skip
    summaries.write(folder / 'eval' / 'test', **summary | changes)
    if train:
      lines = [{'step': step, 'time': 1.0, 'train/loss': 1 / step, 'train/lr': 0.1} for step in (100, 200, 300, 301)]
      lines += [{'step': 301, 'time': 1.0, 'val/psnr': 30.5, 'val/gain': 0.5}]
      files.write_text(folder / 'metrics.jsonl', ''.join(json.dumps(line) + '\n' for line in lines))
      files.write_json(folder / 'config.json', {'config': {'loss': 'l2'}})
    return folder
