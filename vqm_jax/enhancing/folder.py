"""A folder of videos in, a folder out, with its sub-folders."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import logging

from vqm_jax import errors, video
from vqm_jax.enhancing import forecast as forecasts
from vqm_jax.enhancing import outputs
from vqm_jax.enhancing import task as tasks
from vqm_jax.enhancing.restoring import Restoring
from vqm_jax.stopping import StopRequest


class Item(NamedTuple):
  """A video and where it goes."""

  source: pathlib.Path
  output: pathlib.Path


def holds_videos(path: pathlib.Path) -> bool:
  """Whether a path is a folder of video files, perhaps in sub-folders, and not one of images.

  Raises VideoError if it could be both.
  """
  if not path.is_dir():
    return False
  files = [entry for entry in path.iterdir() if entry.is_file()]
  images = sum(map(video.is_image, files))
  if images:
    videos = sum(video.is_video(entry) for entry in files)
    if 0 < videos <= images:
      raise errors.VideoError(
        f'{path}: holds {images} images and {videos} video file(s), which of the two is meant? '
        'Move one kind into a folder of its own'
      )
    return videos > 0
  return next(_videos(path), None) is not None


def plan(source: pathlib.Path, output: pathlib.Path, part: tuple[int, int] = (0, 1)) -> list[Item]:
  """Every i-th of n videos in a folder and its sub-folders, `part` = (i, n), with the same paths within `output`.

  Outputs get another suffix where we do not write such files, and the whole name of the input before it where two would
  be the same. Raises VideoError if one folder lies within the other, or there is a file where `output` should be.
  """
  outputs.check_apart(source, output)
  if output.resolve() == source.resolve():
    raise errors.VideoError(f'{output}: is the input itself; choose another --output')
  if output.suffix.lower() in (*video.OUTPUT_SUFFIXES, *video.IMAGE_SUFFIXES) or (
    output.exists() and not output.is_dir()
  ):
    raise errors.VideoError(f'{output}: is the name of a file, expected a folder, as the input is one')
  found = list(_videos(source))
  others = sum(path.is_file() for path in _visible(source)) - len(found)
  if others:
    logging.warning('%s: %d files that are no videos are left out', source, others)
  names = [path.relative_to(source).with_suffix(outputs.suffix_for(path)) for path in found]
  items = []
  for path, name in zip(found, names, strict=True):
    if names.count(name) > 1 and path.suffix != name.suffix:
      name = name.with_name(f'{path.name}{name.suffix}')
    items.append(Item(path, output / name))
  return items[part[0] :: part[1]]


def check_flags(**values: object) -> None:
  """Raises ConfigError for flags that have a value and make no sense for a folder."""
  for name, value in values.items():
    if value:
      raise errors.ConfigError(f'--{name}: is for one video; give --input the name of a file.')


def run(items: Sequence[Item], options: tasks.Options, restoring: Restoring, dry_run: bool = False) -> None:
  """Make each output that is not there, or say what it would take, and print what became of all of them.

  A video that fails is listed at the end, a full disk ends it all. Raises VideoError if some have failed.
  """
  failed, busy, there, found = [], 0, 0, []
  with StopRequest(tasks.STOPPING) as stop:
    for number, item in enumerate(items, start=1):
      if stop.signal:
        break
      if item.output.exists() and not options.overwrite:
        there += 1
        continue
      logging.info('%d/%d %s', number, len(items), item.source)
      try:
        if dry_run:
          found.append(tasks.Task.open(str(item.source), item.output, options).forecast(restoring))
          continue
        item.output.parent.mkdir(parents=True, exist_ok=True)
        if tasks.check(str(item.source), item.output, options):
          tasks.Task.open(str(item.source), item.output, options).run(restoring, stop)
      except errors.DiskFullError:
        raise
      except errors.BusyError as error:
        logging.warning('%s', error)
        busy += 1
      except errors.VqmError as error:
        logging.error('%s', error)
        failed.append(str(error))
  if there:
    print(f'{there} of {len(items)} were there already; to make them anew, remove them or add --overwrite')
  if busy:
    print(f'{busy} of {len(items)} are left to other processes, which are at work on them')
  if found:
    print(forecasts.total(found))
  if failed:
    print('\n'.join([f'{len(failed)} of {len(items)} failed:', *failed]))
    raise errors.VideoError(f'{len(failed)} of {len(items)} videos failed, listed above; the same command tries again')


def _visible(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """All within a folder, in natural order; what is hidden, and in hidden folders, is left out."""
  for entry in sorted(folder.iterdir(), key=lambda entry: video.natural(entry.name)):
    if not entry.name.startswith('.'):
      yield entry
      if entry.is_dir():
        yield from _visible(entry)


def _videos(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  return (path for path in _visible(folder) if path.is_file() and video.is_video(path))
