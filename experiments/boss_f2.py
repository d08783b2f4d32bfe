r"""Framework F2 of team BossGao (paper section 4.6): PCD, 1x1 fusion, RDN1, 25,413,219 parameters.

python -m vqm_jax.train --config=experiments/boss_f2.py --workdir=runs/boss_f2

It is the first stage of `boss_f3`, which has it trained on the way; on its own it is one of the four frameworks, used
for the last submission of the development phase only. EDVR's recipe.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('boss_f2', size)
  config = common.base_config()
  common.bossgao_recipe(config, size)
  config.system = 'boss_f2'
  config.system_args.update(num_blocks=10, growth=64, num_convs=8)
  if size == 'tiny':
    config.system_args.update(num_blocks=2, growth=8, num_convs=3)
  return config
