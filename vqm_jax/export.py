"""Writes a trained network for other programs: its weights, or the whole network as StableHLO or ONNX.

  python -m vqm_jax.export --workdir=runs/tcl_unet --output=tcl_unet.safetensors [--half]
  python -m vqm_jax.export --workdir=runs/tcl_unet --output=tcl_unet.stablehlo
  python -m vqm_jax.export --workdir=runs/tcl_edvr --output=tcl_edvr.stablehlo --size=544x960
  python -m vqm_jax.export --weights=web-small --output=web-small.onnx --size=544x960

.safetensors holds the weights by name, such as front/stem/0/kernel, with system, arguments and step as metadata;
--half stores them as float16. .stablehlo holds the network, weights inside, for any frame size or for --size, as
jax.export writes it: JAX runs it again without this package. .onnx holds the same for --size; it needs the extra
[onnx]. Both are functions of a clip (frames, height, width, 3), RGB float32 in [0, 1], and return the restored centre
frame (height, width, 3).
"""

import pathlib

from absl import flags, logging

from vqm_jax import cli, errors, files, inference
from vqm_jax.inference import exporting

# What notebooks call; `inference.exporting` has them without the flags.
from vqm_jax.inference.exporting import export_onnx, export_stablehlo, load_safetensors, save_safetensors

__all__ = ['export_onnx', 'export_stablehlo', 'load_safetensors', 'save_safetensors']

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the trained network.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights that ship with the package, by name, in place of --workdir.')
_OUTPUT = flags.DEFINE_string('output', None, 'File that ends in .safetensors, .stablehlo or .onnx.')
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint: best, latest or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving average of the weights, if the run kept one.')
_SIZE = flags.DEFINE_string('size', None, 'Frames as HEIGHTxWIDTH, e.g. 544x960; any size by default, not for .onnx.')
_PLATFORMS = flags.DEFINE_list('platforms', list(exporting.PLATFORMS), 'Where a .stablehlo shall run.')
_HALF = flags.DEFINE_bool('half', False, 'Store the weights of a .safetensors as float16: half the size.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace an existing output.')

SUFFIXES = ('.safetensors', '.stablehlo', '.onnx')


def parse_size(text: str | None) -> tuple[int, int] | None:
  """(height, width) of '544x960', None for None or ''. Raises ConfigError for anything else."""
  if not text:
    return None
  sides = text.split('x')
  if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and int(side) for side in sides):
    raise errors.ConfigError(f'--size={text}: expected HEIGHTxWIDTH in pixels, as in 544x960.')
  return int(sides[0]), int(sides[1])


def check_output(output: pathlib.Path, size: tuple[int, int] | None, overwrite: bool) -> None:
  """Raises ConfigError for an unknown suffix, an output that exists without leave, or a size too many or too few."""
  if output.suffix not in SUFFIXES:
    raise errors.ConfigError(f'--output={output}: expected a file that ends in {", ".join(SUFFIXES)}.')
  if output.is_dir():
    raise errors.ConfigError(f'--output={output}: expected a file, found a folder; choose another.')
  if output.exists() and not overwrite:
    raise errors.ConfigError(f'--output={output}: exists already; choose another, or add --overwrite.')
  if size and output.suffix == '.safetensors':
    raise errors.ConfigError('--size: weights in .safetensors have no frame size; leave it out.')
  if not size and output.suffix == '.onnx':
    raise errors.ConfigError('--size is required for .onnx: HEIGHTxWIDTH, as in 544x960.')


def main(argv: list[str]) -> None:
  del argv
  if not (_WORKDIR.value or _WEIGHTS.value):
    raise errors.ConfigError('--workdir or --weights is required; see --help.')
  inference.check_weights(_WORKDIR.value, _WEIGHTS.value, _STEP.value, _EMA.value)
  if not _OUTPUT.value:
    raise errors.ConfigError('--output is required; see --help.')
  output, size = pathlib.Path(_OUTPUT.value), parse_size(_SIZE.value)
  check_output(output, size, _OVERWRITE.value)
  if _HALF.value and output.suffix != '.safetensors':
    raise errors.ConfigError(f'--half stores weights alone, in .safetensors; leave it out for {output.suffix}.')
  run = (
    inference.open_weights(_WEIGHTS.value)
    if _WEIGHTS.value
    else inference.open_run(_WORKDIR.value, _STEP.value, _EMA.value)
  )
  logging.info('%s: %s, step %d, %.2f M parameters', run.workdir, run.config['system'], run.step, run.num_params / 1e6)
  if output.suffix == '.safetensors':
    save_safetensors(run, output, dtype='float16' if _HALF.value else 'float32')
    print(f'{output}: weights of {run.config["system"]}, {output.stat().st_size / 1e6:.3g} MB')
    return
  if output.suffix == '.onnx':
    data = export_onnx(run, size)
  else:
    data = export_stablehlo(run, size, _PLATFORMS.value)
  with files.replacing(output) as partial:
    partial.write_bytes(data)
  height, width, multiple = *(size or ('H', 'W')), run.network.size_multiple
  sizes = '' if size else f', H and W any multiples of {multiple} from {2 * multiple} on'
  print(
    f'{output}: {run.config["system"]}, clip ({run.network.num_frames}, {height}, {width}, 3) -> '
    f'({height}, {width}, 3){sizes}; {len(data) / 1e6:.3g} MB'
  )


if __name__ == '__main__':
  cli.run(main)
