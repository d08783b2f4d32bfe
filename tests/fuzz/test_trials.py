"""A few hundred damaged files of every kind: accepted or told in a line. `benchmarks/faults.py` tries thousands."""

import json
import random

import pytest
from fuzz import mutations, targets, trials

from vqm_jax import errors

# Trials of each kind; what is quick to read gets more of them.
EACH = 3
QUICK = ('png', 'jpeg', 'webp', 'bmp', 'names', 'safetensors', 'summary', 'columns', 'timing', 'pairing', 'study key')


@pytest.fixture(scope='module')
def seeds(tmp_path_factory):
  return tmp_path_factory.mktemp('seeds')


@pytest.mark.parametrize('name', targets.TARGETS)
def test_damage_is_read_or_told(name, seeds, tmp_path):
  trials.prepare([name], seeds)
  for seed in range(3 * EACH if name in QUICK else EACH):
    outcome = trials.attempt(name, seed, seeds, tmp_path, seconds=120)
    assert not outcome.is_fault, (seed, *outcome)


def test_faults_are_seen(seeds, tmp_path, monkeypatch):
  """What the trials look for: each kind of fault, made by a reader that has it."""

  def climb(box, rng):
    (box.parent.parent / 'ESCAPED').write_text('x')

  def hang(box, rng):
    while True:
      pass

  def refuse(text):
    def read(box, rng):
      raise errors.DataError(text.format(box=box))

    return read

  def fill(box, rng):
    raise errors.DataError(str(box)) from MemoryError()

  readers = {
    'accepted': lambda box, rng: None,
    'refused': refuse('{box}/name.json: is damaged'),
    'message': refuse('something is damaged'),
    'traceback': lambda box, rng: json.loads('{'),
    'escape': climb,
    'hang': hang,
    'memory': fill,
  }
  for kind, read in readers.items():
    monkeypatch.setitem(targets.TARGETS, kind, targets.Target(targets.make_name, read))
    folder = seeds / kind
    folder.mkdir()
    targets.make_name(folder)
    assert trials.attempt(kind, 0, seeds, tmp_path, seconds=0.2).kind == kind


@pytest.mark.parametrize('name', ['a.json', 'a.csv', 'a.png', 'a.zip', 'a.safetensors', 'a.mp4', 'a.bin'])
def test_damage_differs_and_comes_again(name, seeds):
  made = {'a.csv': 'columns', 'a.png': 'png', 'a.zip': 'zip of frames', 'a.safetensors': 'safetensors', 'a.mp4': 'mp4'}
  trials.prepare([made.get(name, 'timing')], seeds)
  suffix, folder = name[1:] if name in made else '.json', seeds / made.get(name, 'timing')
  content = next(path for path in sorted(folder.iterdir()) if path.suffix == suffix).read_bytes()
  damaged, again = ([mutations.mutate(content, name, random.Random(seed)) for seed in range(20)] for _ in range(2))
  assert damaged == again and len(set(damaged)) > 14
