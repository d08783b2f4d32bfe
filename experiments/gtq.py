r"""Team GTQ (paper section 4.1): deformable cascade, 7 frames, 19,755,067 parameters.

python -m vqm_jax.train --config=experiments/gtq.py --workdir=runs/gtq

The recipe is DNLN's, by members of the team: L1, 192 px (48 at a quarter, where DNLN has 50), batch 8, Adam at 1e-4,
halved at 50, 67, 83 and 92 % of the run. The paper's score on the IntVid test set is 32.126 dB / 0.900 (+1.57 dB), in
9.74 s a frame, which fits eight passes: evaluate with --self_ensemble=8.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('gtq', size)
  config = common.base_config()
  config.system = 'gtq'
  config.system_args.update(width=64, num_frames=7, num_extraction=5, num_stages=5, groups=8, num_rrdb=23, growth=32)
  config.system_args.input_mean = 0.5
  config.num_frames = 7
  config.dataset_config = 'tiles'
  config.crop = 192
  config.batch_size = 8
  config.lr = 1e-4
  config.optimizer_args = dict(eps=common.adam_eps(peak=255))  # DNLN works in 0..255
  config.schedule = 'step'
  config.schedule_args = dict(milestones=(0.5, 0.67, 0.83, 0.92), factor=0.5)
  if size == 'tiny':
    config.num_frames = 3
    config.system_args.update(width=48, num_frames=3, num_extraction=1, num_stages=1, groups=4, num_rrdb=1, growth=8)
    common.tiny_recipe(config, steps=1500)
    config.lr = 1e-3  # at twice that it unlearns half of what it has
  return config
