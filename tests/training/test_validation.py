"""Validation: means over clips, sample pictures."""

import numpy as np
import pytest
from evaluation.reader import Reader

from vqm_jax import config, data, metrics
from vqm_jax.restorers.seventh import NoProcessing
from vqm_jax.training import validation


@pytest.fixture
def reader(monkeypatch):
  reader = Reader()
  monkeypatch.setattr(data, 'open_source', lambda *names: names)
  monkeypatch.setattr(data, 'ClipReader', lambda source: reader)
  return reader


def validate(**changes):
  settings = config.base_config()
  settings.update(system='ecnu', dataset='mine', dataset_config='tiles', **changes)
  return validation.Validation(settings)(NoProcessing())


def test_means_over_clips_and_pictures_of_each(reader):
  found = validate(eval_frames=0)
  expected = np.mean([metrics.psnr(lq, hq).mean() for lq, hq in reader.pairs.values()])
  assert found.scores['val/psnr'] == pytest.approx(expected) and found.scores['val/gain'] == 0
  assert set(found.scores) == {'val/psnr', 'val/ssim', 'val/gain'} and f'PSNR {expected:.3f} dB (+0.000' in found.text
  assert set(found.pictures) == {'cat', 'dog'} and not found.animations


def test_fewer_clips_and_frames_where_that_is_asked_for(reader):
  found = validate(eval_clips=1, eval_frames=2)
  assert {clip for clip, _ in reader.read} == {'cat'} and set(found.pictures) == {'cat'}
  lq, hq = reader.pairs['cat']
  assert found.scores['val/psnr'] == pytest.approx(metrics.psnr(lq[:2], hq[:2]).mean())
