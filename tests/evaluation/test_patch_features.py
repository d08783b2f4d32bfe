"""Learned metrics: what is kept of each clip, and with which weights it was taken."""

import dataclasses

import numpy as np
import pytest

from vqm_jax import errors, metrics
from vqm_jax.evaluation import patch_features, scoring, stored_scores
from vqm_jax.evaluation.patch_features import PatchFeatures


def clip(name, frames):
  """Frames (output, input, target) as a clip to score; an iterator that counts how often it is read."""
  read = []

  def play():
    read.append(name)
    for output, lq, hq in frames:
      yield lq, output, hq

  return scoring.ClipFrames(name, range(len(frames)), '', play), read


def test_frechet_distance_is_kept_by_clip_and_taken_over_all(tmp_path, monkeypatch):
  features = metrics.patch_features  # every 18th of 1152: eigenvectors of so large a matrix take ten seconds each
  monkeypatch.setattr(metrics, 'patch_features', lambda *args: features(*args)[:, ::18])
  rng = np.random.default_rng(0)
  weights = metrics.lpips_weights('alex', str(tmp_path), allow_random=True)
  patches = PatchFeatures(weights, patches=3)
  clips, reads = [], []
  for name in 'ab':
    hq = [rng.integers(0, 256, (40, 48, 3), np.uint8) for _ in range(3)]
    made = clip(name, [(target, target // 4, target) for target in hq])
    clips.append(made[0])
    reads.append(made[1])
  chosen = scoring.fidelity(ssim=False)
  stored_scores.score_resumably(clips, tmp_path / 'out', chosen, patches=patches)
  found = patches.distances(tmp_path / 'out', clips)
  assert found['output'] < 1e-6 < found['target'] < found['input']
  stored_scores.score_resumably(clips, tmp_path / 'out', chosen, patches=patches)
  assert reads == [['a'], ['b']]  # neither scored nor looked at again
  one = patches.distances(tmp_path / 'out', clips[:1])
  assert one['output'] < 1e-6 < one['target']


def test_learned_metrics_are_taken_again_with_other_weights(tmp_path):
  frames = [(np.full((40, 40, 3), v, np.uint8),) * 3 for v in (10, 20)]
  job, read = clip('a', frames)
  old = metrics.create('lpips_alex', perceptual_dir=str(tmp_path), allow_random=True)
  stored_scores.score_resumably([job], tmp_path / 'out', [old])
  stored_scores.score_resumably([job], tmp_path / 'out', [old])
  assert len(read) == 1
  new = dataclasses.replace(old, weights='0123')
  scores = stored_scores.score_resumably([job], tmp_path / 'out', [new, *scoring.fidelity(ssim=False)])
  assert len(read) == 2 and scores['a'].weights == {'lpips_alex': '0123'} and 'psnr' in scores['a'].output


@pytest.mark.parametrize('content', [b'', b'PK', b'\x93NUMPY', 'half'])
def test_stored_features_that_are_damaged_are_told(tmp_path, content):
  path = tmp_path / 'a.npz'
  np.savez(path, output=np.ones((4, 3)))
  path.write_bytes(path.read_bytes()[:200] if content == 'half' else content)
  with pytest.raises(
    errors.DataError, match=r'a\.npz: damaged, cannot be read .*; delete it and evaluate again'
  ) as caught:
    patch_features._stored(path)
  assert '\n' not in str(caught.value)
