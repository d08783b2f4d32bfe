"""Draws samples of the tiny data set and tells where they come from."""

import itertools

import numpy as np

from vqm_jax import data

# The config for each sampling.
CONFIGS = {'paired': 'tiles', 'weak': 'weak', 'unpaired': 'unpaired', 'clip': 'unpaired', 'identity': 'unpaired'}
SAMPLE = dict(num_frames=3, crop=9, seed=5)


def draw(source, count, **kwargs):
  with data.train_batches(source, **(SAMPLE | kwargs)) as batches:
    return list(itertools.islice(batches, count))


def assert_equal(batches, expected):
  assert len(batches) == len(expected)
  for batch, other in zip(batches, expected, strict=True):
    assert batch.keys() == other.keys() == {'lq', 'hq'}
    for name in batch:
      np.testing.assert_array_equal(batch[name], other[name])


def samples(batches):
  return [sample for batch in batches for sample in batch['lq']]


def place(sample):
  """(record, first frame, y, x, symmetry) of a sample of the tiny data set."""
  y, x = sample[0, :, :, 0].astype(int), sample[0, :, :, 1].astype(int)
  transposed = y[0, 0] == y[-1, 0]
  if transposed:
    y, x = y.T, x.T
  symmetry = (bool(transposed), bool(y[0, 0] > y[-1, 0]), bool(x[0, 0] > x[0, -1]))
  return (*divmod(int(sample[0, 0, 0, 2]), 8), y.min(), x.min(), symmetry)
