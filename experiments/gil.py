r"""Team GIL (paper section 4.3): two-stage recurrent residual U-Net, 5 frames, 3,595,063 parameters.

python -m vqm_jax.train --config=experiments/gil.py --workdir=runs/gil

The recipe is the team's release: MSE, 96 px, Adam at 1e-4, a tenth of it from 55, 75 and 95 % of the run. Their batch
of 2 is 8 here. `--config.system_args.share_stages=False` trains the released wiring with one block per stage,
7,190,126 parameters. The paper's score on the IntVid test set is 31.579 dB / 0.894 (+1.03 dB).
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('gil', size)
  config = common.base_config()
  config.system = 'gil'
  config.system_args.update(width=32, share_stages=True)
  config.num_frames = 5
  config.dataset_config = 'tiles_t5p128'
  config.crop = 96
  config.batch_size = 8
  config.loss = 'l2'
  config.lr = 1e-4
  config.schedule = 'step'
  config.schedule_args = dict(milestones=(0.55, 0.75, 0.95), factor=0.1)
  if size == 'tiny':
    config.system_args.update(width=4)
    common.tiny_recipe(config, steps=1500)
  return config
