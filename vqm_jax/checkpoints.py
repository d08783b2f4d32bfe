"""Checkpoints: thin over Orbax, with a digest of every file.

A checkpoint is `<workdir>/checkpoints/<step>/` with

    state/          the training state, arrays only
    meta/           JSON: step, number of samples drawn (the whole state of the data pipeline), versions, devices
    metrics/        JSON: validation PSNR, when the step was validated
    digests.json    SHA-256 of every file above, written before Orbax renames the folder into place

Orbax writes into a temporary folder, so a save that was cut off is never mistaken for a checkpoint. Flipped bits are
another matter: they restore without a word. Therefore every reader verifies the digests first, and a trainer that
meets a damaged checkpoint sets it aside and goes on from the one before; where none is left, it goes no further, today
or the next time. Only `metrics/` is no part of the state: without it a checkpoint counts as not validated.

`_fenced` is the one place where errors of Orbax become ours.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vqm_jax import errors, files, schemas

DIGESTS = 'digests.json'
# Orbax touches these while or after it renames the folder; neither holds anything of the run.
_NOT_DIGESTED = {DIGESTS, 'commit_success.txt', '_CHECKPOINT_METADATA'}
_STATE, _META, _METRICS = 'state/', 'meta/metadata', 'metrics/'
_STEP = re.compile('0|[1-9][0-9]*')  # not 007: folders are found again by the number
# Layers that were items of lists before they had names: what was saved then is read under the names of now.
_RENAMED = {
  r'\bfusion/spatial2/0/': 'fusion/spatial2_reduce/',
  r'\bfusion/spatial2/1/': 'fusion/spatial2_merge/',
  r'\bfusion/spatial2/2/': 'fusion/spatial2_last/',
  r'\bfusion/up0/0/': 'fusion/up0_mix/',
  r'\bfusion/up0/1/': 'fusion/up0_last/',
  r'\bfusion/add/0/': 'fusion/add1/',
  r'\bfusion/add/1/': 'fusion/add2/',
  r'\btrunk/fuse/0/': 'trunk/fuse/',
  r'\btrunk/fuse/1/': 'trunk/smooth/',
  r'(rrcu\d)/layers/0/': r'\1/first/',
  r'(rrcu\d)/layers/1/': r'\1/second/',
}
_CLOSING = 20  # seconds that a manager whose save failed is waited for; its threads may never end


class Checkpoints:
  """Writes and restores the checkpoints of one run; use in a `with` block.

  Saving is asynchronous: `save` returns when the arrays are copied, and the state may be donated at once. The newest
  `keep_last` checkpoints are kept, and the one with the best validation PSNR.
  """

  def __init__(self, directory: pathlib.Path, *, keep_last: int = 2):
    self.directory = pathlib.Path(directory).resolve()
    self._saving = self._needed = 0
    self._failed = False
    if jax.process_index() == 0:
      _drop_damaged_scores(self.directory)
    keep = preservation_policy.AnyPreservationPolicy(
      [
        preservation_policy.LatestN(keep_last),
        preservation_policy.BestN(get_metric_fn=lambda m: m['psnr'], n=1, keep_checkpoints_without_metrics=False),
      ]
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=keep,
      best_fn=lambda m: m['psnr'],
      cleanup_tmp_directories=True,
      async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
    )
    with _fenced(f'{self.directory}: cannot be used for checkpoints'):
      self._manager = ocp.CheckpointManager(self.directory, options=options)
    self._hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_unless_of_a_closed_loop, self._hook)

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, value, trace) -> None:
    try:
      if kind is None:
        self.wait()
    finally:
      self._close(patient=not self._failed)
      if not self._failed:
        sys.unraisablehook = self._hook

  def _close(self, patient: bool) -> None:
    """End Orbax's threads; after a failed save it may take for ever, and what it raises has been told."""

    def close():
      with contextlib.suppress(Exception):
        self._manager.close()

    closing = threading.Thread(target=close, name='close checkpoints', daemon=True)
    closing.start()
    closing.join(None if patient else _CLOSING)

  def reached_preemption(self, step: int) -> bool:
    """Whether the processes of a distributed run have agreed to stop after `step`."""
    return self._manager.reached_preemption(step)

  def save(self, step: int, state: Any, meta: dict, psnr: float | None = None) -> None:
    """Start to save `state` (a pytree of arrays) and `meta` (JSON) as checkpoint `step`.

    Raises:
      CheckpointError: this save could not start, or the one before it failed (disk full, no permission, ...).
    """
    # Looked at first, because Orbax's threads report a full disk with pages of tracebacks.
    self._needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if self._needed > (free := shutil.disk_usage(self.directory).free):
      raise self._save_error(
        step, OSError(f'it needs {files.size_text(self._needed)}, {files.size_text(free)} are free on the disk')
      )
    try:
      self._manager.wait_until_finished()
      self._saving = step
      state = jax.tree.map(_one_copy, state)
      args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
      self._manager.save(step, args=args, metrics=None if psnr is None else {'psnr': psnr}, force=True)
    except Exception as error:
      raise self._save_error(step, error) from error

  def wait(self) -> None:
    """Blocks until the last save is on disk. Raises CheckpointError if it failed."""
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise self._save_error(self._saving, error) from error

  def _save_error(self, step: int, error: Exception) -> errors.CheckpointError:
    self._failed = True
    why = errors.reason(error)
    if files.is_full(error):
      free = shutil.disk_usage(self.directory).free
      why = f'the disk is full; it needs {files.size_text(self._needed)}, {files.size_text(free)} are free'
    return errors.CheckpointError(
      f'Could not save checkpoint {step} in {self.directory}: {why}. Earlier checkpoints are untouched; '
      'make room or check permissions, then start the same command again to resume.'
    )

  def _write_digests(self) -> None:
    # Called by Orbax on its saving thread, when all files are complete and the folder still has its temporary name.
    if jax.process_index() != 0:
      return
    candidates = [
      *self.directory.glob(f'{self._saving}.orbax-checkpoint-tmp*'),
      self.directory / str(self._saving),
    ]
    folder = next(path for path in candidates if path.is_dir())
    (folder / DIGESTS).write_text(json.dumps(_digests(folder), indent=1))

  def restore_latest(self, abstract_state: Any) -> tuple[Any, dict] | None:
    """Return (state, meta) of the newest intact checkpoint, or None when there is none.

    Damaged checkpoints are renamed to `<step>.damaged` with a warning, and the one before is tried.

    Args:
      abstract_state: `jax.ShapeDtypeStruct` leaves with shardings.

    Raises:
      CheckpointError: checkpoints exist, or did before they were found to be damaged, but none is intact; or the state
        has another structure.
    """
    for step in reversed(steps(self.directory)):
      try:
        verify(self.directory, step)
      except errors.CheckpointError as error:
        logging.error('%s Going back to the checkpoint before it.', error)
        if jax.process_index() == 0:
          _set_aside(self.directory / str(step))
        continue
      # Its bytes are those that were written: what does not fit is the program.
      with _fenced(f'Checkpoint {self.directory / str(step)} holds another state than this code and config build'):
        self._manager.reload()
        target = _as_saved(self.directory / str(step) / 'state', abstract_state)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
      return _filled(abstract_state, _named(flatten(restored.state))), restored.meta
    if damaged := _damaged(self.directory):
      raise errors.CheckpointError(
        f'{damaged}; or start in another --workdir from other weights with --config.init_from=WORKDIR; or '
        'delete the damaged ones to train from step 0 again.'
      )
    return None


def _one_copy(leaf: Any) -> Any:
  """Move what all devices of this process hold to the first of them.

  Orbax would have each device write a part of it, cut by a program of its own for every shape and place: hundreds are
  compiled for the first save of a small network on eight devices.
  """
  if jax.process_count() == 1 and isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
    return leaf.addressable_data(0)
  return leaf


def _unless_of_a_closed_loop(hook: Callable[[Any], Any], unraisable: Any) -> None:
  """A `sys.unraisablehook` that leaves out what TensorStore has to say after a failed write.

  Once one write has failed, Orbax closes the event loop that waits for all of them; TensorStore's threads, which then
  have nobody to tell that theirs are done, would print a traceback each.
  """
  error = unraisable.exc_value
  if unraisable.object is None and isinstance(error, RuntimeError) and str(error) == 'Event loop is closed':
    return
  hook(unraisable)


@contextlib.contextmanager
def _fenced(what: str) -> Iterator[None]:
  """Turn whatever Orbax and TensorStore raise into a CheckpointError that begins with `what`; ours pass."""
  try:
    yield
  except errors.VqmError:
    raise
  except Exception as error:
    text = ' '.join(str(error).split()) or type(error).__name__
    raise errors.CheckpointError(f'{what}: {errors.one_line(text, 300)}') from error


def _drop_damaged_scores(directory: pathlib.Path) -> None:
  """Remove validation records that do not match their digests, so that Orbax and `select` know of none.

  They are a few bytes beside hours of training: the checkpoints themselves stay.
  """
  for step in steps(directory):
    folder = directory / str(step) / _METRICS
    if folder.is_dir() and validation_psnr(directory, step) is None:
      logging.warning('%s: the validation record is damaged and removed; the checkpoint stays.', folder.parent)
      shutil.rmtree(folder, ignore_errors=True)


def _damaged(directory: pathlib.Path) -> str:
  """Which damaged checkpoints were set aside, and what to do about it; '' if none were."""
  found = sorted(path.name for path in directory.glob('*.damaged*'))
  listed = ', '.join(found[:3]) + (', ...' if len(found) > 3 else '')
  told = f'No checkpoint in {directory} is intact, and there are damaged ones ({listed}). Bring one back from a copy'
  return told if found else ''


def _set_aside(folder: pathlib.Path) -> None:
  for count in range(1000):
    target = folder.with_name(f'{folder.name}.damaged' + (f'.{count}' if count else ''))
    if not target.exists():
      folder.rename(target)
      return


def _digests(folder: pathlib.Path) -> dict[str, str]:
  files = sorted(path for path in folder.rglob('*') if path.is_file() and path.name not in _NOT_DIGESTED)
  return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def sha256(path: pathlib.Path) -> str:
  """Return the SHA-256 of a file, in hexadecimal digits."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def steps(directory: pathlib.Path) -> list[int]:
  """Return the steps with a finished checkpoint in `directory`, ascending."""
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return []
  return sorted(int(path.name) for path in directory.iterdir() if path.is_dir() and _STEP.fullmatch(path.name))


def verify(directory: pathlib.Path, step: int) -> None:
  """Check every file of checkpoint `step` against its digest, but for the validation record.

  Raises:
    CheckpointError: names the first file that is missing, changed, was never finished or has no digest.
  """
  folder = pathlib.Path(directory) / str(step)
  expected = _expected(folder)
  there = {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}
  present = {name for name in there if pathlib.PurePath(name).name not in _NOT_DIGESTED and _is_state(name)}
  if unknown := sorted(present - expected.keys()):
    raise errors.CheckpointError(f'Checkpoint {folder} is damaged: {unknown[0]} has no digest in {DIGESTS}.')
  if _META not in expected or not any(name.startswith(_STATE) for name in expected):
    raise errors.CheckpointError(f'Checkpoint {folder} is damaged: {DIGESTS} does not list the whole of it.')
  for name, digest in expected.items():
    if name.startswith(_METRICS):
      continue
    if name not in there:
      raise errors.CheckpointError(f'Checkpoint {folder} is damaged: {name!r:.120} is missing.')
    if sha256(folder / name) != digest:
      raise errors.CheckpointError(f'Checkpoint {folder} is damaged: {name} does not match its SHA-256 digest.')


def _is_state(name: str) -> bool:
  """Whether a file is read on resuming; others may be laid beside them, such as notes."""
  return name.startswith((_STATE, 'meta/')) and not pathlib.PurePath(name).name.startswith('.')


def _expected(folder: pathlib.Path) -> dict[str, str]:
  """The digests of a checkpoint's files by name. Raises CheckpointError when there is no such list."""
  try:
    expected = schemas.load(folder / DIGESTS, dict[str, str])
    if wrong := [name for name, digest in expected.items() if not re.fullmatch('[0-9a-f]{64}', digest)]:
      raise schemas.Misfit(f'{wrong[0]!r:.60}: expected a SHA-256, found {expected[wrong[0]]!r:.60}')
    return expected
  except FileNotFoundError as error:
    raise errors.CheckpointError(
      f'Checkpoint {folder} has no readable {DIGESTS}: it was not finished or is damaged.'
    ) from error
  except schemas.Misfit as error:
    raise errors.CheckpointError(
      f'Checkpoint {folder} has no readable {DIGESTS} ({error}): it was not finished or is damaged.'
    ) from error


def select(directory: pathlib.Path, step: int | str) -> int:
  """Return the step that `step` means: a number, 'latest', or 'best' (highest validation PSNR, else the latest).

  Raises:
    CheckpointError: there is no checkpoint, or not this one; the message lists what is there.
  """
  found = steps(directory)
  if not found:
    if damaged := _damaged(pathlib.Path(directory)):
      raise errors.CheckpointError(f'{damaged}, or train again in another --workdir.')
    raise errors.CheckpointError(f'No checkpoint in {directory}; train first, or check --workdir.')
  if step == 'latest':
    return found[-1]
  if step == 'best':
    scores = {s: score for s in found if (score := validation_psnr(directory, s)) is not None}
    return max(scores, key=lambda s: (scores[s], s)) if scores else found[-1]
  if not str(step).isdecimal() or int(step) not in found:
    raise errors.CheckpointError(
      f'No checkpoint of step {step} in {directory}; there are {", ".join(map(str, found))} (or best, latest).'
    )
  return int(step)


def validation_psnr(directory: pathlib.Path, step: int) -> float | None:
  """Return the validation PSNR in dB saved with checkpoint `step`, or None."""
  folder = pathlib.Path(directory) / str(step)
  path = folder / _METRICS / 'metrics'
  try:
    if not path.is_file() or sha256(path) != _expected(folder).get('metrics/metrics'):
      return None  # not validated, or damaged
    return schemas.load(path, _Scores).psnr
  except (OSError, schemas.Misfit, errors.CheckpointError):
    return None


def read_arrays(directory: pathlib.Path, step: int, part: str) -> dict[str, np.ndarray]:
  """Return one part of the saved state ('params', 'ema', ...) as {'blocks/0/kernel': array}, after verification.

  Arrays come as numpy, whatever devices they were saved from.

  Raises:
    CheckpointError: damaged, or no such part.
  """
  verify(directory, step)
  path = (pathlib.Path(directory) / str(step) / 'state').resolve()
  with (
    _fenced(f'Checkpoint {path.parent} cannot be read by this version'),
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader,
  ):
    saved = reader.metadata(path).item_metadata.tree
    if part not in saved:
      raise errors.CheckpointError(f'Checkpoint {path.parent} has no {part!r}; it holds {sorted(saved)}.')
    target = {part: jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved[part])}
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    args = ocp.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
    return _named(flatten(reader.restore(path, args=args)[part]))


@dataclasses.dataclass(frozen=True)
class _Scores:
  """Scores of a validation."""

  FOREIGN = True

  psnr: float


@dataclasses.dataclass(frozen=True)
class _Meta:
  """Metadata that programs use; versions up to 0.1 lack `updates`, mixtures all that tells of training."""

  FOREIGN = True

  step: schemas.Count
  updates: schemas.Count | None = None
  seconds: float | None = None
  hardware: list[str] | None = None


def read_meta(directory: pathlib.Path, step: int) -> dict[str, Any]:
  """Return the JSON metadata of checkpoint `step`. Raises CheckpointError when it is damaged."""
  path = pathlib.Path(directory) / str(step) / _META
  try:
    meta = schemas.load(path, dict[str, Any])
    schemas.check(meta, _Meta)
    return meta
  except (FileNotFoundError, schemas.Misfit) as error:
    raise errors.CheckpointError(f'{path} is damaged ({errors.reason(error)}); use another --step.') from error


def _as_saved(folder: pathlib.Path, abstract_state: Any) -> Any:
  """`abstract_state`, or what a state with the names of before has in its place."""
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    saved = reader.metadata(folder.resolve()).item_metadata.tree
  names = flatten(saved).keys()
  if names == _named(dict.fromkeys(names)).keys():
    return abstract_state
  return _filled(saved, flatten(abstract_state))


def _filled(tree: Any, leaves: dict[str, Any]) -> Any:
  """`tree` with the leaf of that name in every place."""
  return jax.tree_util.tree_map_with_path(lambda path, _: leaves[_name(_text(path))], tree)


def _name(path: str) -> str:
  """The path of now of a leaf."""
  for old, new in _RENAMED.items():
    path = re.sub(old, new, path)
  return path


def _named(leaves: dict[str, Any]) -> dict[str, Any]:
  """Leaves by their paths of now."""
  return {_name(path): leaf for path, leaf in leaves.items()}


def flatten(tree: Any) -> dict[str, Any]:
  """Return {'a/b/0': leaf} of a nested dict, with the keys of lists and of integer dicts alike."""
  return {_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _text(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def warm_start(new: Any, old: dict[str, np.ndarray]) -> tuple[Any, dict[str, list[str]]]:
  """Return `new` with every leaf that `old` has under the same path, or one of before, and shape, and a report.

  The report lists paths under 'copied', 'new' (absent in `old`), 'misfit' (other shape, `new` keeps its own) and
  'unused' (only in `old`).
  """
  source = _named(old)
  report: dict[str, list[str]] = {'copied': [], 'new': [], 'misfit': [], 'unused': []}

  def pick(path, leaf):
    name = _text(path)
    found = source.pop(name, None)
    if found is None:
      report['new'].append(name)
      return leaf
    if found.shape != leaf.shape:
      report['misfit'].append(f'{name} {found.shape} -> {leaf.shape}')
      return leaf
    report['copied'].append(name)
    return np.asarray(found, leaf.dtype)

  tree = jax.tree_util.tree_map_with_path(pick, new)
  report['unused'] = sorted(source)
  return tree, report
