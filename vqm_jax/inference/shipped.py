"""Weights that ship with the package: networks that are ready to use without training.

    network = inference.load('web-small')   # a name does wherever the folder of a run would
    print(shipped.table())                  # what there is; also `vqm_jax.enhance --list_weights`

They lie in `vqm_jax/weights/`: files in safetensors, float16 as a rule, and `index.json`, which `add` writes:

    {"schema_version": 1, "weights": {"web-small": {the fields of `Entry` but its name}, ...}}

Every time weights are opened the file's SHA-256 is compared with the index. Of several made for one kind of device the
first in the index is the one that is taken by default.
"""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vqm_jax import checkpoints, errors, files, schemas
from vqm_jax.formats import format_params, markdown_table
from vqm_jax.inference import exporting
from vqm_jax.inference.run import Run, count_params

# Where weights and index are. All of this module looks here when it is called, so that tests have a folder of theirs.
FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'weights'
INDEX = 'index.json'
SCHEMA_VERSION = 1

_NAME = re.compile(r'[a-z0-9]+(-[a-z0-9]+)*')
_DEVICES = ('cpu', 'gpu')
_REINSTALL = 'install the package again, or in a checkout: git checkout vqm_jax/weights'


@dataclasses.dataclass(frozen=True)
class Entry:
  """The index's entry of one set of weights.

  Attributes:
    name: what they are called, such as 'web-small'.
    file: name of the file in `FOLDER`.
    sha256: of the file, in hexadecimal digits.
    bytes: its size.
    system: name of the network, a key of `restorers.NETWORKS`.
    system_args: its constructor arguments.
    params: trainable scalars.
    device: what the network is made for, 'cpu' or 'gpu'; it runs on both.
    description: one line.
    trained_on: the coding of H.264 that it saw: {'crf': [lowest, highest], 'qp': [lowest, highest]}, or one of them.
    licence: of the weights.
    model_card: path from the checkout of the page that tells the rest, such as 'docs/model_cards/web-small.md'.
    pixels_per_second: typical on such a device, or None where it was not measured.
    strength_by_qp: [[qp, strength], ...], measured: the strength that suits input of this QP; empty for 1 throughout.
  """

  name: str
  file: str
  sha256: str
  bytes: int
  system: str
  system_args: dict[str, Any]
  params: int
  device: Literal['cpu', 'gpu']
  description: str
  trained_on: dict[str, Sequence[float]]
  licence: str
  model_card: str
  pixels_per_second: float | None = None
  strength_by_qp: Sequence[Sequence[float]] = ()


def names() -> list[str]:
  """List the names of all weights that ship, in the order of the index.

  Raises:
    CheckpointError: the index is missing or damaged.
  """
  return [entry.name for entry in _entries()]


def describe(name: str) -> Entry:
  """Return the entry of `name`.

  Raises:
    ConfigError: no such weights; lists those that there are.
    CheckpointError: the index is missing or damaged.
  """
  entries = {entry.name: entry for entry in _entries()}
  if name not in entries:
    raise errors.ConfigError(f'weights={name!r} is unknown; {choices(name)}')
  return entries[name]


def choices(name: str = '') -> str:
  """A sentence for errors: which weights there are, and which of them is spelled nearly like `name`."""
  entries = _entries()
  if not entries:
    return f'{_none()}; train a network and give its folder instead.'
  hint = errors.did_you_mean(name, [entry.name for entry in entries])
  listed = '; '.join(f'{entry.name} (for {entry.device.upper()}s: {entry.description})' for entry in entries)
  return f'{hint}with the package ship {listed}.'


def table() -> str:
  """All weights that ship as a table in Markdown, or a sentence that none do."""
  entries = _entries()
  if not entries:
    return f'{_none()}; train a network and give its folder instead.\n'
  header = ['Name', 'Made for', 'System', 'Parameters', 'Size', 'Trained on H.264', 'What it is']
  rows = [
    [
      entry.name,
      entry.device.upper(),
      entry.system,
      format_params(entry.params),
      f'{entry.bytes / 1e6:.3g} MB',
      ', '.join(f'{kind.upper()} {low:g} to {high:g}' for kind, (low, high) in entry.trained_on.items()),
      entry.description,
    ]
    for entry in entries
  ]
  return markdown_table([header, *rows], right=(3, 4))


def default(backend: str) -> tuple[str, str]:
  """The name of the weights to take on a device when none are asked for, and the reason in words.

  Args:
    backend: as `jax.default_backend` says it: 'cpu', 'gpu' or 'tpu'.

  Raises:
    ConfigError: no weights ship.
    CheckpointError: the index is missing or damaged.
  """
  entries = _entries()
  if not entries:
    raise errors.ConfigError(f'--workdir is required: {choices()}')
  wanted = 'cpu' if backend == 'cpu' else 'gpu'
  first = {entry.device: entry.name for entry in reversed(entries)}
  if wanted in first:
    return first[wanted], f'JAX runs on {backend.upper()} here, and they are made for {wanted.upper()}s'
  return entries[0].name, f'JAX runs on {backend.upper()} here, and no weights are made for {wanted.upper()}s'


def open_weights(name: str) -> Run:
  """The network with the weights `name`, as `open_run` gives that of a run; its `workdir` is the file.

  Raises:
    ConfigError: no such weights; lists those that there are.
    CheckpointError: index or file are missing, or the file is not the one that was entered.
    DataError: the file is whole, but this version builds another network from it.
  """
  entry = describe(name)
  path = FOLDER / entry.file
  _verify(path, entry)
  network, meta = exporting.read_safetensors(path)
  config = {key: meta[key] for key in ('system', 'system_args', 'dtype')}
  step = meta.get('step') or 0  # a network that was saved alone does not know it
  training = meta.get('training')
  ema, params = bool(meta.get('ema')), count_params(network)
  return Run(network, config, path, step, step, ema, params, training, entry.trained_on, entry.strength_by_qp)


def has_file(name: str) -> bool:
  """Whether weights of this name lie in the package, whatever the index says."""
  return _file(name).is_file()


def add(
  name: str,
  path: str | pathlib.Path,
  *,
  device: Literal['cpu', 'gpu'],
  description: str,
  trained_on: Mapping[str, Sequence[float]],
  licence: str,
  model_card: str,
  pixels_per_second: float | None = None,
  strength_by_qp: Sequence[Sequence[float]] = (),
) -> Entry:
  """Copy a file of `vqm_jax.export --half` into the package and enter it; earlier weights of the name are replaced.

  For maintainers, in a checkout. The same call writes the same bytes again. Both files appear when they are complete,
  one after the other: a call that was cut off between them leaves weights that are refused as damaged; repeat it.

  Args:
    name: small letters and digits, with hyphens between.
    path: the file. Parameters, system and arguments are taken from it.
    device, description, trained_on, licence, model_card, pixels_per_second, strength_by_qp: fields of the `Entry`.

  Raises:
    ConfigError: an argument is not as `Entry` says, or the model card is not in the checkout.
    DataError: not a file of ours, or damaged.
    CheckpointError: the index is missing or damaged.
    OSError: a file cannot be read or written.
  """
  path = pathlib.Path(path)
  _check(name, device, description, trained_on, licence, model_card)
  entries = {entry.name: entry for entry in _entries()}
  network, meta = exporting.read_safetensors(path)
  entries[name] = Entry(
    name,
    file=_file(name).name,
    sha256=checkpoints.sha256(path),
    bytes=path.stat().st_size,
    system=meta['system'],
    system_args=meta['system_args'],
    params=count_params(network),
    device=device,
    description=description,
    trained_on={kind: list(bounds) for kind, bounds in trained_on.items()},
    licence=licence,
    model_card=model_card,
    pixels_per_second=pixels_per_second,
    strength_by_qp=[list(pair) for pair in strength_by_qp],
  )
  content = {key: {k: v for k, v in dataclasses.asdict(e).items() if k != 'name'} for key, e in entries.items()}
  with files.replacing(_file(name)) as partial:
    shutil.copyfile(path, partial)
  files.write_json(FOLDER / INDEX, {'schema_version': SCHEMA_VERSION, 'weights': content})
  return entries[name]


def _check(name, device, description, trained_on, licence, model_card) -> None:
  """Raises ConfigError for arguments of `add` that do not fit."""
  problems = {
    f'name={name!r}: expected small letters and digits with hyphens between, such as web-small': not _NAME.fullmatch(
      name
    ),
    f'device={device!r}: expected one of {", ".join(_DEVICES)}': device not in _DEVICES,
    f'description={description!r}: expected one line': not description or len(description.splitlines()) != 1,
    f'licence={licence!r}: expected a licence, such as Apache-2.0': not licence,
    f'trained_on={trained_on!r}: expected {{"crf": [lowest, highest], "qp": [lowest, highest]}}, or one of them': (
      not trained_on
      or not trained_on.keys() <= {'crf', 'qp'}
      or any(len(bounds) != 2 or bounds[0] > bounds[1] for bounds in trained_on.values())
    ),
    f'model_card={model_card!r}: no such page in the checkout {FOLDER.parent.parent}; write it first': (
      not (FOLDER.parent.parent / model_card).is_file()
    ),
  }
  for text, wrong in problems.items():
    if wrong:
      raise errors.ConfigError(f'{text}.')


def _entries() -> list[Entry]:
  path = FOLDER / INDEX
  try:
    content = schemas.load(path, dict[str, Any])
    if (found := content.get('schema_version')) != SCHEMA_VERSION:
      raise schemas.Misfit(f'schema_version {found!r:.40}, expected {SCHEMA_VERSION}')
    weights = schemas.check(content.get('weights'), dict[str, dict[str, Any]], 'weights')
    for name, fields in weights.items():
      _check_entry(schemas.check({**fields, 'name': name}, Entry, f'weights.{name}'))
    return [Entry(name, **fields) for name, fields in weights.items()]
  except FileNotFoundError as error:
    raise errors.CheckpointError(f'{path}: missing, expected the list of weights that ship; {_REINSTALL}.') from error
  except schemas.Misfit as error:
    raise errors.CheckpointError(
      f'{path}: damaged ({error}), expected the JSON of schema version {SCHEMA_VERSION}; {_REINSTALL}.'
    ) from error


def _check_entry(entry: Entry) -> None:
  """Raises Misfit for what the types of its fields do not say."""
  pairs = [*entry.trained_on.values(), *entry.strength_by_qp]
  if any(len(pair) != 2 for pair in pairs):
    raise schemas.Misfit(f'weights.{entry.name}: expected pairs of numbers in trained_on and strength_by_qp')
  if pathlib.PurePath(entry.file).name != entry.file:
    raise schemas.Misfit(f'weights.{entry.name}.file: expected a name, found {entry.file!r:.60}')


def _verify(path: pathlib.Path, entry: Entry) -> None:
  if not path.is_file():
    raise errors.CheckpointError(f'{path}: missing, expected the weights {entry.name}; {_REINSTALL}.')
  found, size = checkpoints.sha256(path), path.stat().st_size
  if (found, size) != (entry.sha256, entry.bytes):
    raise errors.CheckpointError(
      f'{path}: damaged, expected {entry.bytes} bytes with SHA-256 {entry.sha256}, found {size} bytes with {found}; '
      f'{_REINSTALL}.'
    )


def _file(name: str) -> pathlib.Path:
  return FOLDER / f'{name}.safetensors'


def _none() -> str:
  return f'no weights ship with this version of the package ({FOLDER / INDEX} lists none)'
