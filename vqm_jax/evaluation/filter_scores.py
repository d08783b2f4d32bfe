"""The rows that a trained network is shown beside: simple filters on the same clips."""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from vqm_jax import errors, files, schemas
from vqm_jax.data import ClipReader, FrameStrip
from vqm_jax.data.records import DataSource, Records, describe
from vqm_jax.evaluation import filters, scoring
from vqm_jax.evaluation.stored_scores import fingerprint, score_resumably, source_identity
from vqm_jax.inference import streaming

LEAST_SQUARES = '5x5 least squares (fitted on train)'

# A function of float frames (B, H, W, 3) in [0, 1].
Filter = Callable[[jax.Array], jax.Array]


def score_filters(
  reader: ClipReader,
  tiles: DataSource,
  folder: pathlib.Path,
  identity: Mapping[str, Any],
  *,
  every: int = 1,
  overwrite: bool = False,
  progress: Callable | None = None,
  **options,
) -> dict[str, dict[str, scoring.ClipScores]]:
  """Score the least-squares filter and the best of the classic ones: {row label: clip scores}.

  The best is chosen on these very clips, in its favour; least squares is fitted on `tiles`.

  Args:
    reader: the clips.
    tiles: the train split of a tiles config.
    folder: where scores are kept, in sub-folders by fingerprint; those there are used.
    identity: of the clips and of how they are scored.
    every: score every n-th frame only.
    overwrite: choose, fit and score again.
    progress, **options: of `score_resumably`.
  """

  def score(filter_: Filter, **more):
    clips = scoring.restored_clips(frame_by_frame(filter_, every), reader, every=every)
    where = folder / fingerprint({**identity, **more})
    return score_resumably(clips, where, overwrite=overwrite, progress=progress, **options)

  classic = filters.candidates()
  choice = folder / fingerprint({**identity, 'best of': list(classic)}) / 'best_filter.json'
  best = None if overwrite else _read_choice(choice, classic)
  if best is None:
    logging.info('Choosing among %d classic filters on these clips ...', len(classic))
    best = best_of(classic, reader, every=every)
    files.write_json(choice, best)
  # Fitted when the first frame asks for it: not at all when every score is stored.
  weights = functools.cache(lambda: filters.fit_linear(training_pairs(tiles)))
  return {
    LEAST_SQUARES: score(
      lambda frames: filters.linear(frames, weights()),
      filter='least squares',
      tiles=source_identity(tiles),
    ),
    f'Best of Gaussian / median / bilateral ({best}; chosen on these frames, in its favour)': score(
      classic[best], filter=best
    ),
  }


def _read_choice(path: pathlib.Path, candidates: Mapping[str, Filter]) -> str | None:
  try:
    best = schemas.load(path, str)
    if best not in candidates:
      raise schemas.Misfit(f'expected one of {len(candidates)} filters, found {best!r:.60}')
    return best
  except FileNotFoundError:
    return None
  except schemas.Misfit as error:
    logging.warning('%s is damaged (%s); it is chosen again.', path, error)
    return None


def best_of(candidates: Mapping[str, Filter], reader: ClipReader, every: int = 1) -> str:
  """Return the name of the candidate with the highest mean PSNR on these very clips.

  Args:
    candidates: by name, functions of float32 frames (B, H, W, 3) in [0, 1] to the like.
    reader: of the clips.
    every: score every n-th frame only.
  """

  def psnr(name: str) -> float:
    restore = frame_by_frame(candidates[name], every)
    scores = scoring.evaluate_clips(restore, reader, every=every, metrics=scoring.fidelity(ssim=False))
    return scoring.mean_scores(scores)['psnr']

  return max(candidates, key=psnr)


def frame_by_frame(function: Filter, every: int = 1) -> scoring.Restore:
  """Turn a function of float frames (B, H, W, 3) in [0, 1] into a `Restore` of every n-th frame."""

  @jax.jit
  def apply(frame):
    return streaming.to_uint8(function(frame[None].astype(jnp.float32) / 255.0)[0])

  return lambda frames, find_cuts=None: (np.asarray(apply(f)) for f in itertools.islice(frames, every - 1, None, every))


def training_pairs(source: DataSource, max_pixels: int = 2**21) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(input, target) centre frames of a tiles config, float32 (H, W, 3) in [0, 1], evenly drawn.

  Raises DataError for records of another kind.
  """
  records = Records(source, ['lq', 'hq'])
  strip = source.dataset_info.features['lq']
  if not isinstance(strip, FrameStrip):
    raise errors.DataError(
      f'{describe(source)}: least squares is fitted on a tiles config, found lq={strip}; build tiles of this data set '
      'too, or leave out --baselines.'
    )
  shape = strip.shape
  count = min(len(records), max(1, max_pixels // (shape[1] * shape[2])))
  for index in np.linspace(0, len(records) - 1, count).astype(int):
    record = records[index]
    yield tuple(record[field][shape[0] // 2].astype(np.float32) / 255 for field in ('lq', 'hq'))
