"""What a file shows: doubtful time stamps, cut recordings, damage, and changes on the way."""

import itertools
import logging
import pathlib
import struct
import subprocess
import sys
from fractions import Fraction

import av
import coded_video
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import VideoFile, colour, concealed, examine, open_video

NUM_FRAMES = 32
CLOSED = 'keyint=8:min-keyint=8:scenecut=0:bframes=2:b-adapt=0'
OPEN = f'open-gop=1:{CLOSED}'
CUT = {
  'h264.mkv': dict(params=OPEN),
  'h264.ts': dict(params=OPEN),
  'pyramid.mkv': dict(params=f'{OPEN}:bframes=4:b-pyramid=normal'),
  'h265.mkv': dict(params=OPEN, codec='libx265'),
  'h265.ts': dict(params=OPEN, codec='libx265'),
  'h265.hevc': dict(params=OPEN, codec='libx265'),
  'mpeg2.mkv': dict(codec='mpeg2video', options={'g': '8', 'bf': '2', 'b_strategy': '0', 'qmin': '2', 'qmax': '4'}),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('survey')


@pytest.fixture(scope='module')
def plain(folder):
  """H.264 with B-frames, and its frames."""
  path = coded_video.write(folder / 'plain.mkv', coded_video.pictures(0, NUM_FRAMES), CLOSED)
  return path, list(VideoFile(path).frames())


def seconds(source):
  return [float(stamp * source.time_base) for stamp in source.timestamps]


def same_from_everywhere(source, frames):
  """The source has these frames, from wherever it is read."""
  np.testing.assert_array_equal(list(source.frames()), frames)
  for start in range(0, len(frames), 3):
    np.testing.assert_array_equal(next(source.frames(start)), frames[start])


def at(places, change):
  """What changes the packets at these places of the file."""
  return lambda number, packet: change(packet) if number in places else None


def doubled():
  before = []

  def change(number, packet):
    packet.pts = before[-1] if number in (10, 11, 20) else packet.pts
    before.append(packet.pts)

  return change


@pytest.mark.parametrize('suffix', ['mkv', 'mp4', 'ts', 'flv', 'nut'])
def test_doubled_stamps_move_and_no_other(plain, tmp_path, caplog, suffix):
  path, frames = plain
  right = seconds(VideoFile(coded_video.copy(path, tmp_path / f'right.{suffix}')))
  source = VideoFile(coded_video.copy(path, tmp_path / f'a.{suffix}', doubled()), variable_rate=True)
  with caplog.at_level(logging.WARNING):
    found = seconds(source)
  assert f'of {NUM_FRAMES} time stamps are missing, doubled or out of order' in caplog.text
  assert sum(abs(a - b) > 1e-3 for a, b in zip(found, right, strict=True)) <= 3
  assert np.abs(np.subtract(found, right)).max() < 2.1 / 24
  assert all(a < b for a, b in itertools.pairwise(found))
  same_from_everywhere(source, frames)


@pytest.mark.parametrize('params', ['bframes=0:keyint=40', CLOSED])
def test_stamps_that_go_back(tmp_path, params):
  path = coded_video.write(tmp_path / 'a.mkv', coded_video.pictures(0, NUM_FRAMES), params)
  frames, right = list(VideoFile(path).frames()), seconds(VideoFile(path))
  with av.open(str(path)) as container:
    packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][12]
  content = bytearray(path.read_bytes())
  place = content.index(packet) - 3  # time since the cluster's, flags, content
  content[place : place + 2] = struct.pack('>h', struct.unpack('>h', content[place : place + 2])[0] - 150)
  path.write_bytes(content)
  source = VideoFile(path, variable_rate=True)
  same_from_everywhere(source, frames)
  source.examine()
  found = seconds(source)
  assert sum(a != b for a, b in zip(found, right, strict=True)) <= 1 and np.diff(found).min() > 0


@pytest.mark.parametrize('codec', ['mpeg4', 'libx264', 'mjpeg'])
def test_the_number_of_a_chunk_is_the_clock_of_avi(tmp_path, codec):
  """Every third frame is repeated by an empty chunk; libav itself reports no order for those with B-frames."""
  options = {'bf': '2', 'g': '8'} if codec == 'mpeg4' else {}
  path = tmp_path / 'a.avi'
  times = [k + k // 3 for k in range(NUM_FRAMES)]
  pictures = coded_video.pictures(0, NUM_FRAMES)
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(codec, rate=25, options=options)
    stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
    for time, rgb in zip(times, pictures, strict=True):
      frame = colour.rgb_to_yuv(rgb, colour.Colour('bt601')).reformat(format=stream.pix_fmt)
      frame.pts = time
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  with av.open(str(path)) as container:
    chunks = sorted(packet.dts for packet in container.demux(video=0) if packet.size)
  assert len(chunks) == NUM_FRAMES and chunks[-1] - chunks[0] >= times[-1] - 2
  source = VideoFile(path, variable_rate=True)
  assert source.timestamps == chunks and source.time_base == Fraction(1, 25) and not source.constant_rate
  for rgb, frame in zip(pictures, source.frames(), strict=True):
    assert np.abs(rgb.astype(float) - frame).mean() < 40
  same_from_everywhere(source, list(source.frames()))


def test_a_frame_of_avi_may_last_many_chunks(tmp_path, caplog):
  """As where ffmpeg copies into AVI what has no steady rate: 600 chunks a second, most of them empty."""
  path, pictures = tmp_path / 'a.avi', coded_video.pictures(0, NUM_FRAMES)
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('mpeg4', rate=600)
    stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
    for k, rgb in enumerate(pictures):
      frame = colour.rgb_to_yuv(rgb, colour.Colour('bt601'))
      frame.pts = 24 * k
      output.mux(stream.encode(frame))
    for packet in stream.encode(None):
      output.mux(packet)
  data = path.read_bytes()
  at = data.index(b'strh') + 8 + 32  # its length in chunks, which libav ends with the last frame's first
  count = int.from_bytes(data[at : at + 4], 'little')
  path.write_bytes(data[:at] + (count + 23).to_bytes(4, 'little') + data[at + 4 :])
  source = VideoFile(path, variable_rate=True)
  source.examine()
  assert source.num_frames == NUM_FRAMES and count > 10 * NUM_FRAMES
  assert 'more frames than there are' not in caplog.text


def test_streams_without_stamps(plain, tmp_path):
  path, frames = plain
  source = VideoFile(coded_video.copy(path, tmp_path / 'a.h264'))
  assert source.timestamps is None and source.num_frames == NUM_FRAMES
  same_from_everywhere(source, frames)


@pytest.mark.parametrize('name', CUT)
def test_leading_pictures_of_a_cut_are_left_out(folder, tmp_path, caplog, name):
  whole = coded_video.write(folder / name, coded_video.pictures(0, NUM_FRAMES), **CUT[name])
  frames = list(VideoFile(whole).frames())
  with av.open(str(whole)) as container:
    keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
  cut = coded_video.copy(whole, tmp_path / name, first=keys[1])
  source = VideoFile(cut)
  with caplog.at_level(logging.WARNING):
    count = source.num_frames
  left_out = NUM_FRAMES - keys[1] - count
  assert left_out > 0 and f'{left_out} pictures refer to others that were cut off' in caplog.text
  same_from_everywhere(source, frames[-count:])
  source.examine()
  assert source.num_frames == count and not source.damaged


@pytest.mark.parametrize(
  ('codec', 'suffix', 'params'),
  [
    ('libx264', 'ts', CLOSED),
    ('libx264', 'mkv', CLOSED),
    ('libx265', 'ts', CLOSED),
    ('mpeg2video', 'mpg', ''),
    ('mpeg4', 'avi', ''),
  ],
)
def test_recordings_that_begin_anywhere(tmp_path, codec, suffix, params):
  pictures, options = coded_video.pictures(0, NUM_FRAMES), {'g': '8', 'bf': '2', 'qmin': '2', 'qmax': '5'}
  whole = tmp_path / f'whole.{suffix}'
  coded_video.write(whole, pictures, params, codec=codec, options={} if params else options)
  frames = list(VideoFile(whole).frames())
  source = VideoFile(coded_video.copy(whole, tmp_path / f'a.{suffix}', first=3))
  assert NUM_FRAMES - 11 <= source.num_frames < NUM_FRAMES - 3
  same_from_everywhere(source, frames[-source.num_frames :])
  source.examine()


@pytest.mark.parametrize('suffix', ['mkv', 'mp4', 'avi', 'nut'])
def test_damage_is_named_and_concealed(plain, tmp_path, suffix):
  path, frames = plain
  if suffix == 'avi':
    path = coded_video.write(tmp_path / 'plain.avi', coded_video.pictures(0, NUM_FRAMES), 'bframes=0:keyint=8')
    frames = list(VideoFile(path).frames())
  damaged = coded_video.damage(coded_video.copy(path, tmp_path / f'a.{suffix}'), 17)
  for begin in (0, 10):
    with pytest.raises(errors.VideoError, match=r'damaged, frame \d+ cannot be decoded.*copy or download') as caught:
      list(VideoFile(damaged).frames(begin))
    assert '\n' not in str(caught.value) and str(damaged) in str(caught.value)
  source = open_video(damaged, keep_going=True)
  restored = list(source.frames())
  assert source.num_frames == len(restored) == NUM_FRAMES and 1 <= len(source.damaged) <= 4
  for k in source.damaged:
    np.testing.assert_array_equal(restored[k], restored[k - 1])
  for k in range(16):
    np.testing.assert_array_equal(restored[k], frames[k])
  for k in range(24, NUM_FRAMES):
    np.testing.assert_array_equal(restored[k], frames[k])
  for start in range(NUM_FRAMES):
    np.testing.assert_array_equal(next(source.frames(start)), restored[start])
  assert len(seconds(source)) == NUM_FRAMES and source.constant_rate
  assert f'{len(source.damaged)} of {NUM_FRAMES} frames are damaged' in concealed(source)


def test_lost_pages_of_a_short_file_are_told(tmp_path):
  """libav reads all of it while it opens it, and drops what its checksum does not fit."""
  with av.open(str(tmp_path / 'a.ogv'), 'w') as output:
    stream = output.add_stream('libvpx', rate=25, options={'deadline': 'realtime'})
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    for picture in coded_video.pictures(0, NUM_FRAMES):
      output.mux(stream.encode(av.VideoFrame.from_ndarray(picture).reformat(format='yuv420p')))
    output.mux(stream.encode(None))
  content = bytearray((tmp_path / 'a.ogv').read_bytes())
  assert VideoFile(tmp_path / 'a.ogv').num_frames == NUM_FRAMES
  content[len(content) // 2] ^= 255
  (tmp_path / 'b.ogv').write_bytes(content)
  with pytest.raises(errors.VideoError, match=r'damaged, frames seem to be missing \(CRC mismatch!\)'):
    open_video(tmp_path / 'b.ogv', variable_rate=True).examine()
  assert 0 < len(list(open_video(tmp_path / 'b.ogv', variable_rate=True, keep_going=True).frames())) < NUM_FRAMES


@pytest.mark.parametrize(
  ('codec', 'suffix', 'options'),
  [('wmv2', 'wmv', {}), ('wmv1', 'asf', {}), ('msmpeg4', 'avi', {}), ('mpeg4', 'avi', {'bf': '2'}), ('flv', 'flv', {})],
)
@pytest.mark.parametrize('place', [0.0, 0.5])
def test_damage_that_decoders_pass_over_is_told(tmp_path, codec, suffix, options, place):
  """They say it in a message only, or give no frame without a word."""
  path = coded_video.write(
    tmp_path / f'a.{suffix}', coded_video.pictures(0, 24), codec=codec, options={'g': '8', 'qmax': '6'} | options
  )
  whole = VideoFile(path, variable_rate=True)
  whole.examine()
  assert whole.num_frames == len(list(whole.frames())) == 24 and not whole.damaged
  with av.open(str(path)) as container:
    packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][14]
  content = bytearray(path.read_bytes())
  start = content.index(packet[:40]) + int(place * len(packet))
  content[start : start + 8] = np.random.default_rng(0).bytes(8)
  path.write_bytes(content)
  with pytest.raises(errors.VideoError, match=r'damaged, frame 1[2-5] cannot be decoded'):
    VideoFile(path, variable_rate=True).examine()
  source = VideoFile(path, variable_rate=True, keep_going=True)
  assert len(list(source.frames())) == source.num_frames == 24 and source.damaged


@pytest.mark.parametrize('params', ['bframes=0', 'bframes=0:no-cabac=1', 'bframes=0:slices=4'])
@pytest.mark.parametrize('number', [4, 9])
def test_damage_within_a_frame_of_h264_is_told(tmp_path, params, number):
  """By the decoder's error, which it does not pass on where several threads share a frame."""
  pictures = coded_video.pictures(0, 16, 240, 320)
  path = coded_video.write(tmp_path / 'a.mkv', pictures, f'keyint=8:scenecut=0:{params}')
  VideoFile(path).examine()
  with av.open(str(path)) as container:
    packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][number]
  content = bytearray(path.read_bytes())
  start = content.index(packet) + len(packet) // 3
  content[start : start + 150] = np.random.default_rng(0).bytes(150)
  path.write_bytes(content)
  with pytest.raises(errors.VideoError, match=r'damaged, frame \d+ cannot be decoded'):
    VideoFile(path).examine()
  source = VideoFile(path, keep_going=True)
  assert len(list(source.frames())) == source.num_frames == 16 and source.damaged


def test_checksums_of_h265_are_compared(tmp_path):
  """Else a flipped bit that leaves a stream decodable gives other pixels without a word."""
  params = 'keyint=8:bframes=0'
  for name, checks in (('plain', ''), ('checked', ':hash=1')):
    path = coded_video.write(
      tmp_path / f'{name}.hevc', coded_video.pictures(0, 16), f'{params}{checks}', codec='libx265'
    )
    VideoFile(path).examine()
    with av.open(str(path)) as container:
      packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][12]
    content = bytearray(path.read_bytes())
    content[content.index(packet) + len(packet) // 2] ^= 1
    path.write_bytes(content)
  VideoFile(tmp_path / 'plain.hevc').examine()
  with pytest.raises(errors.VideoError, match='damaged, frame 12 cannot be decoded'):
    VideoFile(tmp_path / 'checked.hevc').examine()


def test_reading_goes_on_behind_what_cannot_be_read(tmp_path):
  path = tmp_path / 'a.rm'
  with av.open(str(path), 'w', format='rm') as output:
    stream = output.add_stream('rv20', rate=25, options={'g': '8'})
    stream.width, stream.height, stream.pix_fmt = 176, 144, 'yuv420p'
    for picture in coded_video.pictures(0, 24, 144, 176):
      output.mux(stream.encode(av.VideoFrame.from_ndarray(picture).reformat(format='yuv420p')))
    output.mux(stream.encode(None))
  frames = list(VideoFile(path, variable_rate=True).frames())
  with av.open(str(path)) as container:
    start = [packet.pos for packet in container.demux(video=0) if packet.size][12]
  content = bytearray(path.read_bytes())
  content[start - 6 : start] = b'\xff' * 6
  path.write_bytes(content)
  with pytest.raises(errors.VideoError, match='--keep_going'):
    VideoFile(path, variable_rate=True).examine()
  source = VideoFile(path, variable_rate=True, keep_going=True)
  found = list(source.frames())
  assert len(found) == source.num_frames >= 20
  np.testing.assert_array_equal(found[:12], frames[:12])
  np.testing.assert_array_equal(found[-6:], frames[-6:])


def test_damage_at_the_start_is_cut_off(plain, tmp_path):
  path, frames = plain
  damaged = coded_video.damage(coded_video.copy(path, tmp_path / 'a.mp4'), 0)
  with pytest.raises(errors.VideoError, match='damaged, frame 0 cannot'):
    list(VideoFile(damaged).frames())
  source = VideoFile(damaged, keep_going=True)
  assert 0 not in source.damaged and len(list(source.frames())) == source.num_frames >= NUM_FRAMES - 8
  np.testing.assert_array_equal(list(source.frames())[-24:], frames[-24:])


def test_lost_ends_are_told(plain, tmp_path):
  path, frames = plain
  cut = tmp_path / 'a.mkv'
  cut.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
  with pytest.raises(errors.VideoError, match='truncated.*--keep_going'):
    examine(VideoFile(cut))
  source = VideoFile(cut, variable_rate=True, keep_going=True)
  examine(source)
  assert 16 < source.num_frames < NUM_FRAMES
  np.testing.assert_array_equal(list(source.frames())[:16], frames[:16])


def test_it_does_not_hang_where_a_program_wants_messages_of_libav(tmp_path):
  """Then libav's threads wait for Python's lock to tell of damage, even if it is to be told to nobody."""
  path = coded_video.write(tmp_path / 'a.mkv', coded_video.pictures(0, 64), 'bframes=0:keyint=8:scenecut=0')
  with av.open(str(path)) as container:
    packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
  content, rng = path.read_bytes(), np.random.default_rng(0)
  for packet in packets[1::2]:
    content = content.replace(packet, packet[:30] + rng.bytes(len(packet) - 30))
  path.write_bytes(content)
  program = """
import sys, av.logging
from vqm_jax import errors
from vqm_jax.video import open_video
av.logging.set_level(av.logging.PANIC)
for _ in range(5):
  try:
    open_video(sys.argv[1]).examine()
  except errors.VideoError as error:
    print(error)
"""
  found = subprocess.run([sys.executable, '-c', program, path], capture_output=True, text=True, timeout=60)
  assert found.stdout.count('damaged, frame') == 5, found.stderr


def test_whole_files_are_not_called_damaged(plain, tmp_path):
  """An index that is missing and a header that counts more are no damage where nothing is missing."""
  path, frames = plain
  avi = coded_video.write(tmp_path / 'a.avi', coded_video.pictures(0, NUM_FRAMES), 'bframes=0')
  content = avi.read_bytes()
  avi.write_bytes(content[: content.rindex(b'idx1')])
  examine(VideoFile(avi))
  joined = tmp_path / 'joined.ts'
  joined.write_bytes(2 * coded_video.copy(path, tmp_path / 'a.ts').read_bytes())
  source = VideoFile(joined)
  examine(source)
  np.testing.assert_array_equal(list(source.frames()), 2 * frames)
  assert source.constant_rate and source.fps == 24


def test_cuts_that_were_joined_are_not_called_damaged(folder, tmp_path):
  """The second part asks to forget references that it never had, for which a strict decoder fails."""
  whole = coded_video.write(folder / 'open.ts', coded_video.pictures(0, NUM_FRAMES), OPEN)
  with av.open(str(whole)) as container:
    keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
  parts = [coded_video.copy(whole, tmp_path / f'{k}.ts', first=key) for k, key in enumerate((0, keys[1]))]
  both = tmp_path / 'both.ts'
  both.write_bytes(b''.join(part.read_bytes() for part in parts))
  source = VideoFile(both, variable_rate=True)
  frames = list(source.frames())
  assert len(frames) == source.num_frames > 2 * NUM_FRAMES - 12
  source.examine()
  same_from_everywhere(source, frames)
  np.testing.assert_array_equal(frames[:16], list(VideoFile(whole).frames())[:16])


def joined(tmp_path, *parts):
  """Elementary streams, one behind the other."""
  path = tmp_path / 'joined.h264'
  path.write_bytes(b''.join(part.read_bytes() for part in parts))
  return path


def test_changes_on_the_way_are_found_beforehand(tmp_path):
  pictures = coded_video.pictures(0, 12)
  first = coded_video.write(tmp_path / 'a.h264', pictures, CLOSED)
  smaller = coded_video.write(tmp_path / 'b.h264', [rgb[:32, :32] for rgb in pictures], CLOSED)
  interlaced = coded_video.write(tmp_path / 'c.h264', pictures, f'tff=1:{CLOSED}')
  for other, message in (
    (smaller, r'frame 12 is 32x32 yuv420p, expected 64x48 yuv420p'),
    (interlaced, r'frame 12 is interlaced'),
  ):
    source = VideoFile(joined(tmp_path, first, other))
    with pytest.raises(errors.VideoError, match=message):
      examine(source)
    with pytest.raises(errors.VideoError, match=message):
      list(VideoFile(source.path).frames())


def test_the_default_video_is_taken(plain, tmp_path):
  path, _ = plain
  pictures = coded_video.pictures(1, 8, 32, 32)
  other = coded_video.write(tmp_path / 'other.mkv', pictures)
  for default, height in ((None, 48), (0, 48), (1, 32)):
    both = tmp_path / 'both.mkv'
    with av.open(str(path)) as a, av.open(str(other)) as b, av.open(str(both), 'w') as output:
      streams = [output.add_stream_from_template(container.streams.video[0]) for container in (a, b)]
      for k, stream in enumerate(streams):
        stream.disposition = int(k == default)
      for container, stream in zip((a, b), streams, strict=True):
        for packet in container.demux(video=0):
          if packet.size:
            packet.stream = stream
            output.mux_one(packet)
    assert VideoFile(both).height == height
    assert len(list(VideoFile(both).frames())) == (NUM_FRAMES if height == 48 else 8)


@pytest.mark.parametrize(
  'name', ['12:30:05.mp4', '-in.mp4', 'a%03d.mp4', ' a b .mp4', 'new\nline.mkv', 'file:x.mkv', 'a.txt', 'ä日#?[1].avi']
)
def test_any_path(plain, tmp_path, monkeypatch, name):
  path, frames = plain
  monkeypatch.chdir(tmp_path)
  suffix = pathlib.PurePath(name).suffix
  copy = coded_video.copy(path, tmp_path / f'copy{suffix if suffix in (".mp4", ".mkv") else ".mkv"}')
  pathlib.Path(name).write_bytes(copy.read_bytes())
  np.testing.assert_array_equal(list(open_video(name).frames(20)), frames[20:])
  copy.unlink()
  if '\n' in name:  # any path will do, but no name of a clip
    with pytest.raises(errors.VideoError, match='has control characters; expected a plain name'):
      open_video_names(tmp_path)
  else:
    assert list(open_video_names(tmp_path)) == [pathlib.PurePath(name).stem]


def open_video_names(folder):
  from vqm_jax.video import list_videos

  return list_videos(folder)


@pytest.mark.parametrize(
  'suffix', ['ts', 'mts', 'm2ts', 'mpg', 'vob', 'h264', 'flv', '3gp', 'wmv', 'y4m', 'gif', 'mpjpeg', '']
)
def test_containers(tmp_path, suffix):
  formats = {'mts': 'mpegts', 'm2ts': 'mpegts', 'wmv': 'asf', 'y4m': 'yuv4mpegpipe', 'mpjpeg': 'mpjpeg', '': 'mov'}
  codecs = {'mpg': 'mpeg2video', 'vob': 'mpeg2video', 'wmv': 'wmv2', 'y4m': 'rawvideo', 'gif': 'gif', 'mpjpeg': 'mjpeg'}
  formats_of_pixels = {'gif': 'rgb8', 'mpjpeg': 'yuvj420p'}
  path = tmp_path / f'a.{suffix}' if suffix else tmp_path / 'a'
  pictures = [np.uint8(np.full((48, 64, 3), 20 * k)) for k in range(8)]
  with av.open(str(path), 'w', format=formats.get(suffix)) as output:
    stream = output.add_stream(codecs.get(suffix, 'libx264'), rate=25)
    stream.height, stream.width, stream.pix_fmt = 48, 64, formats_of_pixels.get(suffix, 'yuv420p')
    for k, rgb in enumerate(pictures):
      frame = av.VideoFrame.from_ndarray(rgb, format='rgb24').reformat(format=stream.pix_fmt)
      frame.pts = k
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  source = open_video(path)
  examine(source)
  assert (source.num_frames, source.fps, source.constant_rate) == (8, 25, True)
  for rgb, frame in zip(pictures, source.frames(), strict=True):
    assert abs(rgb.astype(float).mean() - frame.mean()) < (20 if suffix == 'gif' else 4)
