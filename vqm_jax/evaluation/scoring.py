"""Scoring clips frame by frame: validation in training and `vqm_jax.eval` run this very code.

A clip's score is the mean over its frames, a data set's score the mean over its clips; identical
frames count as 100 dB in means.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vqm_jax import errors, metrics, names
from vqm_jax.data import ClipReader
from vqm_jax.inference.streaming import known_cuts
from vqm_jax.metrics import Metric

# uint8 (H, W, 3) frames of one clip in, restored ones out, in order: all, or every n-th. Of a clip with scene cuts
# it is told these, too: `find_cuts`, see `restore_frames`.
Restore = Callable[..., Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class ClipFrames:
  """One clip to score.

  Attributes:
    name: the clip's name.
    indices: of the frames that `frames()` yields.
    category: what the clip shows, '' if unknown.
    frames: starts an iterator of (input or None, output, target), each uint8 (H, W, 3).
  """

  name: str
  indices: Sequence[int]
  category: str
  frames: Callable[[], Iterator[tuple[np.ndarray | None, np.ndarray, np.ndarray]]]

  def __post_init__(self):
    names.check([self.name], 'to be scored')  # files are called after it


@dataclasses.dataclass(frozen=True)
class ClipScores:
  """The scores of one clip.

  Attributes:
    frames: indices of the scored frames.
    output: {metric: values} of the outputs, as `Metric` gives them: one for each frame, for each pair of
      neighbours, or one for the clip. The clip's score is their mean.
    input: the same of the unprocessed inputs; empty when there were none.
    target: the same of the targets themselves, where a metric has such a floor.
    weights: {metric: SHA-256 of its weights} of learned metrics; None for random ones, which only tests use.
    category: of the clip.
    height, width: of its frames.
    seconds: per frame, end to end: reading, restoring and scoring.
  """

  frames: list[int]
  output: dict[str, list[float]]
  input: dict[str, list[float]]
  target: dict[str, list[float]]
  weights: dict[str, str | None]
  category: str
  height: int
  width: int
  seconds: float


# Called for every frame with (clip, index, input or None, output, target).
OnFrame = Callable[[str, int, np.ndarray | None, np.ndarray, np.ndarray], None]


def fidelity(protocol: str = 'ntire', *, ssim: bool = True) -> list[Metric]:
  """PSNR and, unless told otherwise, SSIM: by the challenge's protocol and by `protocol`, see `metrics.PROTOCOLS`."""
  suffixes = dict.fromkeys(('', '' if protocol == 'ntire' else f'_{protocol}'))
  return [metrics.create(name + suffix) for suffix in suffixes for name in (['psnr', 'ssim'] if ssim else ['psnr'])]


def evaluate_clips(
  restore: Restore,
  reader: ClipReader,
  *,
  clips: list[str] | None = None,
  max_frames: int | None = None,
  every: int = 1,
  cuts: bool = True,
  metrics: Sequence[Metric] | None = None,
  on_frame: OnFrame | None = None,
  progress: Callable[..., Iterable[int]] | None = None,
) -> dict[str, ClipScores]:
  """Restore clips and score them against their targets, in memory for a few frames.

  Args:
    restore: for example `functools.partial(restore_frames, network)`; called once per clip.
    reader: inputs and targets.
    clips: names; all clips of the reader by default.
    max_frames: only the first `max_frames` of each clip, as if the clip ended there: all but the
      last half window see their true neighbours.
    every: `restore` gives every n-th frame only (n-1, 2n-1, ...), and these are scored.
    cuts: whether `restore` is told the scene cuts of the clips, which the records know.
    metrics: what is measured; PSNR and SSIM by default.
    on_frame: called for every frame with (clip, index, input, output, target).
    progress: called as progress(range(number of frames)) and advanced once per frame.

  Raises:
    DataError: unknown clip, targets withheld, or another number or size of frames came out.
  """
  jobs = restored_clips(restore, reader, clips, max_frames, every, cuts)
  metrics = fidelity() if metrics is None else metrics
  with ticking(jobs, progress) as tick:
    return {clip.name: score_clip(clip, metrics, on_frame=on_frame, tick=tick) for clip in jobs}


def restored_clips(
  restore: Restore,
  reader: ClipReader,
  clips: list[str] | None = None,
  max_frames: int | None = None,
  every: int = 1,
  cuts: bool = True,
) -> list[ClipFrames]:
  """The clips that `evaluate_clips` scores; nothing is read before their frames are asked for."""
  names = list(reader.clips) if clips is None else clips
  if missing := [name for name in names if name not in reader.clips]:
    raise errors.DataError(f'No clip {missing[0]!r}; available: {", ".join(reader.clips)}.')
  jobs = []
  for name in names:
    clip = reader.clips[name]
    stop = min(clip.num_frames, max_frames or clip.num_frames)
    starts = (clip.cuts or ()) if cuts else ()
    told = functools.partial(restore, find_cuts=known_cuts(starts)) if starts else restore
    frames = functools.partial(_restored, told, reader, name, stop, every)
    jobs.append(ClipFrames(name, every_nth(name, stop, every), clip.category, frames))
  return jobs


def every_nth(name: str, num_frames: int, every: int) -> range:
  """Indices n-1, 2n-1, ... of a clip. Raises DataError when the clip is too short to have one."""
  if num_frames < every:
    raise errors.DataError(
      f'Clip {name!r} has {num_frames} frames, none of them is every {every}th one; score all frames.'
    )
  return range(every - 1, num_frames, every)


@contextlib.contextmanager
def ticking(clips: Sequence[ClipFrames], progress: Callable[..., Iterable[int]] | None) -> Iterator[Callable[[], None]]:
  """A function to call for every frame of `clips`, which moves a progress bar."""
  total = sum(len(clip.indices) for clip in clips)
  ticks = iter(progress(range(total)) if progress else range(total))
  yield lambda: next(ticks, None)
  next(ticks, None)


def score_clip(
  clip: ClipFrames,
  metrics: Sequence[Metric],
  *,
  on_frame: OnFrame | None = None,
  tick: Callable[[], None] = lambda: None,
) -> ClipScores:
  """Score one clip whose outputs exist or are made on the way; arguments and errors are those of `evaluate_clips`."""
  begin, count = time.perf_counter(), 0
  scorers = {metric.name: (metric.floor, metric.start()) for metric in metrics}
  inputs = False
  for index, (lq, restored, hq) in zip(clip.indices, clip.frames(), strict=False):
    if restored.shape != hq.shape:
      raise errors.DataError(f'Clip {clip.name!r}, frame {index}: output is {restored.shape}, target {hq.shape}.')
    inputs = lq is not None
    candidates = [restored, lq] if inputs else [restored]
    for floor, scorer in scorers.values():
      scorer.add([*candidates, hq] if floor else candidates, hq, lq)
    if on_frame:
      on_frame(clip.name, index, lq, restored, hq)
    tick()
    count += 1
  if count != len(clip.indices):
    raise errors.DataError(f'Clip {clip.name!r}: {count} frames to score, expected {len(clip.indices)}.')
  sides = {'output': {}, 'input': {}, 'target': {}}
  for name, (floor, scorer) in scorers.items():
    names = ['output', *(['input'] if inputs else []), *(['target'] if floor else [])]
    for side, values in zip(names, scorer.values(), strict=True):
      sides[side][name] = values
  return ClipScores(
    frames=list(clip.indices),
    **sides,
    weights={metric.name: metric.weights for metric in metrics if metric.weights != ''},
    category=clip.category,
    height=hq.shape[0],
    width=hq.shape[1],
    seconds=(time.perf_counter() - begin) / count,
  )


def mean_scores(scores: Mapping[str, ClipScores]) -> dict[str, float]:
  """The mean over clips of every metric: {'psnr', 'ssim', 'psnr_input', 'gain', ...}.

  Without inputs the last two are absent; `gain` is in dB over the unprocessed input.
  """
  out = {}
  for suffix in ('', '_input'):
    sides = [s.input if suffix else s.output for s in scores.values()]
    for metric in _shared(sides):
      out[metric + suffix] = float(np.mean([metrics.mean_psnr(side[metric])[0] for side in sides]))
  if 'psnr_input' in out:
    out['gain'] = out['psnr'] - out['psnr_input']
  return out


def summarise(scores: Mapping[str, ClipScores], names: Sequence[str] | None = None) -> dict[str, Any]:
  """The measured part of a summary file: metrics, no_processing, target, gain, categories, counts.

  Of the metrics that all clips have, or of those in `names`.
  """
  if names is not None:
    scores = {clip: _only(score, names) for clip, score in scores.items()}

  def table(side: str) -> dict[str, Any] | None:
    per_clip = {name: getattr(s, side) for name, s in scores.items()}
    out = {}
    for metric in _shared(list(per_clip.values())):
      per_frame = {name: values[metric] for name, values in per_clip.items()}
      means = {name: metrics.mean_psnr(values)[0] for name, values in per_frame.items()}
      overall, identical = metrics.mean_psnr(list(itertools.chain(*per_frame.values())))
      out[metric] = {
        'mean': float(np.mean(list(means.values()))),
        'mean_of_frames': overall,
        'identical_frames': identical,
        'per_clip': means,
        'per_frame': per_frame,
      }
    return out or None

  def category(name: str) -> dict[str, Any]:
    members = {clip: s for clip, s in scores.items() if s.category == name}
    return {'n_clips': len(members), **mean_scores(members)}

  means = mean_scores(scores)
  return {
    'n_clips': len(scores),
    'n_frames': sum(len(s.frames) for s in scores.values()),
    'metrics': table('output'),
    'no_processing': table('input'),
    'target': table('target'),
    'weights': next(iter(scores.values())).weights,
    'gain': {
      metric.removesuffix('_input'): means[metric.removesuffix('_input')] - value
      for metric, value in means.items()
      if metric.endswith('_input')
    },
    'frame_indices': {name: s.frames for name, s in scores.items()},
    'category': {name: s.category for name, s in scores.items()},
    'per_category': {name: category(name) for name in sorted({s.category for s in scores.values()})},
    'seconds_end_to_end': statistics.median(s.seconds for s in scores.values()),
  }


def _shared(sides: Sequence[Mapping[str, Any]]) -> list[str]:
  """The metrics of the first that all have: clips that were scored earlier may have more."""
  return [name for name in sides[0] if all(name in side for side in sides)]


def _only(scores: ClipScores, names: Sequence[str]) -> ClipScores:
  parts = {side: getattr(scores, side) for side in ('output', 'input', 'target', 'weights')}
  kept = {side: {name: part[name] for name in names if name in part} for side, part in parts.items()}
  return dataclasses.replace(scores, **kept)


def seconds_per_frame(
  restore: Restore, frame: np.ndarray, *, frames: int = 20, warm_up: int = 3, budget: float = 20.0
) -> float:
  """Median seconds from one output to the next, while `restore` streams copies of `frame`.

  The network and its transfers only: no decoding, no scoring, first outputs (compilation) left
  out, and each output waited for. Stops early, after at least one output, when `budget` seconds
  are spent.
  """
  outputs = iter(restore(itertools.repeat(frame)))
  for _ in range(warm_up):
    next(outputs)
  taken = []
  while not taken or (len(taken) < frames and sum(taken) < budget):
    begin = time.perf_counter()
    next(outputs)
    taken.append(time.perf_counter() - begin)
  return statistics.median(taken)


def _restored(restore: Restore, reader: ClipReader, name: str, stop: int, every: int):
  waiting = collections.deque()

  def inputs():
    for index, (lq, hq) in enumerate(reader.frames(name, 0, stop), start=1):
      if hq is None:
        raise errors.DataError(f'Clip {name!r} has no targets to score against (they are withheld); use another split.')
      if index % every == 0:
        waiting.append((lq, hq))
      yield lq

  for restored in restore(inputs()):
    lq, hq = waiting.popleft()
    yield lq, restored, hq
