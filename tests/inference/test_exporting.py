"""Networks as files: what is written runs again, without our code where that is promised."""

import functools
import json
import os
import struct
import subprocess
import sys

import jax
import networks
import numpy as np
import pytest
from flax import nnx

from vqm_jax import enhancers, errors, restorers
from vqm_jax.inference import exporting
from vqm_jax.perceptual import weight_files

UNET = dict(width=4, depth=2)
EDVR = dict(width=4, num_frames=3, num_front=1, num_blocks=1, groups=2)

# Another program: JAX and NumPy alone.
RUNNER = """
import sys
for name in ('vqm_jax', 'flax', 'orbax', 'optax'):
  sys.modules[name] = None
import jax, numpy as np
for name in sys.argv[1:]:
  restore = jax.export.deserialize(bytearray(open(name + '.stablehlo', 'rb').read())).call
  clips = np.load(name + '.npz')
  np.savez(name + '_out.npz', **{size: restore(clips[size]) for size in clips.files})
"""


def network(system, args, seed=0):
  return networks.random(functools.partial(restorers.create, system, **args), seed)


def clips(frames, *sizes):
  rng = np.random.default_rng(0)
  return {f'{h}x{w}': rng.random((frames, h, w, 3), dtype=np.float32) for h, w in sizes}


@pytest.mark.slow
def test_stablehlo_runs_without_our_code(tmp_path):
  unet, edvr = network('tcl_unet', UNET), network('tcl_edvr', EDVR)
  (tmp_path / 'unet.stablehlo').write_bytes(exporting.export_stablehlo(unet))
  (tmp_path / 'edvr.stablehlo').write_bytes(exporting.export_stablehlo(edvr, (32, 48)))
  inputs = {'unet': clips(1, (16, 24), (12, 8)), 'edvr': clips(3, (32, 48))}
  for name, of_sizes in inputs.items():
    np.savez(tmp_path / f'{name}.npz', **of_sizes)
  command = [sys.executable, '-c', RUNNER, *inputs]
  process = subprocess.run(command, cwd=tmp_path, env=os.environ | {'PYTHONPATH': ''}, capture_output=True, text=True)
  assert process.returncode == 0, process.stderr
  for name, net in (('unet', unet), ('edvr', edvr)):
    assert_same(np.load(tmp_path / f'{name}_out.npz'), net, inputs[name])


def assert_same(found, net, inputs):
  for name, clip in inputs.items():
    np.testing.assert_allclose(found[name], networks.apply(net, clip[None])[0], rtol=0, atol=1e-6)
    assert found[name].dtype == np.float32


def test_stablehlo_knows_its_sizes_and_platforms():
  exported = jax.export.deserialize(bytearray(exporting.export_stablehlo(network('tcl_unet', UNET))))
  assert exported.platforms == ('cpu', 'cuda', 'tpu')
  assert str(exported.in_avals[0]) == 'float32[1,4*h,4*w,3]' and str(exported.out_avals[0]) == 'float32[4*h,4*w,3]'
  for size in ((18, 24), (4, 24)):
    with pytest.raises(ValueError, match='h'):
      exported.call(np.zeros((1, *size, 3), np.float32))
  data = exporting.export_stablehlo(network('none', {}), (5, 7), ['cpu'])
  exported = jax.export.deserialize(bytearray(data))
  assert exported.platforms == ('cpu',) and exported.in_avals[0].shape == (1, 5, 7, 3)


@pytest.mark.parametrize('system', ['ecnu', 'mixture'])
def test_restorers_of_any_size(system):
  ecnu = dict(width=4, mapping_width=8, num_blocks=1)
  args = ecnu if system == 'ecnu' else dict(members=[['tcl_unet', UNET], ['ecnu', ecnu]])
  assert b'4*h' in exporting.export_stablehlo(network(system, args))


def test_deformable_restorers_want_a_size():
  message = r'^restorers\.tcl\.TCLEDVR cannot be exported for any frame size, .*multiples of 16: --size=HEIGHTxWIDTH\.$'
  with pytest.raises(errors.ConfigError, match=message):
    exporting.export_stablehlo(network('tcl_edvr', EDVR))


@pytest.mark.parametrize('method', ['wespe', 'dpe'])
def test_enhancers_of_single_frames_are_exported(method):
  net = networks.random(functools.partial(enhancers.create_generator, method, width=4))
  exported = jax.export.deserialize(bytearray(exporting.export_stablehlo(net)))
  assert exported.in_avals[0].shape[0] == 1 and exported.out_avals[0].shape[-1] == 3


@pytest.mark.parametrize('export', [exporting.export_stablehlo, exporting.export_onnx])
def test_what_cannot_be_exported_is_told(export):
  with pytest.raises(
    errors.ConfigError,
    match=r'^enhancers\.dacal\.Generator carries a state .* expected a network of one window for (StableHLO|ONNX); .*',
  ):
    export(networks.shapes(functools.partial(enhancers.create_generator, 'dacal')), (32, 32))
  with pytest.raises(
    errors.ConfigError, match=r'^--size=30x32: restorers\.tcl\.TCLUNet takes multiples of 4; give 32x32, pad'
  ):
    export(networks.shapes(functools.partial(restorers.create, 'tcl_unet', **UNET)), (30, 32))


def test_unknown_platforms_are_told():
  with pytest.raises(errors.ConfigError, match=r'--platforms=cpu,gpu: expected some of cpu, cuda, tpu, rocm'):
    exporting.export_stablehlo(network('none', {}), platforms=['cpu', 'gpu'])


def test_onnx_without_its_converter_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  with pytest.raises(errors.ConfigError, match=r"jax2onnx, which is not installed: pip install 'vqm_jax\[onnx\]'"):
    exporting.export_onnx(network('none', {}), (4, 4))


@pytest.mark.parametrize(('system', 'args', 'frames'), [('tcl_unet', UNET, 1), ('tcl_edvr', EDVR, 3)])
def test_onnx_runs_in_another_program(system, args, frames):
  pytest.importorskip('jax2onnx')
  onnxruntime = pytest.importorskip('onnxruntime')
  net, inputs = network(system, args), clips(frames, (32, 48))
  session = onnxruntime.InferenceSession(exporting.export_onnx(net, (32, 48)))
  assert_same({'32x48': session.run(['restored'], {'clip': inputs['32x48']})[0]}, net, inputs)


def read_header(path):
  data = path.read_bytes()
  size = struct.unpack('<Q', data[:8])[0]
  assert size % 8 == 0
  return json.loads(data[8 : 8 + size])


@pytest.mark.parametrize(('system', 'args', 'frames'), [('tcl_unet', UNET, 1), ('tcl_edvr', EDVR, 3)])
def test_safetensors_give_the_same_network(tmp_path, system, args, frames):
  net, path = network(system, args), tmp_path / 'folder' / 'x.safetensors'
  exporting.save_safetensors(net, path, system=system, system_args=args)
  again = exporting.load_safetensors(path)
  assert type(again) is type(net)
  (clip,) = clips(frames, (32, 48)).values()
  np.testing.assert_array_equal(networks.apply(again, clip[None]), networks.apply(net, clip[None]))
  header = read_header(path)
  assert json.loads(header['__metadata__']['system_args']) == args and header['__metadata__']['system'] == system
  assert header['__metadata__']['num_frames'] == str(frames) and header['__metadata__']['value_range'] == '[0, 1]'
  assert ('front/stem/0/kernel' in header) == (system == 'tcl_edvr')
  assert [p.name for p in path.parent.iterdir()] == ['x.safetensors']


def test_safetensors_hold_running_statistics_and_recurrent_networks(tmp_path):
  for method in ('dpe', 'dacal'):
    net = networks.random(functools.partial(enhancers.create_generator, method, width=4))
    exporting.save_safetensors(net, tmp_path / 'x.safetensors', system=method, system_args={'width': 4})
    again = exporting.load_safetensors(tmp_path / 'x.safetensors')
    for name, array in exporting._weights(net).items():
      np.testing.assert_array_equal(exporting._weights(again)[name], array)


def test_the_format_is_that_of_its_own_package(tmp_path):
  safetensors = pytest.importorskip('safetensors.numpy')
  net = network('tcl_unet', UNET)
  exporting.save_safetensors(net, tmp_path / 'x.safetensors', system='tcl_unet', system_args=UNET)
  found = safetensors.load_file(tmp_path / 'x.safetensors')
  expected = weight_files.read(tmp_path / 'x.safetensors', lambda name: True)
  assert found.keys() == expected.keys()
  for name, array in found.items():
    np.testing.assert_array_equal(array, expected[name])


def test_half_precision_halves_the_file_and_rounds(tmp_path):
  net, (full, half) = network('tcl_unet', UNET), (tmp_path / 'full.safetensors', tmp_path / 'half.safetensors')
  exporting.save_safetensors(net, full, system='tcl_unet', system_args=UNET)
  exporting.save_safetensors(net, half, system='tcl_unet', system_args=UNET, dtype='float16')
  assert half.stat().st_size < 0.75 * full.stat().st_size  # the header stays
  header = read_header(half)
  assert {entry['dtype'] for name, entry in header.items() if name != '__metadata__'} == {'F16'}
  assert header['__metadata__']['dtype'] == 'float32'  # of the arithmetic
  again, before = exporting.load_safetensors(half), networks.by_path(nnx.state(net))
  for name, array in networks.by_path(nnx.state(again)).items():
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.asarray(before[name]).astype(np.float16).astype(np.float32))
  (clip,) = clips(1, (32, 48)).values()
  np.testing.assert_allclose(networks.apply(again, clip[None]), networks.apply(net, clip[None]), rtol=0, atol=0.01)


def test_what_half_precision_cannot_hold_is_told(tmp_path):
  net, path = network('tcl_unet', UNET), tmp_path / 'x.safetensors'
  kernel = net.encoder[0].convs[0].kernel
  kernel[...] = kernel[...].at[0, 0, 0, 0].set(1e5)
  message = r"^dtype='float16': encoder/0/convs/0/kernel holds 1e\+05, expected at most 65504; save it as 'float32'\.$"
  with pytest.raises(errors.ConfigError, match=message):
    exporting.save_safetensors(net, path, dtype='float16')
  with pytest.raises(errors.ConfigError, match=r"^dtype='bfloat16': expected one of float32, float16\.$"):
    exporting.save_safetensors(net, path, dtype='bfloat16')
  assert not any(tmp_path.iterdir())


def test_safetensors_that_do_not_fit_are_told(tmp_path):
  net, path = network('tcl_unet', UNET), tmp_path / 'x.safetensors'
  with pytest.raises(
    errors.ConfigError, match=r"system='tcl_unet' does not fit the network: \d+ weights differ, first"
  ):
    exporting.save_safetensors(net, path, system='tcl_unet', system_args={'width': 8})
  with pytest.raises(errors.ConfigError, match=r"system='unet' does not fit the network: system='unet' is unknown"):
    exporting.save_safetensors(net, path, system='unet')
  assert not any(tmp_path.iterdir())
  exporting.save_safetensors(net, path)
  assert len(weight_files.read(path, lambda name: True)) == len(exporting._weights(net))
  with pytest.raises(
    errors.DataError, match=r'x\.safetensors: expected metadata with system, .*, found \[.*num_frames'
  ):
    exporting.load_safetensors(path)
  exporting.save_safetensors(net, path, system='tcl_unet', system_args=UNET)
  whole = path.read_bytes()
  path.write_bytes(whole.replace(b'\\"width\\": 4', b'\\"width\\": 8'))
  with pytest.raises(errors.DataError, match=r'x\.safetensors does not fit its system: \d+ weights differ'):
    exporting.load_safetensors(path)
  path.write_bytes(whole[:-4])
  with pytest.raises(errors.DataError, match=r'x\.safetensors: cut or damaged'):
    exporting.load_safetensors(path)
  np.savez(tmp_path / 'x.npz', a=np.zeros(3))
  with pytest.raises(errors.DataError, match=r'x\.npz: expected a file that vqm_jax\.export wrote'):
    exporting.load_safetensors(tmp_path / 'x.npz')
