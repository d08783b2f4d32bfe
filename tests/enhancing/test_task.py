"""One video before the work: the rate of images, outputs that are in the way."""

from fractions import Fraction

import pytest

from vqm_jax import errors
from vqm_jax.enhancing import task


def test_rates():
  assert task.parse_fps(None) is task.parse_fps('') is None
  assert task.parse_fps('24000/1001') == Fraction(24000, 1001) and task.parse_fps('12.5') == Fraction(25, 2)
  for text in ('0', '-1', '1/0', '2000', 'fast'):
    with pytest.raises(errors.ConfigError, match=f'--fps={text}: expected frames per second, for example 24'):
      task.parse_fps(text)


def test_comparisons_must_have_their_place_too(tmp_path):
  (tmp_path / 'in.mp4').touch()
  (tmp_path / 'out_compare.mp4').touch()
  given = str(tmp_path / 'in.mp4'), tmp_path / 'out.mp4'
  assert task.check(*given, task.Options())
  with pytest.raises(errors.VideoError, match='out_compare.mp4: exists already'):
    task.check(*given, task.Options(compare=True))
  assert task.check(*given, task.Options(compare=True, overwrite=True))
