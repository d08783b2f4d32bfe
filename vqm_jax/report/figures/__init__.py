"""The figures of the report: `draw` makes them."""

from vqm_jax.report.figures.drawing import KINDS, draw

__all__ = ['KINDS', 'draw']
