"""Scores kept per clip, under a name for all they depend on, so that no clip is scored twice."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from absl import logging

from vqm_jax import files, pictures, schemas
from vqm_jax.data import ClipReader
from vqm_jax.data.records import DataSource
from vqm_jax.evaluation.patch_features import PatchFeatures
from vqm_jax.evaluation.scoring import (
  ClipFrames,
  ClipScores,
  Restore,
  fidelity,
  score_clip,
  seconds_per_frame,
  ticking,
)
from vqm_jax.metrics import Metric
from vqm_jax.summary import Timing

T = TypeVar('T')

# Sub-folders of the frames that are kept.
FRAMES = ('output', 'input', 'target')
_AGAIN = 'the clip is scored again'


def fingerprint(identity: Mapping[str, Any]) -> str:
  """A name for all that scores depend on beside the metrics; `identity` holds plain JSON values."""
  return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def source_identity(source: DataSource) -> dict[str, Any]:
  """Describe the records of a source so that they differ from any others, for `fingerprint`."""
  info = source.dataset_info
  part = info.splits[source.split]
  return {
    'dataset': info.full_name,
    'split': source.split,
    'records': part.num_examples,
    'bytes': part.num_bytes,
    'shards': list(part.shard_lengths),
    'clips': (info.metadata or {}).get('clips', {}).get(source.split),
  }


def score_resumably(
  clips: Sequence[ClipFrames],
  folder: pathlib.Path,
  metrics: Sequence[Metric] | None = None,
  *,
  aligned: bool = True,
  overwrite: bool = False,
  save_frames: bool = False,
  patches: PatchFeatures | None = None,
  progress: Callable[..., Iterable[int]] | None = None,
) -> dict[str, ClipScores]:
  """Score clips, without measuring again what lies in `folder` already.

  Writes `<clip>.json` as soon as a clip is done, before it `pictures/<clip>.png` (the middle frame
  beside input and target) and, with `save_frames`, `output/<clip>/<index>.png`, input and target. The caller names
  the folder by a `fingerprint` of all that the scores depend on, the metrics excepted: more of them are
  added to the clips that lack them, and learned ones are taken again when their weights are others.

  Args:
    clips: what to score.
    folder: made if needed.
    metrics: what is measured; PSNR and SSIM by default.
    aligned: whether pictures may show the error against the target.
    overwrite: score every clip again.
    save_frames: keep the frames, too; clips that were scored without keeping them are redone.
    patches: also keep features for `frechet`.
    progress: called as progress(range(number of frames)) and advanced once per frame.

  Raises:
    DataError: as `evaluation.score_clip`.
  """
  metrics = fidelity() if metrics is None else metrics
  indices = {clip.name: clip.indices for clip in clips}
  scores = {} if overwrite else _stored(folder, clips)

  def complete(clip):
    return _complete(clip, scores[clip.name], folder, metrics, save_frames, patches)

  pending = clips if overwrite else [clip for clip in clips if not complete(clip)]
  if len(pending) < len(clips):
    logging.info('%d of %d clips are scored already.', len(clips) - len(pending), len(clips))

  def keep(name, index, lq, restored, hq):
    if lq is not None and index == indices[name][len(indices[name]) // 2]:
      panel = pictures.comparison(lq, restored, hq) if aligned else pictures.unaligned(lq, restored, hq)
      pictures.save_png(folder / 'pictures' / f'{name}.png', panel)
    if save_frames:
      for side, frame in zip(FRAMES, (restored, lq, hq), strict=True):
        if frame is not None:
          pictures.save_png(frame_path(folder, side, name, index), frame)
    if patches:
      patches.add(lq, restored, hq)

  with ticking(pending, progress) as tick:
    for clip in pending:
      if patches:
        patches.start(clip)
      new = score_clip(clip, _missing(metrics, scores.get(clip.name)), on_frame=keep, tick=tick)
      if patches:
        patches.save(folder, clip)
      scores[clip.name] = _joined(scores.get(clip.name), new)
      files.write_json(folder / f'{clip.name}.json', dataclasses.asdict(scores[clip.name]))
  return {name: scores[name] for name in indices}


def unscored(
  clips: Sequence[ClipFrames],
  folder: pathlib.Path,
  metrics: Sequence[Metric],
  *,
  save_frames: bool = False,
  patches: PatchFeatures | None = None,
) -> list[ClipFrames]:
  """The clips that `score_resumably` would still have to score; arguments are those of its."""

  stored = _stored(folder, clips)
  return [clip for clip in clips if not _complete(clip, stored[clip.name], folder, metrics, save_frames, patches)]


def _complete(clip, stored, folder, metrics, save_frames, patches):
  frames = not save_frames or frame_path(folder, 'output', clip.name, clip.indices[-1]).exists()
  return not _missing(metrics, stored) and frames and (patches is None or patches.path(folder, clip).exists())


def _stored(folder: pathlib.Path, clips: Sequence[ClipFrames]) -> dict[str, ClipScores | None]:
  found = {clip.name: _read(folder / f'{clip.name}.json', ClipScores, _AGAIN) for clip in clips}
  inputs = any(scores.input for scores in found.values() if scores)
  for clip in clips:
    if (scores := found[clip.name]) and (problem := _problem(scores, clip, inputs)):
      logging.warning('%s is damaged (%s); %s.', folder / f'{clip.name}.json', problem, _AGAIN)
      found[clip.name] = None
  return found


def _problem(scores: ClipScores, clip: ClipFrames, inputs: bool) -> str:
  """How scores do not fit their clip, or those of others, of which all have `inputs` or none; '' if they do."""
  if scores.frames != list(clip.indices):
    return f'frames: expected those that are scored, {len(clip.indices)}, found others'
  if inputs and scores.input.keys() != scores.output.keys():
    return 'input: expected the metrics of output, found others'
  return ''


def _missing(metrics: Sequence[Metric], stored: ClipScores | None) -> list[Metric]:
  def there(metric):
    return metric.name in stored.output and stored.weights.get(metric.name, '') == metric.weights

  return [metric for metric in metrics if not (stored and there(metric))]


def _joined(old: ClipScores | None, new: ClipScores) -> ClipScores:
  """The new scores and the old ones of other metrics."""
  if old is None:
    return new
  joined = {side: getattr(old, side) | getattr(new, side) for side in ('output', 'input', 'target', 'weights')}
  return dataclasses.replace(new, **joined)


def timing(path: pathlib.Path, restore: Restore, reader: ClipReader, *, overwrite: bool = False) -> dict[str, Any]:
  """Seconds per frame of the network on one device, with device and frame size; kept in `path`.

  `restore` takes the argument `devices`, as `restore_frames` does.
  """
  known = None if overwrite else _read(path, Timing, 'the network is timed again')
  if known is None or known.frame_size is None:
    frame, _ = next(reader.frames(next(iter(reader.clips)), 0, 1))
    device = jax.local_devices()[0]
    kind = f'{os.cpu_count()}-core CPU' if device.platform == 'cpu' else device.device_kind
    seconds = seconds_per_frame(functools.partial(restore, devices=[device]), frame)
    height, width, _ = frame.shape
    known = Timing(seconds, kind, (height, width))
    files.write_json(path, dataclasses.asdict(known))
  return dataclasses.asdict(known) | {'frame_size': list(known.frame_size)}


def _read(path: pathlib.Path, kind: type[T], instead: str) -> T | None:
  """Read a file; None without it, or where it is damaged, with a warning that says what is done `instead`."""
  try:
    return schemas.load(path, kind)
  except FileNotFoundError:
    return None
  except schemas.Misfit as error:
    logging.warning('%s is damaged (%s); %s.', path, error, instead)
    return None


def frame_path(folder: pathlib.Path, side: str, clip: str, index: int) -> pathlib.Path:
  """Where `score_resumably` keeps a frame; `side` is one of FRAMES."""
  return folder / side / clip / f'{index:06d}.png'
