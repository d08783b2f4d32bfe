"""Which metrics an evaluation takes, and why some of those asked for cannot be taken."""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from vqm_jax import errors, metrics
from vqm_jax.evaluation.patch_features import PatchFeatures
from vqm_jax.evaluation.scoring import fidelity
from vqm_jax.metrics import Metric

# Between domains there is no target to be equal to: how far the look is, and what the mapping does to motion.
WEAK = ('lpips_alex', 'fd_lpips', 'colour', 'sharpness', 'warping', 'flicker')
FRECHET = 'fd_lpips'


@dataclasses.dataclass(frozen=True)
class Choice:
  """The metrics of one evaluation.

  Attributes:
    metrics: of frames and clips.
    patches: for the Fréchet distance, a metric of the whole data set; None when it was not asked for.
    missing: {metric: why it cannot be taken} of the others that were asked for.
  """

  metrics: list[Metric]
  patches: PatchFeatures | None
  missing: dict[str, str]

  def described(self) -> dict[str, dict[str, Any]]:
    """{metric: label, better, decimals} of all that were asked for, as `summary.json` tells them."""
    names = ('label', 'better', 'decimals')
    out = {m.name: {name: getattr(m, name) for name in names} for m in self.metrics}
    extra = [*([FRECHET] if self.patches else []), *self.missing]
    return out | {name: {'label': metrics.label(name), 'better': 'lower', 'decimals': 3} for name in extra}


def choose(
  names: Sequence[str],
  *,
  protocol: str = 'ntire',
  aligned: bool = True,
  every: int = 1,
  inputs: bool = True,
  perceptual_dir: str | os.PathLike | None = None,
) -> Choice:
  """The metrics of these names.

  On weakly aligned pairs PSNR and SSIM measure misalignment: asked for by name they are called `unaligned_psnr`, so
  that no table takes them by mistake, and metrics of motion compare with the input.

  Args:
    names: of `metrics.create`, or 'fd_lpips'; 'auto' stands for PSNR and SSIM by `protocol`, or for WEAK.
    protocol: of `metrics.PROTOCOLS`.
    aligned: whether targets show the inputs pixel by pixel.
    every: n when only every n-th frame is scored.
    inputs: whether the unprocessed inputs are at hand.
    perceptual_dir: folder of converted weights.

  Raises:
    ConfigError: an unknown name.
  """
  chosen, patches, missing = [], None, {}
  for name in names:
    if name == 'auto':
      if aligned:
        chosen += fidelity(protocol)
      else:
        rest = choose(WEAK, aligned=False, every=every, inputs=inputs, perceptual_dir=perceptual_dir)
        chosen, patches, missing = chosen + rest.metrics, patches or rest.patches, missing | rest.missing
      continue
    try:
      if name == FRECHET:
        patches = PatchFeatures(metrics.lpips_weights('alex', perceptual_dir, setting='--perceptual_dir'))
        continue
      metric = metrics.create(
        name, reference='target' if aligned else 'input', perceptual_dir=perceptual_dir, setting='--perceptual_dir'
      )
    except errors.MissingWeightsError as error:
      missing[name] = str(error)
      continue
    if name in metrics.FLOW and importlib.util.find_spec('cv2') is None:
      missing[name] = f'{name} needs OpenCV, which is not installed (pip install opencv-python)'
    elif metric.consecutive and every > 1:
      missing[name] = f'{name} compares neighbouring frames; score all of them (--frames=all)'
    elif metric.reference == 'input' and not inputs:
      missing[name] = f'{name} compares with the input here; give it (--lq_dir)'
    elif metric.aligned and not aligned:
      label = f'{metric.label}, unaligned'
      chosen.append(dataclasses.replace(metric, name=f'unaligned_{name}', label=label))
    else:
      chosen.append(metric)
  return Choice(list({m.name: m for m in chosen}.values()), patches, missing)
