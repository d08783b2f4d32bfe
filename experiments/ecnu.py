r"""C2CNet of team ECNU (paper section 4.2): single-frame restoration, 22,506,887 parameters.

python -m vqm_jax.train --config=experiments/ecnu.py --workdir=runs/ecnu

The recipe is WDSR's (the report gives none): L1, 96 px patches, batch 16, Adam at 1e-3, halved every fifth of the run.
The paper's score on the IntVid test set is 31.719 dB / 0.896 (+1.17 dB); not reproduced here, the data is not public.
`:tiny` is the demo: 114,413 parameters on vqm_demo, four minutes of training on two CPU cores, +0.18 dB on its test
split (one seed, 72 frames of 3 clips), where a fitted 5x5 linear filter gains as much.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network, or 'tiny', the demo."""
  common.check_size('ecnu', size)
  config = common.base_config()
  config.system = 'ecnu'
  config.system_args.update(
    width=128,
    mapping_width=64,
    num_blocks=64,
    expansion=4,
    r=4,
    image_residual=False,
    tail_gain=1.0,
  )
  config.dataset_config = 'tiles_t1p256'
  config.lr = 1e-3
  config.optimizer_args = dict(eps=common.adam_eps(peak=255))  # WDSR's loss is in 0..255
  config.schedule = 'step'
  config.schedule_args = dict(milestones=(0.2, 0.4, 0.6, 0.8), factor=0.5)
  config.clip_norm = 1.0
  if size == 'tiny':
    # Short schedules need the image residual and a quiet tail; L2 and a high rate gave most in two minutes.
    config.system_args.update(width=8, mapping_width=16, num_blocks=3, image_residual=True, tail_gain=0.1)
    common.tiny_recipe(config, steps=8000)
    config.log_every = 500
    config.save_every = 1000
    config.eval_every = 4000
  return config
