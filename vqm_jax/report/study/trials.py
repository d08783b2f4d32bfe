"""The trials of a blind study, in the order in which a rater sees them; and the digests that tie answers to them.

Orders are made when the study is made, for a number of slots; the page takes the slot that the participant's name falls
into. So the page has no generator of its own that would have to agree with this one.
"""

import collections
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

DAMAGED = '(damaged)'  # the stimulus that nobody can find good, for checks
MODES = ('pair', 'mos')

_TRAINING = 2
_REPEATS, _OBVIOUS, _SAME = 0.08, 0.05, 0.03  # shares of the trials, and at least:
_FEWEST = {'repeat': 1, 'obvious': 2, 'same': 1}
_DAMAGED_CLIPS = 3  # as many clips have a damaged version


@dataclasses.dataclass(frozen=True)
class Trial:
  """One question.

  Attributes:
    kind: training, main, repeat (of a main trial, sides swapped), obvious (one side is damaged) or same (twice
      the same).
    clip: which clip is shown.
    left: method.
    right: method; None where one video is rated.
  """

  kind: str
  clip: str
  left: str
  right: str | None = None


def orders(
  methods: Sequence[str], clips: Sequence[str], mode: str, best: str, slots: int, seed: int, max_trials: int
) -> list[list[Trial]]:
  """The trials of every slot, training first.

  Pairs: each two methods on each clip, of which a slot gets as many as `max_trials` allows, dealt so that all come up
  equally often. Each method is on each side equally often, as far as numbers allow. Ratings: each method on each clip,
  in blocks that hold every method once; where that is too much, a slot gets some of the clips, but these whole.
  A clip does not follow itself unless it has to.

  Args:
    methods: that compete.
    clips: their names.
    mode: pair or mos.
    best: the stimulus that the damaged one stands against.
    slots: how many orders.
    seed: the same one gives the same orders.
    max_trials: beside repeats, checks and training.
  """
  rng = np.random.default_rng(seed)
  damaged = damaged_clips(clips)
  if mode == 'pair':
    cells = [(clip, a, b) for clip in clips for a, b in itertools.combinations(methods, 2)]
    deck = _deal(cells, min(max_trials, len(cells)), slots, rng)
    sides = collections.Counter()
    return [_pair_order(hand, methods, damaged, best, sides, rng) for hand in deck]
  count = max(1, min(len(clips), max_trials // len(methods)))
  return [_mos_order(hand, methods, damaged, best, rng) for hand in _deal(list(clips), count, slots, rng)]


def damaged_clips(clips: Sequence[str]) -> list[str]:
  """The clips that have a damaged version, spread over all."""
  count = min(_DAMAGED_CLIPS, len(clips))
  return [clips[k * len(clips) // count] for k in range(count)]


def digest(text: str) -> str:
  """64 bits of FNV-1a over UTF-8, as 16 hexadecimal digits.

  It finds what happens by accident: mixed-up files, an edited number, a cut-off list. It is no cryptography: whoever
  wants to cheat can compute it as well.
  """
  value = 0xCBF29CE484222325
  for byte in text.encode():
    value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
  return f'{value:016x}'


def slot_of(participant: str, slots: int) -> int:
  """The slot that a participant's order is taken from."""
  return int(digest(participant), 16) % slots


def order_digest(study: str, slot: int, order: Sequence[Sequence[str]]) -> str:
  """Of the media in the order shown: lists of one or two tokens, training left out."""
  return digest('\n'.join([study, str(slot), *(' '.join(tokens) for tokens in order)]))


def answers_digest(study: str, participant: str, order: str, answers: Sequence[dict]) -> str:
  """Of all that answers hold; `order` is the digest of the order."""
  fields = ('trial', 'media', 'answer', 'ms', 'plays')
  lines = [' '.join(map(str, _flat(answer[name] for name in fields))) for answer in answers]
  return digest('\n'.join([study, participant, order, *lines]))


def _flat(values) -> list:
  return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _deal(cells: list, count: int, hands: int, rng: np.random.Generator) -> list[list]:
  """Hands of `count` different cells from shuffled decks, one after another, so that all are dealt equally often."""
  out, deck = [], []
  for _ in range(hands):
    hand = []
    while len(hand) < count:
      if not deck:
        deck = [cells[k] for k in rng.permutation(len(cells))]
      place = next((k for k, cell in enumerate(deck) if cell not in hand), None)
      if place is None:  # all that is left is in the hand already
        deck += [cells[k] for k in rng.permutation(len(cells))]
        continue
      hand.append(deck.pop(place))
    out.append(hand)
  return out


def _pair_order(hand, methods, damaged, best, sides, rng) -> list[Trial]:
  main = []
  pairs, lefts = collections.Counter(), collections.Counter()  # of this slot; `sides` is over all slots
  for k in rng.permutation(len(hand)):
    clip, a, b = hand[k]
    # How far (a, b) is ahead of (b, a) decides: in this slot's pairs; else of its methods and over all slots.
    ahead = pairs[a, b] or lefts[a] - lefts[b] + 2 * sides[clip, a, b] or rng.choice([-1, 1])
    sign = -1 if ahead > 0 else 1
    left, right = (a, b) if sign > 0 else (b, a)
    pairs[a, b] += sign
    sides[clip, a, b] += sign
    lefts[left] += 1
    lefts[right] -= 1
    main.append(Trial('main', clip, left, right))
  order = _apart(main, rng)
  checks = []
  flip = int(rng.integers(2))
  for k in range(_number('obvious', _OBVIOUS, main)):
    pair = (best, DAMAGED) if (k + flip) % 2 else (DAMAGED, best)
    checks.append(Trial('obvious', damaged[k % len(damaged)], *pair))
  for _ in range(_number('same', _SAME, main)):
    trial, method = main[rng.integers(len(main))], methods[rng.integers(len(methods))]
    checks.append(Trial('same', trial.clip, method, method))
  order = _with_repeats(_inserted(order, checks, rng), rng)
  example = main[rng.integers(len(main))]
  training = [Trial('training', damaged[0], best, DAMAGED), dataclasses.replace(example, kind='training')]
  return training[:_TRAINING] + order


def _mos_order(hand, methods, damaged, best, rng) -> list[Trial]:
  order = []
  clips = [hand[k] for k in rng.permutation(len(hand))]
  offsets = rng.permutation(len(methods))
  for block in range(len(clips)):
    trials = [
      Trial('main', clips[(block + offset) % len(clips)], method)
      for method, offset in zip(methods, offsets, strict=True)
    ]
    order += _apart(trials, rng, order[-1].clip if order else None)
  checks = [Trial('obvious', damaged[k % len(damaged)], DAMAGED) for k in range(_number('obvious', _OBVIOUS, order))]
  order = _with_repeats(_inserted(order, checks, rng), rng)
  return [Trial('training', damaged[0], DAMAGED), Trial('training', damaged[-1], best)][:_TRAINING] + order


def _number(kind: str, share: float, main: Sequence[Trial]) -> int:
  return max(_FEWEST[kind], round(share * len(main)))


def _apart(trials: Sequence[Trial], rng: np.random.Generator, last: str | None = None) -> list[Trial]:
  """The trials in a random order in which no clip follows itself where that can be."""
  left, out = list(trials), []
  while left:
    clip, most = collections.Counter(trial.clip for trial in left).most_common(1)[0]
    free = [trial for trial in left if trial.clip != last] or left
    if 2 * most > len(left) and clip != last:  # later it would have to follow itself
      free = [trial for trial in free if trial.clip == clip]
    trial = free[rng.integers(len(free))]
    left.remove(trial)
    out.append(trial)
    last = trial.clip
  return out


def _inserted(order: list[Trial], extra: Sequence[Trial], rng: np.random.Generator, first: int = 1) -> list[Trial]:
  """The order with `extra` at random places from `first` on, beside other clips where there are such places."""
  order = list(order)
  for trial in extra:
    places = range(min(first, len(order)), len(order) + 1)
    good = [p for p in places if trial.clip not in {other.clip for other in order[max(p - 1, 0) : p + 1]}]
    free = good or list(places)
    order.insert(free[rng.integers(len(free))], trial)
  return order


def _with_repeats(order: list[Trial], rng: np.random.Generator) -> list[Trial]:
  """Repeats of main trials of the first half, sides swapped, in the last third."""
  main = [trial for trial in order[: max(1, len(order) // 2)] if trial.kind == 'main']
  count = min(len(main), _number('repeat', _REPEATS, order))
  chosen = [main[k] for k in rng.permutation(len(main))[:count]]
  repeats = [
    Trial('repeat', trial.clip, *((trial.right, trial.left) if trial.right else (trial.left,))) for trial in chosen
  ]
  return _inserted(order, repeats, rng, first=-(-2 * len(order) // 3))
