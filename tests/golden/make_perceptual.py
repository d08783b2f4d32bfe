"""Makes perceptual.npz and lpips_alex_*.pth, for tests/perceptual and tests/metrics/test_lpips.py.

python tests/golden/make_perceptual.py      # needs PyTorch, torchvision and lpips 0.1.4

The distances that the package lpips finds for two pairs of images, and relu5_4 of torchvision's VGG-19 with the
gradient of its mean square, all in float64. Weights are random and not stored: `random_source` makes them again. The
.pth files are heads of that kind as torch.save writes them, in its two formats.
"""

import pathlib
import re
import sys

import lpips
import numpy as np
import torch
import torchvision

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from vqm_jax.perceptual.weights import random_source  # noqa: E402

TRUNKS = {'alex': 'alexnet', 'vgg': 'vgg16', 'squeeze': 'squeezenet'}
SIZES = {'small': (40, 53), 'odd': (67, 49)}


def tensors(net):
  return {name: torch.from_numpy(array).double() for name, array in random_source(net).items()}


def nchw(images):
  return torch.from_numpy(images).permute(0, 3, 1, 2).double()


def distances(net, a, b):
  """The package's, with our random weights in the place of its own."""
  module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).double()
  values = tensors(TRUNKS[net]) | tensors(f'lpips-{net}')
  module.load_state_dict(
    {
      name: values.get(re.sub(r'^net\.slice\d+', 'features', re.sub(r'^lins\.', 'lin', name)), stored)
      for name, stored in module.state_dict().items()
    }
  )
  with torch.no_grad():
    return module(nchw(a) / 127.5 - 1, nchw(b) / 127.5 - 1).flatten().numpy()


def content(images):
  """relu5_4 of images in [0, 1], NHWC, and the gradient of its mean square."""
  network = torchvision.models.vgg19(weights=None).features[:36].double()
  network.load_state_dict({name.removeprefix('features.'): value for name, value in tensors('vgg19').items()})
  x = (nchw(images) / 255).requires_grad_()
  normalised = torchvision.transforms.functional.normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
  out = network(normalised)
  (gradient,) = torch.autograd.grad(out.square().mean(), x)
  return [v.detach().permute(0, 2, 3, 1).numpy().astype(np.float32) for v in (out, gradient)]


def main():
  rng = np.random.default_rng(0)
  arrays = {}
  for size, shape in SIZES.items():
    a = rng.integers(0, 256, (1, *shape, 3))
    b = (a + rng.integers(-40, 41, a.shape)).clip(0, 255)
    arrays |= {f'{size}/a': a.astype(np.uint8), f'{size}/b': b.astype(np.uint8)}
    arrays |= {f'{size}/{net}': distances(net, a, b) for net in TRUNKS}
  arrays['relu5_4'], arrays['gradient'] = content(arrays['small/a'][:, :33, :37])
  np.savez_compressed(HERE / 'perceptual.npz', **arrays)
  heads = {name: torch.from_numpy(array) for name, array in random_source('lpips-alex').items()}
  torch.save(heads, HERE / 'lpips_alex_zip.pth')
  torch.save(heads, HERE / 'lpips_alex_legacy.pth', _use_new_zipfile_serialization=False)
  print({name: array for name, array in arrays.items() if array.shape == (1,)})


if __name__ == '__main__':
  main()
