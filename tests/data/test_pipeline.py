import collections
import multiprocessing
import signal
import subprocess
import sys

import numpy as np
import pytest
from data.windows import SAMPLE, assert_equal, draw, place, samples

from vqm_jax import data, errors
from vqm_jax.data import pipeline

RECORDS = 11


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


def test_too_large_a_sample_names_a_config_that_fits(source):
  expected = r"records are 5 frames of 24x24.*crop=36; use config 'tiles_t7p40' \(7 frames of 40x40\)"
  with pytest.raises(errors.DataError, match=expected):
    draw(source, 1, batch_size=1, crop=36)
  with pytest.raises(errors.DataError, match="num_frames=7, crop=9; use config 'tiles_t7p40'"):
    draw(source, 1, batch_size=1, num_frames=7)
  with pytest.raises(errors.DataError, match='no prepared config of vqm_tiny fits.*build a larger'):
    draw(source, 1, batch_size=1, crop=99)


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
