"""Intervals over clips, paired comparisons, spread over seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from vqm_jax import errors
from vqm_jax.metrics import PSNR_OF_IDENTICAL, statistics


@pytest.mark.parametrize('method', ['percentile', 'bca'])
def test_intervals_hold_the_true_mean_about_as_often_as_they_say(method):
  rng = np.random.default_rng(0)
  sets = rng.normal(0.3, 1.0, (200, 16))
  intervals = [statistics.bootstrap_interval(values, resamples=1000, method=method) for values in sets]
  covered = np.mean([low <= 0.3 <= high for low, high in intervals])
  assert 0.87 <= covered <= 0.98


def test_percentile_interval_against_a_plain_loop():
  values = np.random.default_rng(1).normal(size=16)
  rng = np.random.default_rng(2)
  means = [rng.choice(values, 16).mean() for _ in range(10_000)]
  np.testing.assert_allclose(statistics.bootstrap_interval(values), np.percentile(means, [2.5, 97.5]), atol=0.03)


def test_bca_follows_the_skew():
  values = np.random.default_rng(3).exponential(size=16)
  plain, corrected = (statistics.bootstrap_interval(values, method=method) for method in ('percentile', 'bca'))
  # A long tail to the right: both ends move right. By hand, from the definition (Efron 1987).
  rng = np.random.default_rng(4)
  means = np.sort(rng.choice(values, (40_000, 16)).mean(axis=1))
  bias = stats.norm.ppf(np.mean(means < values.mean()))
  jack = np.array([np.delete(values, k).mean() for k in range(16)])
  jack = jack.mean() - jack
  skew = np.sum(jack**3) / (6 * np.sum(jack**2) ** 1.5)
  z = bias + stats.norm.ppf([0.025, 0.975])
  expected = np.quantile(means, stats.norm.cdf(bias + z / (1 - skew * z)))
  np.testing.assert_allclose(corrected, expected, atol=0.03)
  assert corrected[0] > plain[0] and corrected[1] > plain[1]


def test_intervals_are_seeded_and_grow_with_the_level():
  values = np.random.default_rng(5).normal(size=16)
  first = statistics.bootstrap_interval(values)
  assert first == statistics.bootstrap_interval(values) != statistics.bootstrap_interval(values, seed=1)
  wide = statistics.bootstrap_interval(values, level=0.99)
  assert wide[0] < first[0] < values.mean() < first[1] < wide[1]


@pytest.mark.parametrize('values', [[], [1.0], [1.0, math.nan, 2.0]])
def test_no_interval_where_none_is_defined(values):
  assert all(map(math.isnan, statistics.bootstrap_interval(values)))


@pytest.mark.parametrize('method', ['percentile', 'bca'])
def test_equal_values_have_an_interval_of_no_width(method):
  assert statistics.bootstrap_interval([0.5, 0.5, 0.5], method=method) == (0.5, 0.5)


def test_unknown_method():
  with pytest.raises(ValueError, match="'basic', expected one of .*bca.*percentile"):
    statistics.bootstrap_interval([1, 2], method='basic')


def test_compare_counts_clips_and_drops_ties_from_the_test():
  a = {'a': 31.0, 'b': 32.0, 'c': 30.0, 'd': 29.0}
  b = {'d': 29.5, 'c': 30.0, 'b': 31.0, 'a': 30.0}
  found = statistics.compare(a, b)
  assert (found.wins, found.losses, found.ties, found.n) == (2, 1, 1, 4)
  assert found.mean_diff == pytest.approx((1 + 1 + 0 - 0.5) / 4)
  assert found.low < found.mean_diff < found.high
  assert found.p_sign == 1.0  # two of three
  lower = statistics.compare(a, b, lower_is_better=True)
  assert (lower.wins, lower.losses, lower.mean_diff) == (1, 2, found.mean_diff)


def test_sign_test_is_exact_and_two_sided():
  zeros = {str(k): 0.0 for k in range(8)}
  assert statistics.compare({k: 1.0 for k in zeros}, zeros).p_sign == pytest.approx(2 / 2**8)
  assert statistics.compare({k: 1.0 if k != '0' else -1.0 for k in zeros}, zeros).p_sign == pytest.approx(18 / 2**8)
  assert statistics.compare(zeros, zeros).p_sign == 1.0


def test_identical_frames_count_as_100_db():
  found = statistics.compare({'a': math.inf, 'b': math.inf}, {'a': 40.0, 'b': math.inf})
  assert found.mean_diff == (PSNR_OF_IDENTICAL - 40) / 2 and (found.wins, found.ties) == (1, 1)


def test_one_clip_has_a_difference_but_no_interval():
  found = statistics.compare({'a': 2.0}, {'a': 1.0})
  assert found.mean_diff == 1.0 and math.isnan(found.low) and math.isnan(found.high) and found.p_sign == 1.0


def test_other_clips_are_named():
  with pytest.raises(errors.DataError, match='^ecnu has no score of 1 clips that gtq has: b; score both'):
    statistics.compare({'a': 1.0}, {'a': 1.0, 'b': 2.0}, names=('ecnu', 'gtq'))
  many = {f'{k:03d}': 1.0 for k in range(10)}
  with pytest.raises(errors.DataError, match='^B has no score of 10 clips that A has: 000, .*004, ...;'):
    statistics.compare(many, {})
  with pytest.raises(errors.DataError, match='no clips to compare'):
    statistics.compare({}, {})


def test_matrix_has_every_pair_once():
  clips = {'a': 1.0, 'b': 2.0}
  scores = {name: {clip: value + k for clip, value in clips.items()} for k, name in enumerate(['x', 'y', 'z'])}
  found = statistics.matrix(scores, resamples=100)
  assert list(found) == [('x', 'y'), ('x', 'z'), ('y', 'z')]
  assert found['x', 'z'].mean_diff == -2.0 and found['x', 'z'].losses == 2


def test_spread_over_seeds():
  assert statistics.spread([1.0, 2.0, 3.0]) == (2.0, 1.0, 3)
  mean, deviation, count = statistics.spread([4.0])
  assert (mean, count) == (4.0, 1) and math.isnan(deviation)
