"""Builders are found by name or folder; their configs are changed as far as they have the fields."""

import sys

import pytest

from vqm_jax import errors
from vqm_jax.prepare.records import driver


def test_ours_by_name_with_changes():
  builder = driver.find_builder('paired_videos')
  config = next(config for config in builder.BUILDER_CONFIGS if config.name == 'frames')
  changed = driver.variant(builder, 'mine', config, {'holdout': 2, 'per_video': 9})
  (one,) = changed.BUILDER_CONFIGS
  assert changed.name == 'mine' and one.holdout == 2 and not hasattr(one, 'per_video')
  assert changed.options == {'holdout': 2} and config.holdout == 0


def test_unknown_ones_list_what_there_is(tmp_path):
  with pytest.raises(
    errors.ConfigError, match='unknown, choose one of intvid, paired_videos, vid3oc, vqm_demo or give'
  ):
    driver.find_builder(str(tmp_path))


def test_a_folder_whose_name_is_taken(tmp_path):
  folder = tmp_path / 'numpy'
  folder.mkdir()
  (folder / 'numpy_dataset_builder.py').touch()
  before = list(sys.path)
  try:
    with pytest.raises((errors.ConfigError, ModuleNotFoundError), match='numpy'):
      driver.find_builder(str(folder))
  finally:
    sys.path[:] = before
