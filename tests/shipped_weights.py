"""A folder of weights that ship, for tests: small networks, entered as maintainers enter theirs."""

import functools
import pathlib

import networks
import pytest

from vqm_jax import restorers
from vqm_jax.inference import exporting, shipped

UNET, ECNU = dict(width=4, depth=2), dict(width=4, mapping_width=4, num_blocks=1)
TRAINED_ON = {'crf': [16, 42], 'qp': [14, 46]}


def empty(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> pathlib.Path:
  """Has `shipped` look into a checkout in `folder` whose index lists nothing; returns the folder of the weights."""
  weights = folder / 'vqm_jax' / 'weights'
  weights.mkdir(parents=True)
  (weights / 'index.json').write_text('{"schema_version": 1, "weights": {}}')
  (folder / 'docs').mkdir()
  (folder / 'docs' / 'card.md').write_text('# A card\n')
  monkeypatch.setattr(shipped, 'FOLDER', weights)
  return weights


def add(name: str, system: str = 'tcl_unet', args: dict | None = None, seed: int = 0, **more) -> shipped.Entry:
  """Enters random weights of a small network."""
  args = args or (UNET if system == 'tcl_unet' else ECNU)
  network = networks.random(functools.partial(restorers.create, system, **args), seed)
  path = shipped.FOLDER / 'exported'
  exporting.save_safetensors(network, path, system=system, system_args=args, dtype='float16')
  options = dict(device='cpu', description='a small one', trained_on=TRAINED_ON, licence='Apache-2.0')
  try:
    return shipped.add(name, path, **(options | {'model_card': 'docs/card.md'} | more))
  finally:
    path.unlink()
