"""Makes a results page: one HTML file that opens anywhere and loads nothing, to look at what an evaluation gave.

Example: python -m vqm_jax.report.page --results=runs/ecnu --out=page.html
         python -m vqm_jax.report.page --results=runs/ecnu,runs/gil --out=page.html --clips=076,077 --frames=at:0,60

It holds the table, plots, a divider to draw over two versions of a frame, the worst and the best frames, and clips
that play in step. Results are those of report.figures, of one test set, with the frames that vqm_jax.eval kept with
--save_frames; --nopictures makes a page without frames. What does not fit into --max_mb is compressed more, shrunk or
left out, and the page says so.
"""

import pathlib

from absl import flags

from vqm_jax import cli, errors
from vqm_jax.report.page import build

_RESULTS = flags.DEFINE_list('results', None, 'Summaries, folders of scores and workdirs, with commas.')
_OUT = flags.DEFINE_string('out', None, 'The file, for example page.html.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Which results of a workdir.')
_PICTURES = flags.DEFINE_bool('pictures', True, 'Show frames, which evaluations must have kept.')
_CLIPS = flags.DEFINE_list('clips', None, 'Clips to show frames of; default all.')
_FRAMES = flags.DEFINE_string('frames', '3', 'Frames to compare: how many of each clip, or which, as at:0,12,23.')
_EXTREMES = flags.DEFINE_integer('extremes', 4, 'Worst and best frames of each method.', lower_bound=0)
_MOTION = flags.DEFINE_integer('motion', 24, 'Frames of a moving clip; 0 for none.', lower_bound=0)
_FPS = flags.DEFINE_float('fps', 25.0, 'Frames per second of moving clips.', lower_bound=1, upper_bound=240)
_MAX_MB = flags.DEFINE_float('max_mb', 40.0, 'Largest size of the file, in MB of 10^6 bytes.')


def main(argv: list[str]) -> None:
  del argv
  if not _RESULTS.value or not _OUT.value:
    raise errors.ConfigError('--results and --out are required; see --help.')
  if _MAX_MB.value <= 0:
    raise errors.ConfigError(f'--max_mb={_MAX_MB.value:g}: expected more than 0.')
  out = pathlib.Path(_OUT.value)
  page = build.write(
    out, _RESULTS.value, _SPLIT.value, _PICTURES.value, _CLIPS.value or (), _FRAMES.value, _EXTREMES.value,
    _MOTION.value, _FPS.value, _MAX_MB.value, cli.progress,
  )  # fmt: skip
  shown = page.pictures
  said = f'{len(shown.stills)} frames to compare, {len(shown.motion)} moving clips' if shown else 'no pictures'
  print(f'{out}: {said}, {out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
  cli.run(main)
