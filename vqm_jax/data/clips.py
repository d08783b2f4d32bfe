"""Whole clips for validation and test: frames in order, decoded ahead, in bounded memory."""

import collections
import concurrent.futures
import dataclasses
import io
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vqm_jax import errors, names, pictures
from vqm_jax.data.records import ClipEntry, DataSource, Records, describe, metadata

# Decoding a 1080p pair takes about 0.15 s of one core; 8 pairs ahead are 100 MB.
_THREADS = 4
_PAIRS_AHEAD = 8


@dataclasses.dataclass(frozen=True)
class Clip:
  """Where a clip lies in its split, and what it is; `cuts` are frames that start a scene, None if no record tells."""

  name: str
  first_record: int
  num_frames: int
  height: int
  width: int
  fps: float
  category: str
  cuts: tuple[int, ...] | None = None


class ClipReader:
  """Reads the clips of one split of a `frames` config.

  Args:
    source: from `open_source`; one record per frame, in order, with the table of clips in the
      dataset's metadata. Without a field `hq` (targets withheld) every hq is None.

  Attributes:
    clips: {name: Clip}, in the order of the records.
    aligned: whether hq shows lq pixel by pixel; not when two cameras filmed them.

  Raises:
    DataError: a source of another kind, only a part of a split, or a clip whose name is a path.
  """

  def __init__(self, source: DataSource):
    known = metadata(source.dataset_info)
    tables = known.clips
    if source.split not in tables:
      raise errors.DataError(
        f'{describe(source)}: no table of clips for this split; expected a whole split of a '
        f'`frames` config{", one of " + ", ".join(tables) if tables else ""}.'
      )
    self._name = describe(source)
    names.check(tables[source.split], self._name)
    self.clips = {name: _clip(name, entry) for name, entry in tables[source.split].items()}
    self.aligned = bool((known.settings or {}).get('aligned', True))
    features = source.dataset_info.features
    self._images = [field for field in ('lq', 'hq') if field in features]
    # Stored files are decoded here: TFDS would import OpenCV for it.
    self._records = Records(
      source,
      ['clip', 'frame', *self._images],
      decoders={field: tfds.decode.SkipDecoding() for field in self._images},
    )

  def frames(
    self, name: str, start: int = 0, stop: int | None = None
  ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield (lq, hq), both uint8 (H, W, 3) RGB, for frames start <= t < stop of clip `name`.

    Decoding runs in a few threads, at most 8 frames ahead. Raises DataError for an unknown clip,
    frames outside of it, or a record that cannot be read.
    """
    if name not in self.clips:
      raise errors.DataError(f'{self._name}: no clip {name!r}; available: {", ".join(self.clips)}.')
    clip = self.clips[name]
    stop = clip.num_frames if stop is None else stop
    if not 0 <= start <= stop <= clip.num_frames:
      raise errors.DataError(f'{self._name}: frames {start}:{stop} of {name!r}, which has {clip.num_frames}.')
    return self._read_ahead(clip, start, stop)

  def _read_ahead(self, clip: Clip, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    pending = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix='clip-reader')
    try:
      for frame in range(start, stop):
        pending.append(pool.submit(self._read, clip, frame))
        if len(pending) == _PAIRS_AHEAD:
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    finally:
      pool.shutdown(wait=False, cancel_futures=True)

  def _read(self, clip: Clip, frame: int) -> tuple[np.ndarray, np.ndarray | None]:
    index = clip.first_record + frame
    record = self._records[index]
    found = record['clip'].decode(), int(record['frame'])
    if found != (clip.name, frame):
      raise self._records.damaged(index, f'it is frame {found}, expected {(clip.name, frame)}')
    try:
      lq, hq = (_decode(record[field], field) if field in record else None for field in ('lq', 'hq'))
    except errors.DataError as error:
      raise self._records.damaged(index, f'frame {frame} of {clip.name!r} is no image') from error
    if any(image is not None and image.shape != (clip.height, clip.width, 3) for image in (lq, hq)):
      raise self._records.damaged(index, f'frame {frame} of {clip.name!r} is not {clip.height}x{clip.width}')
    return lq, hq


def _clip(name: str, entry: ClipEntry) -> Clip:
  cuts = None if entry.cuts is None else tuple(entry.cuts)
  return Clip(name=name, **{**dataclasses.asdict(entry), 'cuts': cuts})


def _decode(data: bytes, name: str) -> np.ndarray:
  """uint8 (H, W, 3) of an image file; grey and palette images become RGB."""
  with pictures.fenced(name), Image.open(io.BytesIO(data), formats=['PNG']) as image:
    return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))
