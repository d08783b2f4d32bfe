"""Scores of restored clips: taken, kept, compared with simple filters.

`evaluate_run('runs/ecnu')` does for a notebook what `python -m vqm_jax.eval` does; `evaluate_folders` scores outputs
that exist already.
"""

from vqm_jax.evaluation.evaluate import Evaluation, evaluate_folders, evaluate_run

__all__ = ['Evaluation', 'evaluate_folders', 'evaluate_run']
