"""Records of two cameras that film the same from a rig: weakly aligned windows, and windows of each camera alone.

    source ──┬── motion, features ── Pairing: offset in time, homography     (see `weak`)
    target ──┘                          │
    source ── windows ── lq             │ where and when the target shows about the same, and draws around that
    target ── windows ── hq  ───────────┘

A record of weak pairs keeps the draw that made it. Pixels never correspond: parallax alone forbids it.
"""

import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from vqm_jax import errors, files, schemas
from vqm_jax.prepare.challenge import packing, weak
from vqm_jax.prepare.records import configs, tiles
from vqm_jax.prepare.records.configs import ClipPair, Example, WindowsConfig
from vqm_jax.video import VideoSource

_GIVEN = 'given by the user'


@dataclasses.dataclass(frozen=True, eq=False)
class Pairing:
  """How the recordings of two cameras belong together, as `weak` estimates it."""

  offset: weak.Offset
  homography: weak.Homography

  def to_json(self) -> dict[str, Any]:
    """JSON values; NaN becomes None."""
    slope = self.offset.drift.slope
    return dict(
      offset=self.offset.frames,
      ncc=self.offset.confidence,
      offset_remark=self.offset.reason,
      drift_per_minute=None if np.isnan(slope) else slope,
      matrix=self.homography.matrix.tolist(),
      inliers=self.homography.inliers,
      inlier_share=self.homography.confidence,
      matrix_remark=self.homography.reason,
    )

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> Self:
    """Read what `to_json` has written."""
    slope = value['drift_per_minute']
    drift = weak.Drift(slope=float('nan') if slope is None else slope)
    matrix = np.array(value['matrix'], np.float64).reshape(3, 3)
    return cls(
      weak.Offset(value['offset'], value['ncc'], value['offset_remark'], drift),
      weak.Homography(matrix, value['inliers'], value['inlier_share'], value['matrix_remark']),
    )


def estimate(source: VideoSource, target: VideoSource, offset: int | None = None) -> Pairing:
  """The pairing of two recordings of one rate; both are decoded once, unless the `offset` is given.

  The homography is that of three moments, at a quarter, the middle and three quarters of what both have filmed.
  """
  if offset is None:
    found = weak.estimate_offset(source.frames(), target.frames(), fps=source.fps)
  else:
    found = weak.Offset(offset, 0.0, _GIVEN)
  first = max(0, -found.frames)
  last = min(source.num_frames, target.num_frames - found.frames)  # of the source, exclusive
  if last <= first:
    raise errors.DataError(
      f'{source.name}: with an offset of {found.frames} frames nothing is filmed by both, they have '
      f'{source.num_frames} and {target.num_frames} frames; correct offsets.csv.'
    )
  moments = sorted({first + (last - first) * k // 4 for k in (1, 2, 3)})
  pairs = (
    (next(source.frames(t, t + 1)), next(target.frames(t + found.frames, t + found.frames + 1))) for t in moments
  )
  return Pairing(found, weak.estimate_homography(pairs))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoCameras(ClipPair):
  """A clip of the source camera (`lq`) and the target camera (`hq`), of one rate.

  `offset` is the user's, if there is one, `known` an earlier estimate, `truth` what a simulation knows (JSON values).
  `digest` changes with the files.
  """

  digest: str = ''
  offset: int | None = None
  known: Pairing | None = None
  truth: Mapping[str, Any] | None = None

  @functools.cached_property
  def pairing(self) -> Pairing:
    """The earlier estimate, or a new one, which takes as long as decoding both sides."""
    return self.known or estimate(self.lq, self.hq, self.offset)


class Resampled:
  """A video at another rate: each frame is the one that was nearest in time."""

  def __init__(self, source: VideoSource, fps: Fraction):
    self.name, self.height, self.width = source.name, source.height, source.width
    self.fps = fps
    self.num_frames = int((source.num_frames - 1) * fps / source.fps) + 1 if source.num_frames else 0
    self._source = source

  def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Yield uint8 (H, W, 3) of the frames start <= t < stop."""
    wanted = [self._nearest(t) for t in range(start, self.num_frames if stop is None else min(stop, self.num_frames))]
    if not wanted:
      return
    frames = enumerate(self._source.frames(wanted[0], wanted[-1] + 1), start=wanted[0])
    at, frame = next(frames)
    for index in wanted:
      while at < index:
        at, frame = next(frames)
      yield frame

  def _nearest(self, t: int) -> int:
    return min(int(t * self._source.fps / self.fps + Fraction(1, 2)), self._source.num_frames - 1)


class Reduced:
  """A video whose sides are `scale` times smaller, by the mean of blocks."""

  def __init__(self, source: VideoSource, scale: int):
    self.name, self.fps, self.num_frames = source.name, source.fps, source.num_frames
    self.height, self.width = source.height // scale, source.width // scale
    self._source, self._scale = source, scale

  def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Yield uint8 (H, W, 3) of the frames start <= t < stop."""
    import cv2

    whole = np.s_[: self.height * self._scale, : self.width * self._scale]
    for frame in self._source.frames(start, stop):
      yield cv2.resize(frame[whole], (self.width, self.height), interpolation=cv2.INTER_AREA)


@dataclasses.dataclass(kw_only=True)
class WeakTilesConfig(WindowsConfig):
  """Windows of the source camera, each with `draws` windows of about the same place and time of the target camera.

  `per_video` places a video; a draw moves the target window by up to `jitter_frames` in time and `jitter_pixels` in
  both directions [D: 30 and 64 at 1080p], and the window has `margin` pixels more on every side, for a draw at reading.
  Fields, beside those of all windows (of lq): draw, dt and dyx (the jitter drawn), hq_start and hq_yx (where that led),
  offset, ncc and H (the pairing), lq (T, size, size) and hq (T, size + 2 margin, size + 2 margin).
  """

  splits: ClassVar[Mapping[str, str]] = {'train': 'train'}
  passes: ClassVar[int] = 2  # for the pairing, then for the records

  num_frames: int = 5
  per_video: int = 100
  margin: int = 32
  draws: int = 4
  jitter_frames: int = 30
  jitter_pixels: int = 64

  @property
  def _hq_size(self) -> int:
    return self.size + 2 * self.margin

  def features(self) -> dict[str, Any]:
    pair = tfds.features.Tensor(shape=(2,), dtype=np.int32)
    return dict(
      super().features(),
      draw=np.int32,
      dt=np.int32,
      dyx=pair,
      hq_start=np.int32,
      hq_yx=pair,
      offset=np.int32,
      ncc=np.float32,
      H=tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
      lq=self.strip(),
      hq=self.strip(self.margin),
    )

  def problems(self, pair: ClipPair) -> Iterator[str]:
    for side, source, size in (('source', pair.lq, self.size), ('target', pair.hq, self._hq_size)):
      yield from (f'{side}: {problem}' for problem in configs.too_small(source, size))

  def count(self, pair: ClipPair, split: str) -> int:
    return self.draws * len(self._plan(pair)) if pair.hq.num_frames >= self.num_frames else 0

  def record_bytes(self, pair: ClipPair) -> int:
    return configs.packed_bytes(self.num_frames * (self.size**2 + self._hq_size**2))

  def examples(self, pair: TwoCameras, split: str) -> Iterator[Example]:
    if self.count(pair, split):
      yield from self._examples(pair, pair.pairing, self._plan(pair), self.draws)

  def sample(self, pair: TwoCameras, split: str) -> Example | None:
    # Without an estimate, which would take as long as decoding the whole clip.
    matrix = weak.resizing((pair.lq.height, pair.lq.width), (pair.hq.height, pair.hq.width))
    plain = Pairing(weak.Offset(0, 0.0), weak.Homography(matrix, 0, 0.0))
    return next(self._examples(pair, plain, self._plan(pair)[:1], draws=1), None)

  def note(self, pair: TwoCameras, num_records: int) -> dict[str, Any]:
    pairing = pair.pairing.to_json() if num_records else {}
    return dict(num_records=num_records, **pairing, **({} if pair.truth is None else {'truth': dict(pair.truth)}))

  def _plan(self, pair: ClipPair) -> list[tiles.Tile]:
    return self.plan(pair.lq, pair.clip_id, pair.scenes)

  def _examples(self, pair: ClipPair, pairing: Pairing, plan: Sequence[tiles.Tile], draws: int) -> Iterator[Example]:
    rng = np.random.default_rng([self.seed, zlib.crc32(f'jitter {pair.clip_id}'.encode())])
    targets = pair.hq.num_frames, pair.hq.height, pair.hq.width
    drawn = []
    for tile in plan:
      for draw in range(draws):
        jitter = weak.Jitter.draw(rng, self.jitter_frames, self.jitter_pixels)
        place = weak.place(
          tile,
          jitter,
          offset=pairing.offset.frames,
          matrix=pairing.homography.matrix,
          num_frames=self.num_frames,
          size=self.size,
          margin=self.margin,
          hq_shape=targets,
        )
        drawn.append((tile, draw, jitter, place))
    lq_strips = self._strips(pair.lq, [weak.Place(t.start, t.y, t.x, self.size, True) for t, *_ in drawn[::draws]])
    hq_strips = self._strips(pair.hq, [place for *_, place in drawn])
    # Both cameras are read along with each other: what waits is what the draws have put out of order.
    for index, (tile, draw, jitter, place) in enumerate(drawn):
      if draw == 0:
        lq = lq_strips(index // draws)
      hq = hq_strips(index)
      if not tile.keep_flat and tiles.is_flat(hq):
        continue
      fields = dict(
        configs.window_fields(pair, tile, pair.lq.fps),
        draw=draw,
        dt=jitter.dt,
        dyx=np.array([jitter.dy, jitter.dx], np.int32),
        hq_start=place.start,
        hq_yx=np.array([place.y, place.x], np.int32),
        offset=pairing.offset.frames,
        ncc=pairing.offset.confidence,
        H=pairing.homography.matrix.astype(np.float32),
        lq=lq,
        hq=hq,
      )
      yield f'{configs.window_key(pair, tile)}/{draw}', fields

  def _strips(self, source: VideoSource, places: Sequence[weak.Place]):
    """A function from the number of a place to its strip, for numbers that are asked for about in order of time."""
    order = sorted(range(len(places)), key=lambda k: places[k].start)
    sorted_places = [places[k] for k in order]
    frames = source.frames(sorted_places[0].start, sorted_places[-1].start + self.num_frames)
    windows = zip(order, tiles.windows(frames, sorted_places, self.num_frames), strict=False)
    waiting: dict[int, np.ndarray] = {}

    def strip(number: int) -> np.ndarray:
      while number not in waiting:
        try:
          index, (place, window) = next(windows)
        except StopIteration:
          raise errors.DataError(
            f'{source.name}: ends before frame {sorted_places[-1].start + self.num_frames}, expected '
            f'{source.num_frames} frames; the file may be damaged.'
          ) from None
        waiting[index] = np.stack([place.cut(frame) for frame in window])
      return waiting.pop(number)

    return strip


@dataclasses.dataclass(kw_only=True)
class UnpairedTilesConfig(WindowsConfig):
  """Windows of each camera by itself, from frames reduced by `scale`.

  Field, beside those of all windows (places are those in reduced frames): frames (FrameStrip).
  """

  splits: ClassVar[Mapping[str, str]] = {'train_source': 'train', 'train_target': 'train'}

  num_frames: int = 1
  size: int = 512
  per_video: int = 200
  scale: int = 1

  def features(self) -> dict[str, Any]:
    return dict(super().features(), frames=self.strip())

  def problems(self, pair: ClipPair) -> Iterator[str]:
    for split in self.splits:
      yield from (f'{split}: {problem}' for problem in configs.too_small(self._side(pair, split), self.size))

  def count(self, pair: ClipPair, split: str) -> int:
    return len(self._plan(pair, split))

  def record_bytes(self, pair: ClipPair) -> int:
    return configs.packed_bytes(self.num_frames * self.size**2)

  def examples(self, pair: ClipPair, split: str) -> Iterator[Example]:
    plan, source = self._plan(pair, split), self._side(pair, split)
    if not plan:
      return
    frames = ((frame,) for frame in source.frames(plan[0].start, plan[-1].start + self.num_frames))
    for tile, (strip,) in tiles.cut(frames, plan, num_frames=self.num_frames, size=self.size):
      yield configs.window_key(pair, tile), dict(configs.window_fields(pair, tile, source.fps), frames=strip)

  def _side(self, pair: ClipPair, split: str) -> VideoSource:
    source = pair.lq if split == 'train_source' else pair.hq
    return source if self.scale == 1 else Reduced(source, self.scale)

  def _plan(self, pair: ClipPair, split: str) -> list[tiles.Tile]:
    # Other places in each camera: pairs of places would tempt to take them for pairs of pixels.
    return self.plan(self._side(pair, split), f'{pair.clip_id}{split}')


def clips(found: packing.Layout, split: str) -> Iterator[TwoCameras]:
  """The clips of a split as recordings of two cameras, the target at the rate of the source.

  <root>/offsets.csv (columns clip,offset) has the last word on offsets of training clips; what
  `vqm_jax.prepare.check` has estimated and stored in <root>/pairing.json is not estimated again.

  Raises DataError if one of these files cannot be used, or the layout has problems.
  """
  found.verify()
  offsets = _offsets(found) if split == 'train' else {}
  stored = StoredPairings(found.root) if split == 'train' else None
  for clip in found.clips:
    if clip.split != split:
      continue
    lq, hq = clip.sources['lq'], clip.sources.get('hq')
    pair = TwoCameras(
      clip_id=clip.clip_id,
      lq=lq,
      hq=Resampled(hq, lq.fps) if hq is not None and hq.fps != lq.fps else hq,
      category=clip.category,
      digest=found.clip_digest(clip),
      offset=offsets.get(clip.clip_id),
    )
    yield dataclasses.replace(pair, known=stored and stored.get(pair))


def offsets_digest(found: packing.Layout, split: str) -> str:
  """Changes when the user's offsets for a split do; '' without any."""
  offsets = _offsets(found) if split == 'train' else {}
  return packing.short_hash([json.dumps(offsets, sort_keys=True)]) if offsets else ''


def _offsets(found: packing.Layout) -> dict[str, int]:
  path = found.root / 'offsets.csv'
  if not path.is_file():
    return {}
  offsets = weak.read_offsets(path)
  known = {clip.clip_id for clip in found.clips if clip.split == 'train'}
  if others := [name for name in offsets if name not in known]:
    raise errors.DataError(
      f'{path}: there is no training clip {", ".join(others)}; the clips are {", ".join(sorted(known)[:5])}, ….'
    )
  return offsets


_Row = tuple[schemas.Score, schemas.Score, schemas.Score]


@dataclasses.dataclass(frozen=True)
class _Written:
  """The JSON of a `Pairing`."""

  offset: int
  ncc: schemas.Score
  offset_remark: str
  drift_per_minute: float | None
  matrix: tuple[_Row, _Row, _Row]
  inliers: schemas.Count
  inlier_share: schemas.Score
  matrix_remark: str


@dataclasses.dataclass(frozen=True)
class _Entry:
  digest: str
  pairing: _Written


class StoredPairings:
  """Estimates kept beside the recordings in `pairing.json`, each with the digest of what it is an estimate of."""

  def __init__(self, folder: pathlib.Path):
    self.path = folder / 'pairing.json'
    self._entries: dict[str, Any] = {}
    try:
      self._entries = schemas.load(self.path, dict[str, Any])
      schemas.check(self._entries, dict[str, _Entry])
    except FileNotFoundError:
      pass
    except schemas.Misfit as error:
      raise errors.DataError(
        f'{self.path}: is not what python -m vqm_jax.prepare.check writes ({error}); remove it, the estimates are '
        'made again.'
      ) from error

  def get(self, pair: TwoCameras) -> Pairing | None:
    """The estimate for a clip, unless its files or the user's offset have changed since."""
    entry = self._entries.get(pair.clip_id)
    if not entry or entry['digest'] != _digest(pair):
      return None
    return Pairing.from_json(vars(schemas.check(entry['pairing'], _Written)))

  def put(self, pair: TwoCameras) -> None:
    """Keep the estimate of a clip; where nothing can be written, it warns."""
    self._entries[pair.clip_id] = {'digest': _digest(pair), 'pairing': pair.pairing.to_json()}
    try:
      files.write_json(self.path, self._entries)
    except OSError as error:
      logging.warning('%s: estimates are not kept (%s); the build makes them again.', self.path, error.strerror)


def _digest(pair: TwoCameras) -> str:
  return packing.short_hash([f'{pair.digest} {pair.lq.fps} {pair.offset}'])
