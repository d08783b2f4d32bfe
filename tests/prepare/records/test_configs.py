"""Kinds of record: which clips they take, and what is wrong with others."""

import types
from fractions import Fraction

import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.prepare.records.configs import ClipPair, FramesConfig, TilesConfig, window_key


def source(frames=3, height=64, width=96, given=None):
  def read(start=0, stop=None):
    yield from (np.zeros((height, width, 3), np.uint8) for _ in range(start, min(stop or frames, given or frames)))

  return types.SimpleNamespace(name='x', num_frames=frames, height=height, width=width, fps=Fraction(25), frames=read)


def test_a_side_that_ends_early_is_told():
  pair = ClipPair(clip_id='a', lq=source(), hq=source(given=1))
  with pytest.raises(errors.DataError, match='a: HQ ends after 1 frames, expected 3; the file may be damaged'):
    list(pair.frames(0, 3))


def test_targets_may_be_withheld_from_whole_frames_only():
  withheld = ClipPair(clip_id='a', lq=source(), hq=None)
  assert withheld.reference is withheld.lq and [hq for _, hq in withheld.frames(0, 2)] == [None, None]
  tiles, frames = TilesConfig(name='tiles', num_frames=1, size=32), FramesConfig(name='frames')
  assert not tiles.accepts(withheld) and tiles.accepts(ClipPair(clip_id='a', lq=source(), hq=source()))
  assert tiles.exact and list(frames.problems(withheld)) == []


def test_sides_that_differ_and_videos_that_are_too_small():
  tiles = TilesConfig(name='tiles', num_frames=1, size=128)
  (small,) = tiles.problems(ClipPair(clip_id='a', lq=source(), hq=source()))
  assert '128' in small
  assert list(tiles.problems(ClipPair(clip_id='a', lq=source(), hq=source(frames=4))))


def test_keys_say_where_a_window_is():
  pair = ClipPair(clip_id='a', lq=source(), hq=source())
  (tile, *_) = TilesConfig(name='tiles', num_frames=1, size=32, per_video=4).plan(pair.lq, 'a')
  assert window_key(pair, tile) == f'a/{tile.start:06d}/{tile.y:04d}_{tile.x:04d}'
