"""Makes a page for a blind study: raters compare two videos, or rate one, without knowing what they see.

Example: python -m vqm_jax.report.study --methods=A=restored_a/,B=restored_b/ --target=targets/ --out=study/
         python -m vqm_jax.report.study --results=runs/ecnu,runs/gil --mode=mos --out=study/

--out opens in any browser, from the folder or a static server, and loads nothing from elsewhere; raters send back the
file they download. The key (which name is which method) is written beside it and must not be published. Methods are
folders of PNG frames, or evaluations made with --save_frames. Then: python -m vqm_jax.report.study_results.
Whether your raters need an ethics approval is for you to find out.
"""

import functools
import pathlib
import re

from absl import flags

from vqm_jax import cli, errors, names
from vqm_jax.report import frame_folders, summaries
from vqm_jax.report.study import making, trials
from vqm_jax.summary import read_summary

_METHODS = flags.DEFINE_list('methods', None, 'Folders to compare: NAME=DIR,NAME=DIR.')
_RESULTS = flags.DEFINE_list('results', None, 'Instead: evaluations with kept frames; input and target are theirs.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Which results of a workdir.')
_TARGET = flags.DEFINE_string('target', None, 'Targets: shown on request beside pairs, rated unknown to raters in mos.')
_INPUT = flags.DEFINE_string('input', None, 'Unprocessed inputs, which compete as one more method.')
_CLIPS = flags.DEFINE_list('clips', None, 'Clips to show; default all.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the page.')
_KEY = flags.DEFINE_string('key', None, 'File for the key; default <out>_KEY_keep_private.json.')
_MODE = flags.DEFINE_enum('mode', 'pair', trials.MODES, 'Compare pairs, or rate from 1 to 5.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the orders.', lower_bound=0)
_SLOTS = flags.DEFINE_integer('slots', 60, 'Different orders, at least as many as raters.', lower_bound=1)
_MAX_TRIALS = flags.DEFINE_integer('max_trials', 60, 'Questions for one rater, beside checks.', lower_bound=1)
_MAX_FRAMES = flags.DEFINE_integer('max_frames', 48, 'Frames of a clip.', lower_bound=2)
_FIRST = flags.DEFINE_integer('first', 0, 'First frame, from 0.', lower_bound=0)
_FPS = flags.DEFINE_float('fps', 24, 'Frames per second.', lower_bound=1, upper_bound=120)
_CROP = flags.DEFINE_string('crop', None, 'Largest size, from the middle; default 600x450 for pairs, 960x540 for mos.')
_TITLE = flags.DEFINE_string('title', 'Video quality study', 'Heading of the page.')
_QUESTION = flags.DEFINE_string('question', None, 'What raters are asked.')
_CONTACT = flags.DEFINE_string('contact', 'the person who gave you this page', 'To whom raters send their file.')

_QUESTIONS = {
  ('pair', False): 'Which video looks better?',
  ('pair', True): 'Which video looks closer to the reference?',
  ('mos', False): 'How good is the picture quality of this video?',
  ('mos', True): 'How good is the picture quality of this video?',
}
_SHARED = ('No processing', 'Source', making.TARGET)  # what evaluations of one data set have in common
_CROPS = {'pair': (600, 450), 'mos': (960, 540)}  # two beside each other fit a window of 1280 pixels unscaled


def _named() -> dict[str, str]:
  named = [text.partition('=') for text in _METHODS.value]
  methods = {name.strip(): path for name, _, path in named}
  if len(methods) < len(named) or not all(name and path for name, path in methods.items()):
    raise errors.ConfigError(f'--methods={",".join(_METHODS.value)}: expected NAME=DIR,NAME=DIR with different names.')
  for name in methods:
    if wrong := names.label_problem(name):
      raise errors.ConfigError(f'--methods: {name!r} {wrong}; choose another name.')
  return methods


def _from_results() -> dict[str, frame_folders.Clips]:
  """The frames that evaluations kept: of their methods, and of input and target under these names."""
  found = [(path, read_summary(path)) for path in summaries.find(_RESULTS.value, _SPLIT.value)]
  sources = {}
  for path, summary in found:
    name = summary.method
    if name in sources:
      raise errors.DataError(f'--results: {path} is one more {name}; give one of them, or name folders with --methods.')
    sources[name] = frame_folders.of_summary(summary, path, 'output', '--results')
  path, summary = found[0]
  label = _SHARED[0 if summary.aligned else 1]
  for side, name in (('input', label), ('target', making.TARGET)):
    if (clips := frame_folders.of_summary(summary, path, side, '--results')) is not None:
      sources[name] = clips
  return sources


def _size(text: str | None) -> tuple[int, int]:
  if text is None:
    return _CROPS[_MODE.value]
  match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
  if not match:
    raise errors.ConfigError(f'--crop={text} is not WIDTHxHEIGHT, for example 600x450.')
  return int(match.group(1)), int(match.group(2))


def main(argv: list[str]) -> None:
  del argv
  if bool(_METHODS.value) == bool(_RESULTS.value):
    raise errors.ConfigError('Give one of --methods and --results; see --help.')
  if not _OUT.value:
    raise errors.ConfigError('--out is required; see --help.')
  sources = _from_results() if _RESULTS.value else {
    name: frame_folders.find(path, f'--methods={name}') for name, path in _named().items()
  }  # fmt: skip
  named = [clips for method, clips in sources.items() if method not in _SHARED]
  if _INPUT.value:
    sources['input'] = frame_folders.find(_INPUT.value, '--input')
  if _TARGET.value:
    sources[making.TARGET] = frame_folders.find(_TARGET.value, '--target')
  # Every clip that one method has: whichever lacks it says so.
  chosen = _CLIPS.value or list(dict.fromkeys(name for clips in named for name in clips))
  sources = {method: frame_folders.wanted(clips, chosen, method) for method, clips in sources.items()}
  target = sources.pop(making.TARGET, None)
  shortest = min(len(frames) for clips in sources.values() for frames in clips.values())
  study = making.Study(
    methods=sources,
    target=target,
    mode=_MODE.value,
    title=_TITLE.value,
    question=_QUESTION.value or _QUESTIONS[_MODE.value, target is not None],
    contact=_CONTACT.value,
    fps=_FPS.value,
    first=_FIRST.value,
    frames=min(_MAX_FRAMES.value, max(2, shortest - _FIRST.value)),
    crop=_size(_CROP.value),
    slots=_SLOTS.value,
    max_trials=_MAX_TRIALS.value,
    seed=_SEED.value,
  )
  out = pathlib.Path(_OUT.value)
  key_path = pathlib.Path(_KEY.value) if _KEY.value else out.with_name(f'{out.name}_KEY_keep_private.json')
  key = making.build(study, out, key_path, functools.partial(cli.progress, desc='written', unit='video'))
  length = max(map(len, key['orders']))
  minutes = max(1, round(length * (study.frames / study.fps + 5) / 60))
  print(f'{out / "index.html"}: {len(key["methods"])} methods, {len(chosen)} clips, {length} questions for each rater,')
  unit = 'minute' if minutes == 1 else 'minutes'
  print(f'about {minutes} {unit}. The key: {key_path}. Keep it private, and publish nothing but {out}.')


if __name__ == '__main__':
  cli.run(main)
