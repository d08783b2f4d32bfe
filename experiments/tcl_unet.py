r"""The single-frame branch of team TCL (paper section 4.4): U-Net, 48 to 384 channels, 4,814,643 parameters.

python -m vqm_jax.train --config=experiments/tcl_unet.py --workdir=runs/tcl_unet

The recipe is ours, the report gives none: L1, 128 px, batch 16, Adam at 2e-4, cosine to 1e-7. See `tcl_edvr` for the
mix.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('tcl_unet', size)
  config = common.base_config()
  config.system = 'tcl_unet'
  config.system_args.update(width=48, depth=3)
  config.dataset_config = 'tiles_t1p128'
  config.crop = 128
  config.lr = 2e-4
  config.schedule_args = dict(end=5e-4)
  if size == 'tiny':
    config.system_args.update(width=8)
    common.tiny_recipe(config, steps=1500)
  return config
