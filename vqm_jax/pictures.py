"""Pictures to look at: input, output, target and their difference side by side; and a fence for those of strangers."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vqm_jax import errors, files

_GAP = 4  # pixels between panels
_BAR = 18  # pixels for the label above each panel
_ERROR_GAIN = 4


@contextlib.contextmanager
def fenced(
  name: str | os.PathLike, kind: type[errors.VqmError] = errors.DataError, remedy: str = 'copy or write it again'
) -> Iterator[None]:
  """Turn whatever Pillow raises on damaged images, which is nearly everything, into an error of `kind`.

  Images that would fill the memory (from 179 million pixels on) are refused, too. Our own errors pass as they are.

  Args:
    name: of the image, for the message.
    kind: of error.
    remedy: what to do, for the message.
  """
  try:
    yield
  except errors.VqmError:
    raise
  except Exception as error:
    raise kind(f'{name} is damaged: not a readable image ({errors.reason(error)}); {remedy}.') from error


def comparison(
  lq: np.ndarray,
  pred: np.ndarray,
  hq: np.ndarray | None,
  labels: Sequence[str] = ('input', 'output', 'target', f'error x{_ERROR_GAIN}'),
) -> np.ndarray:
  """The frames side by side under their labels: input, output, target, |output - target| x 4.

  Args:
    lq, pred, hq: uint8 (H, W, 3) of one shape; without `hq` the panel ends with the output.
    labels: above the panels, cut to their width.

  Returns:
    uint8 (H', W', 3); panels made of equal sizes can be stacked as rows with `np.concatenate`.
  """
  return side_by_side([lq, pred] if hq is None else [lq, pred, hq, error(pred, hq)], labels)


def unaligned(lq: np.ndarray, pred: np.ndarray, hq: np.ndarray) -> np.ndarray:
  """As `comparison`, of a target that another camera filmed: beside the output, without a difference."""
  return side_by_side([lq, pred, hq], ('source', 'output', 'target (not aligned)'))


def error(frame: np.ndarray, target: np.ndarray) -> np.ndarray:
  """|frame - target| x 4 of uint8 (H, W, 3) frames, uint8, bright where they differ."""
  return np.minimum(np.abs(frame.astype(np.int16) - target) * _ERROR_GAIN, 255).astype(np.uint8)


def side_by_side(frames: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
  """Frames uint8 (H, W, 3) of one shape in a row under their labels, cut to their width; uint8 (H', W', 3)."""
  height, width, _ = frames[0].shape
  panel = np.full((_BAR + height + _GAP, len(frames) * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
  for k, (frame, label) in enumerate(zip(frames, labels, strict=False)):
    left = k * (width + _GAP)
    panel[:_BAR, left : left + width] = _label(label, width)
    panel[_BAR : _BAR + height, left : left + width] = frame
  return panel


def titled(text: str, picture: np.ndarray) -> np.ndarray:
  """Put text above a picture, uint8 (H, W, 3), in as many lines as its words need; (H', W', 3), W' at least W."""
  font, lines = ImageFont.load_default(12), ['']
  for word in text.split():
    if lines[-1] and font.getlength(f'{lines[-1]} {word}') > picture.shape[1] - 4:
      lines.append('')
    lines[-1] = f'{lines[-1]} {word}'.strip()
  width = max(picture.shape[1], *(int(font.getlength(line)) + 5 for line in lines))  # a word may be longer than all
  bar = Image.new('RGB', (width, 16 * len(lines)), 'white')
  for k, line in enumerate(lines):
    ImageDraw.Draw(bar).text((2, 16 * k + 2), line, fill='black', font=font)
  padded = np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
  return np.concatenate([np.asarray(bar), padded])


def save_png(path: str | os.PathLike, array: np.ndarray) -> None:
  """Write uint8 (H, W, 3) as PNG under a temporary name first, making folders as needed."""
  _save(path, [array], format='PNG')


def save_animation(path: str | os.PathLike, frames: Sequence[np.ndarray], fps: float) -> None:
  """Write frames uint8 (H, W, 3) of one size as an endless animated WebP; needs no video codec."""
  _save(path, frames, format='WEBP', save_all=True, duration=round(1000 / fps), loop=0, quality=90, method=2)


def _save(path: str | os.PathLike, frames: Sequence[np.ndarray], **options) -> None:
  first, *others = map(Image.fromarray, frames)
  with files.replacing(pathlib.Path(path)) as partial:
    first.save(partial, **options, **({'append_images': others} if others else {}))


def _label(text: str, width: int) -> np.ndarray:
  bar = Image.new('RGB', (width, _BAR), 'white')
  ImageDraw.Draw(bar).text((2, 2), text, fill='black', font=ImageFont.load_default(12))
  return np.asarray(bar)
