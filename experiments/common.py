"""The fields that every experiment has, with defaults that suit most, and what several experiments share."""

import ml_collections


def base_config() -> ml_collections.ConfigDict:
  """Returns a config with all shared fields; an experiment sets what is its own."""
  config = ml_collections.ConfigDict()
  # What is trained, and on what.
  config.system = ''  # a name of vqm_jax.restorers or vqm_jax.enhancers
  config.system_args = ml_collections.ConfigDict()  # constructor arguments that differ from the published network
  config.dataset = 'intvid'
  config.dataset_config = 'tiles'
  config.data_dir = ''  # '' means $TFDS_DATA_DIR, else ~/tensorflow_datasets
  config.val_config = 'frames'  # whole frames to validate on
  config.val_split = 'val'
  config.sampling = 'paired'  # which records make a sample: paired, weak, unpaired, clip, identity
  config.augment = 'symmetries'  # or flip (left and right), none
  config.mix_with = ()  # more training records, 'dataset/config' each, in the same data_dir
  config.mix_weights = ()  # of `dataset` and of each of mix_with; equal when empty
  config.init_from = ''  # a workdir or a checkpoint folder to start the weights from
  # One sample: num_frames frames of crop x crop pixels.
  config.crop = 96
  config.num_frames = 1
  config.crops_per_record = 1  # samples from one record at a time; 8 or more for `segments`, whose decoding is costly
  # One update.
  config.batch_size = 16  # over all devices and processes
  config.grad_accum = 1  # micro-batches per update
  config.steps = 100_000
  config.seed = 0
  config.loss = 'l1'  # l1, l2, charbonnier, rmse
  config.loss_args = ml_collections.ConfigDict()
  config.optimizer = 'adam'  # adam, adamw, muon, sgd
  config.optimizer_args = ml_collections.ConfigDict()
  config.lr = 1e-4
  config.slow_layers = ''  # regex of the parameters that are trained at slow_rate times lr
  config.slow_rate = 0.1
  config.schedule = 'cosine'  # constant, cosine, linear, step
  config.schedule_args = ml_collections.ConfigDict()
  config.warmup = 0.0  # fraction of the run
  config.clip_norm = 0.0  # global norm; 0 is off
  config.ema = 0.999  # 0 keeps no moving average
  config.dtype = 'float32'  # or bfloat16: compute only, parameters stay float32
  # Progressive training: one entry per stage, see vqm_jax/training/progressive.py; empty for a run in one piece.
  config.stage_names = ()
  config.stage_args = ()  # what the stage's network has other than system_args
  config.stage_fields = ()  # what the stage has other than these fields: other records, another rate; may be empty
  config.stage_new = ()  # paths of the parameters that its parent does not have
  config.stage_shares = ()  # of the steps
  # Operation: may change when a run is resumed.
  config.on_divergence = 'stop'  # or 'rollback' to the last checkpoint with half the rate
  config.max_rollbacks = 3
  config.offset_warn = 50.0  # mean |offset| in pixels that is warned of (EDVR's value)
  config.offset_limit = 500.0  # and from here on a divergence
  config.log_every = 100
  config.save_every = 1000
  config.eval_every = 5000
  config.eval_clips = 0  # 0: all
  config.eval_frames = 0  # per clip; 0: all
  config.keep_last = 2  # checkpoints, besides the best
  config.num_workers = 0  # processes that decode; 0 decodes in threads
  return config


def adversarial_config() -> ml_collections.ConfigDict:
  """Returns a config with all fields of the enhancers, Track 2: two sides, each with its optimiser.

  `steps` counts cycles of one generator update and `critic_steps` critic updates, each on a batch of its own;
  `system_args` are the generator's, `loss_args` those of critics and losses.
  """
  config = base_config()
  config.dataset = 'vid3oc'
  config.loss = 'adversarial'
  config.critic_steps = 1
  config.critic_lr = 1e-4
  config.critic_optimizer_args = ml_collections.ConfigDict()
  config.schedule = 'constant'
  config.augment = 'flip'
  config.ema = 0.999
  # Where a loss has left what is usual (lowest, highest) for collapse_steps on end, the log warns, or the run stops.
  config.generator_bounds = (-1e3, 1e3)
  config.critic_bounds = (-1e3, 1e3)
  config.collapse_steps = 1000
  config.on_collapse = 'warn'  # or stop
  return config


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
  """What the experiments of team BossGao share: the front and EDVR's recipe, or their small versions for 'tiny'."""
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
