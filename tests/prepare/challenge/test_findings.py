"""Tables of what was found in a folder of the challenge."""

import types
from fractions import Fraction

from vqm_jax.prepare.challenge import findings


def test_sizes_and_rates_as_they_are_read():
  source = types.SimpleNamespace(width=1920, height=1080, fps=Fraction(30000, 1001))
  assert findings.size(source) == '1920x1080' and findings.rate(source) == '29.97'


def test_what_differs_between_the_sides_is_told_of_both():
  lq = types.SimpleNamespace(width=96, height=64, fps=Fraction(25), num_frames=10)
  hq = types.SimpleNamespace(width=192, height=128, fps=Fraction(25), num_frames=10)
  clip = types.SimpleNamespace(
    split='train', clip_id='000', lq='a/000', hq='b/000', sources={'lq': lq, 'hq': hq}, first_number=0
  )
  layout = types.SimpleNamespace(relative=str)
  row = dict(zip(findings.CLIP_HEADER, findings.clip_row(layout, clip), strict=True))
  assert list(row.values()) == ['train', '000', '10', '96x64 / 192x128', '25', '0', 'a/000', 'b/000']
