"""The frames that evaluations kept, found through `summary.json`, and which of them a figure shows."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from vqm_jax import errors, pictures
from vqm_jax.report import summaries
from vqm_jax.report.summaries import Block, Result
from vqm_jax.summary import Summary, read_summary

INPUT, TARGET, UNALIGNED = 'Input', 'Target', 'target (not aligned)'

_IMAGES = {'.png', '.bmp', '.jpg', '.jpeg', '.tif', '.tiff', '.webp'}
_VIDEOS = {'.mp4', '.mkv', '.avi', '.mov', '.webm', '.m4v', '.zip'}
_NAMED = 5  # how many missing frames a message lists


@dataclasses.dataclass(frozen=True)
class Side:
  """Where the frames of one panel lie.

  Attributes:
    label: what is written above it.
    folder: holds a folder for each clip, or the only clip itself.
    kept: whether frames are named by their index in the clip; otherwise they count in their natural order.
  """

  label: str
  folder: pathlib.Path
  kept: bool


def read_results(paths: Iterable[str], split: str = 'test') -> tuple[Block, dict[str, Summary]]:
  """The block that all results belong to, and their summaries by path.

  Args:
    paths: of summary.json files, of folders that hold one or more, or of workdirs.
    split: wanted of workdirs.

  Raises:
    DataError: there are none, or they are of more than one test set; the message names both.
  """
  raw = {str(path): read_summary(path) for path in summaries.find(paths, split)}
  blocks = summaries.blocks(raw)
  if len(blocks) > 1:
    first, second = (f'{block.results[0].paths[0]} ({_described(block)})' for block in blocks[:2])
    raise errors.DataError(
      f'{first} and {second} are results of different test sets, expected one in a figure; give those of one.'
    )
  return blocks[0], raw


def _described(block: Block) -> str:
  names = [block.dataset, block.split, f'protocol {block.protocol}', f'frames {block.frames}']
  clips = ', '.join(block.clips[:_NAMED]) + (', ...' if len(block.clips) > _NAMED else '')
  return ', '.join(filter(None, [*names, '' if block.aligned else 'not aligned', f'clips {clips}']))


def short_labels(results: Sequence[Result]) -> list[str]:
  """The methods without '(step N)', but where that is all that tells two apart."""
  full = [result.method for result in results]
  short = [summaries.stepless(label) for label in full]
  return short if len({*short, INPUT, TARGET, UNALIGNED}) == len(short) + 3 else full


def choose_clips(block: Block, wanted: Sequence[str]) -> list[str]:
  """The clips `wanted`, all for ['all']. Raises ConfigError for one that was not scored, with the nearest name."""
  for clip in wanted:
    if clip not in block.clips and list(wanted) != ['all']:
      hint = errors.did_you_mean(clip, block.clips)
      raise errors.ConfigError(f'Clip {clip!r} was not scored; {hint}there are {", ".join(block.clips)}.')
  return list(block.clips if list(wanted) == ['all'] else wanted)


class SavedFrames:
  """The frames that the evaluations behind a block kept.

  Of several seeds of one experiment the first is shown, and its label says so.

  Args:
    block: the results that are shown.
    raw: their summaries by path.

  Attributes:
    input: of the unprocessed frames; None where there were none.
    methods: in the order of the results.
    target: of the targets.

  Raises:
    DataError: an evaluation did not keep its frames.
  """

  def __init__(self, block: Block, raw: Mapping[str, Summary]):
    shown = [result.seeds[0] if result.seeds else result for result in block.results]
    labels = [
      f'{label.removesuffix(f" ({len(result.seeds)} seeds)")}, seed {one.seed}' if result.seeds else label
      for label, result, one in zip(short_labels(block.results), block.results, shown, strict=True)
    ]
    sides = {}
    for label, result in zip(labels, shown, strict=True):
      path = pathlib.Path(result.paths[0])
      folders = raw[str(path)].folders
      if not folders or 'output' not in folders or 'target' not in folders:
        raise errors.DataError(
          f'{path}: its frames were not kept; run python -m vqm_jax.eval again with --save_frames (what was scored '
          'with --pred_dir remembers its folders when it is scored again).'
        )
      target = TARGET if block.aligned else UNALIGNED
      for key, name in (('output', label), ('input', INPUT), ('target', target)):
        if key in folders:
          folder = pathlib.Path(folders[key])
          side = Side(name, path.parent / folder, kept=not folder.is_absolute())
          sides.setdefault(label if key == 'output' else f'*{key}', side)
    indices = raw[shown[0].paths[0]].frame_indices
    if not indices:
      raise errors.DataError(f'{shown[0].paths[0]} does not say which frames were scored; evaluate again.')
    self.input: Side | None = sides.pop('*input', None)
    self.target: Side = sides.pop('*target')
    self.methods: list[Side] = list(sides.values())
    self._indices = {clip: list(indices[clip]) for clip in block.clips}

  @property
  def sides(self) -> list[Side]:
    """Input, methods and target, in the order of the panels."""
    return [*([self.input] if self.input else []), *self.methods, self.target]

  def indices(self, clip: str) -> list[int]:
    """Of the frames that were scored."""
    return self._indices[clip]

  def check(self, clips: Iterable[str]) -> None:
    """Raises DataError when frames of a clip are missing on any side; the message names them."""
    for clip in clips:
      for side in self.sides:
        self._files(side, clip)

  def read(self, side: Side, clip: str) -> Iterator[np.ndarray]:
    """The scored frames of a clip, uint8 (H, W, 3)."""
    return map(_read, self._files(side, clip).values())

  def at(self, clip: str, index: int) -> dict[str, np.ndarray]:
    """One frame of every side by label, uint8 (H, W, 3). Raises DataError when their sizes differ."""
    frames = {side.label: _read(self._files(side, clip)[index]) for side in self.sides}
    same_size(frames, f'Frame {index} of {clip}')
    return frames

  @functools.cache  # noqa: B019 (there is one object for each run of a program)
  def _files(self, side: Side, clip: str) -> dict[int, pathlib.Path]:
    """The file of every scored frame by index."""
    wanted, files = self.indices(clip), _images_of(side.folder, clip, alone=len(self._indices) == 1)
    by_name = {file.name: file for file in files}
    names = {index: f'{index:06d}.png' for index in wanted}
    if side.kept or len(files) < len(wanted) and any(name in by_name for name in names.values()):
      lost = [name for name in names.values() if name not in by_name]
      found = {index: by_name[name] for index, name in names.items() if not lost}
    else:
      lost = []
      if max(wanted) < len(files):  # all frames lie there, whether or not all were scored
        found = {index: files[index] for index in wanted}
      elif len(files) == len(wanted):
        found = dict(zip(wanted, files, strict=True))
      else:
        lost = [f'{len(wanted) - len(files)} of {len(wanted)} frames']
    if lost:
      more = f' and {len(lost) - _NAMED} more' if len(lost) > _NAMED else ''
      raise errors.DataError(
        f'{side.folder}: of clip {clip} there are no {", ".join(lost[:_NAMED])}{more}; evaluate again with '
        '--save_frames --overwrite, or bring them back.'
      )
    return found


def _images_of(folder: pathlib.Path, clip: str, alone: bool) -> list[pathlib.Path]:
  """The image files of a clip in natural order, in the layouts of `vqm_jax.video`."""

  def images(path: pathlib.Path, start: str = '') -> list[pathlib.Path]:
    files = path.iterdir() if path.is_dir() else ()
    found = [file for file in files if file.suffix.lower() in _IMAGES and not file.name.startswith('.')]
    return sorted((file for file in found if re.match(f'{re.escape(start)}', file.name)), key=_natural)

  found = images(folder / clip) or images(folder, f'{clip}_')
  if not found and alone:  # the names of single clips need not be the same
    below = [path for path in sorted(folder.glob('*/')) if images(path)]
    found = images(folder) or (images(below[0]) if len(below) == 1 else [])
  if not found:
    videos = [folder, *(folder.glob(f'{clip}.*') if folder.is_dir() else ())]
    if any(path.is_file() and path.suffix.lower() in _VIDEOS for path in videos):
      raise errors.DataError(
        f'{folder}: clip {clip} is no folder of images, and figures are made of those only; write its frames as PNG '
        'and score them.'
      )
    raise errors.DataError(
      f'{folder}: no frames of clip {clip} are there; evaluate again with --save_frames, or bring them back.'
    )
  return found


def _natural(path: pathlib.Path) -> list[tuple[bool, int, str]]:
  return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r'(\d+)', path.name)]


def _read(path: pathlib.Path) -> np.ndarray:
  with pictures.fenced(path, remedy='evaluate again with --save_frames'), Image.open(path) as image:
    return np.asarray(image.convert('RGB'))


def same_size(frames: Mapping[str, np.ndarray], what: str) -> None:
  """Raises DataError when arrays (H, W, ...) differ in H or W."""
  sizes = {label: frame.shape[:2] for label, frame in frames.items()}
  if len(set(sizes.values())) > 1:
    found = ', '.join(f'{label} {width}x{height}' for label, (height, width) in sizes.items())
    raise errors.DataError(f'{what}: the sizes differ ({found}), expected one; score frames of one size.')


def choose_frame(saved: SavedFrames, clip: str, wanted: int | None) -> int:
  """The frame `wanted`, or the middle one that was scored. Raises ConfigError when it was not."""
  indices = saved.indices(clip)
  if wanted is None:
    return indices[len(indices) // 2]
  if wanted not in indices:
    near = min(indices, key=lambda index: abs(index - wanted))
    raise errors.ConfigError(
      f'--frame={wanted} of {clip} was not scored; there are {len(indices)} from {indices[0]} to {indices[-1]}, the '
      f'nearest is {near}.'
    )
  return wanted
