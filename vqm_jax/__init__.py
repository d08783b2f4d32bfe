"""vqm_jax: video quality mapping in JAX and Flax (NTIRE 2020 VQM, both tracks)."""

__version__ = '0.2.0'
