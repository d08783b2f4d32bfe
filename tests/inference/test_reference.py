"""Scores against the original while a video is restored."""

import numpy as np
import pytest

from vqm_jax import errors, metrics, video
from vqm_jax.inference.reference import AgainstOriginal

RNG = np.random.default_rng(0)
ORIGINAL = RNG.integers(20, 230, (3, 16, 20, 3), dtype=np.uint8)


def opened(folder, frames):
  folder.mkdir()
  for number, frame in enumerate(frames):
    video.write_png(folder / f'{number}.png', frame)
  return video.open_video(folder)


def test_scores_before_and_after_go_on_after_an_interruption(tmp_path):
  noisy = (ORIGINAL + RNG.integers(-9, 10, ORIGINAL.shape)).astype(np.uint8)
  source, original = opened(tmp_path / 'in', noisy), opened(tmp_path / 'original', ORIGINAL)
  first = AgainstOriginal(source, original)
  for index in range(2):
    first.look(index, noisy[index], ORIGINAL[index])
  second = AgainstOriginal(source, original)
  second.recall(first.notes(0, 2))
  second.look(2, noisy[2], noisy[2])
  np.testing.assert_allclose(second.before, metrics.psnr(noisy, ORIGINAL))
  assert second.after[:2] == [np.inf, np.inf] and second.after[2] == second.before[2]
  assert str(first).startswith('PSNR against the original: ') and '100.00 dB after' in str(first)
  assert second.picture is None and first.picture.shape[1] > 4 * 20  # frame 1 is the middle one
  second.show(noisy[1], ORIGINAL[1])
  np.testing.assert_array_equal(second.picture, first.picture)


def test_another_length_or_size_is_refused(tmp_path):
  source = opened(tmp_path / 'in', ORIGINAL)
  with pytest.raises(errors.VideoError, match='has 2 frames of 20x16, expected 3 frames of 20x16, as the input'):
    AgainstOriginal(source, opened(tmp_path / 'short', ORIGINAL[:2]))
