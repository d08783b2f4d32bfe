"""All strips of small training data in tables, and records that tell where their strips are instead of holding them.

The same pipeline that draws samples from `Records` draws from these the same samples, in the same order: the shuffling,
the windows and the symmetries are the same code with the same random numbers. It gives rows (`windows.ROW`), and
whoever holds the tables cuts the samples out of them.
"""

import concurrent.futures
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vqm_jax import errors
from vqm_jax.data import segments
from vqm_jax.data.features import FrameStrip
from vqm_jax.data.records import DataSource, Records, describe
from vqm_jax.data.sampling import Domains, endless_strips
from vqm_jax.data.windows import Elsewhere

_THREADS = min(16, os.cpu_count() or 1)


class Tables:
  """The tables that training draws from, one for each field of each source; nothing is decoded yet.

  Args:
    sources: training records, which `open_training` opened.
    sampling: one of SAMPLINGS: paired, weak, unpaired or clip.

  Attributes:
    shapes: (N, T, H, W, 3) of each table, all uint8.
    sides: for each side of a sample, 'lq' and 'hq', the numbers of the tables that it may come from.

  Raises:
    ConfigError: records that are decoded as they are drawn.
  """

  def __init__(self, sources: Sequence[DataSource | Domains], sampling: str):
    self._records: list[Records] = []
    self._numbers: dict[tuple[int, str], int] = {}
    self._fields: list[str] = []
    self._kept: dict[int, list[dict[str, Any]]] = {}
    self._sources = sources  # which are known by their identity
    self.shapes: list[tuple[int, ...]] = []
    for source in sources:
      if isinstance(source, DataSource) and segments.room(source.dataset_info):
        raise errors.ConfigError(
          f'config.data_on_device: {describe(source)} holds coded video that is decoded as it is drawn, expected '
          'windows that are whole; build a config of tiles, or leave it out.'
        )
      endless_strips(source, sampling, 0, 1, self.read)
    several = {'lq': ('lq', 'frames'), 'hq': ('hq', 'frames')}
    self.sides = {
      side: [k for k, field in enumerate(self._fields) if field in fields] for side, fields in several.items()
    }

  @property
  def nbytes(self) -> int:
    """Of all tables."""
    return sum(map(math.prod, self.shapes))

  def read(self, source: DataSource, fields: Sequence[str]) -> '_Located':
    """Stands for `Records`: of strips it tells where they are."""
    strips, others = {}, []
    for field in fields:
      feature = source.dataset_info.features[field]
      if isinstance(feature, FrameStrip):
        strips[field] = self._number(source, field), feature.shape
      else:
        others.append(field)
    records = Records(source, fields)
    if others and id(source) not in self._kept:
      small = Records(source, others)
      self._kept[id(source)] = [small[index] for index in range(len(small))]
    return _Located(records, strips, self._kept[id(source)] if others else None)

  def _number(self, source: DataSource, field: str) -> int:
    key = (id(source), field)
    if key not in self._numbers:
      self._numbers[key] = len(self._records)
      self._records.append(Records(source, (field,)))
      self._fields.append(field)
      self.shapes.append((len(source), *source.dataset_info.features[field].shape))
    return self._numbers[key]

  def decode(self, number: int) -> np.ndarray:
    """The strips of a table, uint8 (N, T, H, W, 3). Raises DataError for a record that cannot be read."""
    table, records, field = np.empty(self.shapes[number], np.uint8), self._records[number], self._fields[number]

    def place(index: int) -> None:
      table[index] = records[index][field]

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      for _ in pool.map(place, range(len(table))):
        pass
    return table


class _Located(Sequence[dict[str, Any]]):
  """In the place of `Records`: strips as `Elsewhere`, other fields as they are, of which there are few and small."""

  def __init__(self, records: Records, strips: dict[str, tuple[int, tuple]], others: list[dict[str, Any]] | None):
    self._records, self._strips, self._others = records, strips, others
    self.damaged = records.damaged

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    found = {field: Elsewhere(table, int(index), shape) for field, (table, shape) in self._strips.items()}
    return found | (self._others[index] if self._others else {})
