"""Which metrics are taken, and the one of a whole data set."""

import pytest

from vqm_jax import errors
from vqm_jax.evaluation.choice import choose


def names(choice):
  return [metric.name for metric in choice.metrics]


def test_auto_is_what_suits_the_pairs():
  assert names(choose(['auto'])) == ['psnr', 'ssim']
  assert names(choose(['auto'], protocol='y601')) == ['psnr', 'ssim', 'psnr_y601', 'ssim_y601']
  weak = choose(['auto', 'change'], aligned=False)
  assert names(weak) == ['colour', 'sharpness', 'warping', 'flicker', 'change'] and weak.patches is None
  assert set(weak.missing) == {'lpips_alex', 'fd_lpips'}
  assert 'python -m vqm_jax.perceptual.convert --net=alexnet' in weak.missing['lpips_alex']
  assert set(weak.described()) == {*names(weak), *weak.missing}
  assert weak.described()['lpips_alex']['label'] == 'LPIPS (alex)'


def test_each_metric_is_taken_once_and_unknown_ones_are_refused():
  assert names(choose(['psnr', 'auto', 'psnr'])) == ['psnr', 'ssim']
  with pytest.raises(errors.ConfigError, match="did you mean 'sharpness'"):
    choose(['sharpnes'])


def test_fidelity_of_unaligned_pairs_has_a_name_that_no_table_takes():
  choice = choose(['psnr', 'ssim', 'tof'], aligned=False)
  assert names(choice) == ['unaligned_psnr', 'unaligned_ssim', 'tof']
  assert choice.metrics[0].label == 'PSNR (dB), unaligned' and choice.metrics[2].reference == 'input'


def test_what_cannot_be_taken_has_a_reason(monkeypatch):
  assert 'neighbouring frames' in choose(['tof', 'psnr'], every=10).missing['tof']
  assert '--lq_dir' in choose(['warping', 'colour'], aligned=False, inputs=False).missing['warping']
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  assert 'needs OpenCV' in choose(['tof', 'psnr']).missing['tof']
