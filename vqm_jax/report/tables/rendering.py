"""The tables of the report as Markdown, CSV and LaTeX: what the paper printed, and what was measured here.

Blocks are not ranked together unless they are of the same frames, which is the paper's own test set.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vqm_jax import files, metrics, published
from vqm_jax.formats import format_params
from vqm_jax.metrics import statistics
from vqm_jax.report.summaries import Block, Result, Score
from vqm_jax.report.tables import layout
from vqm_jax.report.tables.layout import Cell, Table

_COSTS = {
  'train_hardware': 'TrainingReq',
  'train_time': 'TrainingTime',
  'test_hardware': 'TestReq',
  'test_time': 'TestTime',
  'parameters': 'Parameters',
  'extra_data': 'ExtraData',
}
_LPIPS = ('lpips_alex', 'lpips_vgg', 'lpips_squeeze')
_TLP = ('tlp_alex', 'tlp_vgg', 'tlp_squeeze')
_TRACK1 = ('psnr', 'ssim', *_LPIPS, 'tof', *_TLP, 'warping', 'tdpsnr', 'flicker')
_TRACK2 = (*_LPIPS, 'fd_lpips', 'colour', 'colour_ab', 'sharpness', 'change', 'warping', 'flicker')
# What is ranked. Warping error and flicker are not: a blurred or frozen video has less of them than a good one.
_HIGHER = {'psnr', 'ssim', 'tdpsnr'}
_LOWER = {'lpips', *_LPIPS, 'fd_lpips', 'colour', 'colour_ab', 'tof', *_TLP}
_NEAR_ZERO = {'sharpness'}
_RANKED = _HIGHER | _LOWER | _NEAR_ZERO

_DEPTH1, _DEPTH2 = 3, 2  # how many distinct numbers the paper marks in Table 1, in Table 2
_ENOUGH = 3  # methods, before the best of them means anything
_SAME_LPIPS = 0.005  # how near our unprocessed input must be to the paper's, or the networks are not the same
_FULL_SIZE = [1080, 1920]

_PUBLISHED = 'Published (NTIRE 2020 test set)'
_BEST = {
  _DEPTH1: 'Bold: best. Underlined: second and third best. Equal numbers share a mark.',
  _DEPTH2: 'Bold: best. Underlined: second best. Equal numbers share a mark.',
}
_NOTES1 = (
  'TrainingTime in days, TestTime in seconds per frame. The teams timed themselves, each on its own hardware, and the '
  'paper states no frame size: not a ranking.',
  'Gain: PSNR minus that of "No processing" in the same table. Computed here, not in the paper.',
  'LPIPS: the paper does not state the feature network or its version.',
  'LPIPS with care (paper, section 5.1): the unprocessed input and the seventh team, which hardly changes it, score '
  'best. The authors suppose that training for small squared errors smooths, which LPIPS punishes, while codecs are '
  'made to please the eye. A lower LPIPS is no proof of a better restoration.',
)
_NOTES2 = (
  'LPIPS compares pixels at the same place, but source and target are only roughly aligned. The paper does not state '
  'the feature network, the frames or the alignment.',
  'LPIPS with care (paper, section 5.2): the untouched source scores best by far although the task is to change it. It '
  'comes from a real camera, as the target does, and LPIPS sees the traces that methods leave. The authors do not find '
  'it suitable for this task, nor always in line with what people see.',
  'Fréchet distances (FID) describe the content of a whole set rather than low-level quality (section 5.2). The usual '
  'answer is to ask people (MOS); the paper has no such scores, and there are none here.',
)


class _Footnotes:
  """Numbers the reasons why cells are empty."""

  def __init__(self):
    self.reasons = {}

  def cell(self, metric: str, reason: str) -> Cell:
    number = self.reasons.setdefault(f'{metrics.label(metric)}: {reason}', len(self.reasons) + 1)
    return Cell(f'n/a ({number})')

  def lines(self) -> list[str]:
    return [f'({number}) {reason}' for reason, number in self.reasons.items()]


def published1() -> Table:
  """Table 1 of the paper, not marked yet, with the gain over "No processing"."""
  columns = {'method': 'Method', 'psnr': '↑PSNR', 'ssim': '↑SSIM', 'lpips': '↓LPIPS', 'gain': 'Gain (dB)'} | _COSTS
  rows = []
  for line in published.TRACK1:
    gain = '' if line is published.NO_PROCESSING else f'{line.psnr - published.NO_PROCESSING.psnr:+.3f}'
    row = {'method': Cell(line.team), 'gain': Cell(gain)}
    row |= {name: Cell(f'{getattr(line, name):.3f}', getattr(line, name)) for name in ('psnr', 'ssim', 'lpips')}
    rows.append(row | {name: Cell(getattr(line, name)) for name in _COSTS})
  return Table(_PUBLISHED, columns, rows, list(_NOTES1))


def published2() -> Table:
  """Table 2 of the paper with its marks, a column for each method as printed."""
  cells = {line.method: Cell(f'{line.lpips:.3f}', line.lpips) for line in published.TRACK2}
  layout.mark([Table('', {}, [{'lpips': cell} for cell in cells.values()])], ['lpips'], _DEPTH2, _HIGHER)
  columns = {name: name for name in ('', *cells)}
  return Table(_PUBLISHED, columns, [{'': Cell('LPIPS↓')} | cells], [_BEST[_DEPTH2], *_NOTES2])


def table1(blocks: Sequence[Block]) -> list[Table]:
  """The published Table 1 and one table for each block of aligned results, with marks."""
  paper = published1()
  measured = [(block, _measured1(block)) for block in blocks if block.aligned]
  rivals = {name: [paper] for name in ('psnr', 'ssim', 'lpips')}
  for block, table in measured:
    own = set(table.columns) & _RANKED
    if block.original:
      ours = block.no_processing.get(_main_lpips(block))
      joint = {'psnr', 'ssim'}
      if ours and abs(ours.mean - published.NO_PROCESSING.lpips) <= _SAME_LPIPS:
        joint.add('lpips')
      for name in joint:
        rivals[name].append(table)
      own -= joint
      table.notes.append(
        "The paper's own test set: this block and the published one are ranked together, except in LPIPS."
        if 'lpips' not in joint
        else "The paper's own test set: this block and the published one are ranked together; in LPIPS, too, because "
        'the unprocessed input scores as in the paper.'
      )
    else:
      table.notes.append(
        'Not comparable with the published numbers, which are of other videos: compare gains, not PSNR.'
      )
    if len(block.results) >= _ENOUGH:
      layout.mark([table], own, _DEPTH1, _HIGHER)
    if block.original or len(block.results) >= _ENOUGH:
      table.notes.append(_BEST[_DEPTH1] + ('' if block.original else ' Among the rows of this block.'))
  for name, tables in rivals.items():
    layout.mark(tables, [name], _DEPTH1, _HIGHER)
  joint = ' Together with what was measured here on the same test set.' if len(rivals['psnr']) > 1 else ''
  paper.notes.insert(0, _BEST[_DEPTH1] + joint)
  return [paper, *(table for _, table in measured)]


def table2(blocks: Sequence[Block]) -> list[Table]:
  """The published Table 2 and one table for each block of weakly aligned results, with marks."""
  tables = [published2()]
  for block in blocks:
    if block.aligned:
      continue
    table = _measured2(block)
    table.notes.append('Not comparable with the published numbers: other frames, alignment or LPIPS network.')
    if len(block.results) >= _ENOUGH:
      layout.mark([table], set(table.columns) & _RANKED, _DEPTH2, _HIGHER)
      table.notes.append(_BEST[_DEPTH2] + ' Among the rows of this block but Target.')
    tables.append(table)
  return tables


def categories(blocks: Sequence[Block]) -> list[Table]:
  """For each block whose clips have scene categories: every method on the clips of each."""
  tables = []
  for block in blocks:
    members = {name: [c for c in block.clips if block.category.get(c) == name] for name in block.category.values()}
    rows, shown = [], _shown(block)
    for name, clips in sorted(members.items()):
      base = _over(block.no_processing.get(block.metric('psnr')), clips)
      for result in _lines(block):
        row = {'category': Cell(name), 'clips': Cell(str(len(clips))), 'method': Cell(result.method)}
        for metric in shown:
          score = _over(result.scores.get(block.metric(metric)), clips)
          row[metric] = Cell() if score is None else Cell(_number(metric, score), score)
        psnr = _over(result.scores.get(block.metric('psnr')), clips) if block.aligned else None
        unprocessed = result.scores is block.no_processing
        row['gain'] = (
          Cell() if psnr is None or base is None or unprocessed else Cell(f'{psnr - base:+.3f}', psnr - base)
        )
        rows.append(row)
    if rows:
      gain = {'gain': 'Gain (dB)'} if block.aligned else {}
      heads = {metric: _heading(metric) for metric in shown if any(row[metric].text for row in rows)}
      columns = {'category': 'Category', 'clips': 'Clips', 'method': 'Method'} | heads | gain
      tables.append(Table(_title(block), columns, rows, ['Means over the clips of a category.']))
  return tables


def comparisons(blocks: Sequence[Block]) -> list[tuple[Block, str, str, str, statistics.Comparison]]:
  """(block, metric, A, B, A against B) for every two methods of a block, for metrics that have a better side."""
  found = []
  for block in blocks:
    for metric in _shown(block):
      methods = {}
      for result in _lines(block):
        score = result.scores.get(block.metric(metric))
        if metric in _HIGHER | _LOWER and score and score.per_clip and result.scores is not block.target:
          methods[result.method] = score.per_clip
      pairs = statistics.matrix(methods, lower_is_better=metric not in _HIGHER)
      found += [(block, metric, a, b, comparison) for (a, b), comparison in pairs.items()]
  return found


def documents(blocks: Sequence[Block]) -> dict[str, str]:
  """The contents of all files by name: table1, table2 (md, csv, tex), categories and comparison (md, csv)."""
  first, second = table1(blocks), table2(blocks)
  by_category, pairs = categories(blocks), comparisons(blocks)
  titles = 'Table 1: restoration (Track 1)', 'Table 2: weakly supervised mapping (Track 2)'
  return {
    'table1.md': layout.markdown(titles[0], first),
    'table1.csv': files.csv_of(*_records1(blocks)),
    'table1.tex': layout.latex('Track 1', first),
    'table2.md': layout.markdown(titles[1], second),
    'table2.csv': files.csv_of(*_records2(blocks)),
    'table2.tex': layout.latex('Track 2', second),
    'categories.md': layout.markdown('By scene category', by_category, 'No clip has a category.'),
    'categories.csv': files.csv_of(*_records_of_categories(by_category)),
    'comparison.md': layout.markdown('Methods in pairs', _comparison_tables(pairs), 'No two methods to compare.'),
    'comparison.csv': files.csv_of(*_records_of_pairs(pairs)),
  }


def write(folder: pathlib.Path, texts: Mapping[str, str]) -> list[pathlib.Path]:
  """Write `documents` into `folder`; return their paths."""
  for name, text in texts.items():
    files.write_text(folder / name, text)
  return [folder / name for name in texts]


# Blocks that were measured.


def _measured1(block: Block) -> Table:
  lpips, footnotes = _main_lpips(block), _Footnotes()
  further = [metric for metric in _shown(block) if metric not in ('psnr', 'ssim', lpips)]
  scores = {'psnr': '↑PSNR', 'ssim': '↑SSIM', 'lpips': _heading(lpips), 'gain': 'Gain (dB)'}
  columns = {'method': 'Method'} | scores | _COSTS | {metric: _heading(metric) for metric in further}

  def row(result: Result) -> dict[str, Cell]:
    cells = {'method': Cell(result.method), 'gain': _gain_cell(block, result)} | _costs(result)
    cells |= {name: _score_cell(result, block.metric(name), footnotes) for name in ('psnr', 'ssim', *further)}
    return cells | {'lpips': _score_cell(result, lpips, footnotes)}

  lines = _lines(block)
  notes = [
    f'PSNR in dB, SSIM: of frames under protocol {block.protocol}; means over clips.',
    *_interval_notes(block),
    'TestTime: seconds per frame of the network alone, on one TestReq; at 1920x1080 where no size is given.',
  ]
  return _table(block, lines, columns, row, notes, footnotes)


def _measured2(block: Block) -> Table:
  footnotes, shown = _Footnotes(), _shown(block)
  if 'lpips_alex' not in shown:
    shown = ['lpips_alex', *shown]
  heads = {metric: _heading(metric) for metric in shown}
  heads |= {metric: heads[metric].replace(')', ', unaligned)') for metric in shown if metric in _LPIPS}
  costs = {key: _COSTS[key] for key in ('parameters', 'test_hardware', 'test_time')}

  def row(result: Result) -> dict[str, Cell]:
    cells = {'method': Cell(result.method)} | _costs(result)
    cells |= {metric: _score_cell(result, metric, footnotes) for metric in shown}
    if result.scores is block.target:  # a floor, not a competitor
      cells = {key: Cell(cell.text) for key, cell in cells.items()}
    return cells

  lines = _lines(block)
  notes = [
    'Means over clips, methods by colour distance. Source: the input as it is. Target: the target videos themselves, '
    'for metrics where these say what a perfect result would have.',
    'Sharpness: log2 of the detail over that of the target; 0 is best, below it is blur.',
  ]
  return _table(block, lines, {'method': 'Method'} | heads | costs, row, notes, footnotes)


def _table(
  block: Block,
  lines: Sequence[Result],
  columns: dict[str, str],
  row: Callable[[Result], dict[str, Cell]],
  notes: list[str],
  footnotes: _Footnotes,
) -> Table:
  """A measured table with its single seeds and the notes that both tracks share."""
  table = Table(_title(block), columns, [row(result) for result in lines], notes)
  if {'warping', 'flicker'} & columns.keys():
    notes.append('Warping error and flicker have no marks: blur lowers them as well as a good result does.')
  if singles := [_single(seed) for result in lines for seed in result.seeds]:
    notes.append('± is the sample standard deviation over seeds; costs are those of one run, training time their mean.')
    scores = {key: heading for key, heading in columns.items() if key not in _COSTS}
    table.singles = Table('Single seeds', scores, [row(result) for result in singles])
  if block.frames != 'all':
    notes.append(f'Not all frames were scored: {block.frames}.')
  if block.aligned:
    for metric in columns:
      if metric in block.target and metric not in ('psnr', 'ssim'):
        floor = _number(metric, block.target[metric].mean)
        notes.append(f'{metrics.label(metric)} of the targets themselves, the floor: {floor}.')
  for result in lines:
    if result.train and result.train['notes']:
      notes.append(f'{result.method}: {", ".join(map(str, result.train["notes"]))}.')
    for metric, reason in result.missing.items():
      if metric in (_TRACK1 if block.aligned else _TRACK2):
        footnotes.cell(metric, reason)  # also where no row has it, so that it has no column
  notes += footnotes.lines()
  return table


def _single(result: Result) -> Result:
  return dataclasses.replace(result, method=f'{result.method}, seed {result.seed}')


def _lines(block: Block) -> list[Result]:
  """The rows of a block in their order: Track 1 by PSNR with the unprocessed input last, Track 2 by colour."""

  def given(name: str, scores: Mapping[str, Score]) -> list[Result]:
    first = block.results[0].missing
    missing = {metric: first[metric] for metric in first if all(metric in result.missing for result in block.results)}
    return [Result(name, scores, missing)] if scores else []

  def by(metric: str, sign: int) -> list[Result]:
    def key(result: Result) -> tuple[bool, float]:
      value = result.scores[metric].mean if metric in result.scores else math.nan
      return math.isnan(value), sign * value

    return sorted(block.results, key=key)

  if block.aligned:
    return [*by(block.metric('psnr'), -1), *given('No processing', block.no_processing)]
  return [*given('Source', block.no_processing), *by('colour', 1), *given('Target', block.target)]


def _shown(block: Block) -> list[str]:
  """The metrics that a block has a number of, in the order of the columns."""
  have = {metric for result in block.results for metric in result.scores} | block.no_processing.keys()
  if block.aligned:
    return [metric for metric in _TRACK1 if block.metric(metric) in have]
  return [metric for metric in _TRACK2 if metric in have | block.target.keys()]


def _main_lpips(block: Block) -> str:
  """The network of the LPIPS column: the first that was measured, or else that should have been."""
  measured = [metric for metric in _LPIPS if metric in _shown(block)]
  asked = [metric for metric in _LPIPS if any(metric in result.missing for result in block.results)]
  return next(iter(measured + asked), _LPIPS[0])


def _title(block: Block) -> str:
  count = len(block.clips)
  frames = 'all frames' if block.frames == 'all' else f'frames {block.frames}'
  if block.n_frames is not None:
    frames += f', {block.n_frames} of them'
  parts = [
    f'data set {block.dataset}',
    block.split,
    f'protocol {block.protocol}' if block.aligned else 'weakly aligned',
  ]
  parts += [f'{count} clip{"s" if count != 1 else ""}', frames]
  return f'Measured here ({", ".join(filter(None, parts))})'


def _interval_notes(block: Block) -> list[str]:
  if not block.no_processing:
    return ['No gain: the unprocessed inputs were not scored.']
  said = 'Gain: PSNR minus that of "No processing" on the same clips'
  if len(block.clips) < 2:
    return [f'{said}. One clip does not tell how clips differ, so there is no interval.']
  return [f'{said}, with its 95 % interval from 10,000 resamples of the {len(block.clips)} clips.']


def _gain(block: Block, result: Result) -> tuple[float, float, float] | None:
  """PSNR over the unprocessed input in dB, and its interval, nan where there is none."""
  psnr = block.metric('psnr')
  score, base = result.scores.get(psnr), block.no_processing.get(psnr)
  if not score or not base or result.scores is block.no_processing:
    return None
  low = high = math.nan
  if score.per_clip and base.per_clip:
    found = statistics.compare(score.per_clip, base.per_clip, names=(result.method, 'No processing'))
    low, high = found.low, found.high
  return score.mean - base.mean, low, high


def _gain_cell(block: Block, result: Result) -> Cell:
  gain = _gain(block, result)
  if gain is None:
    return Cell()
  mean, low, high = gain
  return Cell(f'{mean:+.3f}' + ('' if math.isnan(low) else f' [{low:+.3f}, {high:+.3f}]'), mean)


def _score_cell(result: Result, metric: str, footnotes: _Footnotes) -> Cell:
  score = result.scores.get(metric)
  if score is None:
    return footnotes.cell(metric, result.missing[metric]) if metric in result.missing else Cell()
  spread = '' if score.std is None else f' ± {_number(metric, score.std)}'
  value = abs(score.mean) if metric in _NEAR_ZERO else score.mean
  return Cell(_number(metric, score.mean) + spread, value)


def _costs(result: Result) -> dict[str, Cell]:
  train, timing = result.train or {}, result.timing or {}
  extra = train.get('extra_data')
  texts = {
    'train_hardware': train.get('hardware') or '',
    'train_time': duration(train.get('seconds')),
    'test_hardware': timing.get('device') or '',
    'test_time': _seconds(timing),
    'parameters': '' if result.params is None else format_params(result.params),
    'extra_data': '' if extra is None else 'Yes' if extra else 'No',
  }
  return {name: Cell(text) for name, text in texts.items()}


def duration(seconds: float | None) -> str:
  """'2.3d', '5h 02min', '12min' or '40s'."""
  if seconds is None:
    return ''
  minutes = round(seconds / 60)
  if minutes >= 24 * 60:
    return f'{seconds / 86400:.1f}d'
  if minutes >= 60:
    return f'{minutes // 60}h {minutes % 60:02d}min'
  return f'{minutes}min' if seconds >= 60 else f'{seconds:.0f}s'


def _seconds(timing: Mapping[str, Any]) -> str:
  if not timing:
    return ''
  seconds, size = timing['seconds_per_frame'], timing['frame_size']
  text = f'{seconds:.3g}s' if seconds < 100 else f'{seconds:.0f}s'
  if not size:
    return f'{text} (size not known)'
  return text if list(size) == _FULL_SIZE else f'{text} ({size[1]}x{size[0]})'


def _number(metric: str, value: float) -> str:
  return f'{value:.3g}' if metric in ('warping', 'flicker') else f'{value:.3f}'


def _heading(metric: str) -> str:
  name = {'psnr': 'PSNR', 'ssim': 'SSIM'}.get(metric) or metrics.label(metric)
  return ('↑' if metric in _HIGHER else '↓' if metric in _LOWER else '') + name


def _over(score: Score | None, clips: Sequence[str]) -> float | None:
  """The mean over some clips; None where one of them has no score."""
  if score is None or not all(clip in score.per_clip for clip in clips):
    return None
  return statistics.spread([score.per_clip[clip] for clip in clips])[0]


def _comparison_tables(pairs) -> list[Table]:
  columns = {'metric': 'Metric', 'a': 'A', 'b': 'B', 'diff': 'A - B', 'interval': '95 % interval'}
  columns |= {'wins': 'A better / worse / equal', 'p': 'p'}
  tables = {}
  for block, metric, a, b, found in pairs:
    table = tables.setdefault(id(block), Table(_title(block), columns, []))
    texts = {
      'metric': _heading(metric),
      'a': a,
      'b': b,
      'diff': f'{found.mean_diff:+.4f}',
      'interval': '' if math.isnan(found.low) else f'[{found.low:+.4f}, {found.high:+.4f}]',
      'wins': f'{found.wins} / {found.losses} / {found.ties}',
      'p': f'{found.p_sign:.2g}',
    }
    table.rows.append({key: Cell(text) for key, text in texts.items()})
  for table in tables.values():
    table.notes += [
      'Mean difference over clips with its interval from 10,000 resamples of the clips (percentile); clips where A is '
      'better, worse and exactly equal.',
      'p: exact two-sided sign test over clips, equal ones dropped; not corrected for the number of comparisons.',
    ]
  return list(tables.values())


_BLOCK_FIELDS = ('block', 'kind', 'dataset', 'split', 'protocol', 'frames', 'clips')
_RUN_FIELDS = ('method', 'system', 'step', 'ema', 'seed', 'seeds')
_COST_FIELDS = (
  'training_hardware', 'training_time', 'training_seconds', 'test_hardware', 'test_time', 'seconds_per_frame',
  'frame_size', 'parameters', 'params', 'extra_data', 'path',
)  # fmt: skip


def _records1(blocks: Sequence[Block]) -> tuple[list[str], list[dict[str, Any]]]:
  records = []
  for line in published.TRACK1:
    gain = None if line is published.NO_PROCESSING else round(line.psnr - published.NO_PROCESSING.psnr, 3)
    record = {'block': 'published', 'kind': 'published', 'clips': len(published.TRACK1_CLIPS), 'method': line.team}
    record |= {'psnr': line.psnr, 'ssim': line.ssim, 'lpips': line.lpips, 'gain': gain}
    record |= {'training_hardware': line.train_hardware, 'training_time': line.train_time}
    record |= {'test_hardware': line.test_hardware, 'test_time': line.test_time, 'seconds_per_frame': line.seconds}
    records.append(record | {'parameters': line.parameters, 'params': line.params, 'extra_data': line.extra_data})
  scores = ['psnr', 'psnr_std', 'ssim', 'ssim_std', 'lpips', 'gain', 'gain_low', 'gain_high']
  for block in blocks:
    if block.aligned:
      records += _records(block)
  return [*_BLOCK_FIELDS, *_RUN_FIELDS, *scores, *_COST_FIELDS], records


def _records2(blocks: Sequence[Block]) -> tuple[list[str], list[dict[str, Any]]]:
  base = {'block': 'published', 'kind': 'published'}
  records = [base | {'method': line.method, 'lpips': line.lpips} for line in published.TRACK2]
  for block in blocks:
    if not block.aligned:
      records += _records(block)
  return [*_BLOCK_FIELDS, *_RUN_FIELDS, 'lpips', *_COST_FIELDS], records


def _records(block: Block) -> list[dict[str, Any]]:
  """A block's rows, seeds and their mean each their own, with all metrics of its table in full precision."""
  records = []
  for line in _lines(block):
    own = 'seeds' if line.seeds else 'method' if line.paths else 'reference'
    for result, kind in ((line, own), *((_single(seed), 'seed') for seed in line.seeds)):
      train, timing = result.train or {}, result.timing or {}
      size, texts = timing.get('frame_size'), _costs(result)
      record = _of_block(block) | {'kind': kind, 'method': result.method, 'seeds': len(result.seeds) or None}
      record |= {name: getattr(result, name) for name in ('system', 'step', 'ema', 'seed', 'params')}
      for metric in _shown(block):
        if score := result.scores.get(block.metric(metric)):
          record |= {metric: score.mean} | ({} if score.std is None else {f'{metric}_std': score.std})
      if block.aligned and (gain := _gain(block, result)):
        record |= dict(
          zip(('gain', 'gain_low', 'gain_high'), (None if math.isnan(v) else v for v in gain), strict=True)
        )
      record |= {'training_hardware': train.get('hardware'), 'training_seconds': train.get('seconds')}
      record |= {'test_hardware': timing.get('device'), 'seconds_per_frame': timing.get('seconds_per_frame')}
      record |= {'training_time': texts['train_time'].text, 'test_time': texts['test_time'].text}
      record |= {'parameters': texts['parameters'].text, 'extra_data': texts['extra_data'].text}
      records.append(record | {'frame_size': f'{size[1]}x{size[0]}' if size else None, 'path': ' '.join(result.paths)})
  return records


def _of_block(block: Block) -> dict[str, Any]:
  names = {name: getattr(block, name) for name in ('dataset', 'split', 'protocol', 'frames')}
  return {'block': 'measured', **names, 'clips': len(block.clips)}


def _records_of_categories(tables: Sequence[Table]) -> tuple[list[str], list[dict[str, Any]]]:
  records = []
  for table in tables:
    for row in table.rows:
      values = {key: row[key].text if row[key].value is None else row[key].value for key in table.columns}
      records.append({'block': table.title} | values)
  return ['block', 'category', 'clips', 'method'], records


def _records_of_pairs(pairs) -> tuple[list[str], list[dict[str, Any]]]:
  fields = [field.name for field in dataclasses.fields(statistics.Comparison)]
  records = []
  for block, metric, a, b, found in pairs:
    values = {name: None if value != value else value for name, value in dataclasses.asdict(found).items()}
    lower = metric not in _HIGHER
    records.append(_of_block(block) | {'metric': metric, 'lower_is_better': lower, 'a': a, 'b': b} | values)
  names = [name for name in _BLOCK_FIELDS if name != 'kind']
  return [*names, 'metric', 'lower_is_better', 'a', 'b', *fields], records
