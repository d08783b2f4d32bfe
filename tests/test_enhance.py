"""The whole path of `enhance` on generated video, with restorers simple enough to know the result."""

import pathlib
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from vqm_jax import enhance, errors, inference, restorers, video

COUNT = 24


def identity(frames):
  yield from frames


def negative(frames):
  """Three frames late, as a network with a window is."""
  waiting = []
  for frame in frames:
    waiting.append(255 - frame)
    if len(waiting) > 3:
      yield waiting.pop(0)
  yield from waiting


def picture(t, height=48, width=64):
  y, x = np.mgrid[:height, :width]
  return (120 + 80 * np.stack([np.sin(x / 9 + t), np.cos(y / 8 - t), np.sin((x + y) / 9 + t)], -1)).astype(np.uint8)


def make(path, height=48, width=64, sound='aac', times=None, matrix=5):
  """A video with stereo noise and one subtitle (where the container can hold it)."""
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('libx264', rate=Fraction(24000, 1001), options={'crf': '8'})
    stream.height, stream.width = height, width
    stream.pix_fmt = 'yuv444p' if height % 2 or width % 2 else 'yuv420p'
    stream.codec_context.colorspace = matrix
    stream.codec_context.color_range = 1
    if times:
      stream.codec_context.time_base = Fraction(1, 1000)
    audio = output.add_stream(sound, rate=48000, layout='stereo') if sound else None
    text = None
    if path.suffix == '.mp4':
      text = output.add_stream('mov_text')
      text.codec_context.subtitle_header = b'[Script Info]\n'
    colour = video.Colour('bt709' if matrix == 1 else 'bt601')
    for t in range(COUNT):
      frame = video.rgb_to_yuv(picture(t, height, width), colour)
      frame.pts = times[t] if times else t
      output.mux(stream.encode(frame))
    noise = np.random.default_rng(0).integers(-9999, 9999, (1, 2048), dtype=np.int16)
    for k in range(47 if audio else 0):
      samples = av.AudioFrame.from_ndarray(noise, 's16', 'stereo')
      samples.sample_rate, samples.pts = 48000, 1024 * k
      output.mux(audio.encode(samples))
    if text:
      packet = av.Packet(b'\x00\x05hello')
      packet.stream, packet.time_base = text, Fraction(1, 1000)
      packet.pts, packet.dts, packet.duration = 200, 200, 500
      output.mux(packet)
    output.mux(stream.encode(None))
    if audio:
      output.mux(audio.encode(None))
  return path


def packets(path):
  with av.open(str(path)) as container:
    return [(p.stream.type, p.pts, bytes(p)) for p in container.demux() if p.size and p.stream.type != 'video']


def psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


@pytest.mark.parametrize('size', [(48, 64), (47, 64), (48, 63), (35, 51)])
@pytest.mark.parametrize('matrix', [1, 5])
def test_identity_keeps_everything(tmp_path, size, matrix):
  source = video.open_video(make(tmp_path / 'in.mp4', *size, matrix=matrix))
  output = tmp_path / 'out.mp4'
  assert enhance.enhance_video(identity, source, output) == COUNT
  result = video.open_video(output)
  assert (result.height, result.width, result.num_frames) == (*size, COUNT)
  assert (result.fps, result.timestamps, result.time_base) == (source.fps, source.timestamps, source.time_base)
  assert (result.colour, result.tags) == (source.colour, source.tags)
  assert {kind for kind, _, _ in packets(output)} == {'audio', 'subtitle'}
  assert sorted(packets(output)) == sorted(packets(source.path))
  assert psnr(list(result.frames()), list(source.frames())) > 36
  assert sorted(entry.name for entry in tmp_path.iterdir()) == ['in.mp4', 'out.mp4']


@pytest.mark.parametrize('suffix', ['.mkv', '.mov'])
@pytest.mark.parametrize('codec', ['h264', 'h265'])
def test_other_containers_and_codecs(tmp_path, suffix, codec):
  source = video.open_video(make(tmp_path / 'in.mp4'))
  output = tmp_path / f'out{suffix}'
  enhance.enhance_video(negative, source, output, codec=codec, crf=5)
  result = video.open_video(output)
  assert (result.num_frames, result.codec) == (COUNT, {'h264': 'h264', 'h265': 'hevc'}[codec])
  assert psnr([255 - frame for frame in result.frames()], list(source.frames())) > 38
  sound = [(kind, data) for kind, _, data in packets(output) if kind == 'audio']
  assert sound == [(kind, data) for kind, _, data in packets(source.path) if kind == 'audio']


def test_uneven_time_stamps_are_kept(tmp_path):
  times = [40 * t + (25 if t % 3 else 0) for t in range(COUNT)]
  source = video.open_video(make(tmp_path / 'in.mkv', times=times), variable_rate=True)
  enhance.enhance_video(identity, source, tmp_path / 'out.mp4')
  result = video.open_video(tmp_path / 'out.mp4', variable_rate=True)
  seconds = [[t * clip.time_base for t in clip.timestamps] for clip in (source, result)]
  assert seconds[0] == seconds[1]


def test_compare(tmp_path):
  source = video.open_video(make(tmp_path / 'in.mp4', 48, 64))
  compare = enhance.compare_path(tmp_path / 'out.mp4')
  assert compare.name == 'out_compare.mp4'
  enhance.enhance_video(negative, source, tmp_path / 'out.mp4', compare=compare, crf=1)
  both = video.open_video(compare)
  assert (both.height, both.width, both.num_frames) == (48, 130, COUNT)
  for pair, before in zip(both.frames(), source.frames(), strict=True):
    assert psnr(pair[:, :60], before[:, :60]) > 33
    assert psnr(pair[:, 70:], 255 - before[:, 4:]) > 33
  assert sorted(packets(compare)) == sorted(packets(source.path))


def test_images_to_images_keep_their_names(tmp_path):
  (tmp_path / 'in').mkdir()
  for t in (8, 9, 10):
    video.write_png(tmp_path / 'in' / f'{t}.png', picture(t))
  output = tmp_path / 'out'
  assert enhance.enhance_video(negative, video.open_video(tmp_path / 'in'), output) == 3
  assert [file.name for file in video.open_video(output).files] == ['8.png', '9.png', '10.png']
  np.testing.assert_array_equal(list(video.open_video(output).frames()), [255 - picture(t) for t in (8, 9, 10)])


def test_video_to_images(tmp_path):
  source = video.open_video(make(tmp_path / 'in.mp4'))
  enhance.enhance_video(identity, source, tmp_path / 'out')
  np.testing.assert_array_equal(list(video.open_video(tmp_path / 'out').frames()), list(source.frames()))


def test_memory_is_bounded(tmp_path):
  """However slow the restorer, the reader does not run away."""
  source = video.open_video(make(tmp_path / 'in.mp4'))
  read = []

  class Counted:
    num_frames, fps, height, width = COUNT, source.fps, 48, 64

    def frames(self):
      for frame in source.frames():
        read.append(frame)
        yield frame

  ahead = []

  def slow(frames):
    for k, frame in enumerate(frames):
      if k == 5:
        threading.Event().wait(0.3)
        ahead.append(len(read) - k)
      yield frame

  enhance.enhance_video(slow, Counted(), tmp_path / 'out.mp4')
  assert ahead[0] <= 10


@pytest.mark.parametrize('where', ['reader', 'restorer', 'lost frame'])
def test_errors_surface_and_leave_nothing(tmp_path, where):
  path = make(tmp_path / 'in.mp4')
  if where == 'reader':
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(content)

  def restore(frames):
    for k, frame in enumerate(frames):
      if where == 'restorer' and k == 9:
        raise errors.DataError('out of luck')
      if where != 'lost frame' or k != 9:
        yield frame

  source = video.open_video(path)
  threads = threading.active_count()
  with pytest.raises(errors.VqmError, match='damaged|out of luck|23 frames were given, the source has 24'):
    enhance.enhance_video(restore, source, tmp_path / 'out.mp4', compare=tmp_path / 'both.mp4')
  assert [entry.name for entry in tmp_path.iterdir()] == ['in.mp4']
  assert threading.active_count() == threads


def test_check_output(tmp_path):
  source = make(tmp_path / 'in.mp4', sound=None)
  (tmp_path / 'there.mp4').write_text('')
  (tmp_path / 'hard.mp4').hardlink_to(source)
  (tmp_path / 'soft.mp4').symlink_to(source)

  def refused(output, match, overwrite=True):
    with pytest.raises(errors.VideoError, match=match):
      enhance.check_output(source, tmp_path / output, overwrite)

  for same in ('in.mp4', 'hard.mp4', 'soft.mp4', '../' + tmp_path.name + '/in.mp4'):
    refused(same, 'is the input itself')
  refused('there.mp4', 'add --overwrite', overwrite=False)
  refused('none/out.mp4', 'does not exist')
  refused('out.avi', 'written to .mp4, .mkv, .mov')
  refused('.', 'within the other')
  enhance.check_output(source, tmp_path / 'there.mp4', True)
  enhance.check_output(source, tmp_path / 'out', False)
  with pytest.raises(errors.VideoError, match='within the other'):
    enhance.check_output(tmp_path, tmp_path / 'out.mp4', False)


@pytest.fixture
def run(monkeypatch):
  """`main` with the flags given and a network that changes nothing."""
  network = restorers.create('none', rngs=None)
  opened = inference.Run(network, {'system': 'none'}, pathlib.Path('runs/none'), 7, 7, True, 0, None)
  monkeypatch.setattr(enhance.inference, 'open_run', lambda *args: opened)
  monkeypatch.setattr(enhance.cli, 'enable_compilation_cache', lambda: None)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def call(**values):
    with flagsaver.flagsaver(workdir='runs/none', **values):
      enhance.main(None)

  return call


def test_main(tmp_path, run, capsys):
  source, output = make(tmp_path / 'in.mp4', 35, 51), tmp_path / 'out.mp4'
  run(input=str(source), output=str(output), dry_run=True, compare=True)
  out = capsys.readouterr().out
  assert 'out.mp4' in out and 'out_compare.mp4' in out and 's per frame' in out
  assert [entry.name for entry in tmp_path.iterdir()] == ['in.mp4']
  run(input=str(source), output=str(output), compare=True)
  assert '24 frames in' in capsys.readouterr().out
  assert psnr(list(video.open_video(output).frames()), list(video.open_video(source).frames())) > 36
  with pytest.raises(errors.VideoError, match='exists already'):
    run(input=str(source), output=str(output))
  before = output.stat().st_size
  run(input=str(source), output=str(output), overwrite=True, crf=45.0)
  assert output.stat().st_size < before
  with pytest.raises(errors.ConfigError, match='--output is required'):
    run(input=str(source))
  with pytest.raises(errors.ConfigError, match='self_ensemble=3'):
    run(input=str(source), output=str(output), overwrite=True, self_ensemble=3)
