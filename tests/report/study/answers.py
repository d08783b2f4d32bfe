"""Keys of studies without pictures, and answers of raters whose taste is known."""

import csv
import io
import json
import math

import numpy as np

from vqm_jax.report.study import ratings, trials

METHODS, CLIPS = ['a', 'b', 'c', 'd', 'e'], [f'clip{k}' for k in range(6)]
STRENGTHS = np.array([0.9, 0.4, 0.0, -0.4, -0.9])


def make_key(mode='pair', methods=METHODS, target=None, slots=60, max_trials=60):
  """The key of a study without pictures."""
  stimuli = [*methods, *([target] if target else [])]
  made = trials.orders(stimuli, CLIPS, mode, stimuli[-1], slots, 0, max_trials)
  stimuli = sorted({(m, t.clip) for order in made for t in order for m in (t.left, t.right) if m})
  tokens = {stimulus: f't{k}' for k, stimulus in enumerate(stimuli)}
  return {
    'format': 'vqm_jax study key',
    'version': 1,
    'study': 'demo',
    'mode': mode,
    'question': 'Which?',
    'methods': methods,
    'target': target,
    'clips': CLIPS,
    'media': {token: {'method': method, 'clip': clip} for (method, clip), token in tokens.items()},
    'orders': [
      [
        {'kind': t.kind, 'media': [tokens[m, t.clip] for m in (t.left, t.right) if m]}
        for t in order
        if t.kind != 'training'
      ]
      for order in made
    ],
  }


def export(key, name, answer, stop=None, ms=4000):
  """What the page saves when `answer(kind, methods, clip)` says what is chosen."""
  slot = trials.slot_of(name, len(key['orders']))
  order = key['orders'][slot]
  answers = []
  for k, trial in enumerate(order[:stop]):
    shown = [key['media'][token] for token in trial['media']]
    given = answer(trial['kind'], [entry['method'] for entry in shown], shown[0]['clip'])
    answers.append({'trial': k, 'media': trial['media'], 'answer': given, 'ms': ms, 'plays': 1})
  return signed(
    {'format': 'vqm_jax study answers', 'version': 1, 'study': key['study'], 'mode': key['mode'], 'participant': name}
    | {'slot': slot, 'answers': answers, 'started': '', 'finished': '', 'screen': None, 'browser': ''}
    | {'order': trials.order_digest(key['study'], slot, [trial['media'] for trial in order])}
  )


def signed(value):
  arguments = value['study'], value['participant'], value['order'], value['answers']
  return value | {'digest': trials.answers_digest(*arguments)}


def chooser(rng, tie=0.6):
  """A rater who follows Davidson's model."""
  strengths = dict(zip(METHODS, STRENGTHS, strict=True))

  def choose(kind, methods, clip):
    if kind == 'obvious':
      return 'right' if methods[0] == trials.DAMAGED else 'left'
    left, right = (strengths[method] for method in methods)
    weights = np.array([math.exp(left), tie * math.exp((left + right) / 2), math.exp(right)])
    return ('left', 'same', 'right')[rng.choice(3, p=weights / weights.sum())]

  return choose


def save(folder, values):
  folder.mkdir(exist_ok=True)
  for k, value in enumerate(values):
    (folder / f'{k:02d}.json').write_text(json.dumps(value))
  return ratings.find([str(folder)])


def read(tmp_path, key, values):
  return ratings.read(key, save(tmp_path / 'answers', values))


def records(text):
  return list(csv.DictReader(io.StringIO(text, newline='')))


def rate(quality, rng=None):
  """A rater to whom each method is worth this much, give or take."""

  def choose(kind, methods, clip):
    if kind == 'obvious':
      return 1
    noise = 0 if rng is None else rng.normal(0, 0.7)
    return int(np.clip(round(quality[methods[0]] + noise), 1, 5))

  return choose
