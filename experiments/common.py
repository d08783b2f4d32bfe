"""Recipes that several experiments share. The fields that each has, with their defaults, are in `vqm_jax/config.py`."""

import ml_collections

from vqm_jax.config import adversarial_config, base_config

__all__ = ['adversarial_config', 'base_config']


def check_size(name: str, size: str) -> None:
  """Raises ValueError unless `size` is 'full' or 'tiny', the two that every experiment has."""
  if size not in ('full', 'tiny'):
    raise ValueError(
      f'experiments/{name}.py:{size} is unknown; use experiments/{name}.py or experiments/{name}.py:tiny.'
    )


def adam_eps(published: float = 1e-8, *, peak: float = 1.0, summed: int = 1) -> float:
  """Adam's eps of a recipe in other units, for our losses: means over values in [0, 1].

  Adam divides by the gradient's size, so that a factor on the loss changes nothing but what eps is small against.

  Args:
    published: the recipe's eps (PyTorch's default).
    peak: the recipe's white, 255 where frames are not divided: frames, outputs and so gradients are larger by it.
    summed: how many values the recipe's loss adds up where ours is their mean.
  """
  return published / (peak * summed)


def edvr_recipe(config: ml_collections.ConfigDict) -> None:
  """The recipe of EDVR (Wang et al. 2019): Charbonnier, 256 px, Adam (0.9, 0.99), 4e-4 at batch 32, cosine to 1e-7.

  The batch is half of the published one, 2 on each of 8 cards; the rate goes with its square root.
  """
  config.dataset_config = 'tiles'
  config.crop = 256
  config.batch_size = 16
  config.loss = 'charbonnier'
  config.optimizer_args = dict(b2=0.99, eps=adam_eps(summed=config.batch_size * config.crop**2 * 3))
  config.lr = 4e-4 * (config.batch_size / 32) ** 0.5
  config.schedule = 'cosine'
  config.schedule_args = dict(end=1e-7 / config.lr)
  config.warmup = 0.02
  config.clip_norm = 1.0


# What makes offsets, masks and temporal weights in EDVR's parts and in GTQ. Until neighbours are of use nothing holds
# these layers where they are, and optimisers that divide by the gradient's size move them as fast as any other.
OFFSET_LAYERS = r'/guide/|/offset\d|/offset_merge|/cascade\d|/embed|/hffb|align/\d/fuse'
# EDVR's parts for two CPU cores. 48 channels hold the pixels of a 4x4 square, which narrower networks cannot pass on.
TINY_EDVR = dict(width=48, num_frames=3, num_front=1, groups=4, tail_width=16)


def bossgao_recipe(config: ml_collections.ConfigDict, size: str) -> None:
  """Sets the front and the recipe of team BossGao, or their small versions for 'tiny'."""
  config.system_args.update(width=128, num_frames=5, num_front=5, groups=8, input_mean=0.5)
  config.num_frames = 5
  edvr_recipe(config)
  if size == 'tiny':
    config.num_frames = 3
    config.system_args.update(TINY_EDVR)
    tiny_recipe(config, steps=1500)


def tiny_recipe(config: ml_collections.ConfigDict, steps: int) -> None:
  """Minutes on vqm_demo with two CPU cores: L2, a high rate and the moving average gave most in little time."""
  config.dataset = 'vqm_demo'
  single = config.num_frames == 1
  config.dataset_config = 'tiles_t1p96' if single else 'tiles'
  config.crop = 96 if single else 48  # windows are costly
  config.batch_size = 2 if single else 4
  config.steps = steps
  config.loss = 'l2'
  config.lr, config.optimizer_args = 2e-3, {}
  if not single:  # Adam learns half as fast at 3e-4, and kills these networks at 1e-3
    config.optimizer, config.slow_layers = 'muon', OFFSET_LAYERS
  config.schedule = 'cosine'
  config.schedule_args = dict(end=0.01)
  config.warmup = 0.02
  config.clip_norm = 1.0
  config.ema = 0.995
  config.log_every = 100
  config.save_every = 500
  config.eval_every = steps
  config.eval_frames = 8


def tiny_enhancer(config: ml_collections.ConfigDict, steps: int) -> None:
  """Minutes on the two cameras of vqm_demo with two CPU cores."""
  config.dataset = 'vqm_demo'
  config.val_config = 'weak_frames'
  config.steps = steps
  config.ema = 0.99
  config.log_every = 50
  config.save_every = 100
  config.eval_every = steps
  config.eval_frames = 8
