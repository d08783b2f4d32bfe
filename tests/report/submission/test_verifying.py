"""Archives as a challenge server takes or refuses them."""

import zipfile

import pytest
from report.packing import LINES, packed, png

from vqm_jax import errors
from vqm_jax.report.submission import archive


def rewritten(path, change):
  """The zip with other entries: `change` maps {name: bytes} to a list of (name, bytes)."""
  with zipfile.ZipFile(path) as old:
    entries = {info.filename: old.read(info) for info in old.infolist()}
  with zipfile.ZipFile(path, 'w') as new:
    for name, content in change(entries):
      new.writestr(name, content)
  return path


EXPECTED = {f'{clip}_{k:06d}.png': (32, 24) for clip in ('076', '077') for k in (9, 19)}


def test_what_was_packed_is_accepted(tmp_path):
  path = packed(tmp_path)
  assert set(archive.verify(path)) == set(EXPECTED) == set(archive.verify(path, EXPECTED))
  assert [name for name, _ in archive.frames(path, ['076_000009.png'])] == ['076_000009.png']


def add(name, content=b'x'):
  return lambda entries: [*entries.items(), (name, content)]


def replace(name, content):
  return lambda entries: (entries | {name: content}).items()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (add('078_000009.png', png()), '1 frames are not expected .078_000009.png.'),
    (lambda e: [item for item in e.items() if item[0] != '077_000019.png'], '1 of 4 frames are missing .077_000019'),
    (lambda e: [(f'frames/{name}', content) for name, content in e.items()], 'lies in one, expected a flat archive'),
    (add('frames/', b''), 'frames/ is a folder'),
    (add('notes.md'), 'notes.md is neither a .png nor readme.txt'),
    (add('Readme.txt'), 'is neither|is there 2 times'),
    (lambda e: [item for item in e.items() if item[0] != 'readme.txt'], 'readme.txt is missing'),
    (replace('readme.txt', LINES.replace('1.23', 'x').encode()), 'the runtime is'),
    (replace('076_000009.png', png()), '076_000009.png is 4x4, expected 32x24'),
    (replace('076_000009.png', png(bits=16)), '076_000009.png is 16-bit RGB, expected plain'),
    (replace('076_000009.png', png(colour=6)), '8-bit RGB with alpha'),
    (replace('076_000009.png', b'no picture'), '076_000009.png is no PNG file'),
    (add('../../etc/passwd.png'), 'leads out of the folder'),
    (add('/tmp/x.png'), 'leads out of the folder'),
    (add('C:x.png'), 'leads out of the folder'),
    (add('..\\x.png'), 'leads out of the folder'),
  ],
)
def test_archives_that_would_be_refused(tmp_path, change, message):
  path = rewritten(packed(tmp_path), change)
  with pytest.raises(errors.DataError, match=f'a.zip would be refused: .*{message}'):
    archive.verify(path, EXPECTED)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.zip', 'frames']  # nothing was unpacked


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_twice_the_same_name(tmp_path):
  path = rewritten(packed(tmp_path), add('076_000009.png', png()))
  with pytest.raises(errors.DataError, match='076_000009.png is there 2 times'):
    archive.verify(path)


def test_files_that_are_no_zip(tmp_path):
  path = packed(tmp_path)
  content = bytearray(path.read_bytes())
  for damage in (content[: len(content) // 2], b'', b'PK', content[:200] + b'\xff' * 64 + content[264:]):
    path.write_bytes(damage)
    with pytest.raises(errors.DataError, match='is no zip that can be read|would be refused'):
      archive.verify(path)
  with pytest.raises(errors.DataError, match='no such file'):
    archive.verify(tmp_path / 'none.zip')
