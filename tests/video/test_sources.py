"""The protocol of clips: what all kinds have in common."""

import numpy as np
import pytest

from vqm_jax import errors, video
from vqm_jax.video import sources


def test_images_are_a_source_and_stop_where_they_end(tmp_path):
  for number in range(3):
    video.write_png(tmp_path / f'{number}.png', np.zeros((4, 6, 3), np.uint8))
  clip = video.open_video(tmp_path)
  assert isinstance(clip, sources.VideoSource) and not isinstance('clip', sources.VideoSource)
  assert sources.checked_stop(clip, 1, None) == 3 and sources.checked_stop(clip, 3, 3) == 3
  for start, stop in ((0, 4), (-1, 2), (4, None)):
    with pytest.raises(errors.VideoError, match=f'frames {start} to .* asked for, there are 3'):
      sources.checked_stop(clip, start, stop)
