"""Reading: exact frames from any position in every container, and a clear refusal of everything else."""

import pathlib
import zipfile
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vqm_jax import errors
from vqm_jax.video import colour, decoding, open_writer, reader
from vqm_jax.video.reader import list_videos, open_video

CODINGS = {
  'h264.mp4': ('libx264', {'g': '8'}),
  'open_gop.mp4': ('libx264', {'x264-params': 'keyint=8:min-keyint=8:open-gop=1'}),
  'h264.mkv': ('libx264', {'g': '8'}),
  'h264.mov': ('libx264', {'g': '8'}),
  'h264.avi': ('libx264', {'g': '8'}),
  'h265.mp4': ('libx265', {'x265-params': 'keyint=8:min-keyint=8:open-gop=1:log-level=none'}),
  'mpeg4.avi': ('mpeg4', {'g': '8', 'bf': '2'}),
  'vp8.webm': ('libvpx', {'g': '8', 'auto-alt-ref': '1', 'lag-in-frames': '8', 'deadline': 'good'}),
  'vp9.webm': ('libvpx-vp9', {'g': '8', 'deadline': 'realtime'}),
  'ffv1.mkv': ('ffv1', {}),
}


def picture(t, height=48, width=64):
  y, x = np.mgrid[:height, :width]
  image = 120 + 80 * np.stack([np.sin(x / 5 + t), np.cos(y / 4 - t), np.sin((x + y) / 7 + t)], -1)
  image[:8, : 2 + 2 * t] = 255
  return image.astype(np.uint8)


def make(
  path, codec='libx264', options=None, count=30, pix_fmt='yuv420p', fps=24, times=None, prepare=None, **container
):
  with av.open(str(path), 'w', container_options=container) as output:
    stream = output.add_stream(codec, rate=fps, options=options or {})
    stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
    if times:
      stream.codec_context.time_base = Fraction(1, 1000)
    if prepare:
      prepare(stream)
    for t in range(count):
      frame = av.VideoFrame.from_ndarray(picture(t), format='rgb24').reformat(format=pix_fmt)
      frame.pts = times[t] if times else t
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  return path


@pytest.mark.parametrize('name', CODINGS)
def test_frames_from_every_position(tmp_path, name):
  source = open_video(make(tmp_path / name, *CODINGS[name]))
  everything = list(source.frames())
  assert (source.num_frames, len(everything), source.fps) == (30, 30, 24)
  assert (source.height, source.width, source.name) == (48, 64, pathlib.Path(name).stem)
  for t, frame in enumerate(everything):
    assert np.abs(frame.astype(float) - picture(t)).mean() < 12, t
  for start in range(30):
    np.testing.assert_array_equal(next(source.frames(start)), everything[start])
  part = list(source.frames(11, 21))
  np.testing.assert_array_equal(part, everything[11:21])
  assert not list(source.frames(30)) and not list(source.frames(5, 5))
  with pytest.raises(errors.VideoError, match='there are 30'):
    list(source.frames(0, 31))


def test_seeking_does_not_decode_from_the_beginning(tmp_path, monkeypatch):
  source = open_video(make(tmp_path / 'a.mp4', *CODINGS['h264.mp4'], count=64))
  started, decode = [], decoding.decode
  monkeypatch.setattr(decoding, 'decode', lambda *args: started.append(args[2]) or decode(*args))
  next(source.yuv_frames(50))
  (first,) = started
  assert 48 < first <= 50


@pytest.mark.parametrize('suffix', ['mp4', 'mkv'])
@pytest.mark.parametrize('fps', [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60), Fraction(25, 2)])
def test_rates(tmp_path, suffix, fps):
  source = open_video(make(tmp_path / f'a.{suffix}', fps=fps))
  assert source.fps == fps and source.constant_rate


def test_colour_of_a_file(tmp_path):
  def tag(stream):
    stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
    stream.codec_context.color_range = 2

  assert open_video(make(tmp_path / 'a.mp4', prepare=tag)).colour == colour.Colour('bt709', True)
  assert open_video(make(tmp_path / 'b.mp4')).colour == colour.Colour('bt601', False)
  assert open_video(make(tmp_path / 'c.avi', 'mjpeg', pix_fmt='yuvj420p')).colour.full_range


def test_given_fps_replaces_the_timing(tmp_path):
  times = [k * 40 + (k % 3) * 17 for k in range(30)]
  source = open_video(make(tmp_path / 'a.mkv', times=times), fps=Fraction(10))
  assert source.fps == 10 and source.timestamps is None and len(list(source.frames())) == 30


def refuse(path, match):
  """Refused at the latest when the frames are counted or read, and in one line that names the file."""
  with pytest.raises(errors.VideoError, match=match) as caught:
    list(open_video(path).frames())
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_variable_rate_needs_leave(tmp_path):
  times = [k * 40 for k in range(15)] + [15 * 40 + k * 20 for k in range(15)]
  path = make(tmp_path / 'a.mkv', times=times)
  refuse(path, 'rate varies.*-fps_mode cfr')
  source = open_video(path, variable_rate=True)
  assert not source.constant_rate and len(list(source.frames())) == 30
  assert [t * source.time_base for t in source.timestamps] == [Fraction(t, 1000) for t in times]
  np.testing.assert_array_equal(next(source.frames(20)), list(source.frames())[20])


@pytest.mark.parametrize('pix_fmt', ['yuv420p10le', 'yuv422p10le'])
def test_ten_bits_come_as_asked(tmp_path, pix_fmt):
  path = make(tmp_path / 'a.mp4', 'libx264', {'crf': '4'}, count=3, pix_fmt=pix_fmt)
  shallow, deep = open_video(path), open_video(path, deep=True)
  assert (shallow.dtype, deep.dtype) == (np.uint8, np.uint16)
  for few, many in zip(shallow.frames(), deep.frames(), strict=True):
    assert (few.dtype, many.dtype) == (np.uint8, np.uint16)
    assert np.abs(many / 257 - few).max() < 2 and len(np.unique(many)) > 300
  assert open_video(make(tmp_path / 'b.mp4', count=3), deep=True).dtype == np.uint8


@pytest.mark.parametrize(('pix_fmt', 'coded'), [('yuv422p12le', 'yuv422p10le'), ('gbrp16le', 'yuv444p10le')])
def test_more_bits_are_read_and_rounded_to_ten_where_they_are_written(tmp_path, caplog, pix_fmt, coded):
  path = make(tmp_path / 'a.mkv', 'ffv1', count=2, pix_fmt=pix_fmt)
  source = open_video(path, deep=True)
  assert source.dtype == np.uint16 and f'its {pix_fmt[-4:-2]} bits are rounded to 10 where video is' in caplog.text
  frames = list(source.frames())
  with open_writer(
    tmp_path / 'b.mkv', fps=source.fps, height=source.height, width=source.width, source=source
  ) as writer:
    for frame in frames:
      writer.write(frame)
  back = open_video(tmp_path / 'b.mkv', deep=True)
  assert (back.pixel_format, back.codec) == (coded, 'hevc')
  assert np.abs(np.subtract(list(back.frames()), frames, dtype=float)).mean() < 800


@pytest.mark.parametrize(
  ('name', 'codec', 'pix_fmt', 'options', 'match'),
  [
    ('a.webm', 'libvpx-vp9', 'yuva420p', {'deadline': 'realtime'}, 'transparent.*alpha_mode='),
    ('a.mp4', 'libx264', 'yuv420p', {'x264-params': 'tff=1'}, 'interlaced.*bwdif'),
  ],
)
def test_refuses_formats(tmp_path, name, codec, pix_fmt, options, match):
  refuse(make(tmp_path / name, codec, options, pix_fmt=pix_fmt), match)


def test_refuses_hdr(tmp_path):
  def pq(stream):
    stream.codec_context.color_trc = 16

  refuse(make(tmp_path / 'a.mp4', 'libx265', {'x265-params': 'log-level=none'}, prepare=pq), 'HDR')


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi'])
def test_truncated_files_are_refused(tmp_path, name):
  path = make(tmp_path / name, options={'g': '8'}, **({'movflags': 'faststart'} if name == 'a.mp4' else {}))
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
  refuse(path, 'truncated')


def test_mp4_without_its_index_is_refused(tmp_path):
  path = make(tmp_path / 'a.mp4')
  path.write_bytes(path.read_bytes()[:-200])
  refuse(path, 'not a readable video')


@pytest.mark.parametrize('name', ['a.mp4', 'a.avi'])
def test_damaged_frames_are_named(tmp_path, name):
  path = make(tmp_path / name, options={'g': '8'})
  content = bytearray(path.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
  path.write_bytes(content)
  refuse(path, r'damaged, frame \d+ (of 30 )?cannot|holds \d+ of 30 frames|\d that its index lists are not there')


def test_a_lost_chunk_of_avi_does_not_move_those_behind_it(tmp_path):
  path = make(tmp_path / 'a.avi', options={'g': '1'})
  with av.open(str(path)) as container:
    positions = [packet.pos for packet in container.demux(video=0) if packet.size]
  content = bytearray(path.read_bytes())
  content[positions[11] - 8 : positions[11]] = b'\xff' * 8  # its name and size
  path.write_bytes(content)
  refuse(path, 'damaged, frames seem to be missing .1 that its index lists are not there')
  video = open_video(path, keep_going=True, variable_rate=True)
  assert video.timestamps == [k for k in range(30) if k != 11]
  assert len(list(video.frames())) == 29


def test_not_a_video(tmp_path):
  path = tmp_path / 'a.mp4'
  path.write_text('hello')
  refuse(path, 'not a readable video')
  text = tmp_path / 'a.txt'
  text.write_text('hello')
  refuse(text, 'not a video')
  refuse(tmp_path / 'none.mp4', 'no such file')
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=48000)
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
    silence.sample_rate = 48000
    container.mux(stream.encode(silence))
    container.mux(stream.encode(None))
  refuse(path, 'no video stream')


def images(folder, names, mode='RGB'):
  folder.mkdir(exist_ok=True, parents=True)
  for k, name in enumerate(names):
    Image.fromarray(picture(k)).convert(mode).save(folder / name)
  return folder


@pytest.mark.parametrize('suffix', ['png', 'webp', 'bmp', 'tif'])
def test_image_folder_in_natural_order(tmp_path, suffix):
  folder = images(tmp_path / '007', [f'{k}.{suffix}' for k in range(8, 12)])
  source = open_video(folder, fps=Fraction(12))
  assert (source.name, source.num_frames, source.height, source.width, source.fps) == ('007', 4, 48, 64, 12)
  if suffix != 'webp':
    np.testing.assert_array_equal(list(source.frames(1, 3)), [picture(1), picture(2)])
  assert isinstance(source, reader.VideoSource) and open_video(folder).fps == 30


def test_zip_and_folders_in_it(tmp_path):
  folder = images(tmp_path / 'set' / '000', ['1.png', '2.png'])
  images(tmp_path / 'set' / '001', ['1.png'])
  for name, inside in (('flat.zip', ''), ('one.zip', '000/'), ('two.zip', None)):
    with zipfile.ZipFile(tmp_path / name, 'w') as archive:
      for file in sorted((tmp_path / 'set').rglob('*.png')):
        if inside is None:
          archive.write(file, file.relative_to(tmp_path / 'set'))
        elif file.parent == folder:
          archive.write(file, inside + file.name)
  for name in ('flat.zip', 'one.zip'):
    np.testing.assert_array_equal(list(open_video(tmp_path / name).frames()), [picture(0), picture(1)])
  clips = list_videos(tmp_path / 'two.zip')
  assert list(clips) == ['000', '001']
  assert [open_video(clip).num_frames for clip in clips.values()] == [2, 1]
  broken = tmp_path / 'broken.zip'
  broken.write_bytes(b'PK')
  refuse(broken, 'zip')


def test_list_videos(tmp_path):
  images(tmp_path / '010', ['1.png', '2.png'])
  images(tmp_path, ['002_8.png', '002_9.png', '002_10.png', '.hidden_1.png'])
  make(tmp_path / '001.mp4', count=3)
  (tmp_path / 'notes.txt').write_text('')
  (tmp_path / 'empty').mkdir()
  clips = list_videos(tmp_path)
  assert list(clips) == ['001', '002', '010']
  sources = {name: open_video(path) for name, path in clips.items()}
  assert {name: source.name for name, source in sources.items()} == {name: name for name in clips}
  assert [source.num_frames for source in sources.values()] == [3, 3, 2]
  np.testing.assert_array_equal(list(sources['002'].frames()), [picture(0), picture(1), picture(2)])
  assert list_videos(tmp_path / '010') == {'010': tmp_path / '010'}
  make(tmp_path / '010.mkv', count=3)
  with pytest.raises(errors.VideoError, match="'010'"):
    list_videos(tmp_path)
  with pytest.raises(errors.VideoError, match='no such folder'):
    list_videos(tmp_path / 'none')


def test_image_folder_errors(tmp_path):
  refuse(images(tmp_path / 'jpg', ['1.jpg']), 'JPEG')
  refuse(images(tmp_path / 'gap', ['1.png', '2.png', '4.png']), 'missing')
  refuse(images(tmp_path / 'clips', ['000_1.png', '001_1.png']), 'several clips')
  refuse(images(tmp_path / 'alpha', ['1.png'], 'RGBA'), 'RGBA')
  refuse(tmp_path / 'alpha' / '9_*.png', 'no images')
  sizes = images(tmp_path / 'sizes', ['1.png'])
  Image.new('RGB', (5, 5)).save(sizes / '2.png')
  refuse(sizes, '2.png: 5x5 pixels, expected 64x48')
  broken = images(tmp_path / 'broken', ['1.png', '2.png'])
  (broken / '2.png').write_bytes((broken / '2.png').read_bytes()[:300])
  refuse(broken, '2.png: not a readable image')


def test_sixteen_bit_images_are_refused(tmp_path):
  with av.open(str(tmp_path / '1.png'), 'w', format='image2') as container:
    stream = container.add_stream('png', rate=1)
    stream.height, stream.width, stream.pix_fmt = 48, 64, 'rgb48be'
    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), 'rgb24').reformat(format='rgb48be')))
  refuse(tmp_path, '16 bits')


def test_grey_and_palette_images_are_read(tmp_path):
  for mode in ('L', 'P'):
    folder = images(tmp_path / mode, ['1.png'], mode)
    assert next(open_video(folder).frames()).shape == (48, 64, 3)
