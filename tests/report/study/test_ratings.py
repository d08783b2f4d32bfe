"""Answers that are read, refused or screened out; mean opinions."""

import json
import math
import re

import numpy as np
import pytest
from report.study.answers import chooser, export, make_key, rate, read, records, signed
from scipy import stats

from vqm_jax import errors
from vqm_jax.report.study import preference, ratings, rendering


def test_mean_opinions(tmp_path):
  key = make_key('mos', ['a', 'b'], 'target')
  quality = [{'a': 3, 'b': 2, 'target': 4}, {'a': 4, 'b': 2, 'target': 5}, {'a': 4, 'b': 3, 'target': 5}]
  raters = read(tmp_path, key, [export(key, f'P{k}', rate(q)) for k, q in enumerate(quality)])
  found = preference.opinions(raters, ['a', 'b', 'target'], 'target')
  a = found['a']
  assert a.mean == pytest.approx(11 / 3) and a.raters == 3 and a.votes == 18
  low, high = stats.t.interval(0.95, 2, loc=11 / 3, scale=stats.sem([3, 4, 4]))
  assert (a.low, a.high) == pytest.approx((low, high)) and (a.boot_low, a.boot_high) == (3, 4)
  assert (a.dmos, a.dmos_low, a.dmos_high) == pytest.approx((4, 4, 4))
  assert found['b'].dmos == pytest.approx(np.mean([3, 2, 3])) and found['target'].dmos == 5
  assert math.isnan(preference.opinions(raters[:1], ['a'], None)['a'].low)


def altered(key, change, sign=False):
  value = export(key, 'P1', chooser(np.random.default_rng(0)))
  change(value)
  return signed(value) if sign else value


def set_answer(**fields):
  return lambda value: value['answers'][3].update(fields)


def swap(value):
  a = value['answers']
  a[0], a[1] = a[1], a[0]


@pytest.mark.parametrize(
  ('change', 'sign', 'message'),
  [
    (lambda v: v.update(study='other'), False, 'is of study other, the key of demo'),
    (lambda v: v.update(slot=v['slot'] + 1), False, "participant 'P1' does not belong to order"),
    (lambda v: v.update(participant='P2'), True, "participant 'P2' does not belong to order"),
    (lambda v: v.update(order='0' * 16), True, 'the questions came in another order than the key has'),
    (set_answer(answer='right', ms=4001), False, 'was edited: its checksum does not fit'),
    (lambda v: v['answers'].pop(), False, 'was edited'),
    (lambda v: v['answers'].pop(4), True, 'answer 5 is to question 6, answers were moved or lost'),
    (swap, True, 'answer 1 is to question 2'),
    (set_answer(trial=999), True, 'answer 4 is to question 999, which does not exist'),
    (set_answer(trial=2), True, 'question 3 is answered twice'),
    (set_answer(trial='3'), True, "answers[3].trial: expected a whole number, found '3'"),
    (set_answer(media=['t0', 't1']), True, 'question 4 shows other videos than in the key'),
    (set_answer(answer='best'), True, "the answer 'best' to question 4 is none that can be given"),
    (set_answer(answer=3), True, 'the answer 3 to question 4'),
    (set_answer(answer=['left']), False, 'answers[3].answer: expected text or a whole number, found'),
    (set_answer(ms=-5), True, 'answers[3].ms: expected at least 0, found -5'),
    (set_answer(ms=1.5), True, 'answers[3].ms: expected a whole number, found 1.5'),
    (set_answer(ms=2**60), True, 'question 4 has no proper times'),
    (lambda v: v['answers'][3].pop('ms'), False, 'answers[3].ms: expected a whole number, found none'),
    (lambda v: v.update(answers=None), False, 'answers: expected a list, found null'),
    (lambda v: v.update(version=2), False, 'has version 2, expected 1'),
    (lambda v: v.update(format='x'), False, 'is no vqm_jax study answers; give the files that raters downloaded'),
  ],
)
def test_exports_that_are_refused(tmp_path, change, sign, message):
  key = make_key(methods=['a', 'b', 'c'])
  with pytest.raises(errors.DataError, match=f'00.json.*{re.escape(message)}'):
    read(tmp_path, key, [altered(key, change, sign)])


def test_nobody_votes_twice_and_all_that_is_wrong_is_told_at_once(tmp_path):
  key = make_key(methods=['a', 'b', 'c'])
  good = export(key, 'P1', chooser(np.random.default_rng(0)))
  part = export(key, 'P1', chooser(np.random.default_rng(0)), stop=5)
  with pytest.raises(
    errors.DataError, match='01.json is a second file of P1, the first is .*00.json; keep one.*02.json'
  ):
    read(tmp_path, key, [good, part, good | {'study': 'x'}])
  (tmp_path / 'answers' / '03.json').write_text('{"format": ')
  with pytest.raises(errors.DataError, match='03.json is damaged'):
    ratings.read(key, [tmp_path / 'answers' / '03.json'])
  with pytest.raises(errors.DataError, match='nowhere: no such file or folder'):
    ratings.find(['nowhere'])
  for text, message in (('{}', 'is no vqm_jax study key'), ('[', 'is damaged'), (json.dumps(good), 'is no vqm')):
    (tmp_path / 'key.json').write_text(text)
    with pytest.raises(errors.DataError, match=f'key.json {message}'):
      ratings.read_key(tmp_path / 'key.json')
  (tmp_path / 'key.json').write_text(json.dumps(key | {'orders': []}))
  with pytest.raises(errors.DataError, match=r'key.json is damaged \(orders: expected something, found nothing\)'):
    ratings.read_key(tmp_path / 'key.json')


def test_screening(tmp_path):
  key = make_key(methods=['a', 'b', 'c'])
  rng = np.random.default_rng(0)

  def careless(kind, methods, clip):
    return 'same'

  values = [
    export(key, 'careful', chooser(rng)),
    export(key, 'careless', careless),
    export(key, 'hasty', chooser(rng), ms=300),
    export(key, 'idle', chooser(rng), stop=0),
    export(key, 'partial', chooser(rng), stop=7),
  ]
  raters = ratings.screened(read(tmp_path, key, values), 0.25, 1.0)
  assert {rater.name: rater.dropped for rater in raters} == {
    'careful': '',
    'careless': '2 of 2 checks failed',
    'hasty': 'median answer after 0.30 s',
    'idle': 'no answers',
    'partial': '',
  }
  share, repeats = raters[1].consistency
  assert share == 1 and repeats == 2
  texts, _ = rendering.documents(key, raters, 50, 0)
  page = texts['study.md']
  assert '(2 raters, ' in page and 'careless (2 of 2 checks failed); hasty (median answer after 0.30 s)' in page
  assert 'Not finished, but counted: partial (7 of ' in page
  rows = {row['participant']: row for row in records(texts['raters.csv'])}
  assert rows['careless']['checks_passed'] == '0' and rows['idle']['median_seconds'] == ''
  assert len(records(texts['votes.csv'])) == sum(len(value['answers']) for value in values)


def test_repeats_have_their_sides_swapped(tmp_path):
  key = make_key(methods=['a', 'b', 'c'])
  raters = read(tmp_path, key, [export(key, 'P1', lambda kind, methods, clip: 'left')])
  assert raters[0].consistency[0] == 0  # left both times is another method each time
