"""What names of networks stand for: folders of runs, weights that ship, neither."""

import pytest

from vqm_jax import errors
from vqm_jax.inference import opening


def test_a_folder_goes_before_weights_of_the_same_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert opening.shipped_name('web-small') == 'web-small' and opening.shipped_name('./runs/web-small') is None
  (tmp_path / 'web-small').mkdir()
  (tmp_path / 'web-small' / 'config.json').write_text('{}')
  assert opening.shipped_name('web-small') is None
  with pytest.raises(
    errors.CheckpointError, match='web-smal is not a workdir.* no name of weights, either: .*web-small'
  ):
    opening.shipped_name('web-smal')


def test_flags_that_exclude_each_other():
  for given, message in (
    (('runs/a', 'web-small'), 'exclude each other'),
    ((None, 'web-small', 'latest'), '--step=latest chooses among what a --workdir holds'),
    ((None, 'web-small', 'best', False), '--noema chooses'),
    ((None, 'nothing'), 'nothing'),
  ):
    with pytest.raises(errors.ConfigError, match=message):
      opening.check_weights(*given)
  opening.check_weights(None, 'web-small')
  opening.check_weights('runs/a', None, 7, False)


def test_weights_that_ship_say_what_a_config_would():
  assert opening.read_config('web-small')['system'] == 'tcl_unet'
  strengths = opening.read_strength_by_qp('web-small')
  assert strengths == sorted(strengths) and all(0 <= strength <= 1.5 for _, strength in strengths)
