"""Answers of a blind study: planted strengths, intervals, agreement, what is refused, what is screened; the binary."""

import csv
import io
import json
import math

import numpy as np
import pytest
from scipy import stats

from vqm_jax import errors
from vqm_jax.report.study import preference, ratings, rendering, trials

METHODS, CLIPS = ['a', 'b', 'c', 'd', 'e'], [f'clip{k}' for k in range(6)]
STRENGTHS = np.array([0.9, 0.4, 0.0, -0.4, -0.9])


def make_key(mode='pair', methods=METHODS, target=None, slots=60, max_trials=60):
  """The key of a study without pictures."""
  stimuli = [*methods, *([target] if target else [])]
  made = trials.orders(stimuli, CLIPS, mode, stimuli[-1], slots, 0, max_trials)
  stimuli = sorted({(m, t.clip) for order in made for t in order for m in (t.left, t.right) if m})
  tokens = {stimulus: f't{k}' for k, stimulus in enumerate(stimuli)}
  return {
    'format': 'vqm_jax study key',
    'version': 1,
    'study': 'demo',
    'mode': mode,
    'question': 'Which?',
    'methods': methods,
    'target': target,
    'clips': CLIPS,
    'media': {token: {'method': method, 'clip': clip} for (method, clip), token in tokens.items()},
    'orders': [
      [
        {'kind': t.kind, 'media': [tokens[m, t.clip] for m in (t.left, t.right) if m]}
        for t in order
        if t.kind != 'training'
      ]
      for order in made
    ],
  }


def export(key, name, answer, stop=None, ms=4000):
  """What the page saves when `answer(kind, methods, clip)` says what is chosen."""
  slot = trials.slot_of(name, len(key['orders']))
  order = key['orders'][slot]
  answers = []
  for k, trial in enumerate(order[:stop]):
    shown = [key['media'][token] for token in trial['media']]
    given = answer(trial['kind'], [entry['method'] for entry in shown], shown[0]['clip'])
    answers.append({'trial': k, 'media': trial['media'], 'answer': given, 'ms': ms, 'plays': 1})
  return signed(
    {'format': 'vqm_jax study answers', 'version': 1, 'study': key['study'], 'mode': key['mode'], 'participant': name}
    | {'slot': slot, 'answers': answers, 'started': '', 'finished': '', 'screen': None, 'browser': ''}
    | {'order': trials.order_digest(key['study'], slot, [trial['media'] for trial in order])}
  )


def signed(value):
  arguments = value['study'], value['participant'], value['order'], value['answers']
  return value | {'digest': trials.answers_digest(*arguments)}


def chooser(rng, tie=0.6):
  """A rater who follows Davidson's model."""
  strengths = dict(zip(METHODS, STRENGTHS, strict=True))

  def choose(kind, methods, clip):
    if kind == 'obvious':
      return 'right' if methods[0] == trials.DAMAGED else 'left'
    left, right = (strengths[method] for method in methods)
    weights = np.array([math.exp(left), tie * math.exp((left + right) / 2), math.exp(right)])
    return ('left', 'same', 'right')[rng.choice(3, p=weights / weights.sum())]

  return choose


def save(folder, values):
  folder.mkdir(exist_ok=True)
  for k, value in enumerate(values):
    (folder / f'{k:02d}.json').write_text(json.dumps(value))
  return ratings.find([str(folder)])


def read(tmp_path, key, values):
  return ratings.read(key, save(tmp_path / 'answers', values))


def records(text):
  return list(csv.DictReader(io.StringIO(text, newline='')))


@pytest.fixture(scope='module')
def voted(tmp_path_factory):
  """A study of pairs that 40 raters took part in."""
  key, rng = make_key(), np.random.default_rng(3)
  values = [export(key, f'P{k:02d}', chooser(rng)) for k in range(40)]
  return key, read(tmp_path_factory.mktemp('voted'), key, values)


# Pairs.


def test_planted_strengths_are_found(voted):
  key, raters = voted
  found, tie = preference.strengths(raters, METHODS, resamples=200)
  values = np.array([found[method].value for method in METHODS])
  np.testing.assert_allclose(values, STRENGTHS, atol=0.15)
  assert tie == pytest.approx(0.6, abs=0.1) and abs(values.sum()) < 1e-9
  for method, planted in zip(METHODS, STRENGTHS, strict=True):
    one = found[method]
    assert one.low < one.value < one.high and one.low - 0.1 < planted < one.high + 0.1 and one.high - one.low < 0.4
    assert one.wins + one.ties + one.losses == 40 * 60 * 2 / 5
  assert preference.strengths(raters, METHODS, resamples=200)[0] == found  # seeded


def test_two_methods_have_a_closed_form():
  table = np.zeros((2, 2, 2))
  table[0, 0, 1], table[0, 1, 0] = 300, 100
  table[1] = 80 * (1 - np.eye(2))
  a, b, log_tie = preference.davidson(table)
  assert a - b == pytest.approx(math.log(3), abs=2e-3) and a == -b
  assert math.exp(log_tie) == pytest.approx(80 / math.sqrt(300 * 100), abs=2e-3)


def test_methods_that_never_lose_stay_finite():
  table = np.zeros((2, 3, 3))
  table[0, 0, 1:] = 50
  table[0, 1, 2] = table[0, 2, 1] = 25
  strengths = preference.davidson(table)[:3]
  assert np.isfinite(strengths).all() and 3 < strengths[0] - strengths[1] < 20
  assert strengths[1] == pytest.approx(strengths[2], abs=1e-4)


def test_duels(voted):
  key, raters = voted
  duels = preference.duels(raters, METHODS)
  assert len(duels) == 10
  duel = duels['a', 'e']
  assert duel.wins + duel.ties + duel.losses == 240 and duel.wins > 3 * duel.losses
  assert duel.p == stats.binomtest(duel.wins, duel.wins + duel.losses).pvalue
  assert duel.p <= duel.p_holm <= 1
  assert preference._holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)


# Ratings.


def rate(quality, rng=None):
  def choose(kind, methods, clip):
    if kind == 'obvious':
      return 1
    noise = 0 if rng is None else rng.normal(0, 0.7)
    return int(np.clip(round(quality[methods[0]] + noise), 1, 5))

  return choose


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


def test_agreement():
  # The example of three coders that the literature on Krippendorff's alpha uses: 0.811 with squared differences.
  coders = ['*****34121133*3', '1*213343*******', '**21344*21133*4']
  units = {k: [float(c[k]) for c in coders if c[k] != '*'] for k in range(15)}
  assert preference.alpha(units) == pytest.approx(0.811, abs=5e-4)
  assert preference.alpha({1: [1, 1], 2: [5, 5]}) == 1
  assert math.isnan(preference.alpha({1: [1], 2: [5]})) and math.isnan(preference.alpha({1: [2, 2]}))
  rng = np.random.default_rng(0)
  assert abs(preference.alpha({k: list(rng.integers(1, 6, 4)) for k in range(500)})) < 0.05


# Reading.


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
    (set_answer(trial='3'), True, "to question '3'"),
    (set_answer(media=['t0', 't1']), True, 'question 4 shows other videos than in the key'),
    (set_answer(answer='best'), True, "the answer 'best' to question 4 is none that can be given"),
    (set_answer(answer=3), True, 'the answer 3 to question 4'),
    (set_answer(answer=['left']), False, 'to question 4'),
    (set_answer(ms=-5), True, 'question 4 has no proper times'),
    (set_answer(ms=1.5), True, 'question 4 has no proper times'),
    (lambda v: v['answers'][3].pop('ms'), False, 'answer 4 is incomplete'),
    (lambda v: v.update(answers=None), False, 'no list of answers'),
    (lambda v: v.update(version=2), False, 'has version 2, expected 1'),
    (lambda v: v.update(format='x'), False, 'is no vqm_jax study answers; give the files that raters downloaded'),
  ],
)
def test_exports_that_are_refused(tmp_path, change, sign, message):
  key = make_key(methods=['a', 'b', 'c'])
  with pytest.raises(errors.DataError, match=f'00.json.*{message}'):
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
  with pytest.raises(errors.DataError, match='key.json is damaged: orders is missing'):
    ratings.read_key(tmp_path / 'key.json')


# Screening.


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


# Tables.


def test_without_answers_there_are_no_scores(tmp_path):
  for key in (make_key(), make_key('mos', ['a', 'b'], 'target')):
    texts, found = rendering.documents(key, [], 50, 0)
    page = texts['study.md']
    assert '(0 raters, no votes)' in page and page.count('no votes') >= 3
    assert found['numbers']['votes'] == 0 and all(math.isnan(value[0]) for value in found['estimates'].values())
    assert not [value for row in records(texts['study.csv']) for value in row.values() if '.' in value]


def test_tables(voted):
  key, raters = voted
  texts, found = rendering.documents(key, raters, 50, 0)
  page = texts['study.md']
  lines = [line.split('|')[1].strip() for line in page.split('## ')[1].splitlines() if line.startswith('|')]
  assert lines == ['Method', '-' * max(6, len(lines[1])), *METHODS]
  assert '(40 raters, 2400 votes)' in page and "Krippendorff's alpha 0." in page
  rows = records(texts['study.csv'])
  assert [row['method'] for row in rows] == METHODS and float(rows[0]['low']) < float(rows[0]['value'])
  pairs = records(texts['pairs.csv'])
  assert len(pairs) == 10 and list(pairs[0]) == ['a', 'b', 'wins', 'ties', 'losses', 'p', 'p_holm']
  assert texts['study.tex'].count(r'\begin{tabular}') == 2 and texts['study.tex'].isascii()
  assert found['numbers']['methods']['a']['value'] == found['estimates']['a'][0]


def test_binary(binary, tmp_path):
  key = make_key('mos', ['a', 'b'], 'target')
  rng = np.random.default_rng(0)
  quality = {'a': 3.6, 'b': 2.4, 'target': 4.6}
  save(tmp_path / 'answers', [export(key, f'P{k}', rate(quality, rng)) for k in range(5)])
  (tmp_path / 'key.json').write_text(json.dumps(key))
  given = f'--key={tmp_path}/key.json', f'--exports={tmp_path}/answers', f'--out={tmp_path}/out'
  process = binary('report.study_results', *given, blocked=['av', 'cv2', 'tensorflow', 'tensorflow_datasets'])
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0, output
  names = ['study.md', 'study.tex', 'study.csv', 'raters.csv', 'votes.csv', 'study.json', 'forest.png', 'forest.svg']
  assert output.splitlines()[-8:] == [f'{tmp_path}/out/{name}' for name in names]
  assert sorted(names) == sorted(path.name for path in (tmp_path / 'out').iterdir())
  assert 'target (hidden reference)' in output and 'DMOS' in output
  assert list(json.loads((tmp_path / 'out' / 'study.json').read_text())['methods']) == ['target', 'a', 'b']


def test_plot_is_the_same_each_time(tmp_path):
  pytest.importorskip('matplotlib')
  from vqm_jax.report.study import forest

  estimates = {'$a_b$': (0.5, 0.3, 0.8), 'b': (-0.5, math.nan, math.nan), 'none': (math.nan,) * 3}
  paths = [forest.save(tmp_path / name, estimates, 'Log-strength', 0.0) for name in 'xy']
  assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]
  assert paths[0][1].read_text().startswith('<?xml')
