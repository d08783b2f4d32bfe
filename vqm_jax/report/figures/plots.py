"""Curves and points of evaluations and runs, as Matplotlib figures for the columns of a paper.

The same results give the same bytes: no dates, no random names.
"""

import collections
import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from absl import logging
from matplotlib import ticker, transforms
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vqm_jax import errors, files, metrics, pictures, published
from vqm_jax import workdir as workdirs
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.summaries import Block, Result
from vqm_jax.summary import Scores, Summary

_COLUMN, _PAGE = 3.4, 7.0  # inches
_GREY = '#666666'
_MARKERS = 'osD^vPX'
_DASHES = ('-', '--', ':')
_MARKED = 40  # frames or steps up to which each has a marker
_STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 8,
  'axes.titlesize': 8,
  'axes.labelsize': 8,
  'xtick.labelsize': 7,
  'ytick.labelsize': 7,
  'legend.fontsize': 7,
  'legend.frameon': False,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.linewidth': 0.6,
  'axes.grid': True,
  'axes.axisbelow': True,
  'grid.color': '#DDDDDD',
  'grid.linewidth': 0.5,
  'lines.linewidth': 1.1,
  'lines.markersize': 3,
  'xtick.major.width': 0.6,
  'ytick.major.width': 0.6,
  'savefig.dpi': 300,
  'svg.hashsalt': 'vqm_jax',
  'figure.constrained_layout.use': True,
}


class Unavailable(errors.DataError):
  """Results do not hold what a figure shows; figures that were not asked for by name are then left out."""


def save(stem: pathlib.Path, figure: Figure) -> list[pathlib.Path]:
  """Write `<stem>.png` (300 dots per inch) and `<stem>.svg`; return their paths."""
  # Not with_suffix: names of clips may have dots.
  png, svg = (stem.with_name(f'{stem.name}.{kind}') for kind in ('png', 'svg'))
  with matplotlib.rc_context(_STYLE):
    figure.set_dpi(_STYLE['savefig.dpi'])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pictures.save_png(png, np.asarray(canvas.buffer_rgba())[..., :3])
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None, 'Creator': None})
  files.write_text(svg, text.getvalue())
  return [png, svg]


# Scores along the frames.


def per_frame_metric(block: Block, raw: Mapping[str, Summary]) -> str:
  """Choose the metric of `frames`: PSNR under the block's protocol or, without alignment, the first of single frames.

  Raises:
    Unavailable: no metric has a value for every frame in all results.
  """
  names = [block.metric('psnr')] if block.aligned else ['sharpness']
  for name in names + sorted({name for summary in raw.values() for name in summary.metrics} - {'psnr', 'ssim'}):
    if all(_has_frames(summary, summary.metrics, name) for summary in raw.values()):
      return name
  raise Unavailable(
    f'{next(iter(raw))}: no metric has a value for every frame; evaluate with --metrics=auto, then draw frames.'
  )


def _has_frames(summary: Summary, side: Mapping[str, Scores] | None, name: str) -> bool:
  """Whether a side has a value of this metric for every scored frame of all clips."""
  values = side[name].per_frame if side and name in side else {}
  indices = summary.frame_indices
  return bool(values) and values.keys() == indices.keys() and all(len(values[c]) == len(indices[c]) for c in values)


def along_frames(
  block: Block, raw: Mapping[str, Summary], clips: Sequence[str]
) -> tuple[str, dict[str, dict[str, tuple[list[int], np.ndarray]]]]:
  """(name of the metric, {clip: {label: (frames, values)}}), the input first; several seeds are averaged.

  Frames that equal their targets, whose PSNR is infinite, are nan.
  """
  name, curves = per_frame_metric(block, raw), {}
  first = next(iter(raw.values()))
  inputs = next((s.no_processing for s in raw.values() if _has_frames(s, s.no_processing, name)), None)
  labels = saved_frames.short_labels(block.results)
  for clip in clips:
    found = {saved_frames.INPUT: [inputs[name].per_frame[clip]]} if inputs else {}
    for label, result in zip(labels, block.results, strict=True):
      found[label] = [raw[path].metrics[name].per_frame[clip] for path in result.paths]
    means = {label: np.mean(values, axis=0) for label, values in found.items()}
    curves[clip] = {
      label: (first.frame_indices[clip], np.where(np.isfinite(mean), mean, np.nan)) for label, mean in means.items()
    }
  return name, curves


def frames(name: str, curves: Mapping[str, Mapping[str, tuple[Sequence[int], np.ndarray]]], columns: int = 2) -> Figure:
  """Draw a metric along the frames, a panel for each clip.

  Args:
    name: of the metric.
    curves: {clip: {label: (frames, values)}}, as `along_frames` returns them.
    columns: of panels, 1 or 2.
  """
  columns = min(columns, len(curves))
  rows = -(-len(curves) // columns)
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(_width(columns), 0.5 + 1.7 * rows))
    for k, (clip, lines) in enumerate(curves.items()):
      axes = figure.add_subplot(rows, columns, k + 1)
      styles = _styles([label for label in lines if label != saved_frames.INPUT])
      for label, (indices, values) in lines.items():
        style = styles.get(label, {'color': _GREY, 'linestyle': (0, (3, 1.5)), 'marker': 'x'})
        axes.plot(indices, values, label=label, **_thinned(style, len(indices)))
      axes.set_title(clip, loc='left')
      axes.margins(x=0.02)
      axes.xaxis.set_major_locator(ticker.MaxNLocator(9, integer=True, steps=[1, 2, 4, 5, 10]))
      if k >= len(curves) - columns:
        axes.set_xlabel('Frame')
      if k % columns == 0:
        axes.set_ylabel('PSNR (dB)' if name.startswith('psnr') else metrics.label(name))
      if name == 'sharpness':
        axes.axhline(0, color='black', linewidth=0.6)
    _legend(figure, figure.axes[0])
  return figure


# Training.


@dataclasses.dataclass(frozen=True)
class Run:
  """The curves of one experiment, from its `metrics.jsonl` files.

  Attributes:
    label: of the method.
    curves: by name, one {step: value} for each seed; 'val/psnr', 'train/loss', ...
    loss: the loss that was trained; '' if no config says.
    staged: whether the network grew in stages, of which this is the last.
    validation: the data set of the validation scores; '' if no config says.
  """

  label: str
  curves: Mapping[str, Sequence[Mapping[int, float]]]
  loss: str = ''
  staged: bool = False
  validation: str = ''


def runs(found: Sequence[Result]) -> list[Run]:
  """The runs behind results; results of folders and of systems that were combined have none.

  Raises:
    Unavailable: there is no run at all.
    DataError: a `metrics.jsonl` is damaged.
  """
  out = []
  for label, result in zip(saved_frames.short_labels(found), found, strict=True):
    folders = [folder for path in result.paths if (folder := _workdir(path))]
    if not folders:
      continue
    curves = collections.defaultdict(list)
    for workdir in folders:
      for name, values in _read_metrics(workdir).items():
        curves[name].append(_evened(values) if name == 'train/loss' else values)
    config = _config_of(folders[0])
    validation = '/'.join(str(config[key]) for key in ('dataset', 'val_config', 'val_split') if config.get(key))
    staged = (folders[0] / 'stages').is_dir()
    out.append(Run(label, curves, str(config.get('loss') or ''), staged, validation))
  if not out:
    raise Unavailable(
      f'{found[0].paths[0]}: no metrics.jsonl lies in the workdir of any result, so that training cannot be drawn; '
      'give workdirs of runs.'
    )
  return out


def _workdir(path: str) -> pathlib.Path | None:
  """The folder of the run that a summary, <workdir>/eval/<split>/summary.json, belongs to."""
  parents = pathlib.Path(path).resolve().parents
  inside = len(parents) > 2 and parents[1].name == 'eval'
  return parents[2] if inside and (parents[2] / 'metrics.jsonl').is_file() else None


def _config_of(workdir: pathlib.Path) -> Mapping[str, Any]:
  if not (workdir / 'config.json').exists():
    return {}
  try:
    return workdirs.read_config(workdir, needs=())
  except errors.CheckpointError as error:
    logging.warning('%s; the plot does not name its loss.', str(error).rstrip('.'))
    return {}


def _read_metrics(workdir: pathlib.Path) -> dict[str, dict[int, float]]:
  """{name: {step: value}} of the lines that training wrote; the last one may still be being written."""
  curves = collections.defaultdict(dict)
  for record in workdirs.read_metrics(workdir)[0]:
    for name, value in record.values.items():
      curves[name][record.step] = value
  return curves


def _evened(curve: Mapping[int, float]) -> dict[int, float]:
  """Means over at least 2 % of the steps: lines mean over the steps since the last one, which may be a single one."""
  least, done, out, pending = max(curve) / 50, 0, [], (0, 0.0)
  for step, value in curve.items():
    weight = pending[0] + step - done
    pending, done = (weight, (pending[0] * pending[1] + (step - done) * value) / weight), step
    if weight >= least:
      out.append((step, *pending))
      pending = (0, 0.0)
  if pending[0] and out:
    _, weight, value = out.pop()
    out.append((done, weight, (weight * value + pending[0] * pending[1]) / (weight + pending[0])))
  return {step: value for step, _, value in out}


def training(found: Sequence[Run], columns: int = 2) -> Figure:
  """Validation score, a panel for each data set, and loss over the steps, in 1 or 2 columns.

  Of several seeds the mean and a band of one standard deviation.
  """
  score = 'val/psnr' if any('val/psnr' in run.curves for run in found) else 'val/colour'
  names = {'val/psnr': 'Validation PSNR (dB)', 'val/colour': 'Validation colour distance'}
  unprocessed = 'No processing' if score == 'val/psnr' else 'Source'
  losses = {run.loss for run in found}
  loss = f'Loss ({losses.pop()})' if len(losses) == 1 and '' not in losses else 'Loss'
  sets = list(dict.fromkeys(run.validation for run in found))
  drawn = [(score, names[score], [run for run in found if run.validation == one]) for one in sets]
  drawn.append(('train/loss', loss, found))
  rows = -(-len(drawn) // columns)
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(_width(columns), 0.3 + 2.3 * rows))
    styles = _styles([run.label for run in found])
    for k, (name, title, shown) in enumerate(drawn):
      axes = figure.add_subplot(rows, columns, k + 1)
      if name == score and len(sets) > 1:
        axes.set_title(shown[0].validation or 'another data set', loc='left')
      for run in shown:
        steps, mean, std = _over_seeds(run.curves.get(name, ()))
        style = styles[run.label]
        axes.plot(steps, mean, label=run.label, **_thinned(style, len(steps)))
        if np.any(std > 0):
          axes.fill_between(steps, mean - std, mean + std, color=style['color'], alpha=0.2, linewidth=0)
      if name == score and (base := _unprocessed(shown, score)) is not None:
        axes.axhline(base, color=_GREY, linewidth=0.9, linestyle=(0, (3, 1.5)), label=unprocessed)
      axes.set_xlabel('Step')
      axes.set_ylabel(title)
      axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))
      axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
      axes.set_xlim(left=0)
      values = [value for run in found for curve in run.curves.get(name, ()) for value in curve.values()]
      if name == 'train/loss' and values and all(value > 0 for value in values):
        axes.set_yscale('log')
        _plain_log(axes.yaxis)
    _legend(figure, *figure.axes)
  return figure


def _over_seeds(curves: Sequence[Mapping[int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Steps that all seeds have, mean and sample standard deviation there; 0 for a single seed."""
  if not curves:
    return np.zeros(0), np.zeros(0), np.zeros(0)
  steps = sorted(set.intersection(*map(set, curves)))
  values = np.array([[curve[step] for step in steps] for curve in curves])
  deviations = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(steps))
  return np.array(steps), values.mean(axis=0), deviations


def _unprocessed(found: Sequence[Run], score: str) -> float | None:
  """The validation score of the input, if all runs agree on it."""
  values = []
  for run in found:
    if score == 'val/psnr':
      pairs = zip(run.curves.get(score, ()), run.curves.get('val/gain', ()), strict=False)
      values += [psnr[step] - gain[step] for psnr, gain in pairs for step in psnr.keys() & gain.keys()]
    else:
      values += [value for curve in run.curves.get('val/colour_source', ()) for value in curve.values()]
  return values[0] if values and max(values) - min(values) < 1e-3 else None


# Quality against cost.


@dataclasses.dataclass(frozen=True)
class Point:
  """A method: gain in dB with its standard deviation over seeds, seconds per frame, parameters."""

  label: str
  gain: float
  std: float | None
  seconds: float | None
  params: int | None


def points(block: Block) -> list[Point]:
  """The methods of a block. Raises Unavailable when they have no gain, or neither time nor parameters."""
  psnr = block.metric('psnr')
  base = block.no_processing.get(psnr)
  found = []
  for label, result in zip(saved_frames.short_labels(block.results), block.results, strict=True):
    score = result.scores.get(psnr)
    seconds = result.timing and result.timing['seconds_per_frame']
    if block.aligned and base and score and (seconds or result.params):
      found.append(Point(label, score.mean - base.mean, score.std, seconds, result.params))
  if not found:
    raise Unavailable(
      f'{block.results[0].paths[0]}: no method has a gain in PSNR beside seconds per frame or parameters, which '
      'tradeoff shows; give workdirs of restorers.'
    )
  return found


def published_points() -> list[Point]:
  """The teams of the paper's Table 1."""
  base = published.NO_PROCESSING
  return [
    Point(team.team, team.psnr - base.psnr, None, team.seconds, team.params)
    for team in published.TRACK1
    if team is not base
  ]


def tradeoff(own: Sequence[Point], original: bool, columns: int = 2) -> Figure:
  """Gain against seconds per frame and against parameters.

  Args:
    own: what was measured here.
    original: whether it was measured on the paper's test set: only then do the paper's teams share its axes.
    columns: of panels, 1 or 2.
  """
  paper = published_points()
  rows = [('Measured here', own), ('Published (NTIRE 2020 test set)', paper)]
  with matplotlib.rc_context(_STYLE):
    lines = (len(rows) - original) * 2 // columns
    figure = Figure(figsize=(_width(columns), 0.6 + 2.1 * lines))
    styles = _styles([point.label for point in own])
    for k, (title, found) in enumerate(rows):
      for j, (field, name) in enumerate((('seconds', 'Seconds per frame'), ('params', 'Parameters'))):
        shared = original and k == 1
        axes = figure.axes[j] if shared else figure.add_subplot(lines, columns, 2 * k + j + 1)
        for point in found:
          if getattr(point, field):
            style = {'color': _GREY, 'marker': 'o', 'fillstyle': 'none'} if k else styles[point.label]
            options = {'linestyle': 'none', 'markersize': 4.5, 'zorder': 3}
            axes.errorbar(getattr(point, field), point.gain, yerr=point.std, capsize=2, **(style | options))
        if not shared:
          axes.set_xscale('log')
          axes.set_xlabel(name)
          axes.set_ylabel('Gain (dB)' if j == 0 or columns == 1 else '')
          axes.margins(0.16, 0.2)
          if j == 0:
            axes.set_title('Measured here; grey: published, same test set' if original else title, loc='left')
    for j, axes in enumerate(figure.axes):
      _plain_log(axes.xaxis, ticker.EngFormatter(sep='') if j % 2 else None)
    FigureCanvasAgg(figure).draw()  # settles the layout, and with it where points are
    for j, axes in enumerate(figure.axes):
      field = ('seconds', 'params')[j % 2]
      shown = [*own, *paper] if original else rows[j // 2][1]
      _name_points(figure, axes, [(getattr(p, field), p.gain, p.label) for p in shown if getattr(p, field)])
  return figure


def _name_points(figure: Figure, axes: Axes, found: Sequence[tuple[float, float, str]]) -> None:
  """Write names beside points where they cover neither points nor other names, as far as there is room."""
  if not found:
    axes.text(0.5, 0.5, 'not measured', transform=axes.transAxes, ha='center', color=_GREY)
    return
  renderer, frame = figure.canvas.get_renderer(), axes.get_window_extent()
  places = axes.transData.transform([(x, y) for x, y, _ in found])
  taken = [transforms.Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
  dots = figure.dpi / 72  # pixels of a point
  for (x, y, label), place in zip(found, places, strict=True):
    best = None
    for distance in (4.5, 9, 14, 20):
      for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7)):
        align = {'ha': {1: 'left', 0: 'center', -1: 'right'}[np.sign(dx)]}
        align['va'] = {1: 'bottom', 0: 'center', -1: 'top'}[np.sign(dy)]
        offset = (dx * distance, dy * distance)
        text = axes.annotate(label, (x, y), offset, textcoords='offset points', fontsize=7, **align)
        box = text.get_window_extent(renderer).padded(0.5 * dots)
        text.remove()
        others = [other for k, other in enumerate(taken) if not (place == taken[k].p0 + 4).all()]
        cost = sum(_overlap(box, other) for other in others) + 4 * (box.width * box.height - _overlap(box, frame))
        cost += 0.1 * distance
        if best is None or cost < best[0]:
          best = cost, offset, align, box
    _, offset, align, box = best
    far = math.hypot(*offset) > 8
    line = {'arrowstyle': '-', 'color': _GREY, 'linewidth': 0.4, 'shrinkA': 0, 'shrinkB': 2} if far else None
    text = axes.annotate(label, (x, y), offset, textcoords='offset points', fontsize=7, arrowprops=line, **align)
    text.set_in_layout(False)
    taken.append(box)


def _overlap(one, other) -> float:
  both = transforms.Bbox.intersection(one, other)
  return both.width * both.height if both else 0.0


# What all of them share.


def _width(columns: int) -> float:
  return _COLUMN if columns == 1 else _PAGE


def _styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
  """Colour, marker and dashes of each method, the same in all figures of the same results."""
  return {
    label: {
      'color': panels.COLOURS[k % len(panels.COLOURS)],
      'marker': _MARKERS[k % len(_MARKERS)],
      'linestyle': _DASHES[k // len(panels.COLOURS) % len(_DASHES)],
    }
    for k, label in enumerate(labels)
  }


def _thinned(style: Mapping[str, Any], count: int) -> dict[str, Any]:
  """The style without markers where they would touch."""
  return {**style, 'marker': style['marker'] if count <= _MARKED else ''}


def _legend(figure: Figure, *panels: Axes) -> None:
  """One legend of what is drawn in these panels above all, of as many columns as fit."""
  found = {}
  for axes in panels:
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
      found.setdefault(label, handle)
  labels, handles = list(found), list(found.values())
  inches = 0.45 + 0.065 * max(map(len, labels))
  columns = min(len(labels), max(1, int(figure.get_figwidth() / inches)))
  figure.legend(handles, labels, loc='outside upper center', ncols=columns, handlelength=2.2, columnspacing=1.2)


def _plain_log(axis, formatter: ticker.Formatter | None = None) -> None:
  """Ticks of a logarithmic axis with plain numbers, at least two of them."""
  low, high = axis.get_view_interval()
  decades = math.log10(high) - math.log10(low)
  axis.set_minor_formatter(ticker.NullFormatter())
  axis.set_major_formatter(formatter or ticker.FuncFormatter(lambda value, _: _short(value)))
  if decades < 0.3:  # numbers of one digit would be too few
    axis.set_major_locator(ticker.MaxNLocator(4))
    axis.set_minor_locator(ticker.NullLocator())
    return
  subs = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if decades < 0.6 else (1, 2, 5) if decades < 1.7 else (1,)
  axis.set_major_locator(ticker.LogLocator(subs=subs, numticks=8))
  axis.set_minor_locator(ticker.LogLocator(subs=range(2, 10), numticks=20) if subs == (1,) else ticker.NullLocator())


def _short(value: float) -> str:
  """0.002 and 3e-5: no zeros to count."""
  if 0 < value < 1e-3:
    digits, power = f'{value:.2e}'.split('e')
    return f'{float(digits):g}e{int(power)}'
  return f'{value:.4g}'
