import csv
import itertools
import pathlib
import random
import shutil

import coded_video
import numpy as np
import pytest
from PIL import Image

from intvid import intvid_dataset_builder
from paired_videos import paired_videos_dataset_builder
from vid3oc import vid3oc_dataset_builder
from vqm_jax import cli, errors
from vqm_jax.data import open_source
from vqm_jax.prepare.records import driver, segments
from vqm_jax.video import VideoFile, remux

# Groups of pictures that begin at other places on both sides, one side with open ones.
LQ, HQ = 'open-gop=1:keyint=12:min-keyint=12:bframes=3', 'keyint=17:min-keyint=17:bframes=2'
SCENES = {'a': ((0, 40), (40, 44), (44, 70)), 'b': ((0, 45),)}
LIMITS = dict(min_frames=5, max_frames=24)


def write_pair(root, name, num_frames, lq=LQ, hq=HQ, suffix='mp4', split='train', **options):
  pictures = coded_video.pictures(ord(name[0]), num_frames)
  coded_video.write(root / split / f'lq/{name}.{suffix}', pictures, lq, options={'crf': '40'}, **options)
  coded_video.write(root / split / f'hq/{name}.{suffix}', pictures, hq, options={'crf': '20'}, **options)


def built(dataset, root, data_dir, **changes):
  """Builds config segments as data set `mine` and returns the builder."""
  cls = {'intvid': intvid_dataset_builder, 'paired_videos': paired_videos_dataset_builder}[dataset].Builder
  config = next(config for config in cls.BUILDER_CONFIGS if config.name == 'segments')
  builder = driver.variant(cls, 'mine', config, changes)(data_dir=data_dir)
  driver.build(builder, root)
  return builder


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  root = tmp_path_factory.mktemp('pairs')
  write_pair(root, 'a', 70)
  write_pair(root, 'b', 45, suffix='mkv')
  with (root / 'manifest.csv').open('w', newline='') as file:
    scenes = ';'.join(f'{start}-{stop}' for start, stop in SCENES['a'])
    csv.writer(file).writerows(
      [('split', 'clip', 'fps', 'category', 'crf', 'scenes'), ('train', 'a', '30000/1001', 'city', '40', scenes)]
    )
  return root


@pytest.fixture(scope='module')
def records(pairs, tmp_path_factory):
  data_dir = tmp_path_factory.mktemp('data')
  built('paired_videos', pairs, data_dir, **LIMITS)
  return open_source('mine', 'segments', 'train', str(data_dir))


def stretch(record):
  start = int(record['start'])
  return start, start + int(record['num_frames'])


def test_each_frame_is_there_once_and_exact(pairs, records):
  seen = {'a': [], 'b': []}
  for record in records:
    name = record['video'].decode()
    start, stop = stretch(record)
    seen[name] += range(start, stop)
    for side in ('lq', 'hq'):
      (path,) = (pairs / 'train' / side).glob(f'{name}.*')
      skip = int(record[f'{side}_skip'])
      frames = remux.decode(record[side], skip, skip + stop - start)
      np.testing.assert_array_equal(frames, list(VideoFile(path).frames(start, stop)))
  assert seen == {'a': list(range(70)), 'b': list(range(45))}


def test_fields(records):
  for record in records:
    name = record['video'].decode()
    assert (record['height'], record['width']) == (48, 64)
    start, stop = stretch(record)
    first, last = SCENES[name][record['scene']]
    assert first <= start < stop <= last
    if name == 'a':
      assert (record['category'], record['crf'], record['fps']) == (b'city', 40, np.float32(30000 / 1001))
    else:
      assert (record['category'], record['fps']) == (b'', 24) and np.isnan(record['crf'])


def test_borders_are_keyframes_of_lq_and_lengths_are_known(records):
  starts = {name: [int(r['start']) for r in records if r['video'].decode() == name] for name in SCENES}
  # Of keyframes 0, 12, 24, 35, 47, 59: the last ones in reach; 35 would leave 5 frames of the first scene of `a`.
  assert starts == {'a': [0, 24, 40, 44, 59], 'b': [0, 24]}
  table = records.dataset_info.metadata['videos']['train']
  # 'a' is damaged where its QP would be looked up.
  assert 30 < table['b'].pop('qp') < 51
  assert table == {
    'a': dict(first_record=0, num_records=5, num_frames=[24, 16, 4, 15, 11], height=48, width=64, crf=40.0),
    'b': dict(first_record=5, num_records=2, num_frames=[24, 21], height=48, width=64),
  }
  assert records.dataset_info.metadata['settings'].items() >= LIMITS.items()
  # What lies between the keyframe and the stretch is stored with it.
  skips = [(int(r['lq_skip']), int(r['hq_skip'])) for r in records if r['video'] == b'b']
  assert skips[0] == (0, 0) and skips[1][0] <= 3 and skips[1][1] == 24 - 17


def test_borders():
  def borders(*args, low=2, high=10):
    return list(segments.borders(*args, min_frames=low, max_frames=high))

  assert borders(0, 10, [0, 4]) == [0, 10]
  assert borders(5, 30, [0, 8, 14, 20, 28]) == [5, 14, 20, 30]
  assert borders(0, 25, [0]) == [0, 8, 16, 25]
  assert borders(0, 30, [0, 25]) == [0, 8, 16, 25, 30]
  assert borders(0, 11, [0, 1, 10]) == [0, 5, 11]  # parts of 1 frame would be too short
  assert borders(0, 12, [0, 2, 10]) == [0, 10, 12]
  assert borders(3, 4, [0]) == [3, 4]


def test_borders_of_any_video():
  rng = random.Random(0)
  for _ in range(500):
    start = rng.randrange(50)
    stop = start + rng.randrange(1, 300)
    high = rng.randrange(2, 60)
    low = rng.randint(1, high // 2)
    keyframes = sorted(rng.sample(range(400), rng.randrange(1, 60)))
    cuts = list(segments.borders(start, stop, keyframes, min_frames=low, max_frames=high))
    assert (cuts[0], cuts[-1]) == (start, stop)
    lengths = np.diff(cuts)
    assert lengths.max() <= high and lengths.min() >= min(low, stop - start)


def test_limits_that_contradict_each_other():
  for low, high in ((0, 10), (6, 11)):
    with pytest.raises(errors.ConfigError, match=f'min_frames={low}: expected 1 to half of max_frames={high}'):
      segments.SegmentsConfig(name='segments', min_frames=low, max_frames=high)


def test_what_cannot_be_used_is_told_at_once(tmp_path):
  root = tmp_path / 'pairs'
  write_pair(root, 'fine', 20)
  write_pair(root, 'web', 20, suffix='webm', codec='libvpx-vp9')
  write_pair(root, 'short', 20)
  coded_video.write(root / 'train/lq/short.mp4', coded_video.pictures(0, 19))
  (root / 'train/hq/stills').mkdir()
  for t, picture in enumerate(coded_video.pictures(0, 20)):
    Image.fromarray(picture).save(root / f'train/hq/stills/{t:03d}.png')
  coded_video.write(root / 'train/lq/stills.mp4', coded_video.pictures(0, 20))
  with pytest.raises(errors.DataError) as caught:
    built('paired_videos', root, tmp_path / 'data')
  for problem in (
    'train/stills: segments hold the streams of video files, HQ is images; use tiles',
    'train/short: LQ 19 frames 64x48, HQ 20 frames 64x48, which must match frame by frame',
    'train/web: segments hold the streams of video files, that of LQ cannot be cut (coded as vp9, expected h264 or '
    'hevc); use tiles',
  ):
    assert problem in str(caught.value)
  assert 'fine' not in str(caught.value) and not list((tmp_path / 'data').rglob('*array_record*'))


def test_two_builds_are_equal(pairs, records, tmp_path):
  again = built('paired_videos', pairs, tmp_path, **LIMITS)
  first, second = (
    pathlib.Path(folder).glob('*.array_record*') for folder in (records.dataset_info.data_dir, again.data_dir)
  )
  assert [path.read_bytes() for path in sorted(first)] == [path.read_bytes() for path in sorted(second)]


def test_what_a_build_says_beforehand(pairs, tmp_path):
  cls = paired_videos_dataset_builder.Builder
  config = segments.SegmentsConfig(name='segments', **LIMITS)
  builder = driver.variant(cls, 'mine', config, {})(data_dir=tmp_path)
  shards = builder.plan(pairs)
  assert sum(shard.records for shard in shards) == 7
  size, _ = builder.probe(shards)
  actual = sum(path.stat().st_size for path in (pairs / 'train').rglob('*.m*'))
  assert 0.5 * actual < size < 3 * actual


def test_intvid(tmp_path):
  root = tmp_path / 'dummy'
  shutil.copytree(cli.ROOT / 'datasets/intvid/dummy_data', root)
  with pytest.raises(errors.DataError, match='6 problems') as caught:
    built('intvid', root, tmp_path / 'data')
  assert 'train/000: segments hold the streams of video files, LQ is images; use tiles' in str(caught.value)
  for folder, index in itertools.product(('TrainingSourceDomain', 'TrainingTargetDomain'), range(3)):
    shutil.rmtree(root / folder / f'{index:03d}')
  shutil.copytree(root / 'TrainingTargetDomain', root / 'TrainingSourceDomain_8M')
  builder = built('intvid', root, tmp_path / 'data', source_suffix='8M')
  (record,) = open_source('mine', 'segments', 'train', str(tmp_path / 'data'))
  assert (record['video'], record['num_frames'], record['lq_skip']) == (b'003', 10, 0)
  assert record['lq'] == record['hq']
  assert builder.info.metadata['settings']['source_suffix'] == '8M'


def test_offered_where_both_sides_are_the_same_frames():
  for module, offered in ((intvid_dataset_builder, 1), (paired_videos_dataset_builder, 1), (vid3oc_dataset_builder, 0)):
    assert [config.name for config in module.Builder.BUILDER_CONFIGS].count('segments') == offered
