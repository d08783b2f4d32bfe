"""Writes the paper's tables, as published, beside what was measured here.

Example: python -m vqm_jax.report.tables --results=runs/ecnu,runs/gil --out=report/

Results are summary.json files, folders that hold one, or workdirs that vqm_jax.eval scored. --out gets table1
(aligned pairs, Track 1) and table2 (weakly aligned ones, Track 2) as Markdown, CSV and LaTeX, categories (by
scene) and comparison (methods in pairs) as Markdown and CSV. Without --results only the paper's own tables.
"""

import pathlib

from absl import flags

from vqm_jax import cli, errors
from vqm_jax.report import summaries
from vqm_jax.report.tables import rendering
from vqm_jax.summary import read_summary

_RESULTS = flags.DEFINE_list('results', None, 'Summaries, folders of scores and workdirs, with commas.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the tables.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Which results of a workdir: a split, or all.')


def main(argv: list[str]) -> None:
  del argv
  if not _OUT.value:
    raise errors.ConfigError('--out is required; see --help.')
  paths = summaries.find(_RESULTS.value or [], _SPLIT.value)
  blocks = summaries.blocks({str(path): read_summary(path) for path in paths})
  texts = rendering.documents(blocks)
  print(*(text for name, text in texts.items() if name.endswith('.md')), sep='\n')
  print(*rendering.write(pathlib.Path(_OUT.value), texts), sep='\n')


if __name__ == '__main__':
  cli.run(main)
