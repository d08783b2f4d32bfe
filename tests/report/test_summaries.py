"""Where results are found."""

import pytest
from report.scored import save, summary

from vqm_jax import errors
from vqm_jax.report import summaries


def test_find_takes_files_folders_and_workdirs(tmp_path):
  run = tmp_path / 'run'
  test = save(run / 'eval' / 'test' / 'summary.json', summary())
  validation = save(run / 'eval' / 'validation' / 'summary.json', summary(split='validation'))
  alone = save(tmp_path / 'scored' / 'summary.json', summary('x'))
  several = [save(tmp_path / 'scored_together' / name / 'summary.json', summary(name)) for name in 'ab']
  save(tmp_path / 'scored_together' / 'summary.json', summary('a'))  # eval puts the first method here as well
  assert summaries.find([run]) == [test] == summaries.find([run, test, test.parent])
  assert summaries.find([run], 'all') == [test, validation] == summaries.find([run / 'eval'], 'all')
  assert summaries.find([alone.parent, validation]) == [alone, validation]
  assert summaries.find([tmp_path / 'scored_together']) == several
  assert summaries.find([]) == []
  with pytest.raises(errors.DataError, match='no train/summary.json, only of test, validation; evaluate --split=train'):
    summaries.find([run], 'train')
  for path in (tmp_path, tmp_path / 'nowhere'):
    with pytest.raises(errors.DataError, match=f'^{path} leads to no results; expected a summary.json'):
      summaries.find([path])
