"""paired_videos: any folder of degraded and original videos, such as `vqm_jax.prepare.degrade` writes."""

import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from vqm_jax.prepare.challenge.packing import short_hash
from vqm_jax.prepare.pairs import folder
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import ClipPair, FramesConfig, tile_configs
from vqm_jax.prepare.records.segments import SegmentsConfig


class Builder(VqmBuilder):
  """<manual_dir>/{train,val,test,holdout}/{lq,hq}/<clip> and, optionally, <manual_dir>/manifest.csv."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'manual_dir holds <split>/lq/<clip> and <split>/hq/<clip> for the splits train, val, test and holdout, as far '
    'as there are any; a clip is a video file or a folder of images, of equal name, length and size on both sides. '
    'python -m vqm_jax.prepare.degrade makes such a folder from your own videos.'
  )
  BUILDER_CONFIGS = [
    *tile_configs(),
    SegmentsConfig(name='segments', description='All of the training videos, as they are coded.'),
    FramesConfig(name='frames', description='Whole frames for evaluation.'),
  ]

  def clips(self, split: str, manual_dir: pathlib.Path) -> Iterator[ClipPair]:
    """The clips of <manual_dir>/<split>, with what the manifest says about them.

    Raises DataError if a clip lacks a side or the manifest cannot be understood.
    """
    for listed in folder.listed(split, manual_dir):
      yield folder.opened(listed, manual_dir)

  def memory(self, manual_dir: pathlib.Path) -> pathlib.Path:
    """Beside the pairs, so that whoever builds of them, anywhere, need not look at them again."""
    return manual_dir

  def fingerprint(self, split: str, manual_dir: pathlib.Path) -> str:
    """Digest of the names and sizes of the split's files and of its lines in the manifest."""
    files = sorted(path for path in (manual_dir / split).rglob('*') if path.is_file())
    lines = [f'{path.relative_to(manual_dir).as_posix()} {path.stat().st_size}' for path in files]
    lines += [str(sorted(row.items())) for row in folder.manifest(manual_dir) if row['split'] == split]
    return short_hash(lines)
