"""Closed captions and 3D layouts come along, the rest of what frames carry is named."""

import io
from fractions import Fraction

import av
import coded_video
import numpy as np
import pytest
from PIL import Image

from vqm_jax.video import Colour, examine, open_video, open_writer, rgb_to_yuv, side_data, streams
from vqm_jax.video.codec import Encoder

COUNT = 12
COLOUR = Colour('bt601')


def captions(index):
  """From frame 3 on, with bytes in which a decoder could see a start code."""
  return bytes([0xFC, 0x80 + index, 0x20, 0xFD, 0, 0, 0xFA, 0, 0]) if index >= 3 else b''


def captioned(path, codec='h264'):
  options = dict(fps=Fraction(25), height=48, width=64, colour=COLOUR, codec=codec)
  with Encoder(path, captions=map(captions, range(COUNT)), **options) as encoder:
    for frame in coded_video.pictures(0, COUNT):
      encoder.write(rgb_to_yuv(frame, COLOUR))
    encoder.finish()
  return path


def copied(source, path, codec='h264'):
  size = dict(height=source.height, width=source.width)
  with open_writer(path, fps=source.fps, source=source, codec=codec, **size) as writer:
    for frame in source.frames():
      writer.write(frame)
  return path


@pytest.mark.parametrize('suffix, before, after', [('mp4', 'h264', 'h265'), ('mkv', 'h265', 'h264')])
def test_closed_captions(tmp_path, suffix, before, after):
  source = open_video(captioned(tmp_path / f'in.{suffix}', before))
  examine(source)
  output = copied(source, tmp_path / f'out.{suffix}', after)
  for path in (source.path, output):
    with av.open(str(path)) as container:
      assert [side_data.captions_of(frame) for frame in container.decode(video=0)] == list(map(captions, range(COUNT)))
  assert list(source.captions(4, 6)) == [captions(4), captions(5)]
  assert streams.plan(source, f'.{suffix}').left_out == ()


@pytest.mark.parametrize('number, flag', [(3, 1), (4, 2)])
def test_two_views_in_a_frame(tmp_path, number, flag):
  path = coded_video.write(tmp_path / 'in.mp4', coded_video.pictures(0, 3), f'frame-packing={number}')
  for name in ('a.mp4', 'b.mkv'):
    source = open_video(path)
    with av.open(str(copied(source, tmp_path / name))) as container:
      frame = next(container.decode(video=0))
      assert {bytes(x)[0] for x in frame.side_data if x.type.name == 'STEREO3D'} == {flag}
      assert ('stereo_mode' in container.streams.video[0].metadata) == name.endswith('mkv')
    path = tmp_path / name


def boxed(kind, content):
  return (8 + len(content)).to_bytes(4, 'big') + kind + content


def test_what_is_lost_is_named(tmp_path):
  """A 360 degree video as cameras mark it: by a box in the track of an mp4."""
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.pictures(0, 3))
  content = path.read_bytes()
  moov, trak = content.index(b'moov') - 4, content.index(b'trak') - 4
  size = int.from_bytes(content[trak : trak + 4], 'big')
  facts = {'Spherical': 'true', 'Stitched': 'true', 'StitchingSoftware': 'x', 'ProjectionType': 'equirectangular'}
  says = ''.join(f'<GSpherical:{name}>{value}</GSpherical:{name}>' for name, value in facts.items())
  mark = boxed(b'uuid', bytes.fromhex('ffcc8263f8554a938814587a02521fdd') + f'<rdf:S>{says}</rdf:S>'.encode())
  track = boxed(b'trak', content[trak + 8 : trak + size] + mark)
  path.write_bytes(content[:moov] + boxed(b'moov', content[moov + 8 : trak] + track + content[trak + size :]))
  source = open_video(path)
  assert streams.plan(source, '.mp4').left_out == ('mapping of a 360 degree video (is not written)',)


def test_kinds_of_data_without_a_name(tmp_path):
  exif, file = Image.Exif(), io.BytesIO()
  exif[0x010F], exif[0x0112] = 'Camera', 6
  for frame in coded_video.pictures(0, 3):
    Image.fromarray(frame).save(file, 'JPEG', exif=exif)
  (tmp_path / 'a.mjpeg').write_bytes(file.getvalue())
  source = open_video(tmp_path / 'a.mjpeg', lossy=True)  # which begins as an image does
  assert source.num_frames == 3 and source.display_matrix is not None
  assert np.asarray(next(source.frames())).shape == (48, 64, 3)
  assert streams.plan(source, '.mp4').left_out == ('EXIF of the pictures (is not written)',)
