"""The command that converts published weights."""

import pathlib

from vqm_jax import perceptual

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'
HEADS = GOLDEN / 'lpips_alex_legacy.pth'


def test_the_binary_converts_and_explains(binary, command, tmp_path):
  output = tmp_path / 'new' / 'lpips-alex.npz'
  process = binary(
    'perceptual.convert', '--net=lpips-alex', f'--input={HEADS}', f'--output={output}', blocked=['torch']
  )
  said = process.communicate(timeout=60)[0].strip()
  assert (said, process.returncode) == (f'{output}: lpips-alex from {HEADS}, SHA-256 {said[-16:]}', 0)
  assert perceptual.load('lpips-alex', output.parent).sha256.startswith(said[-16:])
  foreign = command('perceptual.convert', '--net=lpips-vgg', f'--input={HEADS}', f'--output={tmp_path}/x.npz')
  assert foreign.returncode == 1
  assert foreign.output.strip().startswith(
    f'error: {HEADS}: not the weights of lpips-vgg: lin1.model.1.weight has shape'
  )
