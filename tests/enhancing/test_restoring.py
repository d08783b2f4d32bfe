"""A network in use: the input's identity, what the frames depend on, devices."""

import os
import types

import jax
import numpy as np

from vqm_jax import video
from vqm_jax.enhancing import restoring


def test_identity_changes_with_the_files(tmp_path):
  for number in range(2):
    video.write_png(tmp_path / f'{number}.png', np.zeros((16, 20, 3), np.uint8))
  first = restoring.identity(video.open_video(tmp_path))
  assert first[:3] == [2, 16, 20] and restoring.identity(video.open_video(tmp_path)) == first
  os.utime(tmp_path / '1.png', (1, 1))
  assert restoring.identity(video.open_video(tmp_path)) != first


def test_large_networks_take_one_device_of_a_cpu():
  small, large = (types.SimpleNamespace(num_params=count) for count in (1_000_000, 3_000_000))
  assert restoring.devices_for(small, cores=2) is None and restoring.devices_for(large, cores=1) is None
  assert restoring.devices_for(large, cores=2) == jax.local_devices()[:1]
