"""Folders of images, single ones and animated ones."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vqm_jax import errors
from vqm_jax.video import open_video


def picture(t, height=48, width=64):
  y, x = np.mgrid[:height, :width]
  return np.stack([2 * y + t, 2 * x, 90 + 0 * x], -1).astype(np.uint8)


def folder(path, *names):
  path.mkdir(parents=True, exist_ok=True)
  for t, name in enumerate(names):
    Image.fromarray(picture(t)).save(path / name)
  return path


def animated(path, durations, **options):
  first, *others = (Image.fromarray(picture(8 * t)) for t in range(len(durations)))
  first.save(path, save_all=True, append_images=others, **({'duration': durations} if durations[0] else {}), **options)
  return path


def refused(path, match, **options):
  with pytest.raises(errors.VideoError, match=match) as caught:
    list(open_video(path, lossy=True, **options).frames())
  assert '\n' not in str(caught.value) and str(path.name) in str(caught.value)


@pytest.mark.parametrize('suffix', ['jpg', 'jpeg', 'JPG', 'tif', 'tiff', 'webp', 'png', 'bmp'])
def test_folders_and_single_images(tmp_path, suffix):
  clip = open_video(folder(tmp_path / 'a', *(f'{t}.{suffix}' for t in range(9, 12))), fps=Fraction(24), lossy=True)
  assert (clip.num_frames, clip.fps, clip.height, clip.width) == (3, 24, 48, 64)
  one = open_video(tmp_path / 'a' / f'10.{suffix}', lossy=True)
  assert (one.name, one.num_frames) == ('10', 1)
  for frame, t in ((list(clip.frames(1, 2))[0], 1), (next(one.frames()), 1)):
    assert np.abs(frame.astype(int) - picture(t)).mean() < 6


def test_jpeg_is_taken_only_by_those_who_ask_for_it(tmp_path):
  for path in (folder(tmp_path / 'a', '1.jpg', '2.jpg'), tmp_path / 'a/1.jpg'):
    with pytest.raises(errors.VideoError, match='JPEG, which is lossy'):
      open_video(path)


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(picture(0)).save(tmp_path / 'a.jpg', exif=exif)
  source = open_video(tmp_path / 'a.jpg', lossy=True)
  assert (source.height, source.width) == (64, 48)
  assert np.abs(next(source.frames()).astype(int) - np.rot90(picture(0), -1)).mean() < 6


@pytest.mark.parametrize('stray', ['cover.jpg', 'still.bmp', 'x.gif', 'a.exr', '3.webp'])
def test_a_stray_image_of_another_kind_is_refused(tmp_path, stray):
  path = folder(tmp_path / 'clip', '1.png', '2.png')
  (path / 'notes.txt').write_text('no image')
  (path / '.hidden.jpg').write_bytes(b'')
  assert open_video(path).num_frames == 2
  (path / stray).write_bytes(b'')
  refused(path, f'images of several kinds .2 PNG and|images of several kinds .*{stray}')


@pytest.mark.parametrize('name', ['a.webp', 'a.png', 'a.apng'])
def test_animated_images_are_read_whole(tmp_path, name):
  kind = {'format': 'PNG'} if name == 'a.apng' else {}
  path = animated(tmp_path / name, [40] * 6, **(kind or {'lossless': True}))
  source = open_video(path)
  assert (source.num_frames, source.fps, source.height, source.width) == (6, 25, 48, 64)
  wanted = [picture(8 * t) for t in range(6)]
  np.testing.assert_array_equal(np.stack(list(source.frames())), wanted)
  np.testing.assert_array_equal(np.stack(list(source.frames(2, 4))), wanted[2:4])
  assert open_video(path, fps=Fraction(12)).fps == 12


def test_pages_of_a_tiff_file(tmp_path):
  source = open_video(animated(tmp_path / 'a.tif', [0] * 4))
  assert (source.num_frames, source.fps) == (4, 30)
  np.testing.assert_array_equal(list(source.frames(3)), [picture(24)])


def test_an_uneven_rate_needs_a_rate(tmp_path):
  path = animated(tmp_path / 'a.webp', [40, 40, 200])
  refused(path, 'shown for 40 to 200 ms')
  assert open_video(path, fps=Fraction(10)).num_frames == 3


def test_animations_do_not_lie_in_folders(tmp_path):
  path = folder(tmp_path / 'clip', '1.png')
  animated(path / '2.png', [40] * 3)
  with pytest.raises(errors.VideoError, match='2.png: holds 3 pictures, expected one'):
    list(open_video(path).frames())


def test_too_much_of_it_gets_one_line(tmp_path, monkeypatch):
  info = PngImagePlugin.PngInfo()
  info.add_text('note', 'x' * (2 << 20), zip=True)
  Image.fromarray(picture(0)).save(tmp_path / 'long.png', pnginfo=info)
  refused(tmp_path / 'long.png', 'more than 1 MB of text beside the picture')
  path = folder(tmp_path / 'clip', '1.png')
  (tmp_path / 'long.png').rename(path / '2.png')
  with pytest.raises(errors.VideoError, match='2.png: holds more than 1 MB of text'):
    list(open_video(path).frames())
  large = tmp_path / 'large.png'
  Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(large)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40_000)
  refused(large, 'too many pixels, expected at most 178,956,970')


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.webp', 'a.tif'])
def test_damaged_images(tmp_path, name):
  folder(tmp_path / 'ok', name)
  data = (tmp_path / 'ok' / name).read_bytes()
  for k, bad in enumerate((data[: len(data) // 2], data[:20], b'rubbish', b'')):
    path = tmp_path / str(k) / name
    path.parent.mkdir()
    path.write_bytes(bad)
    refused(path, 'not a readable image|truncated')
