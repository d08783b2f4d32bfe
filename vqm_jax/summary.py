"""`summary.json`: what one evaluation says of one method on one data set. Made, read, checked and written here only."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from vqm_jax import errors, files, schemas

NAME = 'summary.json'
SCHEMA_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Scores:
  """One metric of one side: outputs, unprocessed inputs or targets.

  Attributes:
    mean: over clips.
    mean_of_frames: over the frames of all clips.
    identical_frames: how many equal their targets; each counts as 100 dB in means.
    per_clip: by clip; empty for metrics of a whole set.
    per_frame: by clip, of each frame, of each pair of neighbours, or one of the clip; infinite for identical frames.
  """

  mean: schemas.Score
  mean_of_frames: schemas.Score | None = None
  identical_frames: schemas.Count = 0
  per_clip: Mapping[str, schemas.Score] = dataclasses.field(default_factory=dict)
  per_frame: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Column:
  """How tables show a metric: its heading, whether higher or lower is better, its decimals."""

  label: str
  better: str = ''
  decimals: schemas.Count = 3


@dataclasses.dataclass(frozen=True)
class Timing:
  """Seconds of one frame of `frame_size` (height, width), network only, on one device."""

  seconds_per_frame: float
  device: str = ''
  frame_size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Training:
  """How a network was trained: hardware, seconds, whether on other data than those of the data set, and what else."""

  hardware: str = ''
  seconds: float | None = None
  extra_data: bool | None = None
  notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """The content of `summary.json`.

  Attributes:
    dataset, split: what was scored; for folders the path of the targets, and ''.
    method: the label of its row.
    metrics: by metric, of the outputs.
    no_processing, target: the same of the inputs, and of the targets against themselves; None where nothing is known.
    system, step, ema, seed, experiment, params, train, config_hash: of the network; '' or None for folders.
    timing: of the network; None when it was not timed.
    protocol, frames, aligned: how it was scored.
    measures: how tables show each metric that was asked for; files have this key from the time of another word.
    missing: why some of them could not be taken.
    weights: SHA-256 of the weights of learned metrics; None for random ones, which only tests use.
    gain: outputs less inputs, by metric.
    frame_indices: of the scored frames, by clip.
    category: by clip; '' if unknown.
    per_category: {'n_clips', metric, ...} of the clips of each.
    seconds_end_to_end: per frame, with reading and scoring; the median of clips.
    folders: of the frames that were kept: {'output', 'input', 'target'}, relative to the file, or absolute.
    fingerprint, data_fingerprint: of all that scores depend on beside the metrics, and of the data alone.
    created: when, in ISO 8601.
  """

  schema_version: schemas.Count = 1
  dataset: str
  split: str = ''
  method: str
  metrics: Mapping[str, Scores | None]
  no_processing: Mapping[str, Scores | None] | None = None
  target: Mapping[str, Scores | None] | None = None
  system: str = ''
  step: int | None = None
  ema: bool | None = None
  seed: int | None = None
  experiment: str | None = None
  params: schemas.Count | None = None
  train: Training | None = None
  config_hash: str | None = None
  timing: Timing | None = None
  protocol: str = 'ntire'
  frames: str = 'all'
  aligned: bool = True
  measures: Mapping[str, Column] = dataclasses.field(default_factory=dict)
  missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
  n_clips: schemas.Count | None = None
  n_frames: schemas.Count | None = None
  weights: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
  gain: Mapping[str, float] = dataclasses.field(default_factory=dict)
  frame_indices: Mapping[str, list[schemas.Count]] = dataclasses.field(default_factory=dict)
  category: Mapping[str, str] = dataclasses.field(default_factory=dict)
  per_category: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  seconds_end_to_end: float | None = None
  folders: Mapping[str, str] | None = None
  fingerprint: str | None = None
  data_fingerprint: str | None = None
  created: str | None = None


def read_summary(path: pathlib.Path) -> Summary:
  """Read a summary of any version up to this one.

  Raises:
    DataError: the file is damaged, something else, of a newer program, or scored with random weights.
  """
  try:
    content = schemas.parse(schemas.content_of(path))
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} is not there; evaluate first, or check the path.') from error
  except schemas.Misfit as error:
    raise errors.DataError(f'{path} is damaged ({error}); run the evaluation again.') from error
  if not isinstance(content, dict) or (lacks := [f for f in ('dataset', 'method', 'metrics') if not content.get(f)]):
    what = f'lacks {", ".join(lacks)}' if isinstance(content, dict) else 'holds no object'
    raise errors.DataError(f'{path} is no summary of an evaluation: it {what}; give what vqm_jax.eval wrote.')
  version = content.get('schema_version', 1)
  if not isinstance(version, int) or version > SCHEMA_VERSION:
    raise errors.DataError(
      f'{path}: schema_version is {version!r:.60}, this program knows up to {SCHEMA_VERSION}; use the one that '
      'wrote it.'
    )
  try:
    summary = summary_of(content)
  except schemas.Misfit as error:
    raise errors.DataError(
      f'{path} is no summary that this program can read ({error}); run the evaluation again.'
    ) from error
  if random := [metric for metric, digest in summary.weights.items() if digest is None]:
    raise errors.DataError(
      f'{path}: {", ".join(random)} was measured with random weights, which means nothing in a table; bring the '
      'trained ones (python -m vqm_jax.perceptual.convert) and evaluate again.'
    )
  return summary


def summary_of(content: Mapping[str, Any]) -> Summary:
  """Make a summary of what `summary.json` holds. Raises `schemas.Misfit` for what does not fit."""
  summary = schemas.check(content, Summary)
  sides = {name: getattr(summary, name) for name in ('metrics', 'no_processing', 'target')}
  known = {name: side and {metric: s for metric, s in side.items() if s} for name, side in sides.items()}
  for clip, indices in summary.frame_indices.items():
    if not indices or any(after <= before for before, after in itertools.pairwise(indices)):
      raise schemas.Misfit(f'frame_indices.{clip!r:.60}: expected rising indices, found others')
  for side, tables in known.items():
    for metric, scores in (tables or {}).items():
      where = f'{side}.{metric!r:.60}'
      if scores.per_frame and scores.per_frame.keys() != scores.per_clip.keys():
        raise schemas.Misfit(f'{where}.per_frame: expected the clips of per_clip, found others')
      if summary.frame_indices and not scores.per_clip.keys() <= summary.frame_indices.keys():
        raise schemas.Misfit(f'{where}.per_clip: expected the clips of frame_indices, found others')
  return dataclasses.replace(summary, **known)


def write_summary(path: pathlib.Path, summary: Summary) -> None:
  """Write a summary, whole or not at all."""
  files.write_json(path, dataclasses.asdict(summary))
