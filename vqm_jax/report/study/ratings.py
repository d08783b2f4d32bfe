"""Answers of a blind study: read, checked against its key, and screened."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from vqm_jax import errors, names, schemas
from vqm_jax.report.study import making, trials

CHOICES = ('left', 'same', 'right')
SCALE = (1, 2, 3, 4, 5)  # bad, poor, fair, good, excellent
_OBVIOUS_AT_MOST = 2  # what the damaged video may be rated
_LISTED = 6


@dataclasses.dataclass(frozen=True)
class Vote:
  """One answer with what was behind it.

  Attributes:
    participant, kind, clip: who, which kind of `trials.Trial`, on which clip.
    left, right: methods; right is None where one video was rated.
    answer: left, same, right; or 1 to 5.
    ms: from the first picture to the answer.
    plays: how often the videos had ended.
  """

  participant: str
  kind: str
  clip: str
  left: str
  right: str | None
  answer: str | int
  ms: int
  plays: int


@dataclasses.dataclass(frozen=True)
class Rater:
  """One participant.

  Attributes:
    name: as entered.
    votes: in the order given.
    questions: how many there were.
    dropped: why the votes do not count; '' if they do.
  """

  name: str
  votes: tuple[Vote, ...]
  questions: int
  dropped: str = ''

  def of_kind(self, kind: str) -> list[Vote]:
    """Votes of one kind of trial."""
    return [vote for vote in self.votes if vote.kind == kind]

  @property
  def checks(self) -> tuple[int, int]:
    """Obvious questions answered right, and all of them."""
    votes = self.of_kind('obvious')
    return sum(map(_passed, votes)), len(votes)

  @property
  def consistency(self) -> tuple[float, int]:
    """How often a repeated question got the same answer (ratings: one step away at most), and how many there were."""
    first = {(vote.clip, frozenset((vote.left, vote.right))): vote for vote in self.of_kind('main')}
    pairs = [(vote, first.get((vote.clip, frozenset((vote.left, vote.right))))) for vote in self.of_kind('repeat')]
    same = [_agree(again, before) for again, before in pairs if before]
    return (sum(same) / len(same) if same else float('nan')), len(same)

  @property
  def median_seconds(self) -> float:
    """Median time of an answer; nan without any."""
    return float(np.median([vote.ms for vote in self.votes])) / 1000 if self.votes else float('nan')


@dataclasses.dataclass(frozen=True)
class _Shown:
  method: str
  clip: str


@dataclasses.dataclass(frozen=True)
class _Trial:
  kind: str
  media: list[str]


@dataclasses.dataclass(frozen=True)
class _Key:
  """The fields of a key that are read."""

  FOREIGN = True  # texts of the page, seed, date

  study: str
  mode: Literal['pair', 'mos']
  methods: list[str]
  clips: list[str]
  media: dict[str, _Shown]
  orders: list[list[_Trial]]
  target: str | None = None


@dataclasses.dataclass(frozen=True)
class _Answer:
  FOREIGN = True

  trial: schemas.Count
  media: list[str]
  answer: str | int
  ms: schemas.Count
  plays: schemas.Count


@dataclasses.dataclass(frozen=True)
class _Export:
  """The fields of a rater's answers that are read."""

  FOREIGN = True  # times, screen and browser

  study: str
  participant: str
  slot: int
  order: str
  digest: str
  answers: list[_Answer]


def read_key(path: pathlib.Path) -> dict[str, Any]:
  """The key of a study. Raises DataError when it is damaged or something else."""
  key = _read(path, making.KEY, 'give the ..._KEY_keep_private.json that study wrote')
  try:
    _check_key(schemas.check(key, _Key))
  except schemas.Misfit as error:
    raise errors.DataError(f'{path} is damaged ({error}); take the copy that study wrote.') from error
  names.check(key['clips'], path)
  for method in key['methods']:
    if wrong := names.label_problem(method):
      raise errors.DataError(f'{path}: method {method!r:.120} {wrong}.')
  return key


def _check_key(key: _Key) -> None:
  """Raises Misfit where the parts of a key are empty or do not fit each other."""
  for name in ('study', 'methods', 'clips', 'media', 'orders'):
    if not getattr(key, name):
      raise schemas.Misfit(f'{name}: expected something, found nothing')
  methods = {*key.methods, trials.DAMAGED, making.TARGET, *filter(None, [key.target])}
  for token, shown in key.media.items():
    if shown.method not in methods:
      raise schemas.Misfit(f'media.{token!r:.40}.method: expected one of methods, found {shown.method!r:.60}')
    if shown.clip not in key.clips:
      raise schemas.Misfit(f'media.{token!r:.40}.clip: expected one of clips, found {shown.clip!r:.60}')
  sides = 2 if key.mode == 'pair' else 1
  for slot, order in enumerate(key.orders):
    for place, trial in enumerate(order):
      where = f'orders[{slot}][{place}]'
      if len(trial.media) != sides:
        raise schemas.Misfit(f'{where}.media: expected {sides} for mode {key.mode}, found {len(trial.media)}')
      if lost := [token for token in trial.media if token not in key.media]:
        raise schemas.Misfit(f'{where}.media: expected names in media, found {lost[0]!r:.60}')


def find(paths: Iterable[str]) -> list[pathlib.Path]:
  """Files of answers, and those in folders. Raises DataError for a path that does not exist."""
  found = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      found += sorted(path.glob('*.json'))
    elif path.is_file():
      found.append(path)
    else:
      raise errors.DataError(f'{path}: no such file or folder; --exports takes what raters sent.')
  return list(dict.fromkeys(found))


def read(key: Mapping[str, Any], paths: Iterable[pathlib.Path]) -> list[Rater]:
  """Raters in the order of their names.

  Raises:
    DataError: answers of another study or in another order, edited ones, or two files of one participant. The message
      lists every file that has to go: a table is never made of some of the answers without saying so.
  """
  raters, problems, origin = [], [], {}
  for path in paths:
    try:
      rater = _rater(key, _read(path, making.ANSWERS, 'give the files that raters downloaded'), path)
    except errors.DataError as error:
      problems.append(str(error).rstrip('.'))
      continue
    if rater.name in origin:
      problems.append(f'{path} is a second file of {rater.name}, the first is {origin[rater.name]}; keep one')
    origin.setdefault(rater.name, path)
    raters.append(rater)
  if problems:
    more = f'; and {len(problems) - _LISTED} more' if len(problems) > _LISTED else ''
    raise errors.DataError('; '.join(problems[:_LISTED]) + more + '. Remove these files, or ask for them again.')
  return sorted(raters, key=lambda rater: rater.name)


def screened(raters: Sequence[Rater], max_failed: float, min_seconds: float) -> list[Rater]:
  """The raters, with `dropped` set where more than `max_failed` of the checks went wrong or answers came too fast."""
  out = []
  for rater in raters:
    passed, checks = rater.checks
    reasons = []
    if not rater.of_kind('main'):
      reasons.append('no answers')
    elif checks and checks - passed > max_failed * checks:
      reasons.append(f'{checks - passed} of {checks} checks failed')
    if rater.median_seconds < min_seconds:
      reasons.append(f'median answer after {rater.median_seconds:.2f} s')
    out.append(dataclasses.replace(rater, dropped=', '.join(reasons)))
  return out


def _read(path: pathlib.Path, kind: str, remedy: str) -> dict[str, Any]:
  try:
    value = schemas.parse(schemas.content_of(path))
  except FileNotFoundError as error:
    raise errors.DataError(f'{path}: no such file; {remedy}.') from error
  except schemas.Misfit as error:
    raise errors.DataError(f'{path} is damaged ({error}); {remedy}.') from error
  if not isinstance(value, dict) or value.get('format') != kind:
    raise errors.DataError(f'{path} is no {kind}; {remedy}.')
  if value.get('version') != making.FORMAT:
    raise errors.DataError(
      f'{path} has version {value.get("version")!r:.60}, expected {making.FORMAT}; use the program that made the study.'
    )
  return value


def _rater(key: Mapping[str, Any], export: Mapping[str, Any], path: pathlib.Path) -> Rater:
  """One export, checked. Every mistake has its own message, since the remedies differ."""
  try:
    schemas.check(export, _Export)
  except schemas.Misfit as error:
    raise errors.DataError(f'{path} is damaged ({error})') from error
  study, name, slot, answers = (export[field] for field in ('study', 'participant', 'slot', 'answers'))
  if study != key['study']:
    raise errors.DataError(f'{path} is of study {study:.60}, the key of {key["study"]:.60}')
  if wrong := names.problem(name):
    raise errors.DataError(f'{path}: {names.refusal(name, wrong, "participant")}')
  if slot != trials.slot_of(name, len(key['orders'])):
    raise errors.DataError(f'{path}: participant {name!r} does not belong to order {slot}, one of them was changed')
  order = key['orders'][slot]
  digest = trials.order_digest(study, slot, [trial['media'] for trial in order])
  if export.get('order') != digest:
    raise errors.DataError(f'{path}: the questions came in another order than the key has, the page was changed')
  _check_answers(key['mode'], order, answers, path)
  if trials.answers_digest(study, name, digest, answers) != export.get('digest'):
    raise errors.DataError(f'{path} was edited: its checksum does not fit the answers')
  votes = []
  for answer in answers:
    trial = order[answer['trial']]
    shown = [key['media'][token] for token in trial['media']]
    methods = [entry['method'] for entry in shown] + [None]
    details = answer['answer'], answer['ms'], answer['plays']
    votes.append(Vote(name, trial['kind'], shown[0]['clip'], methods[0], methods[1], *details))
  return Rater(name, tuple(votes), len(order))


def _check_answers(
  mode: str, order: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], path: pathlib.Path
) -> None:
  seen = collections.Counter()
  for place, answer in enumerate(answers):
    trial = answer['trial']
    if trial >= len(order):
      raise errors.DataError(f'{path}: answer {place + 1} is to question {trial}, which does not exist')
    seen[trial] += 1
    if seen[trial] > 1:
      raise errors.DataError(f'{path}: question {trial + 1} is answered twice')
    if trial != place:
      raise errors.DataError(f'{path}: answer {place + 1} is to question {trial + 1}, answers were moved or lost')
    if answer['media'] != order[trial]['media']:
      raise errors.DataError(f'{path}: question {trial + 1} shows other videos than in the key')
    given = answer['answer']
    if given not in (CHOICES if mode == 'pair' else SCALE):
      raise errors.DataError(f'{path}: the answer {given!r:.60} to question {trial + 1} is none that can be given')
    if max(answer['ms'], answer['plays']) >= 2**53:  # beyond what the page counts
      raise errors.DataError(f'{path}: question {trial + 1} has no proper times')


def _passed(vote: Vote) -> bool:
  if vote.right is None:
    return vote.answer <= _OBVIOUS_AT_MOST
  return vote.answer == ('right' if vote.left == trials.DAMAGED else 'left')


def preferred(vote: Vote) -> str | None:
  """The method that a pair's answer prefers; None for neither."""
  return {'left': vote.left, 'right': vote.right, 'same': None}[vote.answer]


def _agree(again: Vote, before: Vote) -> bool:
  if again.right is None:
    return abs(again.answer - before.answer) <= 1
  return preferred(again) == preferred(before)
