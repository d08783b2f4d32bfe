"""Are more frames worth more? Each network twice: with its neighbours, and with the centre frame in their place.

python benchmarks/more_frames.py --dataset=NAME --data_dir=DIR [--systems=gtq,gil] [--steps=3000] [--out=DIR]

Both trainings see the same samples in the same order, with the same start, for as many updates; they differ only in
what the network is given for the frames around the centre. Both are scored on whole frames of --split, clip by clip:
the first on windows as they are, the second on still ones. The interval is that of the mean difference, from clips
drawn with replacement.

Best on `paired_videos` of clips with a moving or hand-held camera, reduced so that what moves does so by few pixels
(`prepare.degrade`, `prepare.build`; docs/learning.md has the commands), with the same kinds of motion in training as in
--split. --size=full takes the published widths, for a GPU; the small ones take ten to thirty minutes on one core. Runs
that are there already are not made again, so that several processes can share the systems.
"""

import importlib
import json
import pathlib

import jax
import numpy as np
from absl import flags, logging

from vqm_jax import cli, data, errors, files, inference, metrics
from vqm_jax.formats import markdown_table
from vqm_jax.metrics import statistics
from vqm_jax.training.supervised import Supervised

SYSTEMS = ('tcl_edvr', 'gtq', 'jojo', 'boss_f1', 'gil')

_DATASET = flags.DEFINE_string('dataset', 'vqm_demo', 'Prepared data set with the configs tiles and frames.')
_CONFIG = flags.DEFINE_string('dataset_config', 'tiles', 'Its config of windows.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where it was prepared.')
_SPLIT = flags.DEFINE_string('split', 'val', 'Split that the networks are scored on.')
_SYSTEMS = flags.DEFINE_list('systems', list(SYSTEMS), 'Experiments to compare.')
_SIZE = flags.DEFINE_enum('size', 'tiny', ['tiny', 'full'], 'Their small versions, or the published ones.')
_LR = flags.DEFINE_float('lr', None, "Rate of learning, if not the recipe's.", lower_bound=0.0)
_STEPS = flags.DEFINE_integer('steps', 3000, 'Updates of each training.', lower_bound=1)
_FRAMES = flags.DEFINE_integer('frames', 40, 'Frames of a clip that are scored; 0 for all.', lower_bound=0)
_OUT = flags.DEFINE_string('out', 'runs/more_frames', 'Folder of the finished runs.')
_DOCS = flags.DEFINE_string('docs', None, 'Also write the table to this file.')


def config_of(system: str):
  """The experiment, on the data of the flags, in one piece."""
  config = importlib.import_module(f'experiments.{system}').get_config(_SIZE.value)
  config.update(dataset=_DATASET.value, dataset_config=_CONFIG.value, data_dir=_DATA_DIR.value or '')
  config.steps = _STEPS.value
  config.slow_rate = 1.0  # neighbours are worth something as soon as offsets follow what moves
  if _LR.value:
    config.lr = _LR.value
  return config


def still(frames: np.ndarray) -> np.ndarray:
  """Windows (B, T, H, W, 3) with the centre frame in every place."""
  centre = frames[:, frames.shape[1] // 2, None]
  return np.broadcast_to(centre, frames.shape)


def train(config, neighbours: bool):
  """Returns the trained network, and the mean scalars of every hundredth of the run."""
  trainer = Supervised(config)
  state, told, curve = trainer.init(trainer.fresh()), [], []
  source = data.open_training(config.dataset, config.dataset_config, config.data_dir or None)
  with data.train_batches(
    [source], num_frames=config.num_frames, crop=config.crop, batch_size=config.batch_size, seed=config.seed
  ) as batches:
    for step in range(config.steps):
      batch = next(batches)
      state, scalars = trainer.update(state, batch if neighbours else batch | {'lq': still(batch['lq'])}, step)
      told.append(scalars)
      if (step + 1) % max(1, config.steps // 100) == 0:
        told = jax.device_get(told)
        curve.append({name: float(np.mean([scalars[name] for scalars in told])) for name in told[0]})
        ratio = curve[-1]['train/loss'] / curve[-1]['train/input_loss']
        logging.info('%s step %d/%d: %.4f of the input', config.system, step + 1, config.steps, ratio)
        told = []
  return trainer.network(state), curve


def score(network, neighbours: bool) -> dict[str, list[float]]:
  """PSNR gained in every frame of every clip of the split."""
  reader = data.ClipReader(data.open_source(_DATASET.value, 'frames', _SPLIT.value, _DATA_DIR.value))
  gains = {}
  for name, clip in sorted(reader.clips.items()):
    pairs = list(reader.frames(name, stop=min(_FRAMES.value or clip.num_frames, clip.num_frames)))
    frames = [lq for lq, _ in pairs]
    # One frame by itself is mirrored into a window of itself.
    clips = [frames] if neighbours else [[frame] for frame in frames]
    restored = [out for clip in clips for out in inference.restore_frames(network, clip)]
    gains[name] = [metrics.psnr(out, hq) - metrics.psnr(lq, hq) for out, (lq, hq) in zip(restored, pairs, strict=True)]
  return gains


def run(system: str, neighbours: bool) -> dict:
  """A finished training and its scores, made or read."""
  path = pathlib.Path(_OUT.value) / f'{system}_{"window" if neighbours else "still"}.json'
  if not path.exists():
    network, curve = train(config_of(system), neighbours)
    files.write_json(path, {'steps': _STEPS.value, 'curve': curve, 'gains': score(network, neighbours)})
  return json.loads(path.read_text())


def row(system: str) -> list[str]:
  """One line of the table."""
  window, alone = (run(system, neighbours) for neighbours in (True, False))
  if {window['steps'], alone['steps']} != {_STEPS.value}:
    raise errors.ConfigError(
      f'--out={_OUT.value} holds runs of {system} of another length; use --steps={window["steps"]}.'
    )
  gains = [{clip: float(np.mean(values)) for clip, values in found['gains'].items()} for found in (window, alone)]
  each = [gains[0][clip] - gains[1][clip] for clip in gains[0]]
  low, high = statistics.bootstrap_interval(each)
  offsets = [value for name, value in window['curve'][-1].items() if name.startswith('offset/') and 'mean' in name]
  return [
    system, f'{window["steps"]:,}', *(f'{np.mean(list(side.values())):+.3f}' for side in gains),
    f'{np.mean(each):+.3f}', f'[{low:+.3f}, {high:+.3f}]', ' '.join(f'{d:+.3f}' for d in each),
    f'{max(offsets):.2f}' if offsets else 'n/a',
  ]  # fmt: skip


def main(argv: list[str]) -> None:
  del argv
  cli.enable_compilation_cache()
  table = [['System', 'Steps', 'Window dB', 'Still dB', 'Difference', 'Interval', 'Clip by clip', 'Offset px']]
  for system in _SYSTEMS.value:
    table.append(row(system))
    print(*table[-1], sep='  ', flush=True)
  text = markdown_table(table, right=range(1, 8))
  print(text)
  if _DOCS.value:
    files.write_text(pathlib.Path(_DOCS.value), text)


if __name__ == '__main__':
  cli.run(main)
