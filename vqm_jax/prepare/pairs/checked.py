"""Facts from every frame of a pair, remembered beside the pairs: whether it fits, and its scene cuts.

`checked.json` in the folder of the pairs has an entry for each pair, which counts as long as its files are the same;
`degrade.json` has one for each pair that degrade made.
"""

import collections
import dataclasses
import hashlib
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from vqm_jax import cli, files, schemas
from vqm_jax.prepare.pairs import align, scenes
from vqm_jax.video import VideoSource, mark_cuts
from vqm_jax.video.images import ImageFrames

if TYPE_CHECKING:  # TFDS takes a while to start
  from vqm_jax.prepare.records.configs import ClipPair

FILE, JOURNAL, IN_JOURNAL = 'checked.json', 'degrade.json', 'checked'
_ENDS = 1 << 16  # bytes of the first and the last file that are read to tell files of equal size apart


@dataclasses.dataclass(frozen=True)
class Checked:
  """`cuts`: frames of LQ that start a scene, as they are found in use. `alignment`: None without a target."""

  cuts: tuple[int, ...]
  alignment: align.Alignment | None

  @property
  def problem(self) -> str:
    """Why the pair cannot be used; '' if it can."""
    return self.alignment.problem if self.alignment else ''

  def to_json(self) -> dict[str, Any]:
    """Return it as JSON values, for `from_json`."""
    return {'cuts': list(self.cuts), 'alignment': self.alignment and dataclasses.asdict(self.alignment)}

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> 'Checked':
    """Read the values of `to_json`. Raises KeyError or TypeError for anything else."""
    found = values['alignment']
    alignment = found and align.Alignment(**{**found, 'shift': tuple(found['shift'])})
    return cls(tuple(map(int, values['cuts'])), alignment)


@dataclasses.dataclass(frozen=True)
class _Entry:
  """The entry of a pair in the file."""

  digest: str
  cuts: list[schemas.Count]
  alignment: align.Alignment | None


def look(pair: 'ClipPair') -> Checked:
  """Decode a pair from the first to the last frame. Raises VideoError for damage."""
  cuts = []

  def lq() -> Iterator[np.ndarray]:
    for index, (frame, starts_scene) in enumerate(mark_cuts(pair.lq.frames())):
      if starts_scene:
        cuts.append(index)
      yield _luma(frame)

  alignment = align.measure(map(_luma, pair.hq.frames()), lq()) if pair.hq is not None else None
  if alignment is None:
    collections.deque(lq(), maxlen=0)
  return Checked(tuple(cuts), alignment)


def checked(folder: pathlib.Path, pairs: Sequence['ClipPair']) -> list[Checked]:
  """Return the facts of each pair; decode those that nobody has looked at yet, and remember them as they come."""
  memory = Memory(folder)
  found = [memory.get(pair) for pair in pairs]
  missing = [k for k, known in enumerate(found) if known is None]
  for k in cli.progress(missing, desc='checked', unit='pair'):
    found[k] = look(pairs[k])
    memory.put(pairs[k], found[k])
  return found


def with_scenes(pair: 'ClipPair', found: Checked) -> 'ClipPair':
  """The pair, with the scenes that were found unless its own are known."""
  if pair.scenes:
    return pair
  return dataclasses.replace(pair, scenes=scenes.from_starts(found.cuts, pair.reference.num_frames))


def entry(folder: pathlib.Path, lq: VideoSource, hq: VideoSource | None, found: Checked) -> dict[str, Any]:
  """Make the entry of a pair: {its place in `folder`: the facts, and a digest of its files}."""
  return {_key(folder, lq): {'digest': _digest(lq, hq), **found.to_json()}}


class Memory:
  """The remembered facts of the pairs in `folder`."""

  def __init__(self, folder: pathlib.Path):
    self._folder, self._path = folder, folder / FILE
    self._made = _read(folder / JOURNAL, IN_JOURNAL)
    self._entries = _read(self._path)
    self._warned = False

  def get(self, pair: 'ClipPair') -> Checked | None:
    """Return the facts of a pair; None if there are none or its files have changed since."""
    key, digest = _key(self._folder, pair.lq), _digest(pair.lq, pair.hq)
    known = [entries[key] for entries in (self._entries, self._made) if key in entries]
    return next((Checked.from_json(entry) for entry in known if entry['digest'] == digest), None)

  def put(self, pair: 'ClipPair', found: Checked) -> None:
    """Remember; where nothing can be written, it warns."""
    # Another build may have looked at other pairs meanwhile.
    self._entries = _read(self._path) | entry(self._folder, pair.lq, pair.hq, found)
    try:
      files.write_json(self._path, self._entries)
    except OSError as error:
      if not self._warned:
        logging.warning('%s: what was found is not kept (%s); pairs are looked at again.', self._path, error.strerror)
      self._warned = True


def _key(folder: pathlib.Path, lq: VideoSource) -> str:
  place = pathlib.Path(str(_files(lq)[0]))
  return place.relative_to(folder).as_posix() if place.is_relative_to(folder) else str(place)


def _read(path: pathlib.Path, part: str = '') -> dict[str, Any]:
  """The entries in a file, or in a part of it; none without it."""
  try:
    entries = schemas.load(path, dict[str, Any], paths=True)
    entries = entries.get(part, {}) if part else entries
    schemas.check(entries, dict[str, _Entry], part)
    return entries
  except FileNotFoundError:
    return {}
  except schemas.Misfit as error:
    logging.warning('%s: is damaged (%s); pairs are looked at again.', path, error)
    return {}


def _luma(frame: np.ndarray) -> np.ndarray:
  import cv2

  return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _files(source: VideoSource) -> Sequence[pathlib.Path | zipfile.Path]:
  return source.files if isinstance(source, ImageFrames) else [source.path]


def _digest(lq: VideoSource, hq: VideoSource | None) -> str:
  """Changes with the files of a pair: by the sizes of all and some bytes of the first and the last."""
  digest = hashlib.sha256(f'{align.VERSION} {lq.num_frames}'.encode())
  for source in filter(None, (lq, hq)):
    sides = _files(source)
    digest.update(repr([_size(file) for file in sides]).encode())
    for file in (sides[0], sides[-1]):
      with file.open('rb') as stream:
        digest.update(stream.read(_ENDS))
        if not isinstance(file, zipfile.Path) and _size(file) > _ENDS:
          stream.seek(-_ENDS, 2)
          digest.update(stream.read())
  return digest.hexdigest()[:16]


def _size(file: pathlib.Path | zipfile.Path) -> int:
  return file.root.getinfo(file.at).file_size if isinstance(file, zipfile.Path) else file.stat().st_size
