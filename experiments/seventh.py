r"""Stand-in for the anonymous seventh entry (paper Table 1): a plain single-frame network of its size.

python -m vqm_jax.train --config=experiments/seventh.py --workdir=runs/seventh

The entry's method is not disclosed; it is here for the rows about size and speed, 7,932,720 parameters, and whatever it
scores says nothing about the entry. The paper's score on the IntVid test set is 30.598 dB / 0.878 (+0.05 dB).
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('seventh', size)
  config = common.base_config()
  config.system = 'seventh'
  config.system_args.update(width=128, num_blocks=26)
  config.dataset_config = 'tiles_t1p128'
  if size == 'tiny':
    config.system_args.update(width=24, num_blocks=3)
    common.tiny_recipe(config, steps=3000)
  return config
