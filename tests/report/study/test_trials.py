"""Orders of a study: balanced, complete, without a clip twice in a row; digests."""

import collections
import itertools

import pytest

from vqm_jax.report.study import trials

METHODS, CLIPS = ['a', 'b', 'c', 'd'], [f'clip{k}' for k in range(6)]
PAIRS = list(itertools.combinations(METHODS, 2))


def orders(mode, methods=METHODS, clips=CLIPS, slots=12, seed=0, max_trials=60):
  return trials.orders(methods, clips, mode, methods[0], slots, seed, max_trials)


def of(order, *kinds):
  return [trial for trial in order if trial.kind in kinds]


def shown(order):
  return [trial for trial in order if trial.kind != 'training']


@pytest.mark.parametrize('mode', trials.MODES)
def test_a_seed_gives_the_same_orders_and_slots_differ(mode):
  assert orders(mode) == orders(mode) != orders(mode, seed=1)
  assert len(set(map(tuple, orders(mode)))) == 12


@pytest.mark.parametrize('max_trials', [60, 20])
def test_pairs_are_complete_and_balanced(max_trials):
  made = orders('pair', slots=18, max_trials=max_trials)
  cells = collections.Counter()
  for order in made:
    main = of(order, 'main')
    assert len(main) == min(max_trials, 36)
    hand = [(t.clip, *sorted((t.left, t.right))) for t in main]
    assert len(set(hand)) == len(hand)
    cells.update(hand)
    sides = collections.Counter()
    for trial in main:
      sides[trial.left] += 1
      sides[trial.right] -= 1
    assert all(abs(ahead) <= 3 for ahead in sides.values())
    for a, b in PAIRS:
      ahead = sum((t.left == a) - (t.left == b) for t in main if {t.left, t.right} == {a, b})
      assert abs(ahead) <= 1
  assert len(cells) == 36 and max(cells.values()) - min(cells.values()) <= 1
  # Over all raters each pair on each clip is on either side about as often.
  lefts = collections.Counter((t.clip, t.left, t.right) for order in made for t in of(order, 'main'))
  assert all(abs(lefts[clip, a, b] - lefts[clip, b, a]) <= 4 for clip in CLIPS for a, b in PAIRS)


def test_ratings_come_in_blocks_of_all_methods():
  for order in orders('mos'):
    main = of(order, 'main')
    assert len(main) == 24 == len({(t.clip, t.left) for t in main}) and not any(t.right for t in order)
    for k in range(0, 24, 4):
      assert {t.left for t in main[k : k + 4]} == set(METHODS)
  for order in orders('mos', max_trials=9):  # two whole clips, so that the hidden reference is beside each
    main = of(order, 'main')
    assert len(main) == 8 and len({t.clip for t in main}) == 2
  dealt = collections.Counter(t.clip for order in orders('mos', max_trials=9) for t in of(order, 'main'))
  assert set(dealt.values()) == {16}


@pytest.mark.parametrize('mode', trials.MODES)
@pytest.mark.parametrize('clips', [2, 3, 6])
def test_no_clip_twice_in_a_row(mode, clips):
  broken = 0
  for order in orders(mode, clips=CLIPS[:clips], slots=30):
    names = [trial.clip for trial in shown(order)]
    broken += sum(a == b for a, b in zip(names, names[1:], strict=False))
    assert [t.kind for t in order[:2]] == ['training'] * 2 and not of(order[2:], 'training')
  # With two clips, checks and repeats have no place of their own between two others.
  assert broken <= (0 if clips == 6 else 30 * len(of(order, 'repeat', 'obvious', 'same')))


@pytest.mark.parametrize('mode', trials.MODES)
def test_checks_and_repeats(mode):
  for order in orders(mode):
    counted = shown(order)
    main, repeats = of(order, 'main'), of(order, 'repeat')
    assert 0.05 <= len(repeats) / len(main) <= 0.11
    for trial in repeats:
      [before] = [t for t in main if (t.clip, {t.left, t.right}) == (trial.clip, {trial.left, trial.right})]
      assert counted.index(trial) - counted.index(before) >= len(counted) // 6
      assert (trial.left, trial.right) == ((before.right, before.left) if mode == 'pair' else (before.left, None))
    obvious = of(order, 'obvious')
    assert len(obvious) == 2
    if mode == 'pair':
      assert sorted((t.left, t.right).index(trials.DAMAGED) for t in obvious) == [0, 1]
      assert all(t.left == t.right for t in of(order, 'same')) and of(order, 'same')
    else:
      assert all(t.left == trials.DAMAGED for t in obvious)


def test_one_clip_and_two_methods_are_enough():
  [order] = orders('pair', ['a', 'b'], ['x'], slots=1)
  assert collections.Counter(t.kind for t in order) == {'training': 2, 'main': 1, 'repeat': 1, 'obvious': 2, 'same': 1}


def test_digests():
  # FNV-1a with 64 bits, the values that its authors give.
  assert trials.digest('') == 'cbf29ce484222325' and trials.digest('a') == 'af63dc4c8601ec8c'
  assert trials.digest('foobar') == '85944171f73967e8'
  assert trials.order_digest('s', 1, [['a', 'b'], ['c']]) == trials.digest('s\n1\na b\nc')
  answer = {'trial': 0, 'media': ['a', 'b'], 'answer': 'left', 'ms': 1200, 'plays': 1}
  assert trials.answers_digest('s', 'P', 'o', [answer]) == trials.digest('s\nP\no\n0 a b left 1200 1')
  assert len({trials.slot_of(f'P{k}', 60) for k in range(60)}) > 30
