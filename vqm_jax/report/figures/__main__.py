"""Draws the paper's figures, and those of our own, from evaluated results.

Example: python -m vqm_jax.report.figures --results=runs/ecnu,runs/gil --out=figures/ --clips=076
         python -m vqm_jax.report.figures --results=runs/ecnu --out=figures/ --crops='40,60,64;500,200,64'

  profile     Figs. 10, 12: one column of pixels of every frame, side by side
  comparison  Figs. 9, 11: a frame and crops of it, where methods differ most and at random (crops.json)
  errors      the absolute error of every method
  frames      PSNR along the frames of each clip
  training    validation score and loss over the steps
  tradeoff    gain against seconds per frame and parameters

Results are those of report.tables, all of one test set. The first three need frames that vqm_jax.eval kept with
--save_frames. Every figure has a .txt with its caption; plots are PNG and SVG.
"""

from absl import flags

from vqm_jax import cli, errors
from vqm_jax.report.figures import draw

_RESULTS = flags.DEFINE_list('results', None, 'Summaries, folders of scores and workdirs, with commas.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the figures.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Which results of a workdir.')
_CLIPS = flags.DEFINE_list('clips', None, 'Clips, or all; by default pictures of the first, curves of all.')
_FRAME = flags.DEFINE_integer('frame', None, 'Frame of comparison and errors, by default the middle one.')
_COLUMN = flags.DEFINE_string('column', 'auto', 'Column of profile: auto (where the target moves most), or x.')
_CROPS = flags.DEFINE_string('crops', 'auto', 'Crops: auto, auto:N (N of both kinds), or x,y,size;x,y,size;...')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the random crops.')
_KINDS = flags.DEFINE_list('kinds', None, 'Which figures; by default all that the results allow.')


def main(argv: list[str]) -> None:
  del argv
  if not _RESULTS.value or not _OUT.value:
    raise errors.ConfigError('--results and --out are required; see --help.')
  written = draw(
    _RESULTS.value, _OUT.value, kinds=_KINDS.value, split=_SPLIT.value, clips=_CLIPS.value or (), frame=_FRAME.value,
    column=_COLUMN.value, crops=_CROPS.value, seed=_SEED.value,
  )  # fmt: skip
  print(*written, sep='\n')


if __name__ == '__main__':
  cli.run(main)
