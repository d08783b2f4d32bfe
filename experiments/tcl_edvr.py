r"""The multi-frame branch of team TCL (paper section 4.4): EDVR, 5 frames, 64 channels, 4,112,547 parameters.

python -m vqm_jax.train --config=experiments/tcl_edvr.py --workdir=runs/tcl_edvr

EDVR's recipe. Trained on its own, like `tcl_unet`; then the weight of the mix, `tcl`, is found on the holdout split:

python -m vqm_jax.combine --members=runs/tcl_edvr,runs/tcl_unet --workdir=runs/tcl --grid_search

The paper's score of the mix on the IntVid test set is 31.701 dB / 0.897 (+1.15 dB).
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the published network and recipe, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('tcl_edvr', size)
  config = common.base_config()
  config.system = 'tcl_edvr'
  config.system_args.update(width=64, num_frames=5, num_front=5, num_blocks=20, groups=8, input_mean=0.5)
  config.num_frames = 5
  common.edvr_recipe(config)
  if size == 'tiny':
    config.num_frames = 3
    config.system_args.update(common.TINY_EDVR, num_blocks=2)
    common.tiny_recipe(config, steps=1500)
  return config
