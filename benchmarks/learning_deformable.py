"""Finds out why a deformable network learns: one change at a time, from a start that learns and one that does not.

python benchmarks/learning_deformable.py --data_dir=DIR [--dataset=vqm_demo] [--only=RE] [--out=DIR] [--docs=FILE]

A small `tcl_edvr` (48 channels: as many as there are pixels in a 4x4 square of RGB) on windows of prepared records. The
rows `plain` start with plain pixels that are passed on to the end, frames in 0..1 and a random last convolution, as
this project did at first; the rows `ours` as it does now: frames - 0.5 (`edvr.INPUT_MEAN`), the detail of brightness
with both signs (`edvr.signed_planes`), the last convolution at zero (`edvr.last_conv`). Every other row is one of the
two with the one change that it names. PyTorch's start is what published EDVR has. All rows see the same samples.

loss / input   the loss over what the input itself has on the same samples, over the last quarter: 1 is the identity
gain           the squared error of these samples over the input's, in dB
offset px      mean |offset| over the last quarter, in pixels of the level: finest, middle, coarsest, cascade
temporal       mean weight that TSA gives to a frame at the end; at 0 nothing passes

Rows that are there already (one JSON file each in --out) are not run again, so that several processes can share the
work by --only. A row takes 100 to 150 s on one core.
"""

import functools
import json
import pathlib
import re
import time
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import nnx

from experiments import common
from vqm_jax import cli, data, files, losses, restorers
from vqm_jax.formats import markdown_table
from vqm_jax.layers import deform_conv, diagnostics, edvr
from vqm_jax.layers.initializers import ParameterKeys, dirac, scaled, torch_kernel, wired
from vqm_jax.training import optimizer

_DATASET = flags.DEFINE_string('dataset', 'vqm_demo', 'Prepared data set.')
_CONFIG = flags.DEFINE_string('dataset_config', 'tiles', 'Its config of windows.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where it was prepared.')
_STEPS = flags.DEFINE_integer('steps', 400, 'Updates of every row.', lower_bound=40)
_ONLY = flags.DEFINE_string('only', '', 'Regular expression that a row must match to be run.')
_OUT = flags.DEFINE_string('out', 'runs/deformable', 'Folder of the finished rows.')
_DOCS = flags.DEFINE_string('docs', None, 'Also write the table to this file.')

_PAGE = """# What makes a deformable network learn

    python benchmarks/learning_deformable.py --dataset={dataset} --data_dir=... --steps={steps} --docs=FILE

For a long time the multi-frame networks of this project gave back their input. Features that come from plain pixels
are all positive, and what they have in common, the brightness, outweighs what differs. Optimisers that divide by the
size of the gradient then move hundreds of weights in step: the output's brightness shakes from update to update,
offsets drift by pixels, and the logits of TSA, sums over all channels, fall until every frame has the weight zero.
From a random last convolution the quickest gain is to let the features vanish, which happens within twenty updates.
None of it comes back.

What the networks start with now: frames - 0.5, the *detail* of brightness (a pixel less the mean of its 3x3) and two
differences of colours, each with both signs, passed on to the last convolution, which is zero. Layers that make
offsets, masks and temporal weights are trained at a tenth of the rate in the small recipes. Parameter counts are the
published ones; the start takes the place of PyTorch's default, from which EDVR, DNLN and their kin are trained.

{table}
{steps} updates of a small `tcl_edvr` on windows of `{dataset}`; loss over the input's own, squared error in dB, mean
|offset| by level (finest, middle, coarsest, cascade) and TSA's mean weight of a frame, over the last quarter of the
run.
"""

_SIZE = dict(width=48, num_frames=3, num_front=1, num_blocks=2, groups=4, tail_width=16)
_CROP, _BATCH = 48, 4
_ADAM = dict(lr=3e-4, loss='l2', optimizer='adam', optimizer_args=dict(b2=0.99, eps=1e-12), clip=0.0, warmup=0.02)
_PLAIN = _ADAM | dict(input_mean=0.0, start='pixels', last='random')
_OURS = _ADAM | dict(input_mean=0.5, start='detail', last='zero')
# Which parameters the start that passes frames on is taken away from: PyTorch's takes its place.
_PARTS = {
  'front': 'front/stem', 'warps': 'align/.*warp/kernel', 'merge': 'align/.*/merge', 'fusion': 'fusion/fuse',
  'tail': 'tail/(up|conv)',
}  # fmt: skip
_EVERYWHERE = '|'.join(_PARTS.values())

_MUON = dict(optimizer='muon', optimizer_args={}, lr=2e-3)
_SLOW = dict(slow_rate=0.1)

ROWS: dict[str, dict] = {
  'plain': _PLAIN,
  'plain, frames - 0.5': _PLAIN | dict(input_mean=0.5),
  'plain, last convolution at zero': _PLAIN | dict(last='zero'),
  'plain, the detail of brightness': _PLAIN | dict(start='detail'),
  "plain, PyTorch's start everywhere": _PLAIN | dict(torch_start=_EVERYWHERE),
  'plain, eps 1e-9': _PLAIN | dict(optimizer_args=dict(b2=0.99, eps=1e-9)),
  'plain, offset layers at 0.1 of the rate': _PLAIN | _SLOW,
  'plain, offsets bounded by 10 tanh': _PLAIN | dict(bound=10.0),
  'plain, without TSA': _PLAIN | dict(tsa=False),
  'plain, gradients clipped to 1e-3': _PLAIN | dict(clip=1e-3),
  'plain, warm-up over half of the run': _PLAIN | dict(warmup=0.5),
  'ours': _OURS,
  'ours, frames as they are': _OURS | dict(input_mean=0.0),
  'ours, last convolution random': _OURS | dict(last='random'),
  'ours, plain pixels': _OURS | dict(start='pixels'),
  **{f"ours, PyTorch's start of {name}": _OURS | dict(torch_start=part) for name, part in _PARTS.items()},
  "ours, PyTorch's start everywhere": _OURS | dict(torch_start=_EVERYWHERE),
  'ours, Charbonnier': _OURS | dict(loss='charbonnier'),
  'ours, eps 1e-9': _OURS | dict(optimizer_args=dict(b2=0.99, eps=1e-9)),
  'ours, offset layers at 0.1 of the rate': _OURS | _SLOW,
  'ours, without TSA': _OURS | dict(tsa=False),
  'ours, rate 1e-3': _OURS | dict(lr=1e-3),
  'ours, Muon at 2e-3': _OURS | _MUON,
  'ours, Muon at 2e-3, offset layers at 0.1 of the rate': _OURS | _MUON | _SLOW,
  'plain, Muon at 2e-3, offset layers at 0.1 of the rate': _PLAIN | _MUON | _SLOW,
}
# What takes the place of `edvr.signed_planes` in rows that start with plain pixels.
_PIXELS = {
  'front/stem/0/kernel': dirac(), 'front/stem/1/kernel': wired(edvr.unshuffled(range(3))),
  'tail/up/1/kernel': dirac(),
}  # fmt: skip


def draw_start(row: dict) -> tuple[nnx.GraphDef, dict]:
  """The network of a row, and the parameters it starts from."""
  size = _SIZE | dict(input_mean=row['input_mean'])
  system = 'tcl_edvr' if row.get('tsa', True) else 'boss_f1'  # the same front, alignment, trunk and tail
  network = restorers.create(
    system, rngs=ParameterKeys(0), **size, **({} if row.get('tsa', True) else {'fusion': 'conv'})
  )
  graphdef, state = nnx.split(network)
  keys = ParameterKeys(1)

  def redraw(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if row['start'] == 'pixels' and name in _PIXELS:
      leaf = _PIXELS[name](keys.params(), leaf.shape)
    if name == 'tail/last/kernel' and row['last'] == 'random':
      return scaled(torch_kernel(), 0.1)(keys.params(), leaf.shape)
    if leaf.ndim == 4 and row.get('torch_start') and re.match(row['torch_start'], name):
      return torch_kernel()(keys.params(), leaf.shape)
    return leaf

  return graphdef, jax.tree_util.tree_map_with_path(redraw, nnx.to_pure_dict(state))


def make_step(row: dict, graphdef: nnx.GraphDef, params: dict) -> tuple[Callable, optax.OptState]:
  """The compiled update of a row, and the state of its optimiser."""
  rate = optimizer.schedule('cosine', row['lr'], _STEPS.value, row['warmup'], end=0.01)
  update = optimizer.OPTIMIZERS[row['optimizer']](rate, **row['optimizer_args'])
  if row['clip']:
    update = optax.chain(optax.clip_by_global_norm(row['clip']), update)
  if 'slow_rate' in row:
    update = optax.chain(update, optimizer.slower(common.OFFSET_LAYERS, row['slow_rate']))
  loss = losses.pixel_loss(row['loss'])

  @jax.jit
  def step(params, state, batch):
    lq, hq = (batch[name].astype(jnp.float32) / 255.0 for name in ('lq', 'hq'))
    centre, target = lq[:, lq.shape[1] // 2], hq[:, hq.shape[1] // 2]

    def loss_fn(params):
      with diagnostics.recording() as recorded:
        out = nnx.merge(graphdef, params)(lq)
      return loss(out, target), recorded | {'error': losses.l2(out, target)}

    (value, told), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, state = update.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    return (
      params,
      state,
      told | {'loss': value, 'input': loss(centre, target), 'input_error': losses.l2(centre, target)},
    )

  return step, update.init(params)


def temporal_weight(graphdef: nnx.GraphDef, params: dict, batch: dict) -> float:
  """The mean weight that TSA gives to a frame."""
  network = nnx.merge(graphdef, params)
  lq = jnp.asarray(batch['lq'], jnp.float32) / 255.0
  pyramid = [x.reshape(*lq.shape[:2], *x.shape[1:]) for x in network.front(lq.reshape(-1, *lq.shape[2:]))]
  return float(network.fusion.temporal_weights(network.align(pyramid)).mean())


def run(row: dict) -> dict:
  """Trains a row; returns what the table shows."""
  graphdef, params = draw_start(row)
  bound, plain = row.get('bound'), deform_conv.modulated_deform_conv2d

  def bounded(x, offset, *args, **kwargs):
    return plain(x, bound * jnp.tanh(offset / bound), *args, **kwargs)

  source = data.open_training(_DATASET.value, _CONFIG.value, _DATA_DIR.value)
  draw = functools.partial(data.train_batches, [source], num_frames=_SIZE['num_frames'], crop=_CROP, batch_size=_BATCH)
  told, started = [], time.monotonic()
  with (
    mock.patch.object(deform_conv, 'modulated_deform_conv2d', bounded if bound else plain),
    draw(seed=0) as batches,
  ):
    step, state = make_step(row, graphdef, params)
    for _ in range(_STEPS.value):
      batch = next(batches)
      params, state, scalars = step(params, state, batch)
      told.append(scalars)
    told = jax.device_get(told)
    weight = temporal_weight(graphdef, params, batch) if row.get('tsa', True) else None
  last = told[-_STEPS.value // 4 :]
  mean = {name: float(np.mean([scalars[name] for scalars in last])) for name in told[0]}
  return {
    'loss_over_input': mean['loss'] / mean['input'],
    'gain': 10 * np.log10(mean['input_error'] / mean['error']),
    'offsets': [mean[f'offset/pcd_{name}_mean'] for name in ('level1', 'level2', 'level3', 'cascade')],
    'temporal': weight,
    'seconds': time.monotonic() - started,
  }


def table(rows: dict[str, dict]) -> str:
  """The finished rows as Markdown."""
  lines = [['Start, and what was changed', 'Loss / input', 'Gain dB', 'Offset px, by level', 'Temporal weight']]
  for name, found in rows.items():
    offsets = ' '.join(f'{offset:.3g}' for offset in found['offsets'])
    weight = 'n/a' if found['temporal'] is None else f'{found["temporal"]:.2f}'
    lines.append([name, f'{found["loss_over_input"]:.4f}', f'{found["gain"]:+.3f}', offsets, weight])
  return markdown_table(lines, right=range(1, 5))


def main(argv: list[str]) -> None:
  del argv
  cli.enable_compilation_cache()
  out = pathlib.Path(_OUT.value)
  finished = {}
  for name, row in ROWS.items():
    path = out / f'{re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")}.json'
    if not path.exists() and re.search(_ONLY.value, name):
      files.write_json(path, run(row))
      print(name, path.read_text(), flush=True)
    if path.exists():
      finished[name] = json.loads(path.read_text())
  text = table(finished)
  print(text)
  if _DOCS.value:
    page = _PAGE.format(dataset=_DATASET.value, steps=_STEPS.value, table=text)
    files.write_text(pathlib.Path(_DOCS.value), page)


if __name__ == '__main__':
  cli.run(main)
