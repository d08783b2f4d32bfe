"""The binary `vqm_jax.export` on a run: what it writes, and what it says when it cannot."""

import json
import re

import jax
import networks
import numpy as np
import pytest
import shipped_weights
from flax import nnx

import vqm_jax
from vqm_jax import checkpoints, inference
from vqm_jax.inference import exporting, shipped
from vqm_jax.perceptual import weight_files

# Many command lines in one process, which would otherwise spend the time on importing JAX. In one of its own, because
# binaries define flags of the same names.
DRIVER = """
import contextlib, io, json, pathlib, sys
from absl.testing import flagsaver
from vqm_jax import cli, export
from vqm_jax.inference import shipped
lines, told = json.loads(sys.argv[1]), []
shipped.FOLDER = pathlib.Path(sys.argv[2])
for line in lines:
  sys.argv, text, code = ['export', *line], io.StringIO(), None
  with flagsaver.flagsaver(), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
    try:
      cli.run(export.main)
    except SystemExit as leave:
      code = leave.code
  told.append([code or 0, text.getvalue()])
print(json.dumps(told))
"""


def write_run(workdir, system, args):
  """A run of two checkpoints, as `train` would leave it; returns the networks of both."""
  config = {'system': system, 'system_args': args, 'dtype': 'float32', 'ema': 0.0, 'steps': 2}
  workdir.mkdir()
  (workdir / 'config.json').write_text(json.dumps({'config': config, 'version': '0.2.0'}))
  (workdir / 'checkpoints').mkdir()
  nets = [networks.random(lambda rngs: inference.create_network(config), seed) for seed in (1, 2)]
  with checkpoints.Checkpoints(workdir / 'checkpoints') as saver:
    for step, net in enumerate(nets, 1):
      saver.save(step, {'params': nnx.to_pure_dict(nnx.state(net))}, {'step': step}, psnr=-float(step))
  return nets


@pytest.fixture(scope='module')
def run(command, tmp_path_factory):
  """Folder, networks of both checkpoints, and [exit code, text] of every command line of TOLD."""
  folder = tmp_path_factory.mktemp('export')
  nets = write_run(folder / 'unet', 'tcl_unet', {'width': 4, 'depth': 2})
  with pytest.MonkeyPatch.context() as patch:
    shipped_weights.empty(patch, folder / 'checkout')
    shipped_weights.add('web-small')
    return folder, nets, told(command, folder)


def told(command, folder):
  lines = [line.replace('@', f'{folder}/').split() for line, _, _ in TOLD]
  driver = folder / 'driver.py'
  driver.write_text(DRIVER)
  done = command(driver, json.dumps(lines), shipped.FOLDER)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


UNET = '--workdir=@unet --output=@'
# In this order: a command line, its exit code, what it says.
TOLD = [
  ('', 2, 'error: --workdir or --weights is required; see --help.'),
  ('--workdir=@unet', 2, 'error: --output is required; see --help.'),
  (UNET + 'best.safetensors', 0, r'best\.safetensors: weights of tcl_unet, [\d.]+ MB'),
  (UNET + 'latest.safetensors --step=latest', 0, 'weights of tcl_unet'),
  (UNET + 'x.stablehlo', 0, r'clip \(1, H, W, 3\) -> \(H, W, 3\), H and W any multiples of 4 from 8 on; [\d.]+ MB'),
  (UNET + 'x.stablehlo', 2, r'error: --output=\S+x\.stablehlo: exists already; choose another, or add --overwrite\.'),
  (UNET + 'x.stablehlo --overwrite --size=16x24 --platforms=cpu', 0, r'clip \(1, 16, 24, 3\) -> \(16, 24, 3\); '),
  (UNET + 'half.safetensors --half', 0, 'weights of tcl_unet'),
  (UNET + 'y.stablehlo --half', 2, 'error: --half stores weights alone, in .safetensors; leave it out for .stablehlo.'),
  (UNET + 'x.pt', 2, r'x\.pt: expected a file that ends in \.safetensors, \.stablehlo, \.onnx'),
  (UNET + 'unet', 2, 'expected a file'),
  (UNET + 'y.stablehlo --size=16', 2, r'error: --size=16: expected HEIGHTxWIDTH in pixels, as in 544x960\.'),
  (UNET + 'y.stablehlo --size=18x24', 2, r'--size=18x24: restorers\.tcl\.TCLUNet takes multiples of 4; give 20x24'),
  (UNET + 'y.stablehlo --platforms=gpu', 2, 'error: --platforms=gpu: expected some of cpu, cuda, tpu, rocm'),
  (UNET + 'y.safetensors --size=16x24', 2, 'error: --size: weights in .safetensors have no frame size'),
  (UNET + 'y.safetensors --step=7', 1, 'No checkpoint of step 7'),
  (UNET + 'y.onnx', 2, 'error: --size is required for .onnx'),
  ('--workdir=@none --output=@y.stablehlo', 1, 'none is not a workdir'),
  ('--weights=web-small --output=@web.safetensors --half', 0, 'weights of tcl_unet'),
  ('--weights=web-smal --output=@y.safetensors', 2, "weights='web-smal' is unknown; did you mean 'web-small'"),
  ('--weights=web-small --output=@y.safetensors --step=2', 2, 'error: --step=2 chooses among what a --workdir holds'),
  (UNET + 'y.safetensors --weights=web-small', 2, r'error: --workdir=\S+ and --weights=web-small exclude each other'),
]  # fmt: skip


def test_every_command_line_ends_in_one_line(run):
  for (line, code, message), (found, text) in zip(TOLD, run[2], strict=True):
    told = [said for said in text.splitlines() if not re.match(r'\d\d:\d\d:\d\d ', said)]  # without the log
    assert found == code and len(told) == 1 and re.search(message, told[0]), (line, found, text)
  assert not list(run[0].glob('y.*'))
  assert not list(run[0].glob('.*'))


def test_weights_are_those_of_the_checkpoint(run):
  folder, nets, _ = run
  for name, net, step in (('best', nets[0], 1), ('latest', nets[1], 2)):
    path = folder / f'{name}.safetensors'
    expected = checkpoints.flatten(nnx.to_pure_dict(nnx.state(net)))
    found = checkpoints.flatten(nnx.to_pure_dict(nnx.state(exporting.load_safetensors(path))))
    assert found.keys() == expected.keys() and 'encoder/0/convs/0/kernel' in found
    for weight, array in found.items():
      np.testing.assert_array_equal(array, expected[weight])
    data = path.read_bytes()
    meta = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])['__metadata__']
    assert meta == {
      'system': 'tcl_unet', 'system_args': '{"depth": 2, "width": 4}', 'dtype': 'float32', 'num_frames': '1',
      'step': str(step), 'ema': 'false', 'version': vqm_jax.__version__, 'value_range': '[0, 1]',
    }  # fmt: skip


def test_weights_that_ship_come_out_as_they_are(run):
  folder = run[0]
  original = folder / 'checkout' / 'vqm_jax' / 'weights' / 'web-small.safetensors'
  written = [weight_files.read(path, lambda name: True) for path in (folder / 'web.safetensors', original)]
  assert written[0].keys() == written[1].keys()
  for name, array in written[0].items():
    np.testing.assert_array_equal(array, written[1][name])


def test_half_precision(run):
  folder, nets, _ = run
  half, whole = (folder / f'{name}.safetensors' for name in ('half', 'best'))
  assert half.stat().st_size < 0.75 * whole.stat().st_size
  expected = checkpoints.flatten(nnx.to_pure_dict(nnx.state(nets[0])))
  for weight, array in checkpoints.flatten(nnx.to_pure_dict(nnx.state(exporting.load_safetensors(half)))).items():
    np.testing.assert_allclose(array, expected[weight], rtol=2**-11, atol=3e-8)


def test_the_network_is_that_of_the_best_checkpoint(run):
  folder, nets, _ = run
  exported = jax.export.deserialize(bytearray((folder / 'x.stablehlo').read_bytes()))
  assert exported.platforms == ('cpu',)
  clip = np.random.default_rng(0).random((1, 16, 24, 3), dtype=np.float32)
  expected = networks.apply(inference.load(folder / 'unet'), clip[None])[0]
  np.testing.assert_allclose(exported.call(clip), expected, rtol=0, atol=1e-6)
  np.testing.assert_allclose(expected, networks.apply(nets[0], clip[None])[0], rtol=0, atol=1e-6)
