"""Rows of text that tell what a folder with the challenge's data holds."""

import math

import numpy as np

from vqm_jax import cli
from vqm_jax.prepare.challenge import packing
from vqm_jax.video import VideoSource

SPLIT_HEADER = ('split', 'clips', 'with target', 'frames', 'size', 'fps')
CLIP_HEADER = ('split', 'clip', 'frames', 'size', 'fps', 'first', 'source', 'target')


def split_rows(found: packing.Layout) -> list[tuple[str, ...]]:
  """A row as SPLIT_HEADER for each split that has clips."""
  rows = []
  for split in packing.SPLITS:
    clips = [clip for clip in found.clips if clip.split == split]
    if clips:
      sources = [source for clip in clips for source in list(clip.sources.values())[:1]]
      frames = sum(source.num_frames for source in sources)
      targets = sum(clip.hq is not None for clip in clips)
      kinds = (', '.join(dict.fromkeys(map(kind, sources))) or '?' for kind in (size, rate))
      rows.append((split, str(len(clips)), str(targets), str(frames), *kinds))
  return rows


def clip_row(found: packing.Layout, clip: packing.PackedClip) -> tuple[str, ...]:
  """A row as CLIP_HEADER; what differs between the sides of a pair is told of both."""
  sides = [clip.sources.get(side) for side in ('lq', 'hq') if getattr(clip, side) is not None]
  facts = (
    # Both sides where they differ.
    ' / '.join(dict.fromkeys('?' if source is None else fact(source) for source in sides))
    for fact in (lambda source: str(source.num_frames), size, rate)
  )
  first = '-' if clip.first_number is None else str(clip.first_number)
  return clip.split, clip.clip_id, *facts, first, found.relative(clip.lq), found.relative(clip.hq)


PAIRING_HEADER = ('clip', 'offset', 'ncc', 'drift/min', 'enlarges', 'inliers', 'remarks')


def pairing_rows(found: packing.Layout) -> list[tuple[str, ...]]:
  """Estimate how both cameras belong together: a row as PAIRING_HEADER for each training clip, kept as they come."""
  from vqm_jax.prepare.challenge import two_cameras  # TFDS takes a while to start

  pairs = list(two_cameras.clips(found, 'train'))
  stored = two_cameras.StoredPairings(found.root)
  rows = []
  for pair in cli.progress(pairs, desc='paired', unit='clip'):
    stored.put(pair)
    offset, homography = pair.pairing.offset, pair.pairing.homography
    remarks = '; '.join(filter(None, (offset.reason, homography.reason))) or '-'
    drift = '-' if math.isnan(offset.drift.slope) else f'{offset.drift.slope:+.2f}'
    enlarges = f'{abs(np.linalg.det(homography.matrix[:2, :2])) ** 0.5:.3f}'
    found_offset = f'{offset.frames:+d}', f'{offset.confidence:.2f}', drift
    rows.append((pair.clip_id, *found_offset, enlarges, str(homography.inliers), remarks))
  return rows


def size(source: VideoSource) -> str:
  """'1920x1080'."""
  return f'{source.width}x{source.height}'


def rate(source: VideoSource) -> str:
  """Frames per second: '29.97'."""
  return f'{float(source.fps):.5g}'
