"""Strips out of the config `segments`, whose records are stretches of video that are decoded as they are drawn.

Only this needs PyAV, when the first record is decoded.
"""

import dataclasses
from typing import NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds

from vqm_jax import errors
from vqm_jax.data.records import DataSource, Records, VideoEntry, describe, metadata

# What `Strips` reads of a record.
FIELDS = ('num_frames', 'lq', 'lq_skip', 'hq', 'hq_skip')

_SPLIT = 'train'


class Room(NamedTuple):
  """Returns what fits into the records of a config: frames of the longest one, height and width that all have."""

  num_frames: int
  height: int
  width: int

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """As that of a strip of this size."""
    return (*self, 3)


def room(info: tfds.core.DatasetInfo) -> Room | None:
  """None for records of another kind."""
  videos = _videos(info)
  if 'lq_skip' not in info.features or not videos or not all(video.num_frames for video in videos):
    return None
  height, width = (min(getattr(video, side) for video in videos) for side in ('height', 'width'))
  return Room(max(max(video.num_frames) for video in videos), height, width)


def turns(source: DataSource, num_frames: int) -> np.ndarray:
  """Which record each sample of an epoch is from, int64: one turn for each `num_frames` frames that a record has.

  So every part of a video comes up equally often, and records that are too short do not.

  Raises DataError for a part of a split, for which the lengths are not known.
  """
  if source.split != _SPLIT:
    raise errors.DataError(f'{describe(source)}: segments are sampled from the whole split {_SPLIT!r} only; open that.')
  lengths = np.concatenate([video.num_frames for video in _videos(source.dataset_info)])
  if len(lengths) != len(source):
    raise errors.DataError(
      f'{describe(source)}: has {len(source)} records, its metadata {len(lengths)}; build it again.'
    )
  return np.repeat(np.arange(len(lengths)), lengths // num_frames)


@dataclasses.dataclass(frozen=True)
class Strips(grain.transforms.RandomMap):
  """The random map from a record's number to {'lq', 'hq'}: uint8 (num_frames, H, W, 3) from any place within it."""

  records: Records
  num_frames: int

  def random_map(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Decode record `index` from a random frame on. Raises DataError for one that is damaged."""
    from vqm_jax.video import remux

    record = self.records[index]
    start = int(rng.integers(record['num_frames'] - self.num_frames + 1))
    first = {side: start + int(record[f'{side}_skip']) for side in ('lq', 'hq')}
    try:
      return {side: remux.decode(record[side], t, t + self.num_frames) for side, t in first.items()}
    except errors.VideoError as error:
      raise self.records.damaged(index, str(error)) from error


def _videos(info: tfds.core.DatasetInfo) -> list[VideoEntry]:
  """Return the metadata of each video, in the order of the records; `num_frames` are those of each record."""
  return sorted(metadata(info).videos.get(_SPLIT, {}).values(), key=lambda video: video.first_record)
