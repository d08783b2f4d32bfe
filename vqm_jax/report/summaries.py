"""Finds `summary.json` files of evaluations, and sorts them into blocks that may be compared.

A block holds results on the very same clips and frames under one protocol. Runs of one experiment that differ in
nothing but the seed become one result, with the single ones kept below it.
"""

import collections
import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vqm_jax import errors, names, published
from vqm_jax.metrics import PSNR_OF_IDENTICAL, statistics
from vqm_jax.summary import Scores, Summary

_AGREE = 1e-6  # how far shared scores of two summaries may differ: rounding, nothing else
_SAME_PSNR = 0.02  # dB: how well the original test set has to reproduce the paper's unprocessed row
_RESERVED = ('No processing', 'Source', 'Target')


@dataclasses.dataclass(frozen=True)
class Score:
  """One metric of one method.

  Attributes:
    mean: over clips; over seeds, too, when there are several.
    per_clip: by clip; empty for metrics of a whole set.
    std: sample standard deviation of `mean` over seeds; None for a single run.
  """

  mean: float
  per_clip: Mapping[str, float]
  std: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
  """One evaluation of a method; the fields are those of `summary.json`.

  Attributes:
    method: the label of its row, different from all others of its block.
    scores: by metric.
    paths: of the summaries behind it, one for each seed; none for inputs and targets.
    seeds: the single results, when there are several.
  """

  method: str
  scores: Mapping[str, Score]
  missing: Mapping[str, str]
  paths: tuple[str, ...] = ()
  system: str = ''
  step: int | None = None
  ema: bool | None = None
  seed: int | None = None
  experiment: str | None = None
  params: int | None = None
  timing: Mapping[str, Any] | None = None
  train: Mapping[str, Any] | None = None
  seeds: tuple['Result', ...] = ()


@dataclasses.dataclass(frozen=True)
class Block:
  """Results that may be compared.

  Attributes:
    dataset, split, protocol, frames, aligned: fields of `summary.json`, the same for all.
    n_frames: scored frames of all clips; None if no summary says.
    clips: their names.
    category: by clip, where it has one.
    no_processing, target: scores of the inputs, and of the targets against themselves; empty when nobody has them.
    original: whether this is the test set of the paper (`is_original_test_set`).
    results: of the methods.
  """

  dataset: str
  split: str
  protocol: str
  frames: str
  aligned: bool
  n_frames: int | None
  clips: tuple[str, ...]
  category: Mapping[str, str]
  no_processing: Mapping[str, Score]
  target: Mapping[str, Score]
  original: bool
  results: tuple[Result, ...]

  def metric(self, name: str) -> str:
    """Name a metric as the block's protocol does, which has its own PSNR and SSIM."""
    return f'{name}_{self.protocol}' if name in ('psnr', 'ssim') and self.protocol != 'ntire' else name


def find(paths: Iterable[str], split: str = 'test') -> list[pathlib.Path]:
  """Summary files in the order given; of files with the same contents only the first.

  Args:
    paths: of summary.json files, of folders that hold one (or one for each of several methods), or of workdirs, which
      hold eval/<split>/summary.json.
    split: wanted of workdirs; 'all' takes every one.

  Raises:
    DataError: a path leads to no summary.
  """
  found = []
  for path in map(pathlib.Path, paths):
    below = path if path.name == 'eval' else path / 'eval'
    if path.is_file():
      found.append(path)
    elif (here := path / 'summary.json').is_file():
      found += [*sorted(path.glob('*/summary.json')), here]  # scored together: each method has its own, the first both
    elif splits := {file.parent.name: file for file in sorted(below.glob('*/summary.json'))}:
      if split != 'all' and split not in splits:
        raise errors.DataError(
          f'{below} has no {split}/summary.json, only of {", ".join(splits)}; evaluate --split={split}, or choose '
          'with --split.'
        )
      found += splits.values() if split == 'all' else [splits[split]]
    else:
      raise errors.DataError(
        f'{path} leads to no results; expected a summary.json, a folder that holds one, or a workdir with '
        'eval/<split>/summary.json, as python -m vqm_jax.eval writes them.'
      )
  first = {}
  for file in found:
    first.setdefault(file.read_bytes(), file)
  return list(first.values())


def is_original_test_set(summary: Summary) -> bool:
  """Whether a summary is of the very frames that the paper's Table 1 is about.

  These are 16 clips named 076 to 091 of 120 frames, all scored under protocol `ntire`, whose unprocessed input scores
  within 0.02 dB of the paper's 30.553.
  """
  inputs = (summary.no_processing or {}).get('psnr')
  if not inputs or summary.protocol != 'ntire' or not summary.aligned:
    return False
  names = tuple(sorted(inputs.per_clip))
  lengths = {len(frames) for frames in inputs.per_frame.values()}
  return (
    names == published.TRACK1_CLIPS
    and lengths == {published.TRACK1_FRAMES}
    and abs(inputs.mean - published.NO_PROCESSING.psnr) <= _SAME_PSNR
  )


def blocks(summaries: Mapping[str, Summary]) -> list[Block]:
  """Sort summaries, by path, into blocks; data sets in the order of their names.

  Raises:
    DataError: summaries of one block were not made from the same frames.
  """
  groups = collections.defaultdict(dict)
  for path, summary in summaries.items():
    names.check(_clips(summary), path)
    for text in (summary.method, *summary.category.values()):
      if text and (wrong := names.label_problem(text)):
        raise errors.DataError(f'{path}: the label {text[:60]!r} {wrong}; evaluate again.')
    groups[_identity(summary)][path] = summary, _result(path, summary)
  return [_block(*key, groups[key]) for key in sorted(groups)]


def _clips(summary: Summary) -> set[str]:
  """The names of all clips that a summary speaks of."""
  sides = (summary.metrics, summary.no_processing or {}, summary.target or {})
  return {clip for side in sides for metric in side.values() if metric for clip in metric.per_clip} | {
    *summary.frame_indices
  }


def _identity(summary: Summary) -> tuple[str, str, str, str, bool, tuple[str, ...]]:
  clips = sorted({clip for metric in summary.metrics.values() for clip in metric.per_clip})
  return summary.dataset, summary.split, summary.protocol, summary.frames, summary.aligned, tuple(clips)


def _scores(side: Mapping[str, Scores] | None) -> dict[str, Score]:
  def number(metric: str, value: float) -> float:
    return PSNR_OF_IDENTICAL if metric.startswith('psnr') and value == math.inf else value

  return {
    metric: Score(number(metric, scores.mean), {clip: number(metric, value) for clip, value in scores.per_clip.items()})
    for metric, scores in (side or {}).items()
  }


def _result(path: str, summary: Summary) -> Result:
  return Result(
    method=summary.method,
    system=summary.system,
    step=summary.step,
    ema=summary.ema,
    seed=summary.seed,
    experiment=summary.experiment,
    params=summary.params,
    timing=summary.timing and dataclasses.asdict(summary.timing),
    train=summary.train and dataclasses.asdict(summary.train),
    scores=_scores(summary.metrics),
    missing=summary.missing,
    paths=(path,),
  )


def _block(dataset, split, protocol, frames, aligned, clips, members) -> Block:
  """A block from its summaries and results by path."""
  raw = {path: summary for path, (summary, _) in members.items()}
  for field in ('n_frames', 'data_fingerprint'):
    values = {path: getattr(summary, field) for path, summary in raw.items() if getattr(summary, field) is not None}
    if len(set(values.values())) > 1:
      (first, one), (second, other) = next((a, b) for a in values.items() for b in values.items() if a[1] != b[1])
      raise errors.DataError(
        f'{first} and {second} name the same clips of {dataset} {split}'.rstrip()
        + f', but {field} is {one} and {other}: the data changed between them; evaluate both on the same.'
      )
  category = {}
  for summary in raw.values():
    category |= {clip: name for clip, name in summary.category.items() if name and clip in clips}
  return Block(
    dataset=dataset,
    split=split,
    protocol=protocol,
    frames=frames,
    aligned=aligned,
    n_frames=next((summary.n_frames for summary in raw.values() if summary.n_frames is not None), None),
    clips=clips,
    category=category,
    no_processing=_shared('no_processing', raw),
    target=_shared('target', raw),
    original=any(map(is_original_test_set, raw.values())),
    results=_labelled(_joined([result for _, result in members.values()])),
  )


def _shared(side: str, raw: Mapping[str, Summary]) -> dict[str, Score]:
  """Scores that all summaries of a block share, checked against each other."""
  found, origin = {}, {}
  for path, summary in raw.items():
    for metric, score in _scores(getattr(summary, side)).items():
      first = found.setdefault(metric, score)
      origin.setdefault(metric, path)
      pairs = [(first.mean, score.mean)]
      pairs += [(first.per_clip[clip], score.per_clip[clip]) for clip in first.per_clip.keys() & score.per_clip.keys()]
      for one, other in pairs:
        if not math.isclose(one, other, rel_tol=0, abs_tol=_AGREE) and not (math.isnan(one) and math.isnan(other)):
          raise errors.DataError(
            f'{origin[metric]} and {path} differ in {metric} of {side}: {one:.6f} and {other:.6f}, expected the same; '
            'the data or the metric changed between them, so evaluate both again.'
          )
  return found


def _joined(results: Sequence[Result]) -> list[Result]:
  """Results, those of one experiment under several seeds made one."""
  groups = collections.defaultdict(list)
  for result in results:
    alone = result.experiment is None or result.seed is None
    groups[result.paths if alone else (result.experiment, stepless(result.method), result.ema)].append(result)
  out = []
  for members in groups.values():
    seeds = collections.Counter(member.seed for member in members)
    if len(seeds) == 1:
      out += members
      continue
    if twice := [seed for seed, count in seeds.items() if count > 1]:
      paths = [path for member in members if member.seed == twice[0] for path in member.paths]
      raise errors.DataError(
        f'{" and ".join(paths)} are results of one experiment with the same seed {twice[0]} beside other seeds; give '
        'one for each seed.'
      )
    out.append(_mean_of_seeds(sorted(members, key=lambda member: member.seed)))
  return out


def _mean_of_seeds(members: Sequence[Result]) -> Result:
  first, scores, missing = members[0], {}, {}
  for metric in dict.fromkeys(metric for member in members for metric in (*member.scores, *member.missing)):
    have = [member.scores[metric] for member in members if metric in member.scores]
    if len(have) < len(members):  # a mean over some of the seeds would pass for one over all
      reasons = [member.missing[metric] for member in members if metric in member.missing]
      missing[metric] = '; '.join(dict.fromkeys(reasons)) or f'measured for {len(have)} of {len(members)} seeds only'
      continue
    mean, std, _ = statistics.spread([score.mean for score in have])
    clips = [clip for clip in have[0].per_clip if all(clip in score.per_clip for score in have)]
    per_clip = {clip: statistics.spread([score.per_clip[clip] for score in have])[0] for clip in clips}
    scores[metric] = Score(mean, per_clip, std)
  trained = [member.train for member in members if member.train]
  train = None
  if trained:
    seconds = [float(one['seconds']) for one in trained if one['seconds'] is not None]
    train = {
      'hardware': ', '.join(dict.fromkeys(one['hardware'] for one in trained if one['hardware'])),
      'seconds': statistics.spread(seconds)[0] if seconds else None,
      'extra_data': any(one['extra_data'] for one in trained),
      'notes': list(dict.fromkeys(note for one in trained for note in one['notes'] or [])),
    }
  steps = {member.step for member in members}
  return dataclasses.replace(
    first,
    method=f'{stepless(first.method)} ({len(members)} seeds)',
    step=steps.pop() if len(steps) == 1 else None,
    seed=None,
    timing=next((member.timing for member in members if member.timing), None),
    train=train,
    scores=scores,
    missing=missing,
    paths=tuple(path for member in members for path in member.paths),
    seeds=tuple(members),
  )


def stepless(method: str) -> str:
  """The label of a row without '(step N)'."""
  return re.sub(r'\s*\(step [^)]*\)', '', method)


def _labelled(results: Sequence[Result]) -> tuple[Result, ...]:
  """Results with labels that differ: where two are the same, the name of the workdir follows, or the whole path."""
  for origin in (_workdir, lambda path: path):
    counts = collections.Counter([*_RESERVED, *(result.method for result in results)])
    results = [
      dataclasses.replace(result, method=f'{result.method} [{origin(result.paths[0])}]')
      if counts[result.method] > 1
      else result
      for result in results
    ]
  return tuple(results)


def _workdir(path: str) -> str:
  parents = pathlib.Path(path).resolve().parents
  return parents[2].name if len(parents) > 2 and parents[1].name == 'eval' else parents[0].name
