"""The work of `vqm_jax.enhance`, by purpose: one video, a folder of them, a forecast, a preview."""
