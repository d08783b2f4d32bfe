"""Records on the disk: which are opened, what is said of damaged, missing and other ones."""

import pickle
import shutil

import numpy as np
import pytest
from data.windows import draw, place, samples

from vqm_jax import data, errors
from vqm_jax.data import records

RECORDS = 11


def test_only_wanted_fields_are_decoded(source):
  record = records.Records(source, ['lq'])[3]
  assert list(record) == ['lq']
  again = pickle.loads(pickle.dumps(records.Records(source, ['lq'])))
  assert len(again) == RECORDS
  np.testing.assert_array_equal(again[3]['lq'], record['lq'])


def test_part_of_a_split(data_dir):
  part = data.open_source('vqm_tiny', 'tiles', 'train[6:]', str(data_dir))
  assert len(part) == 5
  assert {place(s)[0] for s in samples(draw(part, 4, batch_size=4))} == {int(record['video'][1:]) for record in part}


def test_newest_version_is_opened(data_dir, tmp_path):
  for version in ('1.0.0', '1.9.0', '1.10.0', 'incomplete.ABC_2.0.0'):
    folder = tmp_path / 'vqm_tiny' / 'tiles' / version
    shutil.copytree(data_dir / 'vqm_tiny' / 'tiles' / '1.0.0', folder)
    info = folder / 'dataset_info.json'
    info.write_text(info.read_text().replace('"1.0.0"', f'"{version}"'))
  source = data.open_source('vqm_tiny', 'tiles', 'train', str(tmp_path))
  assert str(source.dataset_info.version) == '1.10.0'


def test_default_data_dir(data_dir, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
  assert len(data.open_source('vqm_tiny', 'tiles', 'train')) == RECORDS


@pytest.mark.parametrize(
  'dataset, config, split, error, message',
  [
    ('vqm_tny', 'tiles', 'train', errors.DataError, r"no dataset 'vqm_tny'; prepared: vqm_tiny;.*build --d"),
    ('vqm_tiny', 'tile', 'train', errors.DataError, r"no config 'tile'; prepared: frames, frames_lq, til"),
    ('vqm_tiny', 'tiles', 'val', errors.DataError, r"no split 'val'; available: train"),
    ('vqm_tiny', 'tiles', 'train[9', errors.ConfigError, r"split='train\[9'"),
    ('vqm_tiny', 'tiles', 'train[:0]', errors.DataError, r'no records'),
  ],
)
def test_unknown_names_list_what_there_is(data_dir, dataset, config, split, error, message):
  with pytest.raises(error, match=message):
    data.open_source(dataset, config, split, str(data_dir))


def test_data_dir_missing_empty_or_remote(tmp_path):
  with pytest.raises(errors.DataError, match='does not exist; build it with .python -m vqm_jax'):
    data.open_source('vqm_demo', 'tiles', 'train', str(tmp_path / 'nothing'))
  with pytest.raises(errors.DataError, match=f'--config=tiles --data_dir={tmp_path}'):
    data.open_source('vqm_demo', 'tiles', 'train', str(tmp_path))
  with pytest.raises(errors.ConfigError, match='local disk'):
    data.open_source('vqm_demo', 'tiles', 'train', 'gs://bucket/data')


@pytest.fixture
def damaged(data_dir, tmp_path):
  """(data_dir, folder of the records) of a copy to damage."""
  shutil.copytree(data_dir / 'vqm_tiny' / 'tiles', tmp_path / 'vqm_tiny' / 'tiles')
  return str(tmp_path), tmp_path / 'vqm_tiny' / 'tiles' / '1.0.0'


@pytest.mark.parametrize(
  'old, new',
  [
    ('vqm_jax.data.features.FrameStrip', 'vqm_jax.data.features.OldStrip'),
    ('num_frames', 'frames'),
    ('{', ''),
  ],
)
def test_description_of_another_version(damaged, old, new):
  data_dir, folder = damaged
  features = folder / 'features.json'
  text = features.read_text()
  assert old in text
  features.write_text(text.replace(old, new))
  with pytest.raises(errors.DataError, match='build them again with .*--overwrite') as caught:
    data.open_source('vqm_tiny', 'tiles', 'train', data_dir)
  assert '\n' not in str(caught.value)


def test_other_file_format(damaged):
  data_dir, folder = damaged
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(errors.DataError, match='stored as tfrecord, expected array_record'):
    data.open_source('vqm_tiny', 'tiles', 'train', data_dir)


def test_missing_file(damaged):
  data_dir, folder = damaged
  name = 'vqm_tiny-train.array_record-00001-of-00002'
  (folder / name).unlink()
  with pytest.raises(errors.DataError, match=f'{name}: record file is missing'):
    data.open_source('vqm_tiny', 'tiles', 'train', data_dir)


def flip(content):
  # The first record's data, some way behind the file's header.
  return content[:200] + bytes([content[200] ^ 255]) + content[201:]


@pytest.mark.parametrize('damage', [flip, lambda content: content[: len(content) // 2], lambda content: b''])
@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_damaged_record_is_named(damaged, damage, workers):
  data_dir, folder = damaged
  file = folder / 'vqm_tiny-train.array_record-00001-of-00002'
  file.write_bytes(damage(file.read_bytes()))
  source = data.open_source('vqm_tiny', 'tiles', 'train', data_dir)
  message = rf'^vqm_tiny/tiles split train: record \d+ \(number \d of {file}\) cannot be read: '
  with pytest.raises(errors.DataError, match=message) as caught:
    draw(source, 4, batch_size=3, num_workers=workers)
  assert '\n' not in str(caught.value)


def test_position_in_the_file_is_right(damaged):
  data_dir, folder = damaged
  file = folder / 'vqm_tiny-train.array_record-00001-of-00002'
  file.write_bytes(flip(file.read_bytes()))
  source = data.open_source('vqm_tiny', 'tiles', 'train', data_dir)
  first = source.dataset_info.splits['train'].shard_lengths[0]
  reader = records.Records(source, ['lq'])
  assert [reader[index] for index in range(RECORDS) if index != first]
  with pytest.raises(errors.DataError, match=rf'record {first} \(number 0 of {file}\)'):
    reader[first]


@pytest.mark.parametrize('config, split', [('frames', 'val'), ('tiles_odd', 'train')])
def test_records_that_are_no_pairs_of_windows(data_dir, config, split):
  source = data.open_source('vqm_tiny', config, split, str(data_dir))
  with pytest.raises(errors.DataError, match="lq and hq of one size.*use config 'tiles'"):
    draw(source, 1, batch_size=1)
