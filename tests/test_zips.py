"""Archives of strangers end in a line of text, never in a hang or another library's error."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from vqm_jax import errors, video, zips


def png() -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, format='PNG')
  return buffer.getvalue()


def archive(path, *names, compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, 'w', compression) as file:
    for name in names:
      file.writestr(name, png())
  return path


def patched(path, local, central, value):
  """Writes a 16-bit `value` into the heads of the first entry."""
  content = bytearray(path.read_bytes())
  for start, place in ((content.index(b'PK\3\4'), local), (content.index(b'PK\1\2'), central)):
    content[start + place : start + place + 2] = struct.pack('<H', value)
  path.write_bytes(bytes(content))


@pytest.mark.parametrize('name', ['//0.png', '/0.png', 'a//0.png', '../0.png', 'a/../../0.png', './0.png', 'a\n/0.png'])
def test_entries_that_are_no_paths_within_are_refused(tmp_path, name):
  path = archive(tmp_path / 'a.zip', name)
  for opened in (zips.root, video.open_video, video.list_videos):
    with pytest.raises(errors.VqmError, match='a.zip: entry .* is no proper path within an archive; unpack it'):
      opened(path)


def test_encrypted_and_unknown_methods_are_told(tmp_path):
  path = archive(tmp_path / 'a.zip', '0.png')
  patched(path, 6, 8, 1)
  with pytest.raises(errors.VideoError, match="entry '0.png' is encrypted; unpack it with its password"):
    video.open_video(path)
  for method, name in ((9, 'deflate64'), (77, 'unknown')):
    path = archive(tmp_path / 'a.zip', '0.png')
    patched(path, 8, 10, method)
    with pytest.raises(errors.VideoError, match=rf'packed by method {method} \({name}\), expected one of stored, def'):
      video.open_video(path)


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_is_told_in_a_line(tmp_path, compression):
  path = archive(tmp_path / 'a.zip', '0.png', '1.png', compression=compression)
  whole = path.read_bytes()
  assert len(list(video.open_video(path).frames())) == 2
  rng = np.random.default_rng(compression)
  told = 0
  for place in rng.integers(len(whole), size=60):
    content = bytearray(whole)
    content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(content[: place + 1] if rng.random() < 0.2 else content))
    try:
      list(video.open_video(path).frames())
    except errors.VqmError as error:
      told += 1
      assert '\n' not in str(error) and str(path) in str(error)
  assert told > 30


def test_images_of_strangers(tmp_path):
  bomb = io.BytesIO()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(bomb, format='PNG')
  content = bytearray(bomb.getvalue())
  content[16:24] = struct.pack('>II', 50000, 50000)
  content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
  text = zlib.compress(b'x' * (2 << 20))
  chunk = b'zTXtc\0\0' + text
  long_text = png()[:33] + struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk)) + png()[33:]
  tiff = io.BytesIO()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tiff, format='TIFF')
  odd = tiff.getvalue()[:-40]
  for name, damaged in (
    ('a.png', bytes(content)),
    ('b.png', long_text),
    ('c.tif', odd),
    ('d.png', b''),
    ('e.bmp', b'BM'),
  ):
    folder = tmp_path / name[0]
    folder.mkdir()
    (folder / name).write_bytes(damaged)
    with pytest.raises(errors.VideoError, match=name):
      video.open_video(folder)
