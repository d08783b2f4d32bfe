"""Turns the answers of a blind study into tables and a plot.

Example: python -m vqm_jax.report.study_results --key=study_KEY_keep_private.json --exports=answers/ --out=results/

Exports are the files that raters sent, or folders of them. One of another study, in another order, edited, or a second
one of the same participant stops the program. Raters who failed checks or were too fast are named, but not counted.
--out gets study.md, .tex and .csv, raters.csv, votes.csv, study.json, forest.png and .svg. Pairs: Bradley-Terry
strengths with ties, binomial tests (pairs.csv). Ratings: MOS, and DMOS where there was a hidden reference.
"""

import pathlib

from absl import flags

from vqm_jax import cli, errors, files
from vqm_jax.report.study import forest, ratings, rendering

_KEY = flags.DEFINE_string('key', None, 'Key that report.study wrote.')
_EXPORTS = flags.DEFINE_list('exports', None, 'Files of answers, or folders of them.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the tables.')
_MAX_FAILED = flags.DEFINE_float('max_failed', 0.25, 'Share of checks that a rater may fail.', 0, 1)
_MIN_SECONDS = flags.DEFINE_float('min_seconds', 1.0, 'Least median time of an answer.', lower_bound=0)
_RESAMPLES = flags.DEFINE_integer('resamples', 1000, 'How often raters are drawn.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Of these draws.', lower_bound=0)
_PLOT = flags.DEFINE_bool('plot', True, 'Draw the forest plot, which needs matplotlib.')

_LABELS = {'pair': ('Log-strength', 0.0), 'mos': ('Mean opinion score', None)}


def main(argv: list[str]) -> None:
  del argv
  for flag, value in (('key', _KEY.value), ('exports', _EXPORTS.value), ('out', _OUT.value)):
    if not value:
      raise errors.ConfigError(f'--{flag} is required; see --help.')
  key = ratings.read_key(pathlib.Path(_KEY.value))
  raters = ratings.read(key, ratings.find(_EXPORTS.value))
  raters = ratings.screened(raters, _MAX_FAILED.value, _MIN_SECONDS.value)
  texts, found = rendering.documents(key, raters, _RESAMPLES.value, _SEED.value)
  out = pathlib.Path(_OUT.value)
  paths = [out / name for name in texts]
  for path, text in zip(paths, texts.values(), strict=True):
    files.write_text(path, text)
  files.write_json(out / 'study.json', found['numbers'])
  paths.append(out / 'study.json')
  if _PLOT.value and found['numbers']['votes']:
    paths += forest.save(out, found['estimates'], *_LABELS[key['mode']])
  print(texts['study.md'])
  print(*paths, sep='\n')


if __name__ == '__main__':
  cli.run(main)
