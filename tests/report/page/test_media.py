"""Pictures of the results page: which frames, exact pixels, what is given up to keep the size."""

import numpy as np
import pytest
from report.page.runs import EVIL, TARGETS, frames_of, read
from report.parsed_page import pixels

from vqm_jax import errors, metrics
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.page import media


def test_frames_are_spread_over_a_clip():
  assert media.spread(range(24), 3) == [4, 12, 20] and media.spread(range(10, 34), 1) == [22]
  assert media.spread([3, 13], 5) == [3, 13]
  assert media.parse_frames('3') == 3 and media.parse_frames('at:9, 0,9') == [0, 9]
  for text in ('0', 'at:', '1,2', 'at:x', '-1', 'every:10'):
    with pytest.raises(errors.ConfigError, match=f'^--frames={text}: expected how many'):
      media.parse_frames(text)


def test_worst_and_best_frames():
  base = {'a': dict.fromkeys(range(12), 30.0), 'b': dict.fromkeys(range(100, 112), 20.0)}
  gains = {'a': [0, -5, -4, 1, 1, 1, 1, 1, 1, 1, 9, 8], 'b': [-3, 1, 1, 1, np.inf, 1, 1, 7, 1, 1, 1, 1]}
  scores = {
    'Input': base,
    'm': {c: {k: base[c][k] + gain for k, gain in zip(base[c], gains[c], strict=True)} for c in base},
  }
  found = media.find_extremes(scores, ['a', 'b'], 2)
  # Frame 2 of a and frame 11 are next to others of their kind; the infinite one is none.
  assert [(one.kind, one.clip, one.frame, one.gain) for one in found] == [
    ('worst', 'a', 1, -5.0), ('worst', 'b', 100, -3.0), ('best', 'a', 10, 9.0), ('best', 'b', 107, 7.0),
  ]  # fmt: skip
  assert [one.clip for one in media.find_extremes(scores, ['b'], 1)] == ['b', 'b']
  assert not media.find_extremes({'m': scores['m']}, ['a'], 2) and not media.find_extremes({}, ['a'], 2)
  both = media.find_extremes({'Input': {'a': {0: 1.0}}, 'm': {'a': {0: 2.0}}}, ['a'], 3)
  assert [one.kind for one in both] == ['worst']  # one frame is not both


def test_scores_and_gains_of_frames(pair):
  block, raw = read(*pair)
  saved = saved_frames.SavedFrames(block, raw)
  scores = media.frame_scores(saved, block, raw)
  assert list(scores) == ['Input', 'ecnu', EVIL]
  want = metrics.psnr(frames_of(6)['a'], TARGETS['a'])
  np.testing.assert_allclose(list(scores[EVIL]['a'].values()), want)
  found = media.find_extremes(scores, list(TARGETS), 1)
  gains = {(c, k): scores['ecnu'][c][k] - scores['Input'][c][k] for c in TARGETS for k in range(4)}
  assert (found[0].clip, found[0].frame) == min(gains, key=gains.get)
  assert (found[1].clip, found[1].frame) == max(gains, key=gains.get)
  media.check_frames(saved, ['a'], [0, 3])
  with pytest.raises(errors.ConfigError, match='^--frames: frame 9 of a was not scored; there are 4 from 0 to 3, the'):
    media.check_frames(saved, ['a'], [0, 9])


def test_what_is_given_up_first():
  first, *_, last = rungs = media.rungs(3, 4)
  assert first == media.Rung(3, 4) and last == media.Rung(1, 1, 75, 4) and len(set(rungs)) == len(rungs)
  assert {rung.frames for rung in media.rungs([1, 5, 9, 11], 0)} == {4}
  moving = media.motion_rungs(24, 9)
  assert moving[0].clips == 9 and moving[-1].clips == 1
  assert [one.frames for one in moving] == sorted((one.frames for one in moving), reverse=True)
  assert media._middle(range(100, 110), 4) == (103, 104, 105, 106)


def test_shrunk_frames_are_means(pair):
  block, raw = read(*pair)
  still = media.Maker(saved_frames.SavedFrames(block, raw), True).still('a', 1, None, 4)
  assert (still.width, still.height) == (15, 10)
  np.testing.assert_array_equal(pixels(still.pictures[3]), panels.resized(TARGETS['a'][1], 15))
