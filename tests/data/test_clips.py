import itertools
import shutil
import threading

import numpy as np
import pytest

from vqm_jax import data, errors
from vqm_jax.data import clips


@pytest.fixture(scope='module')
def reader(data_dir):
  return data.ClipReader(data.open_source('vqm_tiny', 'frames', 'val', str(data_dir)))


def expected(clip, t, height, width):
  return np.full((height, width, 3), [t, ord(clip), 7], np.uint8)


def test_table(reader):
  assert list(reader.clips) == ['a', 'b']
  assert reader.clips['b'] == clips.Clip(
    name='b', first_record=3, num_frames=12, height=8, width=6, fps=25.0, category='test'
  )


@pytest.mark.parametrize('name, start, stop', [('a', 0, None), ('b', 0, 12), ('b', 7, 11), ('b', 4, 4)])
def test_frames_in_order(reader, name, start, stop):
  clip = reader.clips[name]
  frames = list(reader.frames(name, start, stop))
  times = range(start, clip.num_frames if stop is None else stop)
  assert len(frames) == len(times)
  for t, (lq, hq) in zip(times, frames, strict=True):
    assert lq.dtype == hq.dtype == np.uint8
    np.testing.assert_array_equal(lq, expected(name, t, clip.height, clip.width))
    np.testing.assert_array_equal(hq, 255 - lq)


def test_targets_withheld(data_dir):
  reader = data.ClipReader(data.open_source('vqm_tiny', 'frames_lq', 'val', str(data_dir)))
  frames = list(reader.frames('a'))
  assert len(frames) == 3 and all(hq is None for _, hq in frames)
  np.testing.assert_array_equal(frames[2][0], expected('a', 2, 10, 14))


def test_reads_only_a_little_ahead(reader, monkeypatch):
  read = []
  original = reader._read
  monkeypatch.setattr(reader, '_read', lambda clip, t: read.append(t) or original(clip, t))
  frames = reader.frames('b')
  assert not read
  next(frames)
  assert max(read) < 8
  frames.close()


def test_threads_end_with_the_iteration(reader):
  frames = reader.frames('b')
  list(itertools.islice(frames, 2))
  frames.close()
  for thread in threading.enumerate():
    if thread.name.startswith('clip-reader'):
      thread.join(timeout=5)
      assert not thread.is_alive()


def test_unknown_clip_and_range(reader):
  with pytest.raises(errors.DataError, match="no clip 'c'; available: a, b"):
    reader.frames('c')
  for start, stop in ((0, 4), (-1, 2), (2, 1)):
    with pytest.raises(errors.DataError, match="'a', which has 3"):
      reader.frames('a', start, stop)


@pytest.mark.parametrize('config, split', [('tiles', 'train'), ('frames', 'val[:5]')])
def test_sources_without_whole_clips(data_dir, config, split):
  source = data.open_source('vqm_tiny', config, split, str(data_dir))
  with pytest.raises(errors.DataError, match='no table of clips'):
    data.ClipReader(source)


def damaged_copy(data_dir, tmp_path):
  shutil.copytree(data_dir / 'vqm_tiny' / 'frames', tmp_path / 'vqm_tiny' / 'frames')
  return tmp_path / 'vqm_tiny' / 'frames' / '1.0.0'


def test_damaged_file_is_named(data_dir, tmp_path):
  file = damaged_copy(data_dir, tmp_path) / 'vqm_tiny-val.array_record-00001-of-00002'
  file.write_bytes(file.read_bytes()[:70000])
  reader = data.ClipReader(data.open_source('vqm_tiny', 'frames', 'val', str(tmp_path)))
  with pytest.raises(errors.DataError, match=f'vqm_tiny/frames split val: record .*{file.name}'):
    list(reader.frames('b'))


@pytest.mark.parametrize(
  'old, new, message',
  [
    ('"first_record": 3', '"first_record": 2', r"it is frame \('a', 2\), expected \('b', 0\)"),
    ('"height": 8', '"height": 9', "frame 0 of 'b' is not 9x6"),
  ],
)
def test_table_that_does_not_match_the_records(data_dir, tmp_path, old, new, message):
  metadata = damaged_copy(data_dir, tmp_path) / 'metadata.json'
  text = metadata.read_text()
  assert old in text
  metadata.write_text(text.replace(old, new))
  reader = data.ClipReader(data.open_source('vqm_tiny', 'frames', 'val', str(tmp_path)))
  with pytest.raises(errors.DataError, match=message):
    next(reader.frames('b'))


@pytest.mark.parametrize(
  'old, new, message',
  [
    ('"first_record": 3', '"first_record": 4', "val has 15 records, 'b' ends at 16"),
    ('"height": 8', '"height": "8"', "clips.val.b.height: expected a whole number, found '8'"),
    ('"height": 8', '"heights": 8', 'clips.val.b.height: expected a whole number, found none'),
    ('"num_frames": 3', '"num_frames": 1e400', 'clips.val.a.num_frames: expected a whole number, found inf'),
  ],
)
def test_table_of_another_shape(data_dir, tmp_path, old, new, message):
  metadata = damaged_copy(data_dir, tmp_path) / 'metadata.json'
  text = metadata.read_text()
  assert old in text
  metadata.write_text(text.replace(old, new))
  with pytest.raises(errors.DataError, match=f'frames/1.0.0: this version cannot read .*{message}.* build them again'):
    data.open_source('vqm_tiny', 'frames', 'val', str(tmp_path))


@pytest.mark.parametrize(
  'old, new',
  [
    ('tensorflow_datasets.core.features.text_feature.Text', 'stranger.Text'),
    ('"text": {}', '"jsonFeature": {"json": "{\\"type\\": \\"stranger.Text\\"}"}'),
  ],
)
def test_features_name_no_code_of_strangers(data_dir, tmp_path, monkeypatch, old, new):
  features = damaged_copy(data_dir, tmp_path) / 'features.json'
  assert old in features.read_text()
  features.write_text(features.read_text().replace(old, new))
  (tmp_path / 'stranger.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
  monkeypatch.syspath_prepend(str(tmp_path))
  with pytest.raises(errors.DataError, match='features.json (asks for|holds settings of) .*expected'):
    data.open_source('vqm_tiny', 'frames', 'val', str(tmp_path))
  assert not (tmp_path / 'ran').exists()
