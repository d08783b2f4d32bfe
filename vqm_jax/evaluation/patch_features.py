"""Deep features of random patches, kept per clip, and the Fréchet distance between outputs and targets."""

import pathlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from vqm_jax import errors, files, metrics
from vqm_jax.evaluation.scoring import ClipFrames

_SIDES = ('output', 'input', 'target')


class PatchFeatures:
  """Collects the features of some patches of every frame of a clip: the same places in output, input and target.

  Args:
    weights: of the feature network.
    patches: patches of each frame.
  """

  def __init__(self, weights: metrics.LpipsWeights, patches: int = 20):
    self._weights, self._patches = weights, patches
    self._features: dict[str, list[np.ndarray]] = {}
    self._clip = ''

  @property
  def weights(self) -> str | None:
    """SHA-256 of the network's weights; None for random ones."""
    return self._weights.trunk.sha256

  def path(self, folder: pathlib.Path, clip: ClipFrames) -> pathlib.Path:
    """Where the features of a clip are kept."""
    return folder / 'patches' / f'{clip.name}.{(self.weights or "random")[:8]}.npz'

  def start(self, clip: ClipFrames) -> None:
    """Begin a clip."""
    self._clip, self._count = clip.name, 0
    self._features = {side: [] for side in _SIDES}

  def add(self, lq: np.ndarray | None, restored: np.ndarray, hq: np.ndarray) -> None:
    """Take the patches of one frame."""
    seed = [zlib.crc32(self._clip.encode()), self._count]
    for side, frame in zip(_SIDES, (restored, lq, hq), strict=True):
      if frame is not None:
        rng = np.random.default_rng(seed)
        self._features[side].append(metrics.patch_features(frame, self._weights, rng, self._patches))
    self._count += 1

  def save(self, folder: pathlib.Path, clip: ClipFrames) -> None:
    """Write what was collected, whole or not at all."""
    with files.replacing(self.path(folder, clip)) as partial, partial.open('wb') as file:
      np.savez(file, **{side: np.concatenate(rows) for side, rows in self._features.items() if rows})

  def distances(self, folder: pathlib.Path, clips: Sequence[ClipFrames]) -> Mapping[str, float]:
    """Fréchet distance to the targets of all clips: {'output', 'input', 'target'}; the last between their halves.

    The distance between the targets of every other clip (of one clip: every other patch) and the rest is the floor that
    a perfect method would reach with so few patches. Needs the features of all clips.
    """
    rows: dict[str, list[np.ndarray]] = {side: [] for side in _SIDES}
    for clip in clips:
      for side, features in _stored(self.path(folder, clip)).items():
        rows[side].append(features)
    targets = rows['target'] if len(clips) > 1 else [rows['target'][0][half::2] for half in (0, 1)]
    halves = [targets[half::2] for half in (0, 1)]
    pairs = {side: (rows[side], rows['target']) for side in ('output', 'input') if rows[side]} | {'target': halves}
    return {side: _distance(*pair) for side, pair in pairs.items()}


def _stored(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path) as stored:
      return {side: stored[side] for side in stored if side in _SIDES}
  except Exception as error:  # NumPy and its `zipfile` raise nearly everything
    raise errors.DataError(
      f'{path}: damaged, cannot be read ({errors.reason(error)}); delete it and evaluate again.'
    ) from error


def _distance(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
  return _statistics(one).distance(_statistics(other))


def _statistics(rows: Sequence[np.ndarray]) -> metrics.FeatureStatistics:
  statistics = metrics.FeatureStatistics()
  for features in rows:
    statistics.update(features)
  return statistics
