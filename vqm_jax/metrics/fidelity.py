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

  Arguments and errors as of `psnr`; frames must be no smaller than the window (11x11 or 7x7).

  Returns:
    float64 (...), 1 for identical frames; float32 moments, within 1e-5 of float64.
  """
  how, pred, target = _checked(pred, target, protocol, whole_window=True)
  score = functools.partial(_ssim_rows, how=how)
  return _per_frame(lambda a, b: np.asarray(score(a, b)).mean(dtype=np.float64), pred, target)


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
  """Applies `score` frame by frame: one compiled shape, and memory for one frame only."""
  lead, frame = pred.shape[:-3], pred.shape[-3:]
  pairs = zip(pred.reshape(-1, *frame), target.reshape(-1, *frame), strict=True)
  return np.array([score(a, b) for a, b in pairs], np.float64).reshape(lead)


@jax.jit
def _products(a, b):
  # Sums over a row stay below 2^31 for widths up to 33 025; rows are added in int64 on the host.
  d = a.astype(jnp.int32) - b.astype(jnp.int32)
  return jnp.stack([(d * d).sum(axis=1), (d * jnp.roll(d, 1, axis=-1)).sum(axis=1)])


@functools.partial(jax.jit, static_argnames='how')
def _ssim_rows(a, b, how: Protocol):
  """The mean over each row of the similarity map, float32 (channels, rows)."""
  x, y = (_planes(frame, how.luma) for frame in (a, b))
  moments = _window(x, y, None, None, how.window, 1)
  mean_x, mean_y, variances, covariance = _window(*moments, how.window, 2)
  samples = len(how.window) ** 2
  scale = samples / (samples - 1) if how.sample_covariance else 1.0
  index = (2 * mean_x * mean_y + _C1) * (2 * scale * covariance + _C2)
  index /= (mean_x**2 + mean_y**2 + _C1) * (scale * variances + _C2)
  return index.mean(axis=2)


def _planes(frame, luma: bool):
  # Planes (C, H, W): with the three channels innermost, CPUs are half as fast.
  planes = frame.transpose(2, 0, 1).astype(jnp.float32)
  if not luma:
    return planes
  return 16 + sum(planes[c : c + 1] * (_LUMA[c] / 255) for c in range(3))


def _window(x, y, variances, covariance, taps: tuple[float, ...], axis: int):
  """Weighted means, summed variance and covariance of `x` and `y` along one axis of the window.

  The second axis adds the variance of the first axis' means to the mean of its variances. Moments
  are taken about the centre pixel: E[x^2] - E[x]^2 in float32 loses the variance of a flat patch.
  Shifted adds, since a one-channel convolution is several times slower on CPU.
  """
  size = x.shape[axis] - len(taps) + 1

  def shifted(z, k):
    return jax.lax.slice_in_dim(z, k, k + size, axis=axis)

  centre_x, centre_y = (shifted(z, len(taps) // 2) for z in (x, y))
  offset_x = offset_y = squares = products = 0.0
  for k, tap in enumerate(taps):
    dx, dy = shifted(x, k) - centre_x, shifted(y, k) - centre_y
    offset_x += tap * dx
    offset_y += tap * dy
    squares += tap * (dx * dx + dy * dy)
    products += tap * (dx * dy)
    if variances is not None:
      squares += tap * shifted(variances, k)
      products += tap * shifted(covariance, k)
  squares -= offset_x * offset_x + offset_y * offset_y
  return centre_x + offset_x, centre_y + offset_y, squares, products - offset_x * offset_y
