"""AlexNet, VGG and SqueezeNet 1.1 up to their last convolution: frozen networks whose features are compared.

Layers, sizes and paddings are torchvision's, so that its ImageNet weights fit. A layer's features are those after its
ReLU, called relu3_1 after conv3_1 and, in SqueezeNet, by the name of the module, fire3. The layers that LPIPS compares
(`TAPS`) come from the package lpips 0.1.4; WESPE's content loss takes relu5_4 of VGG-19.

The weights are data, not parameters: `features` differentiates with respect to the images only.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vqm_jax import errors

# ImageNet's statistics. LPIPS writes the same numbers for images in [-1, 1]: shift 2 m - 1, scale 2 s.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Parameter(NamedTuple):
  """One array: what we call it, and where the published file has it (convolutions OIHW there, HWIO here)."""

  name: str
  shape: tuple[int, ...]
  source: str
  source_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Conv:
  """Convolution and ReLU: (B, H, W, cin) -> (B, H', W', cout)."""

  name: str
  source: str
  cin: int
  cout: int
  size: int = 3
  stride: int = 1
  padding: int = 1

  @property
  def tap(self) -> str:
    """The name of its output among the features of the network."""
    return self.name.replace('conv', 'relu')

  @property
  def parameters(self) -> list[Parameter]:
    """Its kernel and bias."""
    size, cin, cout = self.size, self.cin, self.cout
    return [
      Parameter(f'{self.name}/kernel', (size, size, cin, cout), f'{self.source}.weight', (cout, cin, size, size)),
      Parameter(f'{self.name}/bias', (cout,), f'{self.source}.bias', (cout,)),
    ]

  def extent(self, n: int) -> int:
    """Return the height of the output for an input of height `n`; the same of the width."""
    return (n + 2 * self.padding - self.size) // self.stride + 1

  def __call__(self, x: jax.Array, arrays: dict[str, jax.Array], precision: jax.lax.Precision | None) -> jax.Array:
    x = jax.lax.conv_general_dilated(
      x,
      arrays[f'{self.name}/kernel'],
      (self.stride, self.stride),
      [(self.padding, self.padding)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=precision,
    )
    return jax.nn.relu(x + arrays[f'{self.name}/bias'])


@dataclasses.dataclass(frozen=True)
class Fire:
  """SqueezeNet's module: few channels, from which 1x1 and 3x3 convolutions make `2 * expand`."""

  name: str
  source: str
  cin: int
  squeeze: int
  expand: int

  @property
  def tap(self) -> str:
    """The name of its output among the features of the network."""
    return self.name

  @property
  def convs(self) -> list[Conv]:
    """Its three convolutions: that to few channels, and the two from these."""

    def conv(part, cin, cout, size):
      return Conv(f'{self.name}/{part}', f'{self.source}.{part}', cin, cout, size, padding=size // 2)

    return [
      conv('squeeze', self.cin, self.squeeze, 1),
      conv('expand1x1', self.squeeze, self.expand, 1),
      conv('expand3x3', self.squeeze, self.expand, 3),
    ]

  @property
  def parameters(self) -> list[Parameter]:
    """Those of its convolutions."""
    return [parameter for conv in self.convs for parameter in conv.parameters]

  def extent(self, n: int) -> int:
    """Return the height of the output for an input of height `n`: the same."""
    return n

  def __call__(self, x: jax.Array, arrays: dict[str, jax.Array], precision: jax.lax.Precision | None) -> jax.Array:
    squeeze, *expand = self.convs
    x = squeeze(x, arrays, precision)
    return jnp.concatenate([conv(x, arrays, precision) for conv in expand], axis=-1)


@dataclasses.dataclass(frozen=True)
class Pool:
  """Maximum of `size` x `size` with stride 2; with `ceil` the last window may reach over the edge of the image."""

  size: int
  ceil: bool = False

  tap = None
  parameters = ()

  def extent(self, n: int) -> int:
    """Return the height of the output for an input of height `n`; the same of the width."""
    return (n - self.size + self.ceil) // 2 + 1

  def __call__(self, x: jax.Array, arrays: dict[str, jax.Array], precision: jax.lax.Precision | None) -> jax.Array:
    del arrays, precision
    # Strided slices: on CPUs `reduce_window` and above all its gradient take several times as long.
    for axis in (1, 2):
      last = 2 * self.extent(x.shape[axis]) - 1
      beyond = [(0, max(0, last - 1 + self.size - x.shape[k])) if k == axis else (0, 0) for k in range(4)]
      padded = jnp.pad(x, beyond, constant_values=-jnp.inf)
      shifted = [jax.lax.slice_in_dim(padded, k, k + last, stride=2, axis=axis) for k in range(self.size)]
      x = functools.reduce(jnp.maximum, shifted)
    return x


def _vgg(*convs_per_block: int) -> tuple[Conv | Pool, ...]:
  layers, cin = [], 3
  index = itertools.count()  # torchvision counts every convolution, ReLU and pool
  for block, (count, cout) in enumerate(zip(convs_per_block, (64, 128, 256, 512, 512), strict=True), start=1):
    for k in range(1, count + 1):
      layers.append(Conv(f'conv{block}_{k}', f'features.{next(index)}', cin, cout))
      cin = cout
      next(index)
    layers.append(Pool(2))
    next(index)
  return tuple(layers[:-1])


NETWORKS: dict[str, tuple[Conv | Fire | Pool, ...]] = {
  'alexnet': (
    Conv('conv1', 'features.0', 3, 64, size=11, stride=4, padding=2),
    Pool(3),
    Conv('conv2', 'features.3', 64, 192, size=5, padding=2),
    Pool(3),
    Conv('conv3', 'features.6', 192, 384),
    Conv('conv4', 'features.8', 384, 256),
    Conv('conv5', 'features.10', 256, 256),
  ),
  'vgg16': _vgg(2, 2, 3, 3, 3),
  'vgg19': _vgg(2, 2, 4, 4, 4),
  'squeezenet': (
    Conv('conv1', 'features.0', 3, 64, stride=2, padding=0),
    Pool(3, ceil=True),
    Fire('fire2', 'features.3', 64, 16, 64),
    Fire('fire3', 'features.4', 128, 16, 64),
    Pool(3, ceil=True),
    Fire('fire4', 'features.6', 128, 32, 128),
    Fire('fire5', 'features.7', 256, 32, 128),
    Pool(3, ceil=True),
    Fire('fire6', 'features.9', 256, 48, 192),
    Fire('fire7', 'features.10', 384, 48, 192),
    Fire('fire8', 'features.11', 384, 64, 256),
    Fire('fire9', 'features.12', 512, 64, 256),
  ),
}

# What LPIPS compares, and how many channels each tap has.
TAPS: dict[str, dict[str, int]] = {
  'alexnet': {'relu1': 64, 'relu2': 192, 'relu3': 384, 'relu4': 256, 'relu5': 256},
  'vgg16': {'relu1_2': 64, 'relu2_2': 128, 'relu3_3': 256, 'relu4_3': 512, 'relu5_3': 512},
  'squeezenet': {'relu1': 64, 'fire3': 128, 'fire5': 256, 'fire6': 384, 'fire7': 384, 'fire8': 512, 'fire9': 512},
}

# Linear heads of LPIPS, and the network whose taps they weigh.
HEADS = {'lpips-alex': 'alexnet', 'lpips-vgg': 'vgg16', 'lpips-squeeze': 'squeezenet'}

NETS = (*NETWORKS, *HEADS)


def parameters(net: str) -> list[Parameter]:
  """The arrays of one of `NETS`, in the order of its layers."""
  if net in HEADS:
    channels = TAPS[HEADS[net]].values()
    return [Parameter(f'lin{k}', (c,), f'lin{k}.model.1.weight', (1, c, 1, 1)) for k, c in enumerate(channels)]
  return [parameter for layer in NETWORKS[net] for parameter in layer.parameters]


@functools.partial(jax.tree_util.register_dataclass, data_fields=['arrays'], meta_fields=['net', 'sha256'])
@dataclasses.dataclass(frozen=True)
class Weights:
  """The arrays of one of `NETS`, a pytree; made by `perceptual.load`.

  Attributes:
    net: whose they are.
    arrays: float32 by the names of `parameters(net)`.
    sha256: of the published file they came from; None for random numbers, whose scores mean nothing.
  """

  net: str
  arrays: dict[str, jax.Array]
  sha256: str | None


def features(
  weights: Weights, images: jax.Array, taps: Sequence[str], *, precision: jax.lax.Precision | None = None
) -> list[jax.Array]:
  """Compute the answers of the layers named by `taps` to RGB images, no further than needed.

  Args:
    weights: of one of `NETWORKS`.
    images: float (B, H, W, 3) in [0, 1], not clipped; any size that leaves something at the last tap.
    taps: such as ('relu5_4',).
    precision: of the convolutions; JAX's default is TF32 or bfloat16 on accelerators.

  Returns:
    (B, h, w, channels) for each tap, of the dtype of `images`.

  Raises:
    ConfigError: the network has no such tap.
    DataError: `images` are not float (B, H, W, 3), or too small.
  """
  layers = _up_to(weights.net, tuple(taps))
  if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
    raise errors.DataError(f'Images must be float (B, H, W, 3) in [0, 1], found {images.dtype} {images.shape}.')
  height, width = images.shape[1:3]
  if not _fits(layers, min(height, width)):
    least = next(n for n in itertools.count(1) if _fits(layers, n))
    raise errors.DataError(f'{weights.net} needs images of at least {least} pixels a side, found {height}x{width}.')
  arrays = {name: jax.lax.stop_gradient(array).astype(images.dtype) for name, array in weights.arrays.items()}
  x = (images - jnp.array(_MEAN, images.dtype)) / jnp.array(_STD, images.dtype)
  found = {}
  for layer in layers:
    x = layer(x, arrays, precision)
    found[layer.tap] = x
  return [found[tap] for tap in taps]


def _up_to(net: str, taps: tuple[str, ...]) -> tuple[Conv | Fire | Pool, ...]:
  """The layers of `net` as far as the last of `taps`."""
  names = [layer.tap for layer in NETWORKS[net]]
  for tap in taps:
    if tap not in names:
      raise errors.ConfigError(f'{net} has no features {tap!r}; choose from {", ".join(filter(None, names))}.')
  return NETWORKS[net][: 1 + max(map(names.index, taps))]


def _fits(layers: tuple[Conv | Fire | Pool, ...], n: int) -> bool:
  """Whether an image of `n` pixels a side leaves something after every layer."""
  return all((n := layer.extent(n)) > 0 for layer in layers)
