"""Samples out of the config `segments`: windows of the very frames of the videos, whatever is decoded where."""

import collections
import csv
import shutil

import coded_video
import numpy as np
import pytest
from data.windows import assert_equal, draw

from paired_videos import paired_videos_dataset_builder
from vqm_jax import data, errors
from vqm_jax.data import records
from vqm_jax.evaluation import filter_scores
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.configs import TilesConfig
from vqm_jax.prepare.records.segments import SegmentsConfig
from vqm_jax.video import VideoFile, remux

LENGTHS = {'a': 40, 'b': 30}
SCENES = {'a': [(0, 20), (20, 23), (23, 40)], 'b': [(0, 30)]}
# Of at most 16 frames, cut at keyframes 0, 8, 16, …; one is too short for samples of 4 frames.
SEGMENTS = [('a', 0, 16), ('a', 16, 4), ('a', 20, 3), ('a', 23, 9), ('a', 32, 8), ('b', 0, 16), ('b', 16, 14)]
SAMPLE = dict(num_frames=4, crop=12)


SMALL = SegmentsConfig(name='segments', min_frames=4, max_frames=16)


def build(root, data_dir, config=SMALL):
  driver.build(driver.variant(paired_videos_dataset_builder.Builder, 'mine', config, {})(data_dir=data_dir), root)


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  root = tmp_path_factory.mktemp('pairs')
  for seed, (name, num_frames) in enumerate(LENGTHS.items()):
    pictures = coded_video.pictures(seed, num_frames)
    coded_video.write(root / f'train/lq/{name}.mp4', pictures, 'open-gop=1:keyint=8:min-keyint=8:scenecut=0')
    coded_video.write(root / f'train/hq/{name}.mp4', pictures, 'keyint=13:scenecut=0', options={'crf': '10'})
  with (root / 'manifest.csv').open('w', newline='') as file:
    rows = [('train', name, ';'.join(f'{a}-{b}' for a, b in scenes)) for name, scenes in SCENES.items()]
    csv.writer(file).writerows([('split', 'clip', 'scenes'), *rows])
  return root


@pytest.fixture(scope='module')
def data_folder(pairs, tmp_path_factory):
  folder = tmp_path_factory.mktemp('segments')
  build(pairs, folder)
  build(pairs, folder, TilesConfig(name='tiles', num_frames=1, size=16, per_video=2))
  return str(folder)


@pytest.fixture(scope='module')
def source(data_folder):
  return data.open_training('mine', 'segments', data_folder)


@pytest.fixture(scope='module')
def frames(pairs):
  """{(side, video): uint8 (T, H, W, 3)} as the reader gives them."""
  return {
    (side, name): np.stack(list(VideoFile(pairs / f'train/{side}/{name}.mp4').frames()))
    for side in ('lq', 'hq')
    for name in LENGTHS
  }


@pytest.fixture(scope='module')
def place(frames):
  """Finds where both windows of a sample that is upright are from: (video, frame, y, x)."""

  def find(lq, hq):
    size = lq.shape[1]
    for name in LENGTHS:
      whole = frames['lq', name]
      for t, y, x in np.argwhere((whole == lq[0, 0, 0]).all(-1)):
        area = np.s_[t : t + len(lq), y : y + size, x : x + size]
        if np.array_equal(whole[area], lq):
          np.testing.assert_array_equal(frames['hq', name][area], hq)
          return name, int(t), int(y), int(x)
    raise AssertionError('these are no frames of the videos')

  return find


@pytest.fixture(scope='module')
def sampled(source, place):
  def places(batches, batch_size, **kwargs):
    drawn = draw(source, batches, batch_size=batch_size, augment='none', **(SAMPLE | kwargs))
    return [place(lq, hq) for batch in drawn for lq, hq in zip(batch['lq'], batch['hq'], strict=True)]

  return places


def segment_of(name, t):
  return next(k for k, (video, start, n) in enumerate(SEGMENTS) if video == name and start <= t < start + n)


def test_the_records_are_those_expected_here(source):
  found = [(r['video'].decode(), int(r['start']), int(r['num_frames'])) for r in source]
  assert found == SEGMENTS


def test_windows_are_those_of_the_videos_at_any_place(sampled):
  places = sampled(20, 24, crops_per_record=4)
  for name, t, _, _ in places:
    _, start, length = SEGMENTS[segment_of(name, t)]
    assert t + SAMPLE['num_frames'] <= start + length
  possible = {(name, t) for name, start, n in SEGMENTS for t in range(start, start + n - 3)}
  found = {(name, t) for name, t, *_ in places}
  assert found <= possible and len(found) > 0.75 * len(possible)
  assert {y for _, _, y, _ in places} == set(range(48 - 12 + 1))
  assert {x for *_, x in places} == set(range(64 - 12 + 1))


def test_an_epoch_has_a_turn_for_each_stretch_of_frames(sampled):
  turns = collections.Counter({k: n // 4 for k, (*_, n) in enumerate(SEGMENTS) if n >= 4})
  length = sum(turns.values())
  order = [segment_of(name, t) for name, t, *_ in sampled(3, length)]
  epochs = [order[k : k + length] for k in range(0, len(order), length)]
  assert [collections.Counter(epoch) for epoch in epochs] == [turns] * 3
  assert len(set(map(tuple, epochs))) == 3


def test_whole_frames_and_symmetries(source, frames):
  (batch,) = draw(source, 1, batch_size=30, num_frames=2, crop=48)
  wholes = [frames['lq', name][t, :, x : x + 48] for name in LENGTHS for t in range(LENGTHS[name]) for x in range(17)]
  known = {
    np.ascontiguousarray(view).tobytes(): k
    for whole in wholes
    for k, view in enumerate(
      turned[:, ::step] for turned in (np.rot90(whole, quarter) for quarter in range(4)) for step in (1, -1)
    )
  }
  assert {known[lq[0].tobytes()] for lq in batch['lq']} == set(range(8))


def test_crops_of_a_record_share_their_frames(sampled):
  places = sampled(6, 12, crops_per_record=4)
  groups = [places[k : k + 4] for k in range(0, len(places), 4)]
  for group in groups:
    assert len({(name, t) for name, t, *_ in group}) == 1 and len({(y, x) for *_, y, x in group}) > 1
  assert len({group[0][:2] for group in groups}) > 9
  # What is drawn does not depend on how often it is cut.
  assert [group[0] for group in groups] == sampled(9, 2)


def test_a_batch_of_crops_is_decoded_once(source, monkeypatch):
  decoded = []
  decode = remux.decode
  monkeypatch.setattr(remux, 'decode', lambda *args: decoded.append(args[1:]) or decode(*args))
  (batch,) = draw(source, 1, batch_size=64, crops_per_record=64, **SAMPLE)
  assert batch['lq'].shape == batch['hq'].shape == (64, 4, 12, 12, 3)
  assert 2 <= len(decoded) <= 2 * 10  # for this batch and those ahead
  assert all(stop - start == 4 for start, stop in decoded)


@pytest.mark.parametrize('crops', [1, 3])
def test_a_sample_depends_on_its_position_alone(source, crops):
  kwargs = dict(batch_size=6, crops_per_record=crops, **SAMPLE)
  whole = draw(source, 4, **kwargs)
  assert_equal(draw(source, 2, start=6 * 2, **kwargs), whole[2:])
  parts = [draw(source, 4, process_index=k, process_count=2, **kwargs) for k in range(2)]
  for step, batch in enumerate(whole):
    for name in batch:
      # Runs of `crops` samples go to the processes in turn.
      runs = [part[step][name].reshape(-1, crops, *batch[name].shape[1:]) for part in parts]
      np.testing.assert_array_equal(np.stack(runs, axis=1).reshape(batch[name].shape), batch[name])
  other = draw(source, 1, seed=6, **kwargs)
  assert not np.array_equal(other[0]['lq'], whole[0]['lq'])


@pytest.mark.slow
def test_workers_change_nothing(source):
  kwargs = dict(batch_size=6, start=12, crops_per_record=2, **SAMPLE)
  assert_equal(*(draw(source, 3, num_workers=n, **kwargs) for n in (0, 2)))


def test_crops_per_record_of_tiles(data_dir):
  tiles = data.open_source('vqm_tiny', 'tiles', 'train', str(data_dir))
  kwargs = dict(batch_size=12, augment='none')
  whole = draw(tiles, 4, crops_per_record=4, **kwargs)
  lq = np.concatenate([batch['lq'] for batch in whole])
  # A pixel of record r at t, y, x is (y, x, 8 r + t), see conftest.
  y, x, record = (lq[:, 0, 0, 0, k].reshape(-1, 4) for k in range(3))
  assert (record == record[:, :1]).all() and len(set(record[:, 0])) == 11
  assert all(len(set(zip(*place, strict=True))) > 1 for place in zip(y, x, strict=True))
  single = np.concatenate([batch['lq'] for batch in draw(tiles, 1, **kwargs)])
  np.testing.assert_array_equal(lq[::4], single)
  for batch in whole:
    np.testing.assert_array_equal(batch['hq'], 255 - batch['lq'])
  assert_equal(draw(tiles, 2, crops_per_record=4, start=24, **kwargs), whole[2:])


def test_mixed_with_tiles(source, data_dir):
  tiles = data.open_source('vqm_tiny', 'tiles', 'train', str(data_dir))
  mix = dict(batch_size=8, weights=(3, 1), crops_per_record=2, **SAMPLE)
  drawn = draw([source, tiles], 4, **mix)
  of_tiles = [np.array_equal(hq, 255 - lq) for batch in drawn for lq, hq in zip(batch['lq'], batch['hq'], strict=True)]
  assert sum(of_tiles) == 8
  assert_equal(draw([source, tiles], 2, start=16, **mix), drawn[2:])


@pytest.mark.parametrize(
  'wrong, message',
  [
    (dict(crops_per_record=0), 'crops_per_record=0: expected 1 or more'),
    (dict(crops_per_record=3), 'batch_size=8: expected a multiple of 1 processes x 3 crops'),
    (dict(crops_per_record=4, start=6), 'start=6: expected the number of samples drawn, 0 or more, a multiple of 4'),
    (dict(crops_per_record=4, process_count=4), 'batch_size=8: expected a multiple of 4 processes x 4 crops'),
  ],
)
def test_arguments_out_of_range(source, wrong, message):
  with pytest.raises(errors.ConfigError, match=message):
    draw(source, 1, **(dict(batch_size=8) | SAMPLE | wrong))


@pytest.mark.parametrize('size', [dict(num_frames=17, crop=12), dict(num_frames=4, crop=49)])
def test_too_large_a_sample(source, size):
  message = 'mine/segments split train: its records are at most 16 frames of 48x64, too small for num_frames='
  with pytest.raises(errors.DataError, match=message):
    draw(source, 1, batch_size=2, **size)


def test_longest_segments_only(sampled):
  places = sampled(1, 10, num_frames=16)
  assert {(name, t) for name, t, *_ in places} == {('a', 0), ('b', 0)}


def test_other_ways_of_sampling(data_folder):
  with pytest.raises(errors.DataError, match=r"mine/segments: sampling='weak' needs FrameStrips.*found lq=Text"):
    data.open_training('mine', 'segments', data_folder, sampling='weak')


def test_recommended_where_it_fits(data_folder):
  tiles = data.open_training('mine', 'tiles', data_folder)
  with pytest.raises(errors.DataError, match=r"use config 'segments' \(at most 16 frames of 48x64\)"):
    draw(tiles, 1, batch_size=1, **SAMPLE)


def test_part_of_the_split(data_folder):
  part = data.open_source('mine', 'segments', 'train[:50%]', data_folder)
  with pytest.raises(
    errors.DataError, match=r'segments split train\[:50%\]: segments are sampled from the whole split'
  ):
    draw(part, 1, batch_size=1, **SAMPLE)


@pytest.mark.parametrize('damage', [lambda data: data[: len(data) // 2], lambda data: b'rubbish'])
def test_damaged_video_is_named(pairs, tmp_path, monkeypatch, damage):
  cut = remux.cut

  def damaged(video, ranges):
    for k, segment in enumerate(cut(video, ranges)):
      spoilt = (video.name, k) == ('b', 1) and video.path.parent.name == 'hq' and len(ranges) > 1
      yield segment._replace(data=damage(segment.data)) if spoilt else segment

  monkeypatch.setattr(remux, 'cut', damaged)
  build(pairs, tmp_path)
  source = data.open_training('mine', 'segments', str(tmp_path))
  message = r'^mine/segments split train: record 6 \(number 6 of .*\) cannot be read: frames \d+ to \d+ cannot be decod'
  with pytest.raises(errors.DataError, match=message) as caught:
    draw(source, 20, batch_size=2, **SAMPLE)
  assert '\n' not in str(caught.value)


def test_damaged_file_is_named(data_folder, tmp_path):
  shutil.copytree(f'{data_folder}/mine/segments', tmp_path / 'mine/segments')
  (file,) = tmp_path.rglob('*array_record*')
  content = bytearray(file.read_bytes())
  content[200] ^= 255
  file.write_bytes(content)
  source = data.open_training('mine', 'segments', str(tmp_path))
  with pytest.raises(errors.DataError, match=rf'record 0 \(number 0 of {file}\) cannot be read'):
    draw(source, 20, batch_size=2, **SAMPLE)
  assert len(records.Records(source, ['lq'])[1]['lq']) > 1000


def test_a_linear_filter_is_not_fitted_on_them(source):
  with pytest.raises(errors.DataError, match='least squares is fitted on a tiles config, found lq=Text'):
    next(filter_scores.training_pairs(source))


def test_what_is_decoded_as_it_is_drawn_cannot_live_on_a_device(source, data_folder):
  tiles = data.open_training('mine', 'tiles', data_folder)
  assert data.Tables([tiles], 'paired').shapes[0][1:] == (1, 16, 16, 3)
  with pytest.raises(
    errors.ConfigError,
    match=r'^config.data_on_device: mine/segments split train holds coded video .* a config of tiles',
  ):
    data.Tables([tiles, source], 'paired')
