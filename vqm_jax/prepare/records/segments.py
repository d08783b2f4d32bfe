"""The config `segments`: all of the training videos as they are coded, in stretches that training decodes.

A record is a stretch of both sides as small mp4 files. Tiles of as many pixels take 25 to 60 times the disk (measured),
but a window costs the decoding of whole frames from a keyframe on, as much time as 25 tiles, so that many windows
should share it: `crops_per_record` of `vqm_jax.data.train_batches`.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vqm_jax import errors
from vqm_jax.prepare.records import configs
from vqm_jax.prepare.records.configs import ClipPair, Example, RecordsConfig
from vqm_jax.video import VideoFile, remux


class Stretch(NamedTuple):
  """Frames start <= t < stop of a video, all of one scene."""

  scene: int
  start: int
  stop: int


@dataclasses.dataclass(kw_only=True)
class SegmentsConfig(RecordsConfig):
  """Each frame of the training videos once, in stretches of at most `max_frames` frames that lie within a scene.

  Borders are keyframes of LQ as far as possible: what lies between a keyframe and a stretch is stored with it. By
  default stretches are as long as the groups of pictures that x264 makes. Only scenes that are shorter themselves make
  stretches of less than `min_frames` frames. Fields: video, category, scene, start, num_frames, fps, crf, lq and hq
  (mp4 files), lq_skip and hq_skip (how many frames those show before frame `start`), height, width.
  """

  splits: ClassVar[Mapping[str, str]] = {'train': 'train'}
  passes: ClassVar[int] = 0

  max_frames: int = 250
  min_frames: int = 15

  @property
  def exact(self) -> bool:
    return True

  def __post_init__(self):
    if not 1 <= self.min_frames <= self.max_frames // 2:
      raise errors.ConfigError(
        f'min_frames={self.min_frames}: expected 1 to half of max_frames={self.max_frames}, so that what is longer can '
        'be cut.'
      )

  def features(self) -> dict[str, Any]:
    text = tfds.features.Text()
    numbers = dict.fromkeys(('scene', 'start', 'num_frames', 'lq_skip', 'hq_skip', 'height', 'width'), np.int32)
    return dict(numbers, video=text, category=text, fps=np.float32, crf=np.float32, lq=text, hq=text)

  def problems(self, pair: ClipPair) -> Iterator[str]:
    sides = {'LQ': pair.lq, 'HQ': pair.hq}
    images = [side for side, source in sides.items() if not isinstance(source, VideoFile)]
    yield from (f'segments hold the streams of video files, {side} is images; use tiles' for side in images)
    if images:
      return
    yield from configs.unequal(pair) or configs.too_small(pair.reference, 1)
    for side, source in sides.items():
      if problem := remux.problem(source):
        yield f'segments hold the streams of video files, that of {side} cannot be cut ({problem}); use tiles'

  def count(self, pair: ClipPair, split: str) -> int:
    return len(self._plan(pair))

  def record_bytes(self, pair: ClipPair) -> int:
    return sum(side.path.stat().st_size for side in (pair.lq, pair.hq)) // len(self._plan(pair))

  def examples(self, pair: ClipPair, split: str) -> Iterator[Example]:
    plan = self._plan(pair)
    lq_segments, hq_segments = (remux.cut(side, [(s.start, s.stop) for s in plan]) for side in (pair.lq, pair.hq))
    for stretch, lq, hq in zip(plan, lq_segments, hq_segments, strict=True):
      yield (
        f'{pair.clip_id}/{stretch.start:06d}',
        dict(
          video=pair.clip_id,
          category=pair.category,
          scene=stretch.scene,
          start=stretch.start,
          num_frames=stretch.stop - stretch.start,
          fps=float(pair.reference.fps),
          crf=pair.crf,
          lq=lq.data,
          hq=hq.data,
          lq_skip=lq.skip,
          hq_skip=hq.skip,
          height=pair.reference.height,
          width=pair.reference.width,
        ),
      )

  def note(self, pair: ClipPair, num_records: int) -> dict[str, Any]:
    # The lengths let training leave out records that are too short without reading them.
    lengths = [stretch.stop - stretch.start for stretch in self._plan(pair)]
    size = dict(height=pair.reference.height, width=pair.reference.width)
    return dict(num_records=num_records, num_frames=lengths, **size, **configs.coding(pair))

  def _plan(self, pair: ClipPair) -> list[Stretch]:
    scenes = enumerate(pair.scenes or [(0, pair.reference.num_frames)])
    keyframes, limits = pair.lq.keyframes, dict(min_frames=self.min_frames, max_frames=self.max_frames)
    parts = (
      Stretch(k, *part)
      for k, (start, stop) in scenes
      for part in itertools.pairwise(borders(start, stop, keyframes, **limits))
    )
    return sorted(parts, key=lambda stretch: stretch.start)


def borders(start: int, stop: int, keyframes: Sequence[int], *, min_frames: int, max_frames: int) -> Iterator[int]:
  """Yield `start`, where to cut the frames start <= t < stop into stretches, and `stop`.

  Args:
    keyframes: where cuts should be, in ascending order.
    min_frames: no more than half of max_frames; no stretch is shorter unless all frames together are.
    max_frames: no stretch is longer.
  """
  while stop - start > max_frames:
    usable = [k for k in keyframes if start + min_frames <= k <= stop - min_frames]
    near = [k for k in usable if k <= start + max_frames]
    # Without a keyframe in reach, equal parts of what lies before the next one.
    border = near[-1] if near else usable[0] if usable else stop
    parts = -(-(border - start) // max_frames)
    yield from (start + (border - start) * k // parts for k in range(parts))
    start = border
  if start < stop:
    yield start
  yield stop
