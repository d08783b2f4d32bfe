"""Scene cuts of a video, and the window of a video that becomes a validation or test clip."""

from collections.abc import Iterable, Iterator

import numpy as np

from vqm_jax.video import VideoFile, cuts

Scene = tuple[int, int]


def detect(video: VideoFile) -> tuple[Scene, ...]:
  """The scenes of `video`, (first frame, frame after the last) each; together they cover all of it.

  Decodes the whole file, in bounded memory, so it also finds damage: VideoError. The detector is fed with the frames of
  our own reader: PySceneDetect numbers frames by their time stamps, the records by their order.
  """
  found = [index for index, starts in enumerate(cuts.scene_starts(_thumbnails(video))) if starts]
  return from_starts(found, video.num_frames)


def from_starts(starts: Iterable[int], num_frames: int) -> tuple[Scene, ...]:
  """The scenes of a video of so many frames, of which others than the first begin at `starts`."""
  borders = [0, *starts, num_frames]
  return tuple(zip(borders, borders[1:], strict=False))


def window(scenes: tuple[Scene, ...], num_frames: int) -> tuple[Scene, Scene]:
  """(scene, window): `num_frames` frames from the middle of the first scene that has so many.

  Without such a scene, all of the longest one (the first of equals).
  """
  scene = next((s for s in scenes if s[1] - s[0] >= num_frames), None)
  if scene is None:
    scene = max(scenes, key=lambda s: s[1] - s[0])
    return scene, scene
  start = scene[0] + (scene[1] - scene[0] - num_frames) // 2
  return scene, (start, start + num_frames)


def to_text(scenes: tuple[Scene, ...]) -> str:
  """'0-35;35-128', as the manifest writes ((0, 35), (35, 128))."""
  return ';'.join(f'{start}-{stop}' for start, stop in scenes)


def _thumbnails(video: VideoFile) -> Iterator[np.ndarray]:
  """uint8 (h, w, 3) BGR of every frame. Small, because cuts show there too; colours need not be exact."""
  width, height = cuts.thumbnail_size(video.height, video.width)
  for frame in video.yuv_frames():
    yield frame.reformat(width=width, height=height, format='bgr24').to_ndarray()
