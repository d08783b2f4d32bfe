"""Scene cuts in a stream of frames, by PySceneDetect."""

import collections
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  import scenedetect

# Shorter scenes join their neighbour.
MIN_SCENE_FRAMES = 15
# How far a frame's change must exceed the mean change of its neighbours [D]. PySceneDetect's own 3.0 misses cuts
# between shots with strong motion: 2.4 and 2.9 on real clips, while as strong a change within a shot gave at most 1.4.
THRESHOLD = 2.0
# Pixels of the thumbnails that are looked at: cuts show there too.
WIDTH = 256


def detector() -> 'scenedetect.AdaptiveDetector':
  """PySceneDetect's detector with our settings; it takes thumbnails, uint8 (h, w, 3) BGR, in order."""
  import scenedetect

  return scenedetect.AdaptiveDetector(adaptive_threshold=THRESHOLD, min_scene_len=MIN_SCENE_FRAMES)


def mark_cuts(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
  """The frames, uint8 (H, W, 3) RGB, each with whether a new scene starts there; the first does not count.

  Frames come out a few later than they go in, because a change is compared with those before and after it; cuts in the
  first `MIN_SCENE_FRAMES` frames and in the last two are not seen. Holds these few frames.
  """
  import cv2
  import scenedetect

  found, waiting, cuts = detector(), collections.deque(), set()
  for index, frame in enumerate(frames):
    height, width = frame.shape[:2]
    size = min(WIDTH, width), max(1, round(height * min(WIDTH, width) / width))
    thumbnail = cv2.resize(frame[..., ::-1], size, interpolation=cv2.INTER_AREA)
    # Scenes are counted in frames, so that any frame rate will do.
    cuts.update(cut.frame_num for cut in found.process_frame(scenedetect.FrameTimecode(index, 25.0), thumbnail))
    waiting.append((frame, index))
    if len(waiting) > found.event_buffer_length:
      frame, index = waiting.popleft()
      yield frame, index in cuts
  yield from ((frame, index in cuts) for frame, index in waiting)
