"""PSNR and SSIM of 8-bit frames, as the restoration challenges compute them.

Protocols (the default is the one that the tables state):

  name             PSNR                         SSIM                                     border
  ntire            RGB, one MSE over channels   Gaussian 11x11, population, per channel  0
  ntire_b1         the same                     the same                                 1 px
  skimage_default  the same                     uniform 7x7, sample, per channel         0
  y601             luma, studio-range BT.601    Gaussian 11x11, population, on luma      0

No scoring script of the 2020 challenge is public; `ntire` is what challenges of that time used.
The Gaussian has sigma 1.5; "population" and "sample" name the covariance.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vqm_jax import errors

# Stands in for the infinite PSNR of two identical frames wherever a mean is taken.
PSNR_OF_IDENTICAL = 100.0

_LUMA = (65.481, 128.553, 24.966)  # BT.601 studio range, for R, G, B in [0, 1]
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def _gaussian(size: int, sigma: float) -> tuple[float, ...]:
  taps = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
  return tuple((taps / taps.sum()).tolist())


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How frames become scores: on luma or RGB, how much border is dropped, the window of SSIM."""

  luma: bool = False
  border: int = 0
  window: tuple[float, ...] = _gaussian(11, 1.5)
  sample_covariance: bool = False


PROTOCOLS = {
  'ntire': Protocol(),
  'ntire_b1': Protocol(border=1),
  'skimage_default': Protocol(window=(1 / 7,) * 7, sample_covariance=True),
  'y601': Protocol(luma=True),
}


def psnr(pred: np.ndarray, target: np.ndarray, protocol: str = 'ntire') -> np.ndarray:
  """Peak signal-to-noise ratio of each frame in dB; inf where two frames are identical.

  Args:
    pred: uint8 RGB (..., H, W, 3), NumPy or JAX.
    target: as `pred`.
    protocol: one of `PROTOCOLS`.

  Returns:
    float64 (...). The squared error is summed in integers, so the value is exact.

  Raises:
    DataError: the arrays are not uint8 RGB of one shape, or smaller than the border.
    ConfigError: unknown protocol.
  """
  how, pred, target = _checked(pred, target, protocol, whole_window=False)

  def score(a, b):
    # products[0, c] = sum of d_c^2, products[1, c] = sum of d_c * d_(c-1), d = a - b
    products = np.asarray(_products(a, b)).sum(axis=1, dtype=np.int64)
    if not how.luma:
      return products[0].sum() / (3 * a.shape[0] * a.shape[1])
    w = np.array(_LUMA) / 255
    return (products[0] @ w**2 + 2 * products[1] @ (w * np.roll(w, 1))) / (a.shape[0] * a.shape[1])

  with np.errstate(divide='ignore'):
    return 10 * np.log10(255.0**2 / _per_frame(score, pred, target))


def ssim(pred: np.ndarray, target: np.ndarray, protocol: str = 'ntire') -> np.ndarray:
  """Structural similarity of each frame: mean over channels and pixels with a whole window.

  Args:
    pred: uint8 RGB (..., H, W, 3), NumPy or JAX, no smaller than the window (11x11 or 7x7).
    target: as `pred`.
    protocol: one of `PROTOCOLS`.

  Returns:
    float64 (...), 1 for identical frames; float32 moments, within 1e-5 of float64.

  Raises:
    DataError: the arrays are not uint8 RGB of one shape, or smaller than border and window.
    ConfigError: unknown protocol.
  """
  how, pred, target = _checked(pred, target, protocol, whole_window=True)
  return _per_frame(lambda a, b: _mean_ssim(np.asarray(a), np.asarray(b), how), pred, target)


def mean_psnr(values: np.ndarray) -> tuple[float, int]:
  """The mean of per-frame PSNRs with inf counted as 100 dB, and how many were inf."""
  values = np.asarray(values, np.float64)
  identical = np.isposinf(values)
  return float(np.where(identical, PSNR_OF_IDENTICAL, values).mean()), int(identical.sum())


def _checked(pred, target, protocol: str, *, whole_window: bool):
  if protocol not in PROTOCOLS:
    raise errors.ConfigError(f'protocol: expected one of {list(PROTOCOLS)}, found {protocol!r}.')
  how = PROTOCOLS[protocol]
  if pred.shape != target.shape:
    raise errors.DataError(f'Frames to compare must have one shape, found {pred.shape} and {target.shape}.')
  for frames in (pred, target):
    if frames.dtype != np.uint8 or frames.ndim < 3 or frames.shape[-1] != 3:
      raise errors.DataError(
        f'Frames to compare must be uint8 (..., H, W, 3), found {frames.dtype} {frames.shape}; '
        'clip and round them first.'
      )
  smallest = len(how.window) if whole_window else 1
  height, width = (n - 2 * how.border for n in pred.shape[-3:-1])
  if min(height, width) < smallest:
    raise errors.DataError(
      f'Protocol {protocol} needs frames of at least {smallest + 2 * how.border} pixels a side, '
      f'found {pred.shape[-3]}x{pred.shape[-2]}.'
    )
  crop = (
    ...,
    slice(how.border, how.border + height),
    slice(how.border, how.border + width),
    slice(None),
  )
  return how, pred[crop], target[crop]


def _per_frame(score, pred, target) -> np.ndarray:
  """Apply `score` frame by frame: one compiled shape, and memory for one frame only."""
  lead, frame = pred.shape[:-3], pred.shape[-3:]
  pairs = zip(pred.reshape(-1, *frame), target.reshape(-1, *frame), strict=True)
  return np.array([score(a, b) for a, b in pairs], np.float64).reshape(lead)


@jax.jit
def _products(a, b):
  # Sums over a row stay below 2^31 for widths up to 33 025; rows are added in int64 on the host.
  d = a.astype(jnp.int32) - b.astype(jnp.int32)
  return jnp.stack([(d * d).sum(axis=1), (d * jnp.roll(d, 1, axis=-1)).sum(axis=1)])


# Sides of the blocks that SSIM is computed in: small enough for the cache, large enough for a product of matrices.
_BLOCK = 54


def _mean_ssim(a: np.ndarray, b: np.ndarray, how: Protocol) -> float:
  """The mean of the similarity map over all channels, block by block.

  Moments of a block are products with banded matrices, along one axis and the other. Sum and difference of the two
  frames and their squares are all that is needed:

      2 mx my = (ms^2 - md^2) / 2,  2 cov = (vs - vd) / 2,  mx^2 + my^2 = (ms^2 + md^2) / 2,  vx + vy = (vs + vd) / 2

  Variances do not change when a constant is taken off, here the block's mean as a whole number: E[s^2] - E[s]^2 in
  float32 would lose the variance of a flat patch otherwise. What goes into the products is exact.
  """
  reach = len(how.window) - 1
  height, width = a.shape[0] - reach, a.shape[1] - reach
  samples = len(how.window) ** 2
  scale = samples / (samples - 1) if how.sample_covariance else 1.0
  total = 0.0
  planes = [np.pad(_planes(frame, how.luma), ((0, 0), (0, 0), (0, -width % _BLOCK)), mode='edge') for frame in (a, b)]
  for top in range(0, height, _BLOCK):
    rows = slice(top, min(top + _BLOCK, height) + reach)
    for x, y in zip(*planes, strict=True):
      index = _similarity(_blocks(x[rows], reach), _blocks(y[rows], reach), how.window, scale)
      # The columns that only padding gave are the last of the last block.
      total += index.sum(dtype=np.float64) - index[-1, :, _BLOCK - -width % _BLOCK :].sum(dtype=np.float64)
  return total / (len(planes[0]) * height * width)


def _blocks(rows, reach: int):
  """(rows, width) -> (blocks, rows, _BLOCK + reach), overlapping by `reach` columns."""
  count = (rows.shape[1] - reach) // _BLOCK
  columns = np.lib.stride_tricks.sliding_window_view(rows, _BLOCK + reach, axis=1)[:, : count * _BLOCK : _BLOCK]
  return columns.swapaxes(0, 1)


def _similarity(x, y, window: tuple[float, ...], scale: float) -> np.ndarray:
  """The similarity map of blocks (n, rows, columns), float32 (n, rows - reach, columns - reach)."""
  band = _band(window)
  maps = np.empty((4, *x.shape), np.float32)
  np.add(x, y, out=maps[0])
  np.subtract(x, y, out=maps[1])
  shifts = np.rint(maps[:2].mean(axis=(2, 3), keepdims=True))
  maps[:2] -= shifts
  np.multiply(maps[:2], maps[:2], out=maps[2:])
  across = (maps.reshape(-1, maps.shape[-1]) @ band.T).reshape(*maps.shape[:-1], _BLOCK)
  means, squares = np.split(band[: x.shape[1] - len(window) + 1, : x.shape[1]] @ across, 2)
  squares -= means * means
  means += shifts
  means *= means
  index = (0.5 * (means[0] - means[1]) + _C1) * (0.5 * scale * (squares[0] - squares[1]) + _C2)
  index /= (0.5 * (means[0] + means[1]) + _C1) * (0.5 * scale * (squares[0] + squares[1]) + _C2)
  return index


@functools.cache
def _band(window: tuple[float, ...]) -> np.ndarray:
  """(_BLOCK, _BLOCK + taps - 1): what outputs take from inputs; float32 with a sum of one to the last digit."""
  taps = np.array(window, np.float32)
  taps[len(taps) // 2] += np.float32(1 - taps.sum(dtype=np.float64))
  band = np.zeros((_BLOCK, _BLOCK + len(taps) - 1), np.float32)
  for k, tap in enumerate(taps):
    band[np.arange(_BLOCK), np.arange(_BLOCK) + k] = tap
  return band


def _planes(frame: np.ndarray, luma: bool) -> np.ndarray:
  """uint8 (H, W, 3) -> float32 (planes, H, W)."""
  planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).astype(np.float32)
  return (16 + np.tensordot(np.array(_LUMA) / 255, planes, axes=1)[None]).astype(np.float32) if luma else planes
