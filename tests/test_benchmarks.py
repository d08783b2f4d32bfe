"""The benchmarks run; what they measure is for the eye."""

import importlib.util
import json
import math
import mmap
import os
import re
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from absl import flags

from experiments import seventh
from vqm_jax import checkpoints, errors, inference
from vqm_jax.cli import ROOT


@pytest.fixture(autouse=True)
def quick_compilation():
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture
def load(monkeypatch):
  """Imports benchmarks/NAME.py, with flags at their defaults that are gone afterwards."""

  def load(name):
    path = ROOT / 'benchmarks' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'benchmark_{name}', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    own = re.findall(r"DEFINE_\w+\(\s*'(\w+)'", path.read_text())
    aside.update({flag: flags.FLAGS[flag] for flag in own if flag in flags.FLAGS})  # of binaries that tests imported
    flags.FLAGS.remove_flag_values(aside)
    before = set(flags.FLAGS)
    spec.loader.exec_module(module)
    added.extend(set(own) - before)  # what its libraries define stays with them
    return module

  added, aside = [], {}
  monkeypatch.setenv('OMP_WAIT_POLICY', 'passive')
  yield load
  flags.FLAGS.remove_flag_values(added)
  for name, flag in aside.items():
    flags.FLAGS[name] = flag


def test_a_system_is_measured(load):
  restorers = load('restorers')
  config = restorers._experiment('seventh', 'tiny', 'float32', batch_size=1, crop=16)
  config.system_args.update(width=4, num_blocks=1)
  frames = list(np.random.default_rng(0).integers(0, 256, (3, 18, 24, 3), np.uint8))
  name, dtype, _, batch, *numbers = restorers.measure_system(config, frames, jax.devices()[0], 1, True, True).split()
  assert (name, dtype, batch) == ('seventh', 'float32', '1x16')
  assert len(numbers) == 7 and all(float(number) > 0 for number in numbers[1:])


@pytest.mark.slow
def test_naive_frames_are_those_of_streaming(load):
  restorers = load('restorers')
  network = restorers.inference.create_network(
    restorers._experiment('gil', 'tiny', 'float32', system_args=dict(width=4, share_stages=True))
  )
  frames = list(np.random.default_rng(0).integers(0, 256, (4, 18, 24, 3), np.uint8))
  naive = list(restorers.restore_naively(network, frames, restorers.naive_program(network)))
  cached = list(restorers.inference.restore_frames(network, frames, devices=jax.devices()[:1]))
  assert len(naive) == len(cached) == 4
  assert np.abs(np.stack(naive).astype(int) - np.stack(cached)).max() <= 1


@pytest.mark.slow
def test_torch_is_compared_with(load, capsys):
  pytest.importorskip('torch')
  restorers = load('restorers')
  tiny = dict(width=8, num_front=1, groups=2)
  results = restorers.against_torch(16, 1, jax.devices()[0], **tiny)
  assert list(results) == ['train', 'naive', 'cached']
  assert all(len(times) == 3 for times in results.values())
  differences = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if 'largest difference' in line]
  assert len(differences) == 2 and max(map(float, differences)) < 1e-5


@pytest.fixture
def small_step(load):
  """benchmarks/input_pipeline.py and the config of a quick step."""
  config = seventh.get_config('tiny')
  config.update(batch_size=2, crop=16)
  config.system_args.update(width=4, num_blocks=1)
  return load('input_pipeline'), config


def test_the_line_of_a_published_step(small_step, tmp_path):
  pipeline, config = small_step
  names = pipeline.prepare('tiles_t1p96', str(tmp_path))

  def line(step_ms, growth=5e6):
    return pipeline.published_step(config, names, 1, lambda *_: (40.0, growth), 0, step_ms).split()

  assert line(25.0) == 'seventh 1x96 1x16x2 40.0 50.0 5 0 25.0 50.0 50 -'.split()
  assert line(80.0, math.nan) == 'seventh 1x96 1x16x2 40.0 50.0 - 0 80.0 80.0 0 -'.split()
  assert line(None)[-4:] == ['-'] * 4
  # lq and hq: a record and a batch for each of 2 threads, and 6 batches.
  record, batch = 96 * 96 * 3, 2 * 16 * 16 * 3
  assert pipeline.memory_rule((1, 96, 96, 3), config, 1) == 2 * (2 * (record + batch) + 6 * batch)
  rate, growth = pipeline.load_alone(names, dict(num_frames=1, crop=16, batch_size=2), 0, 0.2)
  # Where the process had room from before, it grows by nothing.
  assert rate > 0 and math.isfinite(growth) == os.path.exists('/proc')
  config.crop = 100
  assert ' '.join(line(1.0)).endswith('needs records of 1 frame(s) of 100x100 or more')


def test_steps_that_wait_for_data(small_step):
  pipeline, config = small_step
  made = []

  def batches(seconds):
    while True:
      time.sleep(seconds)
      made.append({side: np.zeros((2, 1, 16, 16, 3), np.uint8) for side in ('lq', 'hq')})
      yield made[-1]

  step, fed, wait = pipeline.train_fed(config, batches(0.3), 2, 3)
  assert len(made) == 1 + 2 + 3
  assert step < fed
  assert 300 <= wait * fed < fed


def test_memory_is_seen_to_grow(load):
  pipeline = load('input_pipeline')
  before = pipeline._resident('VmRSS', os.getpid())
  if math.isnan(before):
    pytest.skip('there is no /proc here')
  size = 2**26
  with mmap.mmap(-1, size) as held:  # pages of its own: the heap may have room that is resident already
    held[:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)
    growth = pipeline._resident('VmRSS', os.getpid()) - before
    assert growth == pytest.approx(size, rel=0.1)
    assert pipeline._resident('VmHWM', os.getpid()) >= before + growth


@pytest.mark.slow
def test_published_steps_from_the_command_line(load, tmp_path):
  dataset, config, _, folder = load('input_pipeline').prepare('tiles_t1p96', str(tmp_path))
  where = [f'--dataset={dataset}', f'--config={config}', f'--data_dir={folder}', '--systems=seventh', '--size=tiny']
  command = [sys.executable, ROOT / 'benchmarks' / 'input_pipeline.py', *where, '--seconds=0.1', '--steps=2']
  told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
  assert told[:3] == ['seventh', '1x96', '1x96x2']
  assert all(float(number) >= 0 for number in told[3:9] if number != '-')


def test_neighbours_and_still_windows_are_compared_clip_by_clip(load, tmp_path, micro_data, monkeypatch):
  frames = load('more_frames')
  config = seventh.get_config('tiny')
  config.update(dataset='vqm_demo', dataset_config='micro_tiles', data_dir=micro_data, crop=16, batch_size=2, steps=2)
  config.system_args.update(width=4, num_blocks=1)
  monkeypatch.setattr(frames, '_OUT', types.SimpleNamespace(value=str(tmp_path)))
  monkeypatch.setattr(frames, '_STEPS', types.SimpleNamespace(value=2))
  monkeypatch.setattr(frames, 'config_of', lambda system: config)
  window = np.arange(2 * 3).reshape(2, 3, 1, 1, 1)
  assert frames.still(window)[..., 0, 0, 0].tolist() == [[1, 1, 1], [4, 4, 4]]
  network, curve = frames.train(config, neighbours=False)
  assert len(curve) == 2 and network.num_frames == 1
  found = {'steps': 2, 'curve': [{'offset/a_mean': 0.5}]}
  for name, gains in (('window', {'a': [0.2, 0.4], 'b': [0.1]}), ('still', {'a': [0.1, 0.1], 'b': [0.2]})):
    (tmp_path / f'gtq_{name}.json').write_text(json.dumps(found | {'gains': gains}))
  assert frames.row('gtq') == ['gtq', '2', '+0.200', '+0.150', '+0.050', '[-0.100, +0.200]', '+0.200 -0.100', '0.50']
  monkeypatch.setattr(frames, '_STEPS', types.SimpleNamespace(value=3))
  with pytest.raises(errors.ConfigError, match='holds runs of gtq of another length; use --steps=2'):
    frames.row('gtq')


@pytest.mark.slow
def test_rows_of_the_learning_table_differ_in_what_they_name(load):
  deformable = load('learning_deformable')

  def start(name):
    graphdef, params = deformable.draw_start(deformable.ROWS[name])
    return graphdef, checkpoints.flatten(params)

  (_, plain), (_, ours) = start('plain'), start('ours')
  assert np.abs(plain['tail/last/kernel']).max() > 0 and not np.abs(ours['tail/last/kernel']).any()
  # The colours of a pixel as they are, and the detail of its brightness.
  np.testing.assert_allclose(plain['front/stem/0/kernel'][1, 1, :, :3], np.eye(3), atol=0.03)
  np.testing.assert_allclose(ours['front/stem/0/kernel'][..., 0].sum((0, 1, 2)), 0, atol=0.3)
  _, torch = start("ours, PyTorch's start of front")
  assert np.abs(torch['front/stem/0/kernel']).max() <= 27**-0.5
  np.testing.assert_array_equal(torch['tail/up/0/kernel'], ours['tail/up/0/kernel'])
  graphdef, _ = start('ours, without TSA')
  assert 'ConvFusion' in str(graphdef)
  text = deformable.table({'ours': dict(loss_over_input=0.98, gain=0.1, offsets=[0.1, 0.2, 0.3, 4], temporal=None)})
  assert (
    '| ours ' in text and '0.9800 |' in text and '+0.100 |' in text and '0.1 0.2 0.3 4 |' in text and 'n/a |' in text
  )


def test_enhancing_is_measured_by_its_stages(load, tmp_path):
  enhance = load('enhance')
  source, stages = tmp_path / 'in.mp4', ('decoding', 'network', 'encoding')
  enhance.write(source, 64, 48, 12)
  network = enhance.Waiting(0.02)
  run = inference.Run(network, {'system': 'none'}, tmp_path, 0, 0, False, 0, None)
  restore = enhance.Restoring(run, devices=jax.devices()[:1]).at(1.0)
  work = enhance.stages(restore, source, tmp_path)
  found, cores = enhance.measure(work, 12, 1)
  assert tuple(found) == enhance.STAGES and min(found.values()) > 0 and cores > 0
  assert found['network'] >= 20 and found['file'] >= 20
  frames = [np.stack(list(enhance.video.open_video(path).frames())) for path in (source, tmp_path / 'out.mp4')]
  assert frames[1].shape == (12, 48, 64, 3) and np.abs(frames[0].astype(int) - frames[1]).mean() < 8
  name, *numbers = enhance.line(
    'a', dict.fromkeys(stages, 10.0) | {'looking': 1.0, 'file': 12.5, 'network': 11.0}, 4
  ).split()
  assert name == 'a' and numbers[:5] == ['1.00', '10.00', '11.00', '10.00', '12.50']
  assert numbers[5:8] == ['1.14', 'of', 'network'] and numbers[-1] == '80.0'


def test_compression_is_estimated_on_clips_left_out(load):
  estimate = load('compression_estimate')
  rng = np.random.default_rng(0)
  features, clips = rng.normal(size=(40, 3)), np.repeat(np.arange(8), 5)
  qp = 30 + features @ [3.0, -2.0, 0.5]
  np.testing.assert_allclose(estimate.left_out(features, qp, clips, 0), 0, atol=1e-9)
  # A clip off the line is as far off when it is left out, whatever the others would make of it.
  qp[clips == 3] += 7
  np.testing.assert_allclose(estimate.left_out(features, qp, clips, 0)[clips == 3], -7, atol=1e-9)
  flat, noise = np.full((256, 384), 90.0), rng.integers(0, 256, (256, 384)).astype(float)
  shown = [estimate.show(picture) for picture in (flat, noise)]
  assert len(shown[0]) == len(shown[1]) and np.isfinite(shown).all()


@pytest.mark.slow
def test_memory_of_enhance():
  script = ROOT / 'benchmarks' / 'enhance_memory.py'
  command = [sys.executable, script, '--size=32x32', '--seconds=2,0.4']
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
  lines = [line.split() for line in output.splitlines()]
  assert [line[:3] for line in lines[1:]] == [['0.4', 's', '10'], ['2', 's', '50']]
  assert float(lines[1][-1]) == 1 and 0.8 < float(lines[2][-1]) < 1.3


@pytest.mark.slow
def test_cases_of_video(tmp_path):
  script = ROOT / 'benchmarks' / 'video_cases.py'
  inputs, page, kept = tmp_path / 'in', tmp_path / 'page.md', tmp_path / 'kept.json'
  environment = os.environ | {'PYTHONPATH': str(ROOT)}

  def run(*options):
    command = [sys.executable, script, f'--inputs={inputs}', *options]
    subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

  run('--make')
  chosen = 'interlaced.mkv', 'doubled_stamp.mkv'
  for path in inputs.iterdir():
    if path.name not in chosen:
      path.unlink()
  page.write_text('# Title\n\n<!-- table -->\nreplaced\n<!-- end of table -->\n\nThe end.\n')
  run(f'--docs={page}', f'--write={kept}')
  found = json.loads(kept.read_text())
  assert sorted(found) == sorted(chosen)
  assert '`--deinterlace`, 24 of 24 frames, times 0.0 ms, audio 1 of 1. Told: .mp4 refused' in found['interlaced.mkv']
  assert '24 of 24 frames, times ' in found['doubled_stamp.mkv'] and '1 of 24 time stamps' in found['doubled_stamp.mkv']
  text = page.read_text()
  assert text.startswith('# Title\n\n<!-- table -->\n\n| File |') and text.endswith(
    '<!-- end of table -->\n\nThe end.\n'
  )
  assert text.count('\n| `') == 2 and 'replaced' not in text


def test_cases_of_video_are_measured(load):
  cases = load('video_cases')
  assert cases.late([0.0, 0.04, 0.04, 0.12], [0.0, 0.04, 0.08, 0.12]) == 0  # what is doubled is nobody's time
  assert cases.late([0.0, None, 0.08], [0.5, 0.54, 0.58]) == pytest.approx(500)
  assert cases.late([0.0, 0.04, 0.08], [0.05, 0.08]) == pytest.approx(10)
  assert cases.late([None, None], [0.0, 0.04]) is None
  sound = ('audio', 'aac', 'a'), ('audio', 'aac', 'b'), ('attachment', 'data', 'c')
  before = cases.Seen('', [0.0], [np.zeros((4, 4, 3), np.uint8)], list(sound))
  after = cases.Seen('', [0.0], [np.full((4, 4, 3), 2570, np.uint16)], [sound[0], ('audio', 'aac', 'd')])
  assert cases.kept(before, after) == 'audio 2 of 2 (1 byte for byte), attachment 0 of 1'
  assert cases.psnr(before, after) == pytest.approx(20 * np.log10(25.5))
  assert cases.psnr(before, before) == 99


PROGRAM = """
HloModule jit_f, is_scheduled=true

%fused (p.0: bf16[1,8,8,96], p.1: f32[32]) -> f32[1,8,8,32] {
  %p.0 = bf16[1,8,8,96]{3,2,1,0} parameter(0)
  %whole = f32[1,8,8,96]{3,2,1,0} convert(%p.0)
  %third = f32[1,8,8,32]{3,2,1,0} slice(%whole), slice={[0:1], [0:8], [0:8], [32:64]}
  %p.1 = f32[32]{0} parameter(1)
  %bias = f32[1,8,8,32]{3,2,1,0} broadcast(%p.1), dimensions={3}
  ROOT %sum = f32[1,8,8,32]{3,2,1,0} add(%third, %bias)
}

%reads (p.0.1: f32[1000,4], p.1.1: u32[50]) -> f32[50,4] {
  %p.0.1 = f32[1000,4]{1,0} parameter(0)
  %p.1.1 = u32[50]{0} parameter(1)
  ROOT %gather = f32[50,4]{1,0} gather(%p.0.1, %p.1.1), offset_dims={1}, slice_sizes={1,4}
}

%part (p.0.2: f32[100,4], p.1.2: f32[10,4], p.2.2: s32[]) -> f32[100,4] {
  %p.0.2 = f32[100,4]{1,0} parameter(0)
  %p.1.2 = f32[10,4]{1,0} parameter(1)
  %p.2.2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[100,4]{1,0} dynamic-update-slice(%p.0.2, %p.1.2, %p.2.2, %zero)
}

%body (state: (s32[], f32[100,4], f32[10,4])) -> (s32[], f32[100,4], f32[10,4]) {
  %state = (s32[], f32[100,4]{1,0}, f32[10,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %all = f32[100,4]{1,0} get-tuple-element(%state), index=1
  %one = f32[10,4]{1,0} get-tuple-element(%state), index=2
  %written = f32[100,4]{1,0} fusion(%all, %one, /*index=2*/%i), kind=kLoop, calls=%part
  ROOT %next = (s32[], f32[100,4]{1,0}, f32[10,4]{1,0}) tuple(%i, %written, %one)
}

ENTRY %main (x: bf16[1,8,8,16], w: bf16[96,3,3,16], b: f32[32], t: f32[1000,4], r: u32[50]) -> f32[1,8,8,32] {
  %x = bf16[1,8,8,16]{3,2,1,0} parameter(0)
  %w = bf16[96,3,3,16]{3,2,1,0} parameter(1)
  %conv = (bf16[1,8,8,96]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %y = bf16[1,8,8,96]{3,2,1,0} get-tuple-element(%conv), index=0
  %gathered = f32[50,4]{1,0} fusion(%t, %r), kind=kLoop, calls=%reads
  %loop = (s32[], f32[100,4]{1,0}, f32[10,4]{1,0}) while(%start), condition=%until, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %out = f32[1,8,8,32]{3,2,1,0} fusion(%y, %b), kind=kLoop, calls=%fused
  %t = f32[1000,4]{1,0} parameter(3)
  %r = u32[50]{0} parameter(4)
  %b = f32[32]{0} parameter(2)
}
"""  # noqa: E501


def test_what_a_gpu_program_costs_by_hand(load):
  module = load('gpu_program')
  found = {kernel.name: kernel for kernel in module.kernels(module.parse(PROGRAM))}
  assert found.keys() == {'conv', 'gathered', 'written', 'out'}
  conv, gathered, written, out = (found[name] for name in ('conv', 'gathered', 'written', 'out'))
  assert conv.kind == 'convolution' and conv.dtype == 'bf16' and conv.products == 8 * 8 * 96 * 9 * 16
  assert conv.traffic == 2 * (8 * 8 * 16 + 96 * 9 * 16 + 8 * 8 * 96)
  assert gathered.kind == 'reads by index' and gathered.traffic == 4 * (50 * 4 + 50 + 50 * 4)
  assert written.times == 5 and written.traffic == 4 * (10 * 4 + 1 + 10 * 4)  # in place
  assert out.traffic == 2 * 8 * 8 * 32 + 4 * 32 + 4 * 8 * 8 * 32  # a third of what the convolution gave
  assert written.least_seconds() == pytest.approx(5 * (324 / 3e12 + 2e-6))


def gpu_program(*args):
  command = [sys.executable, str(ROOT / 'benchmarks' / 'gpu_program.py'), *args]
  path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
  return subprocess.run(command, capture_output=True, text=True, env=os.environ | {'PYTHONPATH': path})


_COMPILER = importlib.util.find_spec('jax_plugins') and importlib.util.find_spec('jax_plugins.xla_cuda12')


@pytest.mark.skipif(bool(_COMPILER), reason="XLA's compiler for GPUs is installed")
def test_without_its_compiler_a_gpu_program_says_what_to_install():
  run = gpu_program()
  assert run.returncode == 2 and 'Traceback' not in run.stderr
  assert f'pip install --no-deps jax-cuda12-plugin=={jax.__version__}' in run.stderr


@pytest.mark.skipif(not _COMPILER, reason="needs XLA's compiler for GPUs, see benchmarks/gpu_program.py")
def test_a_deformable_network_on_a_gpu_keeps_no_offsets_in_float32(tmp_path):
  run = gpu_program('--systems=tcl_edvr', '--height=128', '--width=128', f'--texts={tmp_path}')
  assert run.returncode == 0, run.stderr
  row = run.stdout.splitlines()[-1].split()
  assert row[0] == 'tcl_edvr' and float(row[2]) > 0.1
  text = (tmp_path / 'tcl_edvr.restore.txt').read_text()
  convolutions = re.findall(r'%cudnn-conv[\w.\-]+ = \((\w+)\[5,32,32,216\]', text)
  assert convolutions == ['bf16'] * 2  # the finest level and the cascade
  assert not re.search(r'= f32\[5,32,32,(216|144|72)\]', text.split('ENTRY')[1])
