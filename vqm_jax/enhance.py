"""Restores or enhances a video, or a folder of images, with a trained network.

  python -m vqm_jax.enhance --workdir=runs/ecnu --input=in.mp4 --output=out.mp4 --compare
  python -m vqm_jax.enhance --workdir=runs/ecnu --input=in.mp4 --preview=page.html
  python -m vqm_jax.enhance --input=in.mp4 --output=out.mp4 [--weights=web-small]
  python -m vqm_jax.enhance --input=videos/ --output=enhanced/ [--part=0/4]

Without --workdir weights that ship with the package are used, by default those made for this device: --list_weights.
Input: any video that libav can read, an image or a folder or zip of images (PNG, JPEG, TIFF, WebP, BMP), a folder of
videos. Output: .mp4 .mkv .mov with sound, subtitles and time stamps of the input, an image (.png .webp .tif .bmp .jpg)
for one, or, without a suffix, a folder of PNG images. Any frame size, any length. The same command after a kill, a full
disk or a power cut goes on where it was.
--preview restores six frames only and writes a page with them before and after, at several strengths, and the time of
the whole video.
"""

import pathlib
import shlex

from absl import flags

from vqm_jax import cli, errors, inference
from vqm_jax.enhancing import folder, outputs, preview, restoring
from vqm_jax.enhancing import task as tasks
from vqm_jax.inference import shipped
from vqm_jax.stopping import StopRequest

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the trained network.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights that ship with the package, by name, in place of --workdir.')
_LIST_WEIGHTS = flags.DEFINE_bool('list_weights', False, 'List the weights that ship with the package, and leave.')
_INPUT = flags.DEFINE_string('input', None, 'Video file, image, folder or zip of images, folder of videos.')
_FPS = flags.DEFINE_string('fps', None, 'Frames per second of images, such as 24 or 24000/1001; 30 if left out.')
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Video file, image, or folder: of PNG images, or of videos if the input is one.'
)
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint: best, latest or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving average of the weights, if the run kept one.')
_SELF_ENSEMBLE = flags.DEFINE_integer('self_ensemble', 1, '8 averages over flips and transposes: better, 8x slower.')
_TILE = flags.DEFINE_string(
  'tile', None, 'Work in tiles, e.g. 512 or 540x960, where whole frames need too much memory.'
)
_OVERLAP = flags.DEFINE_integer('overlap', 64, 'Pixels that a tile sees around itself.')
_CUTS = flags.DEFINE_bool('cuts', True, 'Look for scene cuts, which no network that sees several frames looks across.')
_DEINTERLACE = flags.DEFINE_bool('deinterlace', False, 'Make a whole frame of each interlaced one.')
_COMPARE = flags.DEFINE_bool('compare', False, 'Also write <output>_compare, input left, restored right.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Say what would be done, and the time, memory and room it takes.')
_CODEC = flags.DEFINE_enum(
  'codec', None, ['h264', 'h265'], 'Coding of the output video; default: h264, h265 for 10 bits unless they were H.264.'
)
_CRF = flags.DEFINE_float('crf', None, 'Quality of the output video, 0 (lossless) to 51; default: visually lossless.')
_STRENGTH = flags.DEFINE_float(
  'strength',
  None,
  "How much is corrected: 0 (the input) to 1.5; 1 is the network. By default by the input's QP, else 1.",
)
_REFERENCE = flags.DEFINE_string(
  'reference', None, 'The original of the input: print PSNR before and after, and write <output>_reference.png.'
)
_PREVIEW = flags.DEFINE_string('preview', None, 'Only write a page of frames before and after, e.g. page.html.')
_KEEP_GOING = flags.DEFINE_bool(
  'keep_going', False, 'Replace damaged frames of the input by the last good one, and list them, instead of stopping.'
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace existing outputs; of a folder, make all videos anew.')
_PART = flags.DEFINE_string('part', None, 'Of a folder of videos: the i-th of n shares, such as 0/4; i from 0.')

# Of these, with --output and --strength, consists the command that a preview shows.
_REPEATED = (
  *(_WORKDIR, _INPUT, _FPS, _STEP, _EMA, _SELF_ENSEMBLE, _TILE, _OVERLAP, _CUTS),
  *(_DEINTERLACE, _COMPARE, _CODEC, _CRF, _KEEP_GOING),
)


def _options(page):
  """Check the flags against each other and gather what is the same for all videos."""
  for flag in (_INPUT,) if page else (_INPUT, _OUTPUT):
    if not flag.value:
      raise errors.ConfigError(f'--{flag.name} is required; see --help.')
  inference.check_weights(_WORKDIR.value, _WEIGHTS.value, _STEP.value, _EMA.value)
  if _STRENGTH.value is not None:
    inference.check_strength(_STRENGTH.value)
  inference.parse_tile(_TILE.value)
  if page and _DRY_RUN.value:
    raise errors.ConfigError('--preview and --dry_run exclude each other; a preview says the time of the video, too.')
  if page:
    outputs.check_page(page, _OVERWRITE.value)
  return tasks.Options(
    reading=dict(fps=tasks.parse_fps(_FPS.value), deinterlace=_DEINTERLACE.value, keep_going=_KEEP_GOING.value),
    compare=_COMPARE.value,
    codec=_CODEC.value,
    crf=_CRF.value,
    reference=None if page else _REFERENCE.value,
    overwrite=_OVERWRITE.value,
    preview=bool(page),
  )


def _restoring():
  cli.enable_compilation_cache()
  cores = cli.share_cores()
  run, name = restoring.open_network(_WORKDIR.value, _WEIGHTS.value, _STEP.value, _EMA.value)
  tile, devices = inference.parse_tile(_TILE.value), restoring.devices_for(run, cores)
  found = restoring.Restoring(
    run, name, _STRENGTH.value, _SELF_ENSEMBLE.value, tile, _OVERLAP.value, _CUTS.value, devices
  )
  found.describe(_WORKDIR.value)
  return found


def _command(output: pathlib.Path, name: str | None, strength: float) -> str:
  """Enhance the whole video as the flags say; `name` is of weights where no --workdir is given."""
  given = [f'--weights={name}'] if name else []  # another device may choose others by itself
  given += [flags.FLAGS[flag.name].serialize() for flag in _REPEATED if flag.value != flag.default]
  return shlex.join(['python', '-m', 'vqm_jax.enhance', *given, f'--strength={strength:g}', f'--output={output}'])


def main(argv: list[str]) -> None:
  del argv
  if _LIST_WEIGHTS.value:
    print(shipped.table(), end='')
    return
  page = pathlib.Path(_PREVIEW.value) if _PREVIEW.value else None
  options, part = _options(page), cli.parse_part(_PART.value)
  output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
  if folder.holds_videos(pathlib.Path(_INPUT.value)):
    folder.check_flags(preview=page, reference=_REFERENCE.value)
    items = folder.plan(pathlib.Path(_INPUT.value), output, part)
    folder.run(items, options, _restoring(), dry_run=_DRY_RUN.value)
    return
  if _PART.value:
    raise errors.ConfigError(f'--part={_PART.value}: shares a folder of videos, which --input={_INPUT.value} is not.')
  if not page and not tasks.check(_INPUT.value, output, options, _DRY_RUN.value):
    return
  task, network = tasks.Task.open(_INPUT.value, output, options), _restoring()
  if page:
    strength = network.strength_for(task.source)
    preview.write(page, network, task, strength, lambda at: _command(task.output, network.name, at))
  elif _DRY_RUN.value:
    task.forecast(network)
  else:
    with StopRequest(tasks.STOPPING) as stop:
      task.run(network, stop)


if __name__ == '__main__':
  cli.run(main)
