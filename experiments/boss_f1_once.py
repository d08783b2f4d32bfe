r"""The control of BossGao's progressive training (paper section 4.6): F1 in one piece, from scratch.

python -m vqm_jax.train --config=experiments/boss_f1_once.py --workdir=runs/boss_f1_once

The same network and number of updates as `boss_f1`.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('boss_f1_once', size)
  config = common.base_config()
  common.bossgao_recipe(config, size)
  config.system = 'boss_f1'
  config.system_args.num_blocks = 40 if size == 'full' else 4
  return config
