import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from vqm_jax import errors, locks
from vqm_jax.data import open_source
from vqm_jax.prepare.records import driver

# Reads records as a training process would: without builder code, codecs, OpenCV or TensorFlow.
READ = """
import sys
class Blocked:
  def find_spec(self, name, *_):
    if name in ('av', 'cv2', 'vqm_demo', 'paired_videos', 'skimage'):
      raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Blocked())
import tensorflow_datasets as tfds
from vqm_jax.data.clips import ClipReader
data_dir, *names = sys.argv[1:]
for name in names:
  tiles = tfds.data_source(f'{name}/micro_tiles', split='train', data_dir=data_dir)
  frames = tfds.data_source(f'{name}/micro_frames', split='val', data_dir=data_dir)
  reader = ClipReader(frames)
  lq, hq = next(reader.frames('val_00'))
  info = tiles.dataset_info
  assert 'tensorflow' not in sys.modules
  print(len(tiles), len(frames), tiles[3]['lq'].shape, hq.shape, info.name, info.version, len(info.description) > 100)
"""


# Many command lines in one process, each from untouched flags. Imported here, the binary's flags would meet others'.
RUNS = """
import contextlib, io, json, sys
from absl import flags
from vqm_jax import cli
from vqm_jax.prepare import build
results = []
for args in json.loads(sys.argv[1]):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  sys.argv = ['build', *args]
  out, err = io.StringIO(), io.StringIO()
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      cli.run(build.main)
  except SystemExit as end:
    results.append((end.code or 0, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


@pytest.fixture(scope='module')
def runs(command, tmp_path_factory):
  """runs(args, ...) -> [(exit code, stdout, stderr)] of `python -m vqm_jax.prepare.build` with each of these lists."""
  script = tmp_path_factory.mktemp('build') / 'runs.py'
  script.write_text(RUNS)

  def run(*command_lines, **env):
    done = command(script, json.dumps(command_lines), **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

  return run


@pytest.fixture(scope='module')
def two_names(runs, tmp_path_factory):
  """A data dir with the micro configs under their own name and under another, and the output of the builds."""
  data_dir = tmp_path_factory.mktemp('names')
  common = ['--dataset=vqm_demo', f'--data_dir={data_dir}', '--config=micro_tiles,micro_frames']
  results = runs(common, [*common, '--name=other', '--seed=1'])
  assert [code for code, _, _ in results] == [0, 0], results
  return data_dir, [output for _, output, _ in results]


def test_summary(two_names):
  data_dir, (first, second) = two_names
  assert 'vqm_demo/micro_tiles built: 8 train; 0.' in first and f'MB in {data_dir}/vqm_demo/micro_tiles/1.0.0' in first
  assert 'vqm_demo/micro_frames built: 8 val, 8 test, 8 holdout' in first
  assert 'python -m vqm_jax.train --config=experiments/web_small.py:tiny --config.init_from=web-small' in first
  assert '--config.dataset_config=micro_tiles' in first
  assert '--config.dataset=other' in second and 'Downloading' not in first


def test_names_live_side_by_side(two_names):
  data_dir, _ = two_names
  assert sorted(p.name for p in data_dir.iterdir()) == ['other', 'vqm_demo']
  ours, other = (open_source(name, 'micro_tiles', 'train', str(data_dir)) for name in ('vqm_demo', 'other'))
  places = [[tuple(r['yx']) for r in source] for source in (ours, other)]
  assert places[0] != places[1]  # the second was built with another seed


def test_records_need_no_builder_code(two_names):
  names = ('vqm_demo', 'other')
  result = subprocess.run(
    [sys.executable, '-c', READ, str(two_names[0]), *names], capture_output=True, text=True, timeout=60
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.splitlines() == [f'8 8 (7, 48, 48, 3) (64, 96, 3) {name} 1.0.0 True' for name in names]


def test_built_already(runs, two_names):
  data_dir, _ = two_names
  files = {p: p.stat().st_mtime_ns for p in data_dir.rglob('*') if p.is_file()}
  common = ['--dataset=vqm_demo', f'--data_dir={data_dir}']
  again, other = runs(
    [*common, '--config=micro_tiles,micro_frames'], [*common, '--config=micro_tiles', '--per_video=3']
  )
  assert again[0] == 0 and again[1].count('was built already') == 2
  assert files == {p: p.stat().st_mtime_ns for p in data_dir.rglob('*') if p.is_file()}
  assert other[0] == 1 and 'was built with per_video=4, now per_video=3; give --overwrite' in other[2]


def test_a_damaged_description_is_told_and_built_again(runs, two_names, tmp_path):
  shutil.copytree(two_names[0] / 'vqm_demo' / 'micro_frames', tmp_path / 'vqm_demo' / 'micro_frames')
  described = tmp_path / 'vqm_demo' / 'micro_frames' / '1.0.0' / 'dataset_info.json'
  described.write_text('[' * 1000)
  command = ['--dataset=vqm_demo', f'--data_dir={tmp_path}', '--config=micro_frames']
  refused, again = runs(command, [*command, '--overwrite'])
  assert refused[0] == 1 and 'dataset_info.json: this version cannot read' in refused[2]
  assert 'build them again with --overwrite' in refused[2] and 'Traceback' not in refused[2]
  assert again[0] == 0 and 'micro_frames built: ' in again[1], again
  assert len(open_source('vqm_demo', 'micro_frames', 'val', str(tmp_path)))


@pytest.mark.slow
def test_as_a_program_with_the_data_dir_of_the_environment(tmp_path, binary, two_names):
  process = binary('prepare.build', '--dataset=vqm_demo', '--config=micro_tiles', TFDS_DATA_DIR=str(tmp_path / 'here'))
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert (tmp_path / 'here/vqm_demo/micro_tiles/1.0.0/dataset_info.json').exists()
  assert [p.name for p in (tmp_path / 'here').iterdir()] == ['vqm_demo']
  name = 'vqm_demo/micro_tiles/1.0.0/vqm_demo-train.array_record-00000-of-00001'
  assert (tmp_path / 'here' / name).read_bytes() == (two_names[0] / name).read_bytes()


ERRORS = [
  (['--dataset=nothing'], 2, '--dataset=nothing: unknown, choose one of'),
  (['--dataset=vqm_demo', '--config=tilez'], 2, '--config=tilez: unknown, vqm_demo has tiles, tiles_t1p96, frames'),
  (['--dataset=vqm_demo', '--manual_dir=x'], 2, 'vqm_demo reads no folder'),
  (['--dataset=vqm_demo', '--name=a/b'], 2, '--name=a/b: expected letters'),
  (['--dataset=vqm_demo', '--config=frames', '--seed=1'], 2, '--seed means nothing for frames'),
  (['--dataset=paired_videos'], 2, '--manual_dir is missing'),
  (['--dataset=paired_videos', '--manual_dir=/nowhere'], 1, '/nowhere is no folder'),
  (['--dataset=paired_videos', '--manual_dir={empty}'], 1, 'is empty'),
  (['--dataset=vqm_demo', '--data_dir=gs://bucket/x'], 2, 'written to local disk'),
  (['--dataset=vqm_demo', '--data_dir={file}'], 1, 'cannot be created'),
  ([], 2, '--dataset'),
]


def test_errors_are_one_line(runs, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').touch()
  names = dict(empty=tmp_path / 'empty', file=tmp_path / 'file')
  lines = [[arg.format(**names) for arg in args] for args, _, _ in ERRORS]
  results = runs(*lines, TFDS_DATA_DIR=str(tmp_path / 'data'))
  for (args, code, text), (found, output, error) in zip(ERRORS, results, strict=True):
    assert found == code and text in error, (args, error)
    assert error.startswith('error: ') and error.count('\n') == 1 and not output


def test_help(runs):
  ((code, output, _),) = runs(['--help'])
  assert code == 0 and 'paired_videos' in output


@pytest.mark.slow
def test_a_killed_build_is_not_taken_for_a_finished_one(runs, tmp_path, binary):
  args = ['--dataset=vqm_demo', '--config=micro_tiles', f'--data_dir={tmp_path}']
  process = binary('prepare.build', '--per_video=100000', *args)
  deadline = time.monotonic() + 180
  while not list(tmp_path.rglob('unfinished.*/*.part')) and time.monotonic() < deadline:
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  left = list((tmp_path / 'vqm_demo/micro_tiles').iterdir())
  assert left and all(path.name.startswith(('incomplete.', 'unfinished.', locks.NAME)) for path in left)
  with pytest.raises(errors.DataError):
    open_source('vqm_demo', 'micro_tiles', 'train', str(tmp_path))
  ((code, output, _),) = runs(args)
  assert code == 0 and 'micro_tiles built: 8 train' in output
  assert [path.name for path in (tmp_path / 'vqm_demo/micro_tiles').iterdir()] == ['1.0.0']


def test_overwrite_keeps_the_old_records_until_the_new_ones_are_there(tmp_path, monkeypatch):
  def builder(seed):
    cls = driver.find_builder('vqm_demo')
    config = next(c for c in cls.BUILDER_CONFIGS if c.name == 'micro_tiles')
    return driver.variant(cls, 'vqm_demo', config, {'seed': seed})(data_dir=tmp_path)

  def places():
    source = open_source('vqm_demo', 'micro_tiles', 'train', str(tmp_path))
    return [(int(r['start']), *r['yx'].tolist()) for r in source]

  driver.build(builder(0), None)
  first = places()

  def fail(*args, **kwargs):
    raise errors.DataError('failed')

  folder = tmp_path / 'vqm_demo' / 'micro_tiles'
  with monkeypatch.context() as patched:
    patched.setattr(driver, '_prepare', fail)
    with pytest.raises(errors.DataError, match='failed'):
      driver.build(builder(1), None)
  assert places() == first and os.listdir(folder) == ['1.0.0']
  driver.build(builder(1), None)
  assert places() != first and os.listdir(folder) == ['1.0.0']
  # Killed between taking the old records away and putting the new ones in their place.
  second = places()
  (folder / 'incomplete.1').mkdir()
  (folder / '1.0.0').rename(folder / 'incomplete.1' / driver._REPLACED)
  with monkeypatch.context() as patched:
    patched.setattr(driver, '_prepare', fail)
    with pytest.raises(errors.DataError, match='failed'):
      driver.build(builder(0), None)
  assert places() == second and os.listdir(folder) == ['1.0.0']


def test_two_builds_at_once(tmp_path):
  """Parts work side by side; who makes the records of them works alone."""
  cls = driver.find_builder('vqm_demo')
  config = next(c for c in cls.BUILDER_CONFIGS if c.name == 'micro_tiles')
  builder = driver.variant(cls, 'vqm_demo', config, {})(data_dir=tmp_path)
  folder = tmp_path / 'vqm_demo' / 'micro_tiles'
  told = f'micro_tiles: process {os.getpid()} on .* is at work on it; wait until it ends'
  with locks.folder(folder):
    for part in ((0, 1), (0, 2)):
      with pytest.raises(errors.BusyError, match=told):
        driver.build(builder, None, part)
  assert not any(folder.iterdir())
  with locks.folder(folder, shared=True):
    with pytest.raises(errors.BusyError, match=told):
      driver.build(builder, None)
    assert driver.build(builder, None, (1, 9))
  assert [path.name for path in folder.iterdir()] == ['unfinished.1.0.0']


@pytest.mark.slow
def test_disk_full(tmp_path):
  """A limit on the size of files stands for the full disk."""
  limited = subprocess.run(
    ['bash', '-c', 'ulimit -f 100; exec "$0" "$@"', sys.executable, '-m', 'vqm_jax.prepare.build']
    + ['--dataset=vqm_demo', '--config=micro_tiles', f'--data_dir={tmp_path}'],
    capture_output=True,
    text=True,
    timeout=120,
  )
  error = limited.stderr.splitlines()[-1]
  assert limited.returncode == 1 and 'train-00000-of-00001: no room to write this; it needs more' in error
  assert 'Traceback' not in limited.stderr and not list(tmp_path.rglob('incomplete.*'))


OWN = """
import numpy as np
import tensorflow_datasets as tfds
from fractions import Fraction
from vqm_jax.prepare.records.builder import VqmBuilder
from vqm_jax.prepare.records.configs import ClipPair, FramesConfig, TilesConfig

class Grey:
  name, fps, num_frames, height, width = 'grey', Fraction(10), 4, 20, 30
  def frames(self, start=0, stop=None):
    for t in range(start, 4 if stop is None else stop):
      yield np.random.default_rng(t).integers(0, 255, (20, 30, 3), np.uint8)

class Builder(VqmBuilder):
  VERSION = tfds.core.Version('2.0.0')
  BUILDER_CONFIGS = [TilesConfig(name='tiles', num_frames=1, size=8), FramesConfig(name='frames')]
  def clips(self, split, manual_dir):
    for name in {'train': 'abc', 'val': 'd'}.get(split, ''):
      yield ClipPair(clip_id=name, lq=Grey(), hq=Grey())
"""


@pytest.fixture
def own_set(tmp_path):
  folder = tmp_path / 'grey_set'
  folder.mkdir()
  (folder / '__init__.py').touch()
  (folder / 'grey_set_dataset_builder.py').write_text(OWN)
  return folder


@pytest.mark.slow
def test_a_data_set_of_ones_own(runs, tmp_path, own_set):
  data_dir = tmp_path / 'data'
  common = [f'--dataset={own_set}', f'--data_dir={data_dir}']
  results = runs(
    [*common, '--config=tiles', '--per_video=5'],
    [*common, '--config=frames', '--holdout=1'],
    [*common, '--config=frames'],
  )
  assert [code for code, _, _ in results] == [0, 1, 0]
  assert 'grey_set/tiles built: 15 train' in results[0][1]
  assert 'was built with --holdout=0, asked now: 1' in results[1][2]
  assert len(open_source('grey_set', 'frames', 'val', str(data_dir))) == 4
  record = open_source('grey_set', 'tiles', 'train', str(data_dir))[0]
  assert record['hq'].shape == (1, 8, 8, 3) and np.isnan(record['crf'])
  ((code, output, error),) = runs([*common, '--holdout=1', '--overwrite', '--per_video=5'])
  assert code == 0, error
  assert 'tiles built: 10 train' in output and 'frames built: 4 val, 4 holdout' in output
