"""Frames that lie in folders as PNG: which clips there are, and what the pictures are like, without decoding them."""

import collections
import dataclasses
import io
import pathlib
import re
import struct
from collections.abc import Iterable

import numpy as np
from PIL import Image

from vqm_jax import errors, names, pictures
from vqm_jax.summary import Summary

Clips = dict[str, list[pathlib.Path]]

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_COLOURS = {0: 'grey', 2: 'RGB', 3: 'palette', 4: 'grey with alpha', 6: 'RGB with alpha'}
# They change what a viewer shows, and scoring scripts do not agree on whether to heed them.
_UNWANTED = {'tRNS': 'transparency', 'iCCP': 'a colour profile', 'gAMA': 'a gamma', 'cHRM': 'chromaticities'}
_UNWANTED |= {'cICP': 'a colour space', 'acTL': 'an animation'}


@dataclasses.dataclass(frozen=True)
class Picture:
  """The head of a PNG file: size in pixels, bits per channel, kind of colour, unusual chunks."""

  width: int
  height: int
  bits: int
  colour: str
  chunks: tuple[str, ...]

  @property
  def complaint(self) -> str:
    """Why this is no plain 8-bit RGB picture; '' if it is."""
    found = [] if (self.bits, self.colour) == (8, 'RGB') else [f'{self.bits}-bit {self.colour}']
    return ' with '.join([*found, *([', '.join(self.chunks)] if self.chunks else [])])


def find(folder: str | pathlib.Path, flag: str) -> Clips:
  """The frames of every clip, in the order of their numbers.

  Args:
    folder: holds PNG files (one clip, named as the folder), groups of them (`060_001.png`), or a folder for each clip.
    flag: for the messages.

  Raises:
    DataError: there is no such folder, no frame, a number is missing between two frames, or the name of a clip is none.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    found = 'found a file' if folder.exists() else 'there is none'
    raise errors.DataError(f'{flag}={folder}: expected a folder of PNG frames, or of folders of them; {found}.')
  clips: Clips = collections.defaultdict(list)
  for entry in folder.iterdir():
    if entry.name.startswith('.'):
      continue
    if entry.is_dir():
      if frames := [file for file in entry.iterdir() if _is_frame(file)]:
        clips[entry.name] += frames
    elif _is_frame(entry):
      prefix = re.fullmatch(r'(.+)[_-]\d+', entry.stem)
      clips[prefix.group(1) if prefix else folder.resolve().name].append(entry)
  if not clips:
    raise errors.DataError(
      f'{flag}={folder} holds no PNG frame; evaluate with --save_frames, or turn videos into PNG files first.'
    )
  names.check(clips, f'{flag}={folder}')
  return {name: _ordered(clips[name], name, flag) for name in sorted(clips, key=_natural)}


def of_summary(summary: Summary, path: pathlib.Path, side: str, flag: str) -> Clips | None:
  """The frames that an evaluation kept, by clip; side is output, input or target, None where it had none.

  Raises:
    DataError: no frames were kept, or some are gone.
  """
  folders = summary.folders
  if not folders:
    raise errors.DataError(f'{flag}={path}: its frames were not kept; evaluate again with --save_frames.')
  if side not in folders:
    return None
  folder = path.parent / folders[side]
  if side != 'output' and not folder.is_dir():  # a run whose test set has no targets
    return None
  clips, scored = find(folder, flag), summary.frame_indices
  names.check(scored, str(path))
  if len(clips) == len(scored) == 1:  # a single clip is scored whatever its name is
    clips = dict(zip(scored, clips.values(), strict=True))
  for name, indices in scored.items():
    if len(clips.get(name, ())) < len(indices):
      raise errors.DataError(
        f'{folder} has {len(clips.get(name, ()))} frames of clip {name}, {len(indices)} were scored; evaluate again '
        'with --save_frames.'
      )
  return clips


def wanted(clips: Clips, chosen: Iterable[str], flag: str) -> Clips:
  """The clips of these names, in this order; DataError names those that are missing."""
  chosen = list(chosen)
  if missing := [name for name in chosen if name not in clips]:
    raise errors.DataError(
      f'{flag} lacks {len(missing)} of {len(chosen)} clips: {", ".join(missing[:5])}{", ..." * (len(missing) > 5)}; it '
      f'has {", ".join(list(clips)[:5])}{", ..." * (len(clips) > 5)}.'
    )
  return {name: clips[name] for name in chosen}


def head(content: bytes, name: str) -> Picture:
  """Read the head of a PNG file. Raises DataError when it is none, or cut off."""
  if not content.startswith(_SIGNATURE):
    raise errors.DataError(f'{name} is no PNG file; write the frames as 8-bit RGB PNG.')
  place, chunks, size = len(_SIGNATURE), [], None
  while place + 12 <= len(content):
    length, kind = struct.unpack('>I4s', content[place : place + 8])
    if kind == b'IHDR' and length == 13:
      size = struct.unpack('>IIBB', content[place + 8 : place + 18])
    chunks.append(kind.decode('latin-1'))
    place += length + 12
    if kind == b'IEND' and size:
      unwanted = tuple(_UNWANTED[chunk] for chunk in dict.fromkeys(chunks) if chunk in _UNWANTED)
      return Picture(*size[:3], _COLOURS.get(size[3], 'unknown'), unwanted)
  raise errors.DataError(f'{name} is damaged: the PNG file is cut off; write it again.')


def decode(content: bytes, name: str) -> np.ndarray:
  """Plain 8-bit RGB PNG as uint8 (H, W, 3). Raises DataError for anything else, and for damaged files."""
  if complaint := head(content, name).complaint:
    raise errors.DataError(f'{name} is {complaint}; expected plain 8-bit RGB, so write it again as that.')
  with pictures.fenced(name, remedy='write it again'), Image.open(io.BytesIO(content), formats=['PNG']) as image:
    return np.asarray(image.convert('RGB'))


def _is_frame(path: pathlib.Path) -> bool:
  return path.suffix.lower() == '.png' and not path.name.startswith('.')


def _natural(text: str) -> list:
  return [(int(part), '') if part.isdecimal() else (0, part) for part in re.split(r'(\d+)', text) if part]


def _ordered(files: list[pathlib.Path], clip: str, flag: str) -> list[pathlib.Path]:
  """Files by number, which must rise evenly: a hole would shift every later frame."""
  files = sorted(files, key=lambda file: _natural(file.name))
  numbers = [re.findall(r'\d+', file.stem)[-1:] for file in files]
  if all(numbers) and len(files) > 2:
    numbers = [int(number[0]) for number in numbers]
    steps = [after - before for before, after in zip(numbers, numbers[1:], strict=False)]
    for file, step in zip(files, steps, strict=False):
      if step != min(steps):
        raise errors.DataError(
          f'{flag}: clip {clip} lacks frames after {file.name}, where the number rises by {step} instead of '
          f'{min(steps)}; complete the clip.'
        )
  return files
