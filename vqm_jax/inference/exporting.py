"""Trained networks as files for other programs: weights in safetensors, whole networks in StableHLO and ONNX.

    save_safetensors(run, 'x.safetensors'); network = load_safetensors('x.safetensors')
    save_safetensors(run, 'half.safetensors', dtype='float16')  # half the size; read as float32
    pathlib.Path('x.stablehlo').write_bytes(export_stablehlo(run))

Weights have the names of our parameters, front/stem/0/kernel, with convolutions as (height, width, in, out). A whole
network is a function of one window, clip (T, H, W, 3) -> (H, W, 3), with its weights inside. JAX runs it again without
this package, with flatbuffers, which jax.export reads its files by:

    jax.export.deserialize(bytearray(open('x.stablehlo', 'rb').read())).call(clip)

Frames are those of all our networks: RGB float32 in [0, 1], the output not clipped; the first and last frames of a clip
lack neighbours, for which our own tools mirror it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import vqm_jax
from vqm_jax import checkpoints, errors, files, schemas
from vqm_jax.inference.run import Run, abstract_network
from vqm_jax.perceptual import weight_files
from vqm_jax.restorers.base import Restorer

PLATFORMS = ('cpu', 'cuda', 'tpu')
_KNOWN_PLATFORMS = (*PLATFORMS, 'rocm')

Source = Run | nnx.Module

# {dtype of the numbers in a file: what the format calls it, and NumPy}; the format is little-endian.
_STORED = {'float32': ('F32', '<f4'), 'float16': ('F16', '<f2')}
# Fields of the metadata that are JSON; all others are names.
_JSON = ('system_args', 'num_frames', 'value_range', 'step', 'ema', 'training')


@dataclasses.dataclass(frozen=True)
class _Known:
  """The fields of the metadata that a network and its `Run` are built from."""

  FOREIGN = True

  system: str
  system_args: dict[str, Any]
  dtype: str
  step: schemas.Count | None = None
  ema: bool = False
  training: dict[str, Any] | None = None


def save_safetensors(
  source: Source,
  path: str | pathlib.Path,
  *,
  system: str | None = None,
  system_args: dict[str, Any] | None = None,
  dtype: Literal['float32', 'float16'] = 'float32',
) -> None:
  """Write all weights of a network, whatever is at `path`, which appears when it is complete.

  The metadata, strings in JSON where they are no names: system, system_args, dtype (of the arithmetic), num_frames,
  step (null without a run), ema, version (of this package), value_range (of the frames) and, where a run recorded it,
  training (what it took, as `Run.training`).

  Args:
    source: a run, or a network alone.
    path: of the file; folders are made as needed.
    system, system_args: what `restorers.create` or `enhancers.create_generator` made the network from; of a run they
      are known. Without a system other programs can read the file, `load_safetensors` cannot.
    dtype: of the numbers in the file. 'float16' halves it and rounds every weight by up to one part in 2048 (those
      below 6e-5, by up to 3e-8).

  Raises:
    ConfigError: the system does not fit the weights, or was given for a run; a weight is too large for float16;
      another dtype.
    OSError: the file cannot be written.
  """
  if dtype not in _STORED:
    raise errors.ConfigError(f'dtype={dtype!r}: expected one of {", ".join(_STORED)}.')
  network = _network(source)
  code, stored = _STORED[dtype]
  arrays = {name: _narrowed(name, np.asarray(array, '<f4'), stored) for name, array in _weights(network).items()}
  meta: dict[str, Any] = {'num_frames': getattr(network, 'num_frames', 1), 'value_range': [0, 1]}
  meta |= {'version': vqm_jax.__version__, 'step': None, 'ema': False}
  if isinstance(source, Run):
    if system:
      raise errors.ConfigError(f'system={system!r}: a run knows its own, {source.config["system"]!r}; leave it out.')
    meta |= {key: source.config[key] for key in ('system', 'system_args', 'dtype')}
    meta |= {'step': source.step, 'ema': source.ema}
    if source.training:
      meta['training'] = source.training
  elif system:
    meta |= {'system': system, 'system_args': system_args or {}, 'dtype': 'float32'}
    _fill(meta, arrays, lambda text: errors.ConfigError(f'system={system!r} does not fit the network: {text}.'))
  header: dict[str, Any] = {
    '__metadata__': {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in meta.items()}
  }
  end = 0
  for name, array in arrays.items():
    header[name] = {'dtype': code, 'shape': array.shape, 'data_offsets': [end, end := end + array.nbytes]}
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # numbers begin at a multiple of eight, as readers that map the file like them
  with files.replacing(pathlib.Path(path)) as partial, partial.open('wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for array in arrays.values():
      file.write(array.tobytes())


def load_safetensors(path: str | pathlib.Path) -> nnx.Module:
  """Return the network that `save_safetensors` wrote, ready to call; its parameters are float32 whatever is stored.

  Raises:
    DataError: damaged, another kind of file, without a system, or of another network than its system and arguments say.
    OSError: it cannot be opened.
  """
  return read_safetensors(path)[0]


def read_safetensors(path: str | pathlib.Path) -> tuple[nnx.Module, dict[str, Any]]:
  """Return the network and the metadata, decoded: system, system_args, dtype, step, ema, ...

  Raises:
    DataError: damaged, another kind of file, without a system, or of another network than its system and arguments say.
    OSError: it cannot be opened.
  """
  path = pathlib.Path(path)
  arrays = weight_files.read(path, lambda name: True)
  with path.open('rb') as file:
    if file.read(9)[8:] != b'{':
      raise errors.DataError(
        f'{path}: expected a file that vqm_jax.export wrote, found another format than safetensors.'
      )
    header = weight_files.safetensors_header(file)
  texts: dict[str, str] = {}
  try:
    texts = schemas.check(schemas.parse(header).get('__metadata__', {}), dict[str, str], '__metadata__')
    meta = {key: schemas.parse(value) if key in _JSON else value for key, value in texts.items()}
    known = schemas.check(meta, _Known, '__metadata__')
  except schemas.Misfit as error:
    raise errors.DataError(
      f'{path}: expected metadata with system, system_args and dtype, found {sorted(texts)} '
      f'({error}); export the run again, or name system and system_args when you save a network alone.'
    ) from error
  config = {'system': known.system, 'system_args': known.system_args, 'dtype': known.dtype}
  return _fill(config, arrays, lambda text: errors.DataError(f'{path} does not fit its system: {text}.')), meta


def export_stablehlo(
  source: Source, size: tuple[int, int] | None = None, platforms: Sequence[str] = PLATFORMS
) -> bytearray:
  """Return the network as `jax.export` serializes it: clip (T, H, W, 3) float32 -> (H, W, 3) float32.

  Args:
    source: a run, or a network alone; a restorer, or an enhancer of single frames.
    size: (H, W), multiples of the network's size_multiple m. By default they are left open: any multiples of m from
      2 m on. Deformable networks need a size.
    platforms: where it shall run, of cpu, cuda, rocm and tpu. Loops of deformable networks are arranged for the
      device that exports, which costs time on others, not precision.

  Raises:
    ConfigError: the network carries a state, needs a size, or does not take this one; unknown platforms.
  """
  network = _network(source)
  restore = _single_window(network, 'StableHLO')
  unknown = [name for name in platforms if name not in _KNOWN_PLATFORMS]
  if unknown or not platforms:
    raise errors.ConfigError(f'--platforms={",".join(platforms)}: expected some of {", ".join(_KNOWN_PLATFORMS)}.')
  if size:
    return _exported(restore, (network.num_frames, *_checked(network, size), 3), platforms).serialize()
  multiple = f'{network.size_multiple}*' if network.size_multiple > 1 else ''
  # Two units at least: mirrored borders must know that there is something to mirror.
  height, width = jax.export.symbolic_shape(f'{multiple}h, {multiple}w', constraints=('h >= 2', 'w >= 2'))
  try:
    exported = _exported(restore, (network.num_frames, height, width, 3), platforms)
  except Exception as error:  # every operation that must know its sizes fails in its own way
    raise errors.ConfigError(
      f'{_name(network)} cannot be exported for any frame size, some of its layers must know it; '
      f'give one, in multiples of {network.size_multiple}: --size=HEIGHTxWIDTH.'
    ) from error
  return exported.serialize()


def export_onnx(source: Source, size: tuple[int, int]) -> bytes:
  """Return the network as an ONNX model: input `clip` (T, H, W, 3) float32 -> `restored` (H, W, 3) float32.

  Args:
    source: a run, or a network alone; a restorer, or an enhancer of single frames.
    size: (H, W), multiples of the network's size_multiple.

  Raises:
    ConfigError: the network carries a state or does not take this size, or the converter jax2onnx is not installed.
  """
  network = _network(source)
  restore = _single_window(network, 'ONNX')
  shape = network.num_frames, *_checked(network, size), 3
  try:
    import jax2onnx  # optional, and slow to import
  except ImportError as error:
    raise errors.ConfigError(
      "ONNX is written by jax2onnx, which is not installed: pip install 'vqm_jax[onnx]', or choose .stablehlo."
    ) from error
  clip = jax.ShapeDtypeStruct(shape, jnp.float32)
  model = jax2onnx.to_onnx(restore, [clip], model_name='network', input_names=['clip'], output_names=['restored'])
  return model.SerializeToString()


def _network(source: Source) -> nnx.Module:
  return source.network if isinstance(source, Run) else source


def _name(network: nnx.Module) -> str:
  """'restorers.tcl.TCLUNet', 'enhancers.dpe.Generator'."""
  return f'{type(network).__module__}.{type(network).__name__}'.removeprefix('vqm_jax.')


def _weights(network: nnx.Module) -> dict[str, Any]:
  return checkpoints.flatten(nnx.to_pure_dict(nnx.state(network)))


def _narrowed(name: str, array: np.ndarray, stored: str) -> np.ndarray:
  """A float32 array as it is stored. Raises ConfigError where a finite number would become infinite."""
  with np.errstate(over='ignore'):
    out = array.astype(stored)
  if np.isinf(out).any() and np.isfinite(array).all():
    raise errors.ConfigError(
      f'dtype={out.dtype.name!r}: {name} holds {np.abs(array).max():.3g}, expected at most '
      f"{np.finfo(out.dtype).max:g}; save it as 'float32'."
    )
  return out


def _fill(config: dict, arrays: dict[str, np.ndarray], error: Callable[[str], errors.VqmError]) -> nnx.Module:
  """The network of a config with these weights; raises `error` of what does not fit."""
  try:
    graphdef, abstract = abstract_network(config)
  except errors.ConfigError as reason:
    raise error(str(reason).rstrip('.')) from reason
  params, report = checkpoints.warm_start(nnx.to_pure_dict(abstract), arrays)
  problems = report['new'] + report['misfit'] + report['unused']
  if problems:
    raise error(f'{len(problems)} weights differ, first {problems[0]}')
  return nnx.merge(graphdef, params)


def _single_window(network: nnx.Module, form: str) -> Callable[[jax.Array], jax.Array]:
  """clip (T, H, W, 3) -> (H, W, 3), with the weights inside."""
  if not isinstance(network, Restorer):
    raise errors.ConfigError(
      f'{_name(network)} carries a state from frame to frame, expected a network of one '
      f'window for {form}; export its weights: --output=NAME.safetensors.'
    )
  graphdef, state = nnx.split(network)
  return lambda clip: nnx.merge(graphdef, state)(clip[None])[0]


def _checked(network: Restorer, size: tuple[int, int]) -> tuple[int, int]:
  multiple = network.size_multiple
  fitting = [max(1, -(-side // multiple)) * multiple for side in size]
  if fitting != list(size):
    raise errors.ConfigError(
      f'--size={size[0]}x{size[1]}: {_name(network)} takes multiples of {multiple}; give '
      f'{fitting[0]}x{fitting[1]}, pad frames at the bottom right and crop the result.'
    )
  return size


def _exported(restore: Callable, shape: tuple, platforms: Sequence[str]) -> jax.export.Exported:
  return jax.export.export(jax.jit(restore), platforms=tuple(platforms))(jax.ShapeDtypeStruct(shape, jnp.float32))
