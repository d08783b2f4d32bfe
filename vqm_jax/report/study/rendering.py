"""The tables of a blind study as Markdown, LaTeX and CSV; without votes they say so."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vqm_jax import files
from vqm_jax.report.study import preference
from vqm_jax.report.study.ratings import Rater
from vqm_jax.report.tables import layout
from vqm_jax.report.tables.layout import Cell, Table

NO_VOTES = 'no votes'
_PLACES = 3


def documents(key: Mapping[str, Any], raters: Sequence[Rater], resamples: int, seed: int) -> tuple[dict, dict]:
  """Texts by file name, and the numbers behind them for JSON and the plot.

  Args:
    key: of the study.
    raters: all of them, screened; those that were dropped are listed, but not counted.
    resamples, seed: of the bootstrap.
  """
  counted = [rater for rater in raters if not rater.dropped]
  methods = [*key['methods'], *([key['target']] if key.get('target') else [])]
  agreement = preference.alpha(preference.units(counted))
  if key['mode'] == 'pair':
    found, tie = preference.strengths(counted, methods, resamples, seed)
    duels = preference.duels(counted, methods)
    tables = [_strength_table(found, counted, tie), _matrix(duels, methods), _duel_table(duels)]
    records = [{'method': method} | vars(found[method]) for method in _ranked(found, 'value')]
    estimates = {m: (found[m].value, found[m].low, found[m].high) for m in _ranked(found, 'value')}
  else:
    found, duels, tie = preference.opinions(counted, methods, key.get('target'), resamples, seed), {}, None
    tables = [_opinion_table(found, key.get('target'))]
    records = [{'method': method} | vars(found[method]) for method in _ranked(found, 'mean')]
    estimates = {m: (found[m].mean, found[m].low, found[m].high) for m in _ranked(found, 'mean')}
  votes = sum(len(rater.of_kind('main')) for rater in counted)
  tables[0].title += f' ({len(counted)} {"rater" if len(counted) == 1 else "raters"}, {votes or "no"} votes)'
  tables[0].notes += _notes(raters, counted, agreement)
  texts = {
    'study.md': layout.markdown(f'Blind study: {key.get("question", "")}', tables),
    'study.tex': layout.latex('Blind study', tables[: 1 if key['mode'] == 'mos' else 2]),
    'study.csv': files.csv_of(['method'], [_plain(record) for record in records]),
    'raters.csv': files.csv_of(['participant'], [_plain(_rater_record(rater)) for rater in raters]),
    'votes.csv': files.csv_of(_VOTE, [vars(vote) for rater in raters for vote in rater.votes]),
  }
  if duels:
    lines = [{'a': a, 'b': b} | vars(duel) for (a, b), duel in duels.items()]
    texts['pairs.csv'] = files.csv_of(['a', 'b'], [_plain(line) for line in lines])
  numbers = {
    'schema_version': 1,
    'study': key['study'],
    'mode': key['mode'],
    'question': key.get('question'),
    'raters': len(counted),
    'dropped': {rater.name: rater.dropped for rater in raters if rater.dropped},
    'votes': votes,
    'methods': {record['method']: record for record in records},
    'tie_parameter': tie,
    'krippendorff_alpha': agreement,
  }
  return texts, {'estimates': estimates, 'numbers': numbers}


_VOTE = ('participant', 'kind', 'clip', 'left', 'right', 'answer', 'ms', 'plays')


def _ranked(found: Mapping[str, Any], field: str) -> list[str]:
  """Methods by falling estimate; those without votes last, in their order."""
  return sorted(found, key=lambda method: -_or(getattr(found[method], field), -math.inf))


def _or(value: float, otherwise: float) -> float:
  return otherwise if math.isnan(value) else value


def _number(value: float, sign: str = '') -> str:
  return NO_VOTES if math.isnan(value) else f'{value:{sign}.{_PLACES}f}'


def _interval(low: float, high: float, sign: str = '') -> str:
  return '' if math.isnan(low) else f'[{low:{sign}.{_PLACES}f}, {high:{sign}.{_PLACES}f}]'


def _strength_table(found: Mapping[str, preference.Strength], counted: Sequence[Rater], tie: float) -> Table:
  columns = {'method': 'Method', 'strength': 'Log-strength', 'interval': '95 % interval', 'share': 'Preferred'}
  columns |= {'wins': 'Wins', 'ties': 'Ties', 'losses': 'Losses'}
  rows = []
  for method in _ranked(found, 'value'):
    one = found[method]
    seen = one.wins + one.ties + one.losses
    share = f'{100 * (one.wins + one.ties / 2) / seen:.1f} %' if seen else ''
    cells = (method, _number(one.value, '+'), _interval(one.low, one.high, '+'), share, one.wins, one.ties, one.losses)
    rows.append({name: Cell(str(text)) for name, text in zip(columns, cells, strict=True)})
  notes = []
  if not math.isnan(tie):
    notes.append(
      'Log-strength: Bradley-Terry model with ties (Davidson), mean 0 over methods. A method that is d stronger than '
      'another wins against it exp(d) times as often as it loses. Preferred: wins and half of the ties.'
    )
    notes.append(f'At equal strength {100 * tie / (2 + tie):.0f} % of the answers would be "no difference".')
    extreme = [m for m, one in found.items() if one.wins + one.ties + one.losses and (not one.wins or not one.losses)]
    if extreme:
      notes.append(
        f'{", ".join(extreme)}: no wins, or no losses. How far away it is cannot be told; a wide prior keeps the '
        'number finite.'
      )
    notes.append(
      'Intervals: raters drawn with replacement.' if len(counted) > 1 else 'One rater: there are no intervals.'
    )
  return Table('Preferences', columns, rows, notes)


def _matrix(duels: Mapping[tuple[str, str], preference.Duel], methods: Sequence[str]) -> Table:
  columns = {'method': 'Preferred'} | {f'over {k}': f'over {method}' for k, method in enumerate(methods)}
  rows = []
  for method in methods:
    row = {'method': Cell(method)}
    for k, other in enumerate(methods):
      won, tied = 0, 0
      if (duel := duels.get((method, other))) is not None:
        won, tied = duel.wins, duel.ties
      elif (duel := duels.get((other, method))) is not None:
        won, tied = duel.losses, duel.ties
      row[f'over {k}'] = Cell('' if duel is None else f'{won} ({tied})' if duel.wins + tied + duel.losses else NO_VOTES)
    rows.append(row)
  return Table('How often the row was preferred to the column (in brackets: no difference)', columns, rows)


def _duel_table(duels: Mapping[tuple[str, str], preference.Duel]) -> Table:
  columns = {'a': 'A', 'b': 'B', 'wins': 'A better', 'ties': 'No difference', 'losses': 'B better', 'p': 'p'}
  columns['holm'] = 'p (Holm)'
  rows = []
  for (a, b), duel in duels.items():
    seen = duel.wins + duel.ties + duel.losses
    p = ('' if math.isnan(value) else f'{value:.2g}' for value in (duel.p, duel.p_holm))
    cells = (a, b, duel.wins, duel.ties, duel.losses, *p) if seen else (a, b, NO_VOTES, '', '', '', '')
    rows.append({name: Cell(str(text)) for name, text in zip(columns, cells, strict=True)})
  note = (
    'p: exact two-sided binomial test without the ties; Holm: corrected for the number of pairs. Votes of one rater '
    'are counted as if they were independent, so that p is too small rather than too large.'
  )
  return Table('Pairs', columns, rows, [note] if any(not math.isnan(duel.p) for duel in duels.values()) else [])


def _opinion_table(found: Mapping[str, preference.Opinion], target: str | None) -> Table:
  columns = {'method': 'Method', 'mos': 'MOS', 'interval': '95 % interval', 'boot': 'Bootstrap'}
  if target:
    columns |= {'dmos': 'DMOS', 'dmos_interval': '95 % interval of DMOS'}
  columns |= {'votes': 'Votes', 'raters': 'Raters'}
  rows = []
  for method in _ranked(found, 'mean'):
    one = found[method]
    cells = {
      'method': f'{method} (hidden reference)' if method == target else method,
      'mos': _number(one.mean),
      'interval': _interval(one.low, one.high),
      'boot': _interval(one.boot_low, one.boot_high),
      'dmos': '' if method == target or math.isnan(one.dmos) else _number(one.dmos),
      'dmos_interval': '' if method == target else _interval(one.dmos_low, one.dmos_high),
      'votes': str(one.votes),
      'raters': str(one.raters),
    }
    rows.append({name: Cell(cells[name]) for name in columns})
  notes = []
  if any(one.votes for one in found.values()):
    notes.append('MOS: 1 bad, 2 poor, 3 fair, 4 good, 5 excellent; mean over raters of their means.')
    if target:
      notes.append(
        'DMOS: rating minus that of the hidden reference by the same rater on the same clip, plus 5; 5 is as good as '
        'the reference.'
      )
    notes.append('Intervals: t over raters; bootstrap: raters drawn with replacement. None for a single rater.')
  return Table('Opinions', columns, rows, notes)


def _notes(raters: Sequence[Rater], counted: Sequence[Rater], agreement: float) -> list[str]:
  """Describe the raters."""
  notes = []
  if not math.isnan(agreement):
    notes.append(f"Agreement of raters: Krippendorff's alpha {agreement:.2f} (1: perfect, 0: by chance).")
  repeats = [rater.consistency for rater in counted]
  total = sum(count for _, count in repeats)
  if total:
    same = sum(share * count for share, count in repeats if count)
    rated = any(vote.right is None for rater in counted for vote in rater.votes)
    what = 'an answer at most one step away' if rated else 'the same answer'
    notes.append(f'{round(same)} of {total} repeated questions got {what}.')
  checks = [rater.checks for rater in counted]
  if checks and sum(count for _, count in checks):
    notes.append(f'{sum(k for k, _ in checks)} of {sum(n for _, n in checks)} obvious questions were answered right.')
  same = [vote.answer == 'same' for rater in counted for vote in rater.of_kind('same')]
  if same:
    notes.append(f'{sum(same)} of {len(same)} pairs of the same video were called no different.')
  if unfinished := [rater for rater in counted if len(rater.votes) < rater.questions]:
    names = ', '.join(f'{rater.name} ({len(rater.votes)} of {rater.questions})' for rater in unfinished)
    notes.append(f'Not finished, but counted: {names}.')
  if dropped := [rater for rater in raters if rater.dropped]:
    notes.append('Not counted: ' + '; '.join(f'{rater.name} ({rater.dropped})' for rater in dropped) + '.')
  return notes


def _rater_record(rater: Rater) -> dict[str, Any]:
  passed, checks = rater.checks
  share, repeats = rater.consistency
  return {
    'participant': rater.name,
    'answers': len(rater.votes),
    'questions': rater.questions,
    'checks_passed': passed,
    'checks': checks,
    'repeats_same': share,
    'repeats': repeats,
    'median_seconds': rater.median_seconds,
    'dropped': rater.dropped,
  }


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
  """A record for CSV: what there is no number for stays empty."""
  return {name: '' if isinstance(value, float) and math.isnan(value) else value for name, value in record.items()}
