"""Scene cuts in a stream of frames, by PySceneDetect."""

import collections
import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np

# A change is a cut if it is that large (the mean of what hue, saturation and value change by, in levels) and so many
# times the mean of the two before and the two after it. PySceneDetect's own ratio of 3.0 misses cuts between shots
# with strong motion: 2.4 and 2.9 on real clips, while as strong a change within a shot gave at most 1.4. It must also
# stand out among all changes nearby, as it does not where every picture is shown for several frames.
CHANGE, THRESHOLD, _OUTSTANDING = 15.0, 2.0, 1.5
# From here on it is another picture, whatever other cuts are near, unless at least half of the changes nearby are about
# as large: real cuts gave 51 to 76, motion at most 37.
_OTHER_PICTURE, _CLEARLY = 45.0, 1.6
# How many changes before and after are looked at. So a cut at frame t depends on frames t - REACH - 1 to t + REACH and
# on no others: whoever begins in the middle of a clip finds the same cuts from there on.
REACH = 5
# Pixels of the thumbnails that are looked at: cuts show there too.
WIDTH = 256


def thumbnail_size(height: int, width: int) -> tuple[int, int]:
  """(width, height) of the pictures that are looked at, for frames of this size."""
  return min(WIDTH, width), max(1, round(height * min(WIDTH, width) / width))


def scene_starts(thumbnails: Iterable[np.ndarray]) -> Iterator[bool]:
  """For each thumbnail, uint8 (h, w, 3) BGR, in order, whether a new scene starts there; the first does not count.

  Scenes may be as short as a frame. Answers come `REACH` thumbnails late, because a change is compared with those
  before and after it.
  """
  changes = collections.deque([math.nan] * REACH, maxlen=2 * REACH + 1)  # NaN beyond the ends
  for number, change in enumerate(itertools.chain(_changes(thumbnails), [math.nan] * REACH)):
    changes.append(change)
    if number >= REACH:
      yield _is_cut(np.array(changes))


def _is_cut(changes: np.ndarray) -> bool:
  """Whether the change in the middle, of `REACH` before and after it, is a cut; NaN for what is not there."""
  change, others = changes[REACH], np.delete(changes, REACH)
  near, others = (part[~np.isnan(part)] for part in (others[REACH - 2 : REACH + 2], others))
  if change >= _OTHER_PICTURE or not near.size:
    return bool(change >= max(_OTHER_PICTURE, _CLEARLY * _mean(np.sort(others)[:REACH])))
  return bool(change >= max(CHANGE, THRESHOLD * near.mean(), _OUTSTANDING * others.max()))


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if values.size else 0.0


def _changes(thumbnails: Iterable[np.ndarray]) -> Iterator[float]:
  """How far each thumbnail is from the one before, as PySceneDetect measures it; NaN for the first."""
  import scenedetect

  detector = scenedetect.ContentDetector()
  for index, thumbnail in enumerate(thumbnails):
    # It keeps the values of all frames, so that hours would fill the memory.
    detector.stats_manager = scenedetect.StatsManager()
    time = scenedetect.FrameTimecode(index, 25.0)
    detector.process_frame(time, thumbnail)
    yield detector.stats_manager.get_metrics(time, [detector.FRAME_SCORE_KEY])[0] if index else math.nan


def mark_cuts(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
  """The frames, uint8 or uint16 (H, W, 3) RGB, each with whether a new scene starts there, as `scene_starts` finds it.

  Frames come out a few later than they go in. Holds these few frames.
  """
  waiting = collections.deque()

  def thumbnails():
    for frame in frames:
      waiting.append(frame)
      yield _thumbnail(frame)

  for starts in scene_starts(thumbnails()):
    yield waiting.popleft(), starts


def _thumbnail(frame: np.ndarray) -> np.ndarray:
  import cv2

  small = cv2.resize(frame, thumbnail_size(*frame.shape[:2]), interpolation=cv2.INTER_AREA)
  small = np.ascontiguousarray(small[..., ::-1])  # behind it, because OpenCV copies whole frames that are turned so
  return small if small.dtype == np.uint8 else (small >> 8).astype(np.uint8)
