"""Which clips a folder of the challenge's data holds: tolerant of how it is packed, strict about pairs.

How the challenge packed its files is known in part only, so folders are told by what their names mean: a split (train,
training, val, valid, validation, test, testing) and a side (source, lq, input, compressed, zed; target, hq, gt, label,
canon, hr), in one name (`TrainingSourceDomain`) or nested either way (`train/lq`, `ZED/test`). Case, `_`, `-` and
spaces do not matter; `Domain` and a bitrate (`500k`) may follow the side. A side is a folder or a zip, which is read in
place; one folder around the clips, as archives have it, is looked through.

Tar archives are refused with the command that unpacks them: a frame in the middle of a tar is found by reading all
that comes before it.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from PIL import Image

from vqm_jax import cli, errors, names, schemas, zips
from vqm_jax.video import VideoFile, VideoSource, images, list_videos, open_video
from vqm_jax.video.images import ImageFrames
from vqm_jax.video.sources import Readable

SPLITS = ('train', 'val', 'test')
_COLUMNS = ('split', 'clip_id', 'lq', 'hq', 'fps', 'category')


# (split, side) -> name of the folder, {clip: what `open_video` takes}.
_Listed = Mapping[tuple[str, str], tuple[str, Mapping[str, Readable]]]
_UNKNOWN: tuple[str, Mapping[str, Readable]] = ('', {})


class _Challenge(NamedTuple):
  """`counts`: clips of the splits. `exact`: both sides show the same frames, pixel by pixel."""

  counts: Mapping[str, int]
  exact: bool


_CHALLENGES = {
  'intvid': _Challenge({'train': 60, 'val': 16, 'test': 16}, exact=True),
  'vid3oc': _Challenge({'train': 50, 'val': 16, 'test': 16}, exact=False),
}
DATASETS = tuple(_CHALLENGES)
_EVALUATED_FRAMES = 120  # of a clip in val and test

_SPLIT_NAMES = {
  **dict.fromkeys(('train', 'training'), 'train'),
  **dict.fromkeys(('val', 'valid', 'validation'), 'val'),
  **dict.fromkeys(('test', 'testing'), 'test'),
}
_SIDE_NAMES = {
  **dict.fromkeys(('source', 'lq', 'input', 'compressed', 'zed'), 'lq'),
  **dict.fromkeys(('target', 'hq', 'gt', 'label', 'canon', 'hr'), 'hq'),
}
_SIDE_WORDS = {'lq': 'source', 'hq': 'target'}
_NAME = re.compile(rf'({"|".join(_SPLIT_NAMES)})?(?:({"|".join(_SIDE_NAMES)})(?:domain)?(\d+[km]?)?)?')
_TAR = re.compile(r'\.(tar(\.\w+)?|tgz|tbz2?|txz)$', re.IGNORECASE)
# What zipfile and Pillow raise for bytes that are not what the name says.
_UNREADABLE = (
  *(OSError, ValueError, SyntaxError, EOFError, LookupError, RuntimeError, ArithmeticError),
  *(zipfile.BadZipFile, zlib.error, struct.error, Image.DecompressionBombError),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedClip:
  """One clip of a split; `hq` is None where the challenge withheld the targets.

  `lq` and `hq` are what `open_video` takes, `sources` the same opened, as far as they could be ('lq', 'hq'). `fps` is
  None where nothing tells the rate, `found` says what named the clip.
  """

  split: str
  clip_id: str
  lq: Readable | None
  hq: Readable | None
  fps: Fraction | None = None
  category: str = ''
  found: str = ''
  sources: Mapping[str, VideoSource] = dataclasses.field(default_factory=dict)

  @property
  def first_number(self) -> int | None:
    """The number of the first LQ image, 0 or 1 as a rule; None for a video."""
    numbers = _numbers(self.sources.get('lq'))
    return numbers[0] if numbers else None


@dataclasses.dataclass(frozen=True)
class Layout:
  """The clips that `resolve` found in `root`, by split and name; problems and warnings of one line each."""

  root: pathlib.Path
  clips: tuple[PackedClip, ...]
  problems: tuple[str, ...]
  warnings: tuple[str, ...]

  def verify(self) -> None:
    """Raises DataError with every problem, if there is any."""
    numbered = [f'({number}) {text}.' for number, text in enumerate(self.problems, start=1)]
    if numbered:
      raise errors.DataError(
        f'{self.root}: {len(numbered)} problem{"s" if len(numbered) > 1 else ""}: {" ".join(numbered)} '
        'Nothing was built; python -m vqm_jax.prepare.check lists what there is.'
      )

  def digest(self, split: str) -> str:
    """Changes when the names or sizes of the files of a split change, or its rates and categories."""
    return short_hash([line for clip in self.clips if clip.split == split for line in self._lines(clip)])

  def clip_digest(self, clip: PackedClip) -> str:
    """As `digest`, of one clip."""
    return short_hash(self._lines(clip))

  def _lines(self, clip: PackedClip) -> list[str]:
    files = [f'{side} {line}' for side, source in clip.sources.items() for line in _files(source)]
    return [f'{clip.clip_id} {clip.fps} {clip.category}', *files]

  def relative(self, place: Readable | None) -> str:
    """A side's place as seen from `root`; '-' for none."""
    return '-' if place is None else os.path.relpath(str(place), self.root)


class _Notes:
  """Problems and warnings as they come up."""

  def __init__(self):
    self.problems: list[str] = []
    self.warnings: list[str] = []

  @contextlib.contextmanager
  def guard(self, where: object) -> Iterator[None]:
    """Turn whatever reading bad files raises into a problem: the one place where that is caught."""
    try:
      yield
    except errors.VqmError as error:
      self.problems.append(_one_line(error))
    except _UNREADABLE as error:
      self.problems.append(f'{where}: cannot be read ({_one_line(error)}); copy or download it again')


def resolve(manual_dir: str | os.PathLike, dataset: str, *, source_suffix: str = '') -> Layout:
  """The clips in <manual_dir>/<dataset> or <manual_dir>, and everything that is wrong with them.

  The clips of a side are what `list_videos` finds there. A manifest.csv (columns split, clip_id and, as far as known,
  lq, hq, fps, category) wins: its lines are the clips, in paths below the folder, and only for lines without `lq` are
  the folders asked. `source_suffix` picks one of several source folders that differ in their bitrate.
  Videos are not decoded beyond their first frame, of images the first one is read. Bad input is never raised, but
  listed under `problems`. Raises ConfigError for an unknown `dataset`.
  """
  if dataset not in _CHALLENGES:
    raise errors.ConfigError(f'dataset={dataset}: layout unknown, expected one of {", ".join(DATASETS)}.')
  challenge, notes = _CHALLENGES[dataset], _Notes()
  root = pathlib.Path(manual_dir)
  clips: list[PackedClip] = []
  with notes.guard(root):
    root = _root(root, dataset)
    clips = _clips(root, source_suffix, notes)
  # Counting the frames of videos takes a while.
  clips = [_examined(clip, challenge.exact, notes) for clip in cli.progress(clips, desc='examined', unit='clip')]
  _note_numbers(clips, challenge.counts, notes)
  return Layout(root, tuple(clips), tuple(notes.problems), tuple(notes.warnings))


def short_hash(lines: Sequence[str]) -> str:
  """16 hexadecimal digits that change with the lines."""
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:16]


def _one_line(error: Exception) -> str:
  return ' '.join((str(error) or type(error).__name__).split()).removesuffix('.')


def _note_numbers(clips: Sequence[PackedClip], expected: Mapping[str, int], notes: _Notes) -> None:
  """Warn of what differs from the challenge as a whole, and of rates that are assumed."""
  counts = collections.Counter(clip.split for clip in clips)
  if clips and any(counts[split] != expected[split] for split in SPLITS):
    found, whole = (', '.join(f'{of[split]} {split}' for split in SPLITS) for of in (counts, expected))
    notes.warnings.append(f'{found} clips, the challenge has {whole}: fine for a part of it')
  lengths = [clip.sources['lq'].num_frames for clip in clips if clip.split != 'train' and 'lq' in clip.sources]
  if others := sum(length != _EVALUATED_FRAMES for length in lengths):
    notes.warnings.append(f'{others} clips of val and test do not have {_EVALUATED_FRAMES} frames as in the challenge')
  if unknown := sum(clip.fps is None for clip in clips if clip.sources):
    notes.warnings.append(
      f'{unknown} clips are images, which carry no rate: {images.FPS} frames per second are assumed unless '
      'manifest.csv tells'
    )


def _root(manual_dir: pathlib.Path, dataset: str) -> pathlib.Path:
  if not manual_dir.is_dir():
    raise errors.DataError(f'{manual_dir}: no such folder; name the folder with the data of {dataset}')
  inner = [entry for entry in _visible(manual_dir) if entry.is_dir() and _plain(entry.name) == dataset]
  return inner[0] if inner else manual_dir


def _clips(root: pathlib.Path, source_suffix: str, notes: _Notes) -> list[PackedClip]:
  """The clips of the folders, or of the manifest with what the folders know of them."""
  rows = _manifest(root / 'manifest.csv', notes)
  # Folders that nobody asks for have no problems.
  listed = {} if rows and all(row.lq for row in rows) else _listed_sides(root, source_suffix, notes)
  if rows is None:
    clips = _paired(listed)
  else:
    clips = [row if row.lq else _completed(row, listed) for row in rows]
    in_folders = {(split, name) for (split, _), (_, places) in listed.items() for name in places}
    if others := len(in_folders - {(row.split, row.clip_id) for row in rows}):
      notes.warnings.append(f'{others} clips of the folders are not in manifest.csv and are left out')
  if not clips and not notes.problems:
    entries = ', '.join(sorted(entry.name for entry in _visible(root))[:8]) or 'nothing'
    notes.problems.append(
      f'{root}: no clips, found {entries}; expected folders or zips such as TrainingSourceDomain and '
      'TrainingTargetDomain, ValidationSource, TestSource, or a manifest.csv'
    )
  _note_missing(clips, {key for key, side in listed.items() if side is _UNKNOWN}, notes)
  return clips


def _paired(listed: _Listed) -> list[PackedClip]:
  """The clips of the folders, by their names."""
  clips = []
  for split in SPLITS:
    (lq_folder, lq), (hq_folder, hq) = (listed.get((split, side), _UNKNOWN) for side in ('lq', 'hq'))
    found = ', '.join(filter(None, (lq_folder, hq_folder)))
    clips += [PackedClip(split=split, clip_id=name, lq=lq.get(name), hq=hq.get(name), found=found) for name in lq | hq]
  return clips


def _completed(row: PackedClip, listed: _Listed) -> PackedClip:
  """A line of the manifest without a source, with what the folders have."""
  lq, hq = (listed.get((row.split, side), _UNKNOWN)[1].get(row.clip_id) for side in ('lq', 'hq'))
  return dataclasses.replace(row, lq=lq, hq=row.hq or hq)


def _note_missing(clips: Sequence[PackedClip], unknown: Container[tuple[str, str]], notes: _Notes) -> None:
  """Every clip needs its source, and in training its target; what is `unknown` has been noted already."""
  for split, side in itertools.product(SPLITS, _SIDE_WORDS):
    of_split = [clip for clip in clips if clip.split == split]
    missing = [clip.clip_id for clip in of_split if getattr(clip, side) is None]
    if not missing or (split, side) in unknown:
      continue
    text = f'{split}: no {_SIDE_WORDS[side]} for'
    names = f'clip{"s" if len(missing) > 1 else ""} {", ".join(missing)}'
    needed = side == 'lq' or split == 'train'
    if len(missing) < len(of_split) and needed:
      notes.problems.append(f'{text} {names}; both sides must use the same names')
    elif len(missing) < len(of_split):
      notes.warnings.append(f'{text} {names}, others have one')
    elif needed:
      notes.problems.append(f'{text} any clip, there are {len(missing)}; add a folder such as {split}/{side}')


class _Side(NamedTuple):
  """A folder, zip or tar whose name says that it holds one side of a split."""

  split: str
  side: str
  suffix: str
  place: Readable

  @property
  def archive(self) -> bool:
    """A zip or tar, which may have been left beside what was unpacked from it."""
    return not self.place.is_dir()


def _listed_sides(root: pathlib.Path, source_suffix: str, notes: _Notes) -> _Listed:
  """Every side that has a folder or archive; _UNKNOWN where it cannot be told which clips it holds."""
  groups = collections.defaultdict(list)
  for side in _sides(root, None, None, notes):
    groups[side.split, side.side].append(side)
  listed = {}
  for key, candidates in groups.items():
    where = f'{key[0]} {_SIDE_WORDS[key[1]]}'
    chosen = _chosen(where, candidates, _plain(source_suffix) if key[1] == 'lq' else '', root, notes)
    listed[key] = _UNKNOWN
    if chosen is None:
      continue
    with notes.guard(chosen.place):
      listed[key] = os.path.relpath(str(chosen.place), root), _listed(chosen.place, notes)
  return listed


def _sides(folder: Readable, split: str | None, side: str | None, notes: _Notes) -> Iterator[_Side]:
  """Yield the sides below `folder`, whose own name has told `split` or `side` or nothing."""
  ignored = []
  for entry in _visible(folder):
    is_zip = entry.name.lower().endswith('.zip') and entry.is_file() and isinstance(entry, pathlib.Path)
    is_tar = bool(_TAR.search(entry.name)) and entry.is_file()
    if not (entry.is_dir() or is_zip or is_tar):
      continue
    name = _TAR.sub('', entry.name) if is_tar else entry.name[:-4] if is_zip else entry.name
    match = _NAME.fullmatch(_plain(name))
    told = (_SPLIT_NAMES.get(match[1]), _SIDE_NAMES.get(match[2])) if match else (None, None)
    # A part that is known already may be repeated inside, but not contradicted.
    fits = all(known in (None, new) or new is None for known, new in zip((split, side), told, strict=True))
    if not any(told) or not fits:
      ignored.append(entry.name)
      continue
    new_split, new_side = told[0] or split, told[1] or side
    with notes.guard(entry):
      if new_split and new_side:
        yield _Side(new_split, new_side, match[3] or '', entry)
        continue
      if is_tar:
        raise errors.DataError(_refused_tar(entry))
      inner = list(_sides(_opened(entry), new_split, new_side, notes))
      if not inner:
        lacking = 'side and it holds no lq or hq' if new_split else 'split and it holds no train, val or test'
        raise errors.DataError(f'{entry}: the name tells no {lacking}; rename it or list its clips in manifest.csv')
      yield from inner
  if ignored:
    more = f' and {len(ignored) - 3} more' if len(ignored) > 3 else ''
    notes.warnings.append(
      f'{folder}: {", ".join(ignored[:3])}{more} ignored, the name tells no split or side that fits'
    )


def _chosen(where: str, candidates: list[_Side], suffix: str, root: pathlib.Path, notes: _Notes) -> _Side | None:
  """The one candidate that is to be read; None, with a problem noted, where that is not clear."""
  unpacked = {side.suffix for side in candidates if not side.archive}
  left = [side for side in candidates if not side.archive or side.suffix not in unpacked]
  for side in candidates:
    if side not in left:
      notes.warnings.append(f'{side.place}: ignored, there is a folder of that name')
  if suffix:
    left = [side for side in left if side.suffix == suffix] or [side for side in left if not side.suffix]
  if len(left) == 1:
    (side,) = left
    if not _TAR.search(side.place.name) or side.place.is_dir():
      return side
    notes.problems.append(_refused_tar(side.place))
    return None
  names = ', '.join(os.path.relpath(str(side.place), root) for side in left or candidates)
  if not left:
    notes.problems.append(f'{where}: no folder for --source_suffix={suffix}, found {names}; choose one of these')
  elif len({side.suffix for side in left}) > 1 and left[0].side == 'lq':
    suffixes = [side.suffix for side in left if side.suffix]
    notes.problems.append(
      f'{where}: several bitrates, {names}; choose one with --source_suffix={suffixes[0]} or move the others away'
    )
  else:
    notes.problems.append(f'{where}: expected one folder, found {names}; move the others away')
  return None


def _refused_tar(path: Readable) -> str:
  folder = _TAR.sub('', str(path))
  return f'{path}: tar archives are not read in place; unpack it: mkdir "{folder}" && tar -xf "{path}" -C "{folder}"'


def _listed(place: Readable, notes: _Notes) -> dict[str, Readable]:
  """{clip: place} of one side; notes what cannot be a clip."""
  folder = _unwrapped(_opened(place))
  clips = dict(list_videos(folder))
  in_zip = isinstance(folder, zipfile.Path)
  if in_zip and (packed := [name for name, clip in clips.items() if clip.is_file()]):
    archive = folder.root.filename
    raise errors.DataError(
      f'{archive}: holds videos or archives ({", ".join(packed[:3])}), which cannot be read in place; '
      f'unpack it: unzip "{archive}" -d "{archive[:-4]}"'
    )
  if numbered := [name for name, clip in clips.items() if str(clip) == str(folder)]:
    notes.problems.append(
      f'{folder}: images of a clip without a name; move them into a sub-folder or call them NNN_<number>.png'
    )
    del clips[numbered[0]]
  for entry in _visible(folder):
    if entry.is_dir() and entry.name not in clips:
      notes.problems.append(f'{entry}: holds no images, expected {", ".join(images.SUFFIXES)}; remove or fill it')
    elif entry.is_file() and _TAR.search(entry.name):
      notes.problems.append(_refused_tar(entry))
  if not clips and not numbered:
    notes.problems.append(f'{folder}: holds no clips, expected folders of images, videos or images NNN_<number>.png')
  return clips


def _opened(place: Readable) -> Readable:
  """A zip as a folder, a folder as it is."""
  return zips.root(place) if place.is_file() else place


def _unwrapped(folder: Readable) -> Readable:
  """The only folder in `folder` where that holds the clips, as in archives; else `folder` itself."""
  entries = _visible(folder)
  if len(entries) == 1 and entries[0].is_dir():
    match = _NAME.fullmatch(_plain(entries[0].name))
    if (match and any(match.groups())) or not list_videos(folder) or len(list_videos(entries[0])) > 1:
      return entries[0]
  return folder


def _visible(folder: Readable) -> list[Readable]:
  """Entries of a folder or zip by name, without those that systems and archivers add."""
  entries = [entry for entry in folder.iterdir() if not entry.name.startswith(('.', '__MACOSX'))]
  return sorted(entries, key=lambda entry: entry.name)


def _plain(name: str) -> str:
  return re.sub(r'[_\-\s]', '', name.lower())


def _manifest(path: pathlib.Path, notes: _Notes) -> list[PackedClip] | None:
  """The clips of manifest.csv in order of the splits; None without one and, with a problem, for one of another kind."""
  if not path.is_file():
    return None
  rows: list[schemas.Row] | None = None
  with notes.guard(path):
    lines = schemas.read_csv(path)
    if not lines or not {'split', 'clip_id'} <= lines[0].keys():
      raise errors.DataError(f'{path}: expected a first line with {",".join(_COLUMNS)} and then a clip a line')
    rows = lines
  if rows is None:
    return None
  clips: dict[tuple[str, str], PackedClip] = {}
  for line in rows:
    row = {key: (line.get(key) or '').strip() for key in _COLUMNS}
    where = f'{path.name}, line {line.line}'
    split, name = _SPLIT_NAMES.get(_plain(row['split'])), row['clip_id']
    if split is None or not name:
      notes.problems.append(
        f'{where}: split={row["split"]!r:.60}, clip_id={name!r:.60}, expected {", ".join(SPLITS)} and a name'
      )
      continue
    if wrong := names.problem(name):
      notes.problems.append(f'{where}: {names.refusal(name, wrong)}')
      continue
    if (split, name) in clips:
      notes.problems.append(f'{where}: clip {split}/{name} a second time, expected once; remove a line')
      continue
    fps = _rate(row['fps']) if row['fps'] else None
    if row['fps'] and fps is None:
      notes.problems.append(f'{where}: fps={row["fps"]!r:.60}, expected for example 25 or 30000/1001')
    lq, hq = (path.parent / row[side] if row[side] else None for side in ('lq', 'hq'))
    clips[split, name] = PackedClip(
      split=split, clip_id=name, lq=lq, hq=hq, fps=fps, category=row['category'], found=where
    )
  return sorted(clips.values(), key=lambda clip: SPLITS.index(clip.split))


def _rate(text: str) -> Fraction | None:
  try:
    return schemas.rate(text)
  except ValueError:
    return None


def _examined(clip: PackedClip, exact: bool, notes: _Notes) -> PackedClip:
  """`clip` with its sides opened and compared."""
  sources: dict[str, VideoSource] = {}
  for side, place in (('lq', clip.lq), ('hq', clip.hq)):
    if place is not None:
      with notes.guard(place):
        source = open_video(place, fps=clip.fps, variable_rate=True)
        if source.num_frames:  # a video file is read through to count them
          sources[side] = source
  videos = [source for source in sources.values() if isinstance(source, VideoFile)]
  if videos and clip.fps is None:
    clip = dataclasses.replace(clip, fps=videos[0].fps)
    for source in sources.values():
      if isinstance(source, ImageFrames):
        source.fps = videos[0].fps
  clip = dataclasses.replace(clip, sources=sources)
  _compare(clip, exact, notes)
  return clip


def _compare(clip: PackedClip, exact: bool, notes: _Notes) -> None:
  """Note what does not fit between the sides, as a problem where they must be `exact`, and repeated numbers."""
  name = f'{clip.split}/{clip.clip_id}'
  numbers = {side: _numbers(source) for side, source in clip.sources.items()}
  for side, found in numbers.items():
    if found and len(set(found)) < len(found):
      twice = collections.Counter(found).most_common(1)[0][0]
      notes.problems.append(f'{name}: several {_SIDE_WORDS[side]} images have the number {twice}; keep one of them')
  if len(clip.sources) < 2:
    return
  lq, hq = clip.sources['lq'], clip.sources['hq']
  shapes = [f'{source.num_frames} frames {source.width}x{source.height}' for source in (lq, hq)]
  if shapes[0] != shapes[1]:
    text = f'{name}: the source has {shapes[0]}, the target {shapes[1]}'
    if exact:
      notes.problems.append(f'{text}; both sides must show the same frames')
    else:
      notes.warnings.append(text)
  elif exact and numbers['lq'] and numbers['hq'] and numbers['lq'] != numbers['hq']:
    first, other = numbers['lq'][0], numbers['hq'][0]
    steps = ([number - found[0] for number in found] for found in numbers.values())
    text = f'{name}: source images are numbered from {first}, target images from {other}'
    if {first, other} == {0, 1} and next(steps) == next(steps):
      notes.warnings.append(f'{text}; the first of each are taken for the same frame')
    else:
      notes.problems.append(f'{text} or in other steps; both sides must show the same frames')
  if isinstance(lq, VideoFile) and isinstance(hq, VideoFile) and lq.fps != hq.fps:
    rates = f'{float(lq.fps):.5g} frames per second, the target {float(hq.fps):.5g}'
    notes.warnings.append(f'{name}: the source has {rates}')


def _numbers(source: VideoSource | None) -> list[int] | None:
  """The frame numbers in the names of images; None for videos and for names without any."""
  if not isinstance(source, ImageFrames):
    return None
  found = [re.findall(r'\d+', pathlib.PurePath(file.name).stem)[-1:] for file in source.files]
  # The same number in all names counts something else.
  if not all(found) or (len(found) > 1 and all(number == found[0] for number in found)):
    return None
  return [int(number[0]) for number in found]


def _files(source: VideoSource) -> list[str]:
  """Name and size in bytes of each file behind `source`."""
  files = source.files if isinstance(source, ImageFrames) else [source.path]
  return [
    f'{file.name} {file.root.getinfo(file.at).file_size if isinstance(file, zipfile.Path) else file.stat().st_size}'
    for file in files
  ]
