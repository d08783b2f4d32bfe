"""Tables of a study."""

import math

from report.study.answers import METHODS, make_key, records

from vqm_jax.report.study import rendering


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
