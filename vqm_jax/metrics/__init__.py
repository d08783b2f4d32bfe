"""Metrics of restored frames: NumPy or JAX arrays in, one number per frame out; `by_name` has those of clips."""

from vqm_jax.metrics import by_name
from vqm_jax.metrics.by_name import FLOW, NAMES, Metric, create, label
from vqm_jax.metrics.fidelity import PROTOCOLS, PSNR_OF_IDENTICAL, mean_psnr, psnr, ssim
from vqm_jax.metrics.frechet import FeatureStatistics, frechet_distance, patch_features
from vqm_jax.metrics.lpips import LpipsWeights, lpips, lpips_weights
from vqm_jax.metrics.scorers import Scorer

__all__ = [
  'FLOW',
  'NAMES',
  'PROTOCOLS',
  'PSNR_OF_IDENTICAL',
  'FeatureStatistics',
  'LpipsWeights',
  'Metric',
  'Scorer',
  'create',
  'frechet_distance',
  'label',
  'lpips',
  'lpips_weights',
  'mean_psnr',
  'by_name',
  'patch_features',
  'psnr',
  'ssim',
]
