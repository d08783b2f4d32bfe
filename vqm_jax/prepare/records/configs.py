"""The kinds of record, and the clips of a data set that they are made of.

A *config* of a data set is one kind of record. `TilesConfig`: short windows cut from training videos, each a lossless
strip, for random access in training. `FramesConfig`: every frame of the clips that are evaluated, as PNG, in order.
Those of two cameras that film the same are in `two_cameras`.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from vqm_jax import errors, video
from vqm_jax.data.features import FrameStrip
from vqm_jax.prepare.records import tiles
from vqm_jax.video import VideoSource
from vqm_jax.video.images import ImageFrames

_PACKED = 0.35  # of raw RGB; measured 0.30 for WebP strips, 0.39 for PNG frames
_PNG_LEVEL = 3
_PNG_RGB8 = b'\x08\x02'  # bit depth and colour type in a PNG header, bytes 24 and 25

# The key of a record and its fields; what takes time to make is a function, which is called in a thread.
Example = tuple[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipPair:
  """One clip twice: degraded (`lq`) and original (`hq`, None where it is withheld), frame by frame.

  `scenes` are (first frame, frame after the last) of each shot, empty for a single one; windows never cross their
  borders. `crf` and `qp`, as `video.compression` measures it, are NaN where they are not known.
  """

  clip_id: str
  lq: VideoSource
  hq: VideoSource | None
  category: str = ''
  crf: float = float('nan')
  qp: float = float('nan')
  scenes: tuple[tuple[int, int], ...] = ()

  @property
  def reference(self) -> VideoSource:
    """The side that number, size and rate of the frames are taken from: the original, where there is one."""
    return self.lq if self.hq is None else self.hq

  def frames(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield (lq, hq) uint8 (H, W, 3) of the frames start <= t < stop; both sides are decoded at once.

    Raises DataError if a side ends before `stop`.
    """
    sides = [side.frames(start, stop) for side in (self.lq, self.hq) if side is not None]
    with concurrent.futures.ThreadPoolExecutor(len(sides)) as pool:
      for index in range(start, stop):
        pair = list(pool.map(lambda side: next(side, None), sides))
        for side, frame in zip(('LQ', 'HQ'), pair, strict=False):
          if frame is None:
            raise errors.DataError(
              f'{self.clip_id}: {side} ends after {index} frames, expected {self.reference.num_frames}; the file may '
              'be damaged.'
            )
        yield pair[0], pair[1] if len(pair) == 2 else None


@dataclasses.dataclass(kw_only=True)
class RecordsConfig(tfds.core.BuilderConfig):
  """Base of the kinds of record.

  `holdout` training videos are set aside, for the split holdout of the frames. With `check_pairs` pairs that do not fit
  frame by frame are refused, without they are warned of.
  """

  # Split of the records -> split of the clips that they are made of.
  splits: ClassVar[Mapping[str, str]]
  # What the metadata call the table of the clips: {table: {split: {clip: {first_record, …}}}}.
  table: ClassVar[str] = 'videos'
  # How often a clip is decoded to make its records.
  passes: ClassVar[int] = 1
  # What `accepts` asks for, in words.
  accepted: ClassVar[str] = 'with targets'

  holdout: int = 0
  check_pairs: bool = True

  @property
  def exact(self) -> bool:
    """Whether both sides of a clip must show the same, frame by frame and pixel by pixel."""
    return False

  def features(self) -> dict[str, Any]:
    """The fields of a record, as TFDS features."""
    raise NotImplementedError

  def accepts(self, pair: ClipPair) -> bool:
    """Whether records are made of this clip; the others are left out."""
    return pair.hq is not None

  def problems(self, pair: ClipPair) -> Iterator[str]:
    """Why this clip cannot be used, if it cannot."""
    raise NotImplementedError

  def count(self, pair: ClipPair, split: str) -> int:
    """How many records the clip gives at most."""
    raise NotImplementedError

  def record_bytes(self, pair: ClipPair) -> int:
    """About how large a record is."""
    raise NotImplementedError

  def examples(self, pair: ClipPair, split: str) -> Iterator[Example]:
    """The records of a clip."""
    raise NotImplementedError

  def sample(self, pair: ClipPair, split: str) -> Example | None:
    """A record as `examples` would give, made at once; None if there is none."""
    return next(self.examples(pair, split), None)

  def note(self, pair: ClipPair, num_records: int) -> dict[str, Any]:
    """Describe a clip for the metadata, beside its first record; JSON values."""
    return dict(num_records=num_records, **coding(pair))


@dataclasses.dataclass(kw_only=True)
class WindowsConfig(RecordsConfig):
  """Base of the kinds that hold windows: `num_frames` frames of `size` x `size` pixels, `per_video` of each video.

  All have the fields video, category, scene, start, yx and fps, and strips of frames in the `codec` of FrameStrip.
  """

  num_frames: int = 7
  size: int = 256
  per_video: int = 400
  codec: str = 'webp'
  seed: int = 0

  def features(self) -> dict[str, Any]:
    return dict(
      video=tfds.features.Text(),
      category=tfds.features.Text(),
      scene=np.int32,
      start=np.int32,
      yx=tfds.features.Tensor(shape=(2,), dtype=np.int32),
      fps=np.float32,
    )

  def strip(self, margin: int = 0) -> FrameStrip:
    """The feature that holds a window with so many pixels more on every side."""
    return FrameStrip(self.num_frames, self.size + 2 * margin, self.size + 2 * margin, codec=self.codec)

  def plan(self, source: VideoSource, clip: str, scenes: Sequence[tuple[int, int]] = ()) -> list[tiles.Tile]:
    """Where the windows of a video are; the name of the clip is part of the seed."""
    return tiles.plan(
      clip,
      scenes or ((0, source.num_frames),),
      source.height,
      source.width,
      num_frames=self.num_frames,
      size=self.size,
      per_video=self.per_video,
      seed=self.seed,
    )


def window_fields(pair: ClipPair, tile: tiles.Tile, fps: float) -> dict[str, Any]:
  """The fields that all windows have."""
  place = np.array([tile.y, tile.x], np.int32)
  return dict(video=pair.clip_id, category=pair.category, scene=tile.scene, start=tile.start, yx=place, fps=float(fps))


def window_key(pair: ClipPair, tile: tiles.Tile) -> str:
  """The key of a window's record."""
  return f'{pair.clip_id}/{tile.start:06d}/{tile.y:04d}_{tile.x:04d}'


@dataclasses.dataclass(kw_only=True)
class TilesConfig(WindowsConfig):
  """Windows of the degraded and of the original video, the same frames and pixels.

  Fields, beside those of all windows: crf, lq and hq (FrameStrip).
  """

  splits: ClassVar[Mapping[str, str]] = {'train': 'train'}

  @property
  def exact(self) -> bool:
    return True

  def features(self) -> dict[str, Any]:
    return dict(super().features(), crf=np.float32, lq=self.strip(), hq=self.strip())

  def problems(self, pair: ClipPair) -> Iterator[str]:
    yield from unequal(pair) or too_small(pair.reference, self.size)

  def count(self, pair: ClipPair, split: str) -> int:
    return len(self._plan(pair))

  def record_bytes(self, pair: ClipPair) -> int:
    return packed_bytes(2 * self.num_frames * self.size**2)

  def examples(self, pair: ClipPair, split: str) -> Iterator[Example]:
    plan = self._plan(pair)
    if not plan:
      return
    frames = pair.frames(plan[0].start, plan[-1].start + self.num_frames)
    for tile, (lq, hq) in tiles.cut(frames, plan, num_frames=self.num_frames, size=self.size):
      fields = dict(window_fields(pair, tile, pair.reference.fps), crf=pair.crf, lq=lq, hq=hq)
      yield window_key(pair, tile), fields

  def _plan(self, pair: ClipPair) -> list[tiles.Tile]:
    return self.plan(pair.reference, pair.clip_id, pair.scenes)


def tile_configs(kind: type[TilesConfig] = TilesConfig) -> list[TilesConfig]:
  """The sizes that published recipes train on: `tiles`, 7 frames of 256x256, and others that tell theirs by name."""
  sizes = {'tiles': (7, 256)}
  sizes |= {f'tiles_t{t}p{p}': (t, p) for t, p in ((7, 128), (5, 128), (5, 192), (1, 128), (1, 256))}
  return [
    kind(name=name, description=f'Windows of {t} frame{"s" if t > 1 else ""}, {p}x{p}.', num_frames=t, size=p)
    for name, (t, p) in sizes.items()
  ]


@dataclasses.dataclass(kw_only=True)
class FramesConfig(RecordsConfig):
  """Every frame of the validation, test and holdout clips, and of `holdout` training videos.

  Fields: clip, frame, lq and, unless targets are withheld, hq (PNG). Without `targets`: of the clips whose originals
  are withheld, and of no others. `aligned` tells readers whether hq shows lq pixel by pixel, which is not so for two
  cameras.
  """

  splits: ClassVar[Mapping[str, str]] = {'val': 'val', 'test': 'test', 'holdout': 'holdout'}
  table: ClassVar[str] = 'clips'

  targets: bool = True
  aligned: bool = True

  @property
  def exact(self) -> bool:
    return self.aligned

  def features(self) -> dict[str, Any]:
    image = tfds.features.Image(shape=(None, None, 3), encoding_format='png')
    sides = dict(lq=image, hq=image) if self.targets else dict(lq=image)
    return dict(clip=tfds.features.Text(), frame=np.int32, **sides)

  @property
  def accepted(self) -> str:
    return 'with targets' if self.targets else 'without targets'

  def accepts(self, pair: ClipPair) -> bool:
    return (pair.hq is not None) == self.targets

  def problems(self, pair: ClipPair) -> Iterator[str]:
    yield from unequal(pair) or too_small(pair.reference, 1)

  def count(self, pair: ClipPair, split: str) -> int:
    return pair.reference.num_frames

  def record_bytes(self, pair: ClipPair) -> int:
    return packed_bytes(2 * pair.reference.height * pair.reference.width)

  def examples(self, pair: ClipPair, split: str) -> Iterator[Example]:
    for index, frames in enumerate(pair.frames(0, pair.reference.num_frames)):
      images = {
        side: functools.partial(_png_file, source, index, rgb)
        for side, source, rgb in zip(('lq', 'hq'), (pair.lq, pair.hq), frames, strict=True)
        if source is not None
      }
      yield f'{pair.clip_id}/{index:06d}', dict(clip=pair.clip_id, frame=index, **images)

  def note(self, pair: ClipPair, num_records: int) -> dict[str, Any]:
    reference = pair.reference
    return dict(
      num_frames=num_records,
      height=reference.height,
      width=reference.width,
      fps=float(reference.fps),
      category=pair.category,
      # Restoring these clips for scores must not look across cuts, and has no detector at hand.
      **({'cuts': _cuts(pair)} if pair.scenes else {}),
    )


def _cuts(pair: ClipPair) -> list[int]:
  """Frames where a scene starts or ends within the clip."""
  borders = {border for scene in pair.scenes for border in scene}
  return sorted(borders - {0, pair.reference.num_frames})


def coding(pair: ClipPair) -> dict[str, float]:
  """Return how strongly a clip was compressed, as far as known, so that training can tell its range: crf, qp.

  A QP that is not given is looked up in the stream; a stream that is damaged there tells none.
  """
  found = {'crf': pair.crf, 'qp': pair.qp}
  if math.isnan(pair.qp):
    with contextlib.suppress(errors.VideoError):
      compression = video.compression_of(getattr(pair.lq, 'coded', pair.lq))
      found['qp'] = round(compression.qp, 2) if compression else math.nan
  return {key: value for key, value in found.items() if not math.isnan(value)}


def unequal(pair: ClipPair) -> list[str]:
  """List the problems of a clip whose sides must match frame by frame, pixel by pixel."""
  lq, hq = (f'{s.num_frames} frames {s.width}x{s.height}' for s in (pair.lq, pair.reference))
  return [] if lq == hq else [f'LQ {lq}, HQ {hq}, which must match frame by frame']


def too_small(source: VideoSource, size: int) -> list[str]:
  """List the problems of a side that has no frames or smaller ones than `size`."""
  if source.num_frames and min(source.width, source.height) >= size:
    return []
  return [f'{source.num_frames} frames {source.width}x{source.height}, expected at least {size}x{size}']


def packed_bytes(pixels: int) -> int:
  """About what so many pixels take on disk, whatever the codec."""
  return round(3 * pixels * _PACKED)


def _png_file(source: VideoSource, index: int, rgb: np.ndarray) -> bytes:
  """Frame `index` of `source` as a PNG file: the very bytes where it is one, of 8-bit RGB."""
  import cv2

  if isinstance(source, ImageFrames) and source.files[index].name.lower().endswith('.png'):
    data = source.files[index].read_bytes()
    if data[24:26] == _PNG_RGB8:
      return data
  _, data = cv2.imencode('.png', rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
  return data.tobytes()
