r"""`web-small`, the weights that ship for CPUs: the U-Net of team TCL, small, 521,548 parameters.

python -m vqm_jax.prepare.degrade --input=CLIPS --output=web/pairs --mix=web --clip_frames=12 \
  --split_csv=docs/model_cards/web_clips.csv
python -m vqm_jax.prepare.build --dataset=paired_videos --config=tiles_t1p128,frames --manual_dir=web/pairs --name=web \
  --per_video=100 --data_dir=web/data
python -m vqm_jax.train --config=experiments/web_small.py --config.data_dir=web/data --workdir=runs/first
python -m vqm_jax.train --config=experiments/web_small.py --config.data_dir=web/data --workdir=runs/web_small \
  --config.init_from=runs/first --config.steps=17000 --config.lr=6e-4

CLIPS is a folder with the files that docs/model_cards/web_clips.csv lists, with licences, sources and digests; what
came of it is in docs/model_cards/web-small.md. Fine-tuned on records of your own, in minutes:

python -m vqm_jax.train --config=experiments/web_small.py:tiny --config.init_from=web-small \
  --config.dataset=mine --config.dataset_config=tiles_t1p128 --workdir=runs/mine

32 to 128 channels at half to an eighth of the resolution cost a tenth of the published arithmetic. The recipe is made
for hours on one core: Muon learns most per step, and the loss weighs badly and lightly compressed clips alike.
"""

import ml_collections

from experiments import common


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """`size`: 'full', the recipe of the weights that ship, or 'tiny', to fine-tune them in minutes on two CPU cores."""
  common.check_size('web_small', size)
  config = common.base_config()
  config.system = 'tcl_unet'
  config.system_args.update(width=32, depth=2, unshuffle=2)
  config.dataset = 'web'
  config.dataset_config = 'tiles_t1p128'
  config.crop = 96
  config.batch_size = 4
  config.steps = 6000
  config.loss = 'rmse'
  config.optimizer = 'muon'
  config.lr = 7e-4  # 2e-3 keeps it at the identity for longer than it gains
  config.schedule_args = dict(end=0.01)
  config.warmup = 0.02
  config.clip_norm = 1.0
  config.eval_every = 1000
  if size == 'tiny':
    common.tiny_recipe(config, steps=400)
    config.batch_size = 4
    config.loss = 'rmse'
    config.optimizer = 'muon'
    config.lr = 3e-4  # lower: for weights that have been trained
    config.save_every = 100
  return config
