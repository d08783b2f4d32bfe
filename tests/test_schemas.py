"""Files of every kind, damaged in every way: read right, or told in one line that names file and field."""

import json
import pathlib

import pytest

from vqm_jax import checkpoints, errors, files, schemas, workdir
from vqm_jax.evaluation import stored_scores
from vqm_jax.evaluation.scoring import ClipScores
from vqm_jax.prepare.challenge import packing, weak
from vqm_jax.prepare.challenge.two_cameras import StoredPairings
from vqm_jax.prepare.pairs import checked, footage, making
from vqm_jax.prepare.pairs import folder as pairs
from vqm_jax.report.study import ratings, trials
from vqm_jax.summary import Timing, read_summary
from vqm_jax.training.writer import Writer

CONFIG = {
  'config': {'system': 'ecnu', 'system_args': {'width': 4}, 'dtype': 'float32', 'ema': 0.9, 'steps': 5},
  'version': '0.2.0', 'command': ['train'], 'trained_on': {'qp': [14, 46.5]}, 'strength_by_qp': [[20, 0.5]],
}  # fmt: skip
SCORES = {
  'frames': [0, 1], 'output': {'psnr': [30.5, 'inf']}, 'input': {}, 'target': {}, 'weights': {'psnr': ''},
  'category': '', 'height': 24, 'width': 32, 'seconds': 0.5,
}  # fmt: skip
PAIRING = {
  'offset': 3, 'ncc': 0.9, 'offset_remark': '', 'drift_per_minute': None, 'matrix': [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  'inliers': 40, 'inlier_share': 0.8, 'matrix_remark': '',
}  # fmt: skip
KEY = {
  'format': 'vqm_jax study key', 'version': 1, 'study': 'demo', 'mode': 'pair', 'methods': ['a', 'b'], 'clips': ['x'],
  'media': {'t0': {'method': 'a', 'clip': 'x'}, 't1': {'method': 'b', 'clip': 'x'}},
  'orders': [[{'kind': 'main', 'media': ['t0', 't1']}]],
}  # fmt: skip
MEDIA, CHOICE = ['t0', 't1'], {'trial': 0, 'media': ['t0', 't1'], 'answer': ratings.CHOICES[0], 'ms': 3000, 'plays': 1}
ORDER = trials.order_digest('demo', 0, [MEDIA])
ANSWERS = {
  'format': 'vqm_jax study answers', 'version': 1, 'study': 'demo', 'mode': 'pair', 'participant': 'P1', 'slot': 0,
  'answers': [CHOICE], 'started': '', 'finished': '', 'screen': None, 'browser': '', 'order': ORDER,
  'digest': trials.answers_digest('demo', 'P1', ORDER, [CHOICE]),
}  # fmt: skip
FOOTAGE = {
  'sha256': '0', 'num_bytes': 9, 'num_frames': 20, 'height': 24, 'width': 32, 'fps': '25', 'as_is': True,
  'scenes': [[0, 20]],
}  # fmt: skip
SETTINGS = {'rate': 'crf=35', 'categories': ''}
ALIGNMENT = {'num_frames': 9, 'moving': 8, 'matching': 8, 'shift': [0.0, 0.1], 'offset': 0, 'problem': ''}
SUMMARY = {'dataset': 'd', 'method': 'm', 'metrics': {'psnr': {'mean': 30.0}}}


def _stored(kind):
  return lambda path: stored_scores._read(path, kind, 'it is made again')


# What is read, as JSON, and how. Those that say None warn, and make anew what the file held.
READERS = {
  'config.json': (CONFIG, lambda path: workdir.read_config(path.parent)),
  'rollbacks.json': (
    [{'to_step': 2, 'lr_factor': 0.5, 'reason': 'nan'}],
    lambda path: workdir.rollbacks(path.parent),
  ),
  'checkpoints/4/digests.json': (
    {'meta/metadata': '0' * 64, 'state/a': '0' * 64},
    lambda path: checkpoints._expected(path.parent),
  ),
  'checkpoints/4/meta/metadata': (
    {'step': 4, 'updates': 4, 'seconds': 1.5, 'hardware': ['CPU']},
    lambda path: checkpoints.read_meta(path.parents[2], 4),
  ),
  'summary.json': (SUMMARY, read_summary),
  'a.json': (SCORES, _stored(ClipScores)),
  'timing.json': ({'seconds_per_frame': 0.02, 'device': 'CPU', 'frame_size': [24, 32]}, _stored(Timing)),
  'pairing.json': ({'000': {'digest': 'abc', 'pairing': PAIRING}}, lambda path: StoredPairings(path.parent)),
  'checked.json': ({'a': {'digest': 'abc', 'cuts': [3], 'alignment': ALIGNMENT}}, checked._read),
  'degrade.json': (
    {'settings': SETTINGS, 'versions': {'av': '18'}, 'footage': {'0': FOOTAGE}},
    lambda path: making._open_journal(path.parent, SETTINGS, overwrite=False),
  ),
  'key.json': (KEY, ratings.read_key),
  'answers.json': (ANSWERS, lambda path: ratings.read(KEY, [path])),
}
WARN = {'a.json', 'timing.json', 'checked.json'}

DAMAGES = {
  'empty': b'',
  'cut off': b'{"a": [1, 2',
  'null': b'null',
  'a number': b'7',
  'a list of lists': b'[[], [[]]]',
  'foreign fields': b'{"x\\u001b[31m": "y", "z": {}}',
  'twice': b'{"a": 1, "a": 2}',
  'infinite': b'{"settings": 1e400, "config": 1e400}',
  'NaN': b'[NaN]',
  'half a pair': b'{"config": "\\ud800", "study": "\\udfff"}',
  'nested': b'[' * 100_000 + b']' * 100_000,
  'nested objects': b'{"a":' * 5_000 + b'1' + b'}' * 5_000,
  'invalid bytes': b'{"config": "\xff\xfe\xe9"}',
  'NULs': b'\0' * 64,
  'huge number': b'{"a": 1' + b'0' * 400 + b'}',
  'digits beyond number': b'{"a": ' + b'9' * 5_000 + b'}',
  'long text': b'{"' + b'k' * 100_000 + b'": "' + b'v' * 100_000 + b'"}',
  'UTF-16 without a mark': '{"config": 1}'.encode('utf-16-le'),
}


def refused(read, path):
  """The message of the error that reading raises: one line, of our own kind, that names the file."""
  with pytest.raises(errors.VqmError) as caught:
    read(path)
  text = str(caught.value)
  assert len(text) <= errors.LONGEST + len(str(path)) and text.isprintable() and path.name in text
  return text


def put(folder, name, content):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
  return path


def told(name, path, caplog):
  """What is said of a damaged file."""
  read = READERS[name][1]
  if name not in WARN:
    return refused(read, path)
  caplog.clear()
  assert not read(path)
  (text,) = caplog.messages
  assert len(text) <= errors.LONGEST + len(str(path)) and text.isprintable() and path.name in text
  return text


@pytest.mark.parametrize('name', READERS)
def test_whole_files_are_read(tmp_path, name, caplog):
  content, read = READERS[name]
  for encoding in ('utf-8', 'utf-8-sig', 'utf-16', 'utf-32'):
    assert read(put(tmp_path, name, json.dumps(content).encode(encoding))) is not None
  assert not caplog.messages


@pytest.mark.parametrize('name', READERS)
def test_damaged_files_are_told_in_one_line(tmp_path, name, caplog):
  for content in DAMAGES.values():
    told(name, put(tmp_path, name, content), caplog)
  path = tmp_path / name
  path.unlink()
  path.mkdir()
  assert 'a folder' in told(name, path, caplog)


def changed(value, where, new):
  """A copy of a JSON value with another value at a path of keys; `...` removes it."""
  if not where:
    return new
  first, *rest = where
  copy = value.copy()
  if new is ... and not rest:
    del copy[first]
  else:
    copy[first] = changed(value[first] if isinstance(value, list) else value.get(first), rest, new)
  return copy


@pytest.mark.parametrize(
  'name, where, new, message',
  [
    ('config.json', ['config'], ..., 'config: expected an object, found none'),
    ('config.json', ['config', 'system'], ..., 'config.system: expected a value, found none'),
    ('config.json', ['config', 'system'], 7, 'config.system: expected text, found 7'),
    ('config.json', ['config', 'system_args'], [], 'config.system_args: expected an object'),
    ('config.json', ['config', 'steps'], 0, 'config.steps: must be at least 1, found 0'),
    ('config.json', ['config', 'steps'], True, 'config.steps: expected a whole number, found true'),
    ('config.json', ['config', 'ema'], 'high', 'config.ema: expected a number'),
    ('config.json', ['config', 'dtype'], 'int4', "config.dtype: must be 'float32' or 'bfloat16'"),
    ('config.json', ['version'], 2, 'version: expected text, found 2'),
    ('config.json', ['trained_on', 'qp'], [1], 'trained_on.qp: expected a list of 2'),
    ('config.json', ['strength_by_qp'], [['a', 1]], 'strength_by_qp[0][0]: expected a number'),
    ('rollbacks.json', [0, 'to_step'], -1, '[0].to_step: expected at least 0, found -1'),
    ('rollbacks.json', [0, 'reason'], ..., '[0].reason: expected text, found none'),
    ('checkpoints/4/digests.json', ['state/a'], None, 'state/a: expected text, found null'),
    ('checkpoints/4/meta/metadata', ['step'], '4', "step: expected a whole number, found '4'"),
    ('checkpoints/4/meta/metadata', ['hardware'], 'CPU', 'hardware: expected a list'),
    ('a.json', ['output', 'psnr'], ['high'], "output.psnr[0]: expected a number, found 'high'"),
    ('a.json', ['height'], 1.5, 'height: expected a whole number'),
    ('a.json', ['note'], 'x', 'note: expected one of frames'),
    ('timing.json', ['frame_size'], [24], 'frame_size: expected a list of 2'),
    ('pairing.json', ['000', 'pairing', 'matrix'], [[1, 0, 0]], '000.pairing.matrix: expected a list of 3'),
    ('pairing.json', ['000', 'digest'], ..., '000.digest: expected text, found none'),
    ('checked.json', ['a', 'cuts'], [-1], 'a.cuts[0]: expected at least 0'),
    ('checked.json', ['a', 'alignment', 'shift'], [], 'a.alignment.shift: expected a list of 2'),
    ('degrade.json', ['footage', '0', 'as_is'], 'yes', "footage.0.as_is: expected true or false, found 'yes'"),
    ('degrade.json', ['calibration'], {'probes': [[1]]}, 'calibration.probes[0]: expected a list of 2'),
    ('answers.json', ['answers', 0, 'ms'], 'long', "answers[0].ms: expected a whole number, found 'long'"),
    ('answers.json', ['answers'], {}, 'answers: expected a list, found an object'),
    ('answers.json', ['participant'], '../x', "participant '../x' is a path"),
    ('answers.json', ['slot'], '²', "slot: expected a whole number, found '²'"),
    ('key.json', ['mode'], 'both', "mode: expected 'pair' or 'mos', found 'both'"),
    ('key.json', ['orders', 0, 0, 'media'], ['t0', 't9'], "orders[0][0].media: expected names in media, found 't9'"),
    ('key.json', ['orders', 0, 0, 'media'], ['t0'], 'orders[0][0].media: expected 2 for mode pair, found 1'),
    ('key.json', ['media', 't0', 'clip'], '../x', "media.'t0'.clip: expected one of clips, found '../x'"),
  ],
)
def test_field_expected_and_found_are_named(tmp_path, name, where, new, message, caplog):
  assert message in told(name, put(tmp_path, name, changed(READERS[name][0], where, new)), caplog)


def test_fields_of_other_versions_pass(tmp_path):
  config = put(tmp_path, 'config.json', {'config': {'system': 'ecnu', 'system_args': {}, 'new': 1}, 'more': []})
  assert workdir.read_config(config.parent) == {'system': 'ecnu', 'system_args': {}, 'new': 1}
  assert (workdir.read_trained_on(tmp_path), workdir.read_strength_by_qp(tmp_path)) == ({}, [])
  assert workdir.rollbacks(tmp_path) == []
  put(tmp_path, 'checkpoints/4/meta/metadata', {'step': 4, 'members': []})
  assert checkpoints.read_meta(tmp_path / 'checkpoints', 4) == {'step': 4, 'members': []}


LINES = ['{"step": 1, "time": 2.5, "train/loss": 0.5}', '{"step": 2, "train/loss": "nan"}', '{"step": 3, "x": []}']
TORN = ['{"step": 4, "tra', '\0\0\0\0', '{"step": "4"}', '{}', '[4]', '{"step": 4, "val/psnr": []}', '[' * 100_000]


@pytest.mark.parametrize('torn', TORN)
def test_a_damaged_last_line_of_metrics_is_cut_off_and_told(tmp_path, torn, caplog):
  path = tmp_path / 'metrics.jsonl'
  files.write_text(path, '\n'.join([*LINES, torn]))
  with Writer(tmp_path, 3) as writer:
    writer.scalars(4, {'train/loss': 1.0})
  *kept, new = path.read_text().splitlines()
  assert kept == LINES and json.loads(new)['step'] == 4
  (text,) = (text for text in caplog.messages if 'metrics' in text)
  assert 'metrics.jsonl: line 4 is damaged' in text and text.endswith('it is cut off.')


@pytest.mark.parametrize('torn', TORN)
def test_a_damaged_line_in_between_is_an_error(tmp_path, torn):
  path = tmp_path / 'metrics.jsonl'
  content = '\n'.join([LINES[0], torn, *LINES[1:], ''])
  files.write_text(path, content)
  assert 'line 2 is damaged' in refused(lambda _: Writer(tmp_path, 3), path)
  assert path.read_text() == content


def _manifest(path):
  return pairs.listed('train', path.parent)


def _challenge(path):
  notes = packing._Notes()
  packing._manifest(path, notes)
  if notes.problems:
    raise errors.DataError('; '.join(notes.problems))


def _ours(path):
  return making.read_manifest(path.parent)


def _column(path):
  return footage.column(str(path), 'split', {'a': pathlib.Path('a.mp4')})


OURS = 'split,clip,lq,hq,frames,psnr,lq_kbps,hq_kbps\ntrain,a,train/lq/a.mp4,train/hq/a.mp4,9,30.5,1.5,2.5\n'
TABLES = {
  'manifest of pairs': ('manifest.csv', 'split,clip,lq,hq,fps\ntrain,a,x.mp4,y.mp4,25\n', _manifest),
  'manifest of a challenge': ('manifest.csv', 'split,clip_id,fps,category\ntrain,a,25,sea\n', _challenge),
  'manifest of degrade': ('manifest.csv', OURS, _ours),
  'columns': ('splits.csv', 'video,split\na.mp4,train\n', _column),
  'offsets': ('offsets.csv', 'clip,offset\na,3\n', weak.read_offsets),
}


@pytest.mark.parametrize('kind', TABLES)
def test_tables_are_read_in_every_encoding_with_a_mark(tmp_path, kind):
  name, text, read = TABLES[kind]
  before = read(put(tmp_path, name, text.encode()))
  for encoding, end in (('utf-8-sig', '\r\n'), ('utf-16', '\n'), ('utf-8', '\r'), ('utf-8', '\n\n')):
    assert read(put(tmp_path, name, text.replace('\n', end).encode(encoding))) == before


@pytest.mark.parametrize('kind', TABLES)
def test_damaged_tables_are_told_in_one_line(tmp_path, kind):
  name, text, read = TABLES[kind]
  head, line, _ = text.split('\n')
  for content in (
    text.replace(',', ';').encode(),
    f'{text}{line.replace("a", "é")}\n'.encode('latin-1'),
    text.encode('utf-16-le'),
    text.encode('utf-32'),
    text.encode() + b'\0\n',
    f'{head},x\n{line},"{"y" * 140_000}"\n'.encode(),
    f'{head}\n"{line}\n'.encode(),
    f'{head}\n{line},more\n'.encode(),
    f'{head}\n{line.split(",")[0]}\n'.encode(),
    f'{head},{head}\n{line},{line}\n'.encode(),
    b'one,two\n1,2\n',
    b'\xff\xfe\0',
  ):
    refused(read, put(tmp_path, name, content))
  path = tmp_path / name
  path.unlink()
  path.mkdir()
  if kind not in ('manifest of pairs', 'manifest of a challenge'):  # which ask for a file first
    assert 'a folder' in refused(read, path)


@pytest.mark.parametrize('text', ['', '0', '-25', '1/0', '0/5', 'nan', 'inf', '1e999999999', '²5', '25fps', '1' * 5000])
def test_rates_that_are_none(text):
  with pytest.raises(ValueError):
    schemas.rate(text)


def test_rates():
  assert [str(schemas.rate(text)) for text in ('25', ' 23.976', '30000/1001', '0.5')] == [
    '25', '2997/125', '30000/1001', '1/2',
  ]  # fmt: skip


def test_paths_that_are_no_text_survive(tmp_path):
  config = CONFIG['config'] | {'data_dir': 'caf\udce9'}  # as Python names a folder in Latin-1
  put(tmp_path, 'config.json', CONFIG | {'config': config})
  assert workdir.read_config(tmp_path)['data_dir'] == 'caf\udce9'
  with pytest.raises(schemas.Misfit, match='half a surrogate pair'):
    schemas.parse('["caf\\udce9"]')
