"""Summaries: what is written is read back, older ones are read, damage ends in one line."""

import dataclasses
import json
import math
import re

import pytest
import summaries

from vqm_jax import errors
from vqm_jax.summary import Timing, read_summary, summary_of, write_summary


def test_what_is_written_is_read_back(tmp_path):
  given = summaries.make(
    metrics={'psnr': summaries.scores({'a': [30.0, math.inf], 'b': [31.0, 32.0]}), 'fd': {'mean': 0.5}},
    category={'a': 'cats', 'b': ''}, folders=summaries.kept('x'), train={'hardware': 'CPU'}, ema=True,
  )  # fmt: skip
  write_summary(tmp_path / 'summary.json', given)
  assert read_summary(tmp_path / 'summary.json') == given
  assert given.timing == Timing(0.02, 'CPU', (40, 60))


def test_version_1_is_read():
  old = summary_of({'dataset': 'd', 'method': 'm', 'metrics': {'psnr': {'mean': 30}, 'ssim': None}, 'missing': None})
  assert old.schema_version == 1 and old.aligned and old.protocol == 'ntire' and not old.missing
  assert set(old.metrics) == {'psnr'} and old.metrics['psnr'].mean == 30.0


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"schema_version": 2, "metr', 'is damaged .*run the evaluation again'),
    ('[1]', 'is no summary of an evaluation: it holds no object'),
    ('{"steps": 3}', 'is no summary of an evaluation: it lacks dataset, method, metrics'),
    ('{"dataset": "\\ud800"}', 'is damaged .*half a surrogate pair'),
    ('{"params": 1e400}', 'is damaged .*1e400'),
    ('[' * 100_000, 'is damaged .*nesting'),
    (b'{"dataset": "\xff"}', 'is damaged .*byte 0xff in line 1'),
    (json.dumps(summaries.content(schema_version=3)), 'schema_version is 3, this program knows up to 2'),
    (json.dumps(summaries.content(weights={'lpips_alex': None})), 'lpips_alex was measured with random weights'),
  ],
)
def test_damage_is_told_in_one_line(tmp_path, text, message):
  path = tmp_path / 'summary.json'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(errors.DataError, match=f'^{re.escape(str(path))}:? {message}') as caught:
    read_summary(path)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'metrics': {'psnr': {'mean': 'good'}}}, "metrics.psnr.mean: expected a number, found 'good'"),
    ({'metrics': [1]}, r'metrics: expected an object, found \[1\]'),
    ({'timing': {'device': 'x'}}, 'timing.seconds_per_frame: expected a number, found none'),
    ({'timing': {'seconds_per_frame': 1, 'frame_size': [4]}}, 'timing.frame_size: expected a list of 2'),
    ({'params': 'x'}, "params: expected a whole number, found 'x'"),
    ({'n_frames': -1}, 'n_frames: expected at least 0, found -1'),
    ({'aligned': 1}, 'aligned: expected true or false, found 1'),
    ({'note': 'x'}, 'note: expected one of .*, found this unknown field'),
    ({'frame_indices': {'a': [3, 2]}}, "frame_indices.'a': expected rising indices"),
    ({'frame_indices': {'b': [0]}}, "metrics.'psnr'.per_clip: expected the clips of frame_indices"),
  ],
)
def test_fields_of_the_wrong_type_are_named(tmp_path, changes, message):
  path = tmp_path / 'summary.json'
  path.write_text(json.dumps(dataclasses.asdict(summaries.make()) | changes))
  with pytest.raises(errors.DataError, match=f'{path} is no summary that this program can read .*{message}'):
    read_summary(path)
