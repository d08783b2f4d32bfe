"""The network of a run and what the flags make of it, for any number of videos."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx

import vqm_jax
from vqm_jax import checkpoints, inference, video
from vqm_jax.enhancing.clip import Restore
from vqm_jax.inference import shipped
from vqm_jax.video.images import ImageFrames

# Parameters up to which every core of a CPU gets a frame of its own: thin convolutions leave cores idle, a frame for
# each is half as fast again. Large networks need the memory.
_SMALL = 2_000_000


@dataclasses.dataclass(frozen=True)
class Restoring:
  """A network and how it is used.

  Attributes:
    run: the network and where it came from.
    name: of its weights, where they ship with the package.
    strength: of the correction; None for what suits the QP of each input.
    self_ensemble: how many flips and transposes are averaged, 1 or 8.
    tile: (height, width) of tiles to work in; None for whole frames.
    overlap: pixels that a tile sees beyond itself.
    cuts: whether to look for scene cuts.
    devices: of this process, each of which gets a frame at a time; all by default.
  """

  run: inference.Run
  name: str | None = None
  strength: float | None = None
  self_ensemble: int = 1
  tile: tuple[int, int] | None = None
  overlap: int = 64
  cuts: bool = True
  devices: list | None = None

  @property
  def options(self) -> dict[str, Any]:
    """Those of `inference.restore_frames` that do not depend on the input."""
    names = ('self_ensemble', 'tile', 'overlap', 'devices')
    return {name: getattr(self, name) for name in names} | {'find_cuts': video.mark_cuts if self.cuts else None}

  def describe(self, workdir: str | None) -> None:
    """Log what it is."""
    run = self.run
    logging.info(
      'network: %s of %s, step %d, %.2f M parameters, window of %d', run.config['system'], self.name or workdir,
      run.step, run.num_params / 1e6, getattr(run.network, 'num_frames', 1),
    )  # fmt: skip

  def strength_for(self, source: video.VideoSource) -> float:
    """The strength asked for, or that for input of this QP; warns of input that the network was not trained on."""
    run = self.run
    compression = video.compression_of(source) if run.strength_by_qp or 'qp' in run.trained_on else None
    if compression:
      logging.info('input: %s', compression)
    if 'qp' in run.trained_on and (advice := video.advice(compression, run.trained_on['qp'])):
      logging.warning('%s', advice)
    if self.strength is not None:
      return self.strength
    strength = run.strength_at(compression.qp if compression else None)
    if strength != 1:
      logging.info('--strength=%g is taken, which suits this QP best', strength)
    return strength

  def at(self, strength: float) -> Restore:
    """Return the function that restores frames at this strength."""

    def restore(read, first, cuts):
      return inference.restore_from(
        self.run.network, read, first, cuts=cuts, strength=strength,
        reach=video.CUT_REACH + 1, **self.options,
      )  # fmt: skip

    return restore

  def job(self, source: video.VideoSource, strength: float) -> dict[str, Any]:
    """Return all that the restored frames depend on, as JSON values."""
    options = {'self_ensemble': self.self_ensemble, 'tile': self.tile, 'overlap': self.overlap, 'cuts': self.cuts}
    return {
      'version': vqm_jax.__version__, 'input': identity(source), 'network': self.digest, 'strength': strength,
      **options,
    }  # fmt: skip

  @functools.cached_property
  def digest(self) -> str:
    """Of system, arguments and parameters."""
    config = self.run.config
    found = hashlib.sha256(repr([config.get(name) for name in ('system', 'system_args', 'dtype')]).encode())
    for path, array in sorted(checkpoints.flatten(nnx.to_pure_dict(nnx.state(self.run.network))).items()):
      array = np.asarray(array)
      found.update(f'{path} {array.dtype} {array.shape}'.encode())
      found.update(array.tobytes())
    return found.hexdigest()


def identity(source: video.VideoSource) -> list[Any]:
  """Return JSON values that change with the input: frames, size, rate, bytes and time of its files."""
  paths = source.files if isinstance(source, ImageFrames) else [source.path]
  lines = []
  for path in paths:
    on_disk = path if isinstance(path, pathlib.Path) else pathlib.Path(path.root.filename)  # else in an archive
    facts = os.stat(on_disk)
    lines.append(f'{path.name} {facts.st_size} {facts.st_mtime_ns}')
  digest = hashlib.sha256('\n'.join(lines).encode(errors='surrogateescape')).hexdigest()
  return [source.num_frames, source.height, source.width, str(source.fps), digest]


def open_network(workdir: str | None, weights: str | None, step: str, ema: bool) -> tuple[inference.Run, str | None]:
  """The network to use, and the name of its weights where no workdir says which."""
  if workdir:
    return inference.open_run(workdir, step, ema), None
  name = weights
  if not name:
    name, reason = shipped.default(jax.default_backend())
    logging.info('--weights=%s is taken: %s', name, reason)
    inference.check_weights(None, name, step, ema)
  return inference.open_weights(name), name


def devices_for(run: inference.Run, cores: int) -> list | None:
  """The devices that share the frames, of a CPU with this many `cores` as devices; None for all."""
  alone = cores > 1 and jax.default_backend() == 'cpu' and run.num_params > _SMALL
  return jax.local_devices()[:1] if alone else None
