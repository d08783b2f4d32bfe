r"""Framework F4 of team BossGao (paper section 4.6): PCD, TSA, RDN2, 18,039,651 parameters.

python -m vqm_jax.train --config=experiments/boss_f4.py --workdir=runs/boss_f4

Trained progressively: with a 1x1 fusion and the full RDN (a reading, see `restorers/bossgao.py`), then
with TSA. EDVR's recipe.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('boss_f4', size)
  config = common.base_config()
  common.bossgao_recipe(config, size)
  config.system = 'boss_f4'
  config.system_args.update(num_blocks=8, growth=64, num_convs=6)
  if size == 'tiny':
    config.system_args.update(num_blocks=2, growth=8, num_convs=2)
  config.stage_names = ('3a', '3b')
  config.stage_args = (dict(fusion='conv'), {})
  config.stage_new = ((), ('fusion',))
  config.stage_shares = (0.6, 0.4)
  return config
