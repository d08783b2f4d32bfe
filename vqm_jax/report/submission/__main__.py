"""Packs restored frames for a challenge server, and checks an archive before it is sent.

Example: python -m vqm_jax.report.submission --frames=runs/ecnu --out=submission.zip
         python -m vqm_jax.report.submission --frames=restored/ --select=all --runtime=0.8 --noextra_data --nocpu
         python -m vqm_jax.report.submission --verify=submission.zip --gt_dir=targets/

Frames are those that an evaluation kept (--save_frames), or a folder of PNG files, or of a folder for each clip. The
archive is flat: 8-bit RGB PNG files and readme.txt; the same frames give the same bytes. --verify unpacks nothing: it
looks at names, counts, sizes and readme, and with targets scores the frames as a server would, into scores.txt.
"""

import functools
import pathlib

from absl import flags

from vqm_jax import cli, errors, files
from vqm_jax.report import frame_folders, summaries
from vqm_jax.report.submission import archive, verifying
from vqm_jax.summary import Summary, read_summary

_FRAMES = flags.DEFINE_string('frames', None, 'Frames to pack: a workdir, a summary.json, or a folder.')
_OUT = flags.DEFINE_string('out', None, 'The zip (default submission.zip); with --verify the scores.')
_SELECT = flags.DEFINE_string(
  'select', 'every:20', 'Which frames of a clip: all (test), or every:N (validation): the Nth, 2Nth, ...'
)
_NAMES = flags.DEFINE_string(
  'names', None, 'Names, such as {clip}_{index:06d}.png (default: as the inputs, or this where clips share names).'
)
_INPUT_DIR = flags.DEFINE_string('input_dir', None, 'The inputs as given: names and sizes must be theirs.')
_RESULTS = flags.DEFINE_string('results', None, 'summary.json that knows runtime, device and training data.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Which results of a workdir.')
_RUNTIME = flags.DEFINE_float('runtime', None, 'Seconds for a frame, for the readme.', lower_bound=0)
_UNIT = flags.DEFINE_enum('readme_unit', 'frame', archive.UNITS, 'What the runtime in the readme is of.')
_CPU = flags.DEFINE_bool('cpu', None, 'Whether the runtime is of a CPU.')
_EXTRA_DATA = flags.DEFINE_bool('extra_data', None, 'Whether other data were trained on.')
_DESCRIPTION = flags.DEFINE_string('description', None, 'Free text of the readme: hardware, framework, links.')
_VERIFY = flags.DEFINE_string('verify', None, 'Zip to check instead.')
_GT_DIR = flags.DEFINE_string('gt_dir', None, 'Targets of --verify.')


def _summary(path: str | None, flag: str) -> tuple[Summary, pathlib.Path] | None:
  """The summary that a path leads to; None for a folder that has none."""
  if not path:
    return None
  try:
    found = summaries.find([path], _SPLIT.value)
  except errors.DataError:
    if flag == '--frames' and pathlib.Path(path).is_dir() and not (pathlib.Path(path) / 'eval').is_dir():
      return None
    raise
  if len(found) > 1:
    raise errors.ConfigError(f'{flag}={path} holds {len(found)} results; give one summary.json of them.')
  return read_summary(found[0]), found[0]


def _readme(summary: Summary | None) -> archive.Readme:
  """From flags, else from the summary. Raises ConfigError for what neither knows."""
  timing, train = (summary.timing, summary.train) if summary else (None, None)
  device = timing.device if timing else ''
  runtime = _RUNTIME.value
  if runtime is None and _UNIT.value != 'video':
    runtime = timing and timing.seconds_per_frame
  cpu = device.endswith('CPU') if _CPU.value is None and device and _RUNTIME.value is None else _CPU.value
  extra = (train and train.extra_data) if _EXTRA_DATA.value is None else _EXTRA_DATA.value
  unknown = {'--runtime': runtime or None, '--[no]cpu': cpu, '--[no]extra_data': extra}
  if missing := [flag for flag, value in unknown.items() if value is None]:
    raise errors.ConfigError(
      f'The readme needs what no result tells: give {", ".join(missing)}, or --results of an evaluation that was timed.'
    )
  hardware = train and train.hardware and f'trained on {train.hardware}'
  known = [summary and summary.method, device, hardware, 'JAX, vqm_jax']
  return archive.Readme(
    float(runtime), bool(cpu), bool(extra), _DESCRIPTION.value or '; '.join(filter(None, known)), _UNIT.value
  )


def pack() -> None:
  """Write the zip."""
  step = archive.every(_SELECT.value)
  own = _summary(_FRAMES.value, '--frames')
  told = _summary(_RESULTS.value, '--results') or own
  readme = _readme(told and told[0])
  if own:
    clips = frame_folders.of_summary(*own, 'output', '--frames')
    indices = own[0].frame_indices
    numbers = {clip: [index + 1 for index in indices[clip]] for clip in indices}
    clips = {clip: clips[clip] for clip in numbers or clips}
  else:
    clips, numbers = frame_folders.find(_FRAMES.value, '--frames'), None
  if numbers and (more := [clip for clip in clips if len(clips[clip]) != len(numbers[clip])]):
    if len(more) < len(clips):
      raise errors.DataError(
        f'{_FRAMES.value}: clip {more[0]} has {len(clips[more[0]])} frames, {len(numbers[more[0]])} were scored; '
        'evaluate again with --save_frames.'
      )
    numbers = None  # folders that were scored in part hold all of their frames
  frames = archive.chosen(clips, step, numbers)
  named = frames
  if _INPUT_DIR.value:
    inputs = frame_folders.find(_INPUT_DIR.value, '--input_dir')
    frame_folders.wanted(clips, inputs, '--frames')
    named = archive.chosen(frame_folders.wanted(inputs, clips, '--input_dir'), step)
    verifying.check_inputs(frames, named)
  names = archive.entry_names(named, _NAMES.value)
  out = pathlib.Path(_OUT.value or 'submission.zip')
  packed = {name: frames[clip][number] for name, (clip, number) in names.items()}
  size = archive.pack(out, packed, readme, functools.partial(cli.progress, desc='packed', unit='file'))
  print(f'{out}: {len(names)} frames of {len(frames)} clips, {size / 1e6:.1f} MB; {min(names)} to {max(names)}')
  print(readme.text(), end='')


def verify() -> None:
  """Check the zip; with targets, score it."""
  path = pathlib.Path(_VERIFY.value)
  if _GT_DIR.value:
    cli.enable_compilation_cache()
  found = verifying.verify(path, _SELECT.value, gt_dir=_GT_DIR.value, input_dir=_INPUT_DIR.value, names=_NAMES.value)
  print(f'{path}: {found.frames} frames of {", ".join(f"{w}x{h}" for w, h in found.sizes)}, no problem found')
  if not found.named:
    print('Names and number of frames were not checked; give --gt_dir or --input_dir.')
  if found.scores:
    text = ''.join(f'{name}:{value:f}\n' for name, value in found.scores.items())
    out = pathlib.Path(_OUT.value) if _OUT.value else path.with_name('scores.txt')
    files.write_text(out, text)
    print(text + str(out))


def main(argv: list[str]) -> None:
  del argv
  if bool(_FRAMES.value) == bool(_VERIFY.value):
    raise errors.ConfigError('Give one of --frames, to pack, and --verify, to check; see --help.')
  if _GT_DIR.value and not _VERIFY.value:
    raise errors.ConfigError('--gt_dir goes with --verify.')
  if _VERIFY.value:
    verify()
  else:
    pack()


if __name__ == '__main__':
  cli.run(main)
