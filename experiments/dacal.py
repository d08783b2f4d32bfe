r"""DACAL (paper section 4.9; Huang et al. 2019): recurrent enhancement of video, generator 1,355,638 parameters.

python -m vqm_jax.train --config=experiments/dacal.py --workdir=runs/dacal

A re-design from what is published of it, see vqm_jax/enhancers/dacal.py. Two stages in one command: 20,000 generator
updates on frames of a quarter of their size (crops of the same video: only full-size records are paired more closely),
then 30,000 on full-size weak pairs, the rate falling over their second half; 4 critic updates each, clips of 5 frames,
256 px, batch 4, Adam (0, 0.9) at 1e-4. Paper: LPIPS 0.750 on Vid3oC, the untouched source 0.590.
`:tiny` is for vqm_demo's two cameras, both stages, minutes on two CPU cores.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network, or 'tiny'."""
  common.check_size('dacal', size)
  config = common.adversarial_config()
  config.system = 'dacal'
  config.system_args.update(width=16)
  config.loss_args.update(
    critic_width=32,
    features=128,
    marginals=512,
    head_gain=1.0,
    band_filter='dped',
    identity_weight=config_dict.placeholder(float),  # 250 at 512 px, in proportion at others
    temporal_weight=10.0,
    smoothness_weight=0.1,
    penalty='one_sided',
  )
  config.dataset_config = 'weak_tiles'
  config.sampling = 'weak'
  config.crop = 256
  config.num_frames = 5
  config.batch_size = 4
  config.steps = 50_000
  config.critic_steps = 4
  config.lr = config.critic_lr = 1e-4
  config.optimizer_args = config.critic_optimizer_args = dict(b1=0.0, b2=0.9)
  config.stage_names = ('quarter', 'full')
  config.stage_shares = (0.4, 0.6)
  config.stage_args = ({}, {})
  config.stage_new = ((), ())
  config.stage_fields = (
    dict(dataset_config='unpaired_tiles_q', sampling='clip'),
    dict(schedule='linear', schedule_args=dict(start=0.5)),
  )
  if size == 'tiny':
    common.tiny_enhancer(config, steps=500)
    config.num_frames = 3
    config.system_args.update(width=8)
    config.loss_args.update(critic_width=8, features=32, marginals=64)
    config.crop = 64
    config.batch_size = 2
    config.critic_steps = 2
    config.lr = config.critic_lr = 1e-3
  return config
