"""The archive that a challenge server takes: a flat zip of PNG frames and a readme, written and checked.

No rule of the 2020 challenge is public beyond "a subset of frames for validation, all for the test". What is done here
is what participants of this series of challenges have in their scripts: no folders, 8-bit RGB, `readme.txt` with four
lines. The subset was very likely frames 19, 39, ... 119 of each clip, counted from 0 and named `NNN_%06d.png`: a script
that a participant released in March 2020 packs these. A team had 10 submissions a day, 20 in all.
"""

import collections
import dataclasses
import math
import pathlib
import re
import string
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from vqm_jax import errors, files, zips
from vqm_jax.report import frame_folders

README = 'readme.txt'
PATTERN = '{clip}_{index:06d}.png'
UNITS = ('frame', 'image', 'video')

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the archive does not depend on when it was made
_LARGEST = 512 * 2**20  # bytes of one entry, far beyond any frame: more would only fill the memory
_LISTED = 6  # problems that a message names
_FIELDS = {
  'runtime': r'runtime per (?:frame|image|video) \[s\]',
  'cpu': r'CPU\[1\] / GPU\[0\]',
  'extra': r'Extra Data \[1\] / No Extra Data \[0\]',
  'other': r'Other description',
}


@dataclasses.dataclass(frozen=True)
class Readme:
  """The facts that the organisers ask for.

  Attributes:
    runtime: seconds for one `unit`.
    cpu: whether it was measured on a CPU.
    extra_data: whether other data were trained on, too.
    other: hardware, framework, links; one line.
    unit: of the runtime: frame, image or video.
  """

  runtime: float
  cpu: bool
  extra_data: bool
  other: str
  unit: str = 'frame'

  def text(self) -> str:
    """The four lines."""
    return (
      f'runtime per {self.unit} [s] : {self.runtime:.4g}\n'
      f'CPU[1] / GPU[0] : {int(self.cpu)}\n'
      f'Extra Data [1] / No Extra Data [0] : {int(self.extra_data)}\n'
      f'Other description : {" ".join(self.other.split())}\n'
    )


def readme_problems(text: str) -> list[str]:
  """List the problems of a readme; none if its four lines are there and hold what they should."""
  lines = [line for line in text.splitlines() if line.strip()]
  if len(lines) != len(_FIELDS):
    return [f'{README} has {len(lines)} lines instead of {len(_FIELDS)}']
  problems = []
  for (field, label), line in zip(_FIELDS.items(), lines, strict=True):
    match = re.fullmatch(rf'\s*{label}\s*:(.*)', line)
    value = match.group(1).strip() if match else ''
    if not match:
      problems.append(f'{README}: {line[:60]!r} is not the line of the {field} field')
    elif field == 'runtime' and not _positive(value):
      problems.append(f'{README}: the runtime is {value!r}, expected seconds above 0')
    elif field in ('cpu', 'extra') and value not in ('0', '1'):
      problems.append(f'{README}: {line.split(":")[0].strip()} is {value!r}, expected 0 or 1')
    elif not value:
      problems.append(f'{README}: the description is empty')
  return problems


def _positive(text: str) -> bool:
  try:
    return 0 < float(text) < math.inf
  except ValueError:
    return False


def every(select: str) -> int:
  """1 for 'all', N for 'every:N'. Raises ConfigError for anything else."""
  if select == 'all':
    return 1
  match = re.fullmatch(r'every:([1-9]\d*)', select)
  if not match:
    raise errors.ConfigError(f'--select={select} is not all or every:N, for example every:20.')
  return int(match.group(1))


def chosen(
  clips: frame_folders.Clips, step: int, numbers: Mapping[str, Sequence[int]] | None = None
) -> dict[str, dict[int, pathlib.Path]]:
  """{clip: {number: frame}} of every step-th frame, numbers from 1: step, 2 step, ...

  Args:
    clips: their frames; with `numbers` those that were kept, else all there are.
    step: 1 takes all.
    numbers: of the frames of each clip, where not all were kept.

  Raises:
    DataError: a frame that is wanted was not kept, or a clip is too short to have one.
  """
  out = {}
  for clip, paths in clips.items():
    have = list(numbers[clip]) if numbers else list(range(1, len(paths) + 1))
    by_number = dict(zip(have, paths, strict=True))
    last = max(have) if numbers else len(paths)
    if missing := [number for number in range(step, last + 1, step) if number not in by_number]:
      raise errors.DataError(
        f'clip {clip}: frame {missing[0]} was not kept ({len(missing)} of {last // step} are missing); evaluate with '
        f'--frames={"all" if step == 1 else f"every:{step}"} --save_frames, or choose others with --select.'
      )
    if last < step:
      raise errors.DataError(
        f'clip {clip} has {last} frames, none of them is every {step}th one; use --select=all, or complete the clip.'
      )
    out[clip] = {number: by_number[number] for number in range(step, last + 1, step)}
  return out


def entry_names(
  frames: Mapping[str, Mapping[int, pathlib.Path]], pattern: str | None = None
) -> dict[str, tuple[str, int]]:
  """{name in the archive: (clip, number)}.

  Args:
    frames: as `chosen` returns them; with their own names where there is no pattern.
    pattern: of str.format with {clip}, {frame} (from 1), {index} (from 0), {name} (of the file). By default files keep
      their names if no two clips share one; otherwise it is `PATTERN`.

  Raises:
    ConfigError: a pattern that cannot be filled, makes folders or gives two frames one name.
  """
  plain = [file.name for paths in frames.values() for file in paths.values()]
  if pattern is None:
    distinct = len({name.lower() for name in plain}) == len(plain)
    pattern = '{name}.png' if distinct else PATTERN
  try:
    fields = {field.split('.')[0].split('[')[0] for _, field, _, _ in string.Formatter().parse(pattern) if field}
    if unknown := fields - {'clip', 'frame', 'index', 'name'}:
      raise KeyError(f'unknown field {sorted(unknown)[0]!r}')
    names = [
      (pattern.format(clip=clip, frame=number, index=number - 1, name=file.stem), (clip, number))
      for clip, paths in frames.items()
      for number, file in paths.items()
    ]
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    raise errors.ConfigError(
      f'--names={pattern}: {error}; expected a pattern such as {PATTERN} of clip, frame, index, name.'
    ) from error
  for name, _ in names:
    if not name.endswith('.png') or _unsafe(name) or '/' in name:
      raise errors.ConfigError(f'--names={pattern} makes {name!r}; expected names that end in .png, without folders.')
  twice = [name for name, count in collections.Counter(name.lower() for name, _ in names).items() if count > 1]
  if twice:
    raise errors.ConfigError(
      f'--names={pattern} gives {len(twice)} names to several frames, such as {twice[0]}; use both clip and frame.'
    )
  return dict(names)


def pack(
  path: pathlib.Path,
  frames: Mapping[str, pathlib.Path],
  readme: Readme,
  progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> int:
  """Write frames, by name in the archive, and the readme; return the size in bytes.

  Entries are sorted, stored as they are and without times: the same frames give the same bytes. `progress` wraps the
  list of names to show how far it is.

  Raises:
    DataError: a frame is no plain 8-bit RGB PNG.
  """
  with files.replacing(path) as partial, zipfile.ZipFile(partial, 'w', zipfile.ZIP_STORED) as archive:
    for name in progress(sorted([*frames, README])):
      content = readme.text().encode() if name == README else frames[name].read_bytes()
      if name != README:
        frame_folders.decode(content, str(frames[name]))
      info = zipfile.ZipInfo(name, _TIME)
      info.create_system, info.external_attr = 3, 0o644 << 16
      archive.writestr(info, content)
  return path.stat().st_size


def verify(
  path: pathlib.Path, expected: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, frame_folders.Picture]:
  """Check an archive before it is sent; read it in memory, so that nothing can be written outside of a folder.

  Args:
    path: of the zip.
    expected: width and height by name, of the frames that should be there; without, only what holds for any archive.

  Returns:
    What the pictures are, by name.

  Raises:
    DataError: it is no zip, is damaged, or would be refused; the message tells all the reasons.
  """
  with zips.fenced(path, says=' is no zip that can be read'):
    if not path.exists():
      raise errors.DataError(f'{path}: no such file; pack frames with --frames first.')
    with zipfile.ZipFile(path) as archive:
      problems = list(_listing_problems(archive.infolist(), expected))
      pictures = {}
      if any(_unsafe(info.filename) for info in archive.infolist()):
        raise _refused(path, problems)
      for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if info.is_dir() or info.file_size > _LARGEST or not (info.filename.endswith('.png') or _is_readme(info)):
          continue
        content = archive.read(info)
        if _is_readme(info):
          problems += readme_problems(content.decode('utf-8', errors='replace'))
          continue
        try:
          picture = frame_folders.head(content, info.filename)
          if picture.complaint:
            problems.append(f'{info.filename} is {picture.complaint}, expected plain 8-bit RGB')
            continue
          size = (expected or {}).get(info.filename)
          if size and size != (picture.width, picture.height):
            problems.append(f'{info.filename} is {picture.width}x{picture.height}, expected {size[0]}x{size[1]}')
            continue
          frame_folders.decode(content, info.filename)
        except errors.DataError as error:
          problems.append(str(error).rstrip('.'))
          continue
        pictures[info.filename] = picture
  if problems:
    raise _refused(path, problems)
  return pictures


def frames(path: pathlib.Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
  """Name and frame, uint8 (H, W, 3), of an archive that was verified."""
  with zipfile.ZipFile(path) as archive:
    for name in names:
      with zips.fenced(path):
        frame = frame_folders.decode(archive.read(name), name)
      yield name, frame


def _refused(path: pathlib.Path, problems: Sequence[str]) -> errors.DataError:
  listed = '; '.join(problems[:_LISTED]) + (f'; and {len(problems) - _LISTED} more' if len(problems) > _LISTED else '')
  return errors.DataError(f'{path} would be refused: {listed}. Mend the frames and pack them again.')


def _listing_problems(
  entries: Sequence[zipfile.ZipInfo], expected: Mapping[str, tuple[int, int]] | None
) -> Iterator[str]:
  """List the problems that the list of entries shows."""
  names = [entry.filename for entry in entries]
  for entry in entries:
    name = entry.filename
    if _unsafe(name):
      yield f'{name!r} leads out of the folder that it is unpacked to'
    elif entry.is_dir() or '/' in name:
      yield f'{name} is a folder or lies in one, expected a flat archive'
    elif name != README and not name.endswith('.png'):
      yield f'{name} is neither a .png nor {README}'
    elif entry.file_size > _LARGEST:
      yield f'{name} claims {entry.file_size / 2**20:.0f} MiB, expected at most {_LARGEST // 2**20}'
  for name, count in collections.Counter(name.lower() for name in names).items():
    if count > 1:
      yield f'{name} is there {count} times'
  if README not in names:
    yield f'{README} is missing'
  if expected is None:
    if not any(name.endswith('.png') for name in names):
      yield 'there is no frame'
    return
  if missing := sorted(expected.keys() - set(names)):
    yield f'{len(missing)} of {len(expected)} frames are missing ({_some(missing)})'
  if extra := sorted({name for name in names if name.endswith('.png') and '/' not in name} - expected.keys()):
    yield f'{len(extra)} frames are not expected ({_some(extra)})'


def _is_readme(info: zipfile.ZipInfo) -> bool:
  return info.filename == README


def _unsafe(name: str) -> bool:
  """Whether a name would leave the folder it is unpacked to, on any system."""
  parts = name.replace('\\', '/').split('/')
  return '\\' in name or '..' in parts or parts[0] == '' or bool(re.match(r'[A-Za-z]:', name)) or '\0' in name


def _some(names: Sequence[str]) -> str:
  return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
