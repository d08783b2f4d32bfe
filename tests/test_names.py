"""Names out of data are never paths, whichever way they come in."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from vqm_jax import data, errors, names
from vqm_jax.evaluation import scoring
from vqm_jax.prepare.records import builder as builders
from vqm_jax.report import frame_folders, summaries
from vqm_jax.report.study import making, ratings
from vqm_jax.summary import Scores, Summary

BAD = [
  '', ' ', '.', '..', '../x', '/x', 'a/b', 'a\\b', 'C:x', 'a\0b', 'a\nb', 'a\x1bb', 'x\u202egnp',
  'x\u061cy', '\ufeffx', 'a\u200bb', 'a\xadb', 'a\x85b', '\U000e0041x', 'a\u2028b', 'COM¹.csv', '\ud800', 'NUL',
  'con.png', 'timing', 'x' * 121, 'ä' * 61, 7, None,
]  # fmt: skip
GOOD = [
  '060',
  'clip_00',
  'tcl_unet (step 400)',
  'a.b',
  'Fjäll 2',
  'x' * 120,
  'console',
  'video@2',
  '日本',
  '👩\u200d🎨',
  'می\u200cخواهم',
]


@pytest.mark.parametrize('name', BAD)
def test_what_is_no_name(name):
  assert names.problem(name)
  with pytest.raises(errors.DataError, match='^here: clip '):
    names.check(['good', name], 'here')


@pytest.mark.parametrize('name', GOOD)
def test_what_is_one(name):
  assert names.problem(name) is None


@pytest.mark.parametrize('name', ['../../x', 'a\0b', 'x' * 121])
def test_no_reader_of_data_takes_a_path_for_a_name(name, micro_data, tmp_path):
  with pytest.raises(errors.DataError, match='^to be scored: clip '):
    scoring.ClipFrames(name, [0], '', lambda: iter(()))

  source = data.open_source('vqm_demo', 'micro_frames', 'test', micro_data)
  clips = source.dataset_info.metadata['clips']['test']
  clips[name] = clips.pop(next(iter(clips)))
  with pytest.raises(errors.DataError, match='test: clip '):
    data.ClipReader(source)

  def summary(**fields):
    metrics = {'psnr': Scores(1.0, per_clip={fields.pop('clip', 'a'): 1.0})}
    return Summary(dataset='x', method='y', metrics=metrics, **fields)

  for bad in (summary(clip=name), summary(frame_indices={name: [0]})):
    with pytest.raises(errors.DataError, match='^s.json: clip '):
      summaries.blocks({'s.json': bad})

  path = tmp_path / 'out' / 'clip' / '000000.png'
  path.parent.mkdir(parents=True)
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
  kept = summary(folders={'output': 'out'}, frame_indices={name: [0]})
  with pytest.raises(errors.DataError, match='s.json: clip '):
    frame_folders.of_summary(kept, tmp_path / 's.json', 'output', '--results')

  key = {'format': making.KEY, 'version': making.FORMAT, 'study': 's', 'mode': 'mos', 'methods': ['m'], 'clips': [name]}
  path = tmp_path / 'key.json'
  shown = {'media': {'t': {'method': 'm', 'clip': name}}, 'orders': [[{'kind': 'rated', 'media': ['t']}]]}
  path.write_text(json.dumps(key | shown))
  with pytest.raises(errors.DataError, match='key.json: clip '):
    ratings.read_key(path)
  export = {'format': making.ANSWERS, 'version': making.FORMAT, 'study': 's', 'participant': name, 'answers': []}
  path.write_text(json.dumps(export | {'slot': 0, 'order': 'x', 'digest': 'x'}))
  with pytest.raises(errors.DataError, match='key.json: participant '):
    ratings.read({'study': 's', 'orders': [[]]}, [path])


def test_a_line_of_a_manifest_is_no_way_out(tmp_path):
  """Its clip would have been written five folders above the workdir."""
  folder = pathlib.Path(tmp_path / 'pairs')
  for side in ('lq', 'hq'):
    for frame in range(8):
      path = folder / 'test' / side / 'good' / f'{frame:06d}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(np.full((32, 32, 3), 8 * frame, np.uint8)).save(path)
  (folder / 'manifest.csv').write_text('split,clip,lq,hq\ntest,../../../../../ESCAPED,test/lq/good,test/hq/good\n')
  from paired_videos import paired_videos_dataset_builder

  builder = paired_videos_dataset_builder.Builder(config='frames', data_dir=tmp_path / 'data')
  with pytest.raises(errors.DataError, match="clip '../../../../../ESCAPED' is a path"):
    builder.plan(folder)


def test_the_builder_names_every_clip_that_is_none():
  class Config:
    def problems(self, pair):
      return []

  class Pair:
    clip_id, scenes = '../x', ()

  with pytest.raises(errors.DataError, match="clip '../x' is a path"):
    builders._check({'train': [Pair()]}, Config())
