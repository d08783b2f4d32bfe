import functools
import pathlib
import shutil

import pytest

from vqm_jax import cli, errors
from vqm_jax.data import ClipReader, open_source
from vqm_jax.prepare.records import beam as beam_lib
from vqm_jax.prepare.records import builder as builder_lib
from vqm_jax.prepare.records import driver

DATASETS = cli.ROOT / 'datasets'
TWO_PROCESSES = ['direct_running_mode=multi_processing', 'direct_num_workers=2']
SMALL = dict(num_frames=2, size=24, per_video=5, margin=4, draws=2, jitter_frames=2, jitter_pixels=4)


@pytest.fixture
def beam():
  """Makes options of Beam."""
  pytest.importorskip('apache_beam')
  return beam_lib.options


@pytest.fixture
def small_files(monkeypatch):
  """A file for every clip, in this process."""
  monkeypatch.setattr(builder_lib, '_SHARD_BYTES', 1)


@pytest.fixture
def copy(tmp_path):
  """A copy of intvid's dummy data to change at will."""
  return pathlib.Path(shutil.copytree(DATASETS / 'intvid' / 'dummy_data', tmp_path / 'copy'))


def built(data_dir, dataset, config, manual_dir=None, part=(0, 1), beam=None, **changes):
  """Builds a config as data set `mini` and returns its folder; asserts that it is complete unless it is a part."""
  found = driver.find_builder(dataset)
  chosen = next(c for c in found.BUILDER_CONFIGS if c.name == config)
  make = functools.partial(beam_lib.write, beam, manual_dir) if beam else driver.write
  missing = driver.build(driver.variant(found, 'mini', chosen, changes)(data_dir=data_dir), manual_dir, part, make)
  assert part != (0, 1) or not missing
  return data_dir / 'mini' / config


def contents(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def damage(path):
  """Breaks an image in a way that neither its name nor its size tells; returns what it was."""
  whole = path.read_bytes()
  path.write_bytes(whole[:100] + bytes(len(whole) - 100))
  return whole


@pytest.mark.parametrize(
  'dataset, config, changes',
  [
    ('intvid', 'tiles', SMALL),
    ('intvid', 'frames', dict(holdout=2)),
    ('intvid', 'frames_lq', {}),
    ('vid3oc', 'weak_tiles', SMALL),
    ('vid3oc', 'unpaired_tiles_p512', SMALL),
    ('vqm_demo', 'micro_tiles', dict(seed=3)),
  ],
)
def test_beam_makes_the_same_records(tmp_path, beam, small_files, dataset, config, changes):
  manual_dir = DATASETS / dataset / 'dummy_data' if dataset != 'vqm_demo' else None
  ordinary = built(tmp_path / 'ordinary', dataset, config, manual_dir, **changes)
  by_beam = built(tmp_path / 'beam', dataset, config, manual_dir, beam=beam([]), **changes)
  assert contents(by_beam) == contents(ordinary)
  assert [path.name for path in by_beam.iterdir()] == ['1.0.0']
  for split in ('train', 'val'):
    if list(by_beam.glob(f'1.0.0/*-{split}.array_record-*')):
      assert len(list(open_source('mini', config, split, str(tmp_path / 'beam')))) > 4


def test_the_frames_of_a_clip_stay_in_order(tmp_path, beam, small_files):
  built(tmp_path, 'intvid', 'frames', DATASETS / 'intvid' / 'dummy_data', beam=beam([]), holdout=2)
  source = open_source('mini', 'frames', 'holdout', str(tmp_path))
  clips = ClipReader(source).clips
  assert [(record['clip'].decode(), int(record['frame'])) for record in source] == [
    (name, t) for name in clips for t in range(10)
  ]
  assert [entry['first_record'] for entry in source.dataset_info.metadata['clips']['holdout'].values()] == [0, 10]


def test_other_processes_do_the_work(tmp_path, beam, monkeypatch):
  ordinary = built(tmp_path / 'ordinary', 'vqm_demo', 'micro_frames')
  monkeypatch.delattr(builder_lib.VqmBuilder, 'write')
  by_beam = built(tmp_path / 'beam', 'vqm_demo', 'micro_frames', beam=beam(TWO_PROCESSES))
  assert contents(by_beam) == contents(ordinary)


def test_as_a_program(tmp_path, binary, beam):
  args = ['--dataset=vqm_demo', '--config=micro_tiles', f'--data_dir={tmp_path}', '--beam_pipeline_options=']
  output, _ = binary('prepare.build', *args).communicate(timeout=120)
  assert 'Beam makes 1 of 1 files' in output and 'vqm_demo/micro_tiles built: 8 train' in output, output


def test_a_failed_build_names_all_files_and_goes_on_later(tmp_path, beam, copy, small_files):
  ordinary = built(tmp_path / 'ordinary', 'intvid', 'tiles', copy, **SMALL)
  damaged = [copy / f'TrainingTargetDomain/00{k}/000005.png' for k in (0, 2)]
  whole = [damage(path) for path in damaged]
  with pytest.raises(errors.DataError) as caught:
    built(tmp_path / 'beam', 'intvid', 'tiles', copy, beam=beam([]), **SMALL)
  assert all(f'{path}: not a readable image' in str(caught.value) for path in damaged)
  assert '\n' not in str(caught.value)
  finished = {path.stat().st_ino for path in tmp_path.glob('beam/mini/tiles/unfinished.1.0.0/*-of-00004')}
  assert len(finished) == 2
  for path, data in zip(damaged, whole, strict=True):
    path.write_bytes(data)
  by_beam = built(tmp_path / 'beam', 'intvid', 'tiles', copy, beam=beam([]), **SMALL)
  assert contents(by_beam) == contents(ordinary)
  assert finished < {path.stat().st_ino for path in by_beam.glob('1.0.0/*')}


def test_failures_of_other_processes_are_told_as_well(tmp_path, beam, copy):
  damage(copy / 'ValidationTarget/060_005.png')
  with pytest.raises(errors.DataError, match='^[^\n]*ValidationTarget/060_005.png: not a readable image[^\n]*$'):
    built(tmp_path / 'data', 'intvid', 'frames', copy, beam=beam(TWO_PROCESSES))
  assert not list(tmp_path.rglob('unfinished.*'))


def test_records_stay_until_new_ones_are_there(tmp_path, beam, copy):
  folder = built(tmp_path, 'intvid', 'frames', copy, beam=beam([]))
  before = contents(folder)
  image = copy / 'ValidationTarget/060_005.png'
  whole = damage(image)
  with pytest.raises(errors.DataError, match='not a readable image'):
    built(tmp_path, 'intvid', 'frames', copy, beam=beam([]))
  assert contents(folder) == before
  image.write_bytes(whole)
  built(tmp_path, 'intvid', 'frames', copy, beam=beam([]), holdout=1)
  assert set(open_source('mini', 'frames', 'val', str(tmp_path)).dataset_info.splits) == {'val', 'holdout'}


def test_parts(tmp_path, beam, small_files):
  ordinary = built(tmp_path / 'ordinary', 'vqm_demo', 'micro_tiles')
  folder = built(tmp_path / 'beam', 'vqm_demo', 'micro_tiles', part=(0, 2), beam=beam([]))
  assert sorted(path.name for path in folder.glob('unfinished.1.0.0/train-*')) == [
    'train-00000-of-00002', 'train-00000-of-00002.json',
  ]  # fmt: skip
  built(tmp_path / 'beam', 'vqm_demo', 'micro_tiles', part=(1, 2), beam=beam([]))
  assert contents(folder) == contents(ordinary)


def test_workers_that_see_something_else(tmp_path, beam, small_files, monkeypatch):
  # Those of other processes plan files of the common size.
  with pytest.raises(errors.DataError, match='a worker there sees other input or another version'):
    built(tmp_path, 'vqm_demo', 'micro_tiles', beam=beam(TWO_PROCESSES))
  beam_lib._Worker('vqm_demo', 'mini', {}, None, tmp_path / 'elsewhere')('train-00000-of-00002')
  assert not (tmp_path / 'elsewhere').exists()
  monkeypatch.setattr(beam_lib._Worker, '__call__', lambda self, name: None)
  with pytest.raises(errors.DataError, match='all workers have to see .*/mini/micro_tiles/unfinished.1.0.0 under this'):
    built(tmp_path, 'vqm_demo', 'micro_tiles', beam=beam([]))
  assert not list(tmp_path.rglob('unfinished.*'))


@pytest.mark.parametrize(
  'option, text',
  [
    ('runner=Foo', 'runner=Foo: Unexpected pipeline runner: Foo. Valid values are'),
    ('runner=no.such.Runner', "No module named 'no'"),
    ('runner=os.path.Runner', "has no attribute 'Runner'"),
    ('direct_num_workers=x', "direct_num_workers: invalid int value: 'x'"),
  ],
)
def test_options_that_beam_refuses(beam, option, text, capsys):
  with pytest.raises(errors.ConfigError) as caught:
    beam([option])
  assert str(caught.value).startswith(f'--beam_pipeline_options={option}: ') and text in str(caught.value)
  assert not capsys.readouterr().err


def test_without_beam(tmp_path, binary):
  args = ['--dataset=vqm_demo', f'--data_dir={tmp_path}', '--beam_pipeline_options=']
  process = binary('prepare.build', *args, blocked=['apache_beam'])
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 2 and output.startswith('error: --beam_pipeline_options needs Apache Beam')
  assert "pip install -e '.[beam]'" in output and len(output.splitlines()) == 1
