"""The records of a run: metrics.jsonl (the truth), TensorBoard events, sample pictures, optionally W&B."""

import json
import math
import pathlib
import time

import jax
import numpy as np
import tensorboardX

from vqm_jax import errors, files, pictures


class Writer:
  """Records scalars and pictures of one run; does nothing on processes other than the first.

  Args:
    workdir: the run's folder.
    last_step: the step that the run continues from. Records of later steps, written by a process that died before it
      saved them, are dropped, so that every step has one line.
    wandb_project: also send the scalars to this Weights & Biases project (extra `[wandb]`).

  Raises:
    ConfigError: `wandb_project` without the wandb package.
  """

  def __init__(self, workdir: pathlib.Path, last_step: int = 0, wandb_project: str | None = None):
    self._active = jax.process_index() == 0
    self.workdir = workdir
    self._wandb = None
    if not self._active:
      return
    path = workdir / 'metrics.jsonl'
    _keep_until(path, last_step)
    self._file = path.open('a')
    self._events = tensorboardX.SummaryWriter(str(workdir), purge_step=last_step + 1 if last_step else None)
    if wandb_project:
      try:
        import wandb
      except ImportError as error:
        raise errors.ConfigError("--wandb_project needs the wandb package: pip install -e '.[wandb]'.") from error
      self._wandb = wandb.init(project=wandb_project, dir=str(workdir), name=workdir.name, resume='allow')

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *_) -> None:
    if self._active:
      self._file.close()
      self._events.close()
      if self._wandb is not None:
        self._wandb.finish()

  def scalars(self, step: int, values: dict[str, float]) -> None:
    """Appends one line of {'group/name': value}; values that are not finite are written as strings."""
    if not self._active:
      return
    plain = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
    self._file.write(json.dumps({'step': step, 'time': round(time.time(), 3), **plain}) + '\n')
    self._file.flush()
    for name, value in values.items():
      self._events.add_scalar(name, value, step)
    if self._wandb is not None:
      self._wandb.log(values, step=step)

  def picture(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a uint8 (H, W, 3) picture to samples/<name>/<step>.png and to TensorBoard."""
    if not self._active:
      return
    pictures.save_png(self.workdir / 'samples' / name / f'{step:07d}.png', image)
    self._events.add_image(f'samples/{name}', image, step, dataformats='HWC')

  def animation(self, step: int, name: str, frames: list[np.ndarray], fps: float) -> None:
    """Writes frames like that picture as a short clip, samples/<name>/<step>.webp."""
    if self._active:
      pictures.save_animation(self.workdir / 'samples' / name / f'{step:07d}.webp', frames, fps)


def _keep_until(path: pathlib.Path, last_step: int) -> None:
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      if json.loads(line)['step'] <= last_step:
        kept.append(line + '\n')
    except (ValueError, KeyError):
      continue  # a line cut off by a kill
  files.write_text(path, ''.join(kept))
