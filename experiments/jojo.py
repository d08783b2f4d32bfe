r"""Team JOJO-MVIG (paper section 4.5): alignment beside global pooling, 7 frames, 22,758,827 parameters.

python -m vqm_jax.train --config=experiments/jojo.py --workdir=runs/jojo

EDVR's recipe, which the team followed. The paper's score on the IntVid test set is 32.167 dB / 0.901 (+1.61 dB).
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('jojo', size)
  config = common.base_config()
  config.system = 'jojo'
  config.system_args.update(width=128, num_frames=7, num_front=5, num_blocks=40, groups=8, input_mean=0.5)
  config.num_frames = 7
  common.edvr_recipe(config)
  if size == 'tiny':
    config.num_frames = 3
    config.system_args.update(common.TINY_EDVR, num_blocks=2)
    common.tiny_recipe(config, steps=1000)
  return config
