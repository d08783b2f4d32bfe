"""Does every system learn? Each one's `:tiny`, trained for the same time on vqm_demo, against the unprocessed input.

python benchmarks/learning.py --seconds=330 --out=runs/learning [--systems=gtq,gil] [--docs=docs/learning.md]
python benchmarks/learning.py --seconds=330 --out=runs/learning --systems=wespe,dpe,dacal [--docs=docs/enhancers.md]

Restorers are scored on two splits: `holdout` films photographs of the training scenes anew, so it tells whether a
system has learnt anything; `test` shows photographs that training has never seen, in other colours, so it tells what
carries over. Enhancers are scored on the two cameras' `test`, by how far their colours are from the target camera's,
beside the source, which is also what the identity would score.

Steps are chosen so that training takes about --seconds on this machine, compilation and validation left out; a run that
was interrupted goes on when the command is repeated, and several processes can share the systems (`taskset -c 0 ...
--systems=gtq,gil & taskset -c 1 ... --systems=jojo`), the whole command last. `tcl` and `boss` are combined from their
members' runs. Of systems that are trained in stages a second table shows the loss before and after each growth.
Prints and writes tables with every system, also those that do not beat the input. An hour and a half on two CPU cores.
"""

import importlib
import json
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
from absl import flags
from flax import nnx

from vqm_jax import cli, data, enhancers, errors, files, inference, losses, restorers
from vqm_jax.formats import markdown_table
from vqm_jax.training import loop, progressive

EXPERIMENTS = (
  'gtq', 'ecnu', 'gil', 'tcl_edvr', 'tcl_unet', 'jojo', 'boss_f1', 'boss_f1_once', 'boss_f2', 'boss_f3', 'boss_f4',
  'seventh',
)  # fmt: skip

STAGED = ('boss_f1', 'boss_f3', 'boss_f4')

_PAGE = """# Does every system learn?

    python benchmarks/learning.py --seconds={seconds:.0f} --out=runs/learning --docs=docs/learning.md

Each system's `:tiny`, a small version with the same parts, trained for {seconds:.0f} seconds on `vqm_demo` with two CPU
cores, against the unprocessed input (PSNR and SSIM gained). `holdout` films photographs of the training scenes anew and
tells whether a system has learnt anything; `test` shows photographs that training has never seen, in other colours, and
tells what carries over. It says nothing of how the published systems compare: those are larger and train for days.

{table}
## Stages

BossGao's networks grow while they are trained. The loss of each stage over that of its input, on the same {batches}
batches: of the network before it, of the grown network before its first update, and at the end of the stage.

{stages}"""

_STAGE_BATCHES = 50

_PAGE_2 = """# Do the enhancers get closer to the target camera?

    python benchmarks/learning.py --seconds={seconds:.0f} --out=runs/learning --systems={systems} \\
      --docs=docs/enhancers.md

Each method's `:tiny`, a small version with the same parts and rates for minutes rather than days, trained for
{seconds:.0f} seconds with two CPU cores on the two cameras of `vqm_demo`, scored on photographs that training has
never seen. Colour distance (CIELAB histograms, Lab units) and sharpness (log2 of the detail) are against the target
camera; the row `source` is also that of the identity. WESPE's content loss is `pixel`: VGG-19 weights are for users to
bring.

{table}"""
_COLUMNS_2 = {'colour': 'Colour', 'colour_ab': 'Colour (ab)', 'sharpness': 'Sharpness', 'warping': 'Warping error',
              'flicker': 'Flicker', 'change': 'Change'}  # fmt: skip

_SECONDS = flags.DEFINE_float('seconds', 330, 'Training time of each system.', lower_bound=1)
_OUT = flags.DEFINE_string('out', 'runs/learning', 'Folder of the data set and the runs.')
_SYSTEMS = flags.DEFINE_list('systems', list(EXPERIMENTS), 'Experiments to run, of one track.')
_DOCS = flags.DEFINE_string('docs', None, 'Also write the table to this file.')


def run(module: str, *args: str) -> None:
  """Runs one of our programs as a user would."""
  subprocess.run([sys.executable, '-m', f'vqm_jax.{module}', *args], check=True)


def steps_in(config, seconds: float) -> int:
  """How many updates of this config take `seconds` here, from a few timed ones on random frames."""
  trainer = loop.make_trainer(config)
  state = trainer.init(trainer.fresh())
  shape = (config.batch_size, config.num_frames, config.crop, config.crop, 3)
  batch = {side: np.random.default_rng(0).integers(0, 256, shape, np.uint8) for side in ('lq', 'hq')}
  times = []
  for step in range(12):
    start = time.perf_counter()
    for index in range(trainer.updates_per_step):
      state, scalars = trainer.update(state, batch, step * trainer.updates_per_step + index)
      jax.block_until_ready(scalars)
    times.append(time.perf_counter() - start)
  return max(20, int(seconds / np.median(times[2:])))


def train(name: str, out: pathlib.Path) -> pathlib.Path:
  """Trains experiments/<name>.py:tiny, or goes on; returns the workdir."""
  workdir, plan = out / name, out / f'{name}.json'
  if not plan.exists():
    config = importlib.import_module(f'experiments.{name}').get_config('tiny')
    files.write_json(plan, {'steps': steps_in(config, _SECONDS.value), 'seconds': _SECONDS.value})
  steps = json.loads(plan.read_text())['steps']
  run(
    'train', f'--config=experiments/{name}.py:tiny', f'--workdir={workdir}', f'--config.data_dir={out / "data"}',
    f'--config.steps={steps}', f'--config.save_every={max(1, steps // 4)}', f'--config.eval_every={steps}',
    f'--config.log_every={max(1, steps // 10)}',
  )  # fmt: skip
  return workdir


def row(label: str, workdir: pathlib.Path, steps: int | None) -> list[str]:
  """Scores a run and returns its line of the table."""
  summaries = []
  for split in ('holdout', 'test'):
    run('eval', f'--workdir={workdir}', '--step=latest', f'--split={split}')
    summaries.append(json.loads((workdir / 'eval' / split / 'summary.json').read_text()))
  gains = [[f'{summary["gain"]["psnr"]:+.3f}', f'{summary["gain"]["ssim"]:+.4f}'] for summary in summaries]
  verdict = ['yes' if summary['gain']['psnr'] > 0 else 'no' for summary in summaries]
  return [
    label, f'{summaries[0]["params"]:,}', '' if steps is None else f'{steps:,}', *gains[0], *gains[1],
    ' / '.join(verdict),
  ]  # fmt: skip


def stage_rows(name: str, out: pathlib.Path) -> list[list[str]]:
  """The loss over the input's before, right after and at the end of each growth of a run in stages."""
  config = importlib.import_module(f'experiments.{name}').get_config('tiny')
  config.update(data_dir=str(out / 'data'), steps=json.loads((out / f'{name}.json').read_text())['steps'])
  source = data.open_training(config.dataset, config.dataset_config, config.data_dir)
  with data.train_batches(
    [source], num_frames=config.num_frames, crop=config.crop, batch_size=config.batch_size, seed=1
  ) as drawn:
    batches = [next(drawn) for _ in range(_STAGE_BATCHES)]

  def ratio(network) -> float:
    graphdef, params = nnx.split(network)

    @jax.jit
    def errors_of(params, lq, hq):
      lq, hq = lq / 255.0, hq[:, hq.shape[1] // 2] / 255.0
      return losses.l2(nnx.merge(graphdef, params)(lq), hq), losses.l2(lq[:, lq.shape[1] // 2], hq)

    found = np.array([errors_of(params, batch['lq'], batch['hq']) for batch in batches]).sum(axis=0)
    return float(found[0] / found[1])

  rows, before = [], None
  for stage in progressive.stages(config, (out / name).resolve()):
    grown = None
    if stage.new:
      trainer = loop.make_trainer(stage.config)
      grown = ratio(trainer.network(trainer.init(progressive.grown_params(stage, trainer))))
    after = ratio(inference.load(stage.workdir, 'latest'))
    cells = ['' if value is None else f'{value:.4f}' for value in (before, grown, after)]
    rows.append([name, stage.name, f'{stage.config.steps:,}', *cells])
    before = after
  return rows


def enhancer_row(name: str, out: pathlib.Path) -> list[list[str]]:
  """Scores an enhancer; returns its line of the table and that of the source."""
  workdir = out / name
  run('eval', f'--workdir={workdir}', f'--metrics={",".join(_COLUMNS_2)}')
  summary = json.loads((workdir / 'eval' / 'test' / 'summary.json').read_text())
  steps = json.loads((out / f'{name}.json').read_text())['steps']
  sides = [summary[side] for side in ('metrics', 'no_processing')]
  cells = [[f'{side[metric]["mean"]:.3g}' for metric in _COLUMNS_2] for side in sides]
  closer = 'yes' if sides[0]['colour']['mean'] < sides[1]['colour']['mean'] else 'no'
  label = ' '.join([name, *summary['train']['notes']])
  return [[label, f'{summary["params"]:,}', f'{steps:,}', *cells[0], closer], ['source', '', '', *cells[1], '']]


def enhancer_table(out: pathlib.Path) -> list[list[str]]:
  """Trains and scores the enhancers."""
  configs = 'weak_tiles,unpaired_tiles_p128,unpaired_tiles_q,weak_frames'
  run('prepare.build', '--dataset=vqm_demo', f'--config={configs}', f'--data_dir={out / "data"}')
  table = [['Method', 'Parameters', 'Steps', *_COLUMNS_2.values(), 'Closer in colour']]
  for name in _SYSTEMS.value:
    train(name, out)
    line, source = enhancer_row(name, out)
    table.append(line)
    print(*line, sep='  ', flush=True)
  return [*table, source]


def restorer_table(out: pathlib.Path) -> list[list[str]]:
  """Trains and scores the restorers, and mixes those whose members are all there."""
  run('prepare.build', '--dataset=vqm_demo', '--config=tiles,tiles_t1p96,frames', f'--data_dir={out / "data"}')
  table = [
    ['System', 'Parameters', 'Steps', 'Holdout dB', 'SSIM', 'Test dB', 'SSIM', 'Beats no processing (holdout / test)']
  ]
  for name in _SYSTEMS.value:
    workdir = train(name, out)
    table.append(row(name, workdir, json.loads((out / f'{name}.json').read_text())['steps']))
    print(*table[-1], sep='  ', flush=True)
  for name, members in restorers.MIXTURES.items():
    if members and set(members) <= set(_SYSTEMS.value):
      workdirs = ','.join(str(out / member) for member in members)
      search = ['--grid_search'] if len(members) == 2 else []
      run('combine', f'--members={workdirs}', f'--workdir={out / name}', '--step=latest', '--overwrite', *search)
      weights = ', '.join(f'{weight:.2f}' for weight in inference.read_config(out / name)['system_args']['weights'])
      table.append(row(f'{name} ({" + ".join(members)}, {weights})', out / name, None))
      print(*table[-1], sep='  ', flush=True)
  return table


def main(argv: list[str]) -> None:
  del argv
  known = [*EXPERIMENTS, *enhancers.METHODS]
  unknown = [name for name in _SYSTEMS.value if name not in known]
  if unknown:
    raise errors.ConfigError(f'--systems: no experiment {unknown[0]!r}; choose from {", ".join(known)}.')
  tracks = {name in enhancers.METHODS for name in _SYSTEMS.value}
  if len(tracks) > 1:
    raise errors.ConfigError(f'--systems={",".join(_SYSTEMS.value)}: restorers and enhancers have tables of their own.')
  cli.enable_compilation_cache()
  out = pathlib.Path(_OUT.value)
  if tracks == {True}:
    text, page = markdown_table(enhancer_table(out), right=range(1, 9)), _PAGE_2
  else:
    text, page = markdown_table(restorer_table(out), right=range(1, 7)), _PAGE
  print(text)
  staged = [name for name in _SYSTEMS.value if name in STAGED]
  rows = [row for name in staged for row in stage_rows(name, out)]
  stages = markdown_table([['System', 'Stage', 'Steps', 'Parent', 'Grown', 'Trained'], *rows], right=range(2, 6))
  if staged:
    print(stages)
  if _DOCS.value:
    page = page.format(
      seconds=_SECONDS.value, systems=','.join(_SYSTEMS.value), table=text, stages=stages, batches=_STAGE_BATCHES
    )
    files.write_text(pathlib.Path(_DOCS.value), page)


if __name__ == '__main__':
  cli.run(main)
