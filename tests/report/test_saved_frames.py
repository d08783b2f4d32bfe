"""Frames that evaluations kept."""

import json
import re

import numpy as np
import pytest
from report.runs import INPUTS, TARGETS, frames_of, read, saved, scores, workdir

from vqm_jax import errors, files, pictures
from vqm_jax.report import saved_frames


def test_frames_of_scored_folders(tmp_path):
  summary = json.loads((workdir(tmp_path / 'x', INPUTS, keep=False) / 'eval/test/summary.json').read_text())
  for clip in TARGETS:
    for index in range(4):
      pictures.save_png(tmp_path / 'folders' / clip / f'im{index + 8}.png', TARGETS[clip][index])
      pictures.save_png(tmp_path / 'groups' / f'{clip}_{index + 8}.png', INPUTS[clip][index])
  summary['folders'] = {'output': str(tmp_path / 'groups'), 'target': str(tmp_path / 'folders')}
  summary['frame_indices'] = {'a': [1, 3], 'b': [1, 3]}
  files.write_json(tmp_path / 's' / 'summary.json', summary)
  frames = saved(tmp_path / 's')
  assert [side.label for side in frames.sides] == ['ecnu', 'Target'] and frames.input is None
  at = frames.at('b', 3)
  np.testing.assert_array_equal(at['ecnu'], INPUTS['b'][3])
  np.testing.assert_array_equal(at['Target'], TARGETS['b'][3])
  np.testing.assert_array_equal(list(frames.read(frames.target, 'a')), TARGETS['a'][[1, 3]])
  summary['frame_indices'] = {'a': list(range(5)), 'b': [1]}
  files.write_json(tmp_path / 's' / 'summary.json', summary)
  with pytest.raises(errors.DataError, match='groups: of clip a there are no 1 of 5 frames'):
    saved(tmp_path / 's').check(['a'])


def test_a_single_clip_needs_no_name_and_no_video(tmp_path):
  one = {'psnr': scores({'a': [30.0] * 4})}
  for index in range(4):
    pictures.save_png(tmp_path / 'here' / f'{index}.png', INPUTS['a'][index])
    pictures.save_png(tmp_path / 'there' / 'other' / f'{index}.png', TARGETS['a'][index])
  folders = {'output': str(tmp_path / 'here'), 'target': str(tmp_path / 'there')}
  changes = {'metrics': one, 'no_processing': None, 'frame_indices': {'a': [0, 1, 2, 3]}, 'folders': folders}
  frames = saved(workdir(tmp_path / 'x', INPUTS, keep=False, **changes))
  np.testing.assert_array_equal(frames.at('a', 2)['Target'], TARGETS['a'][2])
  (tmp_path / 'video' / 'a').mkdir(parents=True)
  (tmp_path / 'video' / 'a.mp4').touch()
  for place, message in (('video', 'clip a is no folder of images, and'), ('none', 'no frames of clip a are there')):
    folders['output'] = str(tmp_path / place)
    with pytest.raises(errors.DataError, match=message):
      saved(workdir(tmp_path / 'x', INPUTS, keep=False, **changes)).check(['a'])


def test_bad_results(tmp_path, pair):
  other = workdir(tmp_path / 'other', frames_of(6), split='val')
  with pytest.raises(errors.DataError) as caught:
    read(pair[0], other)
  assert all(str(folder) in str(caught.value) for folder in (pair[0], other))
  assert re.search('demo/frames:1.0.0, test, .* and .*frames:1.0.0, val, .* different test sets', str(caught.value))
  with pytest.raises(errors.DataError, match='summary.json: its frames were not kept; run .* with --save_frames'):
    saved(pair[0], workdir(tmp_path / 'bare', frames_of(6), 'bare', keep=False))
  block, _ = read(*pair)
  assert saved_frames.choose_clips(block, ['b']) == ['b'] and saved_frames.choose_clips(block, ['all']) == ['a', 'b']
  with pytest.raises(errors.ConfigError, match="^Clip 'bb' was not scored; did you mean 'b'[?] there are a, b"):
    saved_frames.choose_clips(block, ['bb'])
  frames = saved(*pair)
  assert saved_frames.choose_frame(frames, 'a', None) == 2 and saved_frames.choose_frame(frames, 'a', 3) == 3
  with pytest.raises(errors.ConfigError, match='^--frame=9 of a was not scored; there are 4 from 0 to 3, the nearest'):
    saved_frames.choose_frame(frames, 'a', 9)


def test_lost_frames_are_named(pair):
  kept = pair[1] / 'eval' / 'f00d' / 'test'
  (kept / 'output' / 'b' / '000001.png').unlink()
  (kept / 'output' / 'b' / '000003.png').unlink()
  frames = saved(*pair)
  frames.check(['a'])
  with pytest.raises(errors.DataError, match='output: of clip b there are no 000001.png, 000003.png; evaluate again'):
    frames.check(['b'])
  pictures.save_png(kept / 'output' / 'a' / '000000.png', TARGETS['a'][0][:30])
  with pytest.raises(errors.DataError, match='Frame 0 of a: the sizes differ .*gil 60x30, Target 60x40'):
    frames.at('a', 0)
  (kept / 'output' / 'a' / '000000.png').write_bytes(b'no image')
  with pytest.raises(errors.DataError, match='000000.png is damaged: not a readable image'):
    frames.at('a', 0)
