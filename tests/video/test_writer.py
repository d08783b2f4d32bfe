"""Writing: files and folders that appear whole or not at all, sound and tags of a source, threads."""

import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from full_disk import no_file_beyond
from PIL import Image

from vqm_jax import errors
from vqm_jax.video import Colour, background, in_background, open_video, open_writer, prefetch, write_png

FPS = Fraction(25)


def picture(t, height=48, width=64):
  y, x = np.mgrid[:height, :width]
  return (120 + 80 * np.stack([np.sin(x / 5 + t), np.cos(y / 4 - t), np.sin((x + y) / 7 + t)], -1)).astype(np.uint8)


def write(path, count=5, height=48, width=64, **options):
  with open_writer(path, fps=FPS, height=height, width=width, **options) as writer:
    for t in range(count):
      writer.write(picture(t, height, width))
  return path


@pytest.mark.parametrize('codec', ['h264', 'h265'])
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
@pytest.mark.parametrize('size', [(48, 66), (47, 66), (48, 65), (47, 65)])
def test_any_size_in_every_container(tmp_path, codec, suffix, size):
  path = write(tmp_path / f'a{suffix}', height=size[0], width=size[1], codec=codec)
  source = open_video(path)
  assert (source.height, source.width, source.num_frames, source.fps) == (*size, 5, FPS)
  error = [np.mean((f.astype(float) - picture(t, *size)) ** 2) for t, f in enumerate(source.frames())]
  assert 10 * np.log10(255**2 / np.mean(error)) > 33
  assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_colour_by_height_and_as_asked(tmp_path):
  assert open_video(write(tmp_path / 'a.mp4', 1)).colour == Colour('bt601', False)
  assert open_video(write(tmp_path / 'b.mp4', 1, 720, 32)).colour == Colour('bt709', False)
  assert open_video(write(tmp_path / 'c.mp4', 1, colour=Colour('bt709', True))).colour == Colour('bt709', True)


def test_folder(tmp_path):
  folder = write(tmp_path / 'frames', 3)
  assert sorted(entry.name for entry in folder.iterdir()) == ['000000.png', '000001.png', '000002.png']
  np.testing.assert_array_equal(list(open_video(folder).frames()), [picture(t) for t in range(3)])
  write(folder, 2)
  assert open_video(folder).num_frames == 2
  assert [entry.name for entry in tmp_path.iterdir()] == ['frames']
  (folder / 'notes.txt').write_text('mine')
  with pytest.raises(errors.VideoError, match='more than PNG'):
    write(folder)
  assert (folder / 'notes.txt').exists()


def test_folder_takes_the_names_of_its_source(tmp_path):
  (tmp_path / 'in').mkdir()
  for k in (7, 8, 9):
    write_png(tmp_path / 'in' / f'shot_{k}.png', picture(k))
  source = open_video(tmp_path / 'in')
  write(tmp_path / 'out', 3, source=source)
  assert [file.name for file in open_video(tmp_path / 'out').files] == ['shot_7.png', 'shot_8.png', 'shot_9.png']
  with pytest.raises(errors.VideoError, match='2 frames were given, the source has 3'):
    write(tmp_path / 'short', 2, source=source)


@pytest.mark.parametrize('name', ['a.mp4', 'folder'])
def test_failure_keeps_what_was_there(tmp_path, name):
  path = write(tmp_path / name, 2)
  with pytest.raises(RuntimeError), open_writer(path, fps=FPS, height=48, width=64) as writer:
    writer.write(picture(0))
    raise RuntimeError
  assert open_video(path).num_frames == 2
  assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('name', ['a.mp4', 'folder'])
def test_wrong_frames(tmp_path, name):
  for wrong in (picture(0, 50), picture(0).astype(np.float32)):
    with pytest.raises(errors.VideoError, match='frame 1 is .*expected uint8'):
      with open_writer(tmp_path / name, fps=FPS, height=48, width=64) as writer:
        writer.write(picture(0))
        writer.write(wrong)
  assert not list(tmp_path.iterdir())


def test_unwritable(tmp_path):
  with pytest.raises(errors.VideoError, match='does not exist'):
    write(tmp_path / 'none' / 'a.mp4')
  with pytest.raises(errors.VideoError, match='written to .mp4'):
    write(tmp_path / 'a.gif')
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.VideoError, match='is a file'):
    write(tmp_path / 'file')


def test_write_png(tmp_path):
  write_png(tmp_path / 'a.png', picture(0))
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), picture(0))
  with pytest.raises(errors.VideoError):
    write_png(tmp_path / 'none' / 'a.png', picture(0))
  assert [entry.name for entry in tmp_path.iterdir()] == ['a.png']


@pytest.mark.parametrize('name', ['a.png', 'a.webp', 'a.bmp', 'a.tif', 'a.jpg', 'folder', 'a.mp4'])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, name):
  path = tmp_path / name
  with pytest.raises(errors.DiskFullError, match=f'^{path.parent}/.*: no room to write this; .* are free .*Make room'):
    with no_file_beyond(100):
      write(path, 1)
  assert not list(tmp_path.iterdir())


def with_sound(path, codec='pcm_s16le', start=0):
  """Ten frames at uneven times, tagged BT.470BG with square-root pixels, and sound that starts with them or later."""
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('libx264', rate=25)
    stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
    stream.sample_aspect_ratio = Fraction(4, 3)
    context = stream.codec_context
    context.time_base = Fraction(1, 1000)
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 5, 5, 4, 2
    sound = output.add_stream(codec, rate=48000, layout='stereo')
    output.metadata['title'] = 'clouds'
    for t in range(10):
      frame = av.VideoFrame.from_ndarray(picture(t), 'rgb24').reformat(format='yuv420p')
      frame.pts, frame.time_base = start + 40 * t + 13 * (t % 2), Fraction(1, 1000)
      output.mux(stream.encode(frame))
    noise = np.random.default_rng(0).integers(-999, 999, (1, 2 * 1024), dtype=np.int16)
    for k in range(18):
      samples = av.AudioFrame.from_ndarray(noise, 's16', 'stereo')
      samples.sample_rate, samples.pts = 48000, 1024 * k
      output.mux(sound.encode(samples))
    output.mux(stream.encode(None))
    output.mux(sound.encode(None))
  return path


def packets(path, kind):
  with av.open(str(path)) as container:
    found = [p for p in container.demux() if p.size and p.stream.type == kind]
    return [bytes(p) for p in found], [float(p.pts * p.time_base) for p in found]


@pytest.mark.parametrize('output', ['out.mkv', 'out.mov', 'out.mp4'])
@pytest.mark.parametrize('start', [0, 200])
def test_everything_of_the_source_is_kept(tmp_path, output, start):
  source = open_video(with_sound(tmp_path / 'in.mkv', 'aac', start), variable_rate=True)
  path = write(tmp_path / output, 10, source=source)
  copy = open_video(path, variable_rate=True)
  assert copy.colour == source.colour == Colour('bt601', True)
  assert copy.tags == source.tags == {'colorspace': 5, 'color_primaries': 5, 'color_trc': 4}
  assert copy.pixel_aspect == Fraction(4, 3)
  before, after = ([t * s.time_base for t in s.timestamps] for s in (source, copy))
  assert after == before
  sound, times = packets(path, 'audio')
  assert (sound, pytest.approx(times, abs=1e-3)) == packets(source.path, 'audio')
  with av.open(str(path)) as container:
    assert container.metadata['title'] == 'clouds'


def test_sound_that_does_not_fit_is_an_error(tmp_path):
  source = open_video(with_sound(tmp_path / 'in.mkv', 'pcm_u8'), variable_rate=True)
  with pytest.raises(errors.VideoError, match='pcm_u8.*does not fit into .mp4; write to .mkv or .mov instead'):
    write(tmp_path / 'out.mp4', 10, source=source)
  assert [entry.name for entry in tmp_path.iterdir()] == ['in.mkv']


def subtitled(path):
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('libx264', rate=25)
    stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
    text = output.add_stream('mov_text')
    text.codec_context.subtitle_header = b'[Script Info]\n'
    for t in range(25):
      frame = av.VideoFrame.from_ndarray(picture(t), 'rgb24').reformat(format='yuv420p')
      frame.pts = t
      output.mux(stream.encode(frame))
    packet = av.Packet(b'\x00\x05hello')
    packet.stream, packet.pts, packet.dts, packet.duration = text, 200, 200, 500
    packet.time_base = Fraction(1, 1000)
    output.mux(packet)
    output.mux(stream.encode(None))
  return path


def test_subtitles(tmp_path, caplog):
  source = open_video(subtitled(tmp_path / 'in.mp4'))
  assert source.other_streams == ('subtitle mov_text',)
  path = write(tmp_path / 'out.mp4', 25, source=source)
  assert packets(path, 'subtitle') == packets(source.path, 'subtitle')
  assert b'\x00\x05hello' in packets(path, 'subtitle')[0]


def test_prefetch_is_bounded_ordered_and_honest():
  made = []

  def frames():
    for t in range(40):
      made.append(t)
      yield t
    raise errors.VideoError('broken at 40')

  ahead = prefetch(frames(), 4)
  assert next(ahead) == 0
  time.sleep(0.05)
  assert len(made) <= 6
  assert [next(ahead) for _ in range(39)] == list(range(1, 40))
  with pytest.raises(errors.VideoError, match='broken at 40'):
    next(ahead)


def test_prefetch_can_be_abandoned():
  closed = []

  def frames():
    try:
      while True:
        yield 0
    finally:
      closed.append(True)

  before = threading.active_count()
  ahead = prefetch(frames())
  next(ahead)
  ahead.close()
  assert closed and threading.active_count() == before


def test_work_on_frames_keeps_their_order_and_is_done_side_by_side():
  meeting = threading.Barrier(background.WORKERS)

  def work(t):
    if t < background.WORKERS:
      meeting.wait(timeout=60)
    if t == 25:
      raise errors.VideoError('broken at 25')
    return -t

  ahead = prefetch((t for t in range(40)), 6, work)
  assert [next(ahead) for _ in range(25)] == [-t for t in range(25)]
  with pytest.raises(errors.VideoError, match='broken at 25'):
    next(ahead)
  before = threading.active_count()
  ahead = prefetch((t for t in range(40)), 6, lambda t: t)
  next(ahead)
  ahead.close()
  assert threading.active_count() == before


class Slow:
  def __init__(self, fail_at=None):
    self.written, self.fail_at = [], fail_at

  def write(self, rgb):
    time.sleep(0.002)
    if rgb == self.fail_at:
      raise errors.VideoError('disk full')
    self.written.append(rgb)


def test_background_writer_is_bounded_and_ordered():
  slow = Slow()
  with in_background(slow, 3) as writer:
    for t in range(20):
      writer.write(t)
      assert t - len(slow.written) <= 4
  assert slow.written == list(range(20))


def test_background_writer_gets_what_was_made_of_frames():
  slow, made = Slow(), []

  def work(index, t):
    time.sleep(0.004 * (index % 3))
    made.append(t)
    return index, t

  with in_background(slow, 3, work) as writer:
    for t in range(100, 120):
      writer.write(t)
      assert len(made) - len(slow.written) <= 4 + background.WORKERS
  assert slow.written == list(enumerate(range(100, 120)))

  def broken(index, t):
    if index == 7:
      raise errors.VideoError('broken at 7')
    return index

  slow = Slow()
  with pytest.raises(errors.VideoError, match='broken at 7'), in_background(slow, 3, broken) as writer:
    for t in range(20):
      writer.write(t)
  assert len(slow.written) == 7


@pytest.mark.parametrize('fail_at', [0, 19])
def test_background_writer_raises_in_the_caller(fail_at):
  slow = Slow(fail_at)
  with pytest.raises(errors.VideoError, match='disk full'), in_background(slow, 3) as writer:
    for t in range(20):
      writer.write(t)
  assert len(slow.written) <= fail_at + 4
