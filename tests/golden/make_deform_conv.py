"""Makes deform_conv.npz, what tests/layers/test_deform_conv.py compares with. Needs PyTorch:

python tests/golden/make_deform_conv.py

Inputs, values and gradients of three small cases, computed in float64 with PyTorch's grid_sample and its own
differentiation: nothing of ours but the form in benchmarks/deform_conv.py, which is all PyTorch.
"""

import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent.parent / 'benchmarks')]

from deform_conv import grid_sample_form  # noqa: E402

# x (N, H, W, C), groups, kernel, channels of the output, stride, dilation, size of offsets in pixels
CASES = {
  'plain': ((2, 6, 7, 8), 4, (3, 3), 5, 1, 1, 2.0),
  'strided': ((1, 9, 8, 6), 2, (3, 3), 4, 2, 1, 8.0),
  'dilated': ((1, 7, 5, 4), 1, (5, 3), 3, 1, 2, 0.3),
}


def make(rng, x_shape, groups, size, cout, stride, dilation, scale):
  n, h, w, c = x_shape
  places = (n, -(-h // stride), -(-w // stride))
  taps = size[0] * size[1]
  inputs = {
    'x': rng.normal(size=x_shape),
    'offset': scale * rng.normal(size=(*places, groups, taps, 2)),
    'mask': rng.random((*places, groups, taps)),
    'kernel': rng.normal(size=(*size, c, cout)),
    'bias': rng.normal(size=cout),
  }
  inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
  gradient = rng.normal(size=(*places, cout)).astype(np.float32)
  tensors = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in inputs.values()]
  out = grid_sample_form(*tensors, stride, dilation)
  grads = torch.autograd.grad(out, tensors, torch.tensor(gradient, dtype=torch.float64))
  results = {'out': out.detach()} | {f'd{name}': grad for name, grad in zip(inputs, grads, strict=True)}
  results = {name: value.numpy().astype(np.float32) for name, value in results.items()}
  return inputs | results | {'gradient': gradient, 'stride_dilation': np.array([stride, dilation])}


def main():
  rng = np.random.default_rng(0)
  cases = {case: make(rng, *how) for case, how in CASES.items()}
  np.savez_compressed(
    HERE / 'deform_conv.npz', **{f'{case}/{name}': v for case, values in cases.items() for name, v in values.items()}
  )


if __name__ == '__main__':
  main()
