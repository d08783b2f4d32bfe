import concurrent.futures
import dataclasses
import hashlib
import pathlib
import threading
from fractions import Fraction

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vqm_jax import errors
from vqm_jax.data import open_source
from vqm_jax.prepare.records import builder as builder_lib
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import ClipPair, FramesConfig, TilesConfig


class Video:
  """A source in memory: frame t has the value t in red, and texture elsewhere."""

  def __init__(self, name, num_frames=12, height=40, width=60, real_frames=None, flat=False):
    self.name, self.fps = name, Fraction(25)
    self.num_frames, self.height, self.width = num_frames, height, width
    self._real, self._flat = num_frames if real_frames is None else real_frames, flat

  def frames(self, start=0, stop=None):
    picture = np.random.default_rng(0).integers(0, 255, (self.height, self.width, 3), np.uint8)
    if self._flat:
      picture[:] = 128
    for t in range(start, min(self.num_frames if stop is None else stop, self._real)):
      frame = picture.copy()
      frame[..., 0] = t
      yield frame


def pair(name, scenes=(), category='', **kwargs):
  return ClipPair(clip_id=name, lq=Video(name, **kwargs), hq=Video(name, **kwargs), scenes=scenes, category=category)


class Small(VqmBuilder, skip_registration=True):
  """Clips from the attribute `table`: {split: [ClipPair]}."""

  name = 'small'
  VERSION = tfds.core.Version('1.0.0')
  pkg_dir_path = pathlib.Path(__file__).parent
  BUILDER_CONFIGS = [
    TilesConfig(name='tiles', num_frames=3, size=16, per_video=20, codec='png'),
    TilesConfig(name='tiles_t1', num_frames=1, size=16, per_video=6, codec='raw'),
    FramesConfig(name='frames'),
  ]
  table: dict = {}

  def clips(self, split, manual_dir):
    yield from self.table.get(split, [])


def make(tmp_path, config, table, **changes):
  """The builder of `config` from `table`."""
  cls = type(Small)('Given', (Small,), dict(name='small', table=table), skip_registration=True)
  chosen = next(c for c in Small.BUILDER_CONFIGS if c.name == config)
  return driver.variant(cls, 'small', chosen, changes)(data_dir=tmp_path)


def built(tmp_path, config, table, **changes):
  """Builds `config` from `table` and returns the data dir."""
  assert driver.build(make(tmp_path, config, table, **changes), None) == []
  return tmp_path


def tree_digest(folder):
  return {
    p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
    for p in folder.rglob('*')
    if p.is_file() and p.name != 'dataset_info.json'
  }


def test_tiles_hold_what_they_say(tmp_path):
  built(tmp_path, 'tiles', {'train': [pair('a', category='city'), pair('b')]})
  source = open_source('small', 'tiles', 'train', str(tmp_path))
  assert 35 <= len(source) <= 40
  whole = np.stack(list(Video('a').frames()))
  keys = set()
  for record in source:
    start, (y, x) = int(record['start']), record['yx']
    assert record['lq'].shape == (3, 16, 16, 3) and record['lq'].dtype == np.uint8
    np.testing.assert_array_equal(record['hq'], whole[start : start + 3, y : y + 16, x : x + 16])
    np.testing.assert_array_equal(record['lq'], record['hq'])
    assert y % 2 == 0 and x % 2 == 0
    assert record['category'] == (b'city' if record['video'] == b'a' else b'')
    assert record['fps'] == 25 and np.isnan(record['crf'])
    keys.add((record['video'], start, int(y), int(x)))
  assert len(keys) == len(source)


def test_windows_never_cross_a_cut(tmp_path):
  scenes = ((0, 5), (5, 7), (7, 12))
  built(tmp_path, 'tiles', {'train': [pair('a', scenes=scenes)]})
  for record in open_source('small', 'tiles', 'train', str(tmp_path)):
    first, stop = scenes[int(record['scene'])]
    reds = record['hq'][:, 0, 0, 0].tolist()
    assert reds == list(range(int(record['start']), int(record['start']) + 3))
    assert first <= reds[0] and reds[-1] < stop
  starts = {int(r['start']) for r in open_source('small', 'tiles', 'train', str(tmp_path))}
  assert starts == {0, 1, 2, 7, 8, 9}


def test_flat_windows_are_thinned(tmp_path):
  built(tmp_path, 'tiles', {'train': [pair('flat', flat=True, num_frames=60), pair('rich')]}, per_video=200)
  names = [record['video'] for record in open_source('small', 'tiles', 'train', str(tmp_path))]
  assert 0.1 < names.count(b'flat') / 200 < 0.3
  assert names.count(b'rich') > 150


def test_windows_of_the_size_of_the_frame(tmp_path):
  built(tmp_path, 'tiles_t1', {'train': [pair('a', height=16, width=16)]})
  assert len(open_source('small', 'tiles_t1', 'train', str(tmp_path))) == 6


def test_frames_are_in_order_with_a_table(tmp_path):
  table = {'val': [pair('a', category='food'), pair('b', num_frames=3)], 'holdout': [pair('c')]}
  built(tmp_path, 'frames', table)
  source = open_source('small', 'frames', 'val', str(tmp_path))
  assert [(r['clip'], int(r['frame'])) for r in source] == [(b'a', t) for t in range(12)] + [
    (b'b', t) for t in range(3)
  ]
  np.testing.assert_array_equal(source[13]['hq'], list(Video('b').frames())[1])
  clips = source.dataset_info.metadata['clips']
  expected = dict(first_record=12, num_frames=3, height=40, width=60, fps=25.0, category='')
  assert clips['val']['b'] == expected
  assert clips['val']['a']['category'] == 'food' and clips['holdout'].keys() == {'c'}
  assert set(source.dataset_info.splits) == {'val', 'holdout'}


def test_two_builds_are_equal_byte_for_byte(tmp_path):
  table = {'train': [pair('a'), pair('b')], 'val': [pair('c')]}
  for config in ('tiles', 'frames'):
    for run in ('one', 'two'):
      built(tmp_path / run, config, table)
  assert tree_digest(tmp_path / 'one') == tree_digest(tmp_path / 'two') != {}


def test_seed_and_count_change_the_windows(tmp_path):
  def places(folder, **changes):
    built(folder, 'tiles', {'train': [pair('a', num_frames=100)]}, **changes)
    source = open_source('small', 'tiles', 'train', str(folder))
    assert source.dataset_info.metadata['settings'].items() >= changes.items()
    return [(int(r['start']), *r['yx'].tolist()) for r in source]

  default = places(tmp_path / 'a')
  assert default != places(tmp_path / 'b', seed=1)
  assert len(places(tmp_path / 'c', per_video=50)) > 40


def test_large_splits_become_several_files(tmp_path, monkeypatch):
  monkeypatch.setattr(builder_lib, '_SHARD_BYTES', 20_000)
  built(tmp_path, 'frames', {'val': [pair('a'), pair('b')]})
  source = open_source('small', 'frames', 'val', str(tmp_path))
  files = sorted(p.name for p in (tmp_path / 'small/frames/1.0.0').glob('*array_record*'))
  assert len(files) == len(source.dataset_info.splits['val'].shard_lengths) > 1
  assert [int(r['frame']) for r in source] == [*range(12), *range(12)]
  assert not list(tmp_path.rglob('*.part*')) and not list(tmp_path.rglob('unfinished.*'))


class Counted(Video):
  """Counts how often it is read."""

  reads = 0

  def frames(self, start=0, stop=None):
    self.reads += 1
    yield from super().frames(start, stop)


def test_a_stopped_build_goes_on_behind_its_last_finished_file(tmp_path, monkeypatch):
  monkeypatch.setattr(builder_lib, '_SHARD_BYTES', 1)  # a file for every clip
  names = 'abcd'
  whole = built(tmp_path / 'whole', 'tiles', {'train': [pair(name) for name in names]})
  counted = [ClipPair(clip_id=name, lq=Video(name), hq=Counted(name)) for name in names]
  torn = dataclasses.replace(counted[2], lq=Video('c', real_frames=1))
  with pytest.raises(errors.DataError, match='c: LQ ends after'):
    driver.build(make(tmp_path, 'tiles', {'train': [*counted[:2], torn, counted[3]]}), None)
  with pytest.raises(errors.DataError, match='no dataset'):
    open_source('small', 'tiles', 'train', str(tmp_path))
  assert sorted(path.name for path in tmp_path.rglob('train-*')) == sorted(
    name for k in (0, 1) for name in (f'train-0000{k}-of-00004', f'train-0000{k}-of-00004.json')
  )
  built(tmp_path, 'tiles', {'train': counted})
  assert [clip.hq.reads for clip in counted] == [1, 1, 2, 1]
  assert tree_digest(tmp_path / 'small') == tree_digest(whole / 'small')
  assert [path.name for path in (tmp_path / 'small' / 'tiles').iterdir()] == ['1.0.0']


def test_finished_files_of_other_settings_are_not_used(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(builder_lib, '_SHARD_BYTES', 1)
  table = {'train': [pair('a'), pair('b')]}
  assert driver.build(make(tmp_path, 'tiles', table), None, (0, 2)) == ['train-00001-of-00002']
  built(tmp_path, 'tiles', table, seed=1)
  built(tmp_path / 'other', 'tiles', table, seed=1)
  assert tree_digest(tmp_path / 'small') == tree_digest(tmp_path / 'other' / 'small')
  assert 'with other settings or input, starting afresh' in caplog.text


def test_parts_make_the_records_of_the_whole(tmp_path, monkeypatch):
  monkeypatch.setattr(builder_lib, '_SHARD_BYTES', 1)
  table = {'val': [pair('a'), pair('b')], 'test': [pair('c')]}
  built(tmp_path / 'whole', 'frames', table)
  here, there = tmp_path / 'here', tmp_path / 'there'  # two machines without a common disk
  assert driver.build(make(here, 'frames', table), None, (0, 2)) == ['val-00001-of-00002']
  assert driver.build(make(there, 'frames', table), None, (1, 2)) == ['val-00000-of-00002', 'test-00000-of-00001']
  unfinished = 'small/frames/unfinished.1.0.0'
  for file in (here / unfinished).glob('*-of-*'):
    file.rename(there / unfinished / file.name)
  assert driver.build(make(there, 'frames', table), None, (0, 2)) == []
  assert tree_digest(there) == tree_digest(tmp_path / 'whole')


def test_parts_that_find_all_files_at_the_same_moment_take_turns(tmp_path, monkeypatch):
  monkeypatch.setattr(builder_lib, '_SHARD_BYTES', 1)
  table = {'val': [pair('a'), pair('b')]}
  built(tmp_path / 'whole', 'frames', table)
  both = threading.Barrier(2, timeout=60)

  def write(builder, shards, folder):
    builder_lib.write(builder, shards, folder)
    if len(shards) == 1:  # of a part
      both.wait()

  def build(k):
    return driver.build(make(tmp_path / 'parts', 'frames', table), None, (k, 2), write)

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(build, range(2))) == [[], []]
  assert tree_digest(tmp_path / 'parts') == tree_digest(tmp_path / 'whole')


def test_what_a_build_takes_is_told_before(tmp_path):
  builder = make(tmp_path, 'tiles_t1', {'train': [pair('a'), pair('flat', flat=True, num_frames=13)]})
  shards = builder.plan(None)
  assert sum(shard.records for shard in shards) == 12
  size, seconds = builder.probe(shards)
  pixels = 2 * 16 * 16 * 3  # beside them, the other fields
  assert size == 0 or 12 * pixels < size < 12 * 1.2 * pixels  # the longest clip is flat and may give no record
  assert seconds > 0
  size, _ = make(tmp_path, 'tiles_t1', {'train': [pair('a')]}).probe(
    make(tmp_path, 'tiles_t1', {'train': [pair('a')]}).plan(None)
  )
  assert 6 * pixels < size < 6 * 1.2 * pixels


def test_holdout_leaves_training(tmp_path):
  table = {'train': [pair(f'v{k}') for k in range(5)], 'val': [pair('val')], 'holdout': [pair('own')]}
  built(tmp_path, 'tiles_t1', table, holdout=2)
  # Another order and time of building must not matter.
  table['train'].reverse()
  built(tmp_path, 'frames', table, holdout=2)
  trained = {r['video'].decode() for r in open_source('small', 'tiles_t1', 'train', str(tmp_path))}
  held = {r['clip'].decode() for r in open_source('small', 'frames', 'holdout', str(tmp_path))}
  assert held & trained == set() and held | trained == {f'v{k}' for k in range(5)} | {'own'}
  assert len(held) == 3
  with pytest.raises(errors.DataError, match='holdout=5 leaves no video for training, there are 5'):
    built(tmp_path / 'all', 'tiles', table, holdout=5)


def test_all_bad_pairs_are_named_before_anything_is_written(tmp_path):
  short = dataclasses.replace(pair('short'), lq=Video('short', num_frames=11))
  small = dataclasses.replace(pair('small'), hq=Video('small', width=58))
  table = {'train': [pair('fine'), short, small, pair('fine'), pair('tiny', height=10), pair('cut', ((0, 99),))]}
  with pytest.raises(errors.DataError) as caught:
    built(tmp_path, 'tiles', table)
  text = str(caught.value)
  assert text.startswith('5 problems') and '\n' not in text
  for part in (
    'train/short: LQ 11 frames 60x40, HQ 12 frames 60x40',
    'train/small: LQ 12 frames 60x40, HQ 12 frames 58x40',
    'train/fine: 2 clips of this name',
    'train/tiny: 12 frames 60x10, expected at least 16x16',
    'train/cut: scene 0-99 of 12 frames',
  ):
    assert part in text
  assert not [p for p in tmp_path.rglob('*') if p.is_file() and '.config' not in p.parts]


def test_a_side_that_ends_early_is_an_error(tmp_path):
  torn = dataclasses.replace(pair('torn'), lq=Video('torn', real_frames=7))
  with pytest.raises(errors.DataError, match='torn: LQ ends after 7 frames, expected 12'):
    built(tmp_path, 'frames', {'test': [torn]})
  assert not list(tmp_path.rglob('dataset_info.json'))


def test_no_clips(tmp_path):
  with pytest.raises(errors.DataError, match='small/frames: no clips of val or test or holdout'):
    built(tmp_path, 'frames', {'train': [pair('a')]})
  with pytest.raises(errors.DataError, match='no scene of the 1 training videos has 3 frames'):
    built(tmp_path, 'tiles', {'train': [pair('a', num_frames=2)]})


def test_disk_full_is_one_line(tmp_path, monkeypatch):
  class Full:
    def __init__(self, *args):
      pass

    def write(self, record):
      raise RuntimeError('No space left on device')

  monkeypatch.setattr(builder_lib.array_record_module, 'ArrayRecordWriter', Full)
  with pytest.raises(errors.DiskFullError, match='val-00000-of-00001: no room to write this; .* are free'):
    built(tmp_path, 'frames', {'val': [pair('a')]})
  assert not list(tmp_path.rglob('dataset_info.json'))
