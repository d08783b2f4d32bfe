"""All metrics of clips by name, and what tables must know of them.

  name               compares                                                values of n frames
  psnr, ssim         frames with the target; psnr_<protocol> for another     n
  lpips_<net>        frames with the target; alex, vgg or squeeze            n
  tof, tlp_<net>     motion and perceptual change, with the reference's      n - 1
  warping, tdpsnr    neighbours, along the reference's flow and without      n - 1
  flicker            nothing: how unsteady the brightness is                 1
  colour, colour_ab  the clip's colours with the target's                    1
  sharpness          detail of frames with the target's                      n
  change             frames with the input: how much was done at all         n

The reference of the temporal metrics is the target, or the input where pairs are weakly aligned.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Literal

from vqm_jax import errors, perceptual
from vqm_jax.metrics import appearance, fidelity, temporal
from vqm_jax.metrics.lpips import LpipsWeights, lpips_weights
from vqm_jax.metrics.scorers import FrameScorer, Scorer

NETS = tuple(name.removeprefix('lpips-') for name in perceptual.HEADS)

NAMES = (
  'psnr',
  'ssim',
  *(f'lpips_{net}' for net in NETS),
  'tof',
  *(f'tlp_{net}' for net in NETS),
  'warping',
  'tdpsnr',
  'flicker',
  'colour',
  'colour_ab',
  'sharpness',
  'change',
)

# Those that need OpenCV, for optical flow.
FLOW = ('tof', 'warping')

_LABELS = {
  'lpips': 'LPIPS',
  'tof': 'tOF (px)',
  'tlp': 'tLP',
  'warping': 'Warping error',
  'tdpsnr': 'tdPSNR (dB)',
  'flicker': 'Flicker (levels)',
  'colour': 'Colour distance (Lab)',
  'colour_ab': 'Colour distance (ab)',
  'sharpness': 'Sharpness (log2)',
  'change': 'Change (levels)',
  'fd_lpips': 'FD (LPIPS alex)',
}


@dataclasses.dataclass(frozen=True)
class Metric:
  """One metric.

  Attributes:
    name: the key in files: one of `NAMES`, or with a protocol's suffix.
    label: for heads of tables, with the unit.
    better: 'higher' or 'lower' values, those near 'zero', or '' where neither is.
    decimals: to print.
    consecutive: it needs every frame of a clip.
    aligned: it compares with the target pixel by pixel, or through flow: it means little on weakly aligned pairs.
    reference: what candidates are compared with: 'target', 'input', or '' for nothing.
    start: makes the scorer of one clip.
    floor: the target's own value is not 0 or infinite and says what a perfect result would have.
    weights: SHA-256 of the feature network of a learned metric, None for random weights; '' of all others.
  """

  name: str
  label: str
  better: Literal['higher', 'lower', 'zero', '']
  decimals: int
  consecutive: bool
  aligned: bool
  reference: Literal['target', 'input', '']
  start: Callable[[], Scorer]
  floor: bool = False
  weights: str | None = ''


def create(
  name: str,
  *,
  protocol: str = 'ntire',
  reference: str = 'target',
  perceptual_dir: str | os.PathLike | None = None,
  setting: str = '',
  allow_random: bool = False,
) -> Metric:
  """The metric `name`.

  Args:
    name: one of `NAMES`; psnr_<protocol> and ssim_<protocol> too, for one of `fidelity.PROTOCOLS`.
    protocol: of 'psnr' and 'ssim' without such a suffix. The metric is then called psnr_<protocol> itself, and
      'psnr' with 'ntire', however it was asked for.
    reference: of the temporal metrics, 'target' or 'input'. All others compare with the target, but change with the
      input and flicker with nothing.
    perceptual_dir: folder of the LPIPS weights; the usual one when left out.
    setting: the flag or field that `perceptual_dir` came from, for messages.
    allow_random: for tests: random LPIPS weights where files are missing.

  Raises:
    ConfigError: unknown name, protocol or reference.
    MissingWeightsError: the LPIPS weights are not there.
  """
  if reference not in ('target', 'input'):
    raise errors.ConfigError(f"reference: expected 'target' or 'input', found {reference!r}.")
  if protocol not in fidelity.PROTOCOLS:
    raise errors.ConfigError(f'protocol: expected one of {list(fidelity.PROTOCOLS)}, found {protocol!r}.')
  kind, _, variant = name.partition('_')
  if name not in NAMES and not (kind in ('psnr', 'ssim') and variant in fidelity.PROTOCOLS):
    with_protocol = [f'{kind}_{protocol}' for kind in ('psnr', 'ssim') for protocol in fidelity.PROTOCOLS]
    hint = errors.did_you_mean(name, [*NAMES, *with_protocol])
    raise errors.ConfigError(f'Metric {name!r} is unknown; {hint}choose from {", ".join(NAMES)}.')
  if kind in ('psnr', 'ssim'):
    return _fidelity(kind, variant or protocol)
  if kind in ('lpips', 'tlp'):
    weights = lpips_weights(variant, perceptual_dir, setting=setting, allow_random=allow_random)
    return _lpips(name, weights) if kind == 'lpips' else _tlp(name, weights, reference)
  if name in ('colour', 'colour_ab'):
    start = functools.partial(appearance.ColourScorer, name, joint=name == 'colour_ab')
    return Metric(name, label(name), 'lower', 2 if name == 'colour' else 3, False, False, 'target', start)
  if name == 'sharpness':
    start = functools.partial(FrameScorer, name, appearance.sharpness_ratio, appearance.detail, smallest=3)
    return Metric(name, label(name), 'zero', 2, False, False, 'target', start)
  if name == 'change':
    start = functools.partial(FrameScorer, name, appearance.mean_change, reference='input')
    return Metric(name, label(name), '', 2, False, False, 'input', start)
  if name == 'flicker':
    start = functools.partial(temporal.FlickerScorer, name)
    return Metric(name, label(name), 'lower', 3, True, False, '', start, floor=True)
  if name == 'tof':
    return _temporal(name, 'lower', 3, reference, temporal.FlowScorer)
  if name == 'tdpsnr':
    return _temporal(name, 'higher', 3, reference, temporal.DifferenceScorer)
  # Under the flow of a weakly aligned input the target's warping error is no floor.
  return _temporal(name, 'lower', 6, reference, temporal.WarpingScorer, floor=reference == 'target')


def label(name: str) -> str:
  """The head of a table's column for a metric's `name`, or for 'fd_lpips'; the name itself when it is unknown."""
  kind, _, variant = name.partition('_')
  if kind in ('psnr', 'ssim'):
    return f'{kind.upper()}{variant and f" {variant}"}{" (dB)" if kind == "psnr" else ""}'
  if kind in ('lpips', 'tlp'):
    return f'{_LABELS[kind]} ({variant})'
  return _LABELS.get(name, name)


def _fidelity(kind: str, protocol: str) -> Metric:
  name = kind if protocol == 'ntire' else f'{kind}_{protocol}'
  start = functools.partial(FrameScorer, name, functools.partial(getattr(fidelity, kind), protocol=protocol))
  return Metric(name, label(name), 'higher', 3, False, True, 'target', start)


def _lpips(name: str, weights: LpipsWeights) -> Metric:
  compare = functools.partial(temporal.lpips_distance, weights=weights)
  prepare = functools.partial(temporal.lpips_features, weights=weights)
  start = functools.partial(FrameScorer, name, compare, prepare)
  return Metric(name, label(name), 'lower', 3, False, True, 'target', start, weights=_sha256(weights))


def _tlp(name: str, weights: LpipsWeights, reference: str) -> Metric:
  scorer = functools.partial(temporal.PerceptualChangeScorer, weights)
  return _temporal(name, 'lower', 3, reference, scorer, weights=_sha256(weights))


def _temporal(name: str, better: str, decimals: int, reference: str, scorer: Callable, **more) -> Metric:
  start = functools.partial(scorer, name=name, reference=reference)
  return Metric(name, label(name), better, decimals, True, reference == 'target', reference, start, **more)


def _sha256(weights: LpipsWeights) -> str | None:
  return weights.trunk.sha256 if weights.heads.sha256 else None
