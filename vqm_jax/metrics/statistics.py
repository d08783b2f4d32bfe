"""How sure a difference of scores is: intervals, paired comparisons and spread over seeds.

The unit is always the clip: frames of one clip resemble each other, so that counting them as independent would make
every interval too narrow. An infinite PSNR, of identical frames, counts as `PSNR_OF_IDENTICAL`, as in means.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vqm_jax import errors
from vqm_jax.metrics.fidelity import PSNR_OF_IDENTICAL

_METHODS = {'percentile': 'percentile', 'bca': 'BCa'}  # ours: scipy's


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Method A against method B on the same clips.

  Attributes:
    mean_diff: mean over clips of score A - score B.
    low, high: interval of `mean_diff` from resampled clips; nan for a single clip.
    wins, losses, ties: clips where A is better, worse, exactly equal.
    n: clips.
    p_sign: of the exact two-sided sign test, ties dropped: how often wins and losses would be at least as uneven if
      either method were as likely to win. With fewer than six decided clips it cannot fall below 0.05.
  """

  mean_diff: float
  low: float
  high: float
  wins: int
  losses: int
  ties: int
  n: int
  p_sign: float


def bootstrap_interval(
  values: Sequence[float], resamples: int = 10_000, seed: int = 0, level: float = 0.95, method: str = 'percentile'
) -> tuple[float, float]:
  """The interval of the mean of one value per clip, from clips drawn with replacement.

  Args:
    values: one per clip, for example the differences of two methods.
    resamples: how many times the clips are drawn.
    seed: of the draws; the same seed gives the same interval.
    level: how often such intervals should hold the true mean.
    method: 'percentile', or 'bca', which corrects bias and skew (Efron 1987).

  Returns:
    (low, high); (nan, nan) for fewer than two clips, which say nothing of how clips differ, or when a value is nan.
  """
  if method not in _METHODS:
    raise ValueError(f'bootstrap_interval: method {method!r}, expected one of {sorted(_METHODS)}.')
  values = _counted(values)
  if len(values) < 2 or np.isnan(values).any():
    return math.nan, math.nan
  if np.ptp(values) == 0:  # BCa would divide by the spread
    return float(values[0]), float(values[0])
  from scipy import stats  # takes a second to load

  interval = stats.bootstrap(
    (values,),
    np.mean,
    n_resamples=resamples,
    confidence_level=level,
    method=_METHODS[method],
    rng=np.random.default_rng(seed),
  ).confidence_interval
  return float(interval.low), float(interval.high)


def compare(
  a: Mapping[str, float],
  b: Mapping[str, float],
  *,
  lower_is_better: bool = False,
  names: tuple[str, str] = ('A', 'B'),
  resamples: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
  method: str = 'percentile',
) -> Comparison:
  """Compare two methods clip by clip.

  Args:
    a, b: scores by clip.
    lower_is_better: who wins a clip; differences are A - B either way.
    names: of the methods, for the error message.
    resamples, seed, level, method: of `bootstrap_interval`.

  Raises:
    DataError: the clips are not the same.
  """
  for has, lacks, name, other in ((b, a, *names), (a, b, *names[::-1])):
    if missing := sorted(has.keys() - lacks.keys()):
      raise errors.DataError(
        f'{name} has no score of {len(missing)} clips that {other} has: {", ".join(missing[:5])}'
        f'{", ..." if len(missing) > 5 else ""}; score both on the same clips.'
      )
  if not a:
    raise errors.DataError(f'{names[0]} and {names[1]} have no clips to compare; score at least one.')
  clips = sorted(a)
  diffs = _counted([a[clip] for clip in clips]) - _counted([b[clip] for clip in clips])
  better = -diffs if lower_is_better else diffs
  wins, losses, ties = (int(np.sum(test)) for test in (better > 0, better < 0, better == 0))
  low, high = bootstrap_interval(diffs, resamples, seed, level, method)
  return Comparison(float(np.mean(diffs)), low, high, wins, losses, ties, len(clips), _sign_test(wins, losses))


def matrix(methods: Mapping[str, Mapping[str, float]], **options) -> dict[tuple[str, str], Comparison]:
  """Every two methods compared once, in their order; `options` are those of `compare`."""
  return {
    (a, b): compare(methods[a], methods[b], names=(a, b), **options) for a, b in itertools.combinations(methods, 2)
  }


def spread(values: Sequence[float]) -> tuple[float, float, int]:
  """(mean, sample standard deviation, count), for example over seeds; the deviation of one value is nan."""
  values = _counted(values)
  return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, len(values)


def _sign_test(wins: int, losses: int) -> float:
  if not wins + losses:
    return 1.0
  from scipy import stats

  return float(stats.binomtest(wins, wins + losses).pvalue)


def _counted(values: Sequence[float]) -> np.ndarray:
  values = np.asarray(values, dtype=np.float64)
  return np.where(np.isposinf(values), PSNR_OF_IDENTICAL, values)
