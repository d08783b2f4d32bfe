"""Files that are written whole or not at all."""

import csv
import io
import json

import pytest

from vqm_jax import files


def test_what_is_there_stays_until_the_new_file_is_complete(tmp_path):
  path = tmp_path / 'new' / 'a.txt'
  files.write_text(path, 'one\n')
  with pytest.raises(ZeroDivisionError), files.replacing(path) as partial:
    partial.write_text('half')
    1 / 0  # noqa: B018
  assert path.read_bytes() == b'one\n'
  assert [p.name for p in path.parent.iterdir()] == ['a.txt']


def test_json_names_what_json_lacks_and_is_atomic(tmp_path):
  path = tmp_path / 'new' / 'a.json'
  value = {'psnr': [float('inf'), 1.5], 'b': (float('nan'), -float('inf'), None, 3)}
  files.write_json(path, value)
  text = path.read_text()
  assert json.loads(text) == {'psnr': ['inf', 1.5], 'b': ['nan', '-inf', None, 3]}
  with pytest.raises(TypeError):
    files.write_json(path, {'bad': object()})
  assert path.read_text() == text
  assert [p.name for p in path.parent.iterdir()] == ['a.json']


def test_csv_has_the_fields_given_and_then_those_of_the_lines():
  text = files.csv_of(['b', 'a'], [{'a': 1, 'c': 'x, "y"'}, {'b': 2}])
  assert text.splitlines()[0] == 'b,a,c'
  assert list(csv.DictReader(io.StringIO(text))) == [{'b': '', 'a': '1', 'c': 'x, "y"'}, {'b': '2', 'a': '', 'c': ''}]
