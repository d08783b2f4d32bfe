"""What looking at every frame of a pair tells, remembered beside the pairs: whether it fits, and its scene cuts.

`checked.json` in the folder of the pairs has an entry for each pair, which counts as long as its files are the same.
"""

import dataclasses
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from vqm_jax import cli, errors, files
from vqm_jax.prepare.pairs import align, scenes
from vqm_jax.prepare.records.configs import ClipPair
from vqm_jax.video import VideoSource, mark_cuts
from vqm_jax.video.images import ImageFrames

FILE = 'checked.json'
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
    return {'cuts': list(self.cuts), 'alignment': self.alignment and dataclasses.asdict(self.alignment)}

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> 'Checked':
    """What `to_json` wrote; raises KeyError or TypeError for anything else."""
    found = values['alignment']
    alignment = found and align.Alignment(**{**found, 'shift': tuple(found['shift'])})
    return cls(tuple(map(int, values['cuts'])), alignment)


def look(pair: ClipPair) -> Checked:
  """Decodes a pair from the first to the last frame. Raises VideoError for damage."""
  cuts = []

  def lq() -> Iterator[np.ndarray]:
    for index, (frame, starts_scene) in enumerate(mark_cuts(pair.lq.frames())):
      if starts_scene:
        cuts.append(index)
      yield _luma(frame)

  if pair.hq is None:
    for _ in lq():
      pass
    return Checked(tuple(cuts), None)
  return Checked(tuple(cuts), align.measure(map(_luma, pair.hq.frames()), lq()))


def checked(folder: pathlib.Path, pairs: Sequence[ClipPair]) -> list[Checked]:
  """What is known of each pair; the pairs that nobody has looked at yet are looked at, and remembered as they come.

  Raises DataError for a `checked.json` of another kind.
  """
  memory = Memory(folder)
  found = [memory.get(pair) for pair in pairs]
  missing = [k for k, known in enumerate(found) if known is None]
  for k in cli.progress(missing, desc='checked', unit='pair'):
    found[k] = look(pairs[k])
    memory.put(pairs[k], found[k])
  return found


def with_scenes(pair: ClipPair, found: Checked) -> ClipPair:
  """The pair, with the scenes that were found unless its own are known."""
  if pair.scenes:
    return pair
  return dataclasses.replace(pair, scenes=scenes.from_starts(found.cuts, pair.reference.num_frames))


class Memory:
  """`checked.json` in `folder`."""

  def __init__(self, folder: pathlib.Path):
    self._folder, self._path = folder, folder / FILE
    self._entries = self._read()
    self._warned = False

  def get(self, pair: ClipPair) -> Checked | None:
    """What was found, unless the files have changed since."""
    entry = self._entries.get(self._key(pair))
    return Checked.from_json(entry) if entry and entry['digest'] == _digest(pair) else None

  def put(self, pair: ClipPair, found: Checked) -> None:
    """Remembers; where nothing can be written, it warns."""
    # Another build may have looked at other pairs meanwhile.
    self._entries = self._read() | {self._key(pair): {'digest': _digest(pair), **found.to_json()}}
    try:
      files.write_json(self._path, self._entries)
    except OSError as error:
      if not self._warned:
        logging.warning('%s: what was found is not kept (%s); pairs are looked at again.', self._path, error.strerror)
      self._warned = True

  def _key(self, pair: ClipPair) -> str:
    place = pathlib.Path(str(_files(pair.lq)[0]))
    return place.relative_to(self._folder).as_posix() if place.is_relative_to(self._folder) else str(place)

  def _read(self) -> dict[str, Any]:
    if not self._path.is_file():
      return {}
    try:
      entries = json.loads(self._path.read_text())
      for entry in entries.values():
        Checked.from_json(entry), str(entry['digest'])
      return entries
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
      raise errors.DataError(
        f'{self._path}: is not what a build writes ({type(error).__name__}: {error}); remove it, the pairs are looked '
        'at again.'
      ) from error


def _luma(frame: np.ndarray) -> np.ndarray:
  import cv2

  return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _files(source: VideoSource) -> Sequence[pathlib.Path | zipfile.Path]:
  return source.files if isinstance(source, ImageFrames) else [source.path]


def _digest(pair: ClipPair) -> str:
  """Changes with the files of a pair: by the sizes of all and some bytes of the first and the last."""
  digest = hashlib.sha256(f'{align.VERSION} {pair.lq.num_frames}'.encode())
  for source in filter(None, (pair.lq, pair.hq)):
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
