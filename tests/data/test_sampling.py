import collections
import itertools
import json
import re
import shutil

import numpy as np
import pytest
from data.windows import CONFIGS, assert_equal, draw, place

from vqm_jax import data, errors

MARGIN = 3
# The videos of the records of config 'unpaired', see conftest.
SOURCE_VIDEOS = 'a' * 14 + 'b' * 6 + 'c' * 10
TARGET_VIDEOS = 'b' * 9 + 'd' * 8 + 'c' * 3 + 'a' * 10
DOMAIN = range(30)
UPRIGHT, MIRRORED = (False, False, False), (False, False, True)


@pytest.fixture(scope='module')
def opened(data_dir):
  """Opens what one way of sampling needs."""

  def open_training(sampling, config=None):
    return data.open_training('vqm_tiny', config or CONFIGS[sampling], str(data_dir), sampling=sampling)

  return open_training


@pytest.fixture(scope='module')
def sampled(opened):
  """Where both windows of `count` samples come from."""

  def places(sampling, count, **kwargs):
    batches = draw(opened(sampling), count // 10, batch_size=10, sampling=sampling, **kwargs)
    pairs = itertools.chain.from_iterable(zip(batch['lq'], batch['hq'], strict=True) for batch in batches)
    return [(place(lq), place(255 - hq)) for lq, hq in pairs]

  return places


@pytest.fixture
def copied(data_dir, tmp_path):
  """(data_dir, folder of the records) of a copy of 'unpaired' to damage."""
  shutil.copytree(data_dir / 'vqm_tiny' / 'unpaired', tmp_path / 'vqm_tiny' / 'unpaired')
  return str(tmp_path), tmp_path / 'vqm_tiny' / 'unpaired' / '1.0.0'


def test_order_of_pairs_stays_what_it_was(sampled):
  """A run that began with an older version goes on with the samples that it would have had."""
  assert [(*lq[:4], *lq[4]) for lq, _ in sampled('paired', 10)[:4]] == [
    (9, 1, 7, 2, False, False, False),
    (10, 1, 2, 9, False, True, False),
    (0, 1, 8, 1, True, True, False),
    (4, 1, 12, 6, True, True, False),
  ]


def test_weak_windows_correspond_within_the_margin(sampled):
  places = sampled('weak', 300)
  for lq, hq in places:
    assert (*lq[:2], lq[4]) == (*hq[:2], hq[4]) and lq[1] == 1  # record, first frame, symmetry
  shifts = collections.Counter((hq[2] - lq[2] - MARGIN, hq[3] - lq[3] - MARGIN) for lq, hq in places)
  assert shifts.keys() == set(itertools.product(range(-MARGIN, MARGIN + 1), repeat=2))
  assert {lq[2] for lq, _ in places} == {lq[3] for lq, _ in places} == set(range(24 - 9 + 1))
  assert len({lq[4] for lq, _ in places}) == 8


def test_weak_without_a_margin_is_paired(opened):
  assert_equal(draw(opened('weak', 'tiles'), 5, batch_size=4, sampling='weak'), draw(opened('paired'), 5, batch_size=4))


def epochs(sequence):
  return [sequence[i : i + len(DOMAIN)] for i in range(0, len(sequence), len(DOMAIN))]


def assert_independent(places):
  assert {(lq[1], hq[1]) for lq, hq in places} == {(1, 1)}
  # y, x and symmetry have 256, 256 and 64 combinations.
  for part, least in (2, 150), (3, 150), (4, 60):
    assert len({(lq[part], hq[part]) for lq, hq in places}) >= least


def test_unpaired_domains_are_drawn_independently(sampled):
  places = sampled('unpaired', 300)
  pairs = [(lq[0], hq[0]) for lq, hq in places]
  for epoch in epochs(pairs):
    for side in zip(*epoch, strict=True):
      assert sorted(side) == list(DOMAIN)
  assert len(set(pairs)) > 240  # of 900; with one order for both it would be 30
  assert_independent(places)


def test_clip_draws_any_record_of_the_same_video(sampled):
  places = sampled('clip', 300)
  pairs = [(lq[0], hq[0]) for lq, hq in places]
  for epoch in epochs(pairs):
    assert sorted(source for source, _ in epoch) == list(DOMAIN)
  assert all(SOURCE_VIDEOS[source] == TARGET_VIDEOS[target] for source, target in pairs)
  drawn = collections.Counter(target for _, target in pairs)
  for video, count in dict(a=140, b=60, c=100).items():
    shares = [drawn[target] for target in DOMAIN if TARGET_VIDEOS[target] == video]
    assert sum(shares) == count and min(shares) > 0.4 * count / len(shares)
  assert_independent(places)


def test_identity_is_the_same_window_of_a_target_record_twice(opened):
  batches = draw(opened('identity'), 9, batch_size=10, sampling='identity')
  for batch in batches:
    np.testing.assert_array_equal(batch['lq'], batch['hq'])
  places = [place(255 - sample) for batch in batches for sample in batch['hq']]
  for epoch in epochs(places):
    assert sorted(record for record, *_ in epoch) == list(DOMAIN)
  assert {t for _, t, *_ in places} == {1} and len({symmetry for *_, symmetry in places}) == 8


def test_augmentation(sampled):
  assert {(lq[4], hq[4]) for lq, hq in sampled('unpaired', 50, augment='none')} == {(UPRIGHT, UPRIGHT)}
  together = collections.Counter((lq[4], hq[4]) for lq, hq in sampled('weak', 60, augment='flip'))
  assert together.keys() == {(UPRIGHT, UPRIGHT), (MIRRORED, MIRRORED)} and min(together.values()) > 20
  apart = collections.Counter((lq[4], hq[4]) for lq, hq in sampled('unpaired', 80, augment='flip'))
  assert len(apart) == 4 and min(apart.values()) > 10


@pytest.mark.parametrize('sampling', data.SAMPLINGS)
def test_a_sample_depends_on_its_position_alone(opened, sampling):
  sources = opened(sampling)
  whole = draw(sources, 8, batch_size=4, sampling=sampling)
  assert_equal(draw(sources, 3, batch_size=4, start=20, sampling=sampling), whole[5:])
  parts = [draw(sources, 8, batch_size=4, process_index=i, process_count=2, sampling=sampling) for i in range(2)]
  for step, batch in enumerate(whole):
    for name in batch:
      interleaved = np.stack([part[step][name] for part in parts], axis=1)
      np.testing.assert_array_equal(interleaved.reshape(batch[name].shape), batch[name])
  other = draw(sources, 1, batch_size=4, seed=6, sampling=sampling)
  assert not np.array_equal(other[0]['lq'], whole[0]['lq']) and not np.array_equal(other[0]['hq'], whole[0]['hq'])


@pytest.mark.slow
@pytest.mark.parametrize('sampling', ['weak', 'unpaired', 'clip', 'identity'])
def test_workers_change_nothing(opened, sampling):
  drawn = [draw(opened(sampling), 6, batch_size=4, start=8, num_workers=n, sampling=sampling) for n in (0, 2)]
  assert_equal(*drawn)


@pytest.mark.parametrize(
  'sampling, other', [('weak', 'tiles_t7p48'), *((name, 'unpaired_t7') for name in ('unpaired', 'clip', 'identity'))]
)
def test_mixing(opened, sampling, other):
  sources = [opened(sampling), opened(sampling, other)]
  mix = dict(batch_size=4, weights=(3, 1), sampling=sampling)
  mixed = draw(sources, 10, **mix)
  upright = [batch['lq'] if sampling != 'identity' else 255 - batch['lq'] for batch in mixed]
  # The middle frame of 5 is number 2, of 7 number 3.
  assert collections.Counter(int(t) % 8 for lq in upright for t in lq[:, 1, 0, 0, 2]) == {2: 30, 3: 10}
  assert_equal(draw(sources, 2, start=32, **mix), mixed[8:])


def test_unknown_choices(opened):
  with pytest.raises(errors.ConfigError, match="sampling='pair': choose one of paired, weak, unpaired, clip, identity"):
    opened('pair', 'tiles')
  with pytest.raises(errors.ConfigError, match="sampling='pair': choose one of"):
    draw(opened('paired'), 1, batch_size=1, sampling='pair')
  with pytest.raises(errors.ConfigError, match='augment=True: choose one of symmetries, flip, none'):
    draw(opened('paired'), 1, batch_size=1, augment=True)


@pytest.mark.parametrize(
  'sampling, config, needs, found, use',
  [
    ('paired', 'weak', 'FrameStrips lq and hq of one size in train', 'hq=FrameStrip(5, 30, 30', 'tiles'),
    ('paired', 'unpaired', 'FrameStrips lq and hq of one size in train', 'frames=FrameStrip(5, 24, 24', 'tiles'),
    ('weak', 'weak_odd', 'the same margin (or none) on each side in train', 'hq=FrameStrip(5, 25, 24', 'weak'),
    ('weak', 'weak_small', 'the same margin (or none) on each side in train', 'hq=FrameStrip(5, 22, 22', 'weak'),
    ('weak', 'tiles_odd', 'the same margin (or none) on each side in train', 'hq=FrameStrip(5, 26, 24', 'weak'),
    ('unpaired', 'weak', 'frames in train_source and train_target', 'lq=FrameStrip(5, 24, 24', 'unpaired'),
    ('clip', 'tiles', 'frames in train_source and train_target', 'lq=FrameStrip(5, 24, 24', 'unpaired'),
    ('identity', 'frames', 'frames in train_source and train_target', 'lq=Image(', 'unpaired'),
  ],
)
def test_records_of_another_kind(opened, sampling, config, needs, found, use):
  with pytest.raises(errors.DataError) as caught:
    opened(sampling, config)
  there = {'unpaired': 'train_source, train_target', 'frames': 'val'}.get(config, 'train')
  message = (
    f"vqm_tiny/{config}: sampling='{sampling}' needs .*{re.escape(needs)}, found .*{re.escape(found)}.* in {there}; "
    rf"use config .*'{use}' \(5 frames of 24x24\)"
  )
  assert re.match(message, str(caught.value))


def test_configs_for_weak_pairs_are_listed_smallest_first(opened):
  listed = r"use config 'tiles_t1p16' \(1 .*\) or 'tiles' .* or 'weak' .* or 'tiles_t7p40' .* or 'tiles_t7p48' [^']*\.$"
  with pytest.raises(errors.DataError, match=listed):
    opened('weak', 'unpaired')


def test_no_config_of_the_kind(copied):
  with pytest.raises(errors.DataError, match=r'no prepared config of vqm_tiny fits \(there is: none\); build one with'):
    data.open_training('vqm_tiny', 'unpaired', copied[0], sampling='weak')


@pytest.mark.parametrize('given, sampling', [('paired', 'unpaired'), ('unpaired', 'paired'), ('clip', 'weak')])
def test_sources_opened_for_another_sampling(opened, given, sampling):
  with pytest.raises(errors.ConfigError, match=f"sampling='{sampling}': expected records of train.*open_training"):
    draw(opened(given), 1, batch_size=1, sampling=sampling)


@pytest.mark.parametrize('sampling', ['unpaired', 'clip', 'identity'])
def test_domains_of_other_records(opened, sampling):
  domains = opened(sampling)._replace(target=opened('paired'))
  with pytest.raises(errors.DataError, match=f"^vqm_tiny/tiles: sampling='{sampling}' needs FrameStrips frames"):
    draw(domains, 1, batch_size=1, sampling=sampling)


@pytest.mark.parametrize(
  'sampling, use',
  [('weak', 'tiles_t7p40'), ('unpaired', 'unpaired_t7'), ('clip', 'unpaired_t7'), ('identity', 'unpaired_t7')],
)
def test_too_large_a_sample(opened, sampling, use):
  sources = opened(sampling)
  data.check_records(sources, 5, 24, sampling)
  with pytest.raises(errors.DataError, match=r'records are 5 frames of 24x24, too small for num_frames=3, crop=25; '):
    data.check_records(sources, 3, 25, sampling)
  with pytest.raises(errors.DataError, match=rf"too small for num_frames=7, crop=9; use config '{use}' \(7 frames"):
    draw(sources, 1, batch_size=1, num_frames=7, sampling=sampling)


def test_clip_needs_target_records_of_each_video(opened):
  message = (
    "^vqm_tiny/unpaired_gap split train_target: no records of 'a', 'b', which vqm_tiny/unpaired_gap split "
    "train_source has; .*use sampling='unpaired'"
  )
  with pytest.raises(errors.DataError, match=message):
    opened('clip', 'unpaired_gap')
  assert draw(opened('unpaired', 'unpaired_gap'), 1, batch_size=1, sampling='unpaired')


@pytest.mark.parametrize('domain', ['source', 'target'])
def test_clip_needs_whole_splits(opened, data_dir, domain):
  part = data.open_source('vqm_tiny', 'unpaired', f'train_{domain}[:50%]', str(data_dir))
  domains = opened('clip')._replace(**{domain: part})
  with pytest.raises(errors.DataError, match=rf'train_{domain}\[:50%\]: no table of videos for this split; .*unpaired'):
    draw(domains, 1, batch_size=1, sampling='clip')


def test_a_record_of_another_video_than_the_table_says(copied):
  data_dir, folder = copied
  metadata = json.loads((folder / 'metadata.json').read_text())
  metadata['videos']['train_target']['a']['first_record'] -= 1
  (folder / 'metadata.json').write_text(json.dumps(metadata))
  domains = data.open_training('vqm_tiny', 'unpaired', data_dir, sampling='clip')
  with pytest.raises(errors.DataError, match=r"record 19 .* cannot be read: it is of video 'c', expected 'a'"):
    draw(domains, 10, batch_size=10, sampling='clip')


@pytest.mark.parametrize('sampling', ['unpaired', 'clip', 'identity'])
def test_damaged_target_record_is_named(copied, sampling):
  data_dir, folder = copied
  for file in folder.glob('*train_target*'):
    file.write_bytes(b'')
  domains = data.open_training('vqm_tiny', 'unpaired', data_dir, sampling=sampling)
  with pytest.raises(errors.DataError, match=r'split train_target: record \d+ \(number \d+ of .*\) cannot be read'):
    draw(domains, 3, batch_size=4, sampling=sampling)


def test_damaged_table_of_videos(copied):
  data_dir, folder = copied
  (folder / 'metadata.json').write_text('{"videos"')
  with pytest.raises(errors.DataError, match='cannot read the description of the records .*--overwrite'):
    data.open_training('vqm_tiny', 'unpaired', data_dir, sampling='clip')
