"""Restoring a clip by definition, without streaming, to compare with."""

import networks
import numpy as np

from vqm_jax.inference import reflect_index


def whole(network, frames):
  """Restored frames: every window gathered from the whole clip in memory, padded, run, cropped, rounded."""
  n, radius = len(frames), network.num_frames // 2
  out = []
  for t in range(n):
    window = np.stack([frames[reflect_index(i, n)] for i in range(t - radius, t + radius + 1)])
    window = window.astype(np.float32)[None] / 255
    h, w = window.shape[2:4]
    m = network.size_multiple
    padded = np.pad(window, ((0, 0), (0, 0), (0, -h % m), (0, -w % m), (0, 0)), mode='reflect')
    y = np.asarray(networks.apply(network, padded))[0, :h, :w]
    out.append(np.rint(np.clip(y, 0, 1) * 255).astype(np.uint8))
  return np.stack(out)


def assert_same(a, b):
  assert a.shape == b.shape
  assert np.abs(a.astype(int) - b.astype(int)).max() <= 1  # ties of the rounding may fall either way
  assert (a != b).mean() < 1e-3
