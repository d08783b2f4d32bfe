"""The meaning of votes: strengths of methods from pairs, mean opinion scores, and how far raters agree.

The rater is the unit of every interval: the votes of one person resemble each other.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vqm_jax.report.study import ratings
from vqm_jax.report.study.ratings import Rater

# Deviation of the normal prior on log-strengths and on the log of the tie parameter: without one, a method that never
# loses would be infinitely strong. It is so wide that it moves nothing else.
_PRIOR = 5.0
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Strength:
  """A method in pairs.

  Attributes:
    value: log-strength; their mean over methods is 0; nan without votes.
    low, high: 95 % interval from resampled raters; nan for fewer than two.
    wins, ties, losses: votes.
  """

  value: float
  low: float
  high: float
  wins: int
  ties: int
  losses: int


@dataclasses.dataclass(frozen=True)
class Duel:
  """Method A against method B: votes, the exact two-sided binomial test without ties, and the same after Holm."""

  wins: int
  ties: int
  losses: int
  p: float
  p_holm: float


@dataclasses.dataclass(frozen=True)
class Opinion:
  """A method that was rated.

  Attributes:
    mean: over raters, of their own means.
    low, high: 95 % t interval over raters; nan for fewer than two.
    boot_low, boot_high: from resampled raters.
    votes, raters: how many.
    dmos, dmos_low, dmos_high: of rating - rating of the hidden reference by the same rater on the same clip + 5, with
      its t interval; nan without a reference.
  """

  mean: float
  low: float
  high: float
  boot_low: float
  boot_high: float
  votes: int
  raters: int
  dmos: float
  dmos_low: float
  dmos_high: float


def counts(raters: Sequence[Rater], methods: Sequence[str]) -> np.ndarray:
  """Votes of main questions, int (raters, 2, methods, methods): [r, 0, i, j] i preferred to j; [r, 1, i, j] ties."""
  place = {method: k for k, method in enumerate(methods)}
  out = np.zeros((len(raters), 2, len(methods), len(methods)), int)
  for r, rater in enumerate(raters):
    for vote in rater.of_kind('main'):
      i, j = place[vote.left], place[vote.right]
      if vote.answer == 'same':
        out[r, 1, i, j] += 1
        out[r, 1, j, i] += 1
      else:
        out[r, 0, i, j] += vote.answer == 'left'
        out[r, 0, j, i] += vote.answer == 'right'
  return out


def davidson(table: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
  """Fit the Bradley-Terry model with ties (Davidson 1970) by maximum likelihood.

  Of strengths p, i wins with weight p_i, j with p_j, and they tie with weight v sqrt(p_i p_j).

  Args:
    table: int (2, methods, methods): [0, i, j] how often i was preferred to j, [1, i, j] ties; summed over raters.
    start: parameters to start from.

  Returns:
    (methods + 1): log-strengths of mean 0, and log v.
  """
  from scipy import optimize

  n = table.shape[-1]
  i, j = np.triu_indices(n, 1)
  # For each pair of methods the votes for i, for j, for neither.
  votes = np.stack([table[0][i, j], table[0][j, i], table[1][i, j]], axis=1).astype(float)
  # The logarithms of the weights are linear in the parameters: this is a multinomial logit, and concave.
  design = np.zeros((len(i), 3, n + 1))
  rows = np.arange(len(i))
  design[rows, 0, i] = design[rows, 1, j] = 1
  design[rows, 2, i] = design[rows, 2, j] = 0.5
  design[:, 2, n] = 1

  def loss(x):
    logits = design @ x
    top = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - top)
    total = weights.sum(axis=1, keepdims=True)
    value = -np.sum(votes * (logits - top - np.log(total)))
    residual = votes.sum(axis=1, keepdims=True) * weights / total - votes
    return value + np.sum(x**2) / (2 * _PRIOR**2), np.einsum('pk,pkm->m', residual, design) + x / _PRIOR**2

  # Not L-BFGS-B, which loses twenty times as much to the threads of its linear algebra, on so few parameters.
  found = optimize.minimize(loss, np.zeros(n + 1) if start is None else start, jac=True, method='BFGS').x
  found[:n] -= found[:n].mean()
  return found


def strengths(
  raters: Sequence[Rater], methods: Sequence[str], resamples: int = 1000, seed: int = 0
) -> tuple[dict[str, Strength], float]:
  """Methods by name, and the tie parameter v: at equal strength a tie has the chance v / (2 + v)."""
  votes = counts(raters, methods)
  table = votes.sum(axis=0)
  best = davidson(table)
  interval = np.full((2, len(methods)), math.nan)
  if len(raters) > 1:
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(raters), size=(resamples, len(raters)))
    drawn = np.stack([davidson(votes[pick].sum(axis=0), best)[:-1] for pick in picks])
    interval = np.percentile(drawn, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)], axis=0)
  out = {}
  for k, method in enumerate(methods):
    wins, losses, ties = int(table[0, k].sum()), int(table[0, :, k].sum()), int(table[1, k].sum())
    seen = wins + losses + ties
    values = (best[k], interval[0, k], interval[1, k]) if seen else (math.nan,) * 3
    out[method] = Strength(*map(float, values), wins, ties, losses)
  return out, float(np.exp(best[-1])) if table.sum() else math.nan


def duels(raters: Sequence[Rater], methods: Sequence[str]) -> dict[tuple[str, str], Duel]:
  """Every two methods once, in their order."""
  from scipy import stats

  table = counts(raters, methods).sum(axis=0)
  n = len(methods)
  pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
  wins = [(int(table[0, i, j]), int(table[0, j, i])) for i, j in pairs]
  tests = [float(stats.binomtest(a, a + b).pvalue) if a + b else math.nan for a, b in wins]
  holm = _holm(tests)
  return {
    (methods[i], methods[j]): Duel(a, int(table[1, i, j]), b, p, adjusted)
    for (i, j), (a, b), p, adjusted in zip(pairs, wins, tests, holm, strict=True)
  }


def _holm(values: Sequence[float]) -> list[float]:
  """Holm's correction: the smallest of m is multiplied by m, the next by m - 1, ..., never falling; nan is left out."""
  order = [k for k in np.argsort(values) if not math.isnan(values[k])]
  out, highest = [math.nan] * len(values), 0.0
  for rank, k in enumerate(order):
    highest = max(highest, min(1.0, values[k] * (len(order) - rank)))
    out[k] = highest
  return out


def opinions(
  raters: Sequence[Rater], methods: Sequence[str], target: str | None, resamples: int = 1000, seed: int = 0
) -> dict[str, Opinion]:
  """Mean opinion scores by method; `target` names the hidden reference, None if there is none."""
  scores = {method: [] for method in methods}
  relative = {method: [] for method in methods}
  votes = dict.fromkeys(methods, 0)
  for rater in raters:
    given = {(vote.left, vote.clip): vote.answer for vote in rater.of_kind('main')}
    for method in methods:
      own = {clip: answer for (rated, clip), answer in given.items() if rated == method}
      votes[method] += len(own)
      if own:
        scores[method].append(float(np.mean(list(own.values()))))
      beside = [answer - given[target, clip] + 5 for clip, answer in own.items() if (target, clip) in given]
      if beside:
        relative[method].append(float(np.mean(beside)))
  rng = np.random.default_rng(seed)
  return {
    method: Opinion(
      *_t_interval(scores[method]), *_bootstrap(scores[method], resamples, rng), votes[method], len(scores[method]),
      *_t_interval(relative[method]),
    )
    for method in methods
  }  # fmt: skip


def _t_interval(values: Sequence[float]) -> tuple[float, float, float]:
  """Mean and its 95 % t interval; nan where there are too few values."""
  if not values:
    return (math.nan,) * 3
  mean = float(np.mean(values))
  if len(values) < 2:
    return mean, math.nan, math.nan
  from scipy import stats

  half = float(stats.sem(values) * stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1))
  return mean, mean - half, mean + half


def _bootstrap(values: Sequence[float], resamples: int, rng: np.random.Generator) -> tuple[float, float]:
  if len(values) < 2:
    return math.nan, math.nan
  means = np.asarray(values)[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
  low, high = np.percentile(means, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
  return float(low), float(high)


def units(raters: Sequence[Rater]) -> dict[tuple, list[float]]:
  """Numbers that raters gave to the same thing, for `alpha`: ratings of a video, or -1, 0, 1 for a pair on a clip."""
  out = {}
  for rater in raters:
    for vote in rater.of_kind('main'):
      if vote.right is None:
        out.setdefault((vote.clip, vote.left), []).append(float(vote.answer))
      else:
        a, b = sorted((vote.left, vote.right))
        better = ratings.preferred(vote)
        out.setdefault((vote.clip, a, b), []).append(0.0 if better is None else 1.0 if better == a else -1.0)
  return out


def alpha(given: Mapping[tuple, Sequence[float]]) -> float:
  """Krippendorff's alpha with squared differences: 1 perfect agreement, 0 chance; nan when nothing was rated twice."""
  shared = [np.asarray(values) for values in given.values() if len(values) > 1]
  if not shared:
    return math.nan
  pooled = np.concatenate(shared)
  # The sum of squared differences over ordered pairs of n numbers is 2 n^2 times their variance.
  observed = sum(2 * len(v) ** 2 * np.var(v) / (len(v) - 1) for v in shared) / len(pooled)
  expected = 2 * len(pooled) * np.var(pooled) / (len(pooled) - 1)
  return float(1 - observed / expected) if expected else math.nan
