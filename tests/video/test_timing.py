"""Time stamps: right ones stay, others go between their neighbours."""

import itertools
import random
from fractions import Fraction

import pytest

from vqm_jax.video import timing

MS = Fraction(1, 1000)


def resolve(stamps, time_base=MS, rate=Fraction(25), start=None):
  times = timing.resolve(stamps, time_base, rate, start)
  if times.stamps is not None:
    assert len(times.stamps) == len(stamps) and all(a < b for a, b in itertools.pairwise(times.stamps))
  return times


def test_right_stamps_stay_as_they_are():
  stamps = [7, 8, 50, 51, 90, 10**9]
  assert resolve(stamps) == (stamps, MS, 0, ()) and resolve([-80, -40, 3]).stamps == [-80, -40, 3]


@pytest.mark.parametrize(
  ('found', 'right'),
  [
    ([0, 40, 80, 80, 160, 200], [0, 40, 80, 120, 160, 200]),  # doubled, the second is wrong
    ([0, 40, 120, 120, 160, 200], [0, 40, 80, 120, 160, 200]),  # or the first
    ([0, 40, 40, 40, 160, 200], [0, 40, 80, 120, 160, 200]),
    ([0, 40, 80, 120, 120, 160, 200], [0, 40, 80, 120, 140, 160, 200]),
    ([0, 40, None, 120, None, None, 240], [0, 40, 80, 120, 160, 200, 240]),
    ([None, None, 80, 120, 160, None], [0, 40, 80, 120, 160, 200]),
    ([0, 40, 80, 60, 160, 200], [0, 40, 80, 120, 160, 200]),  # back
    ([0, 40, 80, -(10**9), 160, 200], [0, 40, 80, 120, 160, 200]),
    ([0, 40, 80, 10**9, 160, 200], [0, 40, 80, 120, 160, 200]),  # far ahead
    ([-80, -40, -40, 40, 80], [-80, -40, 0, 40, 80]),
    ([0, 1, 1, 2, 40], None),  # no room: by a unit
  ],
)
def test_wrong_stamps_move_between_their_neighbours(found, right):
  times = resolve(found)
  assert times.time_base == MS
  assert times.moved == sum(a != b for a, b in zip(found, times.stamps, strict=True))
  if right:
    assert times.stamps == right
  else:
    assert max(abs(a - b) for a, b in zip(found, times.stamps, strict=True)) <= 2


def test_room_is_made_where_units_are_coarse():
  times = resolve([0, 1, 2, 2, 3, 4, 5], Fraction(1, 25))
  assert times.moved == 1 and [float(stamp * times.time_base) for stamp in times.stamps] == pytest.approx(
    [0, 0.04, 0.08, 0.1, 0.12, 0.16, 0.2]
  )


def test_only_streams_without_a_stamp_are_timed_by_their_rate():
  assert resolve([None] * 3) == (None, Fraction(1, 25), 0, ())
  times = resolve([None] * 3, rate=Fraction(30000, 1001), start=Fraction(1, 3))
  assert [stamp * times.time_base for stamp in times.stamps] == [
    Fraction(1, 3) + k * Fraction(1001, 30000) for k in range(3)
  ]
  assert resolve([None, 500, None, None]).stamps[1:] == [500, 540, 580]


@pytest.mark.parametrize('lengths', [(12, 20), (20, 12), (15, 16, 30)])
def test_a_clock_that_starts_again_goes_on(lengths):
  found = [k * 40 for length in lengths for k in range(length)]
  times = resolve(found)
  assert times.stamps == [k * 40 for k in range(sum(lengths))]
  assert times.shifts == tuple(Fraction(40 * sum(lengths[: k + 1]), 1000) for k in range(len(lengths) - 1))


def test_anything_becomes_ascending_and_keeps_the_longest_part_that_was():
  rng = random.Random(0)
  for _ in range(300):
    count = rng.randrange(1, 40)
    wrong = {k for k in range(count) if rng.random() < 0.1}
    found = [rng.choice([None, rng.randrange(-50, 4000)]) if k in wrong else k * 40 for k in range(count)]
    times = resolve(found, rng.choice([MS, Fraction(1, 90000), Fraction(1, 25)]))
    if times.stamps and len(wrong) < count:
      assert times.moved <= len(wrong)


def test_rate():
  assert timing.is_constant([5, 45, 85, 126], MS, Fraction(25))
  assert not timing.is_constant([5, 45, 125, 165], MS, Fraction(25))
