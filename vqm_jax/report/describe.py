"""The table of systems: what each one is and costs, beside what the paper reports of its team."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vqm_jax import files, published
from vqm_jax.formats import markdown_table

NOTES = (
  'GMAC: 1e9 multiply-adds of convolutions and matrix products for one restored frame of {width}x{height}, padded to '
  'the multiple. Elementwise work is left out: activations, bilinear reads, the reassembly of CARAFE.',
  'Naive: the whole window is computed. Cached: as in a stream, where one new unit of work is encoded (one frame; '
  'three for `gil`) and the others are at hand.',
  'Paper: Table 1 for Track 1, as printed. The teams timed themselves, each on its own card: not a ranking.',
  '`boss` and `tcl` are mixtures of networks trained apart: their costs are the sums of their members (`boss`: F1, F3 '
  "and F4). The paper's figures are those of the whole.",
  '`gil` has one block for both stages, which is what the paper counts; share_stages=False is the wiring that the team '
  'released, with two.',
  '`wespe`, `dpe` and `dacal` are of Track 2, whose sizes the paper does not give: the generator alone, of `dpe` with '
  'both sets of normalisations (deployed: 3,335,395), of `dacal` one frame of the recurrence.',
  '`seventh` is a stand-in of the right size: the paper does not tell how the seventh team did it.',
)


def rows(costs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Join the costs of systems with Table 1, in its order; systems that it does not know come last.

  Args:
    costs: by the name of the system, which a comma and its arguments may follow: params, window, size_multiple,
      unit_frames, macs_naive, macs_cached.

  Returns:
    One dict per system: system, team, the costs, and what the paper reports of a whole entry (None for its parts):
    paper_parameters, params_difference (a fraction of them), paper_seconds, paper_hardware.
  """
  places = {system: (k, n) for k, line in enumerate(published.TRACK1) for n, system in enumerate(line.systems)}
  last = len(published.TRACK1), 0
  table = []
  for label in sorted(costs, key=lambda label: places.get(_system(label), last)):
    k, n = places.get(_system(label), (None, None))
    line = None if k is None else published.TRACK1[k]
    paper = line if n == 0 else None
    params = costs[label]['params']
    table.append(
      {'system': label, 'team': line.team if line else ''}
      | costs[label]
      | {
        'paper_parameters': paper and paper.parameters,
        'params_difference': params / paper.params - 1 if paper and paper.params else None,
        'paper_seconds': paper and paper.seconds,
        'paper_hardware': paper and paper.test_hardware,
      }
    )
  return table


def notes(height: int, width: int) -> list[str]:
  """Write the notes below the table."""
  return [note.format(height=height, width=width) for note in NOTES]


def markdown(table: Sequence[Mapping[str, Any]], notes: Iterable[str] = ()) -> str:
  """The rows as an aligned Markdown table, numbers to the right, notes as a list below it."""
  header = ['System', 'Team', 'Parameters', 'Paper', 'Difference', 'Window', 'Multiple', 'GMAC naive', 'GMAC cached']
  cells = [[*header, 'Paper: s / frame']]
  for row in table:
    difference, seconds = row['params_difference'], row['paper_seconds']
    cells.append(
      [
        row['system'],
        row['team'],
        f'{row["params"]:,}',
        row['paper_parameters'] or '',
        '' if difference is None else f'{100 * difference:+.2f} %',
        str(row['window']),
        str(row['size_multiple']),
        f'{row["macs_naive"] / 1e9:,.0f}',
        f'{row["macs_cached"] / 1e9:,.0f}',
        '' if seconds is None else f'{seconds:g} ({row["paper_hardware"]})',
      ]
    )
  return markdown_table(cells, notes, right=range(2, 9))


def write(folder: pathlib.Path, table: Sequence[Mapping[str, Any]], height: int, width: int) -> list[pathlib.Path]:
  """Write `describe.md` and `describe.json` into `folder`; return their paths."""
  paths = [folder / 'describe.md', folder / 'describe.json']
  said = notes(height, width)
  files.write_text(paths[0], markdown(table, said))
  files.write_json(paths[1], {'schema_version': 1, 'frame_size': [height, width], 'systems': table, 'notes': said})
  return paths


def _system(label: str) -> str:
  return label.split(',')[0]
