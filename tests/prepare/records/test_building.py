"""Building records from Python: arguments in, what became of each config out; no flags are parsed here."""

import pytest

from vqm_jax import errors
from vqm_jax.data import open_source
from vqm_jax.prepare.records.building import build_records


def test_records_from_arguments(tmp_path):
  told = []
  asked = dict(configs=['micro_tiles'], data_dir=tmp_path, name='mine', seed=3)
  (built,) = build_records('vqm_demo', **asked, on_built=told.append)
  assert told == [built] and built.fresh and not built.missing
  assert (built.name, built.config.name, built.counts) == ('mine', 'micro_tiles', {'train': 8})
  assert built.folder == tmp_path / 'mine/micro_tiles/1.0.0'
  assert built.size == sum(file.stat().st_size for file in built.folder.iterdir())
  assert len(open_source('mine', 'micro_tiles', 'train', str(tmp_path))) == 8

  before = {file: file.stat().st_mtime_ns for file in built.folder.iterdir()}
  (again,) = build_records('vqm_demo', **asked)
  assert not again.fresh and (again.counts, again.size) == (built.counts, built.size)
  assert before == {file: file.stat().st_mtime_ns for file in built.folder.iterdir()}
  with pytest.raises(errors.DataError, match='was built with seed=3, now seed=4'):
    build_records('vqm_demo', **asked | {'seed': 4})


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'configs': ['micro']}, r'--config=micro: unknown, vqm_demo has .*micro_tiles'),
    ({'name': '7x'}, '--name=7x: expected letters'),
    ({'manual_dir': 'videos'}, 'vqm_demo reads no folder'),
    ({'source_suffix': '500k'}, '--source_suffix means nothing for micro_tiles'),
    ({'data_dir': 'gs://bucket'}, 'records are written to local disk'),
  ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, given, message):
  with pytest.raises(errors.ConfigError, match=message):
    build_records('vqm_demo', **{'configs': ['micro_tiles'], 'data_dir': tmp_path} | given)
  assert not list(tmp_path.iterdir())
