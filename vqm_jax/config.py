"""Every field of an experiment: its default, what it may be, whether it defines the run. One line a field.

`experiments/*.py` start from `base_config`, or `adversarial_config` for the enhancers of Track 2, and set what is their
own; `--config.batch_size=4` changes a field of one run. A run is continued with the fields that define it as they were;
fields of operation may change.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from vqm_jax import errors, schemas


class _AtLeast(NamedTuple):
  low: float

  def problem(self, value: Any) -> str | None:
    return None if value >= self.low else f'must be at least {self.low:g}'


class _Fraction:
  def problem(self, value: Any) -> str | None:
    return None if 0 <= value < 1 else 'must be in [0, 1)'


class _OneOf(NamedTuple):
  choices: tuple[str, ...]

  def problem(self, value: Any) -> str | None:
    *first, last = map(repr, self.choices)
    return None if value in self.choices else f'must be {", ".join(first)} or {last}'


class Field(NamedTuple):
  """A field of an experiment.

  Attributes:
    name: without `config.`.
    default: of `base_config` or `adversarial_config`; its type is the field's.
    allowed: what `check` holds it against; None where the code that uses it knows better.
    operation: whether a resumed run may change it.
  """

  name: str
  default: Any
  allowed: _AtLeast | _Fraction | _OneOf | None = None
  operation: bool = False


_COUNT, _FRACTION = _AtLeast(1), _Fraction()

_SHARED = (
  # What is trained, and on what.
  Field('system', ''),  # a name of vqm_jax.restorers or vqm_jax.enhancers
  Field('system_args', {}),  # constructor arguments that differ from the published network
  Field('dataset', 'intvid'),
  Field('dataset_config', 'tiles'),
  Field('data_dir', '', operation=True),  # '' means $TFDS_DATA_DIR, else ~/tensorflow_datasets
  Field('val_config', 'frames', operation=True),  # whole frames to validate on
  Field('val_split', 'val', operation=True),
  Field('sampling', 'paired'),  # which records make a sample: paired, weak, unpaired, clip, identity
  Field('augment', 'symmetries'),  # or flip (left and right), none
  Field('mix_with', ()),  # more training records, 'dataset/config' each, in the same data_dir
  Field('mix_weights', ()),  # of `dataset` and of each of mix_with; equal when empty
  Field('init_from', ''),  # a workdir, a checkpoint folder or shipped weights to start from
  # One sample: num_frames frames of crop x crop pixels.
  Field('crop', 96, _COUNT),
  Field('num_frames', 1, _COUNT),
  Field('crops_per_record', 1),  # samples from one record at a time; 8 or more for `segments`, whose decoding is costly
  # One update.
  Field('batch_size', 16, _COUNT),  # over all devices and processes
  Field('grad_accum', 1, _COUNT),  # micro-batches per update
  Field('steps', 100_000, _COUNT, operation=True),
  Field('seed', 0),
  Field('loss', 'l1'),  # l1, l2, charbonnier, rmse
  Field('loss_args', {}),
  Field('optimizer', 'adam'),  # adam, adamw, muon, sgd
  Field('optimizer_args', {}),
  Field('lr', 1e-4),
  Field('slow_layers', ''),  # regex of the parameters that are trained at slow_rate times lr
  Field('slow_rate', 0.1),
  Field('schedule', 'cosine'),  # constant, cosine, linear, step
  Field('schedule_args', {}),
  Field('warmup', 0.0, _FRACTION),  # of the run
  Field('clip_norm', 0.0),  # global norm; 0 is off
  Field('ema', 0.999, _FRACTION),  # 0 keeps no moving average
  Field('dtype', 'float32', _OneOf(('float32', 'bfloat16'))),  # of compute; parameters stay float32
  # Progressive training: one entry per stage, see vqm_jax/training/progressive.py; empty for a run in one piece.
  Field('stage_names', ()),
  Field('stage_args', ()),  # what the stage's network has other than system_args
  Field('stage_fields', ()),  # what the stage has other than these fields: other records, another rate; may be empty
  Field('stage_new', ()),  # paths of the parameters that its parent does not have
  Field('stage_shares', ()),  # of the steps
  # When it goes wrong.
  Field('on_divergence', 'stop', _OneOf(('stop', 'rollback')), operation=True),  # back to a checkpoint, half the rate
  Field('max_rollbacks', 3, operation=True),
  Field('offset_warn', 50.0, operation=True),  # mean |offset| in pixels that is warned of (EDVR's value)
  Field('offset_limit', 500.0, operation=True),  # and from here on a divergence
  # How often, and how.
  Field('log_every', 100, _COUNT, operation=True),
  Field('save_every', 1000, _COUNT, operation=True),
  Field('eval_every', 5000, _COUNT, operation=True),
  Field('eval_clips', 0, operation=True),  # 0: all
  Field('eval_frames', 0, operation=True),  # per clip; 0: all
  Field('keep_last', 2, _COUNT, operation=True),  # checkpoints, besides the best
  Field('num_workers', 0, operation=True),  # processes that decode; 0 decodes in threads
  Field('data_on_device', False, operation=True),  # all records there, where they fit; the same samples
)  # fmt: skip

# Of enhancers: the fields above, but for the pixel loss, with other defaults where these say so, and the critics'.
_ADVERSARIAL = (
  Field('dataset', 'vid3oc'),
  Field('augment', 'flip'),
  Field('schedule', 'constant'),
  Field('critic_steps', 1),
  Field('critic_lr', 1e-4),
  Field('critic_optimizer_args', {}),
  # Where a loss has left what is usual (lowest, highest) for collapse_steps on end, the log warns, or the run stops.
  Field('generator_bounds', (-1e3, 1e3), operation=True),
  Field('critic_bounds', (-1e3, 1e3), operation=True),
  Field('collapse_steps', 1000, operation=True),
  Field('on_collapse', 'warn', _OneOf(('warn', 'stop')), operation=True),
)

FIELDS = {field.name: field for field in (*_SHARED, *_ADVERSARIAL)}

# Fields of operation: a resumed run may change them. All others define the run.
OPERATION = frozenset(name for name, field in FIELDS.items() if field.operation)


def base_config() -> ml_collections.ConfigDict:
  """Make a config with all fields of the restorers, Track 1; an experiment sets what is its own."""
  return _made(_SHARED)


def adversarial_config() -> ml_collections.ConfigDict:
  """Make a config with all fields of the enhancers, Track 2: two sides, each with its optimiser.

  `steps` counts cycles of one generator update and `critic_steps` critic updates, each on a batch of its own;
  `system_args` are the generator's, `loss_args` those of critics and losses.
  """
  config = _made((*_SHARED, *_ADVERSARIAL))
  del config.loss
  return config


def _made(fields: tuple[Field, ...]) -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  for field in fields:
    config[field.name] = ml_collections.ConfigDict() if field.default == {} else field.default
  return config


def check(config: ml_collections.ConfigDict) -> None:
  """Check what the fields hold. Raises ConfigError naming the field, what it is and what it must be."""
  for name, field in FIELDS.items():
    if field.allowed and name in config and (problem := field.allowed.problem(config[name])):
      raise errors.ConfigError(f'config.{name}={config[name]!r} {problem}.')
  if config.batch_size % config.grad_accum:
    raise errors.ConfigError(
      f'config.grad_accum={config.grad_accum} does not divide config.batch_size={config.batch_size}.'
    )


def check_types(config: Mapping[str, Any]) -> None:
  """Hold the fields of a config that a file gives to their types; null, and fields of other versions, pass.

  Raises schemas.Misfit naming the field, its type and what it is.
  """
  for name, field in FIELDS.items():
    value = config.get(name)
    kind = {tuple: list, dict: dict[str, Any]}.get(type(field.default), type(field.default))
    if value is not None:
      schemas.check(value, kind, f'config.{name}')
      if field.allowed and (problem := field.allowed.problem(value)):
        raise schemas.Misfit(f'config.{name}: {problem}, found {value!r:.60}')


def flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Flatten nested dicts: {'lr': 0.0002, 'system_args.width': 64, ...}."""
  out = {}
  for key, value in config.items():
    out.update(flat(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {prefix + key: value})
  return out


def resolved(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Turn a config into the plain dict that JSON gives back (tuples as lists)."""
  return json.loads(config.to_json())
