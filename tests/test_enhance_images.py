"""What `enhance` takes beside videos, and the scenes of what it takes."""

import pathlib
from fractions import Fraction

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from flax import nnx
from inference.window import Window
from PIL import Image, ImageCms

from vqm_jax import enhance, errors, inference, restorers, video


@pytest.fixture
def run(monkeypatch):
  """`main` with the flags given and a network, by default one that changes nothing."""
  monkeypatch.setattr(enhance.cli, 'enable_compilation_cache', lambda: None)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def call(network=None, **values):
    network = network or restorers.create('none', rngs=None)
    opened = inference.Run(network, {'system': 'none'}, pathlib.Path('runs/none'), 7, 7, True, 0, None)
    monkeypatch.setattr(inference, 'open_run', lambda *args: opened)
    given = {name: value if isinstance(value, bool) else str(value) for name, value in values.items()}
    with flagsaver.flagsaver(workdir='runs/none', **given):
      enhance.main(None)

  return call


def picture(t):
  y, x = np.mgrid[:32, :48]
  return np.stack([3 * y + t, 2 * x, 90 + 2 * t + 0 * x], -1).astype(np.uint8)


def folder(path, suffix, count=6):
  path.mkdir()
  for t in range(count):
    Image.fromarray(picture(t)).save(path / f'{t:03d}.{suffix}')
  return path


@pytest.mark.parametrize('suffix', ['jpg', 'tif', 'webp'])
def test_folders_of_images_at_a_rate(tmp_path, run, suffix):
  source = folder(tmp_path / 'in', suffix)
  run(input=source, output=tmp_path / 'out.mp4', fps='24000/1001')
  result = video.open_video(tmp_path / 'out.mp4')
  assert (result.num_frames, result.fps) == (6, Fraction(24000, 1001))


def test_images_alone(tmp_path, run):
  folder(tmp_path / 'in', 'jpg', 1)
  run(input=tmp_path / 'in/000.jpg', output=tmp_path / 'out')
  assert [path.name for path in (tmp_path / 'out').iterdir()] == ['000.png']
  first, *others = (Image.fromarray(picture(t)) for t in range(5))
  first.save(tmp_path / 'a.webp', save_all=True, append_images=others, duration=50, lossless=True)
  run(input=tmp_path / 'a.webp', output=tmp_path / 'a.mp4')
  assert (video.open_video(tmp_path / 'a.mp4').num_frames, video.open_video(tmp_path / 'a.mp4').fps) == (5, 20)


def test_an_image_becomes_an_image(tmp_path, run, capsys):
  """With the colours that its numbers stand for, which a profile says."""
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes()
  source, exif = tmp_path / 'in.png', Image.Exif()
  exif[0x010F] = 'Camera'
  Image.fromarray(picture(0)).save(source, icc_profile=profile, dpi=(300, 300), exif=exif)
  for suffix, most in {'png': 0, 'webp': 0, 'TIF': 0, 'bmp': 0, 'jpg': 12}.items():
    output = tmp_path / f'out.{suffix}'
    run(input=source, output=output, dry_run=True)
    assert f'would write {output}' in capsys.readouterr().out and not output.exists()
    run(input=source, output=output, compare=suffix == 'png')
    with Image.open(output) as image:
      assert np.abs(np.asarray(image).astype(int) - picture(0)).max() <= most
      if suffix != 'bmp':
        assert image.info['icc_profile'] == profile and image.getexif()[0x010F] == 'Camera'
  assert Image.open(tmp_path / 'out_compare.png').size == (2 * 48 + 2, 32)
  run(input=source, output=tmp_path / 'folder')
  assert Image.open(tmp_path / 'folder/in.png').info['icc_profile'] == profile
  assert not list(tmp_path.glob('.*'))


def test_a_turned_photo_becomes_an_upright_image(tmp_path, run):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(picture(0)).save(tmp_path / 'in.jpg', exif=exif, quality=100)
  run(input=tmp_path / 'in.jpg', output=tmp_path / 'out.jpg')
  with Image.open(tmp_path / 'out.jpg') as image:
    assert image.size == (32, 48) and 0x0112 not in image.getexif()


def test_an_image_holds_one_frame(tmp_path, run):
  source = folder(tmp_path / 'in', 'png', 3)
  with pytest.raises(errors.VideoError, match='out.png: is the name of one image, the input has 3 frames; give a name'):
    run(input=source, output=tmp_path / 'out.png')
  (tmp_path / 'out.png').mkdir()
  with pytest.raises(errors.VideoError, match='out.png: is a folder; give --output the name of a file'):
    run(input=source / '000.png', output=tmp_path / 'out.png', overwrite=True)
  with pytest.raises(errors.VideoError, match=r'out.gif: video is written to .mp4, .* one image to .png, '):
    run(input=source / '000.png', output=tmp_path / 'out.gif')
  frames = (video.rgb_to_yuv(picture(0), video.Colour('bt709')) for _ in range(1))
  video.encode(frames, tmp_path / 'one.mp4', fps=Fraction(25), colour=video.Colour('bt709'), crf=10)
  run(input=tmp_path / 'one.mp4', output=tmp_path / 'one.png')
  assert Image.open(tmp_path / 'one.png').size == (48, 32)


@pytest.mark.parametrize('fps', ['fast', '0', '-24', '1/0'])
def test_rates_that_are_none(tmp_path, run, fps):
  with pytest.raises(errors.ConfigError, match='^--fps=.*expected frames per second'):
    run(input=folder(tmp_path / 'in', 'png'), output=tmp_path / 'out', fps=fps)


def test_a_video_has_its_own_time(tmp_path, run):
  colour = video.Colour('bt709')
  planes = (video.rgb_to_yuv(picture(t), colour) for t in range(3))
  video.encode(planes, tmp_path / 'in.mp4', fps=Fraction(25), colour=colour, crf=20)
  with pytest.raises(errors.ConfigError, match='^--fps=24 is for images'):
    run(input=tmp_path / 'in.mp4', output=tmp_path / 'out.mp4', fps='24')


@pytest.mark.parametrize('cuts', [True, False])
def test_windows_end_at_cuts_unless_told_otherwise(tmp_path, run, cuts):
  network = Window(5, 3, nnx.Rngs(0))
  (tmp_path / 'in').mkdir()
  frames = [picture(t) // 3 + 160 * (t >= 7) for t in range(12)]
  for t, frame in enumerate(frames):
    video.write_png(tmp_path / 'in' / f'{t:03d}.png', frame)
  run(network, input=tmp_path / 'in', output=tmp_path / 'out', cuts=cuts)
  parts = [frames[:7], frames[7:]] if cuts else [frames]
  wanted = [out for part in parts for out in inference.restore_frames(network, part)]
  np.testing.assert_array_equal(list(video.open_video(tmp_path / 'out').frames()), wanted)
