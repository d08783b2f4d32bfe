"""Weight files of every format, and files that lie: nothing of a pickle runs, nothing damaged gets through."""

import io
import json
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from vqm_jax import errors
from vqm_jax.perceptual import weight_files
from vqm_jax.perceptual.weights import random_source

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'
PTH = [GOLDEN / 'lpips_alex_zip.pth', GOLDEN / 'lpips_alex_legacy.pth']
BY_FORMAT = pytest.mark.parametrize('path', PTH, ids=['zip', 'legacy'])


def read(path):
  return weight_files.read(path, lambda name: True)


def safetensors(header, data=b''):
  header = json.dumps(header).encode()
  return struct.pack('<Q', len(header)) + header + data


def with_pickle(path, pickled):
  """The bytes of a .pth file with another pickle of its tensors."""
  if 'legacy' in path.name:
    file = io.BytesIO(path.read_bytes())
    for _ in range(3):
      pickle.load(file)
    return path.read_bytes()[: file.tell()] + pickled
  out = io.BytesIO()
  with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, 'w') as copy:
    for name in archive.namelist():
      copy.writestr(name, pickled if name.endswith('/data.pkl') else archive.read(name))
  return out.getvalue()


@BY_FORMAT
def test_files_of_torch(path):
  expected = random_source('lpips-alex')
  found = read(path)
  assert found.keys() == expected.keys()
  for name, array in found.items():
    np.testing.assert_array_equal(array, expected[name])
  assert weight_files.read(path, 'lin3.model.1.weight'.__eq__).keys() == {'lin3.model.1.weight'}


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32', 'float64', 'int64'])
def test_live_files_of_torch(tmp_path, dtype, zipped):
  torch = pytest.importorskip('torch')
  base = torch.arange(24, dtype=getattr(torch, dtype))
  state = {
    'view': base[4:16].reshape(3, 4).t(),
    'parameter': torch.nn.Parameter(base.reshape(2, 12), requires_grad=False),
    'scalar': base[5],
    'step': 3,
  }
  torch.save(state, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
  found = read(tmp_path / 'x.pth')
  assert found.keys() == {'view', 'parameter', 'scalar'}
  for name, array in found.items():
    assert array.dtype.name == dtype
    np.testing.assert_array_equal(array.astype(np.float64), state[name].double().numpy())


def test_safetensors_and_npz(tmp_path):
  values = np.arange(6, dtype=np.float32)
  header = {
    '__metadata__': {'format': 'pt'},
    'a': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24]},
    'b': {'dtype': 'BF16', 'shape': [2], 'data_offsets': [24, 28]},
  }
  # bfloat16 is the upper half of float32
  (tmp_path / 'x.safetensors').write_bytes(safetensors(header, values.tobytes() + b'\x80\x3f\x00\xc0'))
  np.savez(tmp_path / 'x.npz', a=values.reshape(2, 3), b=np.array([1.0, -2.0]))
  for name in ('x.safetensors', 'x.npz'):
    found = read(tmp_path / name)
    np.testing.assert_array_equal(found['a'], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found['b'].astype(np.float32), [1, -2])


class Touch:
  """Its pickle creates a file when it is loaded."""

  def __init__(self, path, function=os.system):
    self.path, self.function = path, function

  def __reduce__(self):
    argument = f'touch {self.path}' if self.function is os.system else f'open({str(self.path)!r}, "w").close()'
    return self.function, (argument,)


@BY_FORMAT
@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize('function', [os.system, eval, exec])
def test_code_in_a_pickle_does_not_run(tmp_path, path, protocol, function):
  mark = tmp_path / 'ran'
  payload = pickle.dumps({'lin0.model.1.weight': Touch(mark, function)}, protocol)
  bad = tmp_path / 'x.pth'
  bad.write_bytes(with_pickle(path, payload))
  with pytest.raises(errors.DataError, match=rf'x\.pth: refused, its pickle asks for .*{function.__name__}; a file of'):
    read(bad)
  assert not mark.exists()
  pickle.loads(payload)  # it would have
  assert mark.exists()


def test_code_where_the_magic_number_should_be_does_not_run(tmp_path):
  (tmp_path / 'x.pth').write_bytes(pickle.dumps(Touch(tmp_path / 'ran'), 2))
  with pytest.raises(errors.DataError, match=r'refused, its pickle asks for \w+.system'):
    read(tmp_path / 'x.pth')
  np.save(tmp_path / 'x.npy', np.array([Touch(tmp_path / 'ran')], object), allow_pickle=True)
  with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive:
    archive.write(tmp_path / 'x.npy', 'x.npy')
  with pytest.raises(errors.DataError, match='x.npz: x.npy holds objects, expected numbers'):
    read(tmp_path / 'x.npz')
  assert not (tmp_path / 'ran').exists()


REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'
STORAGE = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQ"


@BY_FORMAT
@pytest.mark.parametrize(
  'pickled',
  [
    b"ccollections\nOrderedDict.fromkeys\n.",  # an attribute of what is allowed
    b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
    REBUILD + b"N}S'__class__'\nccollections\nOrderedDict\ns\x86b.",  # sets attributes of what is called
    REBUILD + b"N}S'__call__'\nccollections\nOrderedDict\ns\x86b.",
    b"ccollections\nOrderedDict\nN}S'update'\nNs\x86b.",
    b"(dS'x'\n" + REBUILD + b'(NI0\n(I2\nt(I1\nttRs.',  # no storage
    b"(dS'x'\n" + REBUILD + b'(' + STORAGE % 64 + b'I0\n(I1000000000\nt(I0\nttRs.',  # a gigabyte out of nothing
    b"(dS'x'\n" + REBUILD + b'(' + STORAGE % 64 + b'I60\n(I8\nt(I1\nttRs.',  # beyond its storage
    b"(dS'x'\n" + REBUILD + b'(' + STORAGE % 64 + b'I-8\n(I8\nt(I1\nttRs.',
    b"(dS'x'\n" + REBUILD + b'(' + STORAGE % 10**12 + b'I0\n(I8\nt(I1\nttRs.',
    b'I1\n.',
    b'(lp0\n.',
  ],
)  # fmt: skip
def test_pickles_that_lie_are_refused(tmp_path, path, pickled):
  keys = pickle.dumps(['0'], 2) + struct.pack('<q', 64) + bytes(256) if 'legacy' in path.name else b''
  (tmp_path / 'x.pth').write_bytes(with_pickle(path, pickled + keys))
  with pytest.raises(errors.DataError, match=r'x\.pth: '):
    read(tmp_path / 'x.pth')
  test_files_of_torch(path)  # and nothing of the reader has changed


@BY_FORMAT
def test_cut_files_are_told(tmp_path, path):
  whole = path.read_bytes()
  # "refused" where half a name is left
  for size in range(0, len(whole), 97):
    (tmp_path / 'x.pth').write_bytes(whole[:size])
    with pytest.raises(errors.DataError, match=r'x\.pth: (cut or damaged|expected \.pth|refused)'):
      read(tmp_path / 'x.pth')


@pytest.mark.parametrize('content', [b'', b'hello, hello', b'<!DOCTYPE html><html>', b'PK\x05\x06', b'\x80' * 20])
def test_other_files_are_told(tmp_path, content):
  (tmp_path / 'x.pth').write_bytes(content)
  with pytest.raises(errors.DataError, match=r'x\.pth: '):
    read(tmp_path / 'x.pth')


@pytest.mark.parametrize(
  'entry',
  [
    {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 4]},
    {'dtype': 'F32', 'shape': [4], 'data_offsets': [0, 16]},
    {'dtype': 'F4', 'shape': [2], 'data_offsets': [0, 8]},
    {'dtype': 'F32', 'shape': [2]},
    {'dtype': 'F32', 'shape': [2**59], 'data_offsets': [0, 2**61]},
    {'dtype': 'F32', 'shape': [2], 'data_offsets': [8, 0]},
    {'dtype': 'F32', 'shape': [2], 'data_offsets': ['0', 8]},
  ],
)
def test_safetensors_that_lie_are_refused(tmp_path, entry):
  (tmp_path / 'x.safetensors').write_bytes(safetensors({'a': entry}, bytes(8)))
  with pytest.raises(errors.DataError, match='cut or damaged'):
    read(tmp_path / 'x.safetensors')


def test_sizes_that_lie_ask_for_no_memory(tmp_path):
  """Python takes the memory that a length asks for before it reads: more than there is ended as an error of its own."""
  for length in (2**40, 2**62, 2**64 - 1):
    (tmp_path / 'x.safetensors').write_bytes(length.to_bytes(8, 'little') + b'{}')
    with pytest.raises(errors.DataError, match='expected [0-9]+ more bytes, found 2'):
      read(tmp_path / 'x.safetensors')
  header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846975,), }".ljust(117) + b'\n'
  with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive:
    archive.writestr('x.npy', b'\x93NUMPY\1\0' + len(header).to_bytes(2, 'little') + header + bytes(8))
  with pytest.raises(errors.DataError, match='x.npz: cut or damaged') as caught:
    read(tmp_path / 'x.npz')
  assert not isinstance(caught.value.__cause__, MemoryError)
  for opcode in (b'\x8d', b'\x8e', b'\x8a', b'\x8b', b'\x95', b'\x96', b'T', b'X', b'B'):
    (tmp_path / 'x.pth').write_bytes(b'\x80\2' + opcode + (2**40).to_bytes(8, 'little')[::-1] + bytes(20))
    (tmp_path / 'y.pth').write_bytes(b'\x80\2' + opcode + (2**62).to_bytes(8, 'little') + bytes(20))
    (tmp_path / 'z.pth').write_bytes(b'\x80\2' + opcode + b'\xff\xff\xff\x7f' + bytes(20))
    for name in 'xyz':
      with pytest.raises(errors.DataError, match=f'{name}.pth: ') as caught:
        read(tmp_path / f'{name}.pth')
      assert not isinstance(caught.value.__cause__, MemoryError)
