"""Pairs that nobody has looked at are looked at by the build, which remembers it beside them."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from prepare import generated_video

from paired_videos import paired_videos_dataset_builder
from vqm_jax import errors, video
from vqm_jax.data import open_source
from vqm_jax.data.clips import ClipReader
from vqm_jax.prepare.pairs import align, checked, making
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.configs import TilesConfig


def write(root, split, name, hq, lq, kind='video'):
  for side, frames, crf in (('hq', hq, 12.0), ('lq', lq, 34.0)):
    if kind == 'video':
      generated_video.write(root / split / side / f'{name}.mp4', frames, crf=crf)
    else:
      (root / split / side / name).mkdir(parents=True)
      for t, frame in enumerate(frames):
        video.write_png(root / split / side / name / f'{t:04d}.png', frame)


def shifted(frames, by):
  """Late by so many frames, or early: the first or the last one is repeated."""
  return [frames[min(max(t - by, 0), len(frames) - 1)] for t in range(len(frames))]


def built(root, data_dir, config='frames', **changes):
  chosen = {c.name: c for c in paired_videos_dataset_builder.Builder.BUILDER_CONFIGS}
  chosen['tiles'] = TilesConfig(name='tiles', num_frames=5, size=32, per_video=40)
  cls = driver.variant(paired_videos_dataset_builder.Builder, 'mine', chosen[config], changes)
  driver.build(cls(data_dir=data_dir), root)
  return str(data_dir)


@pytest.fixture(scope='module')
def clip():
  return generated_video.scene(7, 24)


@pytest.mark.parametrize('kind', ['video', 'images'])
@pytest.mark.parametrize(
  ('by', 'said'), [(1, '1 frame late .offset -1'), (-2, '2 frames early .offset .2'), (7, '7 frames late .offset -7')]
)
def test_sides_out_of_step_are_refused_by_clip_and_offset(tmp_path, clip, kind, by, said):
  root = tmp_path / 'pairs'
  write(root, 'val', 'good', clip, clip, kind)
  write(root, 'test', 'bad', clip, shifted(clip, by), kind)
  with pytest.raises(errors.DataError, match=f'1 pair does not fit: test/bad: .*LQ is {said}') as caught:
    built(root, tmp_path / 'data')
  assert 'good' not in str(caught.value) and not list((tmp_path / 'data').rglob('*frames*record*'))
  built(root, tmp_path / 'data', check_pairs=False)
  assert open_source('mine', 'frames', 'test', str(tmp_path / 'data'))


def test_every_misfit_is_told_at_once(tmp_path, clip):
  root = tmp_path / 'pairs'
  lost = clip[:12] + clip[13:] + clip[-1:]
  write(root, 'val', 'lost', clip, lost)
  write(root, 'val', 'other', clip, generated_video.scene(8, 24))
  write(root, 'test', 'moved', clip, [np.roll(frame, 1, 0) for frame in clip])
  with pytest.raises(errors.DataError, match='3 pairs do not fit') as caught:
    built(root, tmp_path / 'data')
  for text in (
    'val/lost: frames are out of step, LQ is 1 frame early from frame 1',
    'val/other: LQ shows something else than HQ',
    'test/moved: LQ is shifted by +1',
  ):
    assert text in str(caught.value)


def test_a_pair_is_looked_at_once_until_a_file_changes(tmp_path, clip, monkeypatch):
  root, looked = tmp_path / 'pairs', []
  look = checked.look
  monkeypatch.setattr(checked, 'look', lambda pair: looked.append(pair.clip_id) or look(pair))
  for name in ('a', 'b'):
    write(root, 'train', name, clip, clip)
  built(root, tmp_path / 'one', 'tiles')
  built(root, tmp_path / 'two', 'tiles')
  assert looked == ['a', 'b'] and set(json.loads((root / checked.FILE).read_text())) == {
    'train/lq/a.mp4',
    'train/lq/b.mp4',
  }
  shutil.copytree(root, tmp_path / 'copy')  # with other times
  built(tmp_path / 'copy', tmp_path / 'three', 'tiles')
  assert len(looked) == 2
  generated_video.write(root / 'train/lq/b.mp4', shifted(clip, 1), crf=34.0)
  with pytest.raises(errors.DataError, match='train/b'):
    built(root, tmp_path / 'four', 'tiles')
  assert looked == ['a', 'b', 'b']
  (root / checked.FILE).write_text('{"a": 1}')
  with pytest.raises(errors.DataError, match='train/b'):
    built(root, tmp_path / 'four', 'tiles')
  assert looked[3:] == ['a', 'b']


def test_tiles_and_clips_know_the_cuts_of_pairs_without_a_manifest(tmp_path):
  root = tmp_path / 'pairs'
  scenes = [(8, 0), (6, 120), (10, 40)]
  frames = [frame // 2 + light for n, light in scenes for frame in generated_video.scene(n, n)]
  for split in ('train', 'val'):
    write(root, split, 'x', frames, frames)
  data_dir = built(root, tmp_path / 'data', 'tiles')
  starts = {int(record['start']) for record in open_source('mine', 'tiles', 'train', data_dir)}
  assert starts <= {*range(4), 8, 9, *range(14, 20)} and len(starts) > 9
  (clip,) = ClipReader(open_source('mine', 'frames', 'val', built(root, tmp_path / 'data'))).clips.values()
  assert clip.cuts == (8, 14)


def test_scenes_of_the_manifest_have_the_last_word(tmp_path, clip):
  root = tmp_path / 'pairs'
  write(root, 'val', 'x', clip, clip)
  (root / 'manifest.csv').write_text('split,clip,scenes\nval,x,0-6;6-24\n')
  (found,) = ClipReader(open_source('mine', 'frames', 'val', built(root, tmp_path / 'data'))).clips.values()
  assert found.cuts == (6,)


def test_what_cannot_be_kept_is_warned_of(tmp_path, clip, monkeypatch, caplog):
  root = tmp_path / 'pairs'
  write(root, 'val', 'x', clip, clip)

  def refuse(path, value):
    raise OSError(30, 'Read-only file system')

  monkeypatch.setattr(checked.files, 'write_json', refuse)
  memory = checked.Memory(root)
  pair = next(paired_videos_dataset_builder.Builder(data_dir=tmp_path / 'data', config='frames').clips('val', root))
  with caplog.at_level('WARNING'):
    memory.put(pair, checked.look(pair))
  assert 'Read-only file system' in caplog.text and memory.get(pair).cuts == ()


def test_far_offsets_and_other_clips_are_told_apart():
  luma = [frame.mean(-1).astype(np.uint8) for frame in generated_video.scene(1, 60)]
  for by in (-20, -4, 4, 20):
    found = align.measure(luma, shifted(luma, by))
    assert found.offset == -by and f'(offset {-by:+d}: LQ frame t shows' in found.problem
  other = [frame.mean(-1).astype(np.uint8) for frame in generated_video.scene(2, 60)]
  assert align.measure(luma, other).problem == 'LQ shows something else than HQ'
  assert not align.measure(luma, [np.uint8(0.5 * frame + 30) for frame in luma]).problem


def check(folder):
  return subprocess.run(
    [sys.executable, '-m', 'vqm_jax.prepare.check', '--dataset=paired_videos', f'--manual_dir={folder}'],
    capture_output=True, text=True, env=os.environ, timeout=120,
  )  # fmt: skip


@pytest.mark.slow
def test_check_reports_pairs(tmp_path, clip):
  root = tmp_path / 'pairs'
  write(root, 'val', 'good', clip, clip)
  write(root, 'test', 'late', clip, shifted(clip, 1))
  write(root, 'test', 'short', clip, clip[1:])
  (root / 'train/hq').mkdir(parents=True)
  (root / 'train/lq').mkdir()
  for side in ('lq', 'hq'):
    (root / 'train' / side / 'broken.mp4').write_bytes(b'rubbish')
  result = check(root)
  assert result.returncode == 1 and 'Traceback' not in result.stderr
  rows = [line.split() for line in result.stdout.splitlines()]
  assert ['val', 'good', '24', '96x64', '25', '1', '0'] in [row[:7] for row in rows]
  assert ['test', 'late', '24', '96x64', '25', '1', '-1'] in [row[:7] for row in rows]
  problems = result.stdout.split('Problems:\n')[1]
  assert 'test/late: frames are out of step, LQ is 1 frame late (offset -1' in problems
  assert 'test/short: LQ 23 frames' in problems and 'train/broken: ' in problems
  assert f'error: {root}: 3 problems, listed above, must be mended before a build.' in result.stderr
  for name in ('test/lq/late.mp4', 'test/hq/late.mp4', 'test/lq/short.mp4', 'test/hq/short.mp4'):
    (root / name).unlink()
  shutil.rmtree(root / 'train')
  result = check(root)
  assert result.returncode == 0 and 'No problems. Next: python -m vqm_jax.prepare.build' in result.stdout


def test_pairs_that_degrade_made_are_known(tmp_path, monkeypatch):
  videos, root = tmp_path / 'videos', tmp_path / 'pairs'
  generated_video.write(videos / 'a.mp4', generated_video.frames(5, 6), crf=8.0)
  making.run(videos, root, making.Settings(rate='crf=33', clip_frames=12, counts=dict(val=0, test=0)))
  monkeypatch.setattr(checked, 'look', lambda pair: pytest.fail(f'{pair.clip_id} was looked at again'))
  assert open_source('mine', 'tiles', 'train', built(root, tmp_path / 'data', 'tiles'))
  assert not (root / checked.FILE).exists()
