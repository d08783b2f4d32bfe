"""Imports point one way: from the programs down to leaves that know nothing of networks."""

import ast
import functools
import pathlib

import pytest

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent / 'vqm_jax'

# A room may import what stands below it, never beside or above it.
ORDER = (
  {'train', 'eval', 'enhance', 'combine', 'export', 'prepare', 'commands'},
  {'enhancing'},
  {'report'},
  {'training'},
  {'evaluation'},
  {'inference'},
  {'enhancers'},
  {'restorers'},
  {'losses'},
  {'layers'},
  {'metrics'},
  {'perceptual'},
  {'data'},
  {'video'},
  {'checkpoints'},
  {'parallel'},
  {'workdir'},
  {'config'},
  {'summary'},
  {'published'},
  {'pictures'},
  {'zips'},
  {'names'},
  {'locks'},
  {'stopping'},
  {'cli'},
  {'files'},
  {'schemas'},
  {'formats'},
  {'host_memory'},
  {'installed'},
  {'errors'},
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# Libraries that training and evaluation on records do without, and who may import them, at the top or in functions.
FENCED = {
  'av': {'video', 'prepare'},
  'cv2': {'video', 'prepare', 'metrics'},
  'scenedetect': {'video', 'prepare'},
  'tensorflow': set(),
}


@functools.cache  # every test asks
def modules():
  """(path, room, imported modules) of every file."""
  every = []
  for path in sorted(ROOT.rglob('*.py')):
    room = path.relative_to(ROOT).parts[0].removesuffix('.py')
    if room == '__init__':
      continue
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.Import):
        found += [(alias.name, node.lineno) for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        found += [(f'{node.module}.{alias.name}', node.lineno) for alias in node.names]
    every.append((path, room, found))
  return every


@pytest.mark.parametrize('room', sorted(RANK))
def test_a_room_imports_only_what_stands_below_it(room):
  upward = []
  for path, own, found in modules():
    if own != room:
      continue
    for name, line in found:
      parts = name.split('.')
      if parts[0] == 'vqm_jax' and len(parts) > 1 and parts[1] in RANK and parts[1] != room:
        if RANK[parts[1]] <= RANK[room]:
          upward.append(f'{path.relative_to(ROOT)}:{line} imports {name}')
  assert not upward


def test_every_room_has_a_place():
  assert {room for _, room, _ in modules()} <= RANK.keys()


@pytest.mark.parametrize('library', FENCED)
def test_libraries_of_the_write_side_stay_there(library):
  strangers = [
    f'{path.relative_to(ROOT)}:{line}'
    for path, room, found in modules()
    for name, line in found
    if name.split('.')[0] == library and room not in FENCED[library]
  ]
  assert not strangers


def test_nothing_imports_experiments_or_builders_by_name():
  named = [
    f'{path.relative_to(ROOT)}:{line} imports {name}'
    for path, _, found in modules()
    for name, line in found
    if name.split('.')[0] in ('experiments', 'intvid', 'vid3oc', 'paired_videos', 'vqm_demo')
  ]
  assert not named


def test_programs_only_turn_flags_into_arguments():
  """Each is short, and what it does can be called without flags: no other module defines any, but for --debug."""
  programs = {path for path, _, _ in modules() if path.read_text(encoding='utf-8').endswith('\n  cli.run(main)\n')}
  assert len(programs) > 15
  lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding='utf-8').splitlines()) for path in programs}
  assert not {name: length for name, length in lengths.items() if length >= 150}
  others = [path for path, room, _ in modules() if path not in programs and room != 'cli']
  assert not [path for path in others if 'flags.DEFINE' in path.read_text(encoding='utf-8')]


def test_every_module_has_a_test_file_of_its_name():
  """tests/a/test_b.py tests vqm_jax/a/b.py; that programs start, tests/test_help.py; packages hold no code."""
  tests = {path.relative_to(TESTS) for path in TESTS.rglob('test_*.py')}
  untested = [
    str(path.relative_to(ROOT))
    for path, _, _ in modules()
    if path.name != '__init__.py' and not path.read_text(encoding='utf-8').endswith('\n  cli.run(main)\n')
    if path.relative_to(ROOT).with_name(f'test_{path.name}') not in tests
  ]
  assert not untested
