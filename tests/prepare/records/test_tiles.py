"""Which tiles are cut out of a video."""

import numpy as np

from vqm_jax.prepare.records import tiles


def test_plan_covers_time_and_space():
  plan = tiles.plan('a', [(0, 300)], 180, 320, num_frames=7, size=96, per_video=100, seed=0)
  assert plan == sorted(plan) and len(plan) == 100
  gaps = np.diff([tile.start for tile in plan])
  assert gaps.max() <= 2 * 294 / 100 + 1
  ys, xs = np.array([(tile.y, tile.x) for tile in plan]).T
  assert ys.max() <= 84 and xs.max() <= 224
  for values, last, cells in ((ys, 84, 2), (xs, 224, 4)):
    counts, _ = np.histogram(values, bins=cells, range=(0, last + 1))
    assert counts.min() >= 100 / cells - 5
  assert plan == tiles.plan('a', [(0, 300)], 180, 320, num_frames=7, size=96, per_video=100, seed=0)
  for other in (dict(clip_id='b', seed=0), dict(clip_id='a', seed=1)):
    seed, name = other['seed'], other['clip_id']
    assert plan != tiles.plan(name, [(0, 300)], 180, 320, num_frames=7, size=96, per_video=100, seed=seed)


def test_memory_does_not_grow_with_the_video(tmp_path):
  """One window is held and one being cut, whatever the length."""
  alive = peak = 0

  class Frame(np.ndarray):
    def __del__(self):
      nonlocal alive
      alive -= self.base is None

  def frames():
    nonlocal alive, peak
    for _ in range(500):
      owned = Frame((32, 32, 3), np.uint8)
      owned[:] = 0
      alive += 1
      peak = max(peak, alive)
      yield owned, owned

  plan = [tiles.Tile(start, 0, 0, 0, True) for start in range(0, 490, 7)]
  assert sum(1 for _ in tiles.cut(frames(), plan, num_frames=5, size=16)) == 70
  assert peak <= 12
