"""Votes: planted strengths, intervals, duels."""

import math

import numpy as np
import pytest
from report.study.answers import METHODS, STRENGTHS
from scipy import stats

from vqm_jax.report.study import preference


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


def test_agreement():
  # The example of three coders that the literature on Krippendorff's alpha uses: 0.811 with squared differences.
  coders = ['*****34121133*3', '1*213343*******', '**21344*21133*4']
  units = {k: [float(c[k]) for c in coders if c[k] != '*'] for k in range(15)}
  assert preference.alpha(units) == pytest.approx(0.811, abs=5e-4)
  assert preference.alpha({1: [1, 1], 2: [5, 5]}) == 1
  assert math.isnan(preference.alpha({1: [1], 2: [5]})) and math.isnan(preference.alpha({1: [2, 2]}))
  rng = np.random.default_rng(0)
  assert abs(preference.alpha({k: list(rng.integers(1, 6, 4)) for k in range(500)})) < 0.05
