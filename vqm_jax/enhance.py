"""Restores or enhances a video, or a folder of images, with a trained network.

  python -m vqm_jax.enhance --workdir=runs/ecnu --input=in.mp4 --output=out.mp4 --compare

Input: .mp4 .mov .mkv .webm .avi, a folder or zip of images. Output: .mp4 .mkv .mov with sound, subtitles and time
stamps of the input, or, without a suffix, a folder of PNG images. Any frame size, any length.
"""

import collections
import contextlib
import datetime
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import flags, logging

from vqm_jax import cli, errors, inference, video

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the trained network.')
_INPUT = flags.DEFINE_string('input', None, 'Video file, folder or zip of images.')
_OUTPUT = flags.DEFINE_string('output', None, 'Video file, or folder for PNG images.')
_STEP = flags.DEFINE_string('step', 'best', 'Checkpoint: best, latest or a number.')
_EMA = flags.DEFINE_bool('ema', True, 'Use the moving average of the weights, if the run kept one.')
_SELF_ENSEMBLE = flags.DEFINE_integer('self_ensemble', 1, '8 averages over flips and transposes: better, 8x slower.')
_TILE = flags.DEFINE_string(
  'tile', None, 'Work in tiles, e.g. 512 or 540x960, where whole frames need too much memory.'
)
_OVERLAP = flags.DEFINE_integer('overlap', 64, 'Pixels that a tile sees around itself.')
_COMPARE = flags.DEFINE_bool('compare', False, 'Also write <output>_compare.mp4: input left, restored right.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Say what would be done and how long it would take; write nothing.')
_CODEC = flags.DEFINE_enum('codec', 'h264', ['h264', 'h265'], 'Coding of the output video.')
_CRF = flags.DEFINE_float('crf', None, 'Quality of the output video, 0 (lossless) to 51; default: visually lossless.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace an existing output.')

Restore = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]
_DIVIDER = 2


def compare_path(output: pathlib.Path) -> pathlib.Path:
  """Where `--compare` puts the side-by-side video of an output."""
  return output.with_name(f'{output.stem}_compare.mp4')


def check_output(source: pathlib.Path, output: pathlib.Path, overwrite: bool) -> None:
  """Raises VideoError if `output` is the input, exists without leave, or cannot be written to."""
  if output.suffix and output.suffix.lower() not in video.OUTPUT_SUFFIXES:
    known = ', '.join(video.OUTPUT_SUFFIXES)
    raise errors.VideoError(f'{output}: video is written to {known}, PNG to a folder without a suffix')
  if output.resolve() == source.resolve() or (output.exists() and source.exists() and output.samefile(source)):
    raise errors.VideoError(f'{output}: is the input itself; choose another --output')
  if source.resolve() in output.resolve().parents or output.resolve() in source.resolve().parents:
    raise errors.VideoError(f'{output}: one of input and output lies within the other; choose another --output')
  if output.exists() and not overwrite:
    raise errors.VideoError(f'{output}: exists already; choose another --output or add --overwrite')
  if not output.parent.is_dir():
    raise errors.VideoError(f'{output}: the folder {output.parent} does not exist; create it first')
  if not os.access(output.parent, os.W_OK):
    raise errors.VideoError(f'{output}: the folder {output.parent} is not writable; choose another --output')


def enhance_video(
  restore: Restore,
  source: video.VideoSource,
  output: pathlib.Path,
  *,
  compare: pathlib.Path | None = None,
  codec: str = 'h264',
  crf: float | None = None,
) -> int:
  """Writes the restored frames of `source` to `output`, whatever is there, and returns their number.

  `restore` turns an iterator of frames, uint8 (H, W, 3), into one of as many frames of that size; `compare` is the
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
    divider = np.full((height, _DIVIDER, 3), 255, np.uint8)
    for restored in cli.progress(
      restore(remembered(frames) if compare else frames), source.num_frames, 'enhance', 'frames'
    ):
      writer.write(restored)
      if comparison:
        comparison.write(np.concatenate([originals.popleft(), divider, restored], axis=1))
      count += 1
  return count


def seconds_per_frame(restore: Restore, source: video.VideoSource, num_frames: int) -> float:
  """Time to restore a frame, from the first `num_frames`, compilation left out."""
  frames = list(source.frames(0, min(num_frames, source.num_frames)))
  for _ in restore(iter(frames)):
    pass
  start = time.perf_counter()
  for _ in restore(iter(frames)):
    pass
  return (time.perf_counter() - start) / len(frames)


def main(argv):
  del argv
  for flag in (_WORKDIR, _INPUT, _OUTPUT):
    if not flag.value:
      raise errors.ConfigError(f'--{flag.name} is required; see --help.')
  tile = inference.parse_tile(_TILE.value)
  output = pathlib.Path(_OUTPUT.value)
  compare = compare_path(output) if _COMPARE.value else None
  # Time stamps are carried over, so that frames need not be evenly spaced.
  source = video.open_video(_INPUT.value, variable_rate=True)
  for path in filter(None, (output, compare)):
    check_output(pathlib.Path(_INPUT.value), path, _OVERWRITE.value)
  logging.info('input: %s: %s', _INPUT.value, video.describe(source))

  cli.enable_compilation_cache()
  run = inference.open_run(_WORKDIR.value, _STEP.value, _EMA.value)
  logging.info(
    'network: %s of %s, step %d, %.2f M parameters, window of %d',
    run.config['system'],
    _WORKDIR.value,
    run.step,
    run.num_params / 1e6,
    getattr(run.network, 'num_frames', 1),
  )
  restore = functools.partial(
    inference.restore_frames,
    run.network,
    self_ensemble=_SELF_ENSEMBLE.value,
    tile=tile,
    overlap=_OVERLAP.value,
    find_cuts=video.mark_cuts,
  )
  if _DRY_RUN.value:
    logging.info('timing the first frames ...')
    rate = seconds_per_frame(restore, source, max(3, jax.local_device_count()))
    print(f'would write {", ".join(map(str, filter(None, (output, compare))))}')
    whole = datetime.timedelta(seconds=round(rate * source.num_frames))
    print(f'estimate: {rate:.3g} s per frame, {whole} h for {source.num_frames} frames')
    return
  start = time.perf_counter()
  count = enhance_video(restore, source, output, compare=compare, codec=_CODEC.value, crf=_CRF.value)
  seconds = time.perf_counter() - start
  print(f'{count} frames in {seconds:.1f} s ({count / seconds:.3g} per second), written to {output}')
  if compare:
    print(f'comparison: {compare}')


if __name__ == '__main__':
  cli.run(main)
