"""Which x and y make a training sample, by the kind of records there are.

sampling   splits                       x (lq)             y (hq)
paired     train                        a window of lq     the same window of hq; records may be `segments`
weak       train                        a window of lq     the window of hq that shows about the same, moved at
                                                           random by at most the margin that hq has around lq
unpaired   train_source, train_target   any source record  any target record, drawn independently
clip       train_source, train_target   any source record  any target record of the same video
identity   train_source, train_target   any target record  the very same window of it
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds

from vqm_jax import errors
from vqm_jax.data import origins, segments
from vqm_jax.data.features import FrameStrip
from vqm_jax.data.records import (
  DataSource,
  Records,
  describe,
  metadata,
  open_builder,
  open_folder,
  open_source,
  prepared_configs,
)
from vqm_jax.data.windows import AUGMENTATIONS, Aligned, Independent, Windows

# What windows are cut out of.
Strip = FrameStrip | segments.Room
# Makes the records of a source with these fields.
Read = Callable[[DataSource, Sequence[str]], Sequence[dict[str, Any]]]


class Domains(NamedTuple):
  """Training records of two cameras that are not paired."""

  source: DataSource
  target: DataSource


def open_training(
  dataset: str, config: str, data_dir: str | None = None, *, sampling: str = 'paired'
) -> DataSource | Domains:
  """Open what `train_batches` samples from: split train, or train_source and train_target.

  Args:
    dataset: name of the prepared data set, such as 'mine'.
    config: name of the builder config, such as 'tiles_t1p256'.
    data_dir: folder of all data sets; TFDS's own by default.
    sampling: one of SAMPLINGS: paired, weak, unpaired or clip.

  Raises:
    ConfigError: unknown sampling.
    DataError: as `open_source`, and for records of another kind than the sampling needs, with configs that fit.
  """
  mode = _choice('sampling', sampling, _MODES)
  info = open_builder(dataset, config, data_dir).info
  if _usable_strip(info, mode) is None:
    raise _other_kind(info, sampling)
  parts = [open_source(dataset, config, split, data_dir) for split in mode.splits]
  sources = Domains(*parts) if len(parts) == 2 else parts[0]
  check_records(sources, num_frames=1, crop=1, sampling=sampling)
  return sources


def trained_on(sources: Sequence[DataSource | Domains]) -> dict[str, list[float]]:
  """How strongly the training videos were compressed, as far as their records tell: {'crf': [28.0, 38.0], 'qp': ...}.

  Lowest and highest over the videos, None of which need tell.
  """
  parts = [part for source in sources for part in (source if isinstance(source, Domains) else [source])]
  videos = [video for part in parts for video in metadata(part.dataset_info).videos.get(part.split, {}).values()]
  found = {key: [getattr(video, key) for video in videos if getattr(video, key) is not None] for key in ('crf', 'qp')}
  return {key: [min(values), max(values)] for key, values in found.items() if values}


def check_records(sources: DataSource | Domains, num_frames: int, crop: int, sampling: str = 'paired') -> None:
  """Check that samples of this size can be cut out of the records.

  Raises:
    ConfigError: a size below 1, an unknown sampling, or one source where the sampling needs two or the reverse.
    DataError: records too small or of another kind, with configs that fit, or videos of the source domain that the
      target domain lacks.
  """
  if num_frames < 1 or crop < 1:
    raise errors.ConfigError(f'num_frames={num_frames}, crop={crop}: expected 1 or more.')
  mode = _choice('sampling', sampling, _MODES)
  parts = sources if isinstance(sources, Domains) else (sources,)
  if len(parts) != len(mode.splits):
    raise errors.ConfigError(
      f'sampling={sampling!r}: expected records of {" and ".join(mode.splits)}, found '
      f'{" and ".join(map(describe, parts))}; open them with `open_training(..., sampling={sampling!r})`.'
    )
  for part in parts:
    strip = mode.strip(part.dataset_info)
    if strip is None:
      raise _other_kind(part.dataset_info, sampling, num_frames, crop)
    if not _fits(strip, num_frames, crop):
      raise errors.DataError(
        f'{describe(part)}: its records are {_size(strip)}, too small for num_frames={num_frames}, '
        f'crop={crop}; {_configs_that_fit(part.dataset_info, sampling, num_frames, crop)}.'
      )
  if sampling == 'clip':
    _check_videos(sources)


def endless_strips(
  sources: DataSource | Domains, sampling: str, seed: int, num_frames: int, read: Read = Records
) -> grain.MapDataset:
  """Strips {'lq', 'hq'}: uint8 (T, H, W, 3) each, of records that `check_records` has seen, shuffled in each epoch.

  Of segments they are decoded for this purpose and have `num_frames` frames. `read` makes the records of a source,
  `Records` or what stands for them. Raises DataError for a part of a split of segments.
  """
  if isinstance(sources, DataSource) and segments.room(sources.dataset_info):
    strips = segments.Strips(Records(sources, segments.FIELDS), num_frames)
    return _shuffled(segments.turns(sources, num_frames), seed).random_map(strips)
  return _MODES[sampling].strips(sources, seed, read)


def windows(sampling: str, num_frames: int, crop: int, augment: str, count: int) -> Windows:
  """The random map from strips to samples {'lq', 'hq'}: uint8 (count, num_frames, crop, crop, 3).

  Raises ConfigError for an unknown augmentation.
  """
  return _MODES[sampling].windows(num_frames, crop, _choice('augment', augment, AUGMENTATIONS), count)


@dataclasses.dataclass(frozen=True)
class _SameVideo(grain.transforms.RandomMap):
  """Joins a source record with any target record of the same video."""

  target: Records
  videos: Mapping[str, range]

  def random_map(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    video = record['video'].decode()
    index = self.videos[video][rng.integers(len(self.videos[video]))]
    other = self.target[index]
    if (found := other['video'].decode()) != video:
      raise self.target.damaged(index, f'it is of video {found!r}, expected {video!r}')
    return _joined(record, other)


def _joined(source: dict[str, Any], target: dict[str, Any]) -> dict[str, np.ndarray]:
  return {'lq': source['frames'], 'hq': target['frames']}


def _shuffled(records: Sequence[Any], seed: int) -> grain.MapDataset:
  return grain.MapDataset.source(records).seed(seed % 2**32).shuffle().repeat()


def _pairs(source: DataSource, seed: int, read: Read) -> grain.MapDataset:
  return _shuffled(read(source, ('lq', 'hq')), seed)


def _any_two(domains: Domains, seed: int, read: Read) -> grain.MapDataset:
  source, target = (read(part, ('frames',)) for part in domains)
  # Several sources have seeds that follow each other; those of their targets are far away.
  both = [_shuffled(source, seed), _shuffled(target, seed + 2**31)]
  return grain.experimental.ZipMapDataset(both).map(lambda records: _joined(*records))


def _two_of_a_video(domains: Domains, seed: int, read: Read) -> grain.MapDataset:
  source, target = (read(part, ('video', 'frames')) for part in domains)
  return _shuffled(source, seed).random_map(_SameVideo(target, _videos(domains.target)))


def _target_twice(domains: Domains, seed: int, read: Read) -> grain.MapDataset:
  return _shuffled(read(domains.target, ('frames',)), seed).map(lambda record: _joined(record, record))


def _videos(source: DataSource) -> dict[str, range]:
  """{video: indices of its records} of a whole split."""
  tables = metadata(source.dataset_info).videos
  if source.split not in tables:
    raise errors.DataError(
      f"{describe(source)}: no table of videos for this split; sampling='clip' needs whole splits "
      "train_source and train_target with such tables: open those, or use sampling='unpaired'."
    )
  return {
    video: range(entry.first_record, entry.first_record + entry.num_records)
    for video, entry in tables[source.split].items()
    if entry.num_records
  }


def _check_videos(domains: Domains) -> None:
  target = _videos(domains.target)
  missing = [video for video in _videos(domains.source) if video not in target]
  if missing:
    raise errors.DataError(
      f'{describe(domains.target)}: no records of {", ".join(map(repr, missing))}, which {describe(domains.source)} '
      "has; sampling='clip' needs both sides of each video: build the records again, or use sampling='unpaired'."
    )


def _paired_strip(info: tfds.core.DatasetInfo) -> Strip | None:
  return info.features['lq'] if _margin(info.features) == 0 else segments.room(info)


def _weak_strip(info: tfds.core.DatasetInfo) -> Strip | None:
  return info.features['lq'] if _margin(info.features) is not None else None


def _domain_strip(info: tfds.core.DatasetInfo) -> Strip | None:
  strip = info.features['frames'] if 'frames' in info.features else None
  return strip if isinstance(strip, FrameStrip) else None


def _margin(features: tfds.features.FeaturesDict) -> int | None:
  """How many pixels hq reaches beyond lq on each side, if records are aligned strips."""
  lq, hq = (features[field] if field in features else None for field in ('lq', 'hq'))
  if not (isinstance(lq, FrameStrip) and isinstance(hq, FrameStrip) and lq.num_frames == hq.num_frames):
    return None
  margin = (hq.height - lq.height) // 2
  framed = lq.height + 2 * margin, lq.width + 2 * margin
  return margin if margin >= 0 and framed == (hq.height, hq.width) else None


class _Mode(NamedTuple):
  """A way of sampling: what it opens, what it needs there (for people and as a check), and what it makes of it."""

  splits: tuple[str, ...]
  needs: str
  strip: Callable[[tfds.core.DatasetInfo], Strip | None]  # what windows are cut out of, if it is there
  strips: Callable[..., grain.MapDataset]
  windows: type[Windows]


_TWO = ('train_source', 'train_target')
_MODES = {
  'paired': _Mode(('train',), 'segments or FrameStrips lq and hq of one size', _paired_strip, _pairs, Aligned),
  'weak': _Mode(
    ('train',), 'FrameStrips lq and hq, hq with the same margin (or none) on each side', _weak_strip, _pairs, Aligned
  ),
  'unpaired': _Mode(_TWO, 'FrameStrips frames', _domain_strip, _any_two, Independent),
  'clip': _Mode(_TWO, 'FrameStrips frames', _domain_strip, _two_of_a_video, Independent),
  'identity': _Mode(_TWO, 'FrameStrips frames', _domain_strip, _target_twice, Aligned),
}
SAMPLINGS = tuple(_MODES)


def _choice(name: str, value: str, table: Mapping[str, Any]) -> Any:
  if value not in table:
    raise errors.ConfigError(f'{name}={value!r}: choose one of {", ".join(table)}.')
  return table[value]


def _usable_strip(info: tfds.core.DatasetInfo, mode: _Mode) -> Strip | None:
  """Return what windows are cut out of, if a config has the splits and records for `mode`."""
  return mode.strip(info) if set(mode.splits) <= set(info.splits) else None


def _fits(strip: Strip, num_frames: int, crop: int) -> bool:
  return num_frames <= strip.num_frames and crop <= min(strip.height, strip.width)


def _size(strip: Strip) -> str:
  most = 'at most ' if isinstance(strip, segments.Room) else ''
  return f'{most}{strip.num_frames} frames of {strip.height}x{strip.width}'


def _other_kind(info: tfds.core.DatasetInfo, sampling: str, num_frames: int = 1, crop: int = 1) -> errors.DataError:
  """The error to raise for records that `sampling` cannot use."""
  mode = _MODES[sampling]
  found = ', '.join(f'{field}={info.features[field]}' for field in ('lq', 'hq', 'frames') if field in info.features)
  return errors.DataError(
    f'{info.name}/{info.config_name}: sampling={sampling!r} needs {mode.needs} in {" and ".join(mode.splits)}, '
    f'found {found or "none of these fields"} in {", ".join(sorted(info.splits))}; '
    f'{_configs_that_fit(info, sampling, num_frames, crop)}.'
  )


def _configs_that_fit(info: tfds.core.DatasetInfo, sampling: str, num_frames: int, crop: int) -> str:
  """Name what to use instead: the prepared configs of the same dataset that are large enough, smallest first."""
  here = pathlib.Path(info.data_dir)
  strips = {}
  for config, folder in prepared_configs(here.parents[2], info.name).items():
    try:
      strip = _usable_strip(open_folder(folder).info, _MODES[sampling])
    except errors.DataError:  # Damaged, or of another version: nothing to recommend.
      continue
    if strip is not None:
      strips[config] = strip
  sizes = {config: f'{config!r} ({_size(strip)})' for config, strip in strips.items()}
  fitting = [config for config, strip in strips.items() if _fits(strip, num_frames, crop)]
  if fitting:
    fitting.sort(key=lambda config: np.prod(strips[config].shape))
    return f'use config {" or ".join(sizes[config] for config in fitting)}'
  return (
    f'no prepared config of {info.name} fits (there is: {", ".join(sizes.values()) or "none"}); build '
    f'{"a larger one" if sizes else "one"} with {origins.missing(here.parents[2], info.name, "...", here)}'
  )
