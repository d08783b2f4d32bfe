"""What `vqm_jax.enhance` does, by purpose: one video, a folder of them, a forecast, a preview."""
