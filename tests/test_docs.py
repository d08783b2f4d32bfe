"""What README and guides tell people to type and to read is there."""

import pathlib
import re

import pytest

from vqm_jax import commands, config

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
PROGRAMS = {
  'vqm-train': 'train', 'vqm-eval': 'eval', 'vqm-enhance': 'enhance', 'vqm-degrade': 'prepare.degrade',
  'vqm-build': 'prepare.build',
}  # fmt: skip


def typed(page):
  """(program, its flags) of every command in the code blocks of a page."""
  for block in re.findall(r'^```bash\n(.*?)^```', page.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL):
    text = re.sub(r'\s+#.*', '', block.replace('\\\n', ' '))
    for line in re.split(r'\n|;|&', text):
      if found := re.search(r'python -m vqm_jax\.([\w.]+)|\b(vqm-(?!report)\w+)|vqm-report (\w+)', line):
        module, command, report = found.groups()
        yield module or PROGRAMS.get(command) or f'report.{report}', re.findall(r'--([\w.]+)', line[found.end() :])


def flags_of(program):
  path = ROOT / 'vqm_jax' / program.replace('.', '/')
  path = path / '__main__.py' if path.is_dir() else path.with_suffix('.py')
  text = path.read_text(encoding='utf-8') + (ROOT / 'vqm_jax/cli.py').read_text(encoding='utf-8')
  return set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", text)) | {'config', 'help'}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_have_these_flags(page):
  fields = config.FIELDS.keys()
  for program, given in typed(page):
    known = flags_of(program)
    for flag in given:
      name, *path = flag.removeprefix('no' if flag.startswith('no') and flag not in known else '').split('.')
      assert name in known, f'{program} has no --{flag}'
      assert not path or path[0] in fields, f'experiments have no {flag}'


def test_commands_of_the_readme_are_those_that_are_installed():
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  assert set(re.findall(r'\bvqm-\w+', text)) == set(PROGRAMS) and all(hasattr(commands, n) for n in ('train', 'build'))
  assert 600 < len(text.split()) < 800


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)#\s]+)[^)]*\)', page.read_text(encoding='utf-8')):
    assert '://' in target or (page.parent / target).exists(), target
