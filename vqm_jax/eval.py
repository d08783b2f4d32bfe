"""Scores a trained run, or any folders or videos, over whole clips; describes the systems.

Example: python -m vqm_jax.eval --workdir=runs/ecnu --split=test
         python -m vqm_jax.eval --weights=web-small --dataset=mine --data_dir=data/ --out=scores/web-small/
         python -m vqm_jax.eval --pred_dir=restored/ --gt_dir=originals/ [--lq_dir=inputs/]
         python -m vqm_jax.eval --pred_dir=A=one/,B=other/ --gt_dir=originals/ --metrics=auto,tof --out=scores/
         python -m vqm_jax.eval --describe

A run's results go to <workdir>/eval/<split>: table.md, table.csv, clips.csv, frames.csv, summary.json, pictures/; those
of weights that ship with the package to <out>/eval/<split>. Started again, it goes on with the clips and metrics that
are not there yet. Folders are scored, and systems described (parameters and multiply-adds beside the paper's figures),
to the terminal, and into --out when given.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from absl import flags, logging

from vqm_jax import checkpoints, cli, data, errors, inference, locks, metrics, names
from vqm_jax.evaluation import scoring
from vqm_jax.evaluation.choice import FRECHET, Choice, choose
from vqm_jax.evaluation.filter_scores import score_filters
from vqm_jax.evaluation.folders import folder_clips
from vqm_jax.evaluation.stored_scores import FRAMES, fingerprint, score_resumably, source_identity, timing
from vqm_jax.inference import cost
from vqm_jax.report import describe, published, results
from vqm_jax.summary import SCHEMA_VERSION, Summary, summary_of

_WORKDIR = flags.DEFINE_string('workdir', None, 'Run to evaluate.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights that ship with the package, by name, in place of --workdir.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Split of the frames config.')
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint: best (by validation PSNR), latest, or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving average of the weights when the run kept one.')
_DATASET = flags.DEFINE_string('dataset', None, "Data set, or NAME/FRAMES_CONFIG, by default the run's own.")
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Where data sets are, by default the run's own data_dir.")
_SELF_ENSEMBLE = flags.DEFINE_integer('self_ensemble', 1, '8 averages over flips and transposes.')
_TILE = flags.DEFINE_string(
  'tile', None, 'Work in tiles, e.g. 512 or 540x960, where whole frames need too much memory.'
)
_OVERLAP = flags.DEFINE_integer('overlap', 64, 'Pixels that a tile sees around itself.')
_CUTS = flags.DEFINE_bool(
  'cuts', True, 'Keep windows of several frames within the scenes, whose cuts the records know.'
)
_BASELINES = flags.DEFINE_bool('baselines', False, 'Add rows for simple filters.')
_SAVE_FRAMES = flags.DEFINE_bool('save_frames', False, 'Keep the restored frames, inputs and targets as PNG.')
_PRED_DIR = flags.DEFINE_list(
  'pred_dir', None, 'Outputs to score: a video, or a folder of frames or clips; several as NAME=PATH,NAME=PATH.'
)
_GT_DIR = flags.DEFINE_string('gt_dir', None, 'Their targets.')
_LQ_DIR = flags.DEFINE_string('lq_dir', None, 'Their unprocessed inputs, for the gain.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the scores of --pred_dir or --weights, or the table of --describe.')
_DESCRIBE = flags.DEFINE_bool('describe', False, 'Print what every system is and costs; needs nothing else.')
_PROTOCOL = flags.DEFINE_enum('protocol', 'ntire', list(metrics.PROTOCOLS), 'How the table scores frames.')
_METRICS = flags.DEFINE_list(
  'metrics',
  ['auto'],
  f'What to measure: auto (PSNR and SSIM, or what suits unaligned cameras), {", ".join(metrics.NAMES)}, {FRECHET}.',
)
_PERCEPTUAL_DIR = flags.DEFINE_string('perceptual_dir', None, 'Folder of converted weights for LPIPS.')
_ALIGNED = flags.DEFINE_bool(
  'aligned', True, 'Whether targets show the inputs pixel by pixel; with --noaligned they are of another camera.'
)
_FRAMES = flags.DEFINE_string('frames', 'all', 'Frames to score: all, or every:10 (the 10th, 20th, ...).')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Score everything again.')


_PROGRESS = functools.partial(cli.progress, desc='evaluated', unit='frame')


def evaluate_run(run: inference.Run, workdir: pathlib.Path, every: int) -> None:
  """Restores and scores a split with the network of a run, or with weights that ship; results go to `workdir`/eval."""
  dataset, val_config = _frames_config(run)
  data_dir = _DATA_DIR.value or run.config.get('data_dir') or None
  source = data.open_source(dataset, val_config, _SPLIT.value, data_dir)
  reader = data.ClipReader(source)
  aligned = reader.aligned and _ALIGNED.value
  if _BASELINES.value and not aligned:
    raise errors.ConfigError('--baselines are filters for aligned pairs; these clips are of two cameras.')
  choice = _choice(every, aligned=aligned)
  identity = source_identity(source) | {'frames': _FRAMES.value, 'aligned': aligned}
  ships = run.workdir.is_file()
  digests = run.workdir if ships else workdir / 'checkpoints' / str(run.checkpoint) / checkpoints.DIGESTS
  views = {'self_ensemble': _SELF_ENSEMBLE.value}
  if tile := inference.parse_tile(_TILE.value):
    views |= {'tile': tile, 'overlap': _OVERLAP.value}
  several = inference.sees_several(run.network)
  cuts = {} if _CUTS.value or not several else {'cuts': False}
  if several and _CUTS.value and aligned and any(clip.cuts is None for clip in reader.clips.values()):
    logging.warning(
      '%s does not tell the scene cuts: each clip is taken for one scene; build it again if they have several',
      source.dataset_info.full_name,
    )
  name = fingerprint(
    identity | {'checkpoint': [run.step, run.ema, hashlib.sha256(digests.read_bytes()).hexdigest()], **views, **cuts}
  )
  folder = workdir / 'eval' / name / _SPLIT.value
  restore = functools.partial(inference.restore_frames, run.network, **views)
  clips = scoring.restored_clips(functools.partial(restore, every=every), reader, every=every, cuts=_CUTS.value)
  system = (
    run.config['system'] + (' x8' if _SELF_ENSEMBLE.value == 8 else '') + (f' tiled {_TILE.value}' if tile else '')
  )
  summary = {
    'dataset': source.dataset_info.full_name,
    'split': _SPLIT.value,
    'system': run.config['system'],
    'method': f'{system} ({run.workdir.stem if ships else f"step {run.step}"})',
    'params': run.num_params,
    'timing': timing(folder / 'timing.json', restore, reader, overwrite=_OVERWRITE.value),
    'step': run.step,
    'ema': run.ema,
    'seed': run.config.get('seed'),
    'experiment': run.experiment,
    'train': run.training,
    'config_hash': fingerprint(run.config),
    'fingerprint': name,
    'data_fingerprint': fingerprint(identity),
    'folders': {side: f'../{name}/{_SPLIT.value}/{side}' for side in FRAMES} if _SAVE_FRAMES.value else None,
  }
  summary |= _measured(clips, folder, choice, aligned, save_frames=_SAVE_FRAMES.value)
  others = {}
  if _BASELINES.value:
    tiles = data.open_source(dataset, run.config['dataset_config'], 'train', data_dir)
    options = {'metrics': choice.metrics, 'overwrite': _OVERWRITE.value, 'progress': _PROGRESS}
    others = score_filters(reader, tiles, workdir / 'eval', identity, every=every, **options)
  latest = workdir / 'eval' / _SPLIT.value
  _report([summary_of(summary), *(summary_of(summary | _row(*other)) for other in others.items())], latest)
  shutil.rmtree(latest / 'pictures', ignore_errors=True)
  print(shutil.copytree(folder / 'pictures', latest / 'pictures'))
  if _SAVE_FRAMES.value:
    print(folder / 'output')


def _frames_config(run: inference.Run) -> tuple[str, str]:
  """Data set and frames config to evaluate on: those of --dataset, else the run's own."""
  dataset, _, config = (_DATASET.value or run.config.get('dataset', '')).partition('/')
  if not dataset:
    raise errors.ConfigError('--dataset is required with --weights, NAME or NAME/FRAMES_CONFIG; see --help.')
  return dataset, config or run.config.get('val_config', 'frames')


def evaluate_folders(every: int) -> None:
  """Scores outputs that exist already, of one method or of several."""
  methods = _methods(_PRED_DIR.value)
  choice = _choice(every, aligned=_ALIGNED.value, inputs=bool(_LQ_DIR.value))
  jobs = {method: folder_clips(path, _GT_DIR.value, _LQ_DIR.value, every) for method, path in methods.items()}
  out = pathlib.Path(_OUT.value) if _OUT.value else None
  summaries = []
  for method, (clips, files) in jobs.items():
    summary = {'dataset': _GT_DIR.value, 'split': '', 'system': '', 'method': method, 'train': None}
    summary |= {'params': None, 'timing': None, 'seed': None, 'experiment': None}
    given = zip(FRAMES, (methods[method], _LQ_DIR.value, _GT_DIR.value), strict=True)
    summary['folders'] = {side: str(pathlib.Path(path).resolve()) for side, path in given if path}
    summary['fingerprint'] = fingerprint({'files': files, 'frames': _FRAMES.value, 'aligned': _ALIGNED.value})
    if len(jobs) > 1:
      logging.info('Scoring %s ...', method)
    with contextlib.ExitStack() as stack:
      folder = out or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
      summaries.append(summary_of(summary | _measured(clips, folder / summary['fingerprint'], choice, _ALIGNED.value)))
    if out and len(jobs) > 1:
      results.write_report(out / method, summaries[-1], results.rows(summaries[-1]), _notes(summaries[-1]))
  _report(summaries, out)


def describe_systems(height: int = 1080, width: int = 1920) -> None:
  """Prints parameters and cost of every system beside the paper's."""
  costs = cost.describe_all(height, width, functools.partial(cli.progress, desc='described', unit='system'))
  table = describe.rows({label: dataclasses.asdict(found) for label, found in costs.items()})
  print(describe.markdown(table, describe.notes(height, width)))
  if _OUT.value:
    print(*describe.write(pathlib.Path(_OUT.value), table, height, width), sep='\n')


def _choice(every: int, aligned: bool, inputs: bool = True) -> Choice:
  choice = choose(
    _METRICS.value, protocol=_PROTOCOL.value, aligned=aligned, every=every, inputs=inputs,
    perceptual_dir=_PERCEPTUAL_DIR.value,
  )  # fmt: skip
  if choice.missing:
    logging.warning('Not measured: %s; the reasons are below the table.', ', '.join(choice.missing))
  if not choice.metrics and not choice.patches:
    raise errors.DataError('Nothing can be measured: ' + ' '.join(choice.missing.values()))
  return choice


def _measured(
  clips: list[scoring.ClipFrames], folder: pathlib.Path, choice: Choice, aligned: bool, save_frames: bool = False
) -> dict[str, Any]:
  """Returns the scores of `summary.json`, taken now or found in `folder`."""
  scores = score_resumably(
    clips, folder, choice.metrics, aligned=aligned, overwrite=_OVERWRITE.value, save_frames=save_frames,
    patches=choice.patches, progress=_PROGRESS,
  )  # fmt: skip
  # Of metrics that were taken earlier only those that are asked for now are shown.
  measured = scoring.summarise(scores, [m.name for m in choice.metrics])
  if choice.patches:
    for side, value in choice.patches.distances(folder, clips).items():
      table = {'output': 'metrics', 'input': 'no_processing'}.get(side, side)
      entry = {'mean': value, 'mean_of_frames': value, 'identical_frames': 0, 'per_clip': {}, 'per_frame': {}}
      measured[table] = (measured[table] or {}) | {FRECHET: entry}
    measured['weights'][FRECHET] = choice.patches.weights
  return {
    'schema_version': SCHEMA_VERSION,
    'protocol': _PROTOCOL.value,
    'frames': _FRAMES.value,
    'aligned': aligned,
    'measures': choice.described(),
    'missing': choice.missing,
    **measured,
    'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }


def _row(method: str, scores: Mapping[str, scoring.ClipScores]) -> dict[str, Any]:
  """Returns what tells the summary of a simple filter from that of the network beside it."""
  return {'method': method, 'params': None, 'timing': None, **scoring.summarise(scores)}


def _report(summaries: list[Summary], folder: pathlib.Path | None) -> None:
  """Prints the table of all methods, best first, and writes it with the first summary."""
  first, *others = summaries
  row, *unprocessed = results.rows(first)
  table = [row, *(results.rows(other)[0] for other in others), *unprocessed]
  print(results.markdown(table, first.measures, _notes(first), first.missing))
  if folder:
    print(*results.write_report(folder, first, table, _notes(first)), sep='\n')


def _notes(summary: Summary) -> list[str]:
  """Writes the notes below a table."""
  data_set = f'{summary.dataset} {summary.split}'.rstrip()
  notes = [f'{data_set}; protocol {_PROTOCOL.value}, frames {_FRAMES.value}; means over clips.']
  if summary.n_clips > 1 and 'psnr' in summary.gain:
    notes.append(f'Gain: mean and 95 % interval over {summary.n_clips} clips (bootstrap of clips).')
  if 'psnr' in summary.metrics and (identical := summary.metrics['psnr'].identical_frames):
    notes.append(f'{identical} frames equal their targets; each counts as 100 dB.')
  if not summary.aligned:
    notes.append('Source and target are of two cameras: LPIPS measures how they are placed as well as how they look.')
    paper = ', '.join(f'{line.method} {line.lpips:.3f}' for line in published.TRACK2)
    notes.append(f'Paper, Table 2, on its own data, LPIPS of a network that it does not name: {paper}.')
  return notes + [f'{name}: n/a. {reason}' for name, reason in summary.missing.items()]


def _methods(given: list[str]) -> dict[str, str]:
  """{name: path} of --pred_dir; the name of a single path is the path."""
  named = [text.partition('=') for text in given]
  if len(named) == 1:
    name, _, path = named[0]
    return {name: path or name}
  methods = {name: path for name, _, path in named}
  if len(methods) < len(named) or not all(path and not names.problem(name) for name, path in methods.items()):
    raise errors.ConfigError(
      f'--pred_dir={",".join(given)}: expected NAME=PATH,NAME=PATH with different names that can be folders.'
    )
  return methods


def _every(frames: str) -> int:
  if frames == 'all':
    return 1
  kind, _, number = frames.partition(':')
  if kind != 'every' or not number.isdecimal() or int(number) < 1:
    raise errors.ConfigError(f'--frames={frames} is not all or every:N, for example every:10.')
  return int(number)


def main(argv):
  del argv
  every = _every(_FRAMES.value)
  tasks = [bool(_WORKDIR.value or _WEIGHTS.value), bool(_PRED_DIR.value or _GT_DIR.value), _DESCRIBE.value]
  if sum(tasks) != 1 or bool(_PRED_DIR.value) != bool(_GT_DIR.value):
    raise errors.ConfigError('Give one of --workdir, --weights, --pred_dir with --gt_dir, and --describe.')
  if _DESCRIBE.value:
    describe_systems()
    return
  inference.check_weights(_WORKDIR.value, _WEIGHTS.value, _STEP.value, _EMA.value)
  weights = _WEIGHTS.value or (_WORKDIR.value and inference.shipped_name(_WORKDIR.value))
  if weights and (_BASELINES.value or not _OUT.value):
    raise errors.ConfigError(
      '--weights needs --out, a folder for the scores, and takes no --baselines, which are fitted on what a run saw.'
    )
  cli.enable_compilation_cache()
  if weights:
    run, folder = inference.open_weights(weights), pathlib.Path(_OUT.value)
  elif _WORKDIR.value:
    folder = pathlib.Path(_WORKDIR.value)
    run = inference.open_run(folder, _STEP.value, _EMA.value)
  if weights or _WORKDIR.value:
    with locks.folder(folder / 'eval'):  # a run may be trained meanwhile
      evaluate_run(run, folder, every)
  else:
    evaluate_folders(every)


if __name__ == '__main__':
  cli.run(main)
