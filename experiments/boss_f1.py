r"""Framework F1 of team BossGao (paper section 4.6): PCD, TSA, 40 residual blocks, 20,928,995 parameters.

python -m vqm_jax.train --config=experiments/boss_f1.py --workdir=runs/boss_f1

Trained progressively: with a 1x1 fusion and 10 blocks, then with TSA, then with 30 blocks more. `boss_f1_once` is the
control, trained in one piece for as long. The order is the report's; shares and EDVR's recipe for every stage are ours.
The paper's score on the IntVid test set is 32.419 dB / 0.905 (+1.87 dB) for F1, F3 and F4 together, which
`python -m vqm_jax.combine --members=runs/boss_f1,runs/boss_f3,runs/boss_f4 --workdir=runs/boss` joins.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('boss_f1', size)
  config = common.base_config()
  common.bossgao_recipe(config, size)
  config.system = 'boss_f1'
  blocks, early = (40, 10) if size == 'full' else (4, 1)
  config.system_args.num_blocks = blocks
  config.stage_names = ('1a', '1b', '1c')
  config.stage_args = (dict(fusion='conv', num_blocks=early), dict(num_blocks=early), {})
  config.stage_new = ((), ('fusion',), ('trunk/blocks',))
  config.stage_shares = (0.4, 0.25, 0.35)
  return config
