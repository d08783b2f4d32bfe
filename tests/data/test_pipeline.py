import collections
import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from windows import SAMPLE, assert_equal, draw, place, samples

from vqm_jax import data, errors
from vqm_jax.data import pipeline, records

RECORDS = 11


@pytest.fixture(scope='module')
def source(data_dir):
  return data.open_source('vqm_tiny', 'tiles', 'train', str(data_dir))


def test_shapes_and_alignment(source):
  for batch in draw(source, 10, batch_size=6):
    for side in batch.values():
      assert side.shape == (6, 3, 9, 9, 3) and side.dtype == np.uint8
    np.testing.assert_array_equal(batch['hq'], 255 - batch['lq'])


def test_window_is_centred_crop_is_random_and_symmetries_vary(source):
  places = [place(sample) for sample in samples(draw(source, 40, batch_size=10))]
  assert {first for _, first, *_ in places} == {1}
  assert {y for _, _, y, _, _ in places} == set(range(24 - 9 + 1))
  assert {x for *_, x, _ in places} == set(range(24 - 9 + 1))
  counts = collections.Counter(symmetry for *_, symmetry in places)
  assert len(counts) == 8 and min(counts.values()) > 20
  for sample in samples(draw(source, 2, batch_size=10)):
    np.testing.assert_array_equal(np.diff(sample[..., 2].astype(int), axis=0), 1)


def test_without_augmentation_the_same_crops_upright(source):
  plain = [place(sample) for sample in samples(draw(source, 10, batch_size=10, augment='none'))]
  mirrored = [place(sample) for sample in samples(draw(source, 10, batch_size=10))]
  assert {symmetry for *_, symmetry in plain} == {(False, False, False)}
  assert [place[:4] for place in plain] == [place[:4] for place in mirrored]


def test_whole_record_and_single_frame(source):
  batch = draw(source, 1, batch_size=2, num_frames=5, crop=24)[0]
  assert batch['lq'].shape == (2, 5, 24, 24, 3)
  single = samples(draw(source, 5, batch_size=2, num_frames=1))
  assert {place(sample)[1] for sample in single} == {2}


def test_each_epoch_is_a_new_permutation(source):
  order = [place(sample)[0] for sample in samples(draw(source, RECORDS, batch_size=4))]
  epochs = [order[i : i + RECORDS] for i in range(0, len(order), RECORDS)]
  assert len(epochs) == 4
  for epoch in epochs:
    assert sorted(epoch) == list(range(RECORDS))
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batch_of_one(source):
  np.testing.assert_array_equal(samples(draw(source, 6, batch_size=1)), samples(draw(source, 2, batch_size=3)))


def test_seed_decides(source):
  assert_equal(draw(source, 3, batch_size=4), draw(source, 3, batch_size=4))
  other = draw(source, 3, batch_size=4, seed=6)
  assert not np.array_equal(other[0]['lq'], draw(source, 1, batch_size=4)[0]['lq'])


@pytest.mark.parametrize('step', [1, 9, 10])  # inside epochs 1 and 4
def test_start_equals_walking_there(source, step):
  walked = draw(source, step + 2, batch_size=4)[step:]
  assert_equal(draw(source, 2, batch_size=4, start=4 * step), walked)


def test_start_need_not_be_a_multiple_of_the_batch(source):
  walked = samples(draw(source, 10, batch_size=4))[37:]
  resumed = samples(draw(source, 1, batch_size=3, start=37))
  np.testing.assert_array_equal(resumed, walked)


def test_processes_share_the_global_batch(source):
  whole = draw(source, 8, batch_size=4, start=20)
  parts = [draw(source, 8, batch_size=4, start=20, process_index=index, process_count=2) for index in range(2)]
  for step, batch in enumerate(whole):
    for name in batch:
      interleaved = np.stack([parts[0][step][name], parts[1][step][name]], axis=1)
      np.testing.assert_array_equal(interleaved.reshape(batch[name].shape), batch[name])


@pytest.fixture(scope='module')
def larger(data_dir):
  return data.open_source('vqm_tiny', 'tiles_t7p48', 'train', str(data_dir))


def record_kinds(batches):
  """How many samples come from records of 5 frames (middle frame 2) and of 7 (middle frame 3)."""
  return collections.Counter(int(sample[1, 0, 0, 2]) % 8 for sample in samples(batches))


def test_sources_are_mixed_by_weight_and_each_is_shuffled_by_itself(source, larger):
  mixed = draw([source, larger], 24, batch_size=4, weights=(3, 1))
  assert record_kinds(mixed) == {2: 72, 3: 24}  # of 5 and of 7 frames
  of_first = [int(sample[0, 0, 0, 2]) // 8 for sample in samples(mixed) if int(sample[1, 0, 0, 2]) % 8 == 2]
  assert sorted(of_first[:RECORDS]) == list(range(RECORDS))
  assert record_kinds(draw([source, larger], 5, batch_size=4)) == {2: 10, 3: 10}


def test_a_mix_is_resumed_by_its_position(source, larger):
  mix = dict(batch_size=4, weights=(0.3, 0.7))
  assert_equal(draw([source, larger], 2, start=12, **mix), draw([source, larger], 5, **mix)[3:])


@pytest.mark.parametrize('weights', [(1,), (1, 0), (1, 1, 1)])
def test_weights_must_fit_the_sources(source, larger, weights):
  with pytest.raises(errors.ConfigError, match='expected 2 positive numbers, one for each source'):
    draw([source, larger], 1, batch_size=4, weights=weights)


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_change_nothing_and_end(source, workers):
  expected = draw(source, 9, batch_size=4, start=8)
  assert_equal(draw(source, 9, batch_size=4, start=8, num_workers=workers), expected)
  assert not multiprocessing.active_children()


ABANDON = """
import multiprocessing, os, signal, sys
from vqm_jax import data

if __name__ == '__main__':
  source = data.open_source('vqm_tiny', 'tiles', 'train', sys.argv[1])
  batches = data.train_batches(source, num_frames=1, crop=8, batch_size=1, seed=0, num_workers=1)
  next(batches)
  print(len(multiprocessing.active_children()), flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""


KILLED = """
import multiprocessing, os, signal, sys
from vqm_jax import data, errors

if __name__ == '__main__':
  source = data.open_source('vqm_tiny', 'tiles', 'train', sys.argv[1])
  with data.train_batches(source, num_frames=1, crop=8, batch_size=1, seed=0, num_workers=2) as batches:
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    try:
      for batch in batches:
        pass
    except errors.DataError as error:
      print(error)
"""


@pytest.mark.slow
def test_a_worker_that_the_kernel_kills_ends_the_run_in_a_line(data_dir, tmp_path):
  script = tmp_path / 'killed.py'
  script.write_text(KILLED)
  done = subprocess.run([sys.executable, script, str(data_dir)], capture_output=True, text=True, timeout=120)
  assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
  assert 'ended by signal SIGKILL, most likely by the kernel for want of memory: lower' in done.stdout, done.stdout


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_run(data_dir, tmp_path):
  script = tmp_path / 'abandon.py'
  script.write_text(ABANDON)
  # The output ends when the last process that holds it does, the worker among them.
  done = subprocess.run([sys.executable, script, str(data_dir)], stdout=subprocess.PIPE, timeout=60)
  assert done.returncode == -signal.SIGKILL and done.stdout == b'1\n'


def test_close_ends_the_iteration(source):
  batches = data.train_batches(source, batch_size=2, **SAMPLE)
  next(batches)
  batches.close()
  batches.close()
  with pytest.raises(ValueError, match='closed'):
    next(batches)


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


def test_too_large_a_sample_names_a_config_that_fits(source):
  expected = r"records are 5 frames of 24x24.*crop=36; use config 'tiles_t7p40' \(7 frames of 40x40\)"
  with pytest.raises(errors.DataError, match=expected):
    draw(source, 1, batch_size=1, crop=36)
  with pytest.raises(errors.DataError, match="num_frames=7, crop=9; use config 'tiles_t7p40'"):
    draw(source, 1, batch_size=1, num_frames=7)
  with pytest.raises(errors.DataError, match='no prepared config of vqm_tiny fits.*build a larger'):
    draw(source, 1, batch_size=1, crop=99)


@pytest.mark.parametrize('config, split', [('frames', 'val'), ('tiles_odd', 'train')])
def test_records_that_are_no_pairs_of_windows(data_dir, config, split):
  source = data.open_source('vqm_tiny', config, split, str(data_dir))
  with pytest.raises(errors.DataError, match="lq and hq of one size.*use config 'tiles'"):
    draw(source, 1, batch_size=1)


@pytest.mark.parametrize(
  'wrong',
  [
    dict(batch_size=3, process_count=2),
    dict(batch_size=0),
    dict(start=-1),
    dict(seed=-1),
    dict(seed=2**32),
    dict(num_workers=-1),
    dict(process_index=1),
    dict(num_frames=0),
    dict(crop=0),
  ],
)
def test_arguments_out_of_range(source, wrong):
  with pytest.raises(errors.ConfigError, match=f'{next(iter(wrong))}='):
    draw(source, 1, **(dict(batch_size=4) | wrong))


@pytest.mark.parametrize(
  ('code', 'words'),
  [
    (-9, 'signal SIGKILL, most likely by the kernel for want of memory: lower --config.num_workers'),
    (3, 'exit code 3:'),
  ],
)
def test_a_dead_worker_is_told_in_one_line(code, words):
  def dead():
    raise RuntimeError(f'Worker process was terminated unexpectedly with exit code {code}. More of it.')
    yield

  with pytest.raises(errors.DataError, match=words) as caught:
    next(pipeline.Batches(dead(), shared_memory=True))
  assert 'start the same command again, which resumes' in str(caught.value)
