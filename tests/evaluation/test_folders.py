"""Clips in folders: which belong together, what is scored of them, what tells that a file has changed."""

import os

import numpy as np
import pytest

from vqm_jax import errors, pictures
from vqm_jax.evaluation import folders


def write(folder, clips=('a', 'b'), frames=4, size=(8, 10)):
  for clip in clips:
    for number in range(frames):
      pictures.save_png(folder / clip / f'{number:03d}.png', np.full((*size, 3), 10 * number, np.uint8))
  return str(folder)


def test_every_second_frame_of_each_clip(tmp_path):
  clips, identity = folders.folder_clips(write(tmp_path / 'out'), write(tmp_path / 'gt'), every=2)
  assert [(clip.name, list(clip.indices)) for clip in clips] == [('a', [1, 3]), ('b', [1, 3])] and len(identity) == 4
  for lq, output, target in clips[0].frames():
    assert lq is None
    np.testing.assert_array_equal(output, target)
  os.utime(tmp_path / 'gt' / 'b' / '000.png', (1, 1))
  assert folders.folder_clips(str(tmp_path / 'out'), str(tmp_path / 'gt'), every=2)[1] != identity


def test_what_does_not_match_is_named(tmp_path):
  out, gt = write(tmp_path / 'out', 'ab'), write(tmp_path / 'gt', 'bc')
  with pytest.raises(errors.DataError, match='lacks c; --gt_dir=.* lacks a of --pred_dir'):
    folders.folder_clips(out, gt)
  with pytest.raises(errors.DataError, match=r'Clips differ .*: a \(--pred_dir 4 x 10x8, --gt_dir 3 x 10x8\); b '):
    folders.folder_clips(out, write(tmp_path / 'short', frames=3))
