"""`--preview`: a page with a few frames of a video before and after."""

import pathlib
from collections.abc import Callable

from vqm_jax import cli, inference, video
from vqm_jax.enhancing import forecast
from vqm_jax.enhancing.restoring import Restoring
from vqm_jax.enhancing.task import Task
from vqm_jax.report.page import media, preview

FRAMES, STRENGTHS = 6, (0.5, 1.0, 1.5)


def write(
  page: pathlib.Path,
  restoring: Restoring,
  task: Task,
  strength: float,
  command: Callable[[float], str],
) -> None:
  """Write a page and print what it is for.

  `FRAMES` frames are restored, by one pass of the network each, and shown at `STRENGTHS` and the one asked for. Of the
  video these, their neighbours and the first few are read. A recurrent generator gets a short run-up.

  Args:
    page: the file to write.
    restoring: what restores the frames.
    task: the whole video, and where it would go.
    strength: what the command corrects with, beside `STRENGTHS`.
    command: gives the one that enhances the whole video at a strength, for a shell.
  """
  source, streams = task.source, list(forecast.stream_lines(task.source, task.output))
  strengths = sorted({*STRENGTHS, strength})
  commands = {strength: command(strength) for strength in strengths}
  indices = media.spread(range(source.num_frames), FRAMES)
  run = restoring.run
  network = f'{restoring.name} ({run.config["system"]})' if restoring.name else run.config['system']
  pairs = inference.restore_at(run.network, source, indices, list(commands), **restoring.options)
  before, after = zip(*cli.progress(pairs, len(indices), 'preview', 'frames'), strict=True)
  if isinstance(source, video.VideoFile):
    before = [video.upright(frame, source.display_matrix) for frame in before]
    after = [[video.upright(frame, source.display_matrix) for frame in frames] for frames in after]
  seconds = forecast.seconds_per_frame(restoring.at(strength), source, compiled=True)
  shown = preview.Preview(
    video=source.path.name if isinstance(source, video.VideoFile) else source.name,
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
  print('\n'.join([forecast.time_line(seconds, source.num_frames), *streams]))
  task.print_damage()
  print(f'the whole video: {commands[strength]}')
