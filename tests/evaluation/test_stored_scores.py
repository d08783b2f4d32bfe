"""Scores that are kept: after a kill, damage, in the file, by fingerprint."""

import dataclasses
import json

import numpy as np
import pytest
from evaluation.reader import LENGTHS, Reader, identity
from full_disk import no_file_beyond

from vqm_jax import errors, metrics
from vqm_jax.evaluation import scoring, stored_scores


def test_killed_after_one_clip_it_goes_on_with_the_next(tmp_path):
  reader = Reader()

  def killed(frames):
    if ('dog', 0) in reader.read or len(reader.read) == 5:
      raise KeyboardInterrupt
    yield from frames

  with pytest.raises(KeyboardInterrupt):
    stored_scores.score_resumably(scoring.restored_clips(killed, reader), tmp_path)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['cat.json', 'pictures']
  reader.read.clear()
  clips = scoring.restored_clips(identity, reader)
  resumed = stored_scores.score_resumably(clips, tmp_path)
  assert {name for name, _ in reader.read} == {'dog'}
  whole = scoring.evaluate_clips(identity, Reader())

  def without_time(scores):
    return {name: dataclasses.replace(s, seconds=0) for name, s in scores.items()}

  assert without_time(resumed) == without_time(whole)
  reader.read.clear()
  stored_scores.score_resumably(clips, tmp_path)
  assert reader.read == []
  stored_scores.score_resumably(clips, tmp_path, overwrite=True)
  assert len(reader.read) == 8


def test_damaged_scores_and_missing_frames_are_made_again(tmp_path):
  reader = Reader()
  clips = scoring.restored_clips(identity, reader)
  stored_scores.score_resumably(clips, tmp_path)
  (tmp_path / 'cat.json').write_text('{"psnr": [')
  reader.read.clear()
  stored_scores.score_resumably(clips, tmp_path)
  assert {name for name, _ in reader.read} == {'cat'}
  stored_scores.score_resumably(clips, tmp_path, save_frames=True)
  assert len(list(tmp_path.glob('output/*/*.png'))) == 8
  assert len(list(tmp_path.glob('pictures/*.png'))) == 2
  reader.read.clear()
  stored_scores.score_resumably(clips, tmp_path, save_frames=True)
  assert reader.read == []


def test_clips_that_were_scored_earlier_may_have_more_metrics(tmp_path):
  clips = scoring.restored_clips(identity, Reader())
  stored_scores.score_resumably(clips, tmp_path)
  (tmp_path / 'dog.json').unlink()
  found = stored_scores.score_resumably(clips, tmp_path, [metrics.create('psnr')])
  assert [list(scores.output) for scores in found.values()] == [['psnr', 'ssim'], ['psnr']]
  assert list(scoring.summarise(found)['metrics']) == list(scoring.mean_scores(found))[:1] == ['psnr']


@pytest.mark.parametrize('input', [{}, {'psnr': [1.0] * 5}])
def test_scores_that_lack_those_of_the_input_are_made_again(tmp_path, caplog, input):
  reader = Reader()
  clips = scoring.restored_clips(identity, reader)
  whole = stored_scores.score_resumably(clips, tmp_path)
  content = json.loads((tmp_path / 'cat.json').read_text())
  (tmp_path / 'cat.json').write_text(json.dumps(content | {'input': input}))
  reader.read.clear()
  assert stored_scores.score_resumably(clips, tmp_path)['cat'].input == whole['cat'].input
  assert {name for name, _ in reader.read} == {'cat'} and 'cat.json is damaged (input: expected' in caplog.text


def test_a_full_disk_is_told_by_the_file_and_the_same_call_goes_on(tmp_path):
  clips = scoring.restored_clips(identity, Reader())
  told = f'^{tmp_path}/pictures/cat.png: no room to write this; .* are free .*Make room, then start the same command'
  with pytest.raises(errors.DiskFullError, match=told), no_file_beyond(10):
    stored_scores.score_resumably(clips, tmp_path)
  assert [path.name for path in tmp_path.rglob('*')] == ['pictures']
  assert list(stored_scores.score_resumably(clips, tmp_path)) == list(LENGTHS)


def test_infinite_scores_survive_the_file(tmp_path):
  reader = Reader()
  reader.pairs['cat'] = reader.pairs['cat'][1], reader.pairs['cat'][1]
  clips = scoring.restored_clips(identity, reader)
  stored_scores.score_resumably(clips, tmp_path)
  assert json.loads((tmp_path / 'cat.json').read_text())['output']['psnr'] == ['inf'] * 5
  assert stored_scores.score_resumably(clips, tmp_path)['cat'].output['psnr'] == [np.inf] * 5


def test_fingerprint_depends_on_every_value():
  one = {'step': 3, 'clips': {'a': 1}}
  assert stored_scores.fingerprint(one) == stored_scores.fingerprint(dict(reversed(one.items())))
  assert stored_scores.fingerprint(one) != stored_scores.fingerprint(one | {'step': 4})
