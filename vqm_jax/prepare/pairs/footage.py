"""Which videos a folder holds, what they are like, and which split each belongs to."""

import dataclasses
import hashlib
import pathlib
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from vqm_jax import errors, names, schemas
from vqm_jax.prepare.pairs import scenes as scenes_lib
from vqm_jax.video import VideoFile
from vqm_jax.video.reader import is_video

SPLITS = ('train', 'val', 'test', 'holdout')
# The longest window of any system here; shorter videos give no training sample.
MIN_FRAMES = 7
_MIN_SIDE = 16  # pixels
_FORMATS_420 = ('yuv420p', 'yuvj420p')


@dataclasses.dataclass(frozen=True)
class Footage:
  """The findings of one pass over a source video.

  `height` and `width` are even: an odd last row or column is cropped. `as_is` says that the file itself can serve as
  HQ: 4:2:0 and of even size. `fps` is a fraction in text, `scenes` are (start, stop).
  """

  sha256: str
  num_bytes: int
  num_frames: int
  height: int
  width: int
  fps: str
  as_is: bool
  scenes: tuple[scenes_lib.Scene, ...]

  @classmethod
  def from_json(cls, values: Mapping) -> 'Footage':
    """The footage that `dataclasses.asdict` described."""
    return cls(**values | {'scenes': tuple(tuple(scene) for scene in values['scenes'])})


def find(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Clip name -> video file, for every video below `folder`, told by content; hidden and other files are ignored.

  Names are the paths below `folder` without suffix, '/' and unusual characters made '_'.
  Raises DataError if there is no video or two have one name.
  """
  if not folder.is_dir():
    raise errors.DataError(f'--input={folder}: no such folder')
  found: dict[str, pathlib.Path] = {}
  for path in sorted(folder.rglob('*')):
    below = path.relative_to(folder)
    if any(part.startswith('.') for part in below.parts) or not is_video(path):
      continue
    name = re.sub(r'[^\w.-]+', '_', '_'.join(below.with_suffix('').parts))
    if wrong := names.problem(name):
      raise errors.DataError(f'{below}: {names.refusal(name, wrong)}')
    if name in found:
      other = found[name].relative_to(folder)
      raise errors.DataError(f'{below} and {other} would both become clip {name}; rename one')
    found[name] = path
  if not found:
    raise errors.DataError(f'--input={folder}: no video in this folder or below that libav can read')
  return found


def examine(path: pathlib.Path, known: Mapping[str, Mapping]) -> Footage:
  """The footage of `path`, decoded from the first to the last frame; `known` spares files seen before, by sha256.

  Raises VideoError for what cannot be read exactly, DataError for videos that are too short.
  """
  try:
    with path.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise errors.VideoError(f'{path}: cannot be read ({error.strerror})') from error
  if digest in known:
    return Footage.from_json(known[digest])
  # Pairs are compared frame by frame, so that frames need not be evenly spaced.
  video = VideoFile(path, variable_rate=True)
  if video.num_frames < MIN_FRAMES:
    raise errors.DataError(f'{path}: {video.num_frames} frames, expected at least {MIN_FRAMES}')
  if min(video.height, video.width) < _MIN_SIDE:
    raise errors.DataError(f'{path}: {video.width}x{video.height} pixels, expected at least {_MIN_SIDE}x{_MIN_SIDE}')
  even = not (video.height % 2 or video.width % 2)
  if not even and not video.pixel_format.endswith('p'):
    raise errors.VideoError(
      f'{path}: {video.width}x{video.height} pixels in format {video.pixel_format} cannot be cropped to '
      'even size here; crop or convert it to yuv420p first'
    )
  return Footage(
    sha256=digest,
    num_bytes=path.stat().st_size,
    num_frames=video.num_frames,
    height=video.height // 2 * 2,
    width=video.width // 2 * 2,
    fps=str(video.fps),
    as_is=even and video.pixel_format in _FORMATS_420,
    scenes=scenes_lib.detect(video),
  )


def column(path: str, key: str, files: Mapping[str, pathlib.Path], optional: bool = False) -> dict[str, str]:
  """Clip name -> value in column `key` of a CSV file whose column `video` names clips or files.

  Nothing if the column is `optional` and not there.
  Raises ConfigError if a column is missing, or a name fits none or several of `files`.
  """
  try:
    rows = schemas.read_csv(pathlib.Path(path))
  except (FileNotFoundError, schemas.Misfit) as error:
    raise errors.ConfigError(f'{path}: cannot be read as CSV ({errors.reason(error)})') from error
  if optional and rows and key not in rows[0]:
    return {}
  if not rows or not {'video', key} <= rows[0].keys():
    raise errors.ConfigError(f'{path}: expected a first line with the columns video,{key}')
  values = {}
  for row in rows:
    wanted = pathlib.PurePosixPath(row['video'].strip())
    names = [name for name, file in files.items() if name == str(wanted) or _ends(file, wanted)]
    if not names:
      hint = errors.did_you_mean(str(wanted), [*files, *(file.name for file in files.values())]).rstrip()
      raise errors.ConfigError(f'{path}: there is no video {str(wanted):.120}{hint and "; "}{hint}')
    if len(names) > 1:
      raise errors.ConfigError(f'{path}: {wanted} stands for {" and ".join(names)}; add the folder')
    values[names[0]] = (row[key] or '').strip()
  return values


def _ends(file: pathlib.Path, wanted: pathlib.PurePosixPath) -> bool:
  return file.parts[-len(wanted.parts) :] == wanted.parts


def splits(categories: Mapping[str, str], counts: Mapping[str, int | None], seed: int) -> dict[str, str]:
  """Clip name -> split, drawn by `seed`, so that each split has every category in proportion.

  `counts` tells how many videos go to val, test and holdout; None is a tenth for val and test, at least one if there
  are three videos (for val: two), and none for holdout. The rest is train.
  Raises ConfigError if there are fewer videos than asked for.
  """
  total = len(categories)
  wanted = {split: counts.get(split) for split in ('test', 'val', 'holdout')}
  for split, least in (('test', 3), ('val', 2)):
    if wanted[split] is None:
      wanted[split] = max(total // 10, int(total >= least))
  if sum(n or 0 for n in wanted.values()) > total:
    asked = ' '.join(f'--{split}_videos={n}' for split, n in wanted.items() if n)
    raise errors.ConfigError(f'{asked}: there are only {total} usable videos; ask for fewer')
  places = {}
  for category in sorted(set(categories.values())):
    members = sorted(name for name, c in categories.items() if c == category)
    rng = np.random.default_rng([seed, zlib.crc32(category.encode())])
    shift = rng.random()
    for rank, index in enumerate(rng.permutation(len(members))):
      places[members[index]] = (rank + shift) / len(members)
  order = sorted(places, key=lambda name: (places[name], name))
  result = {}
  for split, count in wanted.items():
    taken, order = order[: count or 0], order[count or 0 :]
    result |= dict.fromkeys(taken, split)
  return result | dict.fromkeys(order, 'train')


def checked_splits(values: Mapping[str, str], names: Sequence[str], path: str) -> dict[str, str]:
  """Clip name -> split of a --split_csv: unnamed clips are train, 'skip' leaves one out."""
  unknown = sorted(set(values.values()) - {*SPLITS, 'skip'})
  if unknown:
    raise errors.ConfigError(f'{path}: split {unknown[0]!r:.60} is unknown, expected one of {", ".join(SPLITS)}, skip')
  chosen = {name: values.get(name, 'train') for name in names}
  return {name: split for name, split in chosen.items() if split != 'skip'}


def checked_copies(values: Mapping[str, str], path: str) -> dict[str, int]:
  """Clip name -> copies of it, from the column of a --split_csv; clips with an empty cell are left out."""
  for name, text in values.items():
    if text and not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text)):
      raise errors.ConfigError(f'{path}: copies of {name} is {text!r:.60}, expected a number from 1 or nothing')
  return {name: int(text) for name, text in values.items() if text}
