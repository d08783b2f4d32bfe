import pathlib
import tempfile

import numpy as np
import pytest

from vqm_demo import vqm_demo_dataset_builder
from vqm_jax import video
from vqm_jax.data import open_source
from vqm_jax.data.clips import ClipReader
from vqm_jax.prepare.demo import rendered
from vqm_jax.prepare.demo.rendered import PHOTOGRAPHS, Scene
from vqm_jax.prepare.records import driver


def psnr(a, b):
  error = np.mean((a.astype(np.float64) - b) ** 2)
  return 10 * np.log10(255**2 / error)


def scene(photo='camera', split='train', index=0, **kwargs):
  return Scene('clip', split, photo, index, **(dict(num_frames=6, height=90, width=160) | kwargs))


@pytest.fixture(scope='module')
def micro(tmp_path_factory):
  """A data dir with the micro configs."""
  data_dir = tmp_path_factory.mktemp('micro')
  for name in ('micro_tiles', 'micro_frames'):
    builder = vqm_demo_dataset_builder.Builder(config=name, data_dir=data_dir)
    driver.build(builder, None)
  return str(data_dir)


def test_every_photograph_loads():
  for names in PHOTOGRAPHS.values():
    for name in names:
      image = rendered._photograph(name)
      assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


def test_splits_share_no_photograph():
  names = [name for group in PHOTOGRAPHS.values() for name in group]
  assert len(names) == len(set(names)) == 14


def test_frames_of_a_scene():
  frames = list(rendered.render(scene()))
  assert len(frames) == 6 and frames[0].shape == (90, 160, 3) and frames[0].dtype == np.uint8
  again = list(rendered.render(scene()))
  np.testing.assert_array_equal(frames, again)
  for other in (
    rendered.render(scene(), seed=1),
    rendered.render(scene(index=8)),
    rendered.render(scene(split='val')),
  ):
    assert psnr(next(other), frames[0]) < 25


def test_scenes_move_half_a_pixel_or_more():
  """The best shift between first and last frame is about the camera's path of 0.5 to 2 px per frame."""
  import cv2

  paths = []
  for index, photo in enumerate(PHOTOGRAPHS['train'][:4]):
    frames = [f.mean(axis=2) for f in rendered.render(scene(photo, index=index, num_frames=9))]
    (dx, dy), _ = cv2.phaseCorrelate(frames[0], frames[-1], cv2.createHanningWindow((160, 90), cv2.CV_64F))
    paths.append(np.hypot(dx, dy) / 8)
  assert 0.4 < np.median(paths) < 2.2 and min(paths) > 0.2


def test_training_scenes_are_recoloured():
  """A grey photograph gets a colour in training, and stays grey elsewhere (but for cut-outs)."""

  def saturation(split):
    frame = next(rendered.render(scene('moon', split, num_frames=1))).astype(int)
    return np.median(frame.max(axis=2) - frame.min(axis=2))

  assert saturation('train') > 5 > saturation('val')


def test_recolouring_turns_the_hue():
  image = np.zeros((4, 4, 3), np.float32)
  image[..., 2] = 200
  hues = [rendered._recolour(image, np.random.default_rng(k))[0, 0].argmax() for k in range(30)]
  assert set(hues) == {0, 1, 2}


def test_grain_has_its_strength():
  sheet = rendered._grain(scene(), np.random.default_rng(0))
  assert sheet.std() == pytest.approx(1, abs=0.01)


def coded_pair(scene):
  """(lq, hq) uint8 (T, H, W, 3) of what is written for a scene."""
  with tempfile.TemporaryDirectory() as folder:
    return [np.stack(list(video.VideoFile(p).frames())) for p in rendered.write_pair(scene, pathlib.Path(folder))]


@pytest.mark.parametrize('split, photo', [('train', 'astronaut'), ('val', 'rocket')])
def test_coding_costs_a_plausible_amount(split, photo):
  lq, hq = coded_pair(scene(photo, split, num_frames=8, height=180, width=320))
  source = np.stack(list(rendered.render(scene(photo, split, num_frames=8, height=180, width=320))))
  assert 25 < psnr(lq, hq) < 38
  assert psnr(hq, source) > psnr(lq, hq) + 4
  # Aligned: the next frame fits worse, and so does a shift by a pixel.
  assert psnr(lq[:-1], hq[:-1]) > psnr(lq[:-1], hq[1:]) + 0.5
  assert psnr(lq, hq) > psnr(lq, np.roll(hq, 1, axis=2)) + 0.5


def test_clips_are_read_in_any_order():
  scenes = [scene(index=k, num_frames=3, height=64, width=96) for k in range(3)]
  clips = rendered.clips(scenes)
  later = list(clips[2].frames(1, 3))
  earlier = list(clips[0].frames(0, 3))
  np.testing.assert_array_equal(earlier, np.stack(coded_pair(scenes[0]), axis=1))
  np.testing.assert_array_equal(later, np.stack(coded_pair(scenes[2]), axis=1)[1:])


def test_micro_tiles(micro):
  source = open_source('vqm_demo', 'micro_tiles', 'train', micro)
  assert len(source) == 8
  for record in source:
    assert record['lq'].shape == record['hq'].shape == (7, 48, 48, 3)
    assert record['lq'].dtype == record['hq'].dtype == np.uint8
    assert 20 < psnr(record['lq'], record['hq']) < 45
    assert record['video'] in (b'train_00', b'train_01')
    assert record['category'].decode() in PHOTOGRAPHS['train'] and record['crf'] == 35


def test_micro_frames(micro):
  for split in ('val', 'test', 'holdout'):
    reader = ClipReader(open_source('vqm_demo', 'micro_frames', split, micro))
    (clip,) = reader.clips.values()
    assert (clip.num_frames, clip.height, clip.width, clip.fps) == (8, 64, 96, 25)
    assert clip.category == PHOTOGRAPHS['train' if split == 'holdout' else split][0]
    lq, hq = map(np.stack, zip(*reader.frames(clip.name), strict=True))
    assert 22 < psnr(lq, hq) < 40


def test_build_is_repeatable(micro, tmp_path):
  builder = vqm_demo_dataset_builder.Builder(config='micro_tiles', data_dir=tmp_path)
  driver.build(builder, None)
  for ours, theirs in zip(
    open_source('vqm_demo', 'micro_tiles', 'train', str(tmp_path)),
    open_source('vqm_demo', 'micro_tiles', 'train', micro),
    strict=True,
  ):
    np.testing.assert_array_equal(ours['lq'], theirs['lq'])
    np.testing.assert_array_equal(ours['hq'], theirs['hq'])


@pytest.mark.slow
def test_whole_demo(tmp_path):
  for name in ('tiles', 'tiles_t1p96', 'frames'):
    driver.build(vqm_demo_dataset_builder.Builder(config=name, data_dir=tmp_path), None)
  tiles = open_source('vqm_demo', 'tiles', 'train', str(tmp_path))
  singles = open_source('vqm_demo', 'tiles_t1p96', 'train', str(tmp_path))
  assert 500 <= len(tiles) <= 576 and 3000 <= len(singles) <= 3456
  assert len({record['video'] for record in tiles}) == 24
  assert 29.5 < np.mean([psnr(record['lq'], record['hq']) for record in tiles]) < 32
  for split, clips, low, high in (('val', 3, 31, 35), ('test', 3, 27, 31), ('holdout', 2, 27, 33)):
    reader = ClipReader(open_source('vqm_demo', 'frames', split, str(tmp_path)))
    assert len(reader.clips) == clips
    values = [psnr(*pair) for name in reader.clips for pair in reader.frames(name)]
    assert len(values) == 24 * clips and low < np.mean(values) < high
