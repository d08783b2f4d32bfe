"""Bytes of frames before they are written."""

import coded_video

from vqm_jax import video
from vqm_jax.video import sizes


def test_images_and_packets_have_the_size_that_they_get(tmp_path):
  frames = coded_video.pictures(0, 6)
  video.write_png(tmp_path / 'x.png', frames[0])
  assert sizes.of_image(frames[0]) == (tmp_path / 'x.png').stat().st_size
  assert sizes.of_image(frames[0], '.jpg') < sizes.of_image(frames[0], '.bmp')
  source = video.open_video(coded_video.write(tmp_path / 'x.mp4', frames))
  packets = sizes.of_coded(source, 1, 5)
  assert len(packets) == 4 and packets[0] == max(packets)
  assert sum(sizes.of_coded(source, 1, 5, crf=40)) < sum(packets)
  assert sizes.of_other_streams(source, '.mp4') == 0  # there are none
