"""Which metrics are taken, and the one of a whole data set."""

import dataclasses

import numpy as np
import pytest

from vqm_jax import errors, metrics
from vqm_jax.evaluation import scoring, stored_scores
from vqm_jax.evaluation.choice import choose
from vqm_jax.evaluation.patch_features import PatchFeatures


def names(choice):
  return [metric.name for metric in choice.metrics]


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
  monkeypatch.setenv('VQM_JAX_PERCEPTUAL_DIR', str(tmp_path / 'none'))


def test_auto_is_what_suits_the_pairs():
  assert names(choose(['auto'])) == ['psnr', 'ssim']
  assert names(choose(['auto'], protocol='y601')) == ['psnr', 'ssim', 'psnr_y601', 'ssim_y601']
  weak = choose(['auto', 'change'], aligned=False)
  assert names(weak) == ['colour', 'sharpness', 'warping', 'flicker', 'change'] and weak.patches is None
  assert set(weak.missing) == {'lpips_alex', 'fd_lpips'}
  assert 'python -m vqm_jax.perceptual.convert --net=alexnet' in weak.missing['lpips_alex']
  assert set(weak.described()) == {*names(weak), *weak.missing}
  assert weak.described()['lpips_alex']['label'] == 'LPIPS (alex)'


def test_each_metric_is_taken_once_and_unknown_ones_are_refused():
  assert names(choose(['psnr', 'auto', 'psnr'])) == ['psnr', 'ssim']
  with pytest.raises(errors.ConfigError, match="did you mean 'sharpness'"):
    choose(['sharpnes'])


def test_fidelity_of_unaligned_pairs_has_a_name_that_no_table_takes():
  choice = choose(['psnr', 'ssim', 'tof'], aligned=False)
  assert names(choice) == ['unaligned_psnr', 'unaligned_ssim', 'tof']
  assert choice.metrics[0].label == 'PSNR (dB), unaligned' and choice.metrics[2].reference == 'input'


def test_what_cannot_be_taken_has_a_reason(monkeypatch):
  assert 'neighbouring frames' in choose(['tof', 'psnr'], every=10).missing['tof']
  assert '--lq_dir' in choose(['warping', 'colour'], aligned=False, inputs=False).missing['warping']
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  assert 'needs OpenCV' in choose(['tof', 'psnr']).missing['tof']


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
