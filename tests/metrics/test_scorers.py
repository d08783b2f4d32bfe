"""The base of all metrics of frames: what is compared with what, and which frames are refused."""

import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.metrics.scorers import FrameScorer

FRAME = np.full((8, 8, 3), 100, np.uint8)


def difference(**options):
  return FrameScorer('difference', lambda a, b: float(np.abs(a - b).mean()), lambda f: f.astype(float), **options)


def test_candidates_are_compared_with_the_reference_frame_by_frame():
  scorer = difference()
  for step in (1, 2):
    scorer.add([FRAME, FRAME + np.uint8(step)], FRAME, None)
  assert scorer.values() == [[0.0, 0.0], [1.0, 2.0]]
  against = difference(reference='input')
  against.add([FRAME], None, FRAME + np.uint8(3))
  assert against.values() == [[3.0]]


@pytest.mark.parametrize(
  ('candidates', 'target', 'message'),
  [
    ([FRAME], None, 'compares with the target, which was not given'),
    ([FRAME[..., :1]], FRAME, r'must be uint8 RGB \(H, W, 3\), found uint8 \(8, 8, 1\); clip, round'),
    ([np.dstack([FRAME, FRAME[..., 0]])], FRAME, 'drop the alpha channel first'),
    ([FRAME[:4]], FRAME, r'must have one shape, found \(8, 8, 3\) and \(4, 8, 3\)'),
    ([FRAME[:2, :2]], FRAME[:2, :2], 'needs frames of at least 4 pixels a side, found 2x2'),
  ],
)
def test_frames_that_are_refused(candidates, target, message):
  with pytest.raises(errors.DataError, match=message):
    difference(smallest=4).add(candidates, target, None)


def test_as_many_candidates_for_every_frame():
  scorer = difference()
  scorer.add([FRAME], FRAME, None)
  with pytest.raises(errors.DataError, match='expected 1 versions of each frame as before, found 2'):
    scorer.add([FRAME, FRAME], FRAME, None)
