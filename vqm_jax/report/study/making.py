"""Builds the folder of a blind study: the page, the orders, the pictures; and the key, outside of it.

Videos are shown frame by frame from pictures: both sides are drawn in one go and cannot drift apart, no codec of a
browser changes a pixel, and it works from a folder without a server.
"""

import dataclasses
import datetime
import io
import json
import pathlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vqm_jax import errors, files
from vqm_jax.report import frame_folders
from vqm_jax.report.study import trials

FORMAT = 1
KEY, ANSWERS = 'vqm_jax study key', 'vqm_jax study answers'
ASSETS = pathlib.Path(__file__).parent / 'assets'

_FILES = {'study.html': 'index.html', 'study.js': 'study.js', 'study.css': 'study.css'}


@dataclasses.dataclass(frozen=True)
class Study:
  """A blind study: its question, methods and raters.

  Attributes:
    methods: frames by method and clip; all that compete, the unprocessed input among them.
    target: frames by clip; shown on request beside pairs, hidden among what is rated.
    mode: pair or mos.
    title, question, contact: texts of the page; `contact` says where answers go.
    fps: of the videos.
    first, frames: the first frame, from 0, and how many from there on.
    crop: largest width and height, cut out of the middle.
    slots: how many orders of questions.
    max_trials: questions of an order beside repeats, checks and training.
    seed: of the orders.
  """

  methods: Mapping[str, frame_folders.Clips]
  target: frame_folders.Clips | None
  mode: str
  title: str
  question: str
  contact: str
  fps: float
  first: int
  frames: int
  crop: tuple[int, int]
  slots: int
  max_trials: int
  seed: int


TARGET = 'target'


def build(
  study: Study, out: pathlib.Path, key_path: pathlib.Path, progress: Callable[[Sequence], Iterable] = iter
) -> dict[str, Any]:
  """Write `out` and `key_path`; return the key. Neither may exist yet.

  Raises:
    ConfigError: a path is taken, or the key would be within reach of the raters.
    DataError: methods lack clips or frames, or differ in size.
  """
  if key_path.resolve().is_relative_to(out.resolve()):
    raise errors.ConfigError(f'--key={key_path} is inside of --out={out}, where raters could read it; keep it outside.')
  for flag, path in (('--out', out), ('--key', key_path)):
    if path.exists():
      raise errors.ConfigError(f'{flag}={path} exists already; a study is never overwritten, so choose another name.')
  clips = _check(study)
  stimuli = list(study.methods) + ([TARGET] if study.target and study.mode == 'mos' else [])
  best = TARGET if study.target else stimuli[0]
  orders = trials.orders(stimuli, clips, study.mode, best, study.slots, study.seed, study.max_trials)
  needed = {(method, t.clip) for order in orders for t in order for method in (t.left, t.right) if method}
  if study.target and study.mode == 'pair':
    needed |= {(TARGET, clip) for clip in clips}
  # Names drawn afresh each time, and written in their own order: neither seed nor dates of files tell methods apart.
  tokens = {stimulus: secrets.token_hex(8) for stimulus in sorted(needed)}
  try:
    with files.replacing(out) as partial:
      media = {}
      for stimulus in progress(sorted(tokens, key=tokens.get)):
        token = tokens[stimulus]
        media[token] = _write(partial / 'media' / token, _frames(study, *stimulus, best))
      page, key = _describe(study, clips, tokens, media, orders)
      for name, target in _FILES.items():
        files.write_text(partial / target, (ASSETS / name).read_text(encoding='utf-8'))
      text = json.dumps(page, separators=(',', ':'), ensure_ascii=True).replace('</', '<\\/')
      files.write_text(partial / 'trials.js', f'window.STUDY = {text};\n')
      files.write_json(key_path, key)
  except BaseException:
    key_path.unlink(missing_ok=True)  # of a study that is not there
    raise
  return key


def _describe(study, clips, tokens, media, orders) -> tuple[dict[str, Any], dict[str, Any]]:
  """Separate what the page may know from what only the key knows."""
  name = secrets.token_hex(6)

  def shown(trial: trials.Trial) -> list[str]:
    return [tokens[method, trial.clip] for method in (trial.left, trial.right) if method]

  training = [[shown(trial) for trial in order if trial.kind == 'training'] for order in orders]
  counted = [[trial for trial in order if trial.kind != 'training'] for order in orders]
  tokenised = [[shown(trial) for trial in order] for order in counted]
  if study.target and study.mode == 'pair':
    for (_, clip), token in tokens.items():
      media[token]['reference'] = tokens[TARGET, clip]
  page = {
    'format': FORMAT,
    'study': name,
    'mode': study.mode,
    'title': study.title,
    'question': study.question,
    'contact': study.contact,
    'fps': study.fps,
    'media': media,
    'training': training,
    'orders': tokenised,
  }
  key = {
    'format': KEY,
    'version': FORMAT,
    'study': name,
    'mode': study.mode,
    'title': study.title,
    'question': study.question,
    'methods': list(study.methods),
    'target': TARGET if study.target and study.mode == 'mos' else None,
    'clips': clips,
    'seed': study.seed,
    'fps': study.fps,
    'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'media': {token: {'method': method, 'clip': clip} for (method, clip), token in sorted(tokens.items())},
    'orders': [
      [{'kind': trial.kind, 'media': tokens} for trial, tokens in zip(order, order_tokens, strict=True)]
      for order, order_tokens in zip(counted, tokenised, strict=True)
    ],
  }
  return page, key


def _check(study: Study) -> list[str]:
  """The clips; raises DataError where methods do not fit each other."""
  if study.mode == 'pair' and len(study.methods) < 2:
    raise errors.ConfigError(
      f'--mode=pair needs two methods, found {", ".join(study.methods) or "none"}; add one to --methods, or --input.'
    )
  if reserved := {TARGET, trials.DAMAGED} & study.methods.keys():
    raise errors.ConfigError(f'--methods: the name {reserved.pop()} is taken; choose another.')
  (reference, first), *others = [*study.methods.items(), *([(TARGET, study.target)] if study.target else [])]
  clips = list(first)
  for clip in clips:
    count, size = len(first[clip]), _size(first[clip])
    if count < study.first + study.frames:
      raise errors.DataError(
        f'clip {clip} of {reference} has {count} frames, {study.first + study.frames} are needed; lower '
        '--max_frames or --first.'
      )
    for method, frames in others:
      found = frames[clip]
      if len(found) != count:
        raise errors.DataError(
          f'clip {clip}: {method} has {len(found)} frames, {reference} {count}; show the same frames of all.'
        )
      if _size(found) != size:
        raise errors.DataError(
          f'clip {clip}: {method} is {"x".join(map(str, _size(found)))}, {reference} {"x".join(map(str, size))}; '
          'frames must have one size.'
        )
  return clips


def _size(images: Sequence[pathlib.Path]) -> tuple[int, int]:
  picture = frame_folders.head(images[0].read_bytes(), str(images[0]))
  return picture.width, picture.height


def _frames(study: Study, method: str, clip: str, best: str) -> list[np.ndarray]:
  source = best if method == trials.DAMAGED else method
  clips = study.target if source == TARGET else study.methods[source]
  files = clips[clip][study.first : study.first + study.frames]
  size = _size(clips[clip])
  frames = []
  for file in files:
    frame = frame_folders.decode(file.read_bytes(), str(file))
    if frame.shape[1::-1] != size:
      raise errors.DataError(f'{file} is {frame.shape[1]}x{frame.shape[0]}, others of the clip {size[0]}x{size[1]}.')
    width, height = (min(a, b) for a, b in zip(size, study.crop, strict=True))
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    frame = frame[y : y + height, x : x + width]
    frames.append(damaged(frame) if method == trials.DAMAGED else frame)
  return frames


def damaged(frame: np.ndarray) -> np.ndarray:
  """The frame, uint8 (H, W, 3), reduced four times, as JPEG of low quality and back: nobody can find it good."""
  height, width, _ = frame.shape
  small = Image.fromarray(frame).resize((max(8, width // 4), max(8, height // 4)), Image.Resampling.BOX)
  buffer = io.BytesIO()
  small.save(buffer, 'JPEG', quality=10)
  with Image.open(buffer) as image:
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _write(folder: pathlib.Path, frames: Sequence[np.ndarray]) -> dict[str, Any]:
  """Write frames as lossless WebP; return what the page has to know of them."""
  folder.mkdir(parents=True)
  for k, frame in enumerate(frames):
    Image.fromarray(frame).save(folder / f'{k:04d}.webp', lossless=True, exact=True, method=0)
  height, width, _ = frames[0].shape
  return {'frames': len(frames), 'width': width, 'height': height}
