"""Transport streams that end too early: within a packet of theirs, or between two, as recordings do."""

import logging

import av
import coded_video
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import VideoFile, examine, transport

STRIDES = {'ts': 188, 'm2ts': 192}
# Alone in a group of pictures of its own, so that what is missing of the last does not show in others.
PARAMS = 'keyint=8:min-keyint=8:scenecut=0:bframes=0'
CODECS = {'libx264': PARAMS, 'libx265': PARAMS, 'mpeg2video': ''}


@pytest.fixture(scope='module')
def recordings(tmp_path_factory):
  folder, found = tmp_path_factory.mktemp('transport'), {}
  for codec, params in CODECS.items():
    for suffix in STRIDES:
      path = folder / f'{codec}.{suffix}'
      options = {'qmin': '2', 'qmax': '4'} if codec == 'mpeg2video' else {}
      coded_video.write(path, coded_video.pictures(0, 16), params, codec=codec, options=options)
      found[codec, suffix] = path
  return found


def cut(path, tmp_path, length):
  short = tmp_path / f'cut{path.suffix}'
  short.write_bytes(path.read_bytes()[:length])
  return short


def end(path):
  with av.open(str(path)) as container:
    return transport.end_of(path, container.streams.video[0].id)


def last_packets(path, stride, which=-1):
  """Where the packets of the last picture begin, or of another one."""
  content = path.read_bytes()
  with av.open(str(path)) as container:
    pictures = container.streams.video[0].id
    start = [packet.pos for packet in container.demux(video=0) if packet.size][which]
  found = []
  for place in range(start // stride * stride, len(content), stride):
    first, second = content[place + stride - 187 : place + stride - 185]
    if (first & 0x1F) << 8 | second == pictures:
      if found and first & 0x40:
        break
      found.append(place)
  return found


@pytest.mark.parametrize('suffix', STRIDES)
@pytest.mark.parametrize('codec', CODECS)
def test_ends_of_transport_streams(recordings, tmp_path, codec, suffix):
  path, stride = recordings[codec, suffix], STRIDES[suffix]
  assert end(path) == (False, False)
  size, places = path.stat().st_size, last_packets(path, stride)
  assert len(places) > 2
  for length in (size - 1, places[2] + 1, places[2] + 5, places[2] + stride - 1, places[0] - 100):
    assert end(cut(path, tmp_path, length)).broken
  for place in places[1:-1]:
    assert end(cut(path, tmp_path, place)) == (False, True)
  assert end(cut(path, tmp_path, places[0])) == (False, False)
  headless = tmp_path / f'headless.{suffix}'
  headless.write_bytes(path.read_bytes()[77:])
  assert end(headless) == (False, False)


@pytest.mark.parametrize('suffix', STRIDES)
@pytest.mark.parametrize('codec', CODECS)
def test_a_broken_packet_is_told_as_truncation(recordings, tmp_path, codec, suffix):
  path = recordings[codec, suffix]
  frames = list(VideoFile(path).frames())
  short = cut(path, tmp_path, last_packets(path, STRIDES[suffix])[2] + 70)
  for look in (examine, lambda source: list(source.frames())):
    with pytest.raises(errors.VideoError, match=r'truncated, it ends within a packet.*--keep_going'):
      look(VideoFile(short))
  source = VideoFile(short, keep_going=True)
  examine(source)
  # Decoders of H.265 take what there is.
  assert source.num_frames == (16 if codec == 'libx265' else 15) and not source.damaged
  np.testing.assert_array_equal(list(source.frames())[:15], frames[:15])


@pytest.mark.parametrize('suffix', STRIDES)
@pytest.mark.parametrize('codec', ['libx264', 'mpeg2video'])
def test_a_recorder_may_stop_within_a_picture(recordings, tmp_path, caplog, codec, suffix):
  path = recordings[codec, suffix]
  frames = list(VideoFile(path).frames())
  source = VideoFile(cut(path, tmp_path, last_packets(path, STRIDES[suffix])[2]))
  with caplog.at_level(logging.WARNING):
    examine(source)
  assert 'the recording ends within a picture, which is left out' in caplog.text
  np.testing.assert_array_equal(list(source.frames()), frames[:15])
  np.testing.assert_array_equal(next(source.frames(14)), frames[14])


def test_pictures_that_were_held_back_come_though_the_last_is_cut(tmp_path):
  """A decoder that fails gives no other picture with it, either."""
  path = coded_video.write(tmp_path / 'a.ts', coded_video.pictures(0, 24), 'keyint=24:scenecut=0:bframes=2:b-adapt=0')
  frames = list(VideoFile(path).frames())
  source = VideoFile(cut(path, tmp_path, last_packets(path, 188)[1]), variable_rate=True)
  found = list(source.frames())
  assert source.num_frames == len(found) == 23
  missing = next(k for k in range(24) if k == 23 or not np.array_equal(found[k], frames[k]))
  np.testing.assert_array_equal(found, [*frames[:missing], *frames[missing + 1 :]])


def test_what_a_decoder_takes_although_it_is_cut_is_told(recordings, tmp_path, caplog):
  path = recordings['libx265', 'ts']
  source = VideoFile(cut(path, tmp_path, last_packets(path, 188)[2]))
  with caplog.at_level(logging.WARNING):
    examine(source)
  assert source.num_frames == 16 and 'the last one, part of which may be missing' in caplog.text


def test_damage_before_the_end_is_damage(tmp_path):
  path = coded_video.write(tmp_path / 'a.ts', coded_video.pictures(0, 16, 120, 160), PARAMS)
  content = bytearray(path.read_bytes()[: last_packets(path, 188)[2]])
  place = last_packets(path, 188, which=-3)[4]
  content[place + 4 : place + 188] = np.random.default_rng(0).bytes(184)
  path.write_bytes(content)
  with pytest.raises(errors.VideoError, match='damaged, frame 13 cannot be decoded; '):
    examine(VideoFile(path))


def test_no_transport_stream_has_no_such_end(tmp_path):
  path = tmp_path / 'a.ts'
  for content in (b'', b'G', bytes(5000), np.random.default_rng(0).bytes(5000)):
    path.write_bytes(content)
    assert transport.end_of(path, 256) == (False, False)
