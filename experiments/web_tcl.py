r"""`web-tcl`, the weights that ship for GPUs: the U-Net of team TCL at published size, 4,814,643 parameters.

python -m vqm_jax.train --config=experiments/web_tcl.py --config.data_dir=web/data --workdir=runs/web_tcl

The records are those of `web_small`, whose docstring has the commands that make them. A minute or two on a recent GPU;
on a CPU, days. docs/model_cards/web-tcl.md tells how the weights that ship were made and what they do.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', for a GPU, or 'tiny', minutes on vqm_demo with two CPU cores."""
  common.check_size('web_tcl', size)
  config = common.base_config()
  config.system = 'tcl_unet'
  config.system_args.update(width=48, depth=3)
  config.dataset = 'web'
  config.dataset_config = 'tiles_t1p128'
  config.crop = 128
  config.batch_size = 32
  config.steps = 5500
  config.loss = 'rmse'
  config.lr = 5e-4
  config.optimizer_args = dict(eps=1e-10)
  config.schedule_args = dict(end=0.005)
  config.warmup = 0.02
  config.clip_norm = 1.0
  config.ema = 0.998
  config.dtype = 'bfloat16'
  if size == 'tiny':
    config.system_args.update(width=8)
    config.dtype = 'float32'
    common.tiny_recipe(config, steps=1500)
  return config
