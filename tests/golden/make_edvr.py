"""Makes edvr.npz, what tests/restorers/test_golden_edvr.py compares with. Needs PyTorch:

python tests/golden/make_edvr.py

Parameters, a clip, the output and gradients of the mean squared output of a tiny network, computed in float64 with
torch_edvr.py: nothing of ours. Parameters are numbers that float16 holds, which halves the file.
"""

import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import torch_edvr  # noqa: E402

ARGS = dict(width=8, num_frames=5, num_front=1, num_blocks=1, groups=2)
GRADIENTS = (
  'front/stem/0/kernel',
  'align/levels/0/warp/guide/kernel',
  'align/levels/2/warp/guide/kernel',
  'align/levels/1/warp/kernel',
  'align/cascade_warp/kernel',
  'fusion/embed_centre/kernel',
  'fusion/spatial0/kernel',
  'tail/last/kernel',
)


def draw(rng, name, shape):
  """A parameter of a size that keeps features near one; guides make offsets of about a pixel."""
  scale = np.prod(shape[:-1]) ** -0.5 if len(shape) == 4 else 0.1
  return (rng.normal(size=shape) * (16 if name.endswith('guide/kernel') else 1) * scale).astype(np.float16)


def main():
  rng = np.random.default_rng(0)
  network = torch_edvr.TorchEDVR(**ARGS, input_mean=0.0).double()
  weights = {torch_edvr.our_name(name): weight for name, weight in network.named_parameters()}
  params = {name: draw(rng, name, torch_edvr.our_value(weight).shape) for name, weight in weights.items()}
  clip = rng.integers(0, 256, (1, ARGS['num_frames'], 16, 32, 3), np.uint8)
  network.load(params)
  sizes = []
  for module in network.modules():
    if isinstance(module, torch_edvr.DeformConv):
      module.guide.register_forward_hook(lambda m, _, raw: sizes.append(raw[:, : 2 * raw.shape[1] // 3].abs().mean()))
  out = network(torch.from_numpy(clip).double().permute(0, 1, 4, 2, 3) / 255)
  grads = torch.autograd.grad(out.square().mean(), [weights[name] for name in GRADIENTS])
  print('mean offsets in pixels:', *(f'{size:.2f}' for size in sizes))
  np.savez_compressed(
    HERE / 'edvr.npz',
    clip=clip,
    out=out.detach().permute(0, 2, 3, 1).numpy().astype(np.float32),
    **{f'args/{name}': value for name, value in ARGS.items()},
    **{f'params/{name}': value for name, value in params.items()},
    **{
      f'gradients/{name}': torch_edvr.our_value(grad).astype(np.float32)
      for name, grad in zip(GRADIENTS, grads, strict=True)
    },
  )


if __name__ == '__main__':
  main()
