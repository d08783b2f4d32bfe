"""PSNR and SSIM against scikit-image where test_fidelity.py does not look: other distortions, sizes, fixed values."""

import numpy as np
import pytest
import skimage.data
import skimage.metrics
from metrics import test_fidelity

from vqm_jax import metrics

PROTOCOLS = list(metrics.PROTOCOLS)


def photographs():
  """Pictures of one odd size, each beside a version that a codec, a lens or a camera might make of it."""
  rng = np.random.default_rng(3)
  rocket = skimage.data.rocket()[100:221, 200:351]
  astronaut = skimage.data.astronaut()[0:121, 150:301]
  coffee = skimage.data.coffee()[101:222, 50:201]
  return {
    'blocks': (rocket[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)[:121, :151], rocket),
    'exposure': ((astronaut * 0.6).astype(np.uint8), astronaut),
    'quantised': (coffee & 0xF0, coffee),
    'little noise': (test_fidelity.noisy(coffee, rng, amount=0.4), coffee),
    'another picture': (coffee, rocket),
    'negative': (255 - rocket, rocket),
  }


PHOTOGRAPHS = photographs()


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('name', PHOTOGRAPHS)
def test_photographs(name, protocol):
  check(*PHOTOGRAPHS[name], protocol)


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('size', [(13, 41), (41, 14)])
def test_thin_and_odd_sizes(size, protocol):
  check(*np.random.default_rng(size).integers(0, 256, (2, *size, 3), np.uint8), protocol)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_one_value_that_is_off_by_one_level(protocol):
  flat = np.full((21, 34, 3), 90, np.uint8)
  changed = flat.copy()
  changed[10, 17, 1] += 1
  check(changed, flat, protocol)
  photograph = PHOTOGRAPHS['blocks'][1][40:61, 40:74]
  changed = photograph.copy()
  changed[5, 6, 2] ^= 1
  check(changed, photograph, protocol)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_flat_patches_of_neighbouring_levels(protocol):
  for level in (0, 5, 128, 200, 254):
    check(np.full((21, 34, 3), level, np.uint8), np.full((21, 34, 3), level + 1, np.uint8), protocol)


def test_scores_of_a_fixed_pattern():
  """Numbers that no library has a say in."""
  rows, columns = np.mgrid[:121, :151]
  target = (np.stack([5 * rows, 4 * columns, 2 * (rows + columns)], axis=-1) % 250).astype(np.uint8)
  output = target.copy()
  output[::2] += 3
  # 61 of 121 rows are off by 3 in each channel, and of studio-range luma by 3 * 219 / 255.
  error = 9 * 61 / 121
  assert metrics.psnr(output, target) == pytest.approx(10 * np.log10(255**2 / error), abs=1e-12)
  assert metrics.psnr(output, target, 'y601') == pytest.approx(10 * np.log10(255**4 / 219**2 / error), abs=1e-9)
  check(output, target, 'ntire')


def check(output, target, protocol):
  expected = test_fidelity.oracle_psnr(output, target, protocol)
  assert metrics.psnr(output, target, protocol) == pytest.approx(expected, abs=1e-9)
  expected = test_fidelity.oracle_ssim(output, target, protocol)
  assert metrics.ssim(output, target, protocol) == pytest.approx(expected, abs=1e-5)
