import dataclasses
import pathlib
import shutil
import zipfile
from fractions import Fraction

import make_dummy_data
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from prepare import generated_video

from intvid import intvid_dataset_builder
from vqm_jax import cli, errors, video
from vqm_jax.data import open_source
from vqm_jax.data.clips import ClipReader
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.configs import ClipPair

DUMMY = cli.ROOT / 'datasets' / 'intvid' / 'dummy_data'
CONFIGS = {config.name: config for config in intvid_dataset_builder.Builder.BUILDER_CONFIGS}
SMALL = dict(num_frames=5, size=48, per_video=6)


def built(manual_dir, data_dir, config, **changes):
  """Builds a config as data set `mini`, tiles in a small size, and returns the builder."""
  changes = (SMALL if config.startswith('tiles') else {}) | changes
  builder = driver.variant(driver.find_builder('intvid'), 'mini', CONFIGS[config], changes)(data_dir=data_dir)
  driver.build(builder, manual_dir)
  return builder


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """The records of tiles, frames and frames_lq of the dummy data."""
  folder = tmp_path_factory.mktemp('intvid')
  for config in ('tiles', 'frames', 'frames_lq'):
    built(DUMMY, folder, config)
  return folder


@pytest.fixture
def copy(tmp_path):
  """A copy of the dummy data to change at will."""
  return pathlib.Path(shutil.copytree(DUMMY, tmp_path / 'copy'))


def assert_nothing_built(data_dir):
  """Of records, whole or in part; TFDS notes which configs it has met."""
  assert [path.name for path in (data_dir / 'mini').iterdir() if list(path.glob('*/*'))] == []
  assert {path.name for path in data_dir.rglob('*') if path.is_file()} <= {'metadata.json'}


def frames(*parts):
  return np.stack(list(video.open_video(DUMMY.joinpath(*parts)).frames()))


def test_dummy_data_is_what_the_script_makes(tmp_path):
  make_dummy_data.make_intvid(tmp_path)
  names = [sorted(p.relative_to(root).as_posix() for p in root.rglob('*')) for root in (DUMMY, tmp_path)]
  assert names[0] == names[1]
  size = 0
  for name in names[0]:
    path = DUMMY / name
    size += path.stat().st_size if path.is_file() else 0
    if path.suffix == '.png':
      np.testing.assert_array_equal(Image.open(path), Image.open(tmp_path / name))
    elif path.suffix == '.mp4':  # another version of x264 may write other bytes
      ours, new = (np.stack(list(video.open_video(root / name).frames())) for root in (DUMMY, tmp_path))
      assert np.abs(ours.astype(int) - new).mean() < 2
  assert size < 600e3


def test_windows_are_cut_from_both_sides_alike(data_dir):
  source = tfds.data_source('mini/tiles', split='train', data_dir=str(data_dir))
  assert 4 * 3 <= len(source) <= 4 * SMALL['per_video']
  whole = {f'{k:03d}': frames('TrainingTargetDomain', f'{k:03d}') for k in range(3)}
  degraded = {f'{k:03d}': frames('TrainingSourceDomain', f'{k:03d}') for k in range(3)}
  seen = set()
  for record in source:
    name, start, (y, x) = record['video'].decode(), int(record['start']), record['yx']
    seen.add(name)
    assert record['lq'].shape == record['hq'].shape == (5, 48, 48, 3) and np.isnan(record['crf'])
    assert record['fps'] == (25 if name == '003' else 30)
    if name in whole:
      area = np.s_[start : start + 5, y : y + 48, x : x + 48]
      np.testing.assert_array_equal(record['hq'], whole[name][area])
      np.testing.assert_array_equal(record['lq'], degraded[name][area])
  assert seen == {'000', '001', '002', '003'}


def test_frames_with_targets_are_stored_as_they_are(data_dir):
  source = tfds.builder_from_directory(data_dir / 'mini/frames/1.0.0').as_data_source(
    split='val', decoders={side: tfds.decode.SkipDecoding() for side in ('lq', 'hq')}
  )
  assert set(source.dataset_info.splits) == {'val'} and len(source) == 10
  for t, record in enumerate(source):
    assert (record['clip'], record['frame']) == (b'060', t)
    for side, folder in (('lq', 'ValidationSource'), ('hq', 'ValidationTarget')):
      assert record[side] == (DUMMY / folder / f'060_{t:06d}.png').read_bytes()


def test_frames_whose_targets_are_withheld(data_dir):
  source = open_source('mini', 'frames_lq', 'val', str(data_dir))
  assert set(source.dataset_info.features) == {'clip', 'frame', 'lq'}
  reader = ClipReader(source)
  (clip,) = reader.clips.values()
  assert (clip.name, clip.num_frames, clip.height, clip.width) == ('061', 10, 64, 96)
  pairs = list(reader.frames('061'))
  assert all(hq is None for _, hq in pairs)
  np.testing.assert_array_equal([lq for lq, _ in pairs], frames('ValidationSource', '061_*.png'))


def test_a_pair_without_its_original():
  lq, hq = (video.open_video(DUMMY / f'Validation{side}' / '060_*.png') for side in ('Source', 'Target'))
  pair, alone = (ClipPair(clip_id='060', lq=lq, hq=side) for side in (hq, None))
  assert (pair.reference, alone.reference) == (hq, lq)
  for (degraded, original), (same, nothing) in zip(pair.frames(3, 6), alone.frames(3, 6), strict=True):
    np.testing.assert_array_equal(degraded, same)
    assert original is not None and nothing is None


def test_the_name_finds_the_records_and_the_folder_in_manual_dir(data_dir, tmp_path):
  shutil.copytree(DUMMY, tmp_path / 'IntVid')
  driver.build(intvid_dataset_builder.Builder(config='frames', data_dir=tmp_path / 'data'), tmp_path)
  same = (
    tfds.data_source('intvid/frames', split='val', data_dir=str(tmp_path / 'data')),
    open_source('mini', 'frames', 'val', str(data_dir)),
  )
  for ours, other in zip(*same, strict=True):
    np.testing.assert_array_equal(ours['hq'], other['hq'])


def test_held_out_videos_have_targets(copy, tmp_path):
  built(copy, tmp_path, 'frames', holdout=1)
  (held,) = ClipReader(open_source('mini', 'frames', 'holdout', str(tmp_path))).clips
  built(copy, tmp_path, 'tiles', holdout=1)
  trained = {r['video'].decode() for r in open_source('mini', 'tiles', 'train', str(tmp_path))}
  assert trained | {held} == {'000', '001', '002', '003'} and held not in trained
  # What is withheld is never a training video.
  built(copy, tmp_path, 'frames_lq', holdout=1)
  assert set(open_source('mini', 'frames_lq', 'val', str(tmp_path)).dataset_info.splits) == {'val'}


def test_the_manifest_and_zips(copy, tmp_path):
  (copy / 'manifest.csv').write_text(
    'split,clip_id,fps,category\ntrain,001,24000/1001,city\nval,060,25,talk\nval,061,24,\n'
  )
  with zipfile.ZipFile(copy / 'ValidationSource.zip', 'w') as archive:
    for path in (copy / 'ValidationSource').iterdir():
      archive.write(path, f'ValidationSource/{path.name}')
  shutil.rmtree(copy / 'ValidationSource')
  for config in ('tiles', 'frames', 'frames_lq'):
    built(copy, tmp_path, config)
  records = list(open_source('mini', 'tiles', 'train', str(tmp_path)))
  assert {r['video'] for r in records} == {b'001'} and {r['category'] for r in records} == {b'city'}
  assert records[0]['fps'] == np.float32(24000 / 1001)
  reader = ClipReader(open_source('mini', 'frames', 'val', str(tmp_path)))
  assert (reader.clips['060'].fps, reader.clips['060'].category) == (25, 'talk')
  np.testing.assert_array_equal([lq for lq, _ in reader.frames('060')], frames('ValidationSource', '060_*.png'))
  assert ClipReader(open_source('mini', 'frames_lq', 'val', str(tmp_path))).clips['061'].fps == 24


def test_one_of_several_bitrates(copy, tmp_path):
  shutil.copytree(copy / 'TrainingTargetDomain', copy / 'TrainingSourceDomain_8M')
  with pytest.raises(errors.DataError, match='several bitrates'):
    built(copy, tmp_path, 'tiles')
  builder = built(copy, tmp_path, 'tiles', source_suffix='8M')
  for record in open_source('mini', 'tiles', 'train', str(tmp_path)):
    np.testing.assert_array_equal(record['lq'], record['hq'])
  assert builder.info.metadata['settings']['source_suffix'] == '8M'


@pytest.mark.parametrize('config', ['tiles', 'frames', 'frames_lq'])
def test_bad_input_is_told_at_once_and_leaves_nothing(copy, tmp_path, config):
  (copy / 'TrainingSourceDomain/000/000004.png').unlink()
  (copy / 'TrainingTargetDomain/003.mp4').write_bytes(b'rubbish')
  (copy / 'ValidationTarget/060_000009.png').unlink()
  with pytest.raises(errors.DataError, match='3 problems: ') as caught:
    built(copy, tmp_path / 'data', config)
  for part in ('000003.png: followed by 000005.png', '003.mp4: not a readable video', 'val/060: the source has 10'):
    assert part in str(caught.value)
  assert_nothing_built(tmp_path / 'data')


def test_damage_that_shows_only_while_building_leaves_nothing(copy, tmp_path):
  path = copy / 'ValidationTarget/060_000004.png'
  path.write_bytes(path.read_bytes()[:300])
  with pytest.raises(errors.VideoError, match='060_000004.png: not a readable image'):
    built(copy, tmp_path / 'data', 'frames')
  assert_nothing_built(tmp_path / 'data')


def test_nothing_of_the_kind_that_a_config_holds(copy, tmp_path):
  for path in (copy / 'ValidationSource').glob('061*'):
    path.unlink()
  with pytest.raises(errors.DataError, match='mini/frames_lq: no clips without targets of val or test'):
    built(copy, tmp_path, 'frames_lq')
  shutil.rmtree(copy / 'ValidationTarget')
  with pytest.raises(errors.DataError, match='mini/frames: no clips with targets of val or test'):
    built(copy, tmp_path, 'frames')


def test_fingerprint_follows_the_input(copy, tmp_path):
  def digests():
    builder = intvid_dataset_builder.Builder(config='tiles', data_dir=tmp_path)
    return [builder.fingerprint(split, copy) for split in ('train', 'val')]

  before = digests()
  assert before == digests()
  generated_video.write(copy / 'TestSource/076.mp4', generated_video.scene(0, 4), fps=Fraction(25))
  assert digests() == before
  (copy / 'ValidationSource/061_000000.png').write_bytes(
    (copy / 'ValidationSource/060_000000.png').read_bytes() + b'more'
  )
  assert digests()[0] == before[0] and digests()[1] != before[1]


def test_configs_and_card():
  shapes = {name: (c.num_frames, c.size) for name, c in CONFIGS.items() if name.startswith('tiles')}
  assert shapes.pop('tiles') == (7, 256)
  for name, (num_frames, size) in shapes.items():
    assert name == f'tiles_t{num_frames}p{size}'
  metadata = driver.find_builder('intvid').get_metadata()
  for name in CONFIGS:
    assert f'`{name}`' in metadata.description
  assert metadata.citation.startswith('@') and metadata.tags
  assert dataclasses.asdict(CONFIGS['frames_lq'])['targets'] is False
