"""What strangers, full disks and transmissions make of files: damage to bytes, and to what JSON, CSV or zip files hold.

Every function takes the content of a valid file and a `random.Random` and gives other content; None stands for a file
that is gone. Equal seeds give equal damage.
"""

import copy
import io
import json
import pathlib
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes | None]

_BORDERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)

# What names and texts in files may hold that they should not.
TEXTS = (
  *('', ' ', '.', '..', '../../../../../ESCAPED', '/', '//', '~', 'a/b', 'a\\b', 'C:\\x', 'a\0b', 'a\nb', 'a\rb'),
  *('NUL', 'con.png', '\x1b[31mred', '\u202egnp.exe', '\ud800', '\udfff', '\ufeff', '²', '١٢٣', '１２', 'é', 'é' * 200),
  *('x' * 300, 'x' * 200_000, '%s%n%d', '{0}', '{name}', '$HOME', '`id`', '<script>alert(1)</script>', "'", '"'),
  *('nan', 'inf', '-inf', '1e400', '-1', '0', '1/0', '0/1', '1e999999999', '9' * 5000, 'true', 'null', '[', '{}', ','),
  *('timing', 'clips', '__proto__', '__class__', '日本', '🎞', 'ﬀ', 'a' + '\u0301' * 500),
)  # fmt: skip

# Stand for text that no value of Python gives; `_RAW` are strings that are replaced when all is text.
_RAW = {
  '@@huge@@': '1' + '0' * 400, '@@infinite@@': '1e400', '@@nan@@': 'NaN', '@@Infinity@@': '-Infinity',
  '@@deep@@': '[' * 100_000 + ']' * 100_000, '@@deeper@@': '{"a":' * 5000 + '1' + '}' * 5000, '@@half@@': '"\\ud800"',
  '@@open@@': '[' * 100_000, '@@digits@@': '9' * 5000, '@@tiny@@': '1e-400', '@@minus@@': '-0',
}  # fmt: skip


def mutate(content: bytes, name: str, rng: random.Random) -> bytes | None:
  """Damages a file in a way that suits its name, once or a few times."""
  suited = _SUITED.get(pathlib.PurePath(name).suffix.lower(), ())
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    how = rng.choice(suited) if suited and rng.random() < 0.6 else damage
    try:
      changed = how(content, rng)
    except Exception:  # what is damaged already may be no JSON, no archive
      changed = damage(content, rng)
    if changed is None:
      return None
    content = changed
  return content


def damage(content: bytes, rng: random.Random) -> bytes | None:
  """Damages bytes of whatever kind."""
  return rng.choice(_DAMAGES)(content, rng)


def _place(content: bytes, rng: random.Random) -> int:
  """A place in the file, mostly near its ends, where the headers are."""
  size = max(1, len(content))
  kind = rng.random()
  if kind < 0.4:
    return rng.randrange(min(size, 256))
  if kind < 0.55:
    return size - 1 - rng.randrange(min(size, 2048))
  return rng.randrange(size)


def _flip(content, rng):
  out = bytearray(content)
  for _ in range(rng.choice((1, 1, 2, 8, 30))):
    if out:
      out[_place(content, rng)] ^= 1 << rng.randrange(8)
  return bytes(out)


def _cut(content, rng):
  return content[: _place(content, rng)]


def _insert(content, rng):
  at = _place(content, rng)
  return content[:at] + rng.randbytes(rng.choice((1, 2, 4, 100))) + content[at:]


def _remove(content, rng):
  at = _place(content, rng)
  return content[:at] + content[at + rng.choice((1, 2, 4, 64, 1000)) :]


def _overwrite(content, rng):
  at, size = _place(content, rng), rng.choice((1, 4, 16, 200, 4000))
  patch = rng.choice((bytes(size), b'\xff' * size, rng.randbytes(size)))[: max(0, len(content) - at)]
  return content[:at] + patch + content[at + len(patch) :]


def _border(content, rng):
  width = rng.choice((1, 2, 4, 8))
  at = min(_place(content, rng), max(0, len(content) - width))
  value = (rng.choice(_BORDERS) & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(('little', 'big')))
  return content[:at] + value + content[at + width :]


def _repeat(content, rng):
  at, size = _place(content, rng), rng.choice((4, 64, 1000))
  return content[: at + size] + content[at : at + size] * rng.choice((1, 1, 50)) + content[at + size :]


def _swap(content, rng):
  size = rng.choice((4, 64, 512))
  one, other = sorted((_place(content, rng), _place(content, rng)))
  if one + size > other:
    return _flip(content, rng)
  middle = content[one + size : other]
  return content[:one] + content[other : other + size] + middle + content[one : one + size] + content[other + size :]


def _append(content, rng):
  return content + rng.choice((b'\0' * 100, content, rng.randbytes(1000), b'\n', b'\xff'))


def _replace(content, rng):
  return rng.choice((b'', b'\0', b'\n', b'null', b'{}', b'[]', b'PK', b'\x89PNG\r\n\x1a\n', rng.randbytes(500), None))


_DAMAGES = (_flip, _flip, _cut, _cut, _insert, _remove, _overwrite, _border, _border, _repeat, _swap, _append, _replace)


def json_tree(content: bytes, rng: random.Random) -> bytes:
  """Another value, field, type or encoding in JSON, or in a line of it."""
  lines = content.decode().split('\n')
  try:
    json.loads(content)
    texts, which = [content.decode()], 0
  except ValueError:  # a line for each value
    texts, which = lines, rng.randrange(len(lines))
  if texts[which].strip():
    texts[which] = _raw(json.dumps(_changed(json.loads(texts[which]), rng), ensure_ascii=rng.random() < 0.5))
  if len(texts) > 1 and rng.random() < 0.3:
    texts.insert(rng.randrange(len(texts)), rng.choice(texts))
  return _encoded('\n'.join(texts), rng)


def _raw(text: str) -> str:
  for mark, instead in _RAW.items():
    text = text.replace(f'"{mark}"', instead)
  return text


def _encoded(text: str, rng: random.Random) -> bytes:
  if rng.random() < 0.85:
    return text.encode('utf-8', 'surrogatepass')
  encoding = rng.choice(('utf-16', 'utf-16-le', 'utf-32', 'utf-8-sig', 'latin-1', 'cp1252'))
  return text.encode(encoding, 'surrogatepass' if encoding.startswith('utf') else 'replace')


def _odd(rng: random.Random) -> Any:
  """A value that nobody expects."""
  return rng.choice(
    (
      *(None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 10**30, -(10**30), 2**63, 2**31, 10**9, [], {}, [[]], [None]),
      *([0], {'a': 1}, {'': None}, [{}], ['x'], [1, 'x', None]),
      *(rng.choice(TEXTS), rng.choice(TEXTS), rng.choice(list(_RAW))),
    )
  )  # fmt: skip


def _changed(value: Any, rng: random.Random) -> Any:
  """A copy of a JSON value with one change in a random place."""
  value = copy.deepcopy(value)
  places = list(_places(value))
  if not places or rng.random() < 0.04:
    return _odd(rng)
  holder, key = rng.choice(places)
  old = holder[key]
  kind = rng.random()
  if kind < 0.45:
    holder[key] = _odd(rng)
  elif kind < 0.6:
    del holder[key]
  elif kind < 0.7 and isinstance(holder, dict):
    holder[rng.choice(TEXTS)] = holder.pop(key)
  elif kind < 0.78 and isinstance(holder, dict):
    holder[rng.choice(('note', 'x', *TEXTS))] = _odd(rng)
  elif kind < 0.86 and isinstance(old, int | float) and not isinstance(old, bool):
    holder[key] = rng.choice((-old, old + 1, old * 1000, old / 3, str(old), float(old), [old]))
  elif kind < 0.92 and isinstance(holder, list):
    holder.insert(key, copy.deepcopy(old) if rng.random() < 0.5 else _odd(rng))
  elif kind < 0.96:
    holder[key] = {'': old} if rng.random() < 0.5 else [old]
  else:
    other, its = rng.choice(places)
    holder[key], other[its] = copy.deepcopy(other[its]), copy.deepcopy(old)
  return value


def _places(value: Any):
  """(container, key) of every value in a tree."""
  items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
  for key, item in list(items):
    yield value, key
    yield from _places(item)


def csv_table(content: bytes, rng: random.Random) -> bytes:
  """Another cell, column, line, quoting or encoding in a CSV file."""
  text = content.decode()
  rows = [line.split(',') for line in text.splitlines()]
  row = rng.choice(rows)
  kind = rng.randrange(9)
  if kind <= 3:
    cells = *TEXTS, '"', '"x', 'x"y', '"' + 'y' * 140_000 + '"', '-5', '1e3', '0-9;x'
    row[rng.randrange(len(row))] = rng.choice(cells)
  elif kind == 4:
    row.pop(rng.randrange(len(row)))
  elif kind == 5:
    row.insert(rng.randrange(len(row) + 1), rng.choice(TEXTS))
  elif kind == 6:
    rows.insert(rng.randrange(len(rows) + 1), list(rng.choice(rows)))
  elif kind == 7:
    rows.remove(row)
  else:
    for line in rows:
      line.append(line[0])
  separator = rng.choice((',', ',', ',', ',', ';', '\t'))
  return _encoded(rng.choice(('\n', '\n', '\r\n', '\r')).join(map(separator.join, rows)) + '\n', rng)


def zip_entries(content: bytes, rng: random.Random) -> bytes:
  """Another list of entries: names that lead elsewhere, twice the same, bombs, damaged members, other methods."""
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
  at = rng.randrange(len(entries))
  name, data = entries[at]
  kind = rng.randrange(6)
  folder, dot, suffix = name.rpartition('.')
  if kind == 0:
    entries[at] = rng.choice((*TEXTS, '//0.png', './0.png', 'a/../../0.png', '/0.png', f'../{name}', f'{name}/')), data
  elif kind == 1:
    entries.insert(at, (rng.choice((name, name.upper(), f'{folder}x{dot}{suffix}', f'x/{name}')), data))
  elif kind == 2:
    entries.pop(at)
  elif kind == 3:
    entries[at] = name, mutate(data, name, rng) or b''
  elif kind == 4:
    entries[at] = name, bytes(rng.choice((0, 10, 8 << 20)))
  out = io.BytesIO()
  methods = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
  method = rng.choice(methods)
  with zipfile.ZipFile(out, 'w') as archive:
    for one, its in entries:
      info = zipfile.ZipInfo(one.encode('utf-8', 'replace').decode() or '?')  # of no time, to be the same again
      info.compress_type = method
      archive.writestr(info, its)
  packed = bytearray(out.getvalue())
  if kind == 5:  # the heads of an entry: version, flags, method, time, sum, sizes, length of the name
    which = rng.choice((b'PK\1\2', b'PK\3\4', b'PK\5\6'))
    heads = [k for k in range(len(packed) - 46) if packed[k : k + 4] == which]
    if heads:
      start = rng.choice(heads) + rng.randrange(4, 46)
      packed[start : start + 2] = struct.pack('<H', rng.choice((0, 1, 9, 12, 14, 93, 95, 98, 99, 0x7FFF, 0xFFFF)))
  return bytes(packed)


def png_chunks(content: bytes, rng: random.Random) -> bytes:
  """Chunks of a PNG file changed, removed, repeated, added or claiming to be large, with checksums that fit."""
  chunks, at = [], 8
  while at + 12 <= len(content):
    (length,) = struct.unpack('>I', content[at : at + 4])
    chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
    at += length + 12
  which = rng.choice(chunks)
  kind = rng.randrange(7)
  if kind == 0:
    chunks.remove(which)
  elif kind == 1:
    chunks.insert(rng.randrange(len(chunks) + 1), list(which))
  elif kind == 2:
    which[1] = damage(which[1], rng) or b''
  elif kind == 3:
    sizes = (0, 1, 7, 50_000, 13_000, 0x7FFFFFFF, 0xFFFFFFFF)
    chunks[0][1] = struct.pack('>II', rng.choice(sizes), rng.choice(sizes)) + chunks[0][1][8:]
  elif kind == 4:
    kinds = (b'zTXtc\0\0', b'iCCPc\0\0', b'iTXtc\0\1\0\0\0')
    text = rng.choice(kinds) + zlib.compress(bytes(rng.choice((10, 2 << 20, 20 << 20))))
    chunks.insert(1, [text[:4], text[4:]])
  elif kind == 5:
    names = (b'tRNS', b'gAMA', b'acTL', b'fcTL', b'fdAT', b'eXIf', b'PLTE', b'cICP', b'sBIT', b'IEND', b'xxxx')
    chunks.insert(rng.randrange(len(chunks) + 1), [rng.choice(names), rng.randbytes(rng.choice((0, 1, 8, 26, 256)))])
  else:
    head = bytearray(chunks[0][1])
    if len(head) > 12:
      head[rng.randrange(8, 13)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    chunks[0][1] = bytes(head)
  body = b''.join(struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d)) for k, d in chunks)
  return content[:8] + body


def safetensors_header(content: bytes, rng: random.Random) -> bytes:
  """Another header of a safetensors file, whose length fits."""
  size = int.from_bytes(content[:8], 'little')
  header = json_tree(content[8 : 8 + size].rstrip(), rng)
  length = len(header) if rng.random() < 0.9 else rng.choice(_BORDERS)
  return length.to_bytes(8, 'little', signed=False) + header + content[8 + size :]


def boxes(content: bytes, rng: random.Random) -> bytes:
  """Boxes of an mp4 file removed, repeated, swapped or of another length, at any depth."""
  found, stack = [], [(0, len(content))]
  while stack:
    start, stop = stack.pop()
    while start + 8 <= stop:
      length, kind = struct.unpack('>I4s', content[start : start + 8])
      if length < 8 or start + length > stop:
        break
      found.append((start, length))
      if kind in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'edts', b'udta', b'moof', b'traf'):
        stack.append((start + 8, start + length))
      start += length
  start, length = rng.choice(found)
  box, kind = content[start : start + length], rng.randrange(5)
  if kind == 0:
    box = b''
  elif kind == 1:
    box = box * rng.choice((2, 20))
  elif kind == 2:
    box = struct.pack('>I', rng.choice((0, 1, 7, 8, length - 1, length + 1, 0x7FFFFFFF, 0xFFFFFFFF))) + box[4:]
  elif kind == 3:
    box = box[:4] + rng.choice((b'free', b'moov', b'mdat', b'stsz', b'stts', b'xxxx')) + box[8:]
  else:
    at = rng.randrange(8, max(9, length))
    box = box[:at] + struct.pack('>I', rng.choice(_BORDERS[:11])) + box[at + 4 :]
  return content[:start] + box + content[start + length :]


_SUITED: dict[str, tuple[Mutation, ...]] = {
  **dict.fromkeys(('.json', '.jsonl'), (json_tree,)),
  '.csv': (csv_table,),
  **dict.fromkeys(('.zip', '.pth', '.npz'), (zip_entries,)),
  **dict.fromkeys(('.png', '.apng'), (png_chunks,)),
  '.safetensors': (safetensors_header,),
  **dict.fromkeys(('.mp4', '.mov'), (boxes,)),
}
