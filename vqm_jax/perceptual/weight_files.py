"""Reads arrays out of weight files: PyTorch's .pth (zip and the older format), safetensors, npz. No PyTorch needed.

A .pth file is a pickle, and a pickle may run any code. Ours calls nothing but what a dict of tensors needs, and of
that nothing of PyTorch's: every name in the pickle is looked up in a short list, and each stands for a harmless
object of this module without attributes that a pickle could set.

Formats: https://docs.pytorch.org/docs/stable/notes/serialization.html and https://github.com/huggingface/safetensors.
"""

import collections
import contextlib
import math
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vqm_jax import errors, schemas

_DTYPES = {
  **{'F64': np.dtype('<f8'), 'F32': np.dtype('<f4'), 'F16': np.dtype('<f2'), 'BF16': np.dtype(jnp.bfloat16)},
  **{'I64': np.dtype('<i8'), 'I32': np.dtype('<i4'), 'I16': np.dtype('<i2'), 'I8': np.dtype('i1')},
  **{'U8': np.dtype('u1'), 'BOOL': np.dtype('?')},
}
_STORAGES = {
  **{'DoubleStorage': 'F64', 'FloatStorage': 'F32', 'HalfStorage': 'F16', 'BFloat16Storage': 'BF16'},
  **{'LongStorage': 'I64', 'IntStorage': 'I32', 'ShortStorage': 'I16', 'CharStorage': 'I8'},
  **{'ByteStorage': 'U8', 'BoolStorage': 'BOOL'},
}

# Where BasicSR keeps a network's weights, the moving average first.
_NESTED = ('params_ema', 'params')

# What opens a file of torch.save before version 1.6 (and of the linear heads of LPIPS).
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def read(path: pathlib.Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
  """The arrays of a file whose names are `wanted`; the format is told by the first bytes, not by the name.

  Raises:
    DataError: the file is none of these formats, is cut or damaged, or its pickle asks for more than tensors.
    OSError: it cannot be opened.
  """
  with path.open('rb') as file, _told(path):
    start = file.read(9)
    file.seek(0)
    if start[8:] == b'{':
      return _read_safetensors(file, wanted)
    if start.startswith(b'PK'):
      with zipfile.ZipFile(file) as archive:
        is_torch = any(name.endswith('/data.pkl') for name in archive.namelist())
        return (_read_zip if is_torch else _read_npz)(archive, wanted)
    if start.startswith(b'\x80'):
      return _read_legacy(file, wanted)
    raise errors.DataError('expected .pth, .safetensors or .npz, found none of them')


@contextlib.contextmanager
def _told(path: pathlib.Path) -> Iterator[None]:
  """Name the file in every error. Damaged pickles and archives raise nearly every exception that Python has."""
  try:
    yield
  except errors.DataError as error:
    raise errors.DataError(f'{path}: {error}.') from None
  except Exception as error:
    raise errors.DataError(
      f'{path}: cut or damaged ({type(error).__name__}: {error}); copy or download it again.'
    ) from error


class _Storage(NamedTuple):
  """A run of numbers in the file, which tensors are views of."""

  dtype: np.dtype
  key: str
  count: int


class _View(NamedTuple):
  """A tensor: where it begins in its storage, and its shape and strides, all counted in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def read(self, buffer: bytes) -> np.ndarray:
    dtype, count = self.storage.dtype, self.storage.count
    if len(buffer) != count * dtype.itemsize or math.prod(self.shape) > count:
      raise ValueError(f'tensor of shape {self.shape} in {len(buffer)} bytes')
    strides = [step * dtype.itemsize for step in self.strides]
    return np.ndarray(self.shape, dtype, buffer, self.offset * dtype.itemsize, strides).copy()


# Instances without attributes: a pickle may call them, and finds nothing to set on them.
class _RebuildTensor:
  __slots__ = ()

  def __call__(self, storage, offset, shape, strides, *unused):
    if not isinstance(storage, _Storage):
      raise ValueError('tensor without storage')
    return _View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _RebuildParameter:
  __slots__ = ()

  def __call__(self, tensor, *unused):
    return tensor


_ALLOWED = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch._utils', '_rebuild_tensor'): _RebuildTensor(),
  ('torch._utils', '_rebuild_tensor_v2'): _RebuildTensor(),
  ('torch._utils', '_rebuild_parameter'): _RebuildParameter(),
  **{('torch', name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle._Unpickler):
  """Loads dicts of `_View`s; `storages` are those it has met.

  Python's own implementation, not the one in C, which crafted opcodes bring to claim gigabytes or to fail inside the
  interpreter. Without arrays of bytes, for which it takes all the memory that they claim before it reads.
  """

  dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}

  def __init__(self, file: IO[bytes]):
    super().__init__(file, encoding='latin1')  # the older files were written by Python 2
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ALLOWED:
      raise errors.DataError(f'refused, its pickle asks for {module}.{name}; a file of weights needs tensors only')
    return _ALLOWED[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    _, code, key, _, count, *view = pid
    if any(part is not None for part in view):
      raise errors.DataError('storages that are views of others are not supported; save the file anew')
    return self.storages.setdefault(str(key), _Storage(_DTYPES[code], str(key), int(count)))

  def views(self, wanted: Callable[[str], bool]) -> dict[str, _View]:
    state = self.load()
    if isinstance(state, dict):
      state = next((state[key] for key in _NESTED if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict):
      raise errors.DataError(f'expected a dict of tensors (a state_dict), found {type(state).__name__}')
    return {
      name: view for name, view in state.items() if isinstance(view, _View) and isinstance(name, str) and wanted(name)
    }


def _read_zip(archive: zipfile.ZipFile, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
  members = archive.namelist()
  root = next(name for name in members if name.endswith('/data.pkl')).removesuffix('data.pkl')
  if f'{root}byteorder' in members and archive.read(f'{root}byteorder') != b'little':
    raise errors.DataError('big-endian files are not supported')
  with archive.open(f'{root}data.pkl') as file:
    views = _Unpickler(file).views(wanted)
  return {name: view.read(archive.read(f'{root}data/{view.storage.key}')) for name, view in views.items()}


def _read_legacy(file: IO[bytes], wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
  """Five pickles (magic number, protocol, system, state, keys), then each storage's count (int64) and numbers."""
  pickled = _Bounded(file)
  magic, protocol, system = (_Unpickler(pickled).load() for _ in range(3))
  if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
    raise errors.DataError('a pickle, but not one of torch.save')
  if not system['little_endian']:
    raise errors.DataError('big-endian files are not supported')
  unpickler = _Unpickler(pickled)
  views = unpickler.views(wanted)
  needed = {view.storage.key for view in views.values()}
  buffers = {}
  for key in _Unpickler(pickled).load():
    storage = unpickler.storages[key]
    if int.from_bytes(file.read(8), 'little') != storage.count:
      raise ValueError(f'storage {key} has another length than its tensor')
    size = storage.count * storage.dtype.itemsize
    if key in needed:
      buffers[key] = _taken(file, size)
    else:
      file.seek(size, 1)
  return {name: view.read(buffers[view.storage.key]) for name, view in views.items()}


def _read_safetensors(file: IO[bytes], wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
  """The header's length (uint64), the header (JSON), then the numbers."""
  header = schemas.parse(safetensors_header(file))
  start, arrays = file.tell(), {}
  for name, entry in header.items():
    if name != '__metadata__' and wanted(name):
      begin, end = entry['data_offsets']
      file.seek(start + begin)
      arrays[name] = np.frombuffer(_taken(file, end - begin), _DTYPES[entry['dtype']]).reshape(entry['shape'])
  return arrays


def safetensors_header(file: IO[bytes]) -> bytes:
  """The header of a safetensors file, JSON, read from its start. Raises ValueError where the file ends before."""
  file.seek(0)
  return _taken(file, int.from_bytes(file.read(8), 'little'))


class _Bounded:
  """A file as `pickle` reads it, which does not ask for the memory that lengths in it claim."""

  def __init__(self, file: IO[bytes]):
    self._file, self.readline = file, file.readline

  def read(self, size: int) -> bytes:
    return self._file.read(size) if size < 2**16 else _taken(self._file, size)


def _taken(file: IO[bytes], size: int) -> bytes:
  """The next `size` bytes; a file that has fewer is told without asking for memory for all that it says."""
  left = os.fstat(file.fileno()).st_size - file.tell()
  if not 0 <= size <= left:
    raise ValueError(f'expected {size} more bytes, found {left}')
  return file.read(size)


def _read_npz(archive: zipfile.ZipFile, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
  arrays = {}
  for member in archive.namelist():
    name = member.removesuffix('.npy')
    if name != member and wanted(name):
      with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        of_version = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = of_version(file)
        if dtype.hasobject:
          raise errors.DataError(f'{member} holds objects, expected numbers')
        # Numbers as they are: `read_array` asks for as much memory as the header says.
        arrays[name] = np.frombuffer(file.read(), dtype).reshape(shape, order='F' if by_columns else 'C')
  return arrays
