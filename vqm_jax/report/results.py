"""Result rows as Markdown, CSV and JSON files; every file is written whole or not at all."""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
  """One method on one data set.

  Attributes:
    method: what it is called in the table.
    psnr, ssim: mean over clips; dB and [0, 1].
    gain: dB over no processing; None where there is no input to compare with.
    params: trainable scalars; None where the word means nothing.
    seconds: per frame, network only; None when not measured.
    device: where `seconds` was measured, with the frame size.
    frames, clips: how many were scored.
  """

  method: str
  psnr: float
  ssim: float
  gain: float | None = None
  params: int | None = None
  seconds: float | None = None
  device: str = ''
  frames: int = 0
  clips: int = 0


def rows(summary: Mapping[str, Any]) -> list[Row]:
  """The row of a summary's method and, where it has inputs, the one of "No processing".

  `summary` is what `summary.json` holds: method, params, protocol, timing (or None), n_frames,
  n_clips, metrics, no_processing (or None). The numbers are those of its protocol.
  """
  suffix = '' if summary['protocol'] == 'ntire' else f'_{summary["protocol"]}'
  timing = summary['timing']

  def mean(side: str, metric: str) -> float:
    return float(summary[side][metric + suffix]['mean'])

  gain = None
  counts = {'frames': summary['n_frames'], 'clips': summary['n_clips']}
  unprocessed = []
  if summary['no_processing']:
    psnr, ssim = mean('no_processing', 'psnr'), mean('no_processing', 'ssim')
    unprocessed.append(Row('No processing', psnr, ssim, gain=0.0, **counts))
    gain = mean('metrics', 'psnr') - psnr
  row = Row(
    summary['method'],
    mean('metrics', 'psnr'),
    mean('metrics', 'ssim'),
    gain,
    params=summary['params'],
    seconds=timing and timing['seconds_per_frame'],
    device='{device}, {frame_size[1]}x{frame_size[0]}'.format(**timing) if timing else '',
    **counts,
  )
  return [row, *unprocessed]


def markdown(table: Sequence[Row], notes: Iterable[str] = ()) -> str:
  """The rows as an aligned Markdown table, notes as a list below it."""
  header = ['Method', 'PSNR (dB)', 'SSIM', 'Gain (dB)', 'Parameters', 's / frame', 'Frames / clips']
  cells = [header] + [
    [
      row.method,
      f'{row.psnr:.3f}',
      f'{row.ssim:.3f}',
      '' if row.gain is None else f'{row.gain:+.3f}',
      '' if row.params is None else format_params(row.params),
      '' if row.seconds is None else f'{row.seconds:.3g} ({row.device})',
      f'{row.frames} / {row.clips}',
    ]
    for row in table
  ]
  cells = [[cell.replace('|', '\\|') for cell in line] for line in cells]
  return aligned(cells, notes)


def aligned(cells: Sequence[Sequence[str]], notes: Iterable[str] = (), right: Iterable[int] = ()) -> str:
  """Cells, the header first, as an aligned Markdown table, the columns in `right` to the right, with notes below."""
  right = set(right)
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  pads = [str.rjust if k in right else str.ljust for k in range(len(widths))]
  lines = [[pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)] for row in cells]
  lines.insert(1, ['-' * (width - 1) + (':' if k in right else '-') for k, width in enumerate(widths)])
  return '\n'.join([f'| {" | ".join(line)} |' for line in lines] + [''] + [f'- {n}' for n in notes]).rstrip() + '\n'


def csv_text(table: Sequence[Row]) -> str:
  """The rows as CSV (RFC 4180) with a header, in full precision."""
  out = io.StringIO()
  writer = csv.DictWriter(out, [field.name for field in dataclasses.fields(Row)])
  writer.writeheader()
  writer.writerows(dataclasses.asdict(row) for row in table)
  return out.getvalue()


def format_params(count: int) -> str:
  """'19.76M', '114.4k' or '0'."""
  if count >= 1_000_000:
    return f'{count / 1e6:.2f}M'
  return f'{count / 1e3:.1f}k' if count >= 1000 else str(count)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes nested dicts, lists and numbers; numbers that JSON lacks become "inf", "-inf", "nan"."""
  write_text(path, json.dumps(_finite(value), indent=1) + '\n')


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes `text` to `path` under a temporary name first, making folders as needed."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
  try:
    with partial.open('w', encoding='utf-8', newline='') as file:
      file.write(text)
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def write_report(
  folder: pathlib.Path, summary: Mapping[str, Any], table: Sequence[Row], notes: Iterable[str] = ()
) -> list[pathlib.Path]:
  """Writes `table.md`, `table.csv` and `summary.json` into `folder`; returns their paths."""
  paths = [folder / name for name in ('table.md', 'table.csv', 'summary.json')]
  write_text(paths[0], markdown(table, notes))
  write_text(paths[1], csv_text(table))
  write_json(paths[2], dict(summary))
  return paths


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value
