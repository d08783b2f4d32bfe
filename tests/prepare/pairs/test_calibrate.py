import math

import pytest

from vqm_jax import errors
from vqm_jax.prepare.pairs import calibrate


def _curve(crf):
  return 52 - 0.5 * crf - 0.0015 * crf**2 + 0.004 * math.sin(40 * crf)


@pytest.mark.parametrize('target', [24.0, 28.5, 30.55, 36.0, 49.0])
def test_target_is_met_with_few_probes(target):
  probes = []
  crf = calibrate.crf_for_psnr(lambda crf: probes.append(crf) or _curve(crf), target)
  assert abs(_curve(crf) - target) <= 0.02
  assert len(probes) <= 8 and len(set(probes)) == len(probes)


def test_known_probes_are_not_measured_again():
  first = []
  crf = calibrate.crf_for_psnr(lambda crf: first.append((crf, _curve(crf))) or _curve(crf), 30.0)
  again = calibrate.crf_for_psnr(lambda crf: pytest.fail('measured again'), 30.0, known=first)
  assert again == crf


def test_jump_across_the_target_ends():
  crf = calibrate.crf_for_psnr(lambda crf: 35.0 if crf < 20 else 30.0, 31.0)
  assert crf >= 20


@pytest.mark.parametrize(('target', 'word'), [(70.0, 'lower'), (10.0, 'higher')])
def test_target_out_of_reach(target, word):
  with pytest.raises(errors.DataError, match=f'cannot be reached.*choose a {word} target'):
    calibrate.crf_for_psnr(_curve, target)
