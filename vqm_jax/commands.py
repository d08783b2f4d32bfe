"""The commands that pip installs: `vqm-train` is `python -m vqm_jax.train`, and so on; pyproject.toml lists them."""

import importlib
import sys

from vqm_jax import cli

REPORTS = {
  'tables': 'tables of papers and results, as Markdown, LaTeX and CSV',
  'figures': 'comparisons of frames and plots',
  'page': 'one HTML file to look at results',
  'study': 'a study in which people compare videos',
  'study_results': 'what people said in a study',
  'submission': "the archive that the challenge's server expected",
  'gallery': 'a page that links pages',
}


def train() -> None:
  """`vqm-train`."""
  _run('train')


def evaluate() -> None:
  """`vqm-eval`."""
  _run('eval')


def enhance() -> None:
  """`vqm-enhance`."""
  _run('enhance')


def degrade() -> None:
  """`vqm-degrade`."""
  _run('prepare.degrade')


def build() -> None:
  """`vqm-build`."""
  _run('prepare.build')


def report() -> None:
  """`vqm-report NAME`: the command `NAME` of `vqm_jax.report`."""
  name, rest = (sys.argv[1] if len(sys.argv) > 1 else ''), sys.argv[2:]
  if name in REPORTS:
    sys.argv = [f'{sys.argv[0]} {name}', *rest]
    _run(f'report.{name}')
  listed = '\n'.join(f'  {name:<14} {what}' for name, what in REPORTS.items())
  if name.startswith('-') and name.lstrip('-') in ('h', 'help', 'helpshort'):
    print(f'Shows results.\n\n  vqm-report COMMAND --flag=value, vqm-report COMMAND --help\n\nCommands:\n{listed}')
    sys.exit(0)
  found = f'unknown command {name!r}' if name else 'no command'
  print(f'error: vqm-report: {found}; choose one of {", ".join(REPORTS)}, or see --help.', file=sys.stderr)
  sys.exit(2)


def _run(name: str) -> None:
  module = importlib.import_module(f'vqm_jax.{name}')
  if hasattr(module, '__path__'):
    module = importlib.import_module(f'vqm_jax.{name}.__main__')
  cli.run(module.main)
