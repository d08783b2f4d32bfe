"""Summaries of evaluations, as tests need them: one maker, whatever is not given is that of a small run."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqm_jax import metrics
from vqm_jax.summary import NAME, SCHEMA_VERSION, Summary, summary_of, write_summary


def scores(per_frame: Mapping[str, Sequence[float]]) -> dict[str, Any]:
  """One metric from the values of every frame, by clip."""
  per_clip = {clip: metrics.mean_psnr(list(values))[0] for clip, values in per_frame.items()}
  return {'mean': float(np.mean(list(per_clip.values()))), 'per_clip': per_clip, 'per_frame': dict(per_frame)}


def psnr(frames: Mapping[str, Sequence[np.ndarray]], targets: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
  """PSNR of clips, uint8 (T, H, W, 3) each, against their targets."""
  return scores({clip: list(map(float, metrics.psnr(one, targets[clip]))) for clip, one in frames.items()})


def content(**fields: Any) -> dict[str, Any]:
  """What `summary.json` holds; by default of one clip 'a' of four frames."""
  given = {
    'schema_version': SCHEMA_VERSION, 'dataset': 'demo/frames:1.0.0', 'split': 'test', 'method': 'ecnu (step 9)',
    'system': 'ecnu', 'params': 114_413, 'created': '2026-11-26T03:37:05+00:00', 'seed': 0,
    'timing': {'seconds_per_frame': 0.02, 'device': 'CPU', 'frame_size': [40, 60]},
    'metrics': {'psnr': scores({'a': [30.0] * 4})},
  } | fields  # fmt: skip
  outputs = given['metrics'].get('psnr', {}).get('per_frame', {})
  derived = {
    'n_clips': len(outputs), 'n_frames': sum(map(len, outputs.values())),
    'frame_indices': {clip: list(range(len(values))) for clip, values in outputs.items()},
  }  # fmt: skip
  return derived | given


def make(**fields: Any) -> Summary:
  """The summary with these fields, given as JSON has them."""
  return summary_of(content(**fields))


def write(path: pathlib.Path, **fields: Any) -> pathlib.Path:
  """Writes `make(**fields)` to a file, or to the folder of one; returns the file."""
  path = path if path.suffix == '.json' else path / NAME
  write_summary(path, make(**fields))
  return path


def kept(name: str) -> dict[str, str]:
  """`folders` of a run whose frames lie in `eval/<name>/test`."""
  return {side: f'../{name}/test/{side}' for side in ('output', 'input', 'target')}
