"""The loop: draw, update, log, validate, save. It does not know what an update does, nor how many make a step.

The data order is a function of (seed, position), so a run is resumed by the number of its updates alone, on any number
of workers, devices and processes.
"""

import contextlib
import datetime
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from absl import logging

from vqm_jax import checkpoints, data, enhancers, errors, files, inference, locks, parallel, restorers, stopping
from vqm_jax import config as configs
from vqm_jax import workdir as workdirs
from vqm_jax.training import writer as writers
from vqm_jax.training.adversarial import Adversarial
from vqm_jax.training.collapse import CollapseGuard, IdentityGuard
from vqm_jax.training.resident import Resident
from vqm_jax.training.supervised import Supervised
from vqm_jax.training.validation import Validation

Trainer = Supervised | Adversarial


class _StopRequest(stopping.StopRequest):
  """Asks the loop to save before it leaves."""

  def __init__(self):
    super().__init__('saving after this step, then leaving.')

  def reached(self, saver: checkpoints.Checkpoints, step: int) -> bool:
    """Whether to leave after `step`; processes of a distributed run agree on it."""
    return saver.reached_preemption(step) if jax.process_count() > 1 else self.signal is not None


def make_trainer(config: ml_collections.ConfigDict, devices: list | None = None) -> Trainer:
  """Make the trainer of this system."""
  return (Adversarial if config.system in enhancers.METHODS else Supervised)(config, devices)


def init_params(config: ml_collections.ConfigDict, trainer: Trainer) -> Any:
  """Return what `trainer.init` takes at step 0: fresh, or warm-started from `config.init_from` with a logged report.

  `init_from` is a workdir, one of its checkpoint folders, or a name of weights that ship with the package.

  Raises:
    CheckpointError: nothing of `init_from` fits, or it cannot be read.
    ConfigError: its network subtracts another `input_mean`, or is a generator without the other players.
  """
  params = trainer.fresh()
  if not config.init_from:
    return params
  source = pathlib.Path(config.init_from)
  is_checkpoint = source.parent.name == 'checkpoints' and source.name.isdecimal()
  workdir, step = (source.parent.parent, source.name) if is_checkpoint else (source, 'best')
  check_input_mean(config, workdir)
  arrays, step, _ = trainer.read(workdir, step)
  params, report = checkpoints.warm_start(params, arrays)
  logging.info(
    'Warm start from %s, step %d: %s; optimiser and step start afresh.',
    workdir, step, ', '.join(f'{len(names)} {kind}' for kind, names in report.items()),
  )  # fmt: skip
  for kind in ('new', 'misfit', 'unused'):
    for name in report[kind]:
      logging.info('  %s: %s', kind, name)
  if not report['copied']:
    raise errors.CheckpointError(f'config.init_from={source}: no parameter fits system={config.system!r}.')
  return params


def check_input_mean(config: ml_collections.ConfigDict, source: str | pathlib.Path) -> None:
  """Check that weights from elsewhere will get the frames that they were trained on.

  Args:
    config: of the run that starts.
    source: workdir, or name of weights that ship, which it starts from.

  Raises:
    ConfigError: network and source subtract another `input_mean` from their frames.
    CheckpointError: the source cannot be read.
  """
  ours = restorers.input_means(config.system, config.system_args.to_dict())
  if not ours:
    return
  origin = inference.read_config(source)
  theirs = restorers.input_means(origin['system'], origin['system_args'])
  for path in ours.keys() & theirs.keys():
    if ours[path] != theirs[path]:
      part = f' of {path}' if path else ''
      field = f'config.system_args.{path}: input_mean' if path else '--config.system_args.input_mean'
      raise errors.ConfigError(
        f'config.init_from={source}: its weights{part} were trained on frames less input_mean={theirs[path]:g} (those '
        f'of version 0.1 on frames as they are), but this network subtracts {ours[path]:g}; set {field}={theirs[path]}.'
      )


def train(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  *,
  start: Callable[[Any, Trainer], Any] = init_params,
  stage_of: tuple[pathlib.Path, Any] | None = None,
  profile_steps: tuple[int, int] | None = None,
  wandb_project: str | None = None,
  devices: list | None = None,
) -> Any:
  """Train `config` in `workdir`, or continue the run that is there; return the last state.

  A run that diverged goes back to its last checkpoint with half the rate when `config.on_divergence` is 'rollback', at
  most `config.max_rollbacks` times; `<workdir>/rollbacks.json` tells of each.

  Args:
    config: a ConfigDict with the fields of `experiments/common.py`.
    workdir: the run's folder.
    start: makes the parameters of step 0 from config and trainer; called for a new run only.
    stage_of: workdir and config of the progressive run that this is a stage of, if it is one.
    profile_steps: (first, last) step of a profiler trace written to `<workdir>/profile`.
    wandb_project: see `Writer`.
    devices: all devices of all processes by default.

  Raises:
    ConfigError, DataError, CheckpointError: see their places.
    BusyError: another process trains in the folder.
    DivergenceError: loss or gradients are not finite or offsets exploded; the state is not saved.
  """
  workdir = pathlib.Path(workdir).resolve()
  configs.check(config)
  # Everything that can be wrong is looked at before the folder is touched.
  trainer = make_trainer(config, devices)
  _check_fit(config, trainer)
  sources = _sources(config)
  resident = None
  if config.data_on_device:
    resident = Resident(sources, config.sampling, config.num_frames, config.crop, trainer.mesh)
    if config.num_workers:
      logging.warning('config.num_workers=%d: nothing is left to decode with data_on_device; 0 is taken',
                      config.num_workers)  # fmt: skip
  draw = functools.partial(
    data.train_batches, sources, num_frames=config.num_frames, crop=config.crop,
    batch_size=config.batch_size, seed=config.seed, num_workers=0 if resident else config.num_workers,
    process_index=jax.process_index(), process_count=jax.process_count(), weights=tuple(config.mix_weights),
    crops_per_record=config.crops_per_record, sampling=config.sampling, augment=config.augment,
    **({'read': resident.read} if resident else {}),
  )  # fmt: skip
  validation = Validation(config)
  whole = stage_of[0] if stage_of else workdir
  with locks.folder(whole) if jax.process_index() == 0 else contextlib.nullcontext():
    if jax.process_index() == 0:
      strengths = inference.read_strength_by_qp(config.init_from) if config.init_from else []
      owners = dict([stage_of]) if stage_of else {}
      owners.setdefault(workdir, config)  # the last stage lives in the workdir of the whole
      for folder, owner in owners.items():
        workdirs.claim(folder, owner, trained_on=data.trained_on(sources), strength_by_qp=strengths)

    with (
      checkpoints.Checkpoints(workdir / 'checkpoints', keep_last=config.keep_last) as saver,
      _StopRequest() as stop,
    ):
      rollbacks = workdirs.rollbacks(workdir)
      while True:
        trainer = _slowed(trainer, config, len(rollbacks), devices)
        trainer.put = resident.put if resident else trainer.put
        restored = saver.restore_latest(trainer.abstract_state())
        if restored is None:
          state, meta = trainer.init(start(config, trainer)), {'step': 0, 'updates': 0, 'seconds': 0.0, 'hardware': []}
          logging.info('Starting at step 0 of %d in %s', config.steps, workdir)
        else:
          state, meta = restored
          logging.info('Resuming at step %d of %d in %s', meta['step'], config.steps, workdir)
        done = meta.get('updates', meta['step'])  # earlier versions had one player and did not tell
        if done >= config.steps * trainer.updates_per_step:
          logging.info('Already finished; raise --config.steps to go on.')
          return state
        try:
          with (
            writers.Writer(workdir, meta['step'], wandb_project) as writer,
            contextlib.closing(draw(start=done * config.batch_size)) as batches,
          ):
            return _run(config, trainer, state, meta, batches, validation, saver, stop, writer, profile_steps)
        except errors.DivergenceError as error:
          if config.on_divergence != 'rollback':
            raise
          saver.wait()
          good = checkpoints.steps(saver.directory)
          rollbacks = workdirs.add_rollback(workdir, rollbacks, good[-1] if good else 0, config.max_rollbacks, error)


def _sources(config) -> list:
  """The training records of `dataset` and `mix_with`, seen to be large enough."""
  names = [(config.dataset, config.dataset_config)]
  for text in config.mix_with:
    names.append(tuple(text.split('/')))
    if len(names[-1]) != 2:
      raise errors.ConfigError(f"config.mix_with: {text!r}, expected 'dataset/config' such as 'paired_videos/tiles'.")
  sources = [data.open_training(*name, config.data_dir or None, sampling=config.sampling) for name in names]
  for source in sources:
    data.check_records(source, config.num_frames, config.crop, config.sampling)
  data.check_weights(config.mix_weights, len(sources))
  return sources


def _slowed(trainer: Trainer, config, rollbacks: int, devices: list | None) -> Trainer:
  """`trainer`, or one with half the rates for every rollback of the run."""
  if not rollbacks:
    return trainer
  config = config.copy_and_resolve_references()
  config.lr *= workdirs.ROLLBACK_FACTOR**rollbacks
  if 'critic_lr' in config:
    config.critic_lr *= workdirs.ROLLBACK_FACTOR**rollbacks
  logging.warning('After %d rollback(s) the learning rate peaks at %g.', rollbacks, config.lr)
  return make_trainer(config, devices)


def _check_fit(config, trainer: Trainer) -> None:
  network = trainer.abstract_network()
  frames = getattr(network, 'num_frames', config.num_frames)  # a recurrent network takes clips of any length
  if config.num_frames != frames:
    raise errors.ConfigError(
      f'config.num_frames={config.num_frames}, but system={config.system!r} looks at {frames} frames.'
    )
  if config.crop % network.size_multiple:
    raise errors.ConfigError(
      f'config.crop={config.crop} must be a multiple of {network.size_multiple} for system={config.system!r}.'
    )
  logging.info(
    '%s: %s parameters; %d device(s) (%s) in %d process(es), %d sample(s) per device and micro-batch',
    config.system, f'{inference.count_params(network):,}', trainer.mesh.size, jax.devices()[0].platform,
    jax.process_count(), config.batch_size // config.grad_accum // trainer.mesh.size,
  )  # fmt: skip


class _Meter:
  """Counts updates and the time spent waiting for data since it was last reset."""

  def __init__(self):
    self.reset()

  def reset(self) -> None:
    self._start, self._waited, self._updates = time.monotonic(), 0.0, 0

  def draw(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return the next batch, on the clock."""
    asked = time.monotonic()
    batch = next(batches)
    self._waited += time.monotonic() - asked
    self._updates += 1
    return batch

  def read(self, batch_size: int, updates_per_step: int) -> dict[str, float]:
    """Return rates; nothing when no update was made."""
    if not self._updates:
      return {}
    seconds = time.monotonic() - self._start
    return {
      'train/steps_per_s': self._updates / updates_per_step / seconds,
      'train/samples_per_s': self._updates * batch_size / seconds,
      'train/data_wait': self._waited / seconds,
    }


def _run(config, trainer, state, meta, batches, validation, saver, stop, writer, profile_steps):
  """The loop itself: from the updates that `meta` tells of to the last one of step `config.steps`."""
  workdir = writer.workdir
  meter = _Meter()
  guards = CollapseGuard(config), IdentityGuard(config.steps)
  pending: list[dict] = []  # device scalars since the last look; fetching them is the only wait for the device
  per_step, done = trainer.updates_per_step, meta.get('updates', meta['step'])
  total = config.steps * per_step
  hardware = list(dict.fromkeys([*meta.get('hardware', []), parallel.hardware(trainer.mesh)]))
  begin = time.monotonic() - meta.get('seconds', 0.0)
  logging.info('Compiling the first step ...')
  # A bar on a terminal; logs have the lines below.
  for index in tqdm.trange(done, total, initial=done, total=total, unit='update', disable=None):
    step, rest = divmod(index + 1, per_step)
    if profile_steps and index == (profile_steps[0] - 1) * per_step:
      jax.profiler.start_trace(workdir / 'profile')
    batch = meter.draw(batches)
    state, scalars = trainer.update(state, batch, index)
    pending.append(scalars)
    if index < done + min(2, per_step):  # each program once
      jax.block_until_ready(scalars)
      meter.reset()  # rates leave compilation out
    if index == done:
      logging.info('First step done')
    if profile_steps and (step, rest) == (profile_steps[1], 0):
      jax.block_until_ready(scalars)
      jax.profiler.stop_trace()
      logging.info('Profile of steps %d to %d is in %s', *profile_steps, workdir / 'profile')

    last, leaving = index + 1 == total, stop.reached(saver, index + 1)
    log = rest == 0 and (step % config.log_every == 0 or last)
    evaluate = rest == 0 and (step % config.eval_every == 0 or last)
    save = rest == 0 and (step % config.save_every == 0 or evaluate) or leaving
    if not (log or save):
      continue
    values = _fetch(pending, index, trainer, batch, config, saver, workdir)
    pending.clear()
    if rest == 0:  # between two updates of a step there is not a line's worth to tell
      for guard in guards:
        guard.look(step, values)
      values |= trainer.rates(step) | meter.read(config.batch_size, per_step)
      writer.scalars(step, values)
    if log:
      _log(step, config.steps, values)
    psnr = None
    if evaluate:
      found = validation(trainer.network(state))
      writer.scalars(step, found.scores)
      for name, image in found.pictures.items():
        writer.picture(step, name, image)
      for name, (frames, fps) in found.animations.items():
        writer.animation(step, name, frames, fps)
      psnr = found.scores.get('val/psnr')
      logging.info('step %d  validation %s', step, found.text)
    if save:
      meta = {
        'step': step, 'updates': index + 1, 'samples': (index + 1) * config.batch_size, 'devices': trainer.mesh.size,
        'processes': jax.process_count(), 'jax': jax.__version__, 'hardware': hardware,
        'seconds': time.monotonic() - begin,
      }  # fmt: skip
      saver.save(index + 1, state, meta, psnr)
    if leaving and not last:
      saver.wait()
      logging.info('Saved step %d. The same command resumes from here.', step)
      return state
    meter.reset()
  saver.wait()
  logging.info('Finished %d steps; checkpoints in %s', config.steps, workdir / 'checkpoints')
  return state


def _log(step: int, steps: int, values: dict[str, float]) -> None:
  text = f'step {step}/{steps}'
  names = {
    'loss': 'train/loss', 'of the input\'s': 'train/loss_over_input', '|grad|': 'train/grad_norm',
    'critics': 'train/critic_loss',
  }  # fmt: skip
  for label, name in names.items():
    if name in values:
      text += f'  {label} {values[name]:.5f}'
  if offsets := [value for name, value in values.items() if _is_mean_offset(name)]:
    text += f'  |offset| {max(offsets):.2f} px'
  if 'train/steps_per_s' in values:
    left = datetime.timedelta(seconds=round((steps - step) / values['train/steps_per_s']))
    text += f'  {values["train/steps_per_s"]:.3g} steps/s ({values["train/samples_per_s"]:.3g} samples/s)'
    text += f'  data wait {100 * values["train/data_wait"]:.0f} %  ETA {left}'
  logging.info('%s', text)


def _fetch(pending, index, trainer, batch, config, saver, workdir) -> dict[str, float]:
  """Return the means of the scalars of the updates since the last look, the last of which was number `index`.

  Raises:
    DivergenceError: one of them is not finite; the batch at hand and the scalars are written to `<workdir>/diverged`.
  """
  values, per_step = jax.device_get(pending), trainer.updates_per_step
  for number, scalars in enumerate(values, start=index + 1 - len(values)):
    bad = [name for name, value in scalars.items() if not np.isfinite(value) or value > _limit(name, config)]
    if not bad:
      continue
    folder, step = workdir / 'diverged', number // per_step + 1
    if jax.process_index() == 0:
      record = [{k: str(v) for k, v in s.items()} for s in values]
      files.write_json(folder / f'step_{step}.json', {'first_bad_step': step, 'scalars': record})
      np.savez(folder / f'batch_{index // per_step + 1}.npz', **parallel.local_part(trainer.put(batch)))
    good, past = checkpoints.steps(saver.directory), len(workdirs.rollbacks(workdir))
    rate = config.lr * workdirs.ROLLBACK_FACTOR ** (past + 1)
    lower = f'in a new workdir --config.init_from={workdir} --config.lr={rate:g}'
    if config.on_divergence == 'rollback':  # what is done, or was in vain, is no advice
      advice = ''
    elif past:
      advice = f' It went back {past} times already; go on with a lower rate {lower}'
    else:
      advice = f' Go on with a lower rate: --config.on_divergence=rollback, or {lower}'
    raise errors.DivergenceError(
      f'{bad[0]} is {scalars[bad[0]]:g} at step {step}; last good checkpoint: {good[-1] if good else "none"}. '
      f'Scalars and a batch are in {folder}.{advice}'
    )
  means = {}
  for name in dict.fromkeys(name for scalars in values for name in scalars):  # each side has its own
    over = np.max if name.endswith('max') else np.mean
    means[name] = float(over([scalars[name] for scalars in values if name in scalars]))
  if input_loss := means.pop('train/input_loss', 0.0):  # a ratio of means: that of one batch says little
    means['train/loss_over_input'] = means['train/loss'] / input_loss
  for name, value in means.items():
    if _is_mean_offset(name) and value > config.offset_warn:
      logging.warning(
        'step %d: %s is %.1f pixels of its grid, over offset_warn=%g: the alignment comes apart; a lower rate helps.',
        index // per_step + 1, name, value, config.offset_warn,
      )  # fmt: skip
  return means


def _is_mean_offset(name: str) -> bool:
  return name.startswith('offset/') and name.endswith('mean')


def _limit(name: str, config) -> float:
  """Where a scalar counts as diverged."""
  return config.offset_limit if _is_mean_offset(name) else np.inf
