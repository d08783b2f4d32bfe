"""Folders, zip archives and groups of images as clips: uint8 RGB, one image in memory at a time."""

import collections.abc
import pathlib
import re
import zipfile
from fractions import Fraction

import numpy as np
from PIL import Image

from vqm_jax import errors
from vqm_jax.video.sources import checked_stop

SUFFIXES = ('.png', '.webp', '.bmp', '.tif', '.tiff')
# Images carry no rate [D].
FPS = Fraction(30)


class ImageFrames:
  """Images of one size as a clip; only the image asked for is in memory. `files` are their names."""

  def __init__(self, name: str, files: list, fps: Fraction | None = None):
    self.name, self.files = name, files
    self.fps = Fraction(fps) if fps is not None else FPS
    self.num_frames = len(files)
    self.height, self.width = _read_image(files[0]).shape[:2]

  def frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[np.ndarray]:
    """Yields images `start` to `stop` as uint8 (H, W, 3) RGB."""
    for file in self.files[start : checked_stop(self, start, stop)]:
      image = _read_image(file)
      if image.shape != (self.height, self.width, 3):
        raise errors.VideoError(
          f'{file}: {image.shape[1]}x{image.shape[0]} pixels, expected {self.width}x{self.height} '
          'like the first image of the clip'
        )
      yield image


def open_images(folder: pathlib.Path | zipfile.Path, fps: Fraction | None) -> ImageFrames:
  files = [entry for entry in folder.iterdir() if is_image(entry)]
  if not files:
    folders = [entry for entry in folder.iterdir() if entry.is_dir()]
    if isinstance(folder, zipfile.Path) and len(folders) == 1:
      return open_images(folders[0], fps)
    raise errors.VideoError(f'{folder}: no images, expected {", ".join(SUFFIXES)} (JPEG is lossy: convert to PNG)')
  prefixes = {prefix(pathlib.PurePath(entry.name).stem) for entry in files}
  if len(prefixes) > 1:
    raise errors.VideoError(
      f'{folder}: images of several clips side by side; name one, for example '
      f'{folder / (sorted(map(str, prefixes))[0] + "_*.png")}'
    )
  return ImageFrames(name_of(folder), _in_order(files), fps)


def open_group(pattern: pathlib.Path | zipfile.Path, fps: Fraction | None) -> ImageFrames:
  parent = pattern.parent
  if not parent.is_dir():
    raise errors.VideoError(f'{parent}: no such folder')
  matcher = re.compile('.*'.join(re.escape(part) for part in pattern.name.split('*')))
  files = [entry for entry in parent.iterdir() if matcher.fullmatch(entry.name) and is_image(entry)]
  if not files:
    raise errors.VideoError(f'{pattern}: no images match')
  return ImageFrames(pattern.name.split('*')[0].rstrip('_') or parent.name, _in_order(files), fps)


def zip_root(path: pathlib.Path) -> zipfile.Path:
  try:
    return zipfile.Path(path)
  except zipfile.BadZipFile as error:
    raise errors.VideoError(f'{path}: not a readable zip archive; copy or download it again') from error


def name_of(folder: pathlib.Path | zipfile.Path) -> str:
  return pathlib.PurePath(str(folder)).stem if isinstance(folder, zipfile.Path) else folder.name


def is_image(entry: pathlib.Path | zipfile.Path) -> bool:
  name = pathlib.PurePath(entry.name)
  return name.suffix.lower() in SUFFIXES and not name.name.startswith('.') and entry.is_file()


def prefix(stem: str) -> str | None:
  """`060` of `060_0001`; None where there is no such prefix."""
  match = re.fullmatch(r'(.+)_(\d+)', stem)
  return match and match[1]


def natural(text: str) -> list:
  return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', text)]


def _in_order(files: list) -> list:
  """Naturally sorted; raises VideoError if a number is missing in an otherwise regular sequence."""
  files = sorted(files, key=lambda entry: natural(entry.name))
  numbers = [re.findall(r'\d+', pathlib.PurePath(entry.name).stem)[-1:] for entry in files]
  if all(numbers) and len(files) > 2:
    numbers = [int(number[0]) for number in numbers]
    steps = [after - before for before, after in zip(numbers, numbers[1:], strict=False)]
    gap = next((k for k, step in enumerate(steps) if step != min(steps)), None)
    if gap is not None and min(steps) > 0:
      raise errors.VideoError(
        f'{files[gap]}: followed by {files[gap + 1].name}, an image is missing in between; complete '
        'or renumber the sequence'
      )
  return files


def _read_image(file: pathlib.Path | zipfile.Path) -> np.ndarray:
  try:
    with file.open('rb') as stream, Image.open(stream) as image:
      deep = image.tile and ';16' in str(image.tile[0].args)
      turned = image.getexif().get(0x0112, 1) != 1
      if image.mode not in ('RGB', 'L', 'P', '1') or 'transparency' in image.info or deep or turned:
        found = '16 bits' if deep else 'rotation metadata' if turned else f'mode {image.mode}'
        raise errors.VideoError(f'{file}: {found} is not supported, expected 8-bit RGB without alpha; convert it first')
      return np.asarray(image.convert('RGB'))
  except (OSError, SyntaxError, zipfile.BadZipFile) as error:
    raise errors.VideoError(f'{file}: not a readable image ({error})') from error
