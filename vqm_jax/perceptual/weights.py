"""Weights of the feature networks: published files in, our npz out, and where the programs look for it.

Nothing is shipped or downloaded. `convert` turns torchvision's or LPIPS's file into `<net>.npz`, float32 arrays by the
names of `networks.parameters` beside `__meta__`, JSON: net, source (file name), sha256 (of that file), converter (its
version), digest (of the arrays).
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import zlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from vqm_jax import errors, files, schemas
from vqm_jax.perceptual import networks, weight_files
from vqm_jax.perceptual.networks import Weights

# The folder of converted weights, when neither a flag nor a config names one.
ENVIRONMENT = 'VQM_JAX_PERCEPTUAL_DIR'

VERSION = 1

# Of the published files: usual name, and where to get it.
_TORCHVISION = (
  "torchvision's ImageNet weights; on a machine with internet access create the network there once with pretrained "
  "weights, and copy the file from PyTorch's checkpoint cache"
)
_LPIPS = 'in the package lpips 0.1.4, folder lpips/weights/v0.1; `pip install --no-deps lpips` is enough'
ORIGINS = {
  'alexnet': ('alexnet-owt-7be5be79.pth', _TORCHVISION),
  'vgg16': ('vgg16-397923af.pth', _TORCHVISION),
  'vgg19': ('vgg19-dcbb9e9d.pth', _TORCHVISION),
  'squeezenet': ('squeezenet1_1-b8a52dc0.pth', _TORCHVISION),
  'lpips-alex': ('alex.pth', _LPIPS),
  'lpips-vgg': ('vgg.pth', _LPIPS),
  'lpips-squeeze': ('squeeze.pth', _LPIPS),
}

# First digits of the SHA-256 of LPIPS's v0.0 heads: names and shapes are those of v0.1, the input was another.
_LPIPS_V00 = {'18720f55', 'b9e42362', 'c27abd3a'}


def path_of(net: str, path: str | os.PathLike | None = None) -> pathlib.Path:
  """Where the converted weights of `net` are expected.

  Args:
    net: one of `NETS`.
    path: an npz file, or a folder that holds `<net>.npz`. When not given: the folder $VQM_JAX_PERCEPTUAL_DIR, else
      vqm_jax/perceptual in the user's cache folder.
  """
  if not path:
    cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    path = os.environ.get(ENVIRONMENT) or pathlib.Path(cache) / 'vqm_jax' / 'perceptual'
  path = pathlib.Path(path).expanduser()
  return path if path.suffix == '.npz' else path / f'{net}.npz'


@dataclasses.dataclass(frozen=True)
class _Meta:
  """Facts that `convert` writes beside the arrays: network, its own version, digests of source and arrays."""

  FOREIGN = True

  net: str
  converter: int
  sha256: str
  digest: str


def load(
  net: str,
  path: str | os.PathLike | None = None,
  *,
  needed_by: str = '',
  setting: str = '',
  instead: str = '',
  allow_random: bool = False,
) -> Weights:
  """Read converted weights.

  Args:
    net: one of `NETS`.
    path: an npz file, or a folder that holds `<net>.npz`; $VQM_JAX_PERCEPTUAL_DIR or the user's cache when not given.
    needed_by: who asks, for the message when there are none: "WESPE's content loss".
    setting: the flag or config field that `path` came from: '--config.perceptual_dir'.
    instead: what does without these weights: 'content_loss=pixel'.
    allow_random: for tests: `random(net)` where the file is missing. No flag or config may set it.

  Raises:
    ConfigError: unknown net.
    MissingWeightsError: there is no such file; says where to get it and how to convert it.
    DataError: the file is damaged, was changed, or holds another network.
  """
  _check_net(net)
  path = path_of(net, path)
  if not path.is_file():
    if allow_random:
      return random(net)
    raise errors.MissingWeightsError(_missing(net, path, needed_by, setting, instead))
  stored = weight_files.read(path, lambda name: True)
  again = f'convert it again with python -m vqm_jax.perceptual.convert --net={net}'
  try:
    meta = schemas.check(schemas.parse(str(stored.pop('__meta__'))), _Meta)
  except (KeyError, schemas.Misfit) as error:
    raise errors.DataError(f'{path}: not written by our converter; {again}.') from error
  if (meta.net, meta.converter) != (net, VERSION):
    raise errors.DataError(
      f'{path}: expected {net} of converter version {VERSION}, found {meta.net:.60} of version {meta.converter}; '
      f'{again}.'
    )
  expected = {p.name: p.shape for p in networks.parameters(net)}
  if {name: array.shape for name, array in stored.items()} != expected or _digest(stored) != meta.digest:
    raise errors.DataError(f'{path}: its arrays are not those that were written; {again}.')
  return Weights(net, {name: jnp.asarray(stored[name]) for name in expected}, meta.sha256)


def random(net: str, seed: int = 0) -> Weights:
  """Random weights of the right size, for tests."""
  arrays = from_source(net, random_source(net, seed))
  return Weights(net, {name: jnp.asarray(array) for name, array in arrays.items()}, None)


def random_source(net: str, seed: int = 0) -> dict[str, np.ndarray]:
  """Make random weights by the published names: kernels after He et al., small biases, heads without a sign."""
  _check_net(net)

  def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, np.float32)
    if net in networks.HEADS:
      return np.abs(values)
    return values * np.float32(np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 0.1)

  return {name: draw(name, shape) for _, _, name, shape in networks.parameters(net)}


def convert(net: str, source: pathlib.Path, output: pathlib.Path, check_hash: bool = True) -> dict[str, Any]:
  """Read a published file and write it as ours, whole or not at all; return what `__meta__` holds.

  Args:
    net: one of `NETS`.
    source: .pth, .safetensors or .npz with torchvision's or LPIPS's names.
    output: the npz file.
    check_hash: refuse a file called NAME-XXXXXXXX.pth whose SHA-256 begins with other digits, else only warn.

  Raises:
    ConfigError: unknown net.
    DataError: the hash differs; the file cannot be read; arrays are missing, of another shape, or not finite.
  """
  _check_net(net)
  with source.open('rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  named = re.search(r'-([0-9a-f]{8})\.pth$', source.name)
  if named and named[1] != sha256[:8]:
    message = f'{source}: its SHA-256 begins with {sha256[:8]}, not with {named[1]} as its name says'
    if check_hash:
      raise errors.DataError(f'{message}; download it again, or pass --nocheck_hash if the name is wrong.')
    logging.warning('%s', message)
  if net in networks.HEADS and sha256[:8] in _LPIPS_V00:
    raise errors.DataError(f'{source}: the heads of LPIPS v0.0; expected those of v0.1, the folder beside.')
  try:
    arrays = from_source(net, weight_files.read(source, lambda name: _published_name(name) is not None))
  except errors.DataError as error:
    raise errors.DataError(str(error) if str(source) in str(error) else f'{source}: {error}') from None
  meta = {'net': net, 'source': source.name, 'sha256': sha256, 'converter': VERSION, 'digest': _digest(arrays)}
  _write(output, arrays | {'__meta__': np.array(json.dumps(meta))})
  return meta


def from_source(net: str, source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Published arrays by their published names -> ours: float32, kernels HWIO, heads (C,). Other names are ignored.

  Names may be torchvision's (features.0.weight), those of a whole LPIPS module (net.slice1.0.weight,
  lin0.model.1.weight), or either behind "module." or "backbone.".

  Raises:
    DataError: lists all arrays that are missing, of another shape, not floating point, or not finite.
  """
  source = {_published_name(name): array for name, array in source.items()}
  problems = _problems(net, source)
  if problems:
    fits = [other for other in networks.NETS if not _problems(other, source)]
    hint = f' It is a file of {" or ".join(fits)}.' if fits else ''
    raise errors.DataError(f'not the weights of {net}: {"; ".join(problems)}.{hint}')

  def ours(parameter: networks.Parameter) -> np.ndarray:
    array = source[parameter.source].astype(np.float32)
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return np.ascontiguousarray(array).reshape(parameter.shape)

  return {parameter.name: ours(parameter) for parameter in networks.parameters(net)}


def installed_heads(net: str) -> pathlib.Path | None:
  """LPIPS's own file of its heads `net`, where the package lpips is installed; it is not imported."""
  spec = importlib.util.find_spec('lpips') if net in networks.HEADS else None
  if spec is None or not spec.submodule_search_locations:
    return None
  path = pathlib.Path(spec.submodule_search_locations[0]) / 'weights' / 'v0.1' / ORIGINS[net][0]
  return path if path.is_file() else None


def _check_net(net: str) -> None:
  if net not in networks.NETS:
    raise errors.ConfigError(f'Unknown feature network {net!r}; choose from {", ".join(networks.NETS)}.')


def _missing(net: str, path: pathlib.Path, needed_by: str, setting: str, instead: str) -> str:
  name, where = ORIGINS[net]
  kind = 'LPIPS v0.1 heads' if net in networks.HEADS else 'ImageNet weights'
  return ' '.join(
    [
      f'{needed_by or "This"} needs the {kind} {net}, which are not in {path}',
      f'(another folder: {f"{setting} or " if setting else ""}${ENVIRONMENT}).',
      f'Get {name}: {where}. Then run python -m vqm_jax.perceptual.convert --net={net} --input={name} --output={path}',
      *([f'or do without: {instead}.'] if instead else []),
    ]
  )


def _published_name(name: str) -> str | None:
  """'module.net.slice2.3.weight' -> 'features.3.weight'; None where no network of ours has such a name."""
  name = re.sub(r'^((module|backbone)\.)+', '', name)
  name = re.sub(r'^net\.slice\d+\.', 'features.', name)
  return name if re.match(r'features\.|lin\d', name) else None


def _problems(net: str, source: Mapping[str | None, np.ndarray]) -> list[str]:
  found = []
  for _, _, name, shape in networks.parameters(net):
    if name not in source:
      found.append(f'{name} is missing')
    elif source[name].shape != shape:
      found.append(f'{name} has shape {source[name].shape}, not {shape}')
    elif not jnp.issubdtype(source[name].dtype, jnp.floating):
      found.append(f'{name} is {source[name].dtype}, not floating point')
    elif not np.isfinite(source[name].astype(np.float32)).all():
      found.append(f'{name} is not finite')
  return found


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
  digest = hashlib.sha256()
  for name in sorted(arrays):
    digest.update(f'{name} {arrays[name].dtype.str} '.encode())
    digest.update(np.ascontiguousarray(arrays[name]))
  return digest.hexdigest()


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  with files.replacing(path) as partial, partial.open('wb') as file:
    np.savez(file, **arrays)
