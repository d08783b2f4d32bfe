"""Simple filters as rivals: which is best, how they round, clips with cuts."""

import dataclasses

import numpy as np
from evaluation.reader import LENGTHS, Reader

from vqm_jax.evaluation import filter_scores, scoring


def test_best_filter_is_the_one_with_the_highest_psnr():
  reader = Reader()
  candidates = {
    'worse': lambda frames: frames * 0.9,
    'same': lambda frames: frames,
    'dark': lambda frames: frames * 0.0,
  }
  assert filter_scores.best_of(candidates, reader) == 'same'


def test_filters_are_rounded_half_to_even_and_clipped():
  frame = np.array([[[1, 3, 255]] * 12] * 12, np.uint8)
  half = filter_scores.frame_by_frame(lambda frames: frames / 2)
  assert next(iter(half([frame])))[0, 0].tolist() == [0, 2, 128]
  double = filter_scores.frame_by_frame(lambda frames: 2 * frames - 1)
  assert next(iter(double([frame])))[0, 0].tolist() == [0, 0, 255]


def test_filters_take_clips_with_cuts():
  reader = Reader()
  reader.clips['cat'] = dataclasses.replace(reader.clips['cat'], cuts=(2,))
  halve = filter_scores.frame_by_frame(lambda frames: frames / 2)
  assert list(scoring.evaluate_clips(halve, reader)) == list(LENGTHS)
