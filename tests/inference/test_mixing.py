"""The weight of a mix of two: what a grid of weights finds."""

import numpy as np

from vqm_jax.inference import mixing


def test_the_best_weight_of_two_members_that_err_in_opposite_ways():
  rng = np.random.default_rng(0)
  target = rng.uniform(0.3, 0.7, (8, 8, 3)).astype(np.float32)
  error = rng.normal(0, 0.02, target.shape).astype(np.float32)
  found = mixing.grid_search([(target + error, target - 3 * error, target)])
  assert found.beta == 0.75 and found.frames == 1 and found.psnr[75] == max(found.psnr)  # 0.75 e - 0.25 * 3 e = 0


def test_outputs_are_clipped_before_they_are_scored():
  target = np.ones((4, 4, 3), np.float32)
  triples = [(target + 5, target + 1, target)]
  assert set(mixing.grid_search(triples).psnr) == {100.0} and mixing.grid_search(triples).beta == 0.5
  assert mixing.grid_search(triples, clip=False).beta == 0.0
