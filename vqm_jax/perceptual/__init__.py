"""Frozen feature networks and the weights that users bring for them.

`load` reads converted weights, `features` runs a network; `python -m vqm_jax.perceptual.convert` converts.
"""

from vqm_jax.perceptual.networks import HEADS, NETS, TAPS, Weights, features
from vqm_jax.perceptual.weights import load, path_of

__all__ = ['HEADS', 'NETS', 'TAPS', 'Weights', 'features', 'load', 'path_of']
