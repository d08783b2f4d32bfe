"""Result rows as Markdown, CSV and JSON files."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from vqm_jax import files, published
from vqm_jax.formats import format_params, markdown_table
from vqm_jax.metrics import statistics
from vqm_jax.summary import Column, Scores, Summary, write_summary


@dataclasses.dataclass(frozen=True)
class Row:
  """One method on one data set.

  Attributes:
    method: what it is called in the table.
    scores: {metric: mean over clips}; a metric that could not be taken is None.
    gain: PSNR in dB over no processing; None where there is no input to compare with.
    interval: 95 % interval of `gain`, from resampled clips; None for a single clip.
    params: trainable scalars; None where the word means nothing.
    seconds: per frame, network only; None when not measured.
    device: where `seconds` was measured, with the frame size.
    frames, clips: how many were scored.
  """

  method: str
  scores: Mapping[str, float | None]
  gain: float | None = None
  interval: tuple[float, float] | None = None
  params: int | None = None
  seconds: float | None = None
  device: str = ''
  frames: int = 0
  clips: int = 0


def rows(summary: Summary) -> list[Row]:
  """The row of a summary's method and, where they were scored, those of the unprocessed input and of the target itself.

  PSNR and SSIM are those of its protocol.
  """
  timing = summary.timing
  counts = {'frames': summary.n_frames, 'clips': summary.n_clips}
  shown = _shown(summary)
  psnr = 'psnr' if summary.protocol == 'ntire' else f'psnr_{summary.protocol}'

  def scores(side: Mapping[str, Scores]) -> dict[str, float | None]:
    return {name: side[name].mean if name in side else None for name in shown}

  gain, interval, others = None, None, []
  if summary.no_processing:
    gains = psnr in shown
    label = 'No processing' if summary.aligned else 'Source'
    others.append(Row(label, scores(summary.no_processing), gain=0.0 if gains else None, **counts))
    if gains:
      per_clip = [side[psnr].per_clip for side in (summary.metrics, summary.no_processing)]
      differences = [per_clip[0][clip] - per_clip[1][clip] for clip in per_clip[0]]
      gain = sum(differences) / len(differences)
      interval = statistics.bootstrap_interval(differences) if len(differences) > 1 else None
  if summary.target:
    others.append(Row('Target', scores(summary.target), **counts))
  row = Row(
    summary.method,
    scores(summary.metrics),
    gain,
    interval,
    params=summary.params,
    seconds=timing and timing.seconds_per_frame,
    device=f'{timing.device}, {timing.frame_size[1]}x{timing.frame_size[0]}' if timing else '',
    **counts,
  )
  return [row, *others]


def _shown(summary: Summary) -> list[str]:
  """The metrics that a table has columns for: of PSNR and SSIM those of the protocol only."""
  protocol, names = summary.protocol, list(summary.measures)
  if protocol == 'ntire':
    return names
  return [name for name in names if f'{name}_{protocol}' not in names]


def notes(summary: Summary) -> list[str]:
  """The notes below the table of a summary."""
  data_set = f'{summary.dataset} {summary.split}'.rstrip()
  lines = [f'{data_set}; protocol {summary.protocol}, frames {summary.frames}; means over clips.']
  if (summary.n_clips or 0) > 1 and 'psnr' in summary.gain:
    lines.append(f'Gain: mean and 95 % interval over {summary.n_clips} clips (bootstrap of clips).')
  if 'psnr' in summary.metrics and (identical := summary.metrics['psnr'].identical_frames):
    lines.append(f'{identical} frames equal their targets; each counts as 100 dB.')
  if not summary.aligned:
    lines.append('Source and target are of two cameras: LPIPS measures how they are placed as well as how they look.')
    paper = ', '.join(f'{line.method} {line.lpips:.3f}' for line in published.TRACK2)
    lines.append(f'Paper, Table 2, on its own data, LPIPS of a network that it does not name: {paper}.')
  return lines + [f'{name}: n/a. {reason}' for name, reason in summary.missing.items()]


def markdown(
  table: Sequence[Row],
  columns: Mapping[str, Column],
  notes: Iterable[str] = (),
  missing: Iterable[str] = (),
) -> str:
  """The rows as an aligned Markdown table, notes as a list below it.

  Args:
    table: rows with one set of metrics.
    columns: by metric, how it is shown.
    notes: below the table.
    missing: metrics that could not be taken: `n/a`.
  """
  names = list(table[0].scores)
  header = ['Method', *(columns[name].label for name in names), 'Gain (dB)', 'Parameters', 's / frame']
  cells = [[*header, 'Frames / clips']] + [
    [
      row.method,
      *(_cell(row.scores[name], columns[name].decimals, name in missing) for name in names),
      ('' if row.gain is None else f'{row.gain:+.3f}') + (f' [{_signed(row.interval)}]' if row.interval else ''),
      '' if row.params is None else format_params(row.params),
      '' if row.seconds is None else f'{row.seconds:.3g} ({row.device})',
      f'{row.frames} / {row.clips}',
    ]
    for row in table
  ]
  if not any(row.gain is not None for row in table):
    column = header.index('Gain (dB)')
    cells = [line[:column] + line[column + 1 :] for line in cells]
  cells = [[cell.replace('|', '\\|') for cell in line] for line in cells]
  return markdown_table(cells, notes)


def _cell(value: float | None, decimals: int, missing: bool) -> str:
  if value is None:
    return 'n/a' if missing else ''
  return f'{value:.{decimals}f}'


def _signed(interval: tuple[float, float]) -> str:
  return ', '.join(f'{bound:+.3f}' for bound in interval)


def csv_text(table: Sequence[Row]) -> str:
  """The rows as CSV (RFC 4180) with a header, in full precision."""
  lines = []
  for row in table:
    low, high = row.interval or (None, None)
    after = {'gain': row.gain, 'gain_low': low, 'gain_high': high, 'params': row.params, 'seconds': row.seconds}
    counts = {'device': row.device, 'frames': row.frames, 'clips': row.clips}
    lines.append({'method': row.method} | dict(row.scores) | after | counts)
  return files.csv_of((), lines)


def clips_csv(summary: Summary) -> str:
  """Every clip's scores as CSV, output, input (`..._input`) and target (`..._target`), with its category."""
  lines = []
  for clip, category in summary.category.items():
    line = {'clip': clip, 'category': category}
    for suffix, table in _sides(summary):
      line |= {name + suffix: found.per_clip[clip] for name, found in table.items()}
    lines.append(line)
  return files.csv_of((), lines)


def frames_csv(summary: Summary) -> str:
  """The scores of every frame as CSV; of pairs of neighbours at the later one. Metrics of whole clips are left out."""
  lines = []
  for clip, indices in summary.frame_indices.items():
    at = {index: {'clip': clip, 'frame': index} for index in indices}
    for suffix, table in _sides(summary):
      for name, found in table.items():
        values = found.per_frame[clip]
        if len(values) > 1 or len(indices) == 1:
          for index, value in zip(indices[len(indices) - len(values) :], values, strict=True):
            at[index][name + suffix] = value
    lines += at.values()
  return files.csv_of((), lines)


def _sides(summary: Summary) -> list[tuple[str, Mapping[str, Scores]]]:
  sides = {'': summary.metrics, '_input': summary.no_processing, '_target': summary.target}
  return [(suffix, {name: s for name, s in (side or {}).items() if s.per_clip}) for suffix, side in sides.items()]


def write_report(
  folder: pathlib.Path, summary: Summary, table: Sequence[Row], notes: Iterable[str] = ()
) -> list[pathlib.Path]:
  """Write `table.md`, `table.csv`, `clips.csv`, `frames.csv` and `summary.json` into `folder`; return their paths."""
  paths = [folder / name for name in ('table.md', 'table.csv', 'clips.csv', 'frames.csv', 'summary.json')]
  files.write_text(paths[0], markdown(table, summary.measures, notes, summary.missing))
  files.write_text(paths[1], csv_text(table))
  files.write_text(paths[2], clips_csv(summary))
  files.write_text(paths[3], frames_csv(summary))
  write_summary(paths[4], summary)
  return paths
