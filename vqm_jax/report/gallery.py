"""Shows trained systems side by side on one clip: a grid of one frame, and the clip as an animation.

Example: python -m vqm_jax.report.gallery --results=runs/ecnu,runs/gil,runs/boss --out=gallery/ --clip=076

Results are those of report.figures, with the frames that vqm_jax.eval kept with --save_frames. --out gets
gallery_<clip>.png, of input, systems and target with their PSNR where these are aligned, and gallery_<clip>.webp.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags

from vqm_jax import cli, errors, pictures
from vqm_jax.report import panels, saved_frames

_RESULTS = flags.DEFINE_list('results', None, 'Summaries, folders of scores and workdirs, with commas.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the pictures.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Which results of a workdir.')
_CLIP = flags.DEFINE_string('clip', None, 'The clip.')
_FRAME = flags.DEFINE_integer('frame', None, 'Frame of the grid, by default the middle one.')
_ANIMATE = flags.DEFINE_integer('animate', 48, 'How many frames the animation has, from the first on; 0 for none.')
_FPS = flags.DEFINE_float('fps', 25.0, 'Frames per second of the animation.')


def write(
  out: pathlib.Path, paths: Sequence[str], split: str, clip: str, frame: int | None, animate: int, fps: float
) -> list[pathlib.Path]:
  """Write the pictures, arguments as of the flags; return their paths."""
  block, raw = saved_frames.read_results(paths, split)
  saved_frames.choose_clips(block, [clip])
  saved = saved_frames.SavedFrames(block, raw)
  saved.check([clip])
  index = saved_frames.choose_frame(saved, clip, frame)
  frames = saved.at(clip, index)
  scores = {}
  if block.aligned:
    target = frames[saved.target.label]
    others = {label: picture for label, picture in frames.items() if label != saved.target.label}
    scores = panels.whole_scores(others, target, block)
  written = [out / f'gallery_{clip}.png']
  pictures.save_png(written[0], panels.frames_figure(frames, scores))
  if animate:
    steps = saved.indices(clip)[:animate]
    written.append(out / f'gallery_{clip}.webp')
    pictures.save_animation(written[1], list(_animated(saved, clip, steps)), fps)
  return written


def _animated(saved: saved_frames.SavedFrames, clip: str, indices: Sequence[int]) -> Iterator[np.ndarray]:
  for index in cli.progress(indices, desc='drawn', unit='frame'):
    yield panels.frames_figure(saved.at(clip, index), {})


def main(argv: list[str]) -> None:
  del argv
  if not _RESULTS.value or not _OUT.value or not _CLIP.value:
    raise errors.ConfigError('--results, --out and --clip are required; see --help.')
  if _ANIMATE.value < 0 or _FPS.value <= 0:
    raise errors.ConfigError(f'--animate={_ANIMATE.value} --fps={_FPS.value}: expected 0 or more, and more than 0.')
  out = pathlib.Path(_OUT.value)
  print(*write(out, _RESULTS.value, _SPLIT.value, _CLIP.value, _FRAME.value, _ANIMATE.value, _FPS.value), sep='\n')


if __name__ == '__main__':
  cli.run(main)
