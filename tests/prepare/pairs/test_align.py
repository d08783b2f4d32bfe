import re

import numpy as np
import pytest
from prepare import generated_video

from vqm_jax import errors
from vqm_jax.prepare.pairs import align
from vqm_jax.video import VideoFile


@pytest.fixture(scope='module')
def sides(tmp_path_factory):
  """(hq, lq): luma of two scenes, and of their coded copy."""
  folder = tmp_path_factory.mktemp('align')
  images = generated_video.frames(1, 2)
  hq = generated_video.write(folder / 'hq.mp4', images)
  lq = generated_video.write(folder / 'lq.mp4', images, crf=32.0)
  return tuple([f.to_ndarray()[: f.height] for f in VideoFile(path).yuv_frames()] for path in (hq, lq))


def test_coded_copy_passes(sides):
  hq, lq = sides
  found = align.check('clip', hq, iter(lq))
  assert found.num_frames == 40
  assert found.matching == found.moving >= 30
  assert max(map(abs, found.shift)) < 0.15


@pytest.mark.parametrize('by', [1, -1, 2])
def test_shift_in_time_fails(sides, by):
  hq, lq = sides
  with pytest.raises(errors.DataError, match='clip: frames are out of step'):
    align.check('clip', hq, lq[by:] + lq[:by])


def test_lost_and_doubled_frame_in_the_middle_fails(sides):
  hq, lq = sides
  with pytest.raises(errors.DataError, match='out of step'):
    align.check('clip', hq, lq[:10] + lq[11:31] + lq[30:])


@pytest.mark.parametrize('by', [(0, 1), (1, 0), (-1, 1)])
def test_shift_in_space_fails(sides, by):
  hq, lq = sides
  with pytest.raises(errors.DataError, match='LQ is shifted by') as raised:
    align.check('clip', hq, [np.roll(frame, by, (0, 1)) for frame in lq])
  measured = [float(number) for number in re.findall(r'[-+]\d\.\d', str(raised.value))]
  assert measured == pytest.approx(by, abs=0.25)


def test_counts_and_sizes_must_agree(sides):
  hq, lq = sides
  with pytest.raises(errors.DataError, match='LQ has 39 frames, HQ 40'):
    align.check('clip', hq, lq[:-1])
  with pytest.raises(errors.DataError, match='LQ has 42 frames, HQ 40'):
    align.check('clip', hq, lq + lq[:2])
  with pytest.raises(errors.DataError, match='LQ frame 0 is 94x64, HQ 96x64'):
    align.check('clip', hq, [frame[:, 2:] for frame in lq])


def test_still_and_flat_pictures_pass(sides):
  hq, lq = sides
  assert align.check('still', hq[:1] * 9, lq[:1] * 9).moving == 0
  black = [np.full((64, 96), 16, np.uint8)] * 5
  assert align.check('black', black, black) == align.Alignment(5, 0, 0, (0.0, 0.0))
