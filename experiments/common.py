"""The fields that every experiment has, with defaults that suit most."""

import ml_collections


def base_config() -> ml_collections.ConfigDict:
  """Returns a config with all shared fields; an experiment sets what is its own."""
  config = ml_collections.ConfigDict()
  # What is trained, and on what.
  config.system = ''  # a name of vqm_jax.restorers
  config.system_args = ml_collections.ConfigDict()  # constructor arguments that differ from the published network
  config.dataset = 'intvid'
  config.dataset_config = 'tiles'
  config.data_dir = ''  # '' means $TFDS_DATA_DIR, else ~/tensorflow_datasets
  config.val_config = 'frames'  # whole frames to validate on
  config.val_split = 'val'
  config.init_from = ''  # a workdir or a checkpoint folder to start the weights from
  # One sample: num_frames frames of crop x crop pixels.
  config.crop = 96
  config.num_frames = 1
  # One update.
  config.batch_size = 16  # over all devices and processes
  config.grad_accum = 1  # micro-batches per update
  config.steps = 100_000
  config.seed = 0
  config.loss = 'l1'  # l1, l2, charbonnier
  config.loss_args = ml_collections.ConfigDict()
  config.optimizer = 'adam'
  config.optimizer_args = ml_collections.ConfigDict()
  config.lr = 1e-4
  config.schedule = 'cosine'  # constant, cosine, step
  config.schedule_args = ml_collections.ConfigDict()
  config.warmup = 0.0  # fraction of the run
  config.clip_norm = 0.0  # global norm; 0 is off
  config.ema = 0.999  # 0 keeps no moving average
  config.dtype = 'float32'  # or bfloat16: compute only, parameters stay float32
  # Operation: may change when a run is resumed.
  config.log_every = 100
  config.save_every = 1000
  config.eval_every = 5000
  config.eval_clips = 0  # 0: all
  config.eval_frames = 0  # per clip; 0: all
  config.keep_last = 2  # checkpoints, besides the best
  config.num_workers = 0  # processes that decode; 0 decodes in threads
  return config
