"""Sizes of the original."""

import av
import numpy as np
from prepare import generated_video

from vqm_jax.prepare.pairs import transcode
from vqm_jax.video import VideoFile


def test_odd_420_is_cropped_without_loss(tmp_path):
  # H.264 stores no odd 4:2:0, VP9 does.
  images = generated_video.scene(3, 20, 65, 97)
  with av.open(tmp_path / 'odd.webm', 'w') as container:
    stream = container.add_stream('libvpx-vp9', rate=25, options={'cpu-used': '8'})
    stream.height, stream.width, stream.pix_fmt = 65, 97, 'yuv420p'
    for image in images:
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      container.mux(stream.encode(frame.reformat(format='yuv420p')))
    container.mux(stream.encode(None))
  video = VideoFile(tmp_path / 'odd.webm')
  for old, new in zip(video.yuv_frames(), transcode.hq_frames(video), strict=True):
    assert (new.height, new.width, new.format.name) == (64, 96, 'yuv420p')
    for a, b, (height, width) in zip(old.planes, new.planes, ((64, 96), (32, 48), (32, 48)), strict=True):
      a, b = (np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :width] for plane in (a, b))
      np.testing.assert_array_equal(a, b)
