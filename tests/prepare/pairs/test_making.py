"""Settings of degrade; what it makes is in `test_degrade`."""

import pytest

from vqm_jax import errors
from vqm_jax.prepare.pairs import making


@pytest.mark.parametrize('rate', ['crf', 'crf=0', 'crf=60', 'crf=38:28', 'bitrate=5', 'bitrate=k', 'qp=3', 'crf=x'])
def test_bad_rates(rate):
  with pytest.raises(errors.ConfigError, match='expected crf=33'):
    making.Settings(rate=rate)


def test_rates():
  assert making.parse_rate('crf=28:38.5') == ('crf', 28, 38.5)
  assert making.parse_rate('bitrate=500k') == ('bitrate', 5e5, 5e5)
  assert making.parse_rate('bitrate=1.5M') == ('bitrate', 1.5e6, 1.5e6)
  with pytest.raises(errors.ConfigError, match='set one of'):
    making.Settings()
  with pytest.raises(errors.ConfigError, match='set one of'):
    making.Settings(rate='crf=33', target_psnr=30.0)
  with pytest.raises(errors.ConfigError, match='exclude each other'):
    making.Settings(rate='crf=33', split_csv='x', counts=dict(val=1))
