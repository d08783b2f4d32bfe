"""What a run's folder holds: config, rollbacks, metrics."""

import json

import pytest

from vqm_jax import errors, workdir
from vqm_jax.config import base_config


def config(**changes):
  found = base_config()
  found.update(system='ecnu', dataset='mine', dataset_config='tiles', **changes)
  return found


def test_a_run_is_recognised_and_another_one_refused_with_the_difference(tmp_path):
  workdir.claim(tmp_path, config(seed=1), trained_on={'qp': [20.0, 40.0]}, strength_by_qp=[[20.0, 0.5]])
  workdir.claim(tmp_path, config(seed=1))
  assert workdir.read_config(tmp_path)['seed'] == 1
  with pytest.raises(errors.ConfigError, match=r'holds another run \(seed: 1 there, 2 now\). Choose another --workdir'):
    workdir.claim(tmp_path, config(seed=2))


def test_notes_beside_the_config(tmp_path):
  workdir.claim(tmp_path, config(), trained_on={'qp': [20.0, 40.0]}, strength_by_qp=[[20.0, 0.5]])
  assert workdir.read_trained_on(tmp_path) == {'qp': [20.0, 40.0]}
  assert workdir.read_strength_by_qp(tmp_path) == [[20.0, 0.5]]


def test_folders_of_others_and_damage(tmp_path):
  with pytest.raises(errors.CheckpointError, match='is not a workdir: no config.json'):
    workdir.read_config(tmp_path)
  (tmp_path / 'notes.txt').touch()
  with pytest.raises(errors.ConfigError, match='neither empty nor a workdir'):
    workdir.claim(tmp_path, config())
  (tmp_path / 'config.json').write_text('{"config": 7}')
  with pytest.raises(errors.CheckpointError, match='config.json is damaged .*; bring it back from a copy'):
    workdir.read_config(tmp_path)


def test_networks_of_before_the_shift_take_frames_as_they_are(tmp_path):
  for version, args in (('0.1.3', {'input_mean': 0.0}), ('0.2.0', {})):
    content = {'config': {'system': 'gtq', 'system_args': {}}, 'version': version}
    (tmp_path / 'config.json').write_text(json.dumps(content))
    assert workdir.read_config(tmp_path)['system_args'] == args


def test_each_rollback_halves_the_rate_until_there_were_too_many(tmp_path):
  assert workdir.rollbacks(tmp_path) == []
  error = errors.DivergenceError('Step 9: not finite.')
  past = workdir.add_rollback(tmp_path, [], 4, 2, error)
  past = workdir.add_rollback(tmp_path, past, 6, 2, error)
  assert workdir.rollbacks(tmp_path) == past and [each['lr_factor'] for each in past] == [0.5, 0.25]
  with pytest.raises(errors.DivergenceError, match='went back 2 times already .* with less than 0.25 of its'):
    workdir.add_rollback(tmp_path, past, 8, 2, error)


def test_a_cut_last_line_of_the_metrics_is_left_out(tmp_path):
  assert workdir.read_metrics(tmp_path) == ([], '')
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "time": 2.0, "train/loss": 0.5}\n{"step": 2, "tr')
  records, cut = workdir.read_metrics(tmp_path)
  assert [(record.step, record.values) for record in records] == [(1, {'train/loss': 0.5})] and cut
