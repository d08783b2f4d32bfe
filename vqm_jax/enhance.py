"""Restores or enhances a video, or a folder of images, with a trained network.

  python -m vqm_jax.enhance --workdir=runs/ecnu --input=in.mp4 --output=out.mp4 --compare
  python -m vqm_jax.enhance --workdir=runs/ecnu --input=in.mp4 --preview=page.html
  python -m vqm_jax.enhance --input=in.mp4 --output=out.mp4 [--weights=web-small]

Without --workdir weights that ship with the package are used, by default those made for this device: --list_weights.
Input: any video that libav can read, an image, or a folder or zip of images (PNG, JPEG, TIFF, WebP, BMP). Output: .mp4
.mkv .mov with sound, subtitles and time stamps of the input, or, without a suffix, a folder of PNG images. Any frame
size, any length. --preview restores six frames only and writes a page with them before and after, at several
strengths, and the time of the whole video.
"""

import collections
import contextlib
import datetime
import functools
import os
import pathlib
import shlex
import time
from fractions import Fraction
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from vqm_jax import cli, errors, inference, pictures, video
from vqm_jax.inference import shipped
from vqm_jax.inference.reference import AgainstOriginal, Restore
from vqm_jax.report.page import media, preview

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the trained network.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights that ship with the package, by name, in place of --workdir.')
_LIST_WEIGHTS = flags.DEFINE_bool('list_weights', False, 'List the weights that ship with the package, and leave.')
_INPUT = flags.DEFINE_string('input', None, 'Video file, folder or zip of images.')
_FPS = flags.DEFINE_string('fps', None, 'Frames per second of images, such as 24 or 24000/1001; 30 if left out.')
_OUTPUT = flags.DEFINE_string('output', None, 'Video file, or folder for PNG images.')
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint: best, latest or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving average of the weights, if the run kept one.')
_SELF_ENSEMBLE = flags.DEFINE_integer('self_ensemble', 1, '8 averages over flips and transposes: better, 8x slower.')
_TILE = flags.DEFINE_string(
  'tile', None, 'Work in tiles, e.g. 512 or 540x960, where whole frames need too much memory.'
)
_OVERLAP = flags.DEFINE_integer('overlap', 64, 'Pixels that a tile sees around itself.')
_CUTS = flags.DEFINE_bool('cuts', True, 'Look for scene cuts, which no network that sees several frames looks across.')
_DEINTERLACE = flags.DEFINE_bool('deinterlace', False, 'Make a whole frame of each interlaced one.')
_COMPARE = flags.DEFINE_bool('compare', False, 'Also write <output>_compare, a video: input left, restored right.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Say what would be done and how long it would take; write nothing.')
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
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace an existing output.')

# Of these, with --output and --strength, consists the command that a preview shows.
_REPEATED = (
  _WORKDIR,
  _INPUT,
  _FPS,
  _STEP,
  _EMA,
  _SELF_ENSEMBLE,
  _TILE,
  _OVERLAP,
  _CUTS,
  _DEINTERLACE,
  _COMPARE,
  _CODEC,
  _CRF,
  _KEEP_GOING,
)
PREVIEW_FRAMES, PREVIEW_STRENGTHS = 6, (0.5, 1.0, 1.5)

_SMALL = 2_000_000  # parameters up to which every core of a CPU gets a frame of its own

_DIVIDER = 2


def compare_path(output: pathlib.Path) -> pathlib.Path:
  """Where `--compare` puts the side-by-side video of an output."""
  # Its sound must fit, too.
  return output.with_name(f'{output.stem}_compare{output.suffix or ".mp4"}')


def reference_path(output: pathlib.Path) -> pathlib.Path:
  """Where `--reference` puts the picture of an output's middle frame beside the original."""
  return output.with_name(f'{output.stem}_reference.png')


def check_output(source: pathlib.Path, output: pathlib.Path, overwrite: bool) -> None:
  """Raises VideoError if `output` is the input, exists without leave, or cannot be written to."""
  if output.suffix and output.suffix.lower() not in video.OUTPUT_SUFFIXES:
    known = ', '.join(video.OUTPUT_SUFFIXES)
    raise errors.VideoError(f'{output}: video is written to {known}, PNG to a folder without a suffix')
  if output.resolve() == source.resolve() or (output.exists() and source.exists() and output.samefile(source)):
    raise errors.VideoError(f'{output}: is the input itself; choose another --output')
  if source.resolve() in output.resolve().parents or output.resolve() in source.resolve().parents:
    raise errors.VideoError(f'{output}: one of input and output lies within the other; choose another --output')
  _check_place(output, 'output', overwrite)


def check_page(page: pathlib.Path, overwrite: bool) -> None:
  """Raises VideoError if `page` is not HTML by its name, is a folder, exists without leave, or cannot be written to."""
  if page.is_dir():
    raise errors.VideoError(f'{page}: is a folder; give --preview the name of a file, for example {page / "page.html"}')
  if page.suffix.lower() not in ('.html', '.htm'):
    raise errors.VideoError(f'{page}: expected the name of a page, for example --preview={page.stem}.html')
  _check_place(page, 'preview', overwrite)


def _check_place(path, flag, overwrite):
  if path.exists() and not overwrite:
    raise errors.VideoError(f'{path}: exists already; choose another --{flag} or add --overwrite')
  if not path.parent.is_dir():
    raise errors.VideoError(f'{path}: the folder {path.parent} does not exist; create it first')
  if not os.access(path.parent, os.W_OK):
    raise errors.VideoError(f'{path}: the folder {path.parent} is not writable; choose another --{flag}')


def enhance_video(
  restore: Restore,
  source: video.VideoSource,
  output: pathlib.Path,
  *,
  compare: pathlib.Path | None = None,
  codec: str | None = None,
  crf: float | None = None,
) -> int:
  """Writes the restored frames of `source` to `output`, whatever is there, and returns their number.

  `restore` turns an iterator of frames, (H, W, 3), into one of as many frames of that size and kind; `compare` is the
  path of a video with input and output side by side. Decoding, restoring and encoding overlap, and memory does not
  grow with the length. A file appears only when it is complete. Raises VideoError for damaged input or lost frames.
  """
  open_writer = functools.partial(video.open_writer, fps=source.fps, source=source, codec=codec, crf=crf)
  height, width = source.height, source.width
  originals = collections.deque()

  def remembered(frames):
    for frame in frames:
      originals.append(frame)
      yield frame

  count = 0
  with contextlib.ExitStack() as stack:

    def start(path, width):
      writer = stack.enter_context(open_writer(path, height=height, width=width))
      return stack.enter_context(video.in_background(writer))

    writer = start(output, width)
    comparison = start(compare, 2 * width + _DIVIDER) if compare else None
    frames = stack.enter_context(contextlib.closing(video.prefetch(source.frames())))
    for restored in cli.progress(
      restore(remembered(frames) if compare else frames), source.num_frames, 'enhance', 'frames'
    ):
      writer.write(restored)
      if comparison:
        divider = np.full((height, _DIVIDER, 3), np.iinfo(restored.dtype).max, restored.dtype)
        comparison.write(np.concatenate([originals.popleft(), divider, restored], axis=1))
      count += 1
  return count


def seconds_per_frame(restore: Restore, source: video.VideoSource, num_frames: int, compiled: bool = False) -> float:
  """Time to restore a frame, from the first `num_frames`, compilation left out; `compiled` says that it is done."""
  frames = list(source.frames(0, min(num_frames, source.num_frames)))
  for _ in range(1 if compiled else 2):
    start = time.perf_counter()
    for _ in restore(iter(frames)):
      pass
  return (time.perf_counter() - start) / len(frames)


def default_output(source: video.VideoSource, path: pathlib.Path) -> pathlib.Path:
  """Beside the input, `in_enhanced.mp4` of `in.mp4`; Matroska where we do not write the input's kind of file."""
  suffix = path.suffix.lower()
  if not isinstance(source, video.VideoFile):
    suffix = ''
  elif suffix not in video.OUTPUT_SUFFIXES:
    suffix = '.mkv'  # holds any sound
  return path.parent / f'{source.name}_enhanced{suffix}'


def command(output: pathlib.Path, strength: float, weights: str | None = None) -> str:
  """The command that enhances the whole video as the flags say, for a shell.

  `weights` are those in use where no --workdir is given: another device may choose others by itself.
  """
  given = [f'--weights={weights}'] if weights else []
  given += [flags.FLAGS[flag.name].serialize() for flag in _REPEATED if flag.value != flag.default]
  given.append(f'--strength={strength:g}')
  return shlex.join(['python', '-m', 'vqm_jax.enhance', *given, f'--output={output}'])


def write_preview(
  page: pathlib.Path,
  run: inference.Run,
  restore: Restore,
  source: video.VideoSource,
  output: pathlib.Path,
  strength: float,
  options: dict[str, Any],
  weights: str | None = None,
) -> None:
  """Writes and prints what `--preview` is for, by the flags.

  `PREVIEW_FRAMES` frames are restored, by one pass of the network each, and shown at `PREVIEW_STRENGTHS` and the one
  asked for. Of the video these, their neighbours and the first few are read. A recurrent generator gets a short run-up.

  Args:
    page: the file to write.
    run: what restores the frames.
    restore: the same as a function, to take its time.
    source: the whole video.
    output: where the command puts it enhanced.
    strength: what the command corrects with, beside `PREVIEW_STRENGTHS`.
    options: as of `inference.restore_at`.
    weights: as of `command`.
  """
  strengths = sorted({*PREVIEW_STRENGTHS, strength})
  commands = {strength: command(output, strength, weights) for strength in strengths}
  indices = media.spread(range(source.num_frames), PREVIEW_FRAMES)
  network = f'{weights} ({run.config["system"]})' if weights else run.config['system']
  pairs = inference.restore_at(run.network, source, indices, list(commands), **options)
  before, after = zip(*cli.progress(pairs, len(indices), 'preview', 'frames'), strict=True)
  if isinstance(source, video.VideoFile):
    before = [video.upright(frame, source.display_matrix) for frame in before]
    after = [[video.upright(frame, source.display_matrix) for frame in frames] for frames in after]
  seconds = seconds_per_frame(restore, source, max(3, jax.local_device_count()), compiled=True)
  shown = preview.Preview(
    video=pathlib.Path(_INPUT.value).name or source.name,
    network=f'{network}, step {run.step}, {run.num_params / 1e6:.2f} M parameters',
    num_frames=source.num_frames,
    indices=indices,
    before=before,
    after=dict(zip(commands, zip(*after, strict=True), strict=True)),
    strength=strength,
    seconds=seconds,
    commands=commands,
  )
  preview.write(page, shown)
  print(f'{page}: {len(indices)} frames before and after, {page.stat().st_size / 1e6:.1f} MB')
  _print_estimate(seconds, source.num_frames)
  print(f'the whole video: {commands[strength]}')


def _print_estimate(rate, count):
  whole = datetime.timedelta(seconds=round(rate * count))
  print(f'estimate: {rate:.3g} s per frame, {whole} h for {count} frames')


def _print_damage(source):
  if concealed := video.concealed(source):
    print(concealed)


def _open_network() -> tuple[inference.Run, str | None]:
  """The network to use, and the name of its weights where no --workdir says which."""
  if _WORKDIR.value:
    return inference.open_run(_WORKDIR.value, _STEP.value, _EMA.value), None
  name = _WEIGHTS.value
  if not name:
    name, reason = shipped.default(jax.default_backend())
    logging.info('--weights=%s is taken: %s', name, reason)
    inference.check_weights(None, name, _STEP.value, _EMA.value)
  return inference.open_weights(name), name


def _strength(run: inference.Run, source: video.VideoSource) -> float:
  """The strength asked for, or that for input of this QP; warns of input that the network was not trained on."""
  compression = video.compression_of(source) if run.strength_by_qp or 'qp' in run.trained_on else None
  if compression:
    logging.info('input: %s', compression)
  if 'qp' in run.trained_on and (advice := video.advice(compression, run.trained_on['qp'])):
    logging.warning('%s', advice)
  if _STRENGTH.value is not None:
    return _STRENGTH.value
  strength = run.strength_at(compression.qp if compression else None)
  if strength != 1:
    logging.info('--strength=%g is taken, which suits this QP best', strength)
  return strength


def _fps() -> Fraction | None:
  """The rate of --fps; raises ConfigError for anything but a rate, or a video, which has its own."""
  if not _FPS.value:
    return None
  try:
    fps = Fraction(_FPS.value)
  except (ValueError, ZeroDivisionError):
    fps = Fraction(0)
  if not 0 < fps <= 1000:
    raise errors.ConfigError(f'--fps={_FPS.value}: expected frames per second, for example 24 or 24000/1001.')
  return fps


def main(argv):
  del argv
  if _LIST_WEIGHTS.value:
    print(shipped.table(), end='')
    return
  for flag in (_INPUT,) if _PREVIEW.value else (_INPUT, _OUTPUT):
    if not flag.value:
      raise errors.ConfigError(f'--{flag.name} is required; see --help.')
  inference.check_weights(_WORKDIR.value, _WEIGHTS.value, _STEP.value, _EMA.value)
  if _STRENGTH.value is not None:
    inference.check_strength(_STRENGTH.value)
  tile = inference.parse_tile(_TILE.value)
  page = pathlib.Path(_PREVIEW.value) if _PREVIEW.value else None
  if page and _DRY_RUN.value:
    raise errors.ConfigError('--preview and --dry_run exclude each other; a preview says the time of the video, too.')
  if page:
    check_page(page, _OVERWRITE.value)
  # Time stamps are carried over, so that frames need not be evenly spaced. Pictures of a page have 8 bits.
  source = video.open_video(
    _INPUT.value,
    variable_rate=True,
    deep=not page,
    deinterlace=_DEINTERLACE.value,
    keep_going=_KEEP_GOING.value,
    lossy=True,
    fps=_fps(),
  )
  if _FPS.value and isinstance(source, video.VideoFile):
    raise errors.ConfigError(f'--fps={_FPS.value} is for images; {_INPUT.value} tells its time itself: leave it out.')
  if not _FPS.value and not isinstance(source, video.VideoFile) and source.num_frames > 1:
    logging.info('--fps=%g is taken: images do not tell how fast they follow each other', source.fps)
  output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else default_output(source, pathlib.Path(_INPUT.value))
  compare = compare_path(output) if _COMPARE.value else None
  for path in () if page else filter(None, (output, compare)):
    check_output(pathlib.Path(_INPUT.value), path, _OVERWRITE.value)
  if not page:
    video.examine(source)
  against = None
  if _REFERENCE.value and not page:
    _check_place(reference_path(output), 'output', _OVERWRITE.value)
    against = AgainstOriginal(source, video.open_video(_REFERENCE.value, variable_rate=True))
  logging.info('input: %s: %s', _INPUT.value, video.describe(source))

  cli.enable_compilation_cache()
  cores = cli.share_cores()
  run, weights = _open_network()
  logging.info(
    'network: %s of %s, step %d, %.2f M parameters, window of %d',
    run.config['system'],
    weights or _WORKDIR.value,
    run.step,
    run.num_params / 1e6,
    getattr(run.network, 'num_frames', 1),
  )
  strength = _strength(run, source)
  # Thin convolutions leave cores idle: a frame for each is half as fast again. Large networks need the memory.
  alone = cores > 1 and jax.default_backend() == 'cpu' and run.num_params > _SMALL
  options = {'self_ensemble': _SELF_ENSEMBLE.value, 'tile': tile, 'overlap': _OVERLAP.value}
  options['find_cuts'] = video.mark_cuts if _CUTS.value else None
  options['devices'] = jax.local_devices()[:1] if alone else None
  restore = functools.partial(inference.restore_frames, run.network, strength=strength, **options)
  if page:
    write_preview(page, run, restore, source, output, strength, options, weights)
    return
  if _DRY_RUN.value:
    logging.info('timing the first frames ...')
    rate = seconds_per_frame(restore, source, max(3, jax.local_device_count()))
    print(f'would write {", ".join(map(str, filter(None, (output, compare))))}')
    _print_estimate(rate, source.num_frames)
    _print_damage(source)
    return
  start = time.perf_counter()
  if against:
    restore = against.watching(restore)
  count = enhance_video(restore, source, output, compare=compare, codec=_CODEC.value, crf=_CRF.value)
  seconds = time.perf_counter() - start
  print(f'{count} frames in {seconds:.1f} s ({count / seconds:.3g} per second), written to {output}')
  if compare:
    print(f'comparison: {compare}')
  if against:
    pictures.save_png(reference_path(output), against.picture)
    print(f'{against}; picture: {reference_path(output)}')
  _print_damage(source)


def program():
  """The command `vqm-enhance`."""
  cli.run(main)


if __name__ == '__main__':
  program()
