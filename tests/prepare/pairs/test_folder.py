"""Pairs in a folder: names of both sides, what a manifest says."""

import numpy as np
import pytest

from vqm_jax import errors, video
from vqm_jax.prepare.pairs import folder


def write(root, *clips):
  for clip in clips:
    for side in ('lq', 'hq'):
      path = root / clip.format(side)
      path.mkdir(parents=True)
      for number in range(2):
        video.write_png(path / f'{number}.png', np.zeros((16, 16, 3), np.uint8))


def test_manifest_and_folders_together(tmp_path):
  write(tmp_path, 'train/{}/a', 'train/{}/b', 'elsewhere/{}/c')
  lines = ['split,clip,lq,hq,fps,crf,scenes', 'train,a,,,30000/1001,33,0-1;1-2']
  lines += ['train,c,elsewhere/lq/c,elsewhere/hq/c,,,']
  (tmp_path / 'manifest.csv').write_text('\n'.join(lines))
  found = folder.listed('train', tmp_path)
  assert [pair.name for pair in found] == ['a', 'b', 'c'] and folder.listed('val', tmp_path) == []
  first, second, third = (folder.opened(pair, tmp_path) for pair in found)
  assert (first.crf, first.scenes) == (33.0, ((0, 1), (1, 2))) and float(first.lq.fps) == pytest.approx(29.97, abs=1e-3)
  assert np.isnan(second.crf) and second.scenes == () and third.lq.num_frames == 2


def test_what_is_missing_or_not_understood_is_named(tmp_path):
  write(tmp_path, 'train/{}/a')
  (tmp_path / 'train/lq/b').mkdir()
  video.write_png(tmp_path / 'train/lq/b/0.png', np.zeros((16, 16, 3), np.uint8))
  with pytest.raises(errors.DataError, match='missing: train/hq/b'):
    folder.listed('train', tmp_path)
  (tmp_path / 'manifest.csv').write_text('split,clip,crf\ntrain,a,much\n')
  with pytest.raises(
    errors.DataError, match="manifest.csv, clip a: crf='much' is not understood; expected for example"
  ):
    folder.opened(
      folder.Listed('a', tmp_path / 'train/lq/a', tmp_path / 'train/hq/a', folder.manifest(tmp_path)[0]), tmp_path
    )
  (tmp_path / 'manifest.csv').write_text('clip\na\n')
  with pytest.raises(errors.DataError, match='manifest.csv, line 2: expected columns split, clip'):
    folder.manifest(tmp_path)
