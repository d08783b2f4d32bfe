"""Finds the rate at which coded videos have a given PSNR."""

from collections.abc import Callable, Sequence

from vqm_jax import errors

LOW, HIGH = 1.0, 51.0  # 0 would be lossless
_FIRST = 33.0
_SLOPE = 0.55  # dB per CRF, about, for the first steps
_FINEST = 0.02

Probe = tuple[float, float]


def crf_for_psnr(
  measure: Callable[[float], float],
  target: float,
  *,
  tolerance: float = 0.02,
  known: Sequence[Probe] = (),
) -> float:
  """The CRF, with two decimals, whose PSNR is within `tolerance` dB of `target`.

  `measure(crf)` returns the PSNR in dB, nearly monotone in crf (libx264 takes fractions); it is called for one crf
  after another, none twice. `known` are (crf, psnr) of earlier calls. Where the curve jumps across the target, the
  CRF nearest to it is returned.
  Raises DataError if no CRF from 1 to 51 reaches the target.
  """
  probes = dict(known)
  while True:
    done = min(probes, key=lambda crf: abs(probes[crf] - target), default=None)
    if done is not None and abs(probes[done] - target) <= tolerance:
      return done
    crf = _next(probes, target)
    if crf is None:
      return done
    probes[crf] = measure(crf)


def _next(probes: dict[float, float], target: float) -> float | None:
  if not probes:
    return _FIRST
  low = max((crf for crf, psnr in probes.items() if psnr > target), default=None)
  high = min((crf for crf, psnr in probes.items() if psnr < target), default=None)
  if low is None or high is None:
    # One side only: step out, a little farther than the slope says, so that the target is passed.
    crf, end, sign = (high, LOW, -1) if low is None else (low, HIGH, 1)
    if crf == end:
      raise errors.DataError(
        f'target_psnr={target:g} cannot be reached: these videos have {probes[crf]:.2f} dB at CRF '
        f'{crf:g}; choose a {"lower" if sign < 0 else "higher"} target'
      )
    step = max(1.0, 1.25 * abs(probes[crf] - target) / _SLOPE) * 1.5 ** (len(probes) - 1)
    return round(min(max(crf + sign * step, LOW), HIGH), 2)
  if high - low <= _FINEST:
    return None
  # The secant, kept off the ends; every fourth time the middle, which halves whatever the curve looks like.
  share = (probes[low] - target) / (probes[low] - probes[high])
  share = 0.5 if len(probes) % 4 == 0 and high - low > 1 else min(max(share, 0.1), 0.9)
  crf = round(low + share * (high - low), 2)
  return crf if low < crf < high and crf not in probes else None
