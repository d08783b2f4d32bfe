"""Files that are written whole or not at all."""

import csv
import io
import json
import pathlib

import pytest
from full_disk import no_file_beyond

from vqm_jax import errors, files


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


@pytest.mark.parametrize('old', [None, 'file', 'folder'])
def test_a_folder_takes_the_place_of_what_is_there(tmp_path, old):
  path = tmp_path / 'new'
  if old == 'folder':
    files.write_text(path / 'old.txt', 'x')
  elif old == 'file':
    files.write_text(path, 'x')
  with files.replacing(path) as partial:
    files.write_text(partial / 'a.txt', 'one')
  assert [entry.name for entry in path.iterdir()] == ['a.txt'] and list(tmp_path.iterdir()) == [path]
  with pytest.raises(ZeroDivisionError), files.replacing(path) as partial:
    files.write_text(partial / 'b.txt', 'two')
    1 / 0  # noqa: B018
  assert [entry.name for entry in path.iterdir()] == ['a.txt'] and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_take_its_place_leaves_what_was_there(tmp_path, monkeypatch):
  path = tmp_path / 'new'
  files.write_text(path / 'old.txt', 'x')
  rename = pathlib.Path.rename

  def refuse(self, target):
    if self.suffix == '.partial':
      raise PermissionError(13, 'Permission denied', str(self))
    return rename(self, target)

  monkeypatch.setattr(pathlib.Path, 'rename', refuse)
  with pytest.raises(PermissionError), files.replacing(path) as partial:
    files.write_text(partial / 'a.txt', 'one')
  assert [entry.name for entry in path.iterdir()] == ['old.txt'] and list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_nothing_is_left_of_a_folder(tmp_path):
  with pytest.raises(errors.DiskFullError, match=f'^{tmp_path}/new/?.*: no room to write this; .*Make room'):
    with no_file_beyond(2000), files.replacing(tmp_path / 'new') as partial:
      partial.mkdir()
      (partial / 'whole').write_bytes(bytes(1000))
      (partial / 'half').write_bytes(bytes(3000))
  assert not list(tmp_path.iterdir())
