import csv
import json
import math
import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from prepare import generated_video

from vqm_jax import errors, locks, metrics
from vqm_jax.prepare.pairs import align, footage, making, transcode
from vqm_jax.video import VideoFile, codec, encode, open_video

PLAIN = dict(rate='crf=33', clip_frames=12, preset='veryfast')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Three videos of 2, 2 and 3 scenes of 20 frames, at different rates, one upright."""
  folder = tmp_path_factory.mktemp('videos')
  generated_video.write(folder / 'a.mp4', generated_video.frames(1, 2), fps='30000/1001', crf=8.0)
  generated_video.write(folder / 'b.mkv', generated_video.frames(3, 4), fps=24, crf=8.0)
  upright = generated_video.frames(5, 6, 7, height=96, width=64)
  generated_video.write(folder / 'sub folder' / 'c.mp4', upright, fps=25, crf=8.0)
  return folder


@pytest.fixture(scope='module')
def made(videos, tmp_path_factory):
  """(output, rows) of one plain run."""
  output = tmp_path_factory.mktemp('made')
  return output, making.run(videos, output, making.Settings(**PLAIN))


def test_manifest_tells_everything(made, videos):
  output, rows = made
  assert [row['split'] for row in rows] == ['train', 'val', 'test']
  assert {row['source'] for row in rows} == {'a.mp4', 'b.mkv', 'sub folder/c.mp4'}
  known = {'a': ('30000/1001', '0-20;20-40'), 'b': ('24', '0-20;20-40'), 'sub_folder_c': ('25', '0-20;20-40;40-60')}
  for row in rows:
    fps, scenes = known[row['clip']]
    assert row['fps'] == fps
    assert row['crf'] == '33.0'
    whole = row['split'] == 'train'
    assert row['scenes'] == (scenes if whole else '0-12')
    assert row['start'] == ('0' if whole else '4')
    lq, hq = (open_video(output / row[side]) for side in ('lq', 'hq'))
    for side in (lq, hq):
      assert str(side.fps) == fps
      assert [side.num_frames, side.height, side.width] == [int(row[k]) for k in ('frames', 'height', 'width')]
    scores = metrics.psnr(np.stack(list(lq.frames())), np.stack(list(hq.frames())))
    assert float(row['psnr']) == pytest.approx(metrics.mean_psnr(scores)[0], abs=1e-3)
    assert 20 < float(row['psnr']) < 45
    assert float(row['hq_kbps']) > float(row['lq_kbps']) > 0
  journal = json.loads((output / 'degrade.json').read_text())
  assert journal['settings']['rate'] == 'crf=33' and 'av' in journal['versions']
  assert str(videos) not in (output / 'degrade.json').read_text()
  assert 'val' in making.summary(output)
  assert sorted(p.name for p in output.iterdir()) == ['degrade.json', 'manifest.csv', 'test', 'train', 'val']


def test_original_stays_exact(made, videos):
  output, rows = made
  for row in rows:
    if row['split'] == 'train':
      assert (output / row['hq']).read_bytes() == (videos / row['source']).read_bytes()
    stop = int(row['start']) + int(row['frames'])
    source = VideoFile(videos / row['source']).frames(int(row['start']), stop)
    for a, b in zip(source, VideoFile(output / row['hq']).frames(), strict=True):
      np.testing.assert_array_equal(a, b)


def test_window_is_cut_from_the_coded_scene(made, videos, tmp_path):
  output, rows = made
  row = next(row for row in rows if row['split'] == 'test')
  video = VideoFile(videos / row['source'])
  scene = video.yuv_frames(0, 20)
  encode(scene, tmp_path / 'scene.mp4', fps=video.fps, colour=video.colour, crf=33.0, preset='veryfast')
  expected = VideoFile(tmp_path / 'scene.mp4').yuv_frames(4, 16)
  for a, b in zip(expected, VideoFile(output / row['lq']).yuv_frames(), strict=True):
    np.testing.assert_array_equal(a.to_ndarray(), b.to_ndarray())


def test_target_psnr_is_met_on_val(videos, tmp_path):
  settings = making.Settings(target_psnr=31.0, clip_frames=12, preset='veryfast')
  rows = making.run(videos, tmp_path / 'out', settings)
  assert float(next(row['psnr'] for row in rows if row['split'] == 'val')) == pytest.approx(31.0, abs=0.05)
  assert len({row['crf'] for row in rows}) == 1
  calibration = json.loads((tmp_path / 'out' / 'degrade.json').read_text())['calibration']
  assert dict(calibration['probes'])[calibration['crf']] == pytest.approx(31.0, abs=0.02)


def test_bitrate(videos, tmp_path):
  settings = making.Settings(**PLAIN | {'rate': 'bitrate=60k', 'counts': dict(val=0, test=0, holdout=1)})
  rows = making.run(videos, tmp_path / 'out', settings)
  assert [row['split'] for row in rows] == ['train', 'train', 'holdout']
  for row in rows:
    assert math.isnan(float(row['crf']))
    assert 20 < float(row['lq_kbps']) < 150
    assert row['scenes'].count(';') >= 1


def test_drawn_rate_belongs_to_the_video(videos, tmp_path):
  settings = making.Settings(**PLAIN | {'rate': 'crf=28:38'})
  crfs = {row['clip']: float(row['crf']) for row in making.run(videos, tmp_path / 'out', settings)}
  assert len(set(crfs.values())) == 3 and all(28 <= crf <= 38 for crf in crfs.values())
  (tmp_path / 'one').mkdir()
  shutil.copy(videos / 'b.mkv', tmp_path / 'one')
  (row,) = making.run(tmp_path / 'one', tmp_path / 'out_one', settings)
  assert (row['split'], float(row['crf'])) == ('train', crfs['b'])


def test_resumes_without_trusting_half_written_files(videos, tmp_path, monkeypatch):
  output, settings, made = tmp_path / 'out', making.Settings(**PLAIN), []
  make = transcode.make

  def killed_at_second(job, output):
    if len(made) == 1:
      # What a kill leaves: a file without its line in the manifest, and work in progress.
      (output / job.split / 'lq').mkdir(parents=True, exist_ok=True)
      (output / job.split / 'lq' / f'{job.name}.mp4').write_bytes(b'half')
      (output / '.work' / job.name).mkdir(parents=True)
      (output / '.work' / job.name / 'coded.mp4').write_bytes(b'half')
      raise KeyboardInterrupt
    made.append(job.name)
    return make(job, output)

  monkeypatch.setattr(transcode, 'make', killed_at_second)
  with pytest.raises(KeyboardInterrupt):
    making.run(videos, output, settings)
  assert [row['clip'] for row in making.read_manifest(output)] == made

  monkeypatch.setattr(transcode, 'make', lambda job, output: made.append(job.name) or make(job, output))
  monkeypatch.setattr(footage.scenes_lib, 'detect', lambda video: pytest.fail('examined again'))
  rows = making.run(videos, output, settings)
  assert sorted(made) == ['a', 'b', 'sub_folder_c']
  for row in rows:
    assert open_video(output / row['lq']).num_frames == int(row['frames'])
  assert not (output / '.work').exists()

  os.remove(output / rows[0]['hq'])
  assert making.run(videos, output, settings) == rows
  assert made[3:] == [rows[0]['clip']]


def test_other_settings_or_videos_need_another_folder(made, videos, tmp_path):
  output = tmp_path / 'out'
  shutil.copytree(made[0], output)
  other = making.Settings(**PLAIN | {'rate': 'crf=34'})
  with pytest.raises(errors.ConfigError, match="rate was 'crf=33', now 'crf=34'.*--overwrite"):
    making.run(videos, output, other)
  more = tmp_path / 'more'
  shutil.copytree(videos, more)
  generated_video.write(more / 'd.mp4', generated_video.frames(8, 9))
  with pytest.raises(errors.ConfigError, match='other videos .*d'):
    making.run(more, output, making.Settings(**PLAIN))
  assert making.read_manifest(output) == made[1]
  assert {row['crf'] for row in making.run(videos, output, other, overwrite=True)} == {'34.0'}
  assert {row['crf'] for row in making.read_manifest(output)} == {'34.0'}


def test_unusable_files_are_skipped_and_listed(videos, tmp_path, caplog):
  folder = tmp_path / 'in'
  shutil.copytree(videos, folder)
  whole = (videos / 'a.mp4').read_bytes()
  (folder / 'truncated.mp4').write_bytes(whole[: len(whole) // 2])
  (folder / 'text.mp4').write_text('no video')
  (folder / 'old.wmv').write_bytes(b'old')
  (folder / 'notes.txt').write_text('no video, not listed')
  (folder / 'z_copy.mp4').write_bytes(whole)
  generated_video.write(folder / 'short.mp4', generated_video.scene(9, 5))
  rows = making.run(folder, tmp_path / 'out', making.Settings(**PLAIN))
  assert len(rows) == 3
  refused = json.loads((tmp_path / 'out' / 'degrade.json').read_text())['refused']
  assert sorted(refused) == ['old.wmv', 'short.mp4', 'text.mp4', 'truncated.mp4', 'z_copy.mp4']
  assert refused['z_copy.mp4'] == 'the same file as a.mp4'
  assert refused['short.mp4'] == '5 frames, expected at least 7'
  assert str(folder) not in json.dumps(refused)


def test_nothing_left(tmp_path):
  (tmp_path / 'in').mkdir()
  with pytest.raises(errors.DataError, match='no video in this folder'):
    making.run(tmp_path / 'in', tmp_path / 'out', making.Settings(**PLAIN))
  with pytest.raises(errors.DataError, match='no such folder'):
    making.run(tmp_path / 'missing', tmp_path / 'out', making.Settings(**PLAIN))
  (tmp_path / 'in' / 'text.mp4').write_text('no video')
  with pytest.raises(errors.DataError, match='none of the 1 videos can be used, for example text.mp4'):
    making.run(tmp_path / 'in', tmp_path / 'out', making.Settings(**PLAIN))


def test_bad_output_folders(videos, tmp_path):
  for output in (videos / 'out', videos, videos.parent):
    with pytest.raises(errors.ConfigError, match='must not lie in --input or hold it'):
      making.run(videos, output, making.Settings(**PLAIN))
  (tmp_path / 'letter.txt').write_text('mine')
  with pytest.raises(errors.ConfigError, match='holds other files'):
    making.run(videos, tmp_path, making.Settings(**PLAIN), overwrite=True)
  assert (tmp_path / 'letter.txt').read_text() == 'mine'


def test_pair_out_of_step_fails_alone(videos, tmp_path, monkeypatch):
  code = transcode._code

  def late(job, video, extent, work):
    coded = code(job, video, extent, work)
    if job.name != 'b':
      return coded
    frames = list(coded.yuv_frames())
    return VideoFile(transcode._store(frames[1:] + frames[-1:], video, *extent, work / 'late.mp4'))

  monkeypatch.setattr(transcode, '_code', late)
  with pytest.raises(errors.DataError, match='1 of 3 videos failed, the others are finished: b.mkv: frames are out'):
    making.run(videos, tmp_path / 'out', making.Settings(**PLAIN))
  assert [row['clip'] for row in making.read_manifest(tmp_path / 'out')] == ['a', 'sub_folder_c']


def test_odd_sizes_are_cropped(tmp_path):
  images = generated_video.scene(3, 20, 65, 97)
  generated_video.write(tmp_path / 'in' / 'odd.mp4', images)
  (row,) = making.run(tmp_path / 'in', tmp_path / 'out', making.Settings(**PLAIN))
  assert (row['height'], row['width']) == ('64', '96')
  lq, hq = (VideoFile(tmp_path / 'out' / row[side]) for side in ('lq', 'hq'))
  assert hq.pixel_format == lq.pixel_format == 'yuv420p'
  for image, frame in zip(images, hq.frames(), strict=True):
    # 4:4:4 became 4:2:0, the luma stayed.
    assert metrics.psnr(frame, image[:64, :96]) > 30
  found = align.check('odd', map(transcode._luma, hq.yuv_frames()), map(transcode._luma, lq.yuv_frames()))
  assert max(map(abs, found.shift)) < 0.3


def test_any_file_of_any_rate(tmp_path):
  """Told by content; frames are compared one by one, so that they need not be evenly spaced."""
  folder, images = tmp_path / '12:30', generated_video.frames(1, 2)
  folder.mkdir()
  times = [40 * k + (k % 3) * 15 for k in range(len(images))]
  encoder = codec.Encoder(
    folder / 'phone.mkv',
    fps=25,
    height=images[0].shape[0],
    width=images[0].shape[1],
    colour=generated_video.COLOUR,
    crf=8.0,
    timestamps=times,
    time_base=Fraction(1, 1000),
  )
  for image in images:
    encoder.write(av.VideoFrame.from_ndarray(image, format='rgb24'))
  encoder.finish()
  (folder / 'phone.mkv').rename(folder / 'a%03d: phone')
  (folder / 'notes.txt').write_text('12:30')
  (row,) = making.run(folder, tmp_path / 'out', making.Settings(**PLAIN))
  lq, hq = (VideoFile(tmp_path / 'out' / row[side], variable_rate=True) for side in ('lq', 'hq'))
  assert lq.num_frames == hq.num_frames == len(images) and not hq.constant_rate
  for side in (lq, hq):
    np.testing.assert_allclose([float(1000 * time * side.time_base) for time in side.timestamps], times, atol=0.01)
  assert 20 < float(row['psnr']) < 45


@pytest.mark.slow
def test_command_line_with_workers(videos, tmp_path, binary):
  split = tmp_path / 'split.csv'
  split.write_text('video,split\nb.mkv,test\nc.mp4,test\n')
  process = binary(
    'prepare.degrade',
    f'--input={videos}',
    f'--output={tmp_path / "out"}',
    '--rate=crf=35',
    '--clip_frames=10',
    '--categories=folders',
    f'--split_csv={split}',
    '--workers=2',
  )
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0, output
  with (tmp_path / 'out' / 'manifest.csv').open() as file:
    rows = {row['clip']: row for row in csv.DictReader(file)}
  assert {name: row['split'] for name, row in rows.items()} == dict(a='train', b='test', sub_folder_c='test')
  assert rows['sub_folder_c']['category'] == 'sub folder' and rows['a']['category'] == ''
  assert 'vqm_jax.prepare.build --dataset=paired_videos --config=tiles_t7p128,frames' in output


def test_command_line_errors(videos, tmp_path, command):
  done = command('prepare.degrade', f'--input={videos}', f'--output={tmp_path / "out"}')
  assert done.returncode == 2 and done.stderr.startswith('error: set one of --rate')
  done = command('prepare.degrade', f'--input={tmp_path / "none"}', f'--output={tmp_path / "out"}', '--rate=crf=33')
  assert done.returncode == 1 and 'no such folder' in done.stderr and done.stderr.count('\n') == 1


def test_one_process_to_an_output(videos, tmp_path):
  output = tmp_path / 'pairs'
  settings = making.Settings(**PLAIN)
  with locks.folder(output), pytest.raises(errors.BusyError, match=f'pairs: process {os.getpid()} on .* is at work'):
    making.run(videos, output, settings)
  assert list(tmp_path.rglob('*')) == [output]
  (output / locks.NAME).touch()  # of a process that was killed
  making._check_ours(output)
  (output / 'holiday.mp4').touch()
  with pytest.raises(errors.ConfigError, match='holds other files'):
    making.run(videos, output, settings)
  (tmp_path / 'file').touch()
  with pytest.raises(errors.ConfigError, match='file: is a file; give the name of a folder'):
    making.run(videos, tmp_path / 'file', settings)
