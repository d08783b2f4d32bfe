"""The feature networks and LPIPS in PyTorch, layer by layer as torchvision and the package lpips build them.

network = Trunk('vgg16')              # its features have torchvision's names, its input is normalised RGB
network.load_state_dict({'features.0.weight': ...})
distance = LPIPS('vgg16', heads)      # of images (B, 3, H, W) in [-1, 1]
"""

import torch
from torch import nn


class Fire(nn.Module):
  def __init__(self, cin, squeeze, expand):
    super().__init__()
    self.squeeze = nn.Conv2d(cin, squeeze, 1)
    self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
    self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

  def forward(self, x):
    x = torch.relu(self.squeeze(x))
    return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], dim=1)


def _conv(cin, cout, size, **how):
  return nn.Conv2d(cin, cout, size, **how), nn.ReLU()


def _squeeze_pool():
  return nn.MaxPool2d(3, 2, ceil_mode=True)


def _alexnet():
  first = [*_conv(3, 64, 11, stride=4, padding=2), nn.MaxPool2d(3, 2)]
  second = [*_conv(64, 192, 5, padding=2), nn.MaxPool2d(3, 2)]
  return [*first, *second, *(layer for c in ((192, 384), (384, 256), (256, 256)) for layer in _conv(*c, 3, padding=1))]


def _vgg16():
  layers, cin = [], 3
  for width in (64, 64, 'pool', 128, 128, 'pool', 256, 256, 256, 'pool', 512, 512, 512, 'pool', 512, 512, 512):
    if width == 'pool':
      layers.append(nn.MaxPool2d(2, 2))
    else:
      layers += _conv(cin, width, 3, padding=1)
      cin = width
  return layers


def _squeezenet():
  first = [*_conv(3, 64, 3, stride=2), _squeeze_pool()]
  second = [Fire(64, 16, 64), Fire(128, 16, 64), _squeeze_pool()]
  third = [Fire(128, 32, 128), Fire(256, 32, 128), _squeeze_pool()]
  return [*first, *second, *third, Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]


_LAYERS = {'alexnet': _alexnet, 'vgg16': _vgg16, 'squeezenet': _squeezenet}

# The modules of `features` whose outputs LPIPS compares.
TAPS = {
  'alexnet': (1, 4, 7, 9, 11),
  'vgg16': (3, 8, 15, 22, 29),
  'squeezenet': (1, 4, 7, 9, 10, 11, 12),
}


class Trunk(nn.Module):
  """Normalised images (B, 3, H, W) -> features at TAPS."""

  def __init__(self, net):
    super().__init__()
    self.features, self.taps = nn.Sequential(*_LAYERS[net]()), TAPS[net]

  def forward(self, x):
    found = []
    for index, layer in enumerate(self.features[: self.taps[-1] + 1]):
      x = layer(x)
      if index in self.taps:
        found.append(x)
    return found


def normalised(images):
  """RGB (B, 3, H, W) in [0, 1] -> what ImageNet networks take."""
  mean, std = (
    torch.tensor(v, dtype=images.dtype).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
  )
  return (images - mean) / std


class LPIPS(nn.Module):
  """Images (B, 3, H, W) in [-1, 1] -> distances (B,); heads: arrays (1, C, 1, 1) for each tap."""

  def __init__(self, net, heads):
    super().__init__()
    self.trunk, self.heads = Trunk(net), heads

  def forward(self, a, b):
    shift, scale = (
      torch.tensor(v, dtype=a.dtype).reshape(3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
    )
    total = 0
    for x, y, head in zip(self.trunk((a - shift) / scale), self.trunk((b - shift) / scale), self.heads, strict=True):
      x, y = (f / (f.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for f in (x, y))
      total = total + (head * (x - y) ** 2).sum(dim=1).mean(dim=(1, 2))
    return total
