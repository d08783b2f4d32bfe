"""intvid: track 1 of the NTIRE 2020 challenge on video quality mapping, from the files of its organisers."""

import dataclasses
import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from vqm_jax.prepare.challenge import packing
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import ClipPair, FramesConfig, TilesConfig, tile_configs
from vqm_jax.prepare.records.segments import SegmentsConfig


@dataclasses.dataclass(kw_only=True)
class IntvidTiles(TilesConfig):
  """`source_suffix` chooses between source folders that differ in their bitrate, such as '500k'."""

  source_suffix: str = ''


@dataclasses.dataclass(kw_only=True)
class IntvidSegments(SegmentsConfig):
  """`source_suffix` chooses between source folders that differ in their bitrate, such as '500k'."""

  source_suffix: str = ''


@dataclasses.dataclass(kw_only=True)
class IntvidFrames(FramesConfig):
  """`source_suffix` chooses between source folders that differ in their bitrate, such as '500k'."""

  source_suffix: str = ''


class Builder(VqmBuilder):
  """Builds the clips that `vqm_jax.prepare.challenge.packing` finds in <manual_dir> or <manual_dir>/intvid."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'The data come from the organisers of the NTIRE 2020 challenge on video quality mapping, track 1. manual_dir or '
    'manual_dir/intvid holds TrainingSourceDomain and TrainingTargetDomain, ValidationSource, ValidationTarget, '
    'TestSource and TestTarget, as far as there are any, as folders or zips of clips. '
    'python -m vqm_jax.prepare.check --dataset=intvid --manual_dir=... shows what is found there.'
  )
  BUILDER_CONFIGS = [
    *tile_configs(IntvidTiles),
    IntvidSegments(name='segments', description='All of the training videos, as they are coded.'),
    IntvidFrames(name='frames', description='Whole frames of the clips with targets.'),
    IntvidFrames(name='frames_lq', description='Whole frames of the clips without targets.', targets=False),
  ]

  def __init__(self, **kwargs):
    # Looking at a folder reads each of its videos once.
    self._layouts: dict[pathlib.Path, packing.Layout] = {}
    super().__init__(**kwargs)

  def clips(self, split: str, manual_dir: pathlib.Path) -> Iterator[ClipPair]:
    """The clips of a split, those without targets among them.

    Raises DataError with every problem of every split.
    """
    found = self._layout(manual_dir)
    found.verify()
    for clip in found.clips:
      if clip.split == split:
        yield ClipPair(clip_id=clip.clip_id, lq=clip.sources['lq'], hq=clip.sources.get('hq'), category=clip.category)

  def fingerprint(self, split: str, manual_dir: pathlib.Path) -> str:
    """Digest of the names and sizes of the split's files and of what the manifest says of its clips."""
    return self._layout(manual_dir).digest(split)

  def _layout(self, manual_dir: pathlib.Path) -> packing.Layout:
    if manual_dir not in self._layouts:
      suffix = self.builder_config.source_suffix
      self._layouts[manual_dir] = packing.resolve(manual_dir, 'intvid', source_suffix=suffix)
    return self._layouts[manual_dir]
