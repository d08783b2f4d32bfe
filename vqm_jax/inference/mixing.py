"""Mixes of trained networks: finding the weight of two, as team TCL did (paper section 4.4), and writing them down."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vqm_jax import checkpoints, errors, files, restorers
from vqm_jax import workdir as workdirs
from vqm_jax.data import ClipReader
from vqm_jax.inference import streaming
from vqm_jax.inference.run import Run
from vqm_jax.restorers.mixture import Mixture

# Of the first member's config: what `eval` and `enhance` need of the mix.
_KEPT = ('dataset', 'dataset_config', 'data_dir', 'val_config', 'val_split', 'dtype')

BETAS = tuple(k / 100 for k in range(101))

# Outputs of both members and the target of one frame, float32 (H, W, 3) in [0, 1], outputs not clipped.
Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Search:
  """A finished grid search.

  Attributes:
    beta: the best weight of the first member; the second has 1 - beta.
    betas: the grid.
    psnr: mean over frames of the PSNR in dB, for every beta.
    frames: how many frames were scored.
  """

  beta: float
  betas: tuple[float, ...]
  psnr: tuple[float, ...]
  frames: int


class _Outputs(Mixture):
  """Both members' outputs side by side in the channels, (B, H, W, 6), so that one stream gives the two."""

  def restore(self, features: Any) -> jax.Array:
    """Return both outputs for the features of a window."""
    return jnp.concatenate(self.outputs(features), axis=-1)


def holdout_outputs(
  mixture: Mixture,
  reader: ClipReader,
  frames_per_clip: int,
  progress: Callable[[Iterable], Iterable] = lambda x: x,
) -> Iterable[Triple]:
  """Run a mix of two over clips; yield both outputs and the target of evenly spaced frames.

  Args:
    mixture: of two members.
    reader: clips with targets.
    frames_per_clip: at most; every n-th frame with n = length / frames_per_clip.
    progress: wraps the names of the clips.

  Raises:
    DataError: a clip without targets.
  """
  network = _Outputs(list(mixture.members), mixture.weights)
  for name in progress(list(reader.clips)):
    every = max(1, reader.clips[name].num_frames // frames_per_clip)
    targets = []

    def inputs(name=name, every=every, targets=targets):
      for index, (lq, hq) in enumerate(reader.frames(name), start=1):
        if hq is None:
          raise errors.DataError(f'Clip {name!r} has no targets to search with (they are withheld).')
        if index % every == 0:
          targets.append(hq)
        yield lq

    cuts = streaming.known_cuts(reader.clips[name].cuts or ())
    for both in streaming.stream_frames(network, inputs(), every=every, find_cuts=cuts):
      first, second = np.split(np.asarray(both), 2, axis=-1)
      yield first, second, targets.pop(0).astype(np.float32) / 255


@functools.partial(jax.jit, static_argnames='clip')
def _squared_errors(betas, first, second, target, clip):
  def mean_square(beta):
    mix = beta * first + (1 - beta) * second
    return jnp.square((jnp.clip(mix, 0.0, 1.0) if clip else mix) - target).mean()

  return jax.lax.map(mean_square, betas)


def grid_search(triples: Iterable[Triple], betas: Sequence[float] = BETAS, clip: bool = True) -> Search:
  """Return the beta in `betas` whose mix beta * first + (1 - beta) * second has the highest mean PSNR over frames.

  Args:
    triples: outputs of both members and the target, frame by frame.
    betas: the grid.
    clip: whether the mix is clipped to [0, 1] before it is scored, as restored frames are.

  Of equally good ones the beta nearest to 0.5 wins. Raises DataError without a single frame.
  """
  grid = jnp.asarray(betas, jnp.float32)
  scores = []
  for first, second, target in triples:
    mse = np.asarray(_squared_errors(grid, first, second, target, clip), np.float64)
    scores.append(np.minimum(-10 * np.log10(np.maximum(mse, 1e-30)), 100.0))  # identical frames count as 100 dB
  if not scores:
    raise errors.DataError('The grid search got no frames; the split has none.')
  psnr = np.mean(scores, axis=0)
  best = max(range(len(betas)), key=lambda k: (psnr[k], -abs(betas[k] - 0.5)))
  return Search(float(betas[best]), tuple(map(float, betas)), tuple(map(float, psnr)), len(scores))


def mixture(runs: Sequence[Run], weights: Sequence[float]) -> Mixture:
  """The weighted mean of trained networks. Raises ConfigError for members that cannot be mixed."""
  try:
    return Mixture([run.network for run in runs], weights)
  except ValueError as error:
    raise errors.ConfigError(f'members: {error}') from error


def write(runs: Sequence[Run], weights: Sequence[float], workdir: pathlib.Path, notes: dict) -> None:
  """Write the weighted mean of `runs` to `workdir`, an ordinary one, which appears when it is complete.

  Whatever was there is replaced. `combination.json` in it lists the members and holds the `notes`.

  Raises:
    ConfigError: members that cannot be mixed.
    CheckpointError: the weights could not be written.
  """
  systems = [run.config['system'] for run in runs]
  known = [name for name, members in restorers.MIXTURES.items() if members and sorted(members) == sorted(systems)]
  network = mixture(runs, weights)
  config = {key: runs[0].config[key] for key in _KEPT}
  config |= {'system': known[0] if known else 'mixture', 'num_frames': network.num_frames, 'ema': 0.0}
  config['system_args'] = {'members': [[run.config['system'], run.config['system_args']] for run in runs]}
  config['system_args']['weights'] = list(weights)
  members = [
    {'workdir': str(run.workdir), 'system': run.config['system'], 'step': run.step, 'ema': run.ema,
     'parameters': run.num_params, 'weight': weight}
    for run, weight in zip(runs, weights, strict=True)
  ]  # fmt: skip
  with files.replacing(workdir) as partial:
    workdirs.write_config(partial, config)
    files.write_json(partial / 'combination.json', {'members': members, **notes})
    step = max(run.step for run in runs)
    with checkpoints.Checkpoints(partial / 'checkpoints') as saver:
      saver.save(step, {'params': nnx.to_pure_dict(nnx.state(network, nnx.Param))}, {'step': step, 'members': members})
