"""Frechet distance against matrix square roots, statistics against NumPy, features of patches."""

import numpy as np
import pytest
import scipy.linalg

from vqm_jax import errors, metrics, perceptual
from vqm_jax.metrics import frechet


def gaussian(dim, samples, seed):
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(samples, dim)) @ rng.normal(size=(dim, dim)) / np.sqrt(dim) + rng.normal(size=dim)
  return features.mean(axis=0), np.cov(features, rowvar=False)


def by_square_root(mean1, cov1, mean2, cov2):
  root = scipy.linalg.sqrtm(cov1 @ cov2)
  return ((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root.real)


@pytest.mark.parametrize('dim', [2, 30, 100])
def test_equals_the_matrix_square_root(dim):
  a, b = gaussian(dim, 4 * dim, 0), gaussian(dim, 5 * dim, 1)
  found = metrics.frechet_distance(*a, *b)
  assert found == pytest.approx(by_square_root(*a, *b), rel=1e-8)
  assert found == pytest.approx(metrics.frechet_distance(*b, *a), rel=1e-10)
  assert metrics.frechet_distance(*a, *a) < 1e-9


def test_closed_forms():
  zero, unit = np.zeros(3), np.eye(3)
  assert metrics.frechet_distance(zero, unit, zero + 2, unit) == pytest.approx(12, rel=1e-12)
  # Diagonal: the sum of (s1 - s2)^2
  assert metrics.frechet_distance(zero, np.diag([1, 4, 9.0]), zero, np.diag([4, 4, 1.0])) == pytest.approx(5, rel=1e-12)
  # A point, and two sets that vary in different directions
  assert metrics.frechet_distance(zero, 0 * unit, zero, unit) == pytest.approx(3, rel=1e-12)
  assert metrics.frechet_distance(zero, np.diag([1.0, 0, 0]), zero, np.diag([0, 4.0, 0])) == pytest.approx(5, rel=1e-12)
  assert metrics.frechet_distance(zero, 0 * unit, zero, 0 * unit) == 0
  assert metrics.frechet_distance([1.0], [[4.0]], [3.0], [[1.0]]) == pytest.approx(5, rel=1e-12)


def test_fewer_samples_than_dimensions():
  # In the span of all samples, where the square root is exact enough, nothing is lost.
  rng = np.random.default_rng(2)
  basis = np.linalg.qr(rng.normal(size=(120, 60)))[0]
  a, b = rng.normal(size=(30, 60)), 1.5 * rng.normal(size=(40, 60)) + 0.3
  wide = [(x @ basis.T) for x in (a, b)]
  moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in wide]
  # By singular values of the centred samples: tr (S1 S2)^(1/2) is their product's nuclear norm.
  centred = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b)]
  overlap = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
  expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + sum((x**2).sum() for x in centred) - 2 * overlap
  assert metrics.frechet_distance(*moments[0], *moments[1]) == pytest.approx(expected, rel=1e-8)
  assert metrics.frechet_distance(*moments[0], *moments[0]) < 1e-9


def test_bad_moments_are_refused():
  mean, cov = gaussian(4, 20, 0)
  for args in ((mean, cov, mean[:3], cov[:3, :3]), (mean, cov[0], mean, cov), (mean[None], cov, mean, cov)):
    with pytest.raises(errors.DataError, match=r'means \(D,\) and covariances \(D, D\) of one D, found'):
      metrics.frechet_distance(*args)
  with pytest.raises(errors.DataError, match='must be finite'):
    metrics.frechet_distance(mean, cov, mean * np.nan, cov)


def test_statistics_in_parts():
  # Far from zero, where sums of squares in the plain form would lose half of the digits.
  features = np.random.default_rng(3).normal(size=(50, 6)) + 1e4
  whole = metrics.FeatureStatistics()
  whole.update(features)
  streamed, other = metrics.FeatureStatistics(6), metrics.FeatureStatistics()
  for rows in (features[:1], features[1:1], features[1:20].astype(np.float64)):
    streamed.update(rows)
  for row in features[20:]:
    other.update(row[None])
  streamed.merge(other)
  streamed.merge(metrics.FeatureStatistics())
  for found in (whole, streamed):
    assert found.count == 50 and found.dim == 6
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), rtol=0, atol=1e-11)
  assert whole.distance(streamed) < 1e-9
  assert other.count == 30  # is left as it was


def test_statistics_that_cannot_be():
  statistics = metrics.FeatureStatistics()
  with pytest.raises(errors.DataError, match='at least one sample'):
    _ = statistics.mean
  statistics.update(np.ones((1, 4)))
  with pytest.raises(errors.DataError, match='at least two samples, found 1'):
    _ = statistics.covariance
  with pytest.raises(errors.DataError, match=r'\(N, 4\), found \(2, 3\)'):
    statistics.update(np.ones((2, 3)))
  with pytest.raises(errors.DataError, match=r'\(N, 4\), found \(4,\)'):
    statistics.update(np.ones(4))
  with pytest.raises(errors.DataError, match='must be finite'):
    statistics.update(np.full((1, 4), np.inf))
  other = metrics.FeatureStatistics()
  other.update(np.ones((2, 3)))
  with pytest.raises(errors.DataError, match='of 4 features, found 3'):
    statistics.merge(other)
  assert statistics.count == 1


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return metrics.lpips_weights('alex', tmp_path_factory.mktemp('empty'), allow_random=True)


def test_features_are_channel_means_of_the_taps(weights):
  frame = np.random.default_rng(4).integers(0, 256, (40, 40, 3), np.uint8)
  (found,) = metrics.patch_features(frame, weights, np.random.default_rng(0), patches=1)  # the whole frame
  taps = perceptual.TAPS['alexnet']
  maps = perceptual.features(weights.trunk, (frame[None] / 255).astype(np.float32), tuple(taps))
  assert found.shape == (sum(taps.values()),) == (1152,) and found.dtype == np.float32
  np.testing.assert_allclose(found, np.concatenate([x.mean(axis=(0, 1, 2)) for x in maps]), rtol=1e-4, atol=1e-5)


def test_places_of_patches(weights, monkeypatch):
  seen = []
  monkeypatch.setattr(frechet, '_channel_means', lambda patch, trunk: seen.append(patch) or np.zeros(3, np.float32))
  rows, columns = np.mgrid[:50, :90].astype(np.uint8)
  frame = np.stack([rows, columns, rows], axis=-1)

  def places(size, seed=0, patches=200):
    seen.clear()
    assert metrics.patch_features(frame, weights, np.random.default_rng(seed), patches, size).shape == (patches, 3)
    return np.array([patch[0, 0, :2] for patch in seen]), {patch.shape for patch in seen}

  found, shapes = places(40)
  assert shapes == {(40, 40, 3)}
  assert found.min(axis=0).tolist() == [0, 0] and found.max(axis=0).tolist() == [10, 50]  # to the last row and column
  np.testing.assert_array_equal(found, places(40)[0])
  assert (found != places(40, seed=1)[0]).any()
  found, shapes = places(299)
  assert shapes == {(50, 50, 3)} and not found[:, 0].any() and found[:, 1].max() == 40


def test_bad_frames_of_patches(weights):
  rng = np.random.default_rng(0)
  assert metrics.patch_features(np.zeros((40, 40, 3), np.uint8), weights, rng, patches=0).shape == (0, 1152)
  for frame in (np.zeros((40, 40, 4), np.uint8), np.zeros((40, 40, 3)), np.zeros((1, 40, 40, 3), np.uint8)):
    with pytest.raises(errors.DataError, match=r'uint8 RGB frames \(H, W, 3\), found'):
      metrics.patch_features(frame, weights, rng)
  with pytest.raises(errors.DataError, match='at least 31 pixels'):
    metrics.patch_features(np.zeros((20, 40, 3), np.uint8), weights, rng)
