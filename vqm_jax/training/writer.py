"""The records of a run: metrics.jsonl (the truth), TensorBoard events, sample pictures, optionally W&B."""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Iterable

import jax
import numpy as np
from absl import logging
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2
from tensorboardX.proto.summary_pb2 import Summary

from vqm_jax import errors, files, pictures
from vqm_jax import workdir as workdirs


class Writer:
  """Records scalars and pictures of one run; does nothing on processes other than the first.

  Args:
    workdir: the run's folder.
    last_step: the step that the run continues from. Records of later steps, written by a process that died before it
      saved them, are dropped, so that every step has one line.
    wandb_project: also send the scalars to this Weights & Biases project (extra `[wandb]`).

  Raises:
    ConfigError: `wandb_project` without the wandb package.
    DataError: a line of metrics.jsonl is damaged; one that a kill has cut off, the last, is dropped with a warning.
  """

  def __init__(self, workdir: pathlib.Path, last_step: int = 0, wandb_project: str | None = None):
    self._active = jax.process_index() == 0
    self.workdir = workdir
    self._wandb = None
    if not self._active:
      return
    self._path = workdir / 'metrics.jsonl'
    _keep_until(workdir, last_step)
    with files.filling(self._path):
      self._file = self._path.open('a')
      self._events = _Events(workdir, last_step)
    if wandb_project:
      try:
        import wandb
      except ImportError as error:
        raise errors.ConfigError("--wandb_project needs the wandb package: pip install -e '.[wandb]'.") from error
      self._wandb = wandb.init(project=wandb_project, dir=str(workdir), name=workdir.name, resume='allow')

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, kind, *_) -> None:
    if self._active:
      with contextlib.suppress(OSError) if kind else files.filling(self._path):  # the first error is the one to tell
        self._file.close()
        self._events.close()
      if self._wandb is not None:
        self._wandb.finish()

  def scalars(self, step: int, values: dict[str, float]) -> None:
    """Append one line of {'group/name': value}; values that are not finite are written as strings."""
    if not self._active:
      return
    plain = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
    with files.filling(self._path):
      self._file.write(json.dumps({'step': step, 'time': round(time.time(), 3), **plain}) + '\n')
      self._file.flush()
    self._events.write(step, (summary.scalar(name, value) for name, value in values.items()))
    if self._wandb is not None:
      self._wandb.log(values, step=step)

  def picture(self, step: int, name: str, image: np.ndarray) -> None:
    """Write a uint8 (H, W, 3) picture to samples/<name>/<step>.png and to TensorBoard."""
    if not self._active:
      return
    pictures.save_png(self.workdir / 'samples' / name / f'{step:07d}.png', image)
    self._events.write(step, [summary.image(f'samples/{name}', image, dataformats='HWC')])

  def animation(self, step: int, name: str, frames: list[np.ndarray], fps: float) -> None:
    """Write frames like that picture as a short clip, samples/<name>/<step>.webp."""
    if self._active:
      pictures.save_animation(self.workdir / 'samples' / name / f'{step:07d}.webp', frames, fps)


class _Events:
  """The file of TensorBoard; events after `last_step` in older files of the folder are hidden.

  Written at once: the thread of `tensorboardX.SummaryWriter` dies of a full disk, and whoever hands it events then
  waits for ever.
  """

  def __init__(self, workdir: pathlib.Path, last_step: int):
    self._path = workdir / 'events.out.tfevents'
    # The name has the second in it: two in one are told apart by the step.
    self._file = event_file_writer.EventsWriter(str(workdir / 'events'), f'.{last_step}')
    if last_step:
      first = {'step': last_step + 1}
      self._file.write_event(event_pb2.Event(file_version='brain.Event:2', **first))
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._file.write_event(event_pb2.Event(session_log=start, **first))

  def write(self, step: int, summaries: Iterable[Summary]) -> None:
    with files.filling(self._path):
      for one in summaries:
        self._file.write_event(event_pb2.Event(summary=one, step=step, wall_time=time.time()))
      self._file.flush()

  def close(self) -> None:
    self._file.close()


def _keep_until(workdir: pathlib.Path, last_step: int) -> None:
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    return
  records, cut = workdirs.read_metrics(workdir)
  if cut:
    logging.warning('%s: %s; it is cut off.', path, cut)
  with files.replacing(path) as partial:
    partial.write_bytes(b''.join(record.line + b'\n' for record in records if record.step <= last_step))
