"""Compression: QP as it was set, whatever the codec says in its own terms, and one line of advice."""

import subprocess
import sys
from fractions import Fraction

import coded_video
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import compression, open_video, write_png
from vqm_jax.video.compression import Compression, advice, compression_of

FRAMES = coded_video.pictures(0, 24, 72, 88)


def coded(path, params='', frames=FRAMES, **kwargs):
  return open_video(coded_video.write(path, frames, params, **kwargs))


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi'])
@pytest.mark.parametrize('qp', [20, 33, 46])
def test_constant_qp_is_found(tmp_path, name, qp):
  found = compression_of(coded(tmp_path / name, f'qp={qp}'))
  assert found.qp == pytest.approx(qp, abs=1.5)
  assert (found.source, found.codec, found.error) == ('stream', 'h264', 0)


def test_equal_types_of_frames_give_the_very_number(tmp_path):
  # 72x88 is no multiple of 16: blocks reach beyond the picture.
  video = coded(tmp_path / 'a.mp4', 'qp=31:ipratio=1:pbratio=1:keyint=6')
  assert compression_of(video).qp == 31
  assert compression_of(video, 1).qp == 31


@pytest.mark.parametrize('codec', ['libx264', 'libx265'])
def test_qp_grows_with_crf(tmp_path, codec):
  options = {'preset': 'ultrafast'}
  files = [coded(tmp_path / f'{crf}.mp4', codec=codec, options=options | {'crf': str(crf)}) for crf in (16, 30, 44)]
  values = [compression_of(file).qp for file in files]
  assert values == sorted(values) and values[-1] - values[0] > 15


def test_key_frames_count_as_often_as_they_occur(tmp_path):
  few = coded(tmp_path / 'few.mp4', 'qp=30:ipratio=4:pbratio=1:keyint=24:scenecut=0')
  many = coded(tmp_path / 'many.mp4', 'qp=30:ipratio=4:pbratio=1:keyint=4:scenecut=0')
  # Four times finer: 12 steps.
  assert compression_of(few, 6).qp == pytest.approx(30 - 12 / 24, abs=0.01)
  assert compression_of(many, 6).qp == pytest.approx(30 - 12 / 4, abs=0.01)


def test_hevc_states_the_qp_of_slices(tmp_path):
  params = 'qp=34:ipratio=1:pbratio=1:pools=none:frame-threads=1'
  for name in ('a.mp4', 'a.mkv'):
    video = coded(tmp_path / name, params, codec='libx265', options={'preset': 'ultrafast'})
    assert compression.stated(video) == 34
    found = compression_of(video)
    assert (found.source, found.codec) == ('estimate', 'hevc')
    assert 25 < found.qp < 34 and found.error > 1


@pytest.mark.parametrize('codec, suffix, option, low, high', [
  ('libvpx', '.webm', {'b:v': '9M', 'deadline': 'realtime'}, dict(crf='4', qmax='4'), dict(crf='56', qmin='56')),
  ('libvpx-vp9', '.webm', {'b:v': '0', 'deadline': 'realtime', 'cpu-used': '8'}, dict(crf='10'), dict(crf='58')),
  ('libsvtav1', '.mp4', {'preset': '12', 'svtav1-params': 'lp=1'}, dict(crf='10'), dict(crf='60')),
  ('mpeg4', '.avi', {}, dict(qmin='2', qmax='2'), dict(qmin='24', qmax='24')),
  ('mpeg2video', '.mkv', {}, dict(qmin='2', qmax='2'), dict(qmin='24', qmax='24')),
])  # fmt: skip
def test_other_codecs_are_taken_to_the_same_scale(tmp_path, codec, suffix, option, low, high):
  fine, coarse = (
    compression_of(coded(tmp_path / f'{name}{suffix}', frames=FRAMES[:8], codec=codec, options=option | given))
    for name, given in (('fine', low), ('coarse', high))
  )
  assert fine.source == coarse.source == 'estimate'
  assert 8 < fine.qp < 28 and fine.qp + 8 < coarse.qp <= 51


def test_open_groups_of_pictures_and_streams_of_all_key_frames(tmp_path):
  frames = coded_video.pictures(1, 48)
  open_gop = coded(tmp_path / 'a.mp4', 'qp=30:ipratio=1:pbratio=1:open-gop=1:keyint=8:min-keyint=8', frames)
  assert len(open_gop.keyframes) == 6
  assert compression_of(open_gop).qp == 30
  assert compression_of(coded(tmp_path / 'b.mp4', 'qp=30:ipratio=1:keyint=1', frames)).qp == 30


def test_one_frame_and_a_rate_of_its_own(tmp_path):
  assert compression_of(coded(tmp_path / 'a.mp4', 'qp=30:ipratio=1', FRAMES[:1])).qp == 30
  assert compression_of(coded(tmp_path / 'b.mp4', 'qp=30', FRAMES[:3], codec='libx265')) is not None
  video = open_video(coded_video.write(tmp_path / 'c.mp4', FRAMES, 'qp=30:ipratio=1:pbratio=1'), fps=Fraction(10))
  assert compression_of(video).qp == 30


def test_images_and_lossless_codecs_state_nothing(tmp_path):
  (tmp_path / 'images').mkdir()
  for k, frame in enumerate(FRAMES[:3]):
    write_png(tmp_path / 'images' / f'{k}.png', frame)
  assert compression_of(open_video(tmp_path / 'images')) is None
  assert compression_of(coded(tmp_path / 'a.mkv', codec='ffv1')) is None
  assert advice(None, (28, 36)) is None


@pytest.mark.parametrize('codec', ['libx264', 'libx265'])
def test_damage_is_told(tmp_path, codec):
  path = coded_video.write(tmp_path / 'a.mkv', FRAMES, 'qp=20', codec=codec)
  video = open_video(path)
  assert video.num_frames == 24
  data = bytearray(path.read_bytes())
  rng = np.random.default_rng(0)
  middle = slice(len(data) // 4, 3 * len(data) // 4)
  data[middle] = rng.integers(0, 256, len(data[middle]), np.uint8).tobytes()
  path.write_bytes(data)
  if codec == 'libx264':
    with pytest.raises(errors.VideoError, match='a.mkv: damaged'):
      compression_of(video)
  path.write_bytes(data[:100])
  with pytest.raises(errors.VideoError, match='a.mkv: damaged'):
    compression_of(video)
  path.unlink()
  with pytest.raises(errors.VideoError, match='a.mkv'):
    compression_of(video)


def test_mean_is_weighted_by_what_is_seen():
  def params(*blocks, qp=30):
    head = compression._HEAD.pack(len(blocks), 64, 20, 1, qp).ljust(64, b'\0')
    return head + np.array(blocks, np.int32).tobytes()

  assert compression.mean_qp(params(qp=27), 16, 20) == 27
  # 16 columns of QP 30 and 4 of 40.
  assert compression.mean_qp(params((0, 0, 16, 16, 0), (16, 0, 16, 16, 10)), 16, 20) == 32


def test_messages_of_libav_are_as_before(tmp_path, capfd):
  video = coded(tmp_path / 'a.mp4', 'qp=30', codec='libx265')
  code = (
    'import av.logging, sys\n'
    'from vqm_jax.video import compression, open_video\n'
    'before = av.logging.get_level()\n'
    'assert compression.compression_of(open_video(sys.argv[1]))\n'
    'assert av.logging.get_level() == before\n'
  )
  told = subprocess.run([sys.executable, '-c', code, video.path], capture_output=True, text=True, check=True)
  assert not told.stdout and not told.stderr


@pytest.mark.parametrize('qp, said', [
  (14.0, ['(h264) has QP 14', 'trained on QP 28 to 36', 'little is to be gained', '--preview', '--strength=0.5']),
  (44.2, ['(h264) has QP 44', 'trained on QP 28 to 36', 'stronger compression', '--preview']),
])  # fmt: skip
def test_advice_outside_of_the_range(qp, said):
  text = advice(Compression(qp, 'stream', 'h264'), (28.0, 36.0))
  assert '\n' not in text
  for part in said:
    assert part in text


def test_no_advice_inside_or_within_the_error():
  for qp in (28, 36, 26.5, 37.5):
    assert advice(Compression(qp, 'stream', 'h264'), (28, 36)) is None
  assert advice(Compression(39.5, 'estimate', 'hevc', 2.0), (28, 36)) is None
  assert 'about QP 41, the weights were trained on QP 33:' in advice(Compression(41, 'estimate', 'hevc', 2.0), (33, 33))
