"""Everything public says what it is: a docstring, plain words, types."""

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def documented():
  """(place, node, class around it, whether all of it is public) of classes and functions; not of those in functions."""
  found = []

  def walk(node, place, around, public):
    for child in ast.iter_child_nodes(node):
      if isinstance(child, (ast.If, ast.Try, ast.With)):
        walk(child, place, around, public)
      elif isinstance(child, (ast.ClassDef, *FUNCTIONS)):
        shown = public and not (child.name.startswith('_') and not child.name.startswith('__'))
        found.append((f'{place}:{child.lineno} {child.name}', child, around, shown))
        if isinstance(child, ast.ClassDef):
          walk(child, place, child, shown)

  for folder in ('vqm_jax', 'experiments', 'datasets', 'benchmarks'):
    for path in sorted((ROOT / folder).rglob('*.py')):
      tree, place = ast.parse(path.read_text(encoding='utf-8')), path.relative_to(ROOT).as_posix()
      if tree.body:
        found.append((place, tree, None, True))
      walk(tree, place, None, True)
  return found


def in_package():
  return [entry for entry in documented() if entry[0].startswith('vqm_jax/')]


def test_everything_public_has_a_docstring():
  """The module says what its main does, and a base class what its methods are for."""
  bare = [
    place
    for place, node, around, public in in_package()
    if public and not ast.get_docstring(node) and node.name not in ('main', '__init__', '__call__', '__enter__')
    if not (around and around.bases) and not node.name.startswith('__')
  ]
  assert len(in_package()) > 1000 and not bare


def test_everything_public_has_types():
  untyped = []
  for place, node, _, public in in_package():
    if public and isinstance(node, FUNCTIONS) and node.name != '__exit__':
      args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
      missing = [arg.arg for arg in args if arg.annotation is None and arg.arg not in ('self', 'cls')]
      missing += ['->'] if node.returns is None and not node.name.startswith('__') else []
      untyped += [f'{place} {missing}'] if missing else []
  assert not untyped


def test_docstrings_are_plain():
  """They say what a thing is or does: no 'What ...' that only points at it, no 'as of `X`' that sends readers away."""
  found = []
  for place, node, _, _ in documented():
    text = ast.get_docstring(node) or ''
    if text.startswith('What ') or any(f'as {word} `' in text for word in ('of', 'in', 'for')) or '[D]' in text:
      found.append(place)
  assert not found
