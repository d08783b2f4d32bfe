"""Periodic validation on whole frames, by the code that `eval` uses."""

import dataclasses
import functools

import jax
import ml_collections
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from vqm_jax import data, enhancers, inference, metrics, pictures
from vqm_jax.evaluation import scoring

_PICTURES = 3  # clips that are shown
_ANIMATED = 24  # frames of a sample clip


@dataclasses.dataclass
class Found:
  """The result of a validation.

  Attributes:
    scores: {'val/psnr': ...}, means over clips.
    text: the same for the log.
    pictures: {clip: uint8 (H, W, 3)}, of clips of this process.
    animations: {clip: (frames like these, frames per second)}, of enhancers.
  """

  scores: dict[str, float]
  text: str
  pictures: dict[str, np.ndarray]
  animations: dict[str, tuple[list[np.ndarray], float]]


class Validation:
  """Validation on the `frames` records of the config's dataset; clips are shared out over the processes.

  Restorers are scored by PSNR and SSIM against the input. Enhancers have no target to be equal to: what is scored is
  how far the colours are from the target's, beside the source's distance, and how much the frames were changed at all.
  """

  def __init__(self, config: ml_collections.ConfigDict):
    self._reader = data.ClipReader(
      data.open_source(config.dataset, config.val_config, config.val_split, config.data_dir or None)
    )
    self._clips = sorted(self._reader.clips)[: config.eval_clips or None]
    self._frames = config.eval_frames or None
    self._enhances = config.system in enhancers.METHODS
    if self._enhances:
      self._metrics = [metrics.create(name, reference='input') for name in ('colour', 'change')]
    else:
      self._metrics = scoring.fidelity()

  def __call__(self, network: nnx.Module) -> Found:
    """Score `network` and make sample pictures from the first frames of up to three clips."""
    mine = self._clips[jax.process_index() :: jax.process_count()]
    shown, animations = {}, {}

    def keep(clip, index, lq, output, hq):
      if clip not in shown and len(shown) < _PICTURES:
        shown[clip] = (pictures.unaligned if self._enhances else pictures.comparison)(lq, output, hq)
      if self._enhances and clip in shown and index < _ANIMATED:
        frames, _ = animations.setdefault(clip, ([], self._reader.clips[clip].fps))
        frames.append(pictures.unaligned(lq, output, hq))

    scores = scoring.evaluate_clips(
      functools.partial(inference.restore_frames, network),
      self._reader,
      clips=mine,
      max_frames=self._frames,
      metrics=self._metrics,
      on_frame=keep,
    )
    means = self._over_processes({name: scoring.mean_scores({name: score}) for name, score in scores.items()})
    if self._enhances:
      found = {'val/colour': means['colour'], 'val/colour_source': means['colour_input'], 'val/change': means['change']}
      text = 'colour distance {val/colour:.2f} (source {val/colour_source:.2f}), mean change {val/change:.2f} levels'
    else:
      found = {f'val/{name}': means[name] for name in ('psnr', 'ssim', 'gain')}
      text = 'PSNR {val/psnr:.3f} dB ({val/gain:+.3f} over no processing), SSIM {val/ssim:.4f}'
    return Found(found, text.format(**found), shown, animations)

  def _over_processes(self, scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean over all clips of what each process knows of its own."""
    names = [m.name + side for m in self._metrics for side in ('', '_input')]
    names += [] if self._enhances else ['gain']
    table = np.full((len(self._clips), len(names)), np.nan)
    for clip, means in scores.items():
      table[self._clips.index(clip)] = [means[name] for name in names]
    if jax.process_count() > 1:
      table = np.nanmax(multihost_utils.process_allgather(table), axis=0)
    return dict(zip(names, map(float, table.mean(axis=0)), strict=True))
