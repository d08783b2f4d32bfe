"""Windows of strips: aligned ones show the same place, independent ones need not; the symmetries of the square."""

import numpy as np
import pytest

from vqm_jax.data import windows


def strips(margin=0):
  """lq and hq (5, 12, 12, 3) whose pixels are (frame, y, x); with `margin` more pixels around hq."""
  lq = np.stack(np.meshgrid(range(5), range(12), range(12), indexing='ij'), axis=-1).astype(np.uint8) + 50
  hq = np.stack(np.meshgrid(range(5), *[range(-margin, 12 + margin)] * 2, indexing='ij'), axis=-1)
  return {'lq': lq, 'hq': (hq + 50).astype(np.uint8)}


@pytest.mark.parametrize('margin', [0, 2])
def test_aligned_windows_show_the_same_place_within_the_margin(margin):
  cut = windows.Aligned(3, 8, windows.AUGMENTATIONS['symmetries'], 40)
  sample = cut.random_map(strips(margin), np.random.default_rng(0))
  lq, hq = sample['lq'].astype(int), sample['hq'].astype(int)
  assert lq.shape == hq.shape == (40, 3, 8, 8, 3) and set(lq[:, :, 0, 0, 0].ravel()) == {51, 52, 53}  # the middle
  shifts = (hq - lq)[..., 1:]
  assert (shifts == shifts[:, :1, :1, :1]).all() and np.abs(shifts).max() == margin


def test_independent_windows_differ_in_place_and_symmetry():
  cut = windows.Independent(1, 8, windows.AUGMENTATIONS['flip'], 20)
  sample = cut.random_map(strips(), np.random.default_rng(0))
  assert (sample['lq'][:, 0, 0, 0] != sample['hq'][:, 0, 0, 0]).any(axis=1).mean() > 0.5


def test_the_symmetries_are_the_eight_of_the_square():
  frames = np.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3)
  found = {windows.turned(frames, k).tobytes() for k in windows.AUGMENTATIONS['symmetries']}
  expected = {np.rot90(side, k, (1, 2)).tobytes() for k in range(4) for side in (frames, frames[:, :, ::-1])}
  assert found == expected and len(found) == 8
