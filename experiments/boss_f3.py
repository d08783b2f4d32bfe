r"""Framework F3 of team BossGao (paper section 4.6): PCD, TSA, RDN1, 26,627,171 parameters.

python -m vqm_jax.train --config=experiments/boss_f3.py --workdir=runs/boss_f3

Trained progressively: F2 (1x1 fusion), then with TSA. That it starts with the full RDN is a reading; see
`restorers/bossgao.py`. From a trained F2 only the second stage is left:
--config.init_from=runs/boss_f2 --config.stage_names="('2b',)" --config.stage_args="({},)"
--config.stage_new="(('fusion',),)" --config.stage_shares="(1.0,)".
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('boss_f3', size)
  config = common.base_config()
  common.bossgao_recipe(config, size)
  config.system = 'boss_f3'
  config.system_args.update(num_blocks=10, growth=64, num_convs=8)
  if size == 'tiny':
    config.system_args.update(num_blocks=2, growth=8, num_convs=3)
  config.stage_names = ('2a', '2b')
  config.stage_args = (dict(fusion='conv'), {})
  config.stage_new = ((), ('fusion',))
  config.stage_shares = (0.6, 0.4)
  return config
