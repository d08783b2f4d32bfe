"""A folder of videos in and out."""

import logging
import pathlib

import pytest
from test_enhance import make

from vqm_jax import errors, inference, restorers, video
from vqm_jax.enhancing import folder, restoring, task
from vqm_jax.enhancing.folder import Item


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  return make(tmp_path_factory.mktemp('clip') / 'clip.mp4', sound=None)


@pytest.fixture
def videos(tmp_path, clip):
  """b.mp4, sub/a10.mkv (with the content of mp4), sub/a9.mp4, sub/deep/c.mp4, notes.txt and a hidden one."""
  for name in ('b.mp4', 'sub/a10.mkv', 'sub/a9.mp4', 'sub/deep/c.mp4', '.hidden/d.mp4'):
    path = tmp_path / 'in' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(clip.read_bytes())
  (tmp_path / 'in' / 'notes.txt').write_text('x')
  return tmp_path / 'in'


@pytest.fixture
def network():
  run = inference.Run(restorers.create('none', rngs=None), {'system': 'none'}, pathlib.Path('x'), 7, 7, True, 0, None)
  return restoring.Restoring(run)


def test_what_a_folder_of_videos_is(tmp_path, videos, clip):
  assert folder.holds_videos(videos) and folder.holds_videos(videos / 'sub' / 'deep')
  assert not folder.holds_videos(clip) and not folder.holds_videos(tmp_path / 'none')
  images = tmp_path / 'images'
  images.mkdir()
  assert not folder.holds_videos(images)
  for name in ('0.png', '1.png'):
    video.write_png(images / name, next(video.open_video(clip).frames()))
  assert not folder.holds_videos(images)
  (images / 'x.mp4').write_bytes(clip.read_bytes())
  with pytest.raises(errors.VideoError, match='images: holds 2 images and 1 video.*which of the two is meant'):
    folder.holds_videos(images)


def test_plan(tmp_path, videos, caplog):
  (videos / 'b.avi').write_bytes(b'')
  (videos / 'b.mkv').write_bytes(b'')
  output = tmp_path / 'out'
  items = folder.plan(videos, output)
  found = [(str(item.source.relative_to(videos)), str(item.output.relative_to(output))) for item in items]
  assert found == [
    ('b.avi', 'b.avi.mkv'),
    ('b.mkv', 'b.mkv'),
    ('b.mp4', 'b.mp4'),
    ('sub/a9.mp4', 'sub/a9.mp4'),
    ('sub/a10.mkv', 'sub/a10.mkv'),
    ('sub/deep/c.mp4', 'sub/deep/c.mp4'),
  ]
  assert f'{videos}: 1 files that are no videos are left out' in caplog.text
  parts = [folder.plan(videos, output, (i, 4)) for i in range(4)]
  assert sorted(sum(parts, [])) == sorted(items) and {len(part) for part in parts} == {1, 2}


def test_plan_refuses(tmp_path, videos):
  (tmp_path / 'file').write_text('')
  for output, message in (
    (videos, 'is the input itself'),
    (videos / 'out', 'within the other'),
    (tmp_path, 'within the other'),
    (tmp_path / 'file', 'expected a folder'),
    (tmp_path / 'out.mp4', 'expected a folder'),
  ):
    with pytest.raises(errors.VideoError, match=message):
      folder.plan(videos, output)


def test_run(tmp_path, videos, network, capsys, caplog):
  caplog.set_level(logging.INFO)
  (videos / 'sub' / 'a9.mp4').write_bytes((videos / 'b.mp4').read_bytes()[:2000])
  output = tmp_path / 'out'
  items = folder.plan(videos, output)
  with pytest.raises(errors.VideoError, match='^1 of 4 videos failed, listed above; the same command tries again$'):
    folder.run(items, task.Options(), network)
  printed = capsys.readouterr().out
  assert '1 of 4 failed:\n' in printed and str(videos / 'sub' / 'a9.mp4') in printed.splitlines()[-1]
  made = sorted(str(path.relative_to(output)) for path in output.rglob('*') if path.is_file())
  assert made == ['b.mp4', 'sub/a10.mkv', 'sub/deep/c.mp4']
  times = [(output / name).stat().st_mtime_ns for name in made]
  (videos / 'sub' / 'a9.mp4').write_bytes((videos / 'b.mp4').read_bytes())
  folder.run(items, task.Options(), network)
  assert '3 of 4 were there already' in capsys.readouterr().out
  assert (output / 'sub' / 'a9.mp4').exists()
  assert [(output / name).stat().st_mtime_ns for name in made] == times
  folder.run(items, task.Options(overwrite=True), network)
  assert [(output / name).stat().st_mtime_ns for name in made] > times


def test_dry_run_writes_nothing_and_adds_up(tmp_path, videos, network, capsys):
  items = folder.plan(videos, tmp_path / 'out', (0, 2))
  folder.run(items, task.Options(), network, dry_run=True)
  printed = capsys.readouterr().out
  assert printed.count('would write ') == 2 and 'together: 0 h 00 min ' in printed and 'for 2 videos, ' in printed
  assert not (tmp_path / 'out').exists()


def test_a_full_disk_ends_it(tmp_path, videos, network, monkeypatch):
  seen = []

  def run(self, *args):
    seen.append(self)
    raise errors.DiskFullError('full')

  monkeypatch.setattr(task.Task, 'run', run)
  with pytest.raises(errors.DiskFullError, match='^full$'):
    folder.run(folder.plan(videos, tmp_path / 'out'), task.Options(), network)
  assert len(seen) == 1


def test_what_another_process_is_at_work_on_is_left_to_it(tmp_path, videos, network, monkeypatch, capsys):
  run = task.Task.run

  def busy(self, *args):
    if self.output.name == 'b.mp4':
      raise errors.BusyError('at work')
    return run(self, *args)

  monkeypatch.setattr(task.Task, 'run', busy)
  items = [Item(videos / name, tmp_path / 'out' / name) for name in ('b.mp4', 'sub/a9.mp4')]
  folder.run(items, task.Options(), network)
  assert '1 of 2 are left to other processes' in capsys.readouterr().out
  assert (tmp_path / 'out' / 'sub' / 'a9.mp4').exists()
