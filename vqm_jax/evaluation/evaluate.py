"""Evaluates a trained network on a data set, or outputs that lie in folders or videos: what `vqm_jax.eval` does."""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from vqm_jax import checkpoints, data, errors, inference, locks, names
from vqm_jax.evaluation import results, scoring
from vqm_jax.evaluation.choice import FRECHET, Choice, choose
from vqm_jax.evaluation.filter_scores import score_filters
from vqm_jax.evaluation.folders import folder_clips
from vqm_jax.evaluation.stored_scores import FRAMES, fingerprint, score_resumably, source_identity, timing, unscored
from vqm_jax.files import filling
from vqm_jax.metrics import PROTOCOLS
from vqm_jax.summary import SCHEMA_VERSION, Summary, summary_of

# Called as progress(range(number of frames)) and advanced once per frame.
Progress = Callable[..., Iterable[int]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The results of an evaluation.

  Attributes:
    summaries: of the network, then of the filters beside it; of folders those of the methods, in their order.
    table: of all of these and of the unprocessed input, in Markdown.
    files: written for people and for `vqm_jax.report`: tables, `summary.json`, folders of pictures.
    missing: clips that other parts have yet to score; while there are any, all else is empty.
  """

  summaries: list[Summary]
  table: str
  files: list[pathlib.Path]
  missing: list[str] = dataclasses.field(default_factory=list)


def evaluate_run(
  run: inference.Run | str | os.PathLike,
  out: str | os.PathLike | None = None,
  *,
  split: str = 'test',
  dataset: str | None = None,
  data_dir: str | os.PathLike | None = None,
  metrics: Sequence[str] = ('auto',),
  protocol: str = 'ntire',
  every: int = 1,
  aligned: bool = True,
  self_ensemble: int = 1,
  tile: tuple[int, int] | None = None,
  overlap: int = 64,
  cuts: bool = True,
  baselines: bool = False,
  save_frames: bool = False,
  perceptual_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  part: tuple[int, int] = (0, 1),
  progress: Progress | None = None,
) -> Evaluation:
  """Restore and score a split with the network of a run, or with weights that ship.

  Clips and metrics that were scored before, by the same network on the same data in the same way, are not scored again.
  Scores lie in `out`/eval/<fingerprint>/`split`; table.md, table.csv, clips.csv, frames.csv, summary.json and pictures/
  of this call in `out`/eval/`split`.

  Args:
    run: of `inference.open_run` or `inference.open_weights`; or what `open_run` opens, at its best step.
    out: the folder of results, by default that of the run. Weights that ship need one.
    split: of the frames config.
    dataset: NAME or NAME/FRAMES_CONFIG, by default those of the run.
    data_dir: where data sets are, by default the run's own data_dir.
    metrics: names, 'auto' for what suits the data; see `choice.choose`.
    protocol: one of `metrics.PROTOCOLS`, by which the table scores frames.
    every: n scores the frames n - 1, 2n - 1, ... only.
    aligned: False if targets are of another camera, whatever the data set says.
    self_ensemble: 1, or 8 to average over flips and transposes.
    tile: (height, width) in pixels where whole frames need too much memory; None for whole frames.
    overlap: pixels that a tile sees around itself.
    cuts: whether windows of several frames stay within the scenes that the records know.
    baselines: add simple filters, fitted on the tiles that the run was trained on.
    save_frames: keep restored frames, inputs and targets as PNG.
    perceptual_dir: folder of converted weights for LPIPS.
    overwrite: score everything again.
    part: (i, n) scores every n-th clip, from number i on, beside other processes with the same `out`, here or on other
      machines. Whoever finds the scores of all clips in the end measures the time, scores the filters and makes the
      table, the same as (0, 1) makes.
    progress: called as progress(range(number of frames)) and advanced once per frame; None for silence.

  Raises:
    ConfigError: arguments that do not fit one another, the network or the data.
    CheckpointError: `run` cannot be opened.
    DataError: the data set or its split is not there, has no targets, or nothing can be measured.
    BusyError: another process evaluates into `out`, or the same part.
  """
  if not 0 <= part[0] < part[1]:
    raise errors.ConfigError(f'part: expected (i, n) with i from 0 to n - 1, found {part}.')
  run = run if isinstance(run, inference.Run) else inference.open_run(os.fspath(run))
  ships = run.workdir.is_file()
  if ships and (baselines or out is None):
    raise errors.ConfigError(
      '--weights needs --out, a folder for the scores, and takes no --baselines, which are fitted on what a run saw.'
    )
  root = pathlib.Path(run.workdir if out is None else out) / 'eval'
  dataset, val_config = _frames_config(run, dataset)
  data_dir = os.fspath(data_dir) if data_dir else run.config.get('data_dir') or None
  source = data.open_source(dataset, val_config, split, data_dir)
  reader = data.ClipReader(source)
  aligned = reader.aligned and aligned
  if baselines and not aligned:
    raise errors.ConfigError('--baselines are filters for aligned pairs; these clips are of two cameras.')
  choice = _choose(metrics, protocol=protocol, aligned=aligned, every=every, perceptual_dir=perceptual_dir)
  identity = source_identity(source) | {'frames': _frames(every), 'aligned': aligned}
  views = {'self_ensemble': self_ensemble} | ({'tile': tile, 'overlap': overlap} if tile else {})
  name = fingerprint(identity | _weights_identity(run) | views | _cuts_identity(run, reader, source, cuts, aligned))
  folder = root / name / split
  restore = functools.partial(inference.restore_frames, run.network, **views)
  clips = scoring.restored_clips(functools.partial(restore, every=every), reader, every=every, cuts=cuts)
  keep = {'overwrite': overwrite, 'progress': progress}
  shared = part != (0, 1)
  if shared:
    what = {'save_frames': save_frames, 'patches': choice.patches}
    with locks.beside(folder / 'part{}of{}'.format(*part)):
      score_resumably(clips[part[0] :: part[1]], folder, choice.metrics, aligned=aligned, **what, **keep)
    if missing := unscored(clips, folder, choice.metrics, **what):
      return Evaluation([], '', [], [clip.name for clip in missing])
    keep['overwrite'] = False
  # A run may be trained meanwhile. Parts that end together make their tables one after the other.
  with locks.folder(root, wait=shared):
    about = {
      'dataset': source.dataset_info.full_name, 'split': split, 'protocol': protocol, 'frames': _frames(every),
      'aligned': aligned, 'system': run.config['system'], 'method': _label(run, self_ensemble, tile),
      'params': run.num_params, 'step': run.step, 'ema': run.ema, 'seed': run.config.get('seed'),
      'experiment': run.experiment, 'train': run.training, 'config_hash': fingerprint(run.config),
      'timing': timing(folder / 'timing.json', restore, reader, overwrite=overwrite),
      'fingerprint': name, 'data_fingerprint': fingerprint(identity),
      'folders': {side: f'../{name}/{split}/{side}' for side in FRAMES} if save_frames else None,
    }  # fmt: skip
    about |= _scores(clips, folder, choice, aligned=aligned, save_frames=save_frames, **keep)
    others = {}
    if baselines:
      tiles = data.open_source(dataset, run.config['dataset_config'], 'train', data_dir)
      others = score_filters(reader, tiles, root, identity, every=every, metrics=choice.metrics, **keep)
    summaries = [summary_of(about), *(summary_of(about | _of_filter(*other, choice)) for other in others.items())]
    latest = root / split
    table, files = _report(summaries, latest)
    shutil.rmtree(latest / 'pictures', ignore_errors=True)
    with filling(latest / 'pictures'):
      files.append(pathlib.Path(shutil.copytree(folder / 'pictures', latest / 'pictures')))
  return Evaluation(summaries, table, files + ([folder / 'output'] if save_frames else []))


def evaluate_folders(
  methods: Mapping[str, str | os.PathLike],
  gt: str | os.PathLike,
  lq: str | os.PathLike | None = None,
  out: str | os.PathLike | None = None,
  *,
  metrics: Sequence[str] = ('auto',),
  protocol: str = 'ntire',
  every: int = 1,
  aligned: bool = True,
  perceptual_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  progress: Progress | None = None,
) -> Evaluation:
  """Score outputs that exist already, of one method or of several.

  Args:
    methods: {name: a video, or a folder of frames or clips} of the outputs; of several the names can be folders.
    gt: the targets, likewise.
    lq: the unprocessed inputs, for the gain; None if they are not at hand.
    out: folder for table.md, table.csv, clips.csv, frames.csv and summary.json, of several methods also in folders of
      their own, and for scores, which are used again; None to write nothing.
    metrics, protocol, every, perceptual_dir, overwrite, progress: see `evaluate_run`.
    aligned: whether targets show the inputs pixel by pixel; False if they are of another camera.

  Raises:
    ConfigError: an unknown metric or protocol, or no method.
    DataError: clips do not match, a name of several methods cannot be a folder, or nothing can be measured.
    VideoError: a file or folder cannot be read.
    BusyError: another evaluation is at work in `out`.
  """
  if not methods:
    raise errors.ConfigError('methods: expected one or more, found none.')
  if len(methods) > 1:
    names.check(methods, 'methods', 'method')
  given = {'output': None, 'input': lq, 'target': gt}
  choice = _choose(
    metrics, protocol=protocol, aligned=aligned, every=every, inputs=bool(lq), perceptual_dir=perceptual_dir
  )
  jobs = {method: folder_clips(path, gt, lq, every) for method, path in methods.items()}
  out = pathlib.Path(out) if out else None
  summaries = []
  with locks.folder(out) if out else contextlib.nullcontext():
    for method, (clips, files) in jobs.items():
      name = fingerprint({'files': files, 'frames': _frames(every), 'aligned': aligned})
      paths = given | {'output': methods[method]}
      about = {
        'dataset': os.fspath(gt), 'method': method, 'protocol': protocol, 'frames': _frames(every), 'aligned': aligned,
        'fingerprint': name,
        'folders': {side: str(pathlib.Path(path).resolve()) for side, path in paths.items() if path},
      }  # fmt: skip
      if len(jobs) > 1:
        logging.info('Scoring %s ...', method)
      with contextlib.ExitStack() as stack:
        folder = out or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        about |= _scores(clips, folder / name, choice, aligned=aligned, overwrite=overwrite, progress=progress)
        summaries.append(summary_of(about))
      if out and len(jobs) > 1:
        _report(summaries[-1:], out / method)
    return Evaluation(summaries, *_report(summaries, out))


def _frames_config(run: inference.Run, given: str | None) -> tuple[str, str]:
  """Data set and frames config to evaluate on: those given, else the run's own."""
  dataset, _, config = (given or run.config.get('dataset', '')).partition('/')
  if not dataset:
    raise errors.ConfigError('--dataset is required with --weights, NAME or NAME/FRAMES_CONFIG; see --help.')
  return dataset, config or run.config.get('val_config', 'frames')


def _choose(asked: Sequence[str], *, protocol: str, every: int, **how: Any) -> Choice:
  """The metrics of an evaluation, see `choose`; what cannot be measured is warned of."""
  if protocol not in PROTOCOLS:
    raise errors.ConfigError(f'protocol: expected one of {", ".join(PROTOCOLS)}, found {protocol!r}.')
  if every < 1:
    raise errors.ConfigError(f'every: expected 1 or more, found {every}.')
  choice = choose(asked, protocol=protocol, every=every, **how)
  if choice.missing:
    logging.warning('Not measured: %s; the reasons are below the table.', ', '.join(choice.missing))
  if not choice.metrics and not choice.patches:
    raise errors.DataError('Nothing can be measured: ' + ' '.join(choice.missing.values()))
  return choice


def _frames(every: int) -> str:
  return 'all' if every == 1 else f'every:{every}'


def _label(run: inference.Run, self_ensemble: int, tile: tuple[int, int] | None) -> str:
  label = run.config['system'] + (' x8' if self_ensemble == 8 else '')
  if tile:
    label += f' tiled {tile[0]}' + (f'x{tile[1]}' if tile[1] != tile[0] else '')
  return f'{label} ({run.workdir.stem if run.workdir.is_file() else f"step {run.step}"})'


def _weights_identity(run: inference.Run) -> dict[str, Any]:
  if run.workdir.is_file():
    digests = run.workdir
  else:
    digests = run.workdir / 'checkpoints' / str(run.checkpoint) / checkpoints.DIGESTS
  return {'checkpoint': [run.step, run.ema, hashlib.sha256(digests.read_bytes()).hexdigest()]}


def _cuts_identity(run, reader, source, cuts: bool, aligned: bool) -> dict[str, bool]:
  """Return the part of the fingerprint that scene cuts decide; warn where they matter and are not known."""
  several = inference.sees_several(run.network)
  if several and cuts and aligned and any(clip.cuts is None for clip in reader.clips.values()):
    logging.warning(
      '%s does not tell the scene cuts: each clip is taken for one scene; build it again if they have several',
      source.dataset_info.full_name,
    )
  return {} if cuts or not several else {'cuts': False}


def _scores(clips: list[scoring.ClipFrames], folder: pathlib.Path, choice: Choice, **how: Any) -> dict[str, Any]:
  """The scores of a summary, taken now or found in `folder`; `how` are options of `score_resumably`."""
  scores = score_resumably(clips, folder, choice.metrics, patches=choice.patches, **how)
  # Of metrics that were taken earlier only those that are asked for now are shown.
  found = scoring.summarise(scores, [metric.name for metric in choice.metrics])
  if choice.patches:
    for side, value in choice.patches.distances(folder, clips).items():
      table = {'output': 'metrics', 'input': 'no_processing'}.get(side, side)
      entry = {'mean': value, 'mean_of_frames': value, 'identical_frames': 0, 'per_clip': {}, 'per_frame': {}}
      found[table] = (found[table] or {}) | {FRECHET: entry}
    found['weights'][FRECHET] = choice.patches.weights
  return {
    'schema_version': SCHEMA_VERSION,
    'measures': choice.described(),
    'missing': choice.missing,
    **found,
    'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }


def _of_filter(method: str, scores: Mapping[str, scoring.ClipScores], choice: Choice) -> dict[str, Any]:
  """Return the fields in which the summary of a simple filter differs from that of the network beside it."""
  found = scoring.summarise(scores, [metric.name for metric in choice.metrics])
  return {'method': method, 'params': None, 'timing': None, **found}


def _report(summaries: Sequence[Summary], folder: pathlib.Path | None) -> tuple[str, list[pathlib.Path]]:
  """The table of all methods; if there is a folder, it is written with the first summary, and the files are told."""
  first, *others = summaries
  row, *unprocessed = results.rows(first)
  table = [row, *(results.rows(other)[0] for other in others), *unprocessed]
  text = results.markdown(table, first.measures, results.notes(first), first.missing)
  return text, results.write_report(folder, first, table, results.notes(first)) if folder else []
