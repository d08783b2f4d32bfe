"""Converts published weights of feature networks to the npz files that LPIPS and WESPE's content loss read.

  python -m vqm_jax.perceptual.convert --net=vgg19 --input=vgg19-dcbb9e9d.pth
  python -m vqm_jax.perceptual.convert --net=lpips-alex --input=alex.pth --output=weights/lpips-alex.npz

  --net                                    --input
  vgg19, vgg16, alexnet, squeezenet        torchvision's ImageNet weights: vgg19-dcbb9e9d.pth, vgg16-397923af.pth,
                                           alexnet-owt-7be5be79.pth, squeezenet1_1-b8a52dc0.pth
  lpips-alex, lpips-vgg, lpips-squeeze     LPIPS v0.1 heads; alex.pth, vgg.pth, squeeze.pth of the package lpips,
                                           found without --input where it is installed

WESPE needs vgg19. LPIPS needs a network and its heads: alexnet and lpips-alex, vgg16 and lpips-vgg, squeezenet and
lpips-squeeze. Files may be .pth of any age, safetensors or npz. PyTorch is not needed, and code hidden in a .pth file
is refused, not run.
"""

import pathlib

from absl import flags

from vqm_jax import cli, errors
from vqm_jax.perceptual import networks, weights

_NET = flags.DEFINE_enum('net', None, networks.NETS, 'Whose weights they are.')
_INPUT = flags.DEFINE_string('input', None, 'The published file.')
_OUTPUT = flags.DEFINE_string(
  'output', None, f'The npz file; by default NET.npz in ${weights.ENVIRONMENT} or ~/.cache/vqm_jax/perceptual.'
)
_CHECK_HASH = flags.DEFINE_bool('check_hash', True, 'Refuse NAME-XXXXXXXX.pth whose SHA-256 is another; else warn.')


def main(argv: list[str]) -> None:
  del argv
  if not _NET.value:
    raise errors.ConfigError(f'--net is missing; choose from {", ".join(networks.NETS)}')
  source = _INPUT.value or weights.installed_heads(_NET.value)
  if not source:
    raise errors.ConfigError(f'--input is missing; name the file, usually {weights.ORIGINS[_NET.value][0]}')
  output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else weights.path_of(_NET.value)
  if output.suffix != '.npz':
    raise errors.ConfigError(f'--output: expected a file that ends in .npz, found {output}')
  meta = weights.convert(_NET.value, pathlib.Path(source), output, _CHECK_HASH.value)
  print(f'{output}: {meta["net"]} from {source}, SHA-256 {meta["sha256"][:16]}')


if __name__ == '__main__':
  cli.run(main)
