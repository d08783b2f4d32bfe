"""Frames in folders of any layout."""

import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from report.packing import make_clips, png, save

from vqm_jax import errors
from vqm_jax.report import frame_folders


def test_frames_in_folders(tmp_path):
  with pytest.raises(errors.DataError, match='--frames=.*: expected a folder of PNG frames.*there is none'):
    frame_folders.find(tmp_path / 'nowhere', '--frames')
  with pytest.raises(errors.DataError, match='holds no PNG frame; evaluate with --save_frames'):
    frame_folders.find(tmp_path, '--frames')
  make_clips(tmp_path, ['9', '10'], 5)
  assert list(frame_folders.find(tmp_path, '--frames')) == ['9', '10']
  (tmp_path / '9' / '000002.png').unlink()
  with pytest.raises(errors.DataError, match='clip 9 lacks frames after 000001.png, where the number rises by 2 inst'):
    frame_folders.find(tmp_path, '--frames')
  flat = tmp_path / 'flat'
  for clip in ('a', 'b'):
    for k in (9, 10):
      save(flat / f'{clip}_{k}.png', np.zeros((4, 4, 3), np.uint8))
  found = frame_folders.find(flat, '--frames')
  assert [path.name for path in found['b']] == ['b_9.png', 'b_10.png'] and list(found) == ['a', 'b']


def test_gamma_is_refused(tmp_path):
  info = PngImagePlugin.PngInfo()
  info.add(b'gAMA', struct.pack('>I', 45455))
  Image.new('RGB', (4, 4)).save(tmp_path / 'x.png', pnginfo=info)
  with pytest.raises(errors.DataError, match='x.png is a gamma; expected'):
    frame_folders.decode((tmp_path / 'x.png').read_bytes(), 'x.png')
  assert frame_folders.decode(png(), 'x.png').shape == (4, 4, 3)
