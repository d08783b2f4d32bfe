"""Measures of restored frames: NumPy or JAX arrays in, one number per frame out."""

from vqm_jax.metrics.fidelity import PROTOCOLS, PSNR_OF_IDENTICAL, mean_psnr, psnr, ssim
from vqm_jax.metrics.lpips import LpipsWeights, lpips, lpips_weights

__all__ = ['PROTOCOLS', 'PSNR_OF_IDENTICAL', 'LpipsWeights', 'lpips', 'lpips_weights', 'mean_psnr', 'psnr', 'ssim']
