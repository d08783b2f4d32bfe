r"""DPE (paper section 4.7; Chen et al. 2018): two-way GAN on unpaired frames, generator 3,335,395 parameters deployed.

python -m vqm_jax.train --config=experiments/dpe.py --workdir=runs/dpe

18,000 generator updates with 50 critic updates each, batch 3, crops of 512 px, Adam at 1e-5, falling over the second
half to 0: the released configuration. Paper: LPIPS 0.793 on Vid3oC, the untouched source 0.590.
`:tiny` is for vqm_demo's two cameras; the published rate would move nothing in minutes on two CPU cores.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network, or 'tiny'."""
  common.check_size('dpe', size)
  config = common.adversarial_config()
  config.system = 'dpe'
  config.system_args.update(width=16, global_size=32)
  config.loss_args.update(
    critic_width=16,
    critic_mean=0.0,
    critic_norm='instance',
    identity_weight=config_dict.placeholder(float),  # 1000 at 512 px, in proportion at others
    cycle_factor=10.0,
    penalty='one_sided',
    penalty_start=10.0,
    critic_fake_mode='eval',
    supervised=False,
  )
  config.dataset_config = 'unpaired_tiles_p512'
  config.sampling = 'unpaired'
  config.augment = 'symmetries'
  config.crop = 512
  config.batch_size = 3
  config.steps = 18_000
  config.critic_steps = 50
  config.lr = config.critic_lr = 1e-5
  config.schedule = 'linear'
  config.schedule_args = dict(start=0.5)
  config.collapse_steps = 200
  config.log_every = 10
  config.save_every = 20
  config.eval_every = 500
  if size == 'tiny':
    common.tiny_enhancer(config, steps=400)
    config.system_args.update(width=8, global_size=8)
    config.loss_args.update(critic_width=8, critic_mean=0.5, critic_norm='none', identity_weight=5.0)
    config.dataset_config, config.sampling = 'unpaired_tiles_p128', 'clip'  # a dozen scenes are too few to mix
    config.crop = 64
    config.batch_size = 2
    config.critic_steps = 5
    config.lr, config.critic_lr = 1e-3, 2e-4
  return config
