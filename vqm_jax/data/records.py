"""Prepared records on disk: found by name, read one at a time, with errors that say where."""

import bisect
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.data_sources import base

from vqm_jax import errors, schemas
from vqm_jax.data import origins

DataSource = base.BaseDataSource

_FILE_FORMAT = 'array_record'
# Of what `features.json` names. TFDS would import any module that it finds there, whoever wrote it.
_FEATURES = ('tensorflow_datasets.core.features.', 'vqm_jax.data.features.')
_OURS = 'vqm_jax.data.features.FrameStrip'
_LONGEST = 1 << 20  # frames of a stretch of video; those of a build have some hundred
_VERSION = re.compile(r'\d+\.\d+\.\d+')


@dataclasses.dataclass(frozen=True)
class ClipEntry:
  """Metadata of a clip of whole frames; `cuts` are frames that start a scene, None where the records do not tell."""

  FOREIGN = True

  first_record: schemas.Count
  num_frames: schemas.Count
  height: schemas.Count
  width: schemas.Count
  fps: float
  category: str
  cuts: list[schemas.Count] | None = None


@dataclasses.dataclass(frozen=True)
class VideoEntry:
  """Metadata of a video that windows were cut out of; `num_frames` is one number for each record of `segments`."""

  FOREIGN = True

  first_record: schemas.Count
  num_records: schemas.Count | None = None
  num_frames: list[Annotated[int, schemas.Least(1)]] | None = None
  height: Annotated[int, schemas.Least(1)] | None = None
  width: Annotated[int, schemas.Least(1)] | None = None
  crf: float | None = None
  qp: float | None = None


@dataclasses.dataclass(frozen=True)
class Metadata:
  """Metadata of the records of a config: settings of the build, and {split: {name: entry}} for its clips or videos."""

  FOREIGN = True

  settings: dict[str, Any] | None = None
  clips: dict[str, dict[str, ClipEntry]] = dataclasses.field(default_factory=dict)
  videos: dict[str, dict[str, VideoEntry]] = dataclasses.field(default_factory=dict)


def metadata(info: tfds.core.DatasetInfo) -> Metadata:
  """The metadata of records that `open_folder` has seen; their shape is that of `Metadata`."""
  return schemas.check(dict(info.metadata or {}), Metadata)


def open_source(dataset: str, config: str, split: str, data_dir: str | None = None) -> DataSource:
  """A random-access source of the prepared records in `<data_dir>/<dataset>/<config>/<version>`.

  The newest version is opened. The code that built the records is not needed.

  Args:
    dataset, config: names as given to `vqm_jax.prepare.build`.
    split: a split, or a part of one in TFDS's notation ('train[:50%]').
    data_dir: default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

  Raises:
    DataError: nothing under these names (the message lists what there is), missing files, or
      records that this version cannot read.
  """
  builder = open_builder(dataset, config, data_dir)
  folder = pathlib.Path(builder.info.data_dir)
  splits = builder.info.splits
  name = split.split('[')[0]
  if name not in splits:
    raise errors.DataError(f'{folder}: no split {name!r}; available: {", ".join(sorted(splits)) or "none"}.')
  try:
    part = splits[split]
  except (ValueError, AssertionError) as error:
    raise errors.ConfigError(f'split={split!r} is not a split or a part of one such as {name}[:50%].') from error
  if part.num_examples == 0:
    raise errors.DataError(f'{folder}: split {split!r} has no records.')
  for file in part.file_instructions:
    if not os.path.exists(file.filename):
      raise errors.DataError(
        f'{file.filename}: record file is missing; copy it back or build again with {origins.again(folder)}.'
      )
  return builder.as_data_source(split=split)


def open_builder(dataset: str, config: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
  """Return what TFDS knows of the newest version of a config; arguments and errors are those of `open_source`."""
  data_dir = str(data_dir or tfds.core.constants.get_default_data_dir())
  if '://' in data_dir:
    raise errors.ConfigError(f'data_dir={data_dir}: records are read from local disk; copy them there.')
  root = pathlib.Path(data_dir).expanduser()
  folder = _find(root, dataset, config)
  builder = open_folder(folder)
  found = builder.info.file_format
  if found is None or found.value != _FILE_FORMAT:
    raise errors.DataError(
      f'{folder}: records are stored as {found and found.value}, expected {_FILE_FORMAT}; '
      f'build them again with {origins.again(folder)}.'
    )
  return builder


def open_folder(folder: pathlib.Path) -> tfds.core.DatasetBuilder:
  """Return what TFDS knows of the records in `<dataset>/<config>/<version>`, the code that built them not needed.

  Raises:
    DataError: their description is missing, damaged or of another version, over which TFDS, Protobuf and our features
      raise nearly everything; ends in the command that builds them again.
  """
  try:
    _check_features(schemas.load(folder / 'features.json', dict[str, Any]))
    builder = tfds.builder_from_directory(folder)
    _check_metadata(builder.info)  # TFDS reads the metadata when they are asked for and keeps what it read.
    return builder
  except Exception as error:
    raise errors.DataError(
      f'{folder}: this version cannot read the description of the records ({errors.reason(error)}); build '
      f'them again with {origins.again(folder)}.'
    ) from error


def _check_features(value: Any) -> None:
  """Raises ValueError where a description of fields asks for code that is neither TFDS's nor ours."""
  if isinstance(value, list):
    for item in value:
      _check_features(item)
  if not isinstance(value, dict):
    return
  for key in ('pythonClassName', 'python_class_name', 'type'):
    name = value.get(key, _OURS)
    if isinstance(name, str) and '.' in name and not name.startswith(_FEATURES):
      raise ValueError(f'features.json asks for {name!r:.80}, expected features of TFDS or of this package')
  # What stands in it is JSON again, in which TFDS's own features would look for names of classes.
  if value.keys() & {'jsonFeature', 'json_feature'} and value.get('pythonClassName') != _OURS:
    raise ValueError(f'features.json holds settings of {value.get("pythonClassName")!r:.80}, expected those of {_OURS}')
  for item in value.values():
    _check_features(item)


def _check_metadata(info: tfds.core.DatasetInfo) -> None:
  """Raises ValueError for metadata of another shape, and for entries of records that the splits do not have."""
  found = metadata(info)
  for table in (found.clips, found.videos):
    for split, entries in table.items():
      count = info.splits[split].num_examples if split in info.splits else 0
      for name, entry in entries.items():
        its = entry.num_frames if isinstance(entry, ClipEntry) else entry.num_records or 0
        if entry.first_record + its > count:
          raise ValueError(f'metadata: {split} has {count} records, {name!r:.60} ends at {entry.first_record + its}')
        if isinstance(entry, VideoEntry) and entry.num_frames is not None:
          if len(entry.num_frames) != its or entry.height is None or entry.width is None:
            raise ValueError(f'metadata: {name!r:.60} lacks the length of a record, or the size of its frames')
          if max(entry.num_frames, default=0) > _LONGEST:
            raise ValueError(f'metadata: {name!r:.60} has a record of {max(entry.num_frames)} frames')


def prepared_configs(root: pathlib.Path, dataset: str) -> dict[str, pathlib.Path]:
  """{config: folder of its newest version} of one dataset prepared under `root`."""
  newest = {}
  for folder in sorted(root.glob(f'{dataset}/*/*'), key=_version_key):
    if _VERSION.fullmatch(folder.name) and (folder / 'dataset_info.json').exists():
      newest[folder.parent.name] = folder
  return newest


def describe(source: DataSource) -> str:
  """'vqm_demo/tiles split train', for messages."""
  info = source.dataset_info
  return f'{info.name}/{info.config_name} split {source.split}'


class Records(Sequence[dict[str, Any]]):
  """Some fields of each record of a source; the other fields are not decoded.

  Indexing raises DataError that names dataset, split, file and index of a record that cannot be
  read. May be used from many threads and pickled.

  Args:
    source: from `open_source`.
    fields: names of the fields wanted.
    decoders: TFDS decoders of some fields, such as `tfds.decode.SkipDecoding()`.
  """

  def __init__(
    self,
    source: DataSource,
    fields: Sequence[str],
    decoders: Mapping[str, Any] | None = None,
  ):
    features = source.dataset_info.features
    missing = [field for field in fields if field not in features]
    if missing:
      raise errors.DataError(f'{describe(source)}: records have no field {missing[0]!r}, only {", ".join(features)}.')
    self._features = tfds.features.FeaturesDict({field: features[field] for field in fields})
    self._decoders = decoders
    self._bytes = source.data_source
    self._name = describe(source)
    files = source.dataset_info.splits[source.split].file_instructions
    self._files = [(file.filename, file.skip) for file in files]
    self._ends = list(itertools.accumulate(file.take for file in files))

  def __len__(self) -> int:
    return len(self._bytes)

  def __getitem__(self, index: int) -> dict[str, Any]:
    try:
      data = self._bytes[index]
      if not data:  # A file cut short reads as empty records.
        raise ValueError('the record is empty')
      return self._features.deserialize_example_np(data, decoders=self._decoders)
    except Exception as error:  # array_record, Protobuf, TFDS and Pillow share no base
      raise self.damaged(index, errors.reason(error)) from error

  def damaged(self, index: int, reason: str) -> errors.DataError:
    """The error to raise for record `index`, naming its file and the place in it."""
    which = bisect.bisect_right(self._ends, index)
    file, skip = self._files[which]
    position = index - (self._ends[which - 1] if which else 0) + skip
    return errors.DataError(
      f'{self._name}: record {index} (number {position} of {file}) cannot be read: {reason}; '
      f'copy the file back or build again with {origins.again(pathlib.Path(file).parent)}.'
    )


def _find(root: pathlib.Path, dataset: str, config: str) -> pathlib.Path:
  configs = prepared_configs(root, dataset)
  if config in configs:
    return configs[config]
  remedy = f'build it with {origins.missing(root, dataset, config, next(iter(configs.values()), None))}'
  if not root.is_dir():
    raise errors.DataError(f'data_dir={root} does not exist; {remedy}.')
  if configs:
    raise errors.DataError(f'{root / dataset}: no config {config!r}; prepared: {", ".join(sorted(configs))}; {remedy}.')
  datasets = sorted({path.parents[2].name for path in root.glob('*/*/*/dataset_info.json')})
  raise errors.DataError(
    f'data_dir={root} has no dataset {dataset!r}; prepared: {", ".join(datasets) or "none"}; {remedy}.'
  )


def _version_key(folder: pathlib.Path) -> tuple[int, ...]:
  return tuple(int(number) for number in re.findall(r'\d+', folder.name))
