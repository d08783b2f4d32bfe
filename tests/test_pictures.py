"""Comparison panels."""

import numpy as np
import pytest
from PIL import Image

from vqm_jax import pictures

RNG = np.random.default_rng(0)
LQ, PRED, HQ = RNG.integers(0, 256, (3, 20, 60, 3), dtype=np.uint8)


def test_panel_holds_the_frames_and_four_times_the_error():
  panel = pictures.comparison(LQ, PRED, HQ)
  assert panel.dtype == np.uint8
  top, gap = pictures._BAR, pictures._GAP
  assert panel.shape == (top + 20 + gap, 4 * 60 + 3 * gap, 3)
  error = np.clip(4 * np.abs(PRED.astype(int) - HQ), 0, 255)
  for k, frame in enumerate((LQ, PRED, HQ, error)):
    left = k * (60 + gap)
    np.testing.assert_array_equal(panel[top : top + 20, left : left + 60], frame)
  assert np.concatenate([panel, panel]).shape[1] == panel.shape[1]


def test_labels_are_drawn_above_their_panels():
  panel = pictures.comparison(LQ, PRED, HQ, labels=('in', '', 'target', 'x4'))
  dark = [bool((panel[: pictures._BAR, k * 64 : k * 64 + 60] < 128).any()) for k in range(4)]
  assert dark == [True, False, True, True]


def test_without_target_the_panel_ends_with_the_output():
  panel = pictures.comparison(LQ, PRED, None)
  assert panel.shape[1] == 2 * 60 + pictures._GAP


def test_save_png_is_exact_and_leaves_nothing_else(tmp_path):
  path = tmp_path / 'new' / 'a.png'
  pictures.save_png(path, LQ)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), LQ)
  assert [p.name for p in path.parent.iterdir()] == ['a.png']


@pytest.mark.parametrize('text', ['a ' * 60, f'{"W" * 40} scene 0', 'short'])
def test_titles_are_whole(text):
  frame = np.full((20, 180, 3), 200, np.uint8)
  picture = pictures.titled(text, frame)
  title = picture.shape[0] - 20
  np.testing.assert_array_equal(picture[title:, :180], frame)
  ink = (picture[:title] < 128).any(2)
  assert not ink[:, -2:].any() and picture.shape[1] >= 180
  # As much of it as on one line that is as long as it takes.
  long = pictures.titled(text, np.full((20, 2000, 3), 200, np.uint8))
  once = (long[:-20] < 128).any(2)
  assert once.shape[0] == 16 and abs(ink.sum() - once.sum()) < 0.1 * once.sum()
