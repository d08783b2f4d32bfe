"""The packets of a file, and its main stream."""

import coded_video
import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.video import decoding


def test_packets_tell_frames_keys_and_times(tmp_path):
  path = coded_video.write(tmp_path / 'x.mp4', coded_video.pictures(0, 8), 'keyint=4:min-keyint=4:scenecut=0:bframes=0')
  found = decoding.read_packets(path)
  assert list(np.nonzero(found.is_key)[0]) == [0, 4] and not found.damaged and not found.truncated
  assert found.packet_is_frame and found.begins_whole and found.rates[0] == 24
  np.testing.assert_allclose(np.diff(found.pts) * float(found.time_base), 1 / 24, rtol=1e-3)


def test_a_context_with_the_stream_that_players_show(tmp_path):
  path = coded_video.write(tmp_path / 'x.mkv', coded_video.pictures(0, 2))
  with decoding.opened(path) as (container, stream):
    assert stream is decoding.main_video(container) and decoding.codec_name(stream) == 'h264'
    assert sum(1 for _ in container.decode(stream)) == 2


def test_names_are_no_protocols(tmp_path, monkeypatch):
  coded_video.write(tmp_path / '12:30.mp4', coded_video.pictures(0, 1))
  monkeypatch.chdir(tmp_path)
  with decoding.open_file('12:30.mp4') as container:
    assert decoding.main_video(container) is not None


def test_what_is_no_video_is_told(tmp_path):
  (tmp_path / 'empty.mp4').touch()
  for name, message in (('nowhere.mp4', 'no such file'), ('empty.mp4', 'the file is empty')):
    with pytest.raises(errors.VideoError, match=message), decoding.opened(tmp_path / name):
      pass
