"""`VqmBuilder`: the clips of a data set in, TFDS records out.

Which records, its config says (`configs`). No TensorFlow, one pass over the videos, bounded memory.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import os
import pathlib
import sys
import time
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from vqm_jax import cli, errors, files, names, schemas
from vqm_jax.data import origins
from vqm_jax.prepare.pairs import checked
from vqm_jax.prepare.records.configs import ClipPair, RecordsConfig

S, T = TypeVar('S'), TypeVar('T')

# About so much is lost when a build is stopped.
_SHARD_BYTES = 256 << 20
_PROBE_FRAMES = 96


class VqmBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Base of the data sets: a subclass only says where clips come from, in `clips`; its configs are `RecordsConfig`s.

  The metadata hold what the build depended on under 'settings', how it was started under 'origin', and which records a
  clip made under the config's `table`: {split: {clip: {first_record, …}}}.
  """

  # Where a build keeps its finished files until all are there; among the records if None.
  shards_folder: pathlib.Path | None = None
  # Where it remembers which pairs were looked at; the folder of the data set among the records if None.
  memory_folder: pathlib.Path | None = None
  # Which fields of its config were changed for this build.
  options: Mapping[str, Any] = types.MappingProxyType({})

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

  def memory(self, manual_dir: pathlib.Path) -> pathlib.Path:
    """The folder in which it is remembered which pairs were looked at, see `checked`."""
    return self.memory_folder or pathlib.Path(self.data_dir).parents[1]

  def settings(self, manual_dir: pathlib.Path | None) -> dict[str, Any]:
    """Collect what the records depend on beside the code: the config's own fields and the input. JSON values."""
    config = self.builder_config
    fields = dataclasses.asdict(config)
    for field in dataclasses.fields(tfds.core.BuilderConfig):
      del fields[field.name]
    splits = {*config.splits.values(), *(['train'] if config.holdout else [])}
    return fields | {'input': {split: self.fingerprint(split, manual_dir) for split in sorted(splits)}}

  def _notes(self, manual_dir: pathlib.Path | None) -> dict[str, Any]:
    notes = {'settings': self.settings(manual_dir)}
    module = getattr(sys.modules.get(type(self).__module__), '__file__', None)
    origin = module and origins.of_builder(pathlib.Path(module), manual_dir, self.options)
    return notes | ({'origin': dataclasses.asdict(origin)} if origin else {})

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(self.builder_config.features()),
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
    config = self.builder_config
    found = {split: self._pairs(split, manual_dir) for split in dict.fromkeys(config.splits.values())}
    pairs = {split: [pair for pair in clips if config.accepts(pair)] for split, clips in found.items()}
    pairs = {split: clips for split, clips in pairs.items() if clips}
    if not pairs:
      kind = f' {config.accepted}' if any(found.values()) else ''
      raise errors.DataError(
        f'{self.name}/{config.name}: no clips{kind} of {" or ".join(found)} in {manual_dir or "the data set"}; its '
        'README says which folders are read.'
      )
    _check(pairs, config)
    if config.exact and manual_dir:
      pairs = _looked_at(pairs, self.memory(manual_dir), config.check_pairs)
    shards = []
    for split, origin in config.splits.items():
      clips = pairs.get(origin, [])
      counts = [config.count(pair, split) for pair in clips]
      if clips and not sum(counts):
        raise errors.DataError(
          f'{self.name}/{config.name}: no scene of the {len(clips)} training videos has {config.num_frames} frames; '
          'choose a config with fewer frames.'
        )
      shards += _divided(split, clips, counts, [config.record_bytes(pair) for pair in clips]) if clips else []
    return shards

  def write(self, shard: 'Shard', folder: pathlib.Path) -> Iterator[None]:
    """Write the records of a shard to `folder`, yielding after each.

    Raises DataError for two records with one key, or if the disk does not take them.
    """
    config = self.builder_config

    def serialize(item):
      clip, key, example = item
      return clip, key, self._serialized(example)

    examples = ((pair.clip_id, *example) for pair in shard.clips for example in config.examples(pair, shard.split))
    partial = folder / f'{shard.name}.part'
    keys, size, counts = set(), 0, collections.Counter()
    try:
      file = _RecordFile(partial, folder / shard.name)
      for clip, key, record in map_ahead(serialize, examples):
        if key in keys:
          raise errors.DataError(f'{shard.split}: two records have the key {key!r}.')
        keys.add(key)
        file.write(record)
        counts[clip] += 1
        size += len(record)
        yield
      file.close()
      partial.rename(folder / shard.name)
      clips = [(pair.clip_id, counts[pair.clip_id], config.note(pair, counts[pair.clip_id])) for pair in shard.clips]
      note = Note(len(keys), size, (folder / shard.name).stat().st_size, clips)
      files.write_json(folder / f'{shard.name}.json', dataclasses.asdict(note))
    finally:
      partial.unlink(missing_ok=True)

  def probe(self, shards: Sequence['Shard']) -> tuple[float, float]:
    """About how many bytes all records take and how many seconds it takes to make them here, judged by one clip."""
    config = self.builder_config
    clips = [(pair, shard.split) for shard in shards if shard.records for pair in shard.clips]
    pair, split = max(clips, key=lambda clip: clip[0].reference.num_frames)
    frames = min(pair.lq.num_frames, pair.reference.num_frames, _PROBE_FRAMES)
    start = time.perf_counter()
    collections.deque(pair.frames(0, frames), maxlen=0)
    per_frame = (time.perf_counter() - start) / frames
    per_record = size = 0.0
    if example := config.sample(pair, split):  # none if all is flat
      start = time.perf_counter()
      size = len(self._serialized(example[1]))
      per_record = time.perf_counter() - start
    records = sum(shard.records for shard in shards)
    decoded = config.passes * sum(pair.reference.num_frames for pair, _ in clips)
    return size * records, per_frame * decoded + per_record * records / (os.cpu_count() or 1)

  @functools.cached_property
  def _serializer(self) -> example_serializer.ExampleSerializer:
    return example_serializer.ExampleSerializer(self.info.features.get_serialized_info())

  def _serialized(self, example: dict[str, Any]) -> bytes:
    """A record as it is stored."""
    proto = self._serializer.get_tf_example(self.info.features.encode_example(_made(example)))
    # Otherwise the order of the fields differs from process to process.
    return proto.SerializeToString(deterministic=True)

  def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    manual_dir = self._manual_dir(dl_manager)
    shards = self.plan(manual_dir)
    self.info.metadata.update(self._notes(manual_dir))
    return {split: self._generate_examples(shards, split) for split in dict.fromkeys(shard.split for shard in shards)}

  def _generate_examples(self, shards: Sequence['Shard'], split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for pair in itertools.chain.from_iterable(shard.clips for shard in shards if shard.split == split):
      for key, example in self.builder_config.examples(pair, split):
        yield key, _made(example)

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

  def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
    if self.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
      return super()._generate_splits(dl_manager, download_config)
    # TFDS's own writer sorts a split by hashed key, in memory up to 1 GB and beyond that through TensorFlow's file API.
    # Ours writes records as they come, and what was finished in `shards_folder` earlier is not made again.
    manual_dir = self._manual_dir(dl_manager)
    shards = self.plan(manual_dir)
    self.info.metadata.update(self._notes(manual_dir))
    folder = self.shards_folder or pathlib.Path(self.data_dir)
    write(self, shards, folder)
    tables, infos = {}, []
    for split in dict.fromkeys(shard.split for shard in shards):
      of_split = [shard for shard in shards if shard.split == split]
      table, info = _collected(of_split, folder, self._get_filename_template(split))
      tables[split] = table
      infos.append(info)
    self.info.metadata[self.builder_config.table] = tables
    return infos


def _made(example: dict[str, Any]) -> dict[str, Any]:
  """The fields of a record, those made that are functions."""
  return {name: value() if callable(value) else value for name, value in example.items()}


@dataclasses.dataclass(frozen=True)
class Note:
  """Facts of a finished file: its records, their bytes, those of the file, and (clip, records, facts)."""

  records: schemas.Count
  bytes: schemas.Count
  size: schemas.Count
  clips: list[tuple[str, schemas.Count, dict[str, Any]]]


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
    """Of its file."""
    return f'{self.split}-{self.index:05d}-of-{self.count:05d}'

  def finished(self, folder: pathlib.Path) -> bool:
    """Whether all of its records are in `folder`."""
    return self.note(folder) is not None

  def note(self, folder: pathlib.Path) -> Note | None:
    """Read the note of the file in `folder`; None if it is not finished, or was changed since."""
    try:
      found = schemas.load(folder / f'{self.name}.json', Note)
      return found if (folder / self.name).stat().st_size == found.size else None
    except (FileNotFoundError, schemas.Misfit):
      return None


def write(builder: VqmBuilder, shards: Sequence[Shard], folder: pathlib.Path) -> None:
  """Write those shards that are not finished in `folder`, with progress."""
  todo = [shard for shard in shards if not shard.finished(folder)]
  if not todo:
    return
  for shard in todo:
    if (folder / f'{shard.name}.json').exists():
      logging.warning('%s: is damaged, or of another version; it is made anew.', folder / shard.name)
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


def _collected(
  shards: Sequence[Shard], folder: pathlib.Path, template
) -> tuple[dict[str, dict[str, Any]], tfds.core.SplitInfo]:
  """Move finished shards to their place among the records of TFDS; return the table of their clips, too."""
  notes = [shard.note(folder) for shard in shards]
  if lost := [shard.name for shard, note in zip(shards, notes, strict=True) if note is None]:
    raise errors.DataError(f'{folder / lost[0]}: was changed while it was built from; start the same command again.')
  # A shard of flat windows may be empty; TFDS has no files without records.
  filled = [(shard, note) for shard, note in zip(shards, notes, strict=True) if note.records]
  if not filled:
    raise errors.DataError(f'{shards[0].split}: all windows are flat; check that the videos show something.')
  for index, (shard, _) in enumerate(filled):
    (folder / shard.name).rename(template.sharded_filepath(shard_index=index, num_shards=len(filled)))
  for shard in shards:
    (folder / shard.name).unlink(missing_ok=True)
    (folder / f'{shard.name}.json').unlink()
  table, first = {}, 0
  for clip, count, facts in itertools.chain.from_iterable(note.clips for note in notes):
    table[clip] = dict(first_record=first, **facts)
    first += count
  info = tfds.core.SplitInfo(
    name=shards[0].split,
    shard_lengths=[note.records for _, note in filled],
    num_bytes=sum(note.bytes for _, note in filled),
    filename_template=template,
  )
  return table, info


def _check(pairs: dict[str, list[ClipPair]], config: RecordsConfig) -> None:
  """Raises DataError with every pair that cannot be used, before anything is written."""
  problems = []
  for split, clips in pairs.items():
    counts = collections.Counter(pair.clip_id for pair in clips)
    problems += [f'{split}/{name}: {n} clips of this name' for name, n in counts.items() if n > 1]
    problems += [names.refusal(name, wrong) for name in counts if (wrong := names.problem(name))]
    for pair in clips:
      problems += [f'{split}/{pair.clip_id}: {problem}' for problem in config.problems(pair)]
      for start, stop in pair.scenes:
        if not 0 <= start < stop <= pair.reference.num_frames:
          problems.append(f'{split}/{pair.clip_id}: scene {start}-{stop} of {pair.reference.num_frames} frames')
  if problems:
    raise errors.DataError(
      f'{len(problems)} problem{"s" if len(problems) > 1 else ""} in the clips: {"; ".join(problems)}. Mend or remove '
      'them.'
    )


def _looked_at(
  pairs: Mapping[str, Sequence[ClipPair]], folder: pathlib.Path, strict: bool
) -> dict[str, list[ClipPair]]:
  """The pairs with their scenes, looked at frame by frame unless `folder` remembers that somebody did.

  Raises DataError with every pair whose sides do not fit, or warns of them if not `strict`.
  """
  listed = [(split, pair) for split, clips in pairs.items() for pair in clips]
  found = checked.checked(folder, [pair for _, pair in listed])
  problems = [
    f'{split}/{pair.clip_id}: {what.problem}' for (split, pair), what in zip(listed, found, strict=True) if what.problem
  ]
  if problems and strict:
    raise errors.DataError(
      f'{len(problems)} pair{"s do" if len(problems) > 1 else " does"} not fit: {"; ".join(problems)}. Mend or remove '
      'them; --nocheck_pairs builds them as they are.'
    )
  for problem in problems:
    logging.warning('%s; built as it is.', problem)
  known = iter(found)
  return {split: [checked.with_scenes(pair, next(known)) for pair in clips] for split, clips in pairs.items()}


class _RecordFile:
  """An array_record file being written at `path`; raises DataError for `target`, its name once it is whole."""

  def __init__(self, path: pathlib.Path, target: pathlib.Path):
    self._path, self._target = path, target
    # One record per chunk: a random read decodes nothing else.
    self._writer = self._try(array_record_module.ArrayRecordWriter, str(path), 'group_size:1')

  def write(self, record: bytes) -> None:
    self._try(self._writer.write, record)

  def close(self) -> None:
    self._try(self._writer.close)

  def _try(self, function: Callable[..., T], *args) -> T:
    try:
      with files.filling(self._target, lambda: self._path.stat().st_size):
        return function(*args)
    except RuntimeError as error:
      raise errors.DataError(
        f'{self._target}: cannot write records ({errors.reason(error)}); choose another --data_dir, or see what is '
        'wrong with the disk.'
      ) from error


def map_ahead(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
  """Yield function(item) in order, computed in a thread per core, a few items ahead."""
  workers = os.cpu_count() or 1
  pending: collections.deque[concurrent.futures.Future[T]] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    for item in items:
      pending.append(pool.submit(function, item))
      if len(pending) > 2 * workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
