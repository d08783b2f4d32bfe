"""Tells what the programs cost that XLA makes for a GPU, without a GPU: kernels, memory traffic, least times.

pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12  # jax's own version
python benchmarks/gpu_program.py --systems=tcl_edvr,gtq
python benchmarks/gpu_program.py --systems=tcl_edvr --task=train --kernels=20   # and the twenty dearest kernels
python benchmarks/gpu_program.py --systems=gtq --texts=/tmp/gtq                 # and the programs, to read

XLA compiles for an H100 that is described to it, with everything that it merges, lays out and converts there. What it
cannot know without the card is which algorithm cuDNN takes. A kernel takes the longer of two times, at least: for what
it reads and writes, at 3.0 TB/s, and for its multiply-adds, at 395 T/s (half of that in float32), and 2 microseconds.
Reads that follow an index count once per value read, though caches serve many of them.

Bytes and kernels are exact for the program; times are not measured. Programs whose times on a card are known took 1.3
to 1.5 times their least time (`docs/speed.md`). Read ratios of two versions of a program, not milliseconds.
"""

import collections
import dataclasses
import importlib
import importlib.util
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

# Before JAX starts: its plugin would look for a driver, and XLA for a card to try algorithms on.
os.environ['JAX_SKIP_CUDA_CONSTRAINTS_CHECK'] = '1'
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_autotune_level=0'

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies

from vqm_jax import cli, errors, files, inference, parallel
from vqm_jax.inference.streaming import lower_programs
from vqm_jax.training.supervised import Supervised

_SYSTEMS = flags.DEFINE_list('systems', ['tcl_edvr', 'boss_f1', 'gil', 'gtq', 'jojo', 'ecnu'], 'Experiments.')
_SIZE = flags.DEFINE_enum('size', 'full', ['tiny', 'full'], 'Of the experiments.')
_TASK = flags.DEFINE_enum('task', 'restore', ['restore', 'train'], 'A frame with cached features, or an update.')
_DTYPE = flags.DEFINE_enum('dtype', 'bfloat16', ['bfloat16', 'float32'], 'Compute dtype.')
_HEIGHT = flags.DEFINE_integer('height', 1080, 'Of restored frames.', lower_bound=1)
_WIDTH = flags.DEFINE_integer('width', 1920, 'Of restored frames.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch', 32, 'Samples of an update.', lower_bound=1)
_CROP = flags.DEFINE_integer('crop', 128, 'Height and width of them.', lower_bound=1)
_KERNELS = flags.DEFINE_integer('kernels', 0, 'How many of the dearest kernels to list.', lower_bound=0)
_TEXTS = flags.DEFINE_string('texts', None, 'Folder for the programs as text.')

# One NVIDIA H100 SXM, from its data sheet and CUDA's properties of the device.
_CARD = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  device_memory_size: 84929347584
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_BANDWIDTH, _LAUNCH = 3.0e12, 2e-6  # bytes a second that kernels reach, seconds
_RATES = {'f32': 197e12}  # multiply-adds a second; of all other dtypes:
_RATE = 395e12

_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4}
_BYTES |= {'s64': 8, 'u64': 8, 'f64': 8}
_SHAPE = re.compile(r'(\w+)\[([\d,]*)\]')
_COMPUTATION = re.compile(r'^(ENTRY )?%([\w.\-]+) \(')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
# What takes no kernel.
_FREE = {'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'iota'}


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program: `%name = shape opcode(operands), attributes`."""

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  def called(self, attribute: str) -> str:
    """The computation that an attribute names."""
    return re.search(attribute + r'=%([\w.\-]+)', self.attributes).group(1)


Program = dict[str, list[Instruction]]  # computations by name; 'ENTRY' is the whole


@dataclasses.dataclass(frozen=True)
class Kernel:
  """The cost of an instruction, each of the `times` that it runs.

  Attributes:
    kind: 'convolution', 'product', 'reads by index' or 'other'.
    traffic: bytes read and written.
    products: multiply-adds.
    dtype: what is multiplied.
  """

  kind: str
  name: str
  shape: str
  times: int
  traffic: float
  products: int = 0
  dtype: str = ''

  def least_seconds(self) -> float:
    """The least time of all its runs."""
    work = max(self.traffic / _BANDWIDTH, self.products / _RATES.get(self.dtype, _RATE))
    return self.times * (work + _LAUNCH)


def parse(text: str) -> Program:
  """The computations of an optimised program, as `compiled.as_text()` prints it."""
  program: Program = {}
  for line in text.splitlines():
    if opened := _COMPUTATION.match(line):
      current = program['ENTRY' if opened.group(1) else opened.group(2)] = []
    elif found := _INSTRUCTION.match(re.sub(r'/\*index=\d+\*/', '', line)):
      root, name, shape, opcode, rest = found.groups()
      end = rest.index(')')
      operands = tuple(re.findall(r'%([\w.\-]+)', rest[:end]))
      current.append(Instruction(name, shape, opcode, operands, rest[end:], bool(root)))
  return program


def kernels(program: Program, computation: str = 'ENTRY', times: int = 1) -> Iterator[Kernel]:
  """The kernels that a computation runs, loops as often as they turn."""
  shapes = {each.name: each.shape for each in program[computation]}
  for each in program[computation]:
    if each.opcode in _FREE:
      continue
    if each.opcode == 'while':
      turns = re.search(r'known_trip_count":\{"n":"(\d+)"', each.attributes)
      yield from kernels(program, each.called('body'), times * int(turns.group(1) if turns else 1))
    elif each.opcode in ('call', 'async-start'):
      yield from kernels(program, each.called('to_apply' if each.opcode == 'call' else 'calls'), times)
    elif each.opcode == 'fusion':
      yield _of_fusion(each, program[each.called('calls')], times)
    elif each.opcode != 'async-done':
      traffic = sum(_size(shapes[name]) for name in each.operands) + _size(each.shape)
      kind, products, dtype = _of_library(each, shapes)
      yield Kernel(kind, each.name, each.shape, times, traffic, products, dtype)


def _of_library(each, shapes):
  """Kind, multiply-adds and dtype of a call of cuDNN or cuBLAS."""
  operands = [_arrays(shapes[name])[0] for name in each.operands if _arrays(shapes[name])]
  if 'custom_call_target="__cudnn$conv' in each.attributes:
    labels = re.search(r'dim_labels=\w+_(\w+)->', each.attributes).group(1)
    (dtype, _), (_, kernel) = operands[:2]
    result = _arrays(each.shape)[0][1]
    # Gradients take the same products as the convolution: of its output, which is an operand of theirs, and its kernel.
    output = result
    if 'BackwardFilter' in each.attributes:
      output, kernel = kernel, result
    elif 'BackwardInput' in each.attributes:
      output = operands[0][1]
    return 'convolution', math.prod(output) * math.prod(kernel) // kernel[labels.index('o')], dtype
  if 'gemm' in each.attributes or 'cublas' in each.attributes:
    (dtype, left), (_, right) = operands[:2]
    sizes = math.prod(left) * math.prod(right) * math.prod(_arrays(each.shape)[0][1])
    return 'product', math.isqrt(sizes), dtype
  return 'other', 0, ''


def _of_fusion(each, inner, times):
  shapes = {line.name: line.shape for line in inner}
  (root,) = (line for line in inner if line.root)
  # A result that lies in place of an operand is written where it changes.
  written = shapes[root.operands[1]] if root.opcode == 'dynamic-update-slice' else each.shape
  traffic = _read(inner) + _size(written)
  kind = 'reads by index' if {'gather', 'scatter'} & {line.opcode for line in inner} else 'other'
  for line in inner:
    if line.opcode == 'dot':
      dtype, left = _arrays(shapes[line.operands[0]])[0]
      summed = re.search(r'lhs_contracting_dims=\{([\d,]+)\}', line.attributes).group(1).split(',')
      products = _count(line.shape) * math.prod(left[int(axis)] for axis in summed)
      return Kernel('product', each.name, each.shape, times, traffic, products, dtype)
  return Kernel(kind, each.name, each.shape, times, traffic)


def _read(inner):
  """Bytes of its operands that a fusion reads: what each instruction is asked for, from the result backwards."""
  shapes = {line.name: line.shape for line in inner}
  wanted = collections.defaultdict(float)
  total = 0.0
  for line in reversed(inner):
    asked = 1.0 if line.root else min(1.0, wanted[line.name] / _count(line.shape))
    if line.opcode == 'parameter':
      total += asked * _size(line.shape)
      continue
    for k, name in enumerate(line.operands):
      if name not in shapes or (k == 0 and line.opcode == 'dynamic-update-slice'):
        continue
      part = k == 0 and line.opcode in ('slice', 'dynamic-slice', 'gather')
      wanted[name] += asked * (min(_count(shapes[name]), _count(line.shape)) if part else _count(shapes[name]))
  return total


def _arrays(shape):
  """(dtype, sizes) of each array in a shape."""
  found = _SHAPE.findall(shape)
  return [(dtype, tuple(int(n) for n in sizes.split(',') if n)) for dtype, sizes in found if dtype in _BYTES]


def _size(shape):
  return sum(_BYTES[dtype] * math.prod(sizes) for dtype, sizes in _arrays(shape))


def _count(shape):
  return max(1, sum(math.prod(sizes) for _, sizes in _arrays(shape)))


def absent_card() -> jax.Device:
  """The H100, as a device to compile for.

  Raises:
    ConfigError: the compiler is not installed.
  """
  if not importlib.util.find_spec('jax_plugins') or not importlib.util.find_spec('jax_plugins.xla_cuda12'):
    version = jax.__version__
    raise errors.ConfigError(
      "XLA's compiler for GPUs is not installed; pip install --no-deps "
      f'jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version} nvidia-cuda-nvcc-cu12'
    )
  return topologies.get_topology_desc(platform='cuda', target_config=_CARD, topology='1x1x1').devices[0]


def lowered(system: str, device: jax.Device) -> dict[str, jax.stages.Lowered]:
  """The programs of the task, by name."""
  config = importlib.import_module(f'experiments.{system}').get_config(_SIZE.value)
  config.update(dtype=_DTYPE.value, grad_accum=1)
  if _TASK.value == 'restore':
    network = inference.create_network(config)
    return dict(zip(('encode', 'restore'), lower_programs(network, _HEIGHT.value, _WIDTH.value, [device]), strict=True))
  config.update(batch_size=_BATCH.value, crop=_CROP.value)
  trainer = Supervised(config, [device])
  shape, sharding = (_BATCH.value, config.num_frames, _CROP.value, _CROP.value, 3), parallel.split(trainer.mesh)
  batch = {side: jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=sharding) for side in ('lq', 'hq')}
  return {'update': trainer.lower(trainer.abstract_state(), batch, ('cuda',))}


def _measure(system: str, device: jax.Device) -> None:
  found = []
  memory = 0
  for name, program in lowered(system, device).items():
    compiled = program.compile()
    memory = max(memory, compiled.memory_analysis().temp_size_in_bytes)
    if _TEXTS.value:
      folder = pathlib.Path(_TEXTS.value)
      folder.mkdir(parents=True, exist_ok=True)
      files.write_text(folder / f'{system}.{name}.txt', compiled.as_text())
    found += kernels(parse(compiled.as_text()))
  kinds = {kind: sum(k.times * k.traffic for k in found if k.kind == kind) / 1e9 for kind in _KINDS}
  print(
    f'{system:10} {sum(k.times for k in found):8} {sum(kinds.values()):7.1f} '
    + ' '.join(f'{kinds[kind]:7.1f}' for kind in _KINDS)
    + f' {sum(k.times * k.products for k in found) / 1e12:7.2f} {1e3 * sum(k.least_seconds() for k in found):7.1f} '
    f'{memory / 1e9:7.2f}',
    flush=True,
  )
  for k in sorted(found, key=Kernel.least_seconds, reverse=True)[: _KERNELS.value]:
    print(
      f'  {1e3 * k.least_seconds():7.3f} ms {k.times:4} x {k.traffic / 1e6:8.1f} MB  {k.kind:14} {k.name}  {k.shape}'
    )


_KINDS = ('convolution', 'product', 'reads by index', 'other')


def main(_: Sequence[str]) -> None:
  """Prints one line a system."""
  device = absent_card()
  of_task = (
    f'frames of {_HEIGHT.value}x{_WIDTH.value}' if _TASK.value == 'restore' else f'{_BATCH.value} x {_CROP.value}'
  )
  print(f'{device.device_kind}, not there; jax {jax.__version__}; {_TASK.value}, {_DTYPE.value}, {of_task}')
  print(f'{"":10} {"":8} {"GB of memory traffic":>39} {"":7} {"least":>7} {"GB at":>7}')
  print(
    f'{"system":10} {"kernels":>8} {"all":>7} {"convol.":>7} {"product":>7} {"by index":>7} {"other":>7} {"T MACs":>7} '
    f'{"ms":>7} {"a time":>7}'
  )
  for system in _SYSTEMS.value:
    _measure(system, device)


if __name__ == '__main__':
  cli.run(main)
