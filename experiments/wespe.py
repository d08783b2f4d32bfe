r"""WESPE (paper section 4.8; Ignatov et al. 2018): unpaired enhancement of single frames, generator 401,475 parameters.

python -m vqm_jax.train --config=experiments/wespe.py --workdir=runs/wespe

20,000 updates of each side, batch 30, crops of 100 px, Adam at 5e-4 (DPED's rate). Its content loss needs VGG-19
weights that you bring (`python -m vqm_jax.perceptual.convert --help`); --config.loss_args.content_loss=pixel does
without, is another method, and is marked so in tables. Paper: LPIPS 0.755 on Vid3oC, the untouched source 0.590.
`:tiny` is for vqm_demo's two cameras, minutes on two CPU cores: pixel loss, residual generator, heavier critics.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network, or 'tiny'."""
  common.check_size('wespe', size)
  config = common.adversarial_config()
  config.system = 'wespe'
  config.system_args.update(width=64, num_blocks=4, residual=False, input_mean=0.0)
  config.loss_args.update(
    content_loss='vgg19',
    perceptual_dir='',  # of the converted weights; '' is the usual folder
    content_weight=1.0,  # 10 suits content_loss='pixel'
    colour_weight=5e-3,
    texture_weight=5e-3,
    tv_weight=10.0,
    blur='dped',
    critic_width=1.0,
    critic_mean=0.0,
    critic_norm='instance',
  )
  config.dataset_config = 'unpaired_tiles_p512'
  config.sampling = 'unpaired'
  config.crop = 100
  config.batch_size = 30
  config.crops_per_record = 5  # a record of 512 px holds as many apart; decoding it for one would starve the step
  config.steps = 20_000
  config.lr = config.critic_lr = 5e-4
  config.critic_bounds = (0.02, 10.0)  # below, the critics tell everything apart
  if size == 'tiny':
    common.tiny_enhancer(config, steps=1500)
    # Short runs need a start near the identity, and critics that are heard beside the pixels.
    config.system_args.update(width=16, num_blocks=2, residual=True, input_mean=0.5)
    config.loss_args.update(
      content_loss='pixel',
      content_weight=10.0,
      colour_weight=0.05,
      texture_weight=0.01,
      tv_weight=0.5,
      critic_width=0.25,
      # With the published norms critics of positive images do not see colours, and nothing holds the generator's.
      critic_mean=0.5,
      critic_norm='none',
    )
    config.dataset_config, config.sampling = 'unpaired_tiles_p128', 'clip'  # a dozen scenes are too few to mix
    config.crop = 48
    config.batch_size = 4
    config.crops_per_record = 2
    config.lr, config.critic_lr = 2e-4, 5e-4
    config.schedule = 'linear'
    config.schedule_args = dict(start=0.3)
  return config
