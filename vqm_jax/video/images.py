"""Images as clips: folders, zip archives and groups of them, single ones and animated ones, as uint8 RGB.

One image is in memory at a time. PNG carries checksums; in WebP, BMP, TIFF and JPEG a flipped bit that leaves them
decodable gives other pixels without a word. JPEG is lossy: who wants targets gets it refused, who restores asks for it.
"""

import collections
import collections.abc
import contextlib
import functools
import pathlib
import re
import zipfile
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vqm_jax import errors, zips
from vqm_jax.video import decoding
from vqm_jax.video.sources import checked_stop

_KINDS = {
  **{'.png': 'PNG', '.apng': 'PNG', '.webp': 'WebP', '.bmp': 'BMP', '.tif': 'TIFF', '.tiff': 'TIFF'},
  **dict.fromkeys(('.jpg', '.jpeg', '.jpe', '.jfif'), 'JPEG'),
}
# Other pictures, which are not frames but would not lie among them by intention.
_OTHERS = ('.gif', '.heic', '.heif', '.avif', '.jp2', '.jxl', '.exr', '.hdr', '.dpx', '.tga', '.ppm', '.pgm', '.pnm')
_FORMATS = ('PNG', 'WEBP', 'BMP', 'TIFF', 'JPEG')  # as Pillow calls them; MPO, JPEG with previews in it, is of JPEG
_MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own limit
_ORIENTATION = 0x0112  # in EXIF
SUFFIXES = ('.png', '.webp', '.bmp', '.tif', '.tiff')
# Images carry no rate.
FPS = Fraction(30)


class ImageFrames:
  """Images of one size as a clip; only the image asked for is in memory. `files` are their names."""

  def __init__(self, name: str, files: list, fps: Fraction | None = None):
    self.name, self.files = name, files
    self.fps = Fraction(fps) if fps is not None else FPS
    self.num_frames = len(files)
    self.height, self.width = _read_image(files[0]).shape[:2]

  def beside(self, index: int) -> dict[str, Any]:
    """Return colour profile, resolution and EXIF of image `index`, as arguments of Pillow's `save`."""
    with _reading(self.files[index]), self.files[index].open('rb') as stream, Image.open(stream) as image:
      found = {name: image.info[name] for name in ('icc_profile', 'dpi') if image.info.get(name)}
      exif = image.getexif()
      exif.pop(_ORIENTATION, None)  # frames are the right way up
      return found | ({'exif': exif.tobytes()} if len(exif) else {})

  def frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[np.ndarray]:
    """Yield images `start` to `stop` as uint8 (H, W, 3) RGB."""
    for job in self.jobs(start, stop):
      yield job()

  def jobs(
    self, start: int = 0, stop: int | None = None
  ) -> collections.abc.Iterator[collections.abc.Callable[[], np.ndarray]]:
    """As `frames`: what reads each; several threads may do so side by side."""
    for file in self.files[start : checked_stop(self, start, stop)]:
      yield functools.partial(self._read, file)

  def _read(self, file) -> np.ndarray:
    image = _read_image(file)
    if image.shape != (self.height, self.width, 3):
      raise errors.VideoError(
        f'{file}: {image.shape[1]}x{image.shape[0]} pixels, expected {self.width}x{self.height} '
        'like the first image of the clip'
      )
    return image


def open_images(folder: pathlib.Path | zipfile.Path, fps: Fraction | None = None, lossy: bool = False) -> ImageFrames:
  """The images in a folder as a clip. Raises VideoError for none, for several kinds or clips, and for a gap."""
  kinds = collections.defaultdict(list)
  for entry in folder.iterdir():
    suffix = pathlib.PurePath(entry.name).suffix.lower()
    if (suffix in _KINDS or suffix in _OTHERS) and not entry.name.startswith('.') and entry.is_file():
      kinds[_KINDS.get(suffix, suffix)].append(entry)
  if len(kinds) > 1:
    fewest = min(kinds.values(), key=len)
    counts = ', '.join(f'{len(entries)} {kind}' for kind, entries in kinds.items())
    raise errors.VideoError(
      f'{folder}: images of several kinds ({counts}), expected one; move away what is no frame, for example '
      f'{fewest[0].name}'
    )
  ((kind, files),) = kinds.items() or [('', [])]
  if kind == 'JPEG' and not lossy:
    raise errors.VideoError(f'{folder}: images are JPEG, which is lossy; take the originals, or convert them to PNG')
  if kind not in _KINDS.values():
    folders = [entry for entry in folder.iterdir() if entry.is_dir()]
    if isinstance(folder, zipfile.Path) and len(folders) == 1 and not kind:
      return open_images(folders[0], fps, lossy)
    found = f'found {kind}' if kind else 'found none'
    raise errors.VideoError(
      f'{folder}: no images, expected {", ".join(SUFFIXES)}, {found} (JPEG is lossy: convert to PNG)'
    )
  prefixes = {prefix(pathlib.PurePath(entry.name).stem) for entry in files}
  if len(prefixes) > 1:
    raise errors.VideoError(
      f'{folder}: images of several clips side by side; name one, for example '
      f'{folder / (sorted(map(str, prefixes))[0] + "_*.png")}'
    )
  return ImageFrames(name_of(folder), _in_order(files), fps)


def open_image(
  path: pathlib.Path, fps: Fraction | None = None, lossy: bool = False
) -> 'ImageFrames | Animation | None':
  """A single image as a clip of one frame, an animated one as all of its frames; None for a file that is no image."""
  try:
    with Image.open(path, formats=_FORMATS) as image:
      kind, count = image.format, getattr(image, 'n_frames', 1)
  except Exception as error:
    if not isinstance(error, Image.UnidentifiedImageError):
      raise _unreadable(path, error) from error
    if path.suffix.lower() in _KINDS and not decoding.holds_video(path):
      raise _unreadable(path, error) from error
    return None
  if kind in ('JPEG', 'MPO') and not lossy:
    raise errors.VideoError(f'{path}: is JPEG, which is lossy; take the original, or convert it to PNG')
  if count > 1 and kind != 'MPO':
    return Animation(path, fps)
  return ImageFrames(path.stem, [path], fps)


class Animation:
  """The frames of an animated image or the pages of a TIFF file as a clip; one of them is in memory."""

  def __init__(self, path: pathlib.Path, fps: Fraction | None = None):
    self.path, self.name = path, path.stem
    sizes, durations = set(), []
    with _opened(path) as image:
      self.num_frames = image.n_frames
      for index in range(self.num_frames):
        with _reading(path, index):
          image.seek(index)
          image.load()
        durations.append(image.info.get('duration', 0))
        sizes.add((image.height, image.width))
    if len(sizes) > 1:
      raise errors.VideoError(f'{path}: holds pictures of {len(sizes)} sizes, expected frames of one')
    ((self.height, self.width),) = sizes
    # Milliseconds, rounded.
    if fps is None and max(durations) - min(durations) > 1:
      raise errors.VideoError(
        f'{path}: its pictures are shown for {min(durations):g} to {max(durations):g} ms, expected one rate; give one '
        'with --fps'
      )
    mean = Fraction(sum(durations)) / len(durations)
    self.fps = Fraction(fps) if fps is not None else (1000 / mean).limit_denominator(1001) if mean else FPS

  def frames(self, start: int = 0, stop: int | None = None) -> collections.abc.Iterator[np.ndarray]:
    """Yield frames `start` to `stop` as uint8 (H, W, 3) RGB."""
    stop = checked_stop(self, start, stop)
    with _opened(self.path) as image:
      for index in range(start, stop):
        with _reading(self.path, index):
          image.seek(index)
          frame = _rgb(f'{self.path}, picture {index}', image)
        yield frame


def open_group(pattern: pathlib.Path | zipfile.Path, fps: Fraction | None) -> ImageFrames:
  """Open the images of one folder whose names match `pattern`, in which `*` stands for anything.

  Raises:
    VideoError: no such folder, no such images, or one is missing in between.
  """
  parent = pattern.parent
  if not parent.is_dir():
    raise errors.VideoError(f'{parent}: no such folder')
  matcher = re.compile('.*'.join(re.escape(part) for part in pattern.name.split('*')))
  files = [entry for entry in parent.iterdir() if matcher.fullmatch(entry.name) and is_image(entry)]
  if not files:
    raise errors.VideoError(f'{pattern}: no images match')
  return ImageFrames(pattern.name.split('*')[0].rstrip('_') or parent.name, _in_order(files), fps)


def zip_root(path: pathlib.Path) -> zipfile.Path:
  """Return the folder at the top of a ZIP file. Raises VideoError where it is none, or damaged."""
  return zips.root(path, errors.VideoError)


def name_of(folder: pathlib.Path | zipfile.Path) -> str:
  """Return what to call a folder; one in a ZIP file by its own name, the top by that of the file."""
  return pathlib.PurePath(str(folder)).stem if isinstance(folder, zipfile.Path) else folder.name


def has_image_name(path: pathlib.Path) -> bool:
  """Whether a file is an image by its name, one that we read."""
  return path.suffix.lower() in _KINDS


def is_image(entry: pathlib.Path | zipfile.Path) -> bool:
  """Whether this is a file that is not hidden, with the ending of an image."""
  name = pathlib.PurePath(entry.name)
  return name.suffix.lower() in SUFFIXES and not name.name.startswith('.') and entry.is_file()


def prefix(stem: str) -> str | None:
  """`060` of `060_0001`; None where there is no such prefix."""
  match = re.fullmatch(r'(.+)_(\d+)', stem)
  return match and match[1]


def natural(text: str) -> list:
  """Return a key to sort by in which numbers count as such: `2.png` comes before `10.png`."""
  return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', text)]


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
  with _reading(file), file.open('rb') as stream, Image.open(stream) as image:
    if getattr(image, 'n_frames', 1) > 1 and image.format != 'MPO':
      raise errors.VideoError(
        f'{file}: holds {image.n_frames} pictures, expected one; give such a file by itself, not in a folder'
      )
    return _rgb(file, image)


def _rgb(file: object, image: Image.Image) -> np.ndarray:
  """uint8 (H, W, 3). Raises VideoError for what is not 8-bit RGB, grey or palette without alpha."""
  photo = image.format in ('JPEG', 'MPO')  # the camera may have been turned
  deep = image.tile and ';16' in str(image.tile[0].args)
  turned = not photo and image.getexif().get(_ORIENTATION, 1) != 1
  clear = 'transparency' in image.info or (image.mode == 'RGBA' and not _opaque(image))
  if image.mode not in ('RGB', 'L', 'P', '1', 'RGBA') or clear or deep or turned:
    found = '16 bits' if deep else 'rotation metadata' if turned else f'mode {image.mode}'
    raise errors.VideoError(f'{file}: {found} is not supported, expected 8-bit RGB without alpha; convert it first')
  return np.asarray((ImageOps.exif_transpose(image) if photo else image).convert('RGB'))


def _opaque(image: Image.Image) -> bool:
  """Whether an animation only has alpha because its kind of file always does; a still image means what it has."""
  return getattr(image, 'is_animated', False) and image.getchannel('A').getextrema()[0] == 255


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> collections.abc.Iterator[Image.Image]:
  with _reading(path):
    image = Image.open(path, formats=_FORMATS)
  with image:
    yield image


@contextlib.contextmanager
def _reading(file: object, index: int | None = None) -> collections.abc.Iterator[None]:
  """Turn whatever reading a bad image raises into one line; for bytes that are no image that is nearly everything."""
  try:
    yield
  except errors.VqmError:
    raise
  except Exception as error:
    raise _unreadable(file if index is None else f'{file}, picture {index}', error) from error


def _unreadable(file: object, error: Exception) -> errors.VideoError:
  if isinstance(error, Image.DecompressionBombError):
    return errors.VideoError(f'{file}: has too many pixels, expected at most {_MOST_PIXELS:,}; cut it into parts')
  if 'MAX_TEXT' in str(error) or 'text memory' in str(error).lower():
    return errors.VideoError(f'{file}: holds more than 1 MB of text beside the picture; save it again without metadata')
  return errors.VideoError(f'{file}: not a readable image ({" ".join(str(error).split())})')
