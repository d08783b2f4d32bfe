"""Scores a trained run, or any folders or videos, with PSNR and SSIM over whole clips; describes the systems.

Example: python -m vqm_jax.eval --workdir=runs/ecnu --split=test
         python -m vqm_jax.eval --pred_dir=restored/ --gt_dir=originals/ [--lq_dir=inputs/]
         python -m vqm_jax.eval --describe

A run's results go to <workdir>/eval/<split>: table.md, table.csv, summary.json, pictures/. Started
again, it goes on with the clips that are not scored yet. Folders are scored, and systems described
(parameters and multiply-adds beside the paper's figures), to the terminal, and into --out when given.
"""

import dataclasses
import datetime
import functools
import hashlib
import pathlib
import shutil
from typing import Any

from absl import flags

from vqm_jax import checkpoints, cli, data, errors, inference, metrics
from vqm_jax.inference import cost, evaluation
from vqm_jax.inference.folders import folder_clips
from vqm_jax.inference.simple_filters import score_filters
from vqm_jax.inference.stored_scores import fingerprint, score_resumably, source_identity, timing
from vqm_jax.report import describe, results

_WORKDIR = flags.DEFINE_string('workdir', None, 'Run to evaluate.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Split of the frames config.')
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint: best (by validation PSNR), latest, or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving average of the weights when the run kept one.')
_DATASET = flags.DEFINE_string('dataset', None, "Data set, by default the run's own.")
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Where data sets are, by default the run's own data_dir.")
_SELF_ENSEMBLE = flags.DEFINE_integer('self_ensemble', 1, '8 averages over flips and transposes.')
_TILE = flags.DEFINE_string(
  'tile', None, 'Work in tiles, e.g. 512 or 540x960, where whole frames need too much memory.'
)
_OVERLAP = flags.DEFINE_integer('overlap', 64, 'Pixels that a tile sees around itself.')
_BASELINES = flags.DEFINE_bool('baselines', False, 'Add rows for simple filters.')
_SAVE_FRAMES = flags.DEFINE_bool('save_frames', False, 'Keep the restored frames as PNG.')
_PRED_DIR = flags.DEFINE_string('pred_dir', None, 'Outputs to score: a video, or a folder of frames or clips.')
_GT_DIR = flags.DEFINE_string('gt_dir', None, 'Their targets.')
_LQ_DIR = flags.DEFINE_string('lq_dir', None, 'Their unprocessed inputs, for the gain.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the scores of --pred_dir, or the table of --describe.')
_DESCRIBE = flags.DEFINE_bool('describe', False, 'Print what every system is and costs; needs nothing else.')
_PROTOCOL = flags.DEFINE_enum('protocol', 'ntire', list(metrics.PROTOCOLS), 'How the table scores frames.')
_FRAMES = flags.DEFINE_string('frames', 'all', 'Frames to score: all, or every:10 (the 10th, 20th, ...).')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Score everything again.')


def evaluate_run(workdir: pathlib.Path, every: int, options: dict[str, Any]) -> None:
  """Restores and scores a split with the network of a run."""
  run = inference.open_run(workdir, _STEP.value, _EMA.value)
  dataset = _DATASET.value or run.config['dataset']
  data_dir = _DATA_DIR.value or run.config['data_dir'] or None
  source = data.open_source(dataset, run.config['val_config'], _SPLIT.value, data_dir)
  reader = data.ClipReader(source)
  scoring = source_identity(source) | {'protocol': _PROTOCOL.value, 'frames': _FRAMES.value}
  digests = workdir / 'checkpoints' / str(run.step) / checkpoints.DIGESTS
  views = {'self_ensemble': _SELF_ENSEMBLE.value}
  if tile := inference.parse_tile(_TILE.value):
    views |= {'tile': tile, 'overlap': _OVERLAP.value}
  name = fingerprint(
    scoring | {'checkpoint': [run.step, run.ema, hashlib.sha256(digests.read_bytes()).hexdigest()], **views}
  )
  folder = workdir / 'eval' / name / _SPLIT.value
  restore = functools.partial(inference.restore_frames, run.network, **views)
  clips = evaluation.restored_clips(functools.partial(restore, every=every), reader, every=every)
  scores = score_resumably(clips, folder, save_frames=_SAVE_FRAMES.value, **options)
  system = (
    run.config['system'] + (' x8' if _SELF_ENSEMBLE.value == 8 else '') + (f' tiled {_TILE.value}' if tile else '')
  )
  summary = {
    'dataset': source.dataset_info.full_name,
    'split': _SPLIT.value,
    'method': f'{system} (step {run.step})',
    'params': run.num_params,
    'timing': timing(folder / 'timing.json', restore, reader, overwrite=_OVERWRITE.value),
    'step': run.step,
    'ema': run.ema,
    'config_hash': fingerprint(run.config),
    'fingerprint': name,
  }
  others = {}
  if _BASELINES.value:
    tiles = data.open_source(dataset, run.config['dataset_config'], 'train', data_dir)
    others = score_filters(reader, tiles, workdir / 'eval', scoring, every=every, **options)
  latest = workdir / 'eval' / _SPLIT.value
  _report(summary, scores, latest, others)
  shutil.rmtree(latest / 'pictures', ignore_errors=True)
  print(shutil.copytree(folder / 'pictures', latest / 'pictures'))
  if _SAVE_FRAMES.value:
    print(folder / 'frames')


def evaluate_folders(every: int, options: dict[str, Any]) -> None:
  """Scores outputs that exist already."""
  clips, files = folder_clips(_PRED_DIR.value, _GT_DIR.value, _LQ_DIR.value, every)
  summary = {'dataset': _GT_DIR.value, 'split': '', 'method': _PRED_DIR.value}
  summary |= {'params': None, 'timing': None}
  if _OUT.value:
    name = fingerprint({'files': files, 'protocol': _PROTOCOL.value, 'frames': _FRAMES.value})
    scores = score_resumably(clips, pathlib.Path(_OUT.value) / name, **options)
    _report(summary, scores, pathlib.Path(_OUT.value))
  else:
    options.pop('overwrite')
    _report(summary, evaluation.score_clips(clips, **options), None)


def describe_systems(height: int = 1080, width: int = 1920) -> None:
  """Prints parameters and cost of every system beside the paper's."""
  costs = cost.describe_all(height, width, functools.partial(cli.progress, desc='described', unit='system'))
  table = describe.rows({label: dataclasses.asdict(found) for label, found in costs.items()})
  print(describe.markdown(table, describe.notes(height, width)))
  if _OUT.value:
    print(*describe.write(pathlib.Path(_OUT.value), table, height, width), sep='\n')


def _report(summary: dict, scores, folder: pathlib.Path | None, others=None) -> None:
  """Prints the table and writes it; `others` are scores of more rows by their label."""
  summary = {'schema_version': 1, **summary, 'protocol': _PROTOCOL.value, 'frames': _FRAMES.value}
  summary |= evaluation.summarise(scores)
  summary['created'] = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  first, *unprocessed = results.rows(summary)
  table = [first]
  for method, more in (others or {}).items():
    shown = {'method': method, 'params': None, 'timing': None, **evaluation.summarise(more)}
    table += results.rows(shown | {'protocol': _PROTOCOL.value})[:1]
  table += unprocessed
  data_set = f'{summary["dataset"]} {summary["split"]}'.rstrip()
  notes = [f'{data_set}; protocol {_PROTOCOL.value}, frames {_FRAMES.value}; means over clips.']
  if identical := summary['metrics']['psnr']['identical_frames']:
    notes.append(f'{identical} frames equal their targets; each counts as 100 dB.')
  print(results.markdown(table, notes))
  if folder:
    print(*results.write_report(folder, summary, table, notes), sep='\n')


def _every(frames: str) -> int:
  if frames == 'all':
    return 1
  kind, _, number = frames.partition(':')
  if kind != 'every' or not number.isdigit() or int(number) < 1:
    raise errors.ConfigError(f'--frames={frames} is not all or every:N, for example every:10.')
  return int(number)


def main(argv):
  del argv
  every = _every(_FRAMES.value)
  options = {
    'protocol': _PROTOCOL.value,
    'overwrite': _OVERWRITE.value,
    'progress': functools.partial(cli.progress, desc='evaluated', unit='frame'),
  }
  tasks = [bool(_WORKDIR.value), bool(_PRED_DIR.value or _GT_DIR.value), _DESCRIBE.value]
  if sum(tasks) != 1 or bool(_PRED_DIR.value) != bool(_GT_DIR.value):
    raise errors.ConfigError('Give one of --workdir, --pred_dir with --gt_dir, and --describe.')
  if _DESCRIBE.value:
    describe_systems()
    return
  cli.enable_compilation_cache()
  if _WORKDIR.value:
    evaluate_run(pathlib.Path(_WORKDIR.value), every, options)
  else:
    evaluate_folders(every, options)


if __name__ == '__main__':
  cli.run(main)
