"""The command that converts published weights."""

import pathlib

from vqm_jax import perceptual

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'
HEADS = GOLDEN / 'lpips_alex_legacy.pth'


def test_the_binary_converts_and_explains(binary, tmp_path):
  output = tmp_path / 'new' / 'lpips-alex.npz'
  runs = {
    'good': ['--net=lpips-alex', f'--input={HEADS}', f'--output={output}'],
    'foreign': ['--net=lpips-vgg', f'--input={HEADS}', f'--output={tmp_path}/x.npz'],
  }
  started = {name: binary('perceptual.convert', *args, blocked=['torch']) for name, args in runs.items()}
  said = {name: (process.communicate(timeout=60)[0].strip(), process.returncode) for name, process in started.items()}
  assert said['good'] == (f'{output}: lpips-alex from {HEADS}, SHA-256 {said["good"][0][-16:]}', 0)
  assert perceptual.load('lpips-alex', output.parent).sha256.startswith(said['good'][0][-16:])
  assert said['foreign'][1] == 1
  assert said['foreign'][0].startswith(f'error: {HEADS}: not the weights of lpips-vgg: lin1.model.1.weight has shape')
