"""The multi-frame branch of TCL in PyTorch: what `vqm_jax.restorers.tcl.TCLEDVR` computes, to compare with.

network = TorchEDVR(width=64, num_front=5, num_blocks=10)
network.load(params)          # nnx.to_pure_dict(nnx.state(ours)), numpy or JAX arrays
restored = network(clip)      # (B, T, 3, H, W) -> (B, 3, H, W)

Every layer has the name it has in ours, so that `load` needs no table. Deformable convolutions read with grid_sample,
the fastest way that plain PyTorch has.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def _conv(cin, cout, size=3, stride=1):
  return nn.Conv2d(cin, cout, size, stride, padding=size // 2)


def _lrelu(x):
  return functional.leaky_relu(x, 0.1)


def _up2(x):
  return functional.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


def _pooled(x):
  return torch.cat([functional.max_pool2d(x, 3, 2, 1), functional.avg_pool2d(x, 3, 2, 1)], dim=1)


class ResidualBlock(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.conv1, self.conv2 = _conv(width, width), _conv(width, width)

  def forward(self, x):
    return x + self.conv2(functional.relu(self.conv1(x)))


class Front(nn.Module):
  def __init__(self, width, num_blocks):
    super().__init__()
    self.stem = nn.ModuleList([_conv(3, width), _conv(width, width, stride=2), _conv(width, width, stride=2)])
    self.blocks = nn.ModuleList([ResidualBlock(width) for _ in range(num_blocks)])
    self.down = nn.ModuleList([nn.ModuleList([_conv(width, width, stride=2), _conv(width, width)]) for _ in range(2)])

  def forward(self, x):
    for layer in self.stem:
      x = _lrelu(layer(x))
    for block in self.blocks:
      x = block(x)
    pyramid = [x]
    for strided, layer in self.down:
      pyramid.append(_lrelu(layer(_lrelu(strided(pyramid[-1])))))
    return pyramid


class DeformConv(nn.Module):
  """3x3 taps, each read at its own place: offsets (dy, dx) and mask of every group and tap come from the guide."""

  def __init__(self, width, groups):
    super().__init__()
    self.groups = groups
    self.guide = _conv(width, 27 * groups)
    self.weight = nn.Parameter(torch.zeros(width, width, 3, 3))
    self.bias = nn.Parameter(torch.zeros(width))

  def forward(self, x, guide):
    b, c, h, w = x.shape
    images = x.reshape(b * self.groups, c // self.groups, h, w)
    raw = self.guide(guide)
    offset = raw[:, : 18 * self.groups].reshape(b * self.groups, 9, 2, h, w)
    mask = torch.sigmoid(raw[:, 18 * self.groups :]).reshape(b * self.groups, 9, 1, h, w)
    y = torch.arange(h, dtype=x.dtype, device=x.device)[:, None]
    x = torch.arange(w, dtype=x.dtype, device=x.device)
    columns = []
    for k in range(9):
      # grid_sample counts the outer edges of the image from -1 to 1.
      py = (2 * (y + k // 3 - 1 + offset[:, k, 0]) + 1) / h - 1
      px = (2 * (x + k % 3 - 1 + offset[:, k, 1]) + 1) / w - 1
      grid = torch.stack([px, py], dim=-1)
      read = functional.grid_sample(images, grid, padding_mode='zeros', align_corners=False)
      columns.append((read * mask[:, k]).reshape(b, c, h * w))
    kernel = self.weight.permute(0, 2, 3, 1).reshape(-1, 9 * c)
    return (kernel @ torch.cat(columns, dim=1) + self.bias[:, None]).reshape(b, -1, h, w)


class PCDLevel(nn.Module):
  def __init__(self, width, groups, coarsest):
    super().__init__()
    self.offset1, self.offset2 = _conv(2 * width, width), _conv(width, width)
    self.warp = DeformConv(width, groups)
    if not coarsest:
      self.offset_merge, self.merge = _conv(2 * width, width), _conv(2 * width, width)

  def forward(self, neighbour, reference, coarser):
    offset = _lrelu(self.offset1(torch.cat([neighbour, reference], dim=1)))
    if coarser is None:
      offset = _lrelu(self.offset2(offset))
      return offset, self.warp(neighbour, offset)
    offset = _lrelu(self.offset_merge(torch.cat([offset, 2 * _up2(coarser[0])], dim=1)))
    offset = _lrelu(self.offset2(offset))
    return offset, self.merge(torch.cat([self.warp(neighbour, offset), _up2(coarser[1])], dim=1))


class PCD(nn.Module):
  def __init__(self, width, groups):
    super().__init__()
    self.levels = nn.ModuleList([PCDLevel(width, groups, coarsest=k == 2) for k in range(3)])
    self.cascade1, self.cascade2 = _conv(2 * width, width), _conv(width, width)
    self.cascade_warp = DeformConv(width, groups)

  def forward(self, pyramid, t):
    references = []
    for x in pyramid:  # (B * T, C, h, w)
      centre = x.reshape(-1, t, *x.shape[1:])[:, t // 2]
      references.append(centre.repeat_interleave(t, dim=0))
    found = None
    for k in (2, 1, 0):
      offset, aligned = self.levels[k](pyramid[k], references[k], found)
      found = offset, _lrelu(aligned) if k else aligned
    offset = _lrelu(self.cascade1(torch.cat([found[1], references[0]], dim=1)))
    return _lrelu(self.cascade_warp(found[1], _lrelu(self.cascade2(offset))))


class TSA(nn.Module):
  def __init__(self, width, num_frames):
    super().__init__()
    both = num_frames * width
    self.embed_centre, self.embed = _conv(width, width), _conv(width, width)
    self.fuse, self.spatial0 = _conv(both, width, 1), _conv(both, width, 1)
    self.spatial1 = _conv(2 * width, width, 1)
    self.spatial2_reduce = _conv(width, width, 1)
    self.spatial2_merge, self.spatial2_last = _conv(2 * width, width), _conv(width, width)
    self.up1 = _conv(width, width)
    self.up0_mix, self.up0_last = _conv(width, width, 1), _conv(width, width)
    self.add1, self.add2 = _conv(width, width, 1), _conv(width, width, 1)

  def forward(self, aligned, t):
    frames = aligned.reshape(-1, t, *aligned.shape[1:])
    centre = self.embed_centre(frames[:, t // 2])
    alike = (self.embed(aligned).reshape(frames.shape) * centre[:, None]).sum(dim=2, keepdim=True)
    weighted = (frames * torch.sigmoid(alike)).flatten(1, 2)
    fused = _lrelu(self.fuse(weighted))
    s0 = _lrelu(self.spatial0(weighted))
    s1 = _lrelu(self.spatial1(_pooled(s0)))
    s2 = _lrelu(self.spatial2_merge(_pooled(_lrelu(self.spatial2_reduce(s1)))))
    s2 = _lrelu(self.spatial2_last(s2))
    s1 = _lrelu(self.up1(s1)) + _up2(s2)
    s0 = self.up0_last(_up2(_lrelu(self.up0_mix(s1))))
    return fused * 2 * torch.sigmoid(s0) + self.add2(_lrelu(self.add1(s0)))


class Tail(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.up = nn.ModuleList([_conv(width, 4 * width), _conv(width, 256)])
    self.conv, self.last = _conv(64, 64), _conv(64, 3)

  def forward(self, x):
    for layer in self.up:
      x = _lrelu(functional.pixel_shuffle(layer(x), 2))
    return self.last(_lrelu(self.conv(x)))


class TorchEDVR(nn.Module):
  """Clip (B, num_frames, 3, H, W) -> restored centre frame (B, 3, H, W); the arguments of `TCLEDVR`."""

  def __init__(self, width=64, num_frames=5, num_front=5, num_blocks=20, groups=8, input_mean=0.5):
    super().__init__()
    self.num_frames = num_frames
    self.input_mean = input_mean
    self.front = Front(width, num_front)
    self.align = PCD(width, groups)
    self.fusion = TSA(width, num_frames)
    self.blocks = nn.ModuleList([ResidualBlock(width) for _ in range(num_blocks)])
    self.tail = Tail(width)

  def load(self, params):
    """Takes the parameters of `TCLEDVR`, a pure dict of arrays, converted to the dtype of this network."""
    self.load_state_dict({torch_name(name): torch_value(value) for name, value in flatten(params).items()})

  def encode(self, frames):
    """Frames (B, 3, H, W) -> features at 1/4, 1/8, 1/16."""
    return self.front(frames - self.input_mean)

  def restore(self, centre, pyramid):
    """Centre frame (B, 3, H, W), features (B * num_frames, C, h, w), frames of a window in a row -> restored."""
    x = self.fusion(self.align(pyramid, self.num_frames), self.num_frames)
    for block in self.blocks:
      x = block(x)
    return centre + self.tail(x)

  def forward(self, clip):
    frames = clip.flatten(0, 1)
    if clip[0].is_contiguous(memory_format=torch.channels_last):
      frames = frames.contiguous(memory_format=torch.channels_last)
    return self.restore(clip[:, self.num_frames // 2], self.encode(frames))


def flatten(params, prefix=''):
  """{'front': {'stem': {0: {'kernel': x}}}} -> {'front/stem/0/kernel': x}."""
  flat = {}
  for name, value in params.items():
    flat |= flatten(value, f'{prefix}{name}/') if isinstance(value, dict) else {f'{prefix}{name}': value}
  return flat


def our_name(name):
  """'front.stem.0.weight' -> 'front/stem/0/kernel'."""
  return name.replace('.', '/').replace('weight', 'kernel')


def torch_name(name):
  """The inverse of `our_name`."""
  return name.replace('/', '.').replace('kernel', 'weight')


def our_value(tensor):
  """A parameter or its gradient as an array: kernels OIHW -> HWIO."""
  value = tensor.detach().numpy()
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def torch_value(value):
  """The inverse of `our_value`."""
  value = np.array(value)  # a copy: PyTorch shares the memory of numpy arrays
  return torch.from_numpy(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)
