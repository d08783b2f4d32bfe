"""Measures of restored frames: NumPy or JAX arrays in, one number per frame out."""

from vqm_jax.metrics.fidelity import PROTOCOLS, PSNR_OF_IDENTICAL, mean_psnr, psnr, ssim

__all__ = ['PROTOCOLS', 'PSNR_OF_IDENTICAL', 'mean_psnr', 'psnr', 'ssim']
