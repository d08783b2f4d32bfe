"""`VqmBuilder`: pairs of degraded and original videos in, TFDS records out.

Two kinds of config [D]. *Tiles* hold short windows cut from training videos, each a lossless strip, for random access
in training. *Frames* hold every frame of the clips that are evaluated, as PNG, in order. No TensorFlow, one pass over
the videos, bounded memory.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from vqm_jax import cli, errors
from vqm_jax.data.features import FrameStrip
from vqm_jax.prepare import tiles as tiles_lib
from vqm_jax.report import results
from vqm_jax.video import VideoSource
from vqm_jax.video.reader import ImageFrames

S, T = TypeVar('S'), TypeVar('T')

# About so much is lost when a build is stopped.
_SHARD_BYTES = 256 << 20
_PACKED = 0.35  # of raw RGB; measured 0.30 for WebP strips, 0.39 for PNG frames
_PROBE_FRAMES = 24
_PNG_LEVEL = 3
_PNG_RGB8 = b'\x08\x02'  # bit depth and colour type in a PNG header, bytes 24 and 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipPair:
  """One clip twice: degraded (`lq`) and original (`hq`, None where it is withheld), frame by frame.

  `scenes` are (first frame, frame after the last) of each shot, empty for a single one; windows never cross their
  borders. `crf` is NaN where it is not known.
  """

  clip_id: str
  lq: VideoSource
  hq: VideoSource | None
  category: str = ''
  crf: float = float('nan')
  scenes: tuple[tuple[int, int], ...] = ()

  @property
  def reference(self) -> VideoSource:
    """What number, size and rate of the frames are taken from: the original, where there is one."""
    return self.lq if self.hq is None else self.hq

  def frames(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields (lq, hq) uint8 (H, W, 3) of the frames start <= t < stop; both sides are decoded at once.

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
class TilesConfig(tfds.core.BuilderConfig):
  """Windows of `num_frames` frames of `size` x `size` pixels, about `per_video` of each training video.

  `holdout` whole training videos give none: they are the holdout split of the frames. `codec` is that of FrameStrip.
  """

  num_frames: int = 7
  size: int = 256
  per_video: int = 400
  codec: str = 'webp'
  seed: int = 0
  holdout: int = 0


def tile_configs(kind: type[TilesConfig] = TilesConfig) -> list[TilesConfig]:
  """The sizes that published recipes train on: `tiles`, 7 frames of 256x256, and others that tell theirs by name."""
  sizes = {'tiles': (7, 256)}
  sizes |= {f'tiles_t{t}p{p}': (t, p) for t, p in ((7, 128), (5, 128), (5, 192), (1, 128), (1, 256))}
  return [
    kind(name=name, description=f'Windows of {t} frame{"s" if t > 1 else ""}, {p}x{p}.', num_frames=t, size=p)
    for name, (t, p) in sizes.items()
  ]


@dataclasses.dataclass(kw_only=True)
class FramesConfig(tfds.core.BuilderConfig):
  """Every frame of the validation, test and holdout clips, and of `holdout` training videos.

  Without `targets`: of the clips whose originals are withheld, and of no others.
  """

  holdout: int = 0
  targets: bool = True


class VqmBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Base of the data sets: a subclass only says where clips come from, in `clips`.

  Tiles: video, category, scene, start, yx, fps, crf, lq and hq (FrameStrip); split train.
  Frames: clip, frame, lq and, unless targets are withheld, hq (PNG); splits val, test and holdout, as far as they have
  clips. The metadata tell which records make a clip: {'clips': {split: {clip: {first_record, num_frames, height, width,
  fps, category}}}}.
  Both keep what the build depended on under 'settings' in the metadata.
  """

  # Where a build keeps its finished files until all are there; among the records if None.
  shards_folder: pathlib.Path | None = None

  def __init__(self, *, file_format: str | None = None, **kwargs):
    self._plans: dict[pathlib.Path | None, list[Shard]] = {}
    super().__init__(file_format=file_format or 'array_record', **kwargs)

  def clips(self, split: str, manual_dir: pathlib.Path | None) -> Iterable[ClipPair]:
    """The clips of 'train', 'val', 'test' or 'holdout'; none where a split does not exist.

    Number and size of the frames of all clips are checked before the first one is decoded.
    """
    raise NotImplementedError

  def fingerprint(self, split: str, manual_dir: pathlib.Path | None) -> str:
    """Changes when the input of a split does, so that records of another input are told apart."""
    return ''

  def settings(self, manual_dir: pathlib.Path | None) -> dict[str, Any]:
    """What the records depend on beside the code: the config's own fields and the input. JSON values."""
    fields = dataclasses.asdict(self.builder_config)
    for field in dataclasses.fields(tfds.core.BuilderConfig):
      del fields[field.name]
    splits = {*self._splits, *(['train'] if self.builder_config.holdout else [])}
    return fields | {'input': {split: self.fingerprint(split, manual_dir) for split in sorted(splits)}}

  @property
  def _tiled(self) -> bool:
    return isinstance(self.builder_config, TilesConfig)

  @property
  def _targets(self) -> bool:
    return self._tiled or self.builder_config.targets

  @property
  def _splits(self) -> tuple[str, ...]:
    return ('train',) if self._tiled else ('val', 'test', 'holdout')

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    if self._tiled:
      strip = (config.num_frames, config.size, config.size, config.codec)
      features = dict(
        video=tfds.features.Text(),
        category=tfds.features.Text(),
        scene=np.int32,
        start=np.int32,
        yx=tfds.features.Tensor(shape=(2,), dtype=np.int32),
        fps=np.float32,
        crf=np.float32,
        lq=FrameStrip(*strip),
        hq=FrameStrip(*strip),
      )
    else:
      features = dict(
        clip=tfds.features.Text(),
        frame=np.int32,
        lq=tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
      )
      if config.targets:
        features['hq'] = tfds.features.Image(shape=(None, None, 3), encoding_format='png')
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def plan(self, manual_dir: pathlib.Path | None) -> list['Shard']:
    """All clips, checked, in the files that their records go to; the same for the same input on any machine.

    Raises DataError with everything that is wrong with the clips, or if there are none.
    """
    if manual_dir not in self._plans:  # looking at a folder reads each of its videos once
      self._plans[manual_dir] = self._planned(manual_dir)
    return self._plans[manual_dir]

  def _planned(self, manual_dir: pathlib.Path | None) -> list['Shard']:
    found = {split: self._pairs(split, manual_dir) for split in self._splits}
    # Clips with targets and clips without never meet in one config.
    pairs = {
      split: [pair for pair in clips if (pair.hq is not None) == self._targets] for split, clips in found.items()
    }
    pairs = {split: clips for split, clips in pairs.items() if clips}
    if not pairs:
      kind = '' if not any(found.values()) else ' with targets' if self._targets else ' without targets'
      raise errors.DataError(
        f'{self.name}/{self.builder_config.name}: no clips{kind} of {" or ".join(self._splits)} in '
        f'{manual_dir or "the data set"}; its README says which folders are read.'
      )
    _check(pairs, self.builder_config.size if self._tiled else 1)
    shards = []
    for split, clips in pairs.items():
      counts = [len(self._plan(pair)) if self._tiled else pair.reference.num_frames for pair in clips]
      if not sum(counts):
        raise errors.DataError(
          f'{self.name}/{self.builder_config.name}: no scene of the {len(clips)} training videos has '
          f'{self.builder_config.num_frames} frames; choose a config with fewer frames.'
        )
      shards += _divided(split, clips, counts, [self._record_bytes(pair) for pair in clips])
    return shards

  def write(self, shard: 'Shard', folder: pathlib.Path) -> Iterator[None]:
    """Writes the records of a shard to `folder`, yielding after each.

    Raises DataError for two records with one key, or if the disk does not take them.
    """
    serializer = example_serializer.ExampleSerializer(self.info.features.get_serialized_info())

    def serialize(item):
      key, example = item
      proto = serializer.get_tf_example(self.info.features.encode_example(example))
      # Otherwise the order of the fields differs from process to process.
      return key, proto.SerializeToString(deterministic=True)

    examples = itertools.chain.from_iterable(map(self._examples, shard.clips))
    partial = folder / f'{shard.name}.part'
    keys, size = set(), 0
    try:
      file = _RecordFile(partial)
      for key, record in map_ahead(serialize, examples):
        if key in keys:
          raise errors.DataError(f'{shard.split}: two records have the key {key!r}.')
        keys.add(key)
        file.write(record)
        size += len(record)
        yield
      file.close()
      partial.rename(folder / shard.name)
      results.write_json(folder / f'{shard.name}.json', {'records': len(keys), 'bytes': size})
    finally:
      partial.unlink(missing_ok=True)

  def probe(self, shards: Sequence['Shard']) -> tuple[float, float]:
    """About how many bytes all records take and how many seconds it takes to make them here, judged by one clip."""
    clips = [pair for shard in shards if shard.records for pair in shard.clips]
    pair = max(clips, key=lambda pair: pair.reference.num_frames)
    frames = min(pair.reference.num_frames, _PROBE_FRAMES)
    start = time.perf_counter()
    for index, sides in enumerate(pair.frames(0, frames)):
      last = index, sides
    per_frame = (time.perf_counter() - start) / frames
    per_record = size = 0.0
    if not self._tiled:
      start = time.perf_counter()
      size = sum(map(len, _png_files(pair, last)[1].values()))
      per_record = time.perf_counter() - start
    elif example := next(self._tiles(pair, self._plan(pair)), None):  # none if it is flat
      start = time.perf_counter()
      encoded = self.info.features.encode_example(example[1])
      size = sum(len(value) for value in encoded.values() if isinstance(value, bytes))
      per_record = time.perf_counter() - start
    records = sum(shard.records for shard in shards)
    decoded = sum(pair.reference.num_frames for pair in clips)
    return size * records, per_frame * decoded + per_record * records / (os.cpu_count() or 1)

  def _record_bytes(self, pair: ClipPair) -> int:
    config = self.builder_config
    if self._tiled:
      return round(2 * 3 * config.num_frames * config.size**2 * _PACKED)
    return round(2 * 3 * pair.reference.height * pair.reference.width * _PACKED)

  def _describe(self, shards: Sequence['Shard'], manual_dir: pathlib.Path | None) -> None:
    """Writes down what the records depend on and, for frames, which make a clip."""
    self.info.metadata['settings'] = self.settings(manual_dir)
    if not self._tiled:
      clips = collections.defaultdict(list)
      for shard in shards:
        clips[shard.split] += shard.clips
      self.info.metadata['clips'] = {split: _table(pairs) for split, pairs in clips.items()}

  def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    manual_dir = self._manual_dir(dl_manager)
    shards = self.plan(manual_dir)
    self._describe(shards, manual_dir)
    return {split: self._generate_examples(shards, split) for split in dict.fromkeys(shard.split for shard in shards)}

  def _generate_examples(self, shards: Sequence['Shard'], split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for shard in shards:
      if shard.split == split:
        yield from itertools.chain.from_iterable(map(self._examples, shard.clips))

  def _examples(self, pair: ClipPair) -> Iterator[tuple[str, dict[str, Any]]]:
    return self._tiles(pair, self._plan(pair)) if self._tiled else self._frames(pair)

  def _manual_dir(self, dl_manager) -> pathlib.Path | None:
    return pathlib.Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None

  def _pairs(self, split: str, manual_dir: pathlib.Path | None) -> list[ClipPair]:
    """The clips of a split after the training videos that are held out have moved to 'holdout'."""
    clips = list(self.clips(split, manual_dir))
    count = self.builder_config.holdout
    if not count or split not in ('train', 'holdout'):
      return clips
    train = clips if split == 'train' else list(self.clips('train', manual_dir))
    if count >= len(train):
      raise errors.DataError(
        f'{self.name}: holdout={count} leaves no video for training, there are {len(train)}; hold out fewer.'
      )
    # By name alone, so that tiles and frames, built at different times, agree.
    names = sorted((pair.clip_id for pair in train), key=lambda name: zlib.crc32(f'holdout {name}'.encode()))
    held = set(names[:count])
    if split == 'train':
      return [pair for pair in train if pair.clip_id not in held]
    return clips + [pair for pair in train if pair.clip_id in held]

  def _plan(self, pair: ClipPair) -> list[tiles_lib.Tile]:
    config = self.builder_config
    return tiles_lib.plan(
      pair.clip_id,
      pair.scenes or ((0, pair.reference.num_frames),),
      pair.reference.height,
      pair.reference.width,
      num_frames=config.num_frames,
      size=config.size,
      per_video=config.per_video,
      seed=config.seed,
    )

  def _tiles(self, pair: ClipPair, plan: Sequence[tiles_lib.Tile]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not plan:
      return
    config = self.builder_config
    frames = pair.frames(plan[0].start, plan[-1].start + config.num_frames)
    for tile, lq, hq in tiles_lib.cut(frames, plan, num_frames=config.num_frames, size=config.size):
      example = dict(
        video=pair.clip_id,
        category=pair.category,
        scene=tile.scene,
        start=tile.start,
        yx=np.array([tile.y, tile.x], np.int32),
        fps=float(pair.reference.fps),
        crf=pair.crf,
        lq=lq,
        hq=hq,
      )
      yield f'{pair.clip_id}/{tile.start:06d}/{tile.y:04d}_{tile.x:04d}', example

  def _frames(self, pair: ClipPair) -> Iterator[tuple[str, dict[str, Any]]]:
    frames = enumerate(pair.frames(0, pair.reference.num_frames))
    for index, images in map_ahead(functools.partial(_png_files, pair), frames):
      yield f'{pair.clip_id}/{index:06d}', dict(clip=pair.clip_id, frame=index, **images)

  def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
    if self.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
      return super()._generate_splits(dl_manager, download_config)
    # TFDS's own writer sorts a split by hashed key, in memory up to 1 GB and beyond that through TensorFlow's file API.
    # Ours writes records as they come, and what was finished in `shards_folder` earlier is not made again.
    manual_dir = self._manual_dir(dl_manager)
    shards = self.plan(manual_dir)
    self._describe(shards, manual_dir)
    folder = self.shards_folder or pathlib.Path(self.data_dir)
    write(self, shards, folder)
    splits = dict.fromkeys(shard.split for shard in shards)
    return [
      _collected([shard for shard in shards if shard.split == split], folder, self._get_filename_template(split))
      for split in splits
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
  """Consecutive clips of a split whose records, at most `records`, share a file: number `index` of `count`."""

  split: str
  index: int
  count: int
  clips: tuple[ClipPair, ...]
  records: int

  @property
  def name(self) -> str:
    return f'{self.split}-{self.index:05d}-of-{self.count:05d}'

  def finished(self, folder: pathlib.Path) -> bool:
    """Whether all of its records are in `folder`."""
    return (folder / self.name).exists() and (folder / f'{self.name}.json').exists()


def write(builder: VqmBuilder, shards: Sequence[Shard], folder: pathlib.Path) -> None:
  """Writes those shards that are not finished in `folder`, with progress."""
  todo = [shard for shard in shards if not shard.finished(folder)]
  if len(todo) < len(shards):
    logging.info('%d of %d files were finished before.', len(shards) - len(todo), len(shards))
  written = itertools.chain.from_iterable(builder.write(shard, folder) for shard in todo)
  name = f'{builder.name}/{builder.builder_config.name}'
  for _ in cli.progress(written, sum(shard.records for shard in todo), name, 'record'):
    pass


def _divided(split: str, clips: Sequence[ClipPair], counts: Sequence[int], sizes: Sequence[int]) -> list[Shard]:
  """The clips of a split in runs of about `_SHARD_BYTES`; `counts` and `sizes` are records and bytes a record."""
  runs: list[list[int]] = [[]]
  filled = 0
  for k in range(len(clips)):
    if runs[-1] and filled >= _SHARD_BYTES:
      runs.append([])
      filled = 0
    runs[-1].append(k)
    filled += counts[k] * sizes[k]
  return [
    Shard(split, index, len(runs), tuple(clips[k] for k in run), sum(counts[k] for k in run))
    for index, run in enumerate(runs)
  ]


def _collected(shards: Sequence[Shard], folder: pathlib.Path, template) -> tfds.core.SplitInfo:
  """Moves finished shards to their place among the records of TFDS."""
  notes = [json.loads((folder / f'{shard.name}.json').read_text()) for shard in shards]
  # A shard of flat windows may be empty; TFDS has no files without records.
  filled = [(shard, note) for shard, note in zip(shards, notes, strict=True) if note['records']]
  if not filled:
    raise errors.DataError(f'{shards[0].split}: all windows are flat; check that the videos show something.')
  for index, (shard, _) in enumerate(filled):
    (folder / shard.name).rename(template.sharded_filepath(shard_index=index, num_shards=len(filled)))
  for shard in shards:
    (folder / shard.name).unlink(missing_ok=True)
    (folder / f'{shard.name}.json').unlink()
  return tfds.core.SplitInfo(
    name=shards[0].split,
    shard_lengths=[note['records'] for _, note in filled],
    num_bytes=sum(note['bytes'] for _, note in filled),
    filename_template=template,
  )


def _check(pairs: dict[str, list[ClipPair]], smallest: int) -> None:
  """Raises DataError with every pair that cannot be used, before anything is written."""
  problems = []
  for split, clips in pairs.items():
    counts = collections.Counter(pair.clip_id for pair in clips)
    problems += [f'{split}/{name}: {n} clips of this name' for name, n in counts.items() if n > 1]
    for pair in clips:
      lq, hq = ((s.num_frames, s.width, s.height) for s in (pair.lq, pair.reference))
      if lq != hq:
        lq, hq = ('{} frames {}x{}'.format(*side) for side in (lq, hq))
        problems.append(f'{split}/{pair.clip_id}: LQ {lq}, HQ {hq}')
      elif not hq[0] or min(hq[1:]) < smallest:
        problems.append(
          f'{split}/{pair.clip_id}: {hq[0]} frames {hq[1]}x{hq[2]}, expected at least {smallest}x{smallest}'
        )
      for start, stop in pair.scenes:
        if not 0 <= start < stop <= pair.reference.num_frames:
          problems.append(f'{split}/{pair.clip_id}: scene {start}-{stop} of {pair.reference.num_frames} frames')
  if problems:
    raise errors.DataError(
      f'{len(problems)} problem{"s" if len(problems) > 1 else ""} in the clips: '
      f'{"; ".join(problems)}. Mend or remove them; LQ and HQ must match frame by frame.'
    )


def _table(pairs: Sequence[ClipPair]) -> dict[str, dict[str, Any]]:
  """The 'clips' entry of one split's metadata."""
  firsts = itertools.accumulate((pair.reference.num_frames for pair in pairs), initial=0)
  return {
    pair.clip_id: dict(
      first_record=first,
      num_frames=pair.reference.num_frames,
      height=pair.reference.height,
      width=pair.reference.width,
      fps=float(pair.reference.fps),
      category=pair.category,
    )
    for pair, first in zip(pairs, firsts, strict=False)
  }


class _RecordFile:
  """An array_record file being written; raises DataError when the disk does not take it."""

  def __init__(self, path: os.PathLike):
    self._path = path
    # One record per chunk: a random read decodes nothing else.
    self._writer = self._try(array_record_module.ArrayRecordWriter, str(path), 'group_size:1')

  def write(self, record: bytes) -> None:
    self._try(self._writer.write, record)

  def close(self) -> None:
    self._try(self._writer.close)

  def _try(self, function: Callable[..., T], *args) -> T:
    try:
      return function(*args)
    except RuntimeError as error:
      free = shutil.disk_usage(os.path.dirname(self._path)).free
      raise errors.DataError(
        f'{self._path}: cannot write records ({error}); {free / 1e9:.1f} GB are free there, make '
        'room or choose another --data_dir.'
      ) from error


def map_ahead(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
  """Yields function(item) in order, computed in a thread per core, a few items ahead."""
  workers = os.cpu_count() or 1
  pending: collections.deque[concurrent.futures.Future[T]] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    for item in items:
      pending.append(pool.submit(function, item))
      if len(pending) > 2 * workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()


def _png_files(pair: ClipPair, item: tuple[int, tuple[np.ndarray, np.ndarray | None]]) -> tuple[int, dict[str, bytes]]:
  """(index, {'lq': PNG file, 'hq': PNG file}) of (index, (lq, hq)); without hq where it is withheld."""
  index, frames = item
  sides = zip(('lq', 'hq'), (pair.lq, pair.hq), frames, strict=True)
  return index, {side: _png_file(source, index, rgb) for side, source, rgb in sides if source is not None}


def _png_file(source: VideoSource, index: int, rgb: np.ndarray) -> bytes:
  """Frame `index` of `source` as a PNG file: the very bytes where it is one, of 8-bit RGB."""
  import cv2

  if isinstance(source, ImageFrames) and source.files[index].name.lower().endswith('.png'):
    data = source.files[index].read_bytes()
    if data[24:26] == _PNG_RGB8:
      return data
  _, data = cv2.imencode('.png', rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
  return data.tobytes()
