import json
import pathlib
import shutil

import make_dummy_data
import numpy as np
import pytest

from vid3oc import vid3oc_dataset_builder
from vqm_jax import cli, errors, video
from vqm_jax.data import ClipReader, open_source
from vqm_jax.prepare.records import driver

DUMMY = cli.ROOT / 'datasets' / 'vid3oc' / 'dummy_data'
CONFIGS = {config.name: config for config in vid3oc_dataset_builder.Builder.BUILDER_CONFIGS}
SMALL = dict(num_frames=2, size=24, per_video=5)


def built(manual_dir, data_dir, config, **changes):
  """Builds a config as data set `mini`, windows in a small size."""
  small = SMALL if 'tiles' in config else {}
  weak = dict(margin=4, draws=2, jitter_frames=2, jitter_pixels=4) if 'weak' in config else {}
  changes = small | weak | changes
  driver.build(
    driver.variant(driver.find_builder('vid3oc'), 'mini', CONFIGS[config], changes)(data_dir=data_dir), manual_dir
  )
  return str(data_dir)


@pytest.fixture
def copy(tmp_path):
  """A copy of the dummy data to change at will."""
  return pathlib.Path(shutil.copytree(DUMMY, tmp_path / 'copy'))


def test_dummy_data_is_what_the_script_makes(tmp_path):
  make_dummy_data.make_vid3oc(tmp_path)
  names = [sorted(p.relative_to(root).as_posix() for p in root.rglob('*')) for root in (DUMMY, tmp_path)]
  assert names[0] == names[1]
  for clip in ('train/ZED/000', 'train/Canon/000', 'train/ZED/001.mp4', 'val/Canon/050', 'test/ZED/066'):
    ours, new = (np.stack(list(video.open_video(root / clip).frames())) for root in (DUMMY, tmp_path))
    # Another version of x264 may write other bytes.
    assert np.abs(ours.astype(int) - new).mean() <= (2 if clip.endswith('mp4') else 0)
  assert sum(path.stat().st_size for path in DUMMY.rglob('*') if path.is_file()) < 300e3


def test_the_published_configs():
  assert list(CONFIGS) == [
    'weak_tiles', 'weak_tiles_t1p256', 'unpaired_tiles_p512', 'unpaired_tiles_q', 'frames', 'frames_lq',
  ]  # fmt: skip
  assert (CONFIGS['weak_tiles'].num_frames, CONFIGS['weak_tiles'].size) == (5, 256)
  assert (CONFIGS['unpaired_tiles_p512'].scale, CONFIGS['unpaired_tiles_p512'].size) == (1, 512)
  assert (CONFIGS['unpaired_tiles_q'].scale, CONFIGS['unpaired_tiles_q'].size) == (4, 256)


def test_weak_windows_of_cameras_of_different_rate_and_size(tmp_path):
  source = open_source('mini', 'weak_tiles', 'train', built(DUMMY, tmp_path, 'weak_tiles'))
  entries = source.dataset_info.metadata['videos']['train']
  assert all(8 <= entry['num_records'] <= 10 for entry in entries.values())  # some are flat
  assert 'too short' in entries['001']['offset_remark'] and entries['001']['matrix'][0][0] == 2
  source_frames, target_frames = (
    np.stack(list(video.open_video(DUMMY / 'train' / camera / '001.mp4').frames())) for camera in ('ZED', 'Canon')
  )
  for record in [record for record in source if record['video'] == b'001']:
    (y, x), (hq_y, hq_x) = record['yx'], record['hq_yx']
    expected = source_frames[record['start'] :][:2, y : y + 24, x : x + 24]
    np.testing.assert_array_equal(record['lq'], expected)
    # The target has twice the frames: every second one is that of a moment of the source.
    expected = target_frames[2 * record['hq_start'] :: 2][:2, hq_y : hq_y + 32, hq_x : hq_x + 32]
    np.testing.assert_array_equal(record['hq'], expected)


def test_windows_of_each_camera(tmp_path):
  data_dir = built(DUMMY, tmp_path, 'unpaired_tiles_q', scale=2)
  for split in ('train_source', 'train_target'):
    source = open_source('mini', 'unpaired_tiles_q', split, data_dir)
    assert {record['video'] for record in source} == {b'000', b'001'} and source[0]['frames'].shape == (2, 24, 24, 3)


def test_frames_are_stored_as_they_are(tmp_path):
  for config in ('frames', 'frames_lq'):
    data_dir = built(DUMMY, tmp_path, config)
  reader = ClipReader(open_source('mini', 'frames', 'val', data_dir))
  lq, hq = next(reader.frames('050', 3, 4))
  for side, frame in (('ZED', lq), ('Canon', hq)):
    original = video.open_video(DUMMY / 'val' / side / '050')
    np.testing.assert_array_equal(frame, next(original.frames(3, 4)))
  withheld = ClipReader(open_source('mini', 'frames_lq', 'test', data_dir))
  assert list(withheld.clips) == ['066'] and next(withheld.frames('066', 0, 1))[1] is None


def test_evaluated_sides_must_have_the_same_frames(copy, tmp_path):
  (copy / 'val' / 'Canon' / '050' / '000010.png').unlink()
  with pytest.raises(errors.DataError, match='val/050: LQ 10 frames 96x64, HQ 9 frames 96x64'):
    built(copy, tmp_path / 'data', 'frames')
  built(copy, tmp_path / 'data', 'weak_tiles')  # only warned of: training does not use it


def test_the_users_offsets_win(copy, tmp_path, command):
  (copy / 'offsets.csv').write_text('clip,offset\n000,3\n')
  source = open_source('mini', 'weak_tiles', 'train', built(copy, tmp_path / 'data', 'weak_tiles'))
  assert {(r['video'], int(r['offset'])) for r in source} == {(b'000', 3), (b'001', 0)}
  (copy / 'offsets.csv').write_text('clip,offset\n000,2\n')
  args = [
    '--dataset=vid3oc',
    '--name=mini',
    '--config=weak_tiles',
    f'--manual_dir={copy}',
    f'--data_dir={tmp_path / "data"}',
  ]
  done = command('prepare.build', *args)
  assert done.returncode == 1 and 'other files of split train' in done.output
  (copy / 'offsets.csv').write_text('clip,offset\n000,2\nnobody,1\n')
  with pytest.raises(errors.DataError, match='offsets.csv: there is no training clip nobody'):
    built(copy, tmp_path / 'other', 'weak_tiles')


def test_check_shows_and_keeps_the_estimates(copy, command, monkeypatch, tmp_path):
  args = ['--dataset=vid3oc', f'--manual_dir={copy}']
  done = command('prepare.check', *args)
  assert done.returncode == 0, done.output
  lines = [line.split() for line in done.output.splitlines()]
  assert ['clip', 'offset', 'ncc', 'drift/min', 'enlarges', 'inliers', 'remarks'] in lines
  assert [line[:5] for line in lines if line[:2] == ['001', '+0']] == [['001', '+0', '0.00', '-', '2.000']]
  # What it has kept, a build takes without another estimate.
  stored = json.loads((copy / 'pairing.json').read_text())
  stored['000']['pairing']['offset'] = 4
  (copy / 'pairing.json').write_text(json.dumps(stored))
  source = open_source('mini', 'weak_tiles', 'train', built(copy, tmp_path / 'data', 'weak_tiles'))
  assert {(r['video'], int(r['offset'])) for r in source} == {(b'000', 4), (b'001', 0)}
  silent = command('prepare.check', *args, '--nopairing')
  assert 'drift/min' not in silent.output and silent.returncode == 0


def test_the_demo_has_the_same_kinds_with_known_truth(tmp_path):
  demo = driver.find_builder('vqm_demo')
  configs = {config.name: config for config in demo.BUILDER_CONFIGS}
  assert {'weak_tiles', 'unpaired_tiles_p128', 'unpaired_tiles_q', 'weak_frames'} <= set(configs)
  assert all(configs[name].size >= 128 for name in ('weak_tiles', 'unpaired_tiles_p128', 'unpaired_tiles_q'))
  for name in ('micro_weak_tiles', 'micro_unpaired_tiles', 'micro_weak_frames'):
    driver.build(demo(config=name, data_dir=tmp_path), None)
  weak = open_source('vqm_demo', 'micro_weak_tiles', 'train', str(tmp_path))
  assert len(weak) == 16
  for entry in weak.dataset_info.metadata['videos']['train'].values():
    assert abs(entry['truth']['offset']) <= 8 and np.shape(entry['truth']['matrix']) == (3, 3)
  for split in ('train_source', 'train_target'):
    assert len(open_source('vqm_demo', 'micro_unpaired_tiles', split, str(tmp_path))) == 12
  lq, hq = next(ClipReader(open_source('vqm_demo', 'micro_weak_frames', 'test', str(tmp_path))).frames('test_00', 0, 1))
  assert lq.shape == hq.shape == (64, 96, 3)
