"""What `enhance` takes beside videos, and the scenes of what it takes."""

import pathlib
from fractions import Fraction

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from flax import nnx
from inference.window import Window
from PIL import Image

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
