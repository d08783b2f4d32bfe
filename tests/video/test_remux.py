"""Stretches cut out of the coded stream decode to the very frames of the file."""

import io
import struct

import av
import coded_video
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import Colour, VideoFile, colour, open_video, remux

NUM_FRAMES = 40
FIRST, STEP = 1024, 512  # when x264 shows frames: the B-frames delay by two
OPEN = 'open-gop=1:keyint=12:min-keyint=12'
CODINGS = {
  'closed.mp4': dict(params='keyint=12:bframes=3:b-pyramid=normal'),
  'without_b.mkv': dict(params='keyint=9:bframes=0'),
  'one_group.mov': dict(params='keyint=250'),
  'open.mp4': dict(params=OPEN),
  'open.mkv': dict(params=f'{OPEN}:bframes=5:b-pyramid=strict:b-adapt=0:ref=1:weightp=0'),
  'h265.mp4': dict(params='open-gop=1:keyint=12:min-keyint=12', codec='libx265'),
}


@pytest.fixture(scope='module', params=CODINGS)
def video(request, tmp_path_factory):
  path = tmp_path_factory.mktemp('remux') / request.param
  coded_video.write(path, coded_video.pictures(0, NUM_FRAMES), **CODINGS[request.param])
  return VideoFile(path)


def packets(segment):
  """(time, is keyframe) of the packets of a segment, in the order of decoding."""
  with av.open(io.BytesIO(segment.data)) as container:
    found = [packet for packet in container.demux(video=0) if packet.size]
    assert not any(packet.is_discard for packet in found)
    return [(packet.pts, packet.is_keyframe) for packet in found]


@pytest.mark.parametrize('length', [1, 9])
def test_every_frame_from_every_place(video, length):
  frames = list(video.frames())
  assert remux.problem(video) is None
  ranges = [(start, min(start + length, NUM_FRAMES)) for start in range(NUM_FRAMES)]
  for (start, stop), segment in zip(ranges, remux.cut(video, ranges), strict=True):
    decoded = remux.decode(segment.data, segment.skip, segment.skip + stop - start)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, frames[start:stop])


def test_any_part_of_a_segment(video):
  frames = list(video.frames())
  (segment,) = remux.cut(video, [(5, 35)])
  for start in range(5, 35, 2):
    stop = min(start + 4, 35)
    part = remux.decode(segment.data, segment.skip + start - 5, segment.skip + stop - 5)
    np.testing.assert_array_equal(part, frames[start:stop])


def test_segments_begin_at_the_last_keyframe_and_end_with_what_is_needed(video):
  ranges = [(start, start + 2) for start in range(NUM_FRAMES - 1)]
  for (start, _), segment in zip(ranges, remux.cut(video, ranges), strict=True):
    times, keys = zip(*packets(segment), strict=True)
    wanted = sorted(times)[segment.skip]
    assert keys[0] and not any(key and times[0] < time <= wanted for time, key in zip(times, keys, strict=True))
    assert len(times) <= segment.skip + 2 + 8  # B-frames refer to at most so many later ones here
    if start in video.keyframes:
      assert times[0] == wanted


@pytest.mark.parametrize('video', ['open.mp4', 'open.mkv', 'h265.mp4'], indirect=True)
def test_open_groups_are_among_the_tests(video):
  (segment,) = remux.cut(video, [(12, 20)])
  times = [time for time, _ in packets(segment)]
  assert min(times) < times[0]


def test_only_wanted_frames_are_converted(tmp_path, monkeypatch):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, 30))
  (segment,) = remux.cut(VideoFile(path), [(0, 30)])
  converted = []
  monkeypatch.setattr(colour, 'yuv_to_rgb', lambda frame: converted.append(frame.pts) or np.zeros((1, 1, 3), np.uint8))
  remux.decode(segment.data, 20, 24)
  assert len(converted) == 4


def test_overlapping_ranges_and_gaps(tmp_path):
  source = VideoFile(coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, NUM_FRAMES), 'keyint=8'))
  frames = list(source.frames())
  ranges = [(2, 12), (2, 4), (3, 30), (38, 40)]
  for (start, stop), segment in zip(ranges, remux.cut(source, ranges), strict=True):
    decoded = remux.decode(segment.data, segment.skip, segment.skip + stop - start)
    np.testing.assert_array_equal(decoded, frames[start:stop])


def test_a_given_rate_changes_nothing(tmp_path):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, NUM_FRAMES), 'keyint=8')
  plain, timed = VideoFile(path), open_video(path, fps=10)
  assert timed.timestamps is None and timed.keyframes == plain.keyframes == [0, 8, 16, 24, 32]
  segments = [list(remux.cut(source, [(9, 19)])) for source in (plain, timed)]
  frames = [remux.decode(s.data, s.skip, s.skip + 10) for (s,) in segments]
  np.testing.assert_array_equal(*frames)
  with av.open(io.BytesIO(segments[1][0].data)) as container:
    assert round(container.streams.video[0].average_rate, 2) == 10


@pytest.mark.parametrize('suffix', ['mp4', 'mkv'])
@pytest.mark.parametrize('tags', [None, Colour('bt709'), Colour('bt601'), Colour('bt709', full_range=True)])
def test_colour_survives(tmp_path, suffix, tags):
  path = coded_video.write(tmp_path / f'a.{suffix}', coded_video.pictures(0, 20), 'keyint=8', colour=tags)
  source = VideoFile(path)
  assert source.colour == (tags or Colour('bt601'))  # untagged: by its height
  (segment,) = remux.cut(source, [(10, 15)])
  copy = tmp_path / 'copy.mp4'
  copy.write_bytes(segment.data)
  assert VideoFile(copy).colour == source.colour and VideoFile(copy).tags == source.tags
  np.testing.assert_array_equal(remux.decode(segment.data, segment.skip, segment.skip + 5), list(source.frames(10, 15)))


def retagged(path, **tags):
  """A copy whose container says something about colours that the stream does not."""
  copy = path.with_name(f'tagged_{path.name}')
  with av.open(str(path)) as source, av.open(str(copy), 'w') as output:
    stream = output.add_stream_from_template(source.streams.video[0])
    for name, value in tags.items():
      setattr(stream.codec_context, name, value)
    for packet in source.demux(video=0):
      if packet.size:
        packet.stream = stream
        output.mux(packet)
  return VideoFile(copy)


def test_colour_that_only_the_container_knows(tmp_path):
  path = coded_video.write(tmp_path / 'a.mkv', coded_video.pictures(0, 20), 'keyint=8')
  source = retagged(path, colorspace=1, color_primaries=1, color_trc=1, color_range=2)
  assert source.colour == Colour('bt709', full_range=True) and remux.problem(source) is None
  # mp4 holds all of it or nothing.
  source = retagged(path, color_range=2)
  assert source.colour.full_range
  assert remux.problem(source) == 'frame 8 looks different when it is cut out, as if a colour tag were lost'


@pytest.mark.parametrize(
  'name, coding, problem',
  [
    ('a.webm', dict(codec='libvpx-vp9', options={'deadline': 'realtime'}), 'coded as vp9, expected h264 or hevc'),
    ('a.avi', {}, 'the file does not tell in which order its frames are shown'),
    ('a.mp4', dict(params='intra-refresh=1:keyint=12'), 'frame 12, a keyframe, cannot be decoded by itself'),
  ],
)
def test_streams_that_cannot_be_cut(tmp_path, name, coding, problem):
  assert remux.problem(VideoFile(coded_video.write(tmp_path / name, coded_video.pictures(0, 30), **coding))) == problem


def box(data, name):
  """Where the content of a box of an mp4 file is."""
  at = data.index(name) - 4
  return slice(at + 8, at + struct.unpack('>I', data[at : at + 4])[0])


def with_box(data, path, content):
  """The file with another content of the last box of `path`, which has to be behind the pictures."""
  old = box(data, path[-1])
  grown = len(content) - (old.stop - old.start)
  out = bytearray(data[: old.start] + content + data[old.stop :])
  for name in path:
    place = data.index(name) - 4
    out[place : place + 4] = struct.pack('>I', struct.unpack('>I', data[place : place + 4])[0] + grown)
  return bytes(out)


def with_edits(data, *edits):
  """The file with another list of edits (how long in ms, from when on)."""
  entries = b''.join(struct.pack('>IiI', duration, time, 1 << 16) for duration, time in edits)
  return with_box(data, (b'moov', b'trak', b'edts', b'elst'), struct.pack('>II', 0, len(edits)) + entries)


def with_two_headers(data, first):
  """The file with a stream header of its own for what follows its `first` packets."""
  table = (b'moov', b'trak', b'mdia', b'minf', b'stbl')
  header = data[box(data, b'stsd')][8:]
  _, _, count, *sizes = struct.unpack(
    f'>{(box(data, b"stsz").stop - box(data, b"stsz").start) // 4}I', data[box(data, b'stsz')]
  )
  start = struct.unpack('>III', data[box(data, b'stco')])[2]
  data = with_box(data, (*table, b'stsd'), struct.pack('>II', 0, 2) + 2 * header)
  data = with_box(data, (*table, b'stsc'), struct.pack('>8I', 0, 2, 1, first, 1, 2, count - first, 2))
  return with_box(data, (*table, b'stco'), struct.pack('>4I', 0, 2, start, start + sum(sizes[:first])))


def test_files_that_an_edit_list_shortens(tmp_path):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, NUM_FRAMES), 'keyint=12')
  frames = list(VideoFile(path).frames())
  shorter = tmp_path / 'shorter.mp4'
  shorter.write_bytes(with_edits(path.read_bytes(), (1000, FIRST + STEP * 5)))
  source = VideoFile(shorter)
  assert source.num_frames < NUM_FRAMES and remux.problem(source) is None
  np.testing.assert_array_equal(next(source.frames(0, 1)), frames[5])
  for start, segment in enumerate(remux.cut(source, [(k, k + 3) for k in range(source.num_frames - 3)])):
    decoded = remux.decode(segment.data, segment.skip, segment.skip + 3)
    np.testing.assert_array_equal(decoded, frames[5 + start : 8 + start])


@pytest.mark.parametrize(
  'piece_together',
  [
    lambda data: with_edits(data, (250, FIRST + STEP * 2), (250, FIRST + STEP * 20)),
    lambda data: with_two_headers(data, 12),
  ],
)
def test_files_that_are_pieced_together(tmp_path, piece_together):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, NUM_FRAMES), 'keyint=12')
  path.write_bytes(piece_together(path.read_bytes()))
  source = VideoFile(path, fps=24)
  with pytest.raises(errors.VideoError, match='a.mp4: pieced together from several streams'):
    list(remux.cut(source, [(0, source.num_frames)]))


@pytest.mark.parametrize(
  'damage',
  [
    lambda data: b'',
    lambda data: data[: len(data) // 2],
    lambda data: data[:1500] + bytes(60) + data[1560:],  # libav would paint it over
    lambda data: data[: len(data) // 4] + bytes(len(data) // 4) + data[len(data) // 2 :],
    lambda data: data.replace(b'avc1', b'rubb'),
  ],
)
def test_damage(tmp_path, damage):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, 30), 'keyint=60')
  (segment,) = remux.cut(VideoFile(path), [(0, 30)])
  remux.decode(segment.data, 20, 30)
  with pytest.raises(errors.VideoError, match=r'frames 20 to 30 cannot be decoded from \d+ bytes of video') as caught:
    remux.decode(damage(segment.data), 20, 30)
  assert '\n' not in str(caught.value)


def test_frames_that_a_segment_does_not_have(tmp_path):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, 10))
  (segment,) = remux.cut(VideoFile(path), [(0, 10)])
  for start, stop in (8, 11), (10, 12):
    with pytest.raises(errors.VideoError, match=f'frames {start} to {stop} cannot be decoded'):
      remux.decode(segment.data, start, stop)
