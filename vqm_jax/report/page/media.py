"""The frames in a results page: which ones, how they are compressed, and what is given up to keep the page small."""

import base64
import dataclasses
import functools
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vqm_jax import errors
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.summaries import Block
from vqm_jax.summary import Scores, Summary

# Scores of single frames in dB: {label: {clip: {index: value}}}.
FrameScores = Mapping[str, Mapping[str, Mapping[int, float]]]

_THUMBNAIL = 240  # pixels
_APART = 6  # extremes of one clip lie at least this part of its length apart: neighbours look the same
_MOTION_SHARE = 0.35  # of the room; the frames to compare have the rest
_ERROR_QUALITY, _THUMBNAIL_QUALITY = 85, 80
_NO_LOSS = None


@dataclasses.dataclass(frozen=True)
class Extreme:
  """A frame on which a method gains least or most; `gain` in dB over the input."""

  method: str
  kind: str  # 'worst' or 'best'
  clip: str
  frame: int
  gain: float


@dataclasses.dataclass(frozen=True)
class Rung:
  """How much of the stills is kept.

  Attributes:
    frames: of each clip.
    extremes: of each method and kind.
    quality: of WebP; None is lossless.
    shrink: by which both sides are divided.
  """

  frames: int
  extremes: int
  quality: int | None = _NO_LOSS
  shrink: int = 1


@dataclasses.dataclass(frozen=True)
class MotionRung:
  """How much of the moving clips is kept: frames of each, pixels of width, quality of WebP, clips."""

  frames: int
  width: int
  quality: int
  clips: int


@dataclasses.dataclass(frozen=True)
class Still:
  """A frame of all sides as data URIs.

  Attributes:
    pictures: of the input, the methods and the target.
    errors: error maps of all but the target; none without alignment.
    thumbnails: small pictures of the methods by label.
    width, height: of `pictures`, in pixels.
  """

  clip: str
  frame: int
  pictures: Sequence[str]
  errors: Sequence[str]
  thumbnails: Mapping[str, str]
  width: int
  height: int


@dataclasses.dataclass(frozen=True)
class Motion:
  """Frames of a clip that follow each other; `pictures` are data URIs for each side, then each frame."""

  clip: str
  frames: Sequence[int]
  pictures: Sequence[Sequence[str]]
  width: int
  height: int


@dataclasses.dataclass(frozen=True)
class Choice:
  """All pictures of a page; `notes` say how they were made and what was left out."""

  sides: Sequence[str]
  stills: Sequence[Still]
  extremes: Sequence[Extreme]
  motion: Sequence[Motion]
  scores: FrameScores
  notes: Sequence[str]


# Which frames.


def spread(indices: Sequence[int], count: int) -> list[int]:
  """`count` of `indices`, each in the middle of an equal part; all where there are fewer."""
  if count >= len(indices):
    return list(indices)
  return [indices[int((k + 0.5) * len(indices) / count)] for k in range(count)]


def parse_frames(wanted: str) -> int | list[int]:
  """Read --frames: how many of each clip ('3'), or which ('at:0,12'). Raises ConfigError for anything else."""
  kind, _, listed = wanted.partition(':')
  numbers = [text.strip() for text in listed.split(',')]
  if kind == 'at' and all(text.isdecimal() for text in numbers):
    return sorted(set(map(int, numbers)))
  if wanted.isdecimal() and int(wanted):
    return int(wanted)
  raise errors.ConfigError(f'--frames={wanted}: expected how many of each clip, as 3, or which, as at:0,12,23.')


def check_frames(saved: saved_frames.SavedFrames, clips: Iterable[str], wanted: Iterable[int]) -> None:
  """Raises ConfigError when a frame was not scored in one of the clips."""
  for clip in clips:
    indices = saved.indices(clip)
    if lost := [index for index in wanted if index not in indices]:
      near = min(indices, key=lambda index: abs(index - lost[0]))
      raise errors.ConfigError(
        f'--frames: frame {lost[0]} of {clip} was not scored; there are {len(indices)} from {indices[0]} to '
        f'{indices[-1]}, the nearest is {near}.'
      )


def frame_scores(saved: saved_frames.SavedFrames, block: Block, raw: Mapping[str, Summary]) -> FrameScores:
  """PSNR of every frame by the labels of `saved`, infinite where it equals its target; {} without alignment."""
  if not block.aligned:
    return {}
  name, found = block.metric('psnr'), {}

  def by_index(side: Mapping[str, Scores] | None) -> dict[str, dict[int, float]] | None:
    values = side[name].per_frame if side and name in side else {}
    whole = all(len(values.get(clip, ())) == len(saved.indices(clip)) for clip in block.clips)
    if not whole:
      return None
    return {clip: dict(zip(saved.indices(clip), values[clip], strict=True)) for clip in block.clips}

  shown = [result.seeds[0] if result.seeds else result for result in block.results]
  sides = [(raw[result.paths[0]].metrics, side.label) for result, side in zip(shown, saved.methods, strict=True)]
  if saved.input:
    sides.insert(0, (raw[shown[0].paths[0]].no_processing, saved.input.label))
  for side, label in sides:
    if (values := by_index(side)) is not None:
      found[label] = values
  return found


def find_extremes(scores: FrameScores, clips: Sequence[str], count: int) -> list[Extreme]:
  """The frames with the least and the largest gain of every method, the most extreme first.

  Those of one clip and kind lie a sixth of it apart, and none is both worst and best. Frames that equal their target
  before or after have no gain.
  """
  found, base = [], scores.get(saved_frames.INPUT)
  for method in (label for label in scores if label != saved_frames.INPUT and base):
    gains = [
      (value - base[clip][index], clip, index)
      for clip in clips
      for index, value in scores[method][clip].items()
      if math.isfinite(value) and math.isfinite(base[clip][index])
    ]
    lengths, taken = {clip: len(scores[method][clip]) for clip in clips}, set()
    # Ties go to the first clip and frame, whichever end is looked at.
    ends = {'worst': sorted(gains), 'best': sorted(gains, key=lambda one: (-one[0], *one[1:]))}
    for kind, ordered in ends.items():
      chosen = []
      for gain, clip, index in ordered:
        order = list(scores[method][clip])
        place, gap = order.index(index), max(1, lengths[clip] // _APART)
        near = any(other == clip and abs(order.index(k) - place) < gap for other, k in chosen)
        if len(chosen) < min(count, len(gains) // 2 or 1) and not near and (clip, index) not in taken:
          chosen.append((clip, index))
          found.append(Extreme(method, kind, clip, index, gain))
      taken |= set(chosen)
  return found


# How they are kept.


def data_uri(frame: np.ndarray, quality: int | None) -> str:
  """uint8 (H, W, 3) as WebP in a data URI; exact when `quality` is None."""
  out = io.BytesIO()
  options = {'lossless': True, 'quality': 60} if quality is None else {'quality': quality}
  Image.fromarray(frame).save(out, 'WEBP', method=4, **options)
  return 'data:image/webp;base64,' + base64.b64encode(out.getvalue()).decode()


def coding(quality: int | None) -> str:
  """Say in words what `data_uri` does to a frame."""
  return 'exact (lossless WebP)' if quality is None else f'compressed with loss (WebP quality {quality})'


def rungs(frames: int | Sequence[int], extremes: int) -> list[Rung]:
  """List the sizes and qualities to try for the stills, best first; frames asked for one by one all stay."""
  listed = not isinstance(frames, int)
  full = len(frames) if listed else frames
  half, least = (full, full) if listed else (-(-full // 2), 1)
  few, one = -(-extremes // 2), min(extremes, 1)
  tried = [
    Rung(full, extremes), Rung(full, extremes, 94), Rung(half, few, 94), Rung(least, one, 94), Rung(least, one, 85),
    Rung(least, one, 85, 2), Rung(least, one, 75, 4),
  ]  # fmt: skip
  return list(dict.fromkeys(tried))


def motion_rungs(frames: int, clips: int) -> list[MotionRung]:
  """List the sizes and qualities to try for the moving clips, best first."""
  sizes = [(frames, 640, 90, clips), (frames, 480, 82, clips), (min(frames, 16), 480, 80, clips)]
  sizes += [(min(frames, 12), 320, 75, clips), (min(frames, 12), 320, 75, min(clips, 4)), (min(frames, 12), 240, 70, 1)]
  return [MotionRung(*size) for size in dict.fromkeys(sizes)]


class Maker:
  """Encodes frames, each once for every quality.

  Args:
    saved, aligned: the frames, and whether errors against their targets mean anything.
  """

  def __init__(self, saved: saved_frames.SavedFrames, aligned: bool):
    self._saved, self._aligned = saved, aligned

  @functools.cache  # noqa: B019 (there is one object for each run of a program)
  def still(self, clip: str, index: int, quality: int | None, shrink: int) -> Still:
    """One frame of all sides. Raises DataError when it is missing or sizes differ."""
    saved = self._saved
    frames = saved.at(clip, index)
    target, maps = frames[saved.target.label], []
    if self._aligned:
      others = [frame for label, frame in frames.items() if label != saved.target.label]
      levels = [shrunk(panels.error_map(frame, target), shrink) for frame in others]
      maps = [data_uri(panels.error_colours(level), _ERROR_QUALITY) for level in levels]
    thumbnails = {side.label: thumbnail(frames[side.label]) for side in saved.methods}
    pictures = [data_uri(shrunk(frame, shrink), quality) for frame in frames.values()]
    height, width, _ = shrunk(target, shrink).shape
    return Still(clip, index, pictures, maps, thumbnails, width, height)

  @functools.cache  # noqa: B019
  def motion(self, clip: str, indices: tuple[int, ...], width: int, quality: int) -> Motion:
    """Frames of a clip of all sides. Raises DataError when one is missing or sizes differ."""
    columns, shape = [], (0, 0)
    for index in indices:
      frames = [_reduced(frame, width) for frame in self._saved.at(clip, index).values()]
      shape = frames[0].shape
      columns.append([data_uri(frame, quality) for frame in frames])
    return Motion(clip, indices, list(zip(*columns, strict=True)), shape[1], shape[0])


def shrunk(picture: np.ndarray, factor: int) -> np.ndarray:
  """(H, W, ...) as means of blocks, so that nothing is made sharper; as it is where it is as narrow as the factor."""
  width = picture.shape[1]
  return panels.resized(picture, width // factor) if factor > 1 and width > factor else picture


def thumbnail(frame: np.ndarray) -> str:
  """uint8 (H, W, 3) as a small picture in a data URI."""
  return data_uri(_reduced(frame, _THUMBNAIL), _THUMBNAIL_QUALITY)


def _reduced(frame: np.ndarray, width: int) -> np.ndarray:
  return panels.resized(frame, width) if frame.shape[1] > width else frame


def choose(
  saved: saved_frames.SavedFrames,
  scores: FrameScores,
  clips: Sequence[str],
  *,
  aligned: bool,
  frames: int | Sequence[int],
  extremes: int,
  motion: int,
  room: int,
  max_mb: float,
  progress: Callable[..., Iterable] = lambda items, **_: items,
) -> Choice:
  """The pictures that fit into `room` bytes of a page that may have `max_mb`.

  Args:
    saved: the frames that the evaluations kept.
    scores: PSNR of the kept frames, {label: {clip: {frame: value}}}; {} without alignment.
    clips: to show.
    aligned: whether there are error maps.
    frames: how many of each clip, or which.
    extremes: of each method and kind, at most.
    motion: how many frames of a moving clip; 0 leaves them out.
    progress: as `cli.progress`.

  Raises:
    ConfigError: not even the smallest choice fits.
    DataError: frames are missing, damaged or of several sizes.
  """
  maker = Maker(saved, aligned)
  longest = max(len(saved.indices(clip)) for clip in clips)  # so that nobody reads of frames that never were
  frames, motion = min(frames, longest) if isinstance(frames, int) else frames, min(motion, longest)

  def wanted(rung: Rung) -> list[tuple[str, int]]:
    """Clips and frames in order, those of the extremes among them."""
    chosen = {(one.clip, one.frame) for one in find_extremes(scores, clips, rung.extremes)}
    for clip in clips:
      chosen |= {(clip, k) for k in (spread(saved.indices(clip), rung.frames) if isinstance(frames, int) else frames)}
    return sorted(chosen, key=lambda one: (clips.index(one[0]), one[1]))

  def stills(rung: Rung) -> Iterator[Still]:
    for clip, index in progress(wanted(rung), desc='encoded', unit='frame'):
      yield maker.still(clip, index, rung.quality, rung.shrink)

  def moving(rung: MotionRung) -> Iterator[Motion]:
    for clip in progress(clips[: rung.clips], desc='encoded', unit='clip'):
      yield maker.motion(clip, _middle(saved.indices(clip), rung.frames), rung.width, rung.quality)

  moving_tried = motion_rungs(motion, len(clips)) if motion > 1 else []
  fitted = first_that_fits(moving_tried, moving, room * _MOTION_SHARE)[0]
  tried = rungs(frames, extremes)
  for moved in dict.fromkeys([fitted is not None, False]):  # what is compared goes before what moves
    kept = fitted[1] if moved else []
    best, least = first_that_fits(tried, stills, room - sum(map(_size_of_motion, kept)))
    if best is not None:
      break
  else:
    listed = '' if isinstance(frames, int) else ' and --frames'
    least = math.ceil((least / 1e6 + max_mb - room / 1e6) * 100) / 100
    raise errors.ConfigError(
      f'--max_mb={max_mb:g} is too small: the page needs {least:g} MB with the smallest '
      f'pictures; raise it, choose fewer --clips{listed}, or leave pictures out with --nopictures.'
    )
  rung, made = best
  wanted_motion = moving_tried[0] if moving_tried else None
  notes = _said(rung, tried[0], made, aligned, fitted[0] if moved else None, wanted_motion, kept, max_mb)
  return Choice(
    [side.label for side in saved.sides], made, find_extremes(scores, clips, rung.extremes), kept, scores, notes
  )


def first_that_fits(tried: Sequence, make: Callable[[Any], Iterator], room: float) -> tuple[tuple | None, int]:
  """((rung, stills or motions made of it), their bytes), or (None, bytes of the last) when nothing fits."""
  total = 0
  for rung in tried:
    made, total = [], 0
    for one in make(rung):
      made.append(one)
      total += _size_of_motion(one) if isinstance(one, Motion) else _size_of_still(one)
      if total > room and rung is not tried[-1]:
        break  # the rest would be encoded in vain
    if total <= room:
      return (rung, made), total
  return None, total


def _size_of_still(still: Still) -> int:
  return sum(map(len, [*still.pictures, *still.errors, *still.thumbnails.values()]))


def _size_of_motion(motion: Motion) -> int:
  return sum(len(uri) for side in motion.pictures for uri in side)


def _middle(indices: Sequence[int], count: int) -> tuple[int, ...]:
  """`count` neighbours in the middle."""
  start = max(0, (len(indices) - count) // 2)
  return tuple(indices[start : start + count])


def _said(
  rung: Rung, full: Rung, stills: Sequence[Still], aligned: bool, moved: MotionRung | None, wanted: MotionRung | None,
  motion: Sequence[Motion], max_mb: float,
) -> list[str]:  # fmt: skip
  """How the pictures were made, and what they would have been in a larger page (`full`, `wanted`)."""
  size = f'{stills[0].width}x{stills[0].height}' if stills else ''
  maps = '; error maps were made before, and are compressed with loss.' if aligned else '.'
  notes = [f'The frames to compare are {coding(rung.quality)}{maps}']
  given_up = [] if rung.quality is None else ['frames to compare with loss instead of exact ones']
  if rung.shrink > 1:
    given_up.append(f'these shrunk {rung.shrink} times to {size} pixels')
  if rung.frames < full.frames:
    given_up.append(f'{rung.frames} instead of {full.frames} of each clip')
  if rung.extremes < full.extremes:
    given_up.append(f'{rung.extremes} instead of {full.extremes} worst and best ones of each method')
  if motion:
    notes.append(
      f'The moving clips are {motion[0].width}x{motion[0].height} pixels, compressed with loss (WebP quality '
      f'{moved.quality}), from the middle of each clip.'
    )
    if moved.frames < wanted.frames:
      given_up.append(f'moving clips of {moved.frames} instead of {wanted.frames} frames')
    if moved.clips < wanted.clips:
      given_up.append(f'{moved.clips} instead of {wanted.clips} moving clips')
  elif wanted:
    given_up.append('no moving clips')
  return notes + ([f'To stay below {max_mb:g} MB, the page has {", ".join(given_up)}.'] if given_up else [])
