"""Pictures made of saved frames, pixel by pixel: temporal profiles, crops, error maps and grids of frames.

Frames are those of `saved_frames`. They are only ever enlarged by whole factors with pixels repeated, and made
smaller by whole factors with blocks averaged.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vqm_jax import errors, metrics
from vqm_jax.report.saved_frames import SavedFrames, same_size
from vqm_jax.report.summaries import Block

ERROR_GAIN = 4

# Colours that people who see no red or no green tell apart (Okabe and Ito), for rectangles, curves and points.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')

_WIDTH = 1800  # pixels, about, of a figure that fills the width of a page: 7 inches
_BORDER = 0.05  # of the width, where no column is chosen
_PER_ROW = 8  # panels, before they would be too narrow to read


# Arrays of pixels.


def profile(frames: Iterable[np.ndarray], x: int) -> np.ndarray:
  """The temporal profile: the pixel column `x` of frames uint8 (H, W, 3) side by side, uint8 (H, frames, 3)."""
  return np.stack([frame[:, x] for frame in frames], axis=1)


def busiest_column(frames: Iterable[np.ndarray]) -> int:
  """The column with the largest mean standard deviation over time, outside the outer 5 % on both sides."""
  count, total, squares = 0, 0, 0
  for frame in frames:
    frame = frame.astype(np.int32)  # holds the squares of 33,000 frames
    count, total, squares = count + 1, total + frame, squares + frame * frame
  deviation = np.sqrt(count * squares.astype(np.int64) - total.astype(np.int64) ** 2).mean(
    axis=(0, 2)
  )  # times `count`, the same everywhere
  border = int(len(deviation) * _BORDER)
  return border + int(deviation[border : len(deviation) - border].argmax())


@dataclasses.dataclass(frozen=True)
class Crop:
  """A square of pixels.

  Attributes:
    x, y: its left upper corner.
    size: of its sides.
    how: it was chosen: 'variance' (methods differ most), 'random' or 'given'.
  """

  x: int
  y: int
  size: int
  how: str = 'given'

  def of(self, frame: np.ndarray) -> np.ndarray:
    """Return this part of a frame (H, W, ...), a view."""
    return frame[self.y : self.y + self.size, self.x : self.x + self.size]


def choose_crops(outputs: Sequence[np.ndarray], count: int = 2, size: int | None = None, seed: int = 0) -> list[Crop]:
  """Crops where methods differ most, and as many anywhere, so that nobody picks what suits a method.

  Args:
    outputs: of the methods, uint8 (H, W, 3), two at least. The variance of their errors between them is that of the
      outputs, whatever the target, so that it is known without one.
    count: of each kind; fewer where the frame has no room. None overlap.
    size: by default a quarter of the shorter side, between 16 and 128.
    seed: of the random ones.
  """
  height, width, _ = outputs[0].shape
  size = size or min(128, max(16, min(height, width) // 4))
  size = min(size, height, width)
  total = sum(output.astype(np.int64) for output in outputs)
  squares = sum(output.astype(np.int64) ** 2 for output in outputs)
  variance = (len(outputs) * squares - total * total).sum(axis=2)  # in whole numbers: no ties by rounding
  sums = np.pad(variance.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
  score = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
  free, random, crops = np.ones(score.shape, dtype=bool), np.random.default_rng(seed), []
  for how in ['variance'] * count + ['random'] * count:
    open_places = np.flatnonzero(free)
    if not len(open_places):
      break
    scores = score.ravel()[open_places]
    place = open_places[int(scores.argmax()) if how == 'variance' else int(random.integers(len(open_places)))]
    y, x = (int(value) for value in np.unravel_index(place, score.shape))
    crops.append(Crop(x, y, size, how))
    free[max(0, y - size + 1) : y + size, max(0, x - size + 1) : x + size] = False
  return crops


def error_map(frame: np.ndarray, target: np.ndarray) -> np.ndarray:
  """|frame - target| in levels, mean over the channels of uint8 (H, W, 3), float (H, W)."""
  return np.abs(frame.astype(np.int16) - target).mean(axis=2)


def error_colours(levels: np.ndarray) -> np.ndarray:
  """Errors (H, W) in levels as colours uint8 (H, W, 3), from black for 0 to pale yellow for 255 / 4 and more."""
  table = (matplotlib.colormaps['inferno'](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
  return table[np.minimum(np.rint(levels * ERROR_GAIN), 255).astype(np.uint8)]


def resized(frame: np.ndarray, width: int) -> np.ndarray:
  """(H, W, ...) at about `width`: pixels repeated by a whole factor, or blocks averaged by one."""
  if frame.shape[1] <= width:
    return enlarged(frame, max(1, round(width / frame.shape[1])))
  factor = round(frame.shape[1] / width)
  if factor < 2:
    return frame
  height, width = frame.shape[0] // factor, frame.shape[1] // factor
  blocks = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, *frame.shape[2:])
  mean = blocks.mean(axis=(1, 3))
  return mean.round().astype(np.uint8) if frame.dtype == np.uint8 else mean


def enlarged(frame: np.ndarray, across: int, down: int | None = None) -> np.ndarray:
  """(H, W, ...) with every pixel repeated."""
  return frame.repeat(across if down is None else down, axis=0).repeat(across, axis=1)


# Whole figures with their captions.


def profiles(saved: SavedFrames, clip: str, column: str) -> tuple[np.ndarray, str]:
  """The temporal profiles of a clip and the caption. `column` is 'auto' or a number."""
  first = next(saved.read(saved.target, clip))
  width = first.shape[1]
  if column == 'auto':
    x = busiest_column(saved.read(saved.target, clip))
    how = 'the column whose target varies most over time, outside 5 % at both sides'
  else:
    if not column.isdecimal() or int(column) >= width:
      raise errors.ConfigError(f'--column={column}: expected auto or 0 to {width - 1}, as {clip} is {width} wide.')
    x, how = int(column), 'chosen by hand'
  found = {side.label: profile(saved.read(side, clip), x) for side in saved.sides}
  same_size(found, f'Clip {clip}')
  indices = saved.indices(clip)
  count = len(indices)
  caption = f'Temporal profiles of clip {clip}: the pixels at x = {x} ({how}) of {count} frames'
  if indices != list(range(indices[0], indices[0] + count)):
    caption += f' that are {np.diff(indices).max()} apart'
  caption += f', time from left to right. At the left: frame {indices[0]} of {saved.target.label} with the line.'
  return profile_figure(first, x, found, f'{clip}, x={x}'), caption


def comparison(
  saved: SavedFrames, block: Block, clip: str, index: int, wanted: str, seed: int
) -> tuple[np.ndarray, str, dict]:
  """A frame with its crops, the caption, and what crops.json holds of them. `wanted` is the flag --crops."""
  frames = saved.at(clip, index)
  target = frames[saved.target.label]
  outputs = [frames[side.label] for side in saved.methods]
  crops = _parse_crops(wanted, target.shape[1], target.shape[0])
  if crops is None:
    if len(outputs) == 1:
      outputs.append(frames[saved.input.label] if saved.input else target)
    crops = choose_crops(outputs, _count_of(wanted), seed=seed)
  scores, record = [], []
  for crop in crops:
    values = {}
    if block.aligned:
      values = {
        label: float(metrics.psnr(crop.of(frame), crop.of(target)))
        for label, frame in frames.items()
        if label != saved.target.label
      }
    scores.append({label: _decibels(value) for label, value in values.items()})
    entry = {'x': crop.x, 'y': crop.y, 'size': crop.size, 'how': crop.how}
    record.append(entry | ({'seed': seed} if crop.how == 'random' else {}) | {'psnr': values or None})
  notes = [f'Frame {index} of {clip}', *_how_chosen(crops, seed)]
  places = '; '.join(f'{k}: x {c.x}, y {c.y}, {c.how}' for k, c in enumerate(crops, start=1))
  caption = f'{notes[0]}, with crops of {crops[0].size}x{crops[0].size} pixels ({places}). {". ".join(notes[1:])}.'
  caption += ' Under each crop its PSNR.' if block.aligned else ' The target is of another camera and not aligned.'
  return comparison_figure(frames, crops, scores, notes), caption, {'frame': index, 'crops': record}


def error_maps(saved: SavedFrames, block: Block, clip: str, index: int) -> tuple[np.ndarray, str]:
  """Error maps of a frame and the caption."""
  frames = saved.at(clip, index)
  target = frames.pop(saved.target.label)
  maps = {label: error_map(frame, target) for label, frame in frames.items()}
  caption = (
    f'Absolute errors of frame {index} of clip {clip} in 8-bit levels, mean over R, G and B, times '
    f'{ERROR_GAIN} in the colours; below each the PSNR of the frame.'
  )
  return error_figure(maps, whole_scores(frames, target, block)), caption


def whole_scores(frames: dict[str, np.ndarray], target: np.ndarray, block: Block) -> dict[str, str]:
  """'31.25 dB' of each frame under the block's protocol, by label."""
  return {label: _decibels(float(metrics.psnr(frame, target, block.protocol))) for label, frame in frames.items()}


def _decibels(value: float) -> str:
  return f'{value:.2f} dB' if np.isfinite(value) else 'identical'


def _how_chosen(crops: Sequence[Crop], seed: int) -> list[str]:
  said = {
    'variance': 'the largest variance of errors between methods',
    'random': f'random (seed {seed})',
    'given': 'chosen by hand',
  }
  lines = []
  for how, text in said.items():
    if numbers := [str(k) for k, crop in enumerate(crops, start=1) if crop.how == how]:
      lines.append(f'{", ".join(numbers)}: {text}')
  return lines


def _count_of(wanted: str) -> int:
  """How many crops of each kind --crops asks for: 2 of 'auto', N of 'auto:N'."""
  return int(wanted.partition(':')[2] or 2)


def _parse_crops(wanted: str, width: int, height: int) -> list[Crop] | None:
  """The crops that --crops gives in numbers; None where they are to be found."""
  kind, _, count = wanted.partition(':')
  if wanted == 'auto' or (kind == 'auto' and count.isdecimal() and int(count)):
    return None
  crops = []
  for text in wanted.split(';'):
    numbers = text.split(',')
    if len(numbers) != 3 or not all(number.strip().isdecimal() for number in numbers):
      raise errors.ConfigError(f'--crops={wanted}: expected auto, auto:N or x,y,size;x,y,size;..., found {text!r}.')
    crop = Crop(*map(int, numbers))
    if not crop.size or crop.x + crop.size > width or crop.y + crop.size > height:
      raise errors.ConfigError(f'--crops: {text} is not within the frame, which is {width}x{height}; move it inside.')
    crops.append(crop)
  if len({crop.size for crop in crops}) > 1:
    raise errors.ConfigError(f'--crops={wanted}: expected one size for all, so that rows are equal.')
  return crops


# Pictures on white with words.


@dataclasses.dataclass(frozen=True)
class Cell:
  """A picture uint8 (H, W, 3), the words above and under it, and the colour of its frame."""

  picture: np.ndarray
  above: str = ''
  under: str = ''
  colour: str = ''


def grid(rows: Sequence[Sequence[Cell]], size: int) -> np.ndarray:
  """Cells in rows and columns, words in `size` pixels or, where they would not fit, all a bit smaller."""
  gap = max(4, size // 4)
  columns = max(map(len, rows))
  widths = [max(row[k].picture.shape[1] for row in rows if k < len(row)) for k in range(columns)]
  texts = [(text, width) for row in rows for cell, width in zip(row, widths, strict=False) for text in _words(cell)]
  font = _fitting(texts, size)
  canvas = []
  for row in rows:
    bars = []
    for words in ([cell.above for cell in row], [cell.under for cell in row]):
      lines = [_wrapped(text, font, width) for text, width in zip(words, widths, strict=False)]
      bars.append((lines, max(map(len, lines)) * _line(font) + (gap if any(lines) else 0)))
    height = max(cell.picture.shape[0] for cell in row)
    (above, over), (under, below) = bars
    band = Image.new('RGB', (sum(widths) + gap * (columns - 1), over + height + below), 'white')
    draw, left = ImageDraw.Draw(band), 0
    for k, cell in enumerate(row):
      middle = left + cell.picture.shape[1] / 2
      for j, line in enumerate(above[k]):  # the last line stands next to the picture
        baseline = over - gap - (len(above[k]) - 1 - j) * _line(font)
        draw.text((middle, baseline), line, fill='black', font=font, anchor='md')
      band.paste(Image.fromarray(cell.picture), (left, over))
      if cell.colour:
        box = (left, over, left + cell.picture.shape[1] - 1, over + cell.picture.shape[0] - 1)
        draw.rectangle(box, outline=cell.colour, width=max(2, size // 7))
      for j, line in enumerate(under[k]):
        draw.text((middle, over + height + gap / 2 + j * _line(font)), line, fill='black', font=font, anchor='ma')
      left += widths[k] + gap
    canvas.append(np.asarray(band))
    canvas.append(np.full((gap, band.width, 3), 255, dtype=np.uint8))
  return np.concatenate(canvas[:-1])


def profile_figure(first: np.ndarray, x: int, profiles: Mapping[str, np.ndarray], name: str) -> np.ndarray:
  """Profiles under their labels, at the left the first frame with the line that they show.

  Args:
    first: frame, uint8 (H, W, 3).
    x: the column.
    profiles: by label, uint8 (H, frames, 3), all of one shape.
    name: of the first frame, written above it.

  Returns:
    uint8 (H', W', 3).
  """
  height, count, _ = next(iter(profiles.values())).shape
  per_row = -(-len(profiles) // -(-len(profiles) // _PER_ROW))
  down = max(1, round(_WIDTH / 5 / height))
  thumbnail = resized(first, int(min(_WIDTH * 0.32, height * down * first.shape[1] / height)))
  across = max(1, round((_WIDTH - thumbnail.shape[1]) / per_row / count))
  line = int((x + 0.5) * thumbnail.shape[1] / first.shape[1])
  thumbnail = _with_line(thumbnail, line)
  cells = [Cell(enlarged(picture, across, down), label) for label, picture in profiles.items()]
  size = _text_size(thumbnail.shape[1] + per_row * across * count)
  size = _fitting([(name, thumbnail.shape[1]), *((label, across * count) for label in profiles)], size).size
  panels = grid([cells[k : k + per_row] for k in range(0, len(cells), per_row)], size)
  return _beside(grid([[Cell(thumbnail, name)]], size), panels, size)


def comparison_figure(
  frames: Mapping[str, np.ndarray],
  crops: Sequence[Crop],
  scores: Sequence[Mapping[str, str]],
  notes: Sequence[str],
) -> np.ndarray:
  """The whole frame with numbered rectangles, beside it a row of enlarged crops for each.

  Args:
    frames: by label, uint8 (H, W, 3) of one shape; the last is the one that is shown whole.
    crops: of one size.
    scores: for each crop what stands under it, by label.
    notes: lines below the whole frame.

  Returns:
    uint8 (H', W', 3).
  """
  *_, (label, whole) = frames.items()
  # About as wide as makes the frame with its notes as tall as the crops, whose enlargement is a whole number.
  abreast = 2 if len(frames) <= 3 and len(crops) > 1 else 1  # few methods leave room for two crops in a row
  across = abreast * len(frames)
  tall = whole.shape[1] / whole.shape[0] * 1.1 * -(-len(crops) // abreast)
  least, most = (int(_WIDTH * share) for share in (0.36, 0.62))
  width = min(most, max(least, int(_WIDTH * tall / (tall + across + 1))))
  zoom = max(1, round((_WIDTH - width) / across / crops[0].size))
  size = _text_size(width + across * zoom * crops[0].size)
  words = [*frames, *(text for texts in scores for text in texts.values())]
  size = _fitting([(text, zoom * crops[0].size) for text in words], size).size
  rows = []
  for k, (crop, texts) in enumerate(zip(crops, scores, strict=True)):
    rows.append(
      [
        Cell(
          enlarged(crop.of(frame), zoom), '' if k >= abreast else name, texts.get(name, ''), COLOURS[k % len(COLOURS)]
        )
        for name, frame in frames.items()
      ]
    )
  panels = grid([sum(rows[k : k + abreast], []) for k in range(0, len(rows), abreast)], size)
  # What is above and below the frame, at this width: the frame takes the rest of the height.
  around = _with_notes(grid([[Cell(np.zeros((1, width, 3), np.uint8), label)]], size), notes, size).shape[0]
  fitting = round((panels.shape[0] - around) * whole.shape[1] / whole.shape[0])
  small = resized(whole, min(int(_WIDTH * 0.7), max(least, fitting)))
  scale = small.shape[1] / whole.shape[1]
  image = Image.fromarray(small)
  draw, font = ImageDraw.Draw(image), _font(size)
  width = max(2, size // 8)
  for k, crop in enumerate(crops):
    colour = COLOURS[k % len(COLOURS)]
    left, top, right, bottom = (round(v * scale) for v in (crop.x, crop.y, crop.x + crop.size, crop.y + crop.size))
    draw.rectangle((left - 1, top - 1, right, bottom), outline='white', width=width + 2)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)
    draw.rectangle((left, top, left + size, top + round(size * 1.15)), fill=colour)
    draw.text((left + size / 2, top + size * 0.6), str(k + 1), fill='white', font=font, anchor='mm')
  frame = grid([[Cell(np.asarray(image), label)]], size)
  return _beside(_with_notes(frame, notes, size), panels, size)


def error_figure(maps: Mapping[str, np.ndarray], scores: Mapping[str, str]) -> np.ndarray:
  """Error maps with one colour scale below them all.

  Args:
    maps: by label, levels (H, W), of one shape.
    scores: what stands under each, by label.

  Returns:
    uint8 (H', W', 3).
  """
  columns = _columns(len(maps))
  cells = [
    Cell(error_colours(resized(levels, _WIDTH // columns)), label, scores.get(label, ''))
    for label, levels in maps.items()
  ]
  size = _text_size(columns * cells[0].picture.shape[1])
  figure = grid([cells[k : k + columns] for k in range(0, len(cells), columns)], size)
  return np.concatenate([figure, _scale(figure.shape[1], size)])


def frames_figure(frames: Mapping[str, np.ndarray], scores: Mapping[str, str]) -> np.ndarray:
  """Whole frames, uint8 (H, W, 3) of one shape by label, with `scores` under them; uint8 (H', W', 3)."""
  columns = _columns(len(frames))
  cells = [Cell(resized(frame, _WIDTH // columns), label, scores.get(label, '')) for label, frame in frames.items()]
  size = _text_size(columns * cells[0].picture.shape[1])
  return grid([cells[k : k + columns] for k in range(0, len(cells), columns)], size)


def _columns(count: int) -> int:
  """For a grid that is wider than tall with few empty places."""
  if count <= 3:
    return count
  return min((2, 3, 4, 5), key=lambda n: (-count % n + abs(n - 1.3 * count**0.5), n))


def _scale(width: int, size: int) -> np.ndarray:
  """The colours of errors with their levels, in the middle of a white band."""
  long, high = min(width - 4 * size, 20 * size), size
  image = Image.new('RGB', (width, round(4.2 * size)), 'white')
  draw, font, left, top = ImageDraw.Draw(image), _font(size), (width - long) // 2, size // 2
  ramp = np.linspace(0, 255 / ERROR_GAIN, long)[None].repeat(high, axis=0)
  image.paste(Image.fromarray(error_colours(ramp)), (left, top))
  for level in range(0, 64, 16):
    at = left + level * ERROR_GAIN / 255 * long
    draw.line((at, top + high, at, top + high + size // 4), fill='black', width=max(1, size // 14))
    draw.text((at, top + high + size * 0.3), str(level), fill='black', font=font, anchor='ma')
  draw.text((left + long, top + high + size * 0.3), '≥ 64', fill='black', font=font, anchor='ma')
  text = 'Absolute error (8-bit levels, mean of R, G, B)'
  draw.text((width / 2, top + high + size * 1.4), text, fill='black', font=_fitting([(text, width)], size), anchor='ma')
  return np.asarray(image)


def _with_line(picture: np.ndarray, x: int) -> np.ndarray:
  """A vertical line over a picture, with dark edges so that it shows on everything."""
  picture, half = picture.copy(), max(1, picture.shape[1] // 300)
  picture[:, max(0, x - 2 * half) : x + 2 * half + 1] = 0
  picture[:, max(0, x - half) : x + half + 1] = (240, 228, 66)
  return picture


def _with_notes(figure: np.ndarray, notes: Sequence[str], size: int) -> np.ndarray:
  font = _font(size)
  lines = [line for note in notes for line in _wrapped(note, font, figure.shape[1], most=9)]
  image = Image.new('RGB', (figure.shape[1], size // 2 + len(lines) * _line(font)), 'white')
  for k, line in enumerate(lines):
    ImageDraw.Draw(image).text((0, size // 2 + k * _line(font)), line, fill='black', font=font)
  return np.concatenate([figure, np.asarray(image)])


def _beside(left: np.ndarray, right: np.ndarray, gap: int) -> np.ndarray:
  height = max(left.shape[0], right.shape[0])
  parts = [left, np.full((1, gap, 3), 255, dtype=np.uint8), right]
  pads = [((0, height - part.shape[0]), (0, 0), (0, 0)) for part in parts]
  return np.concatenate([np.pad(p, pad, constant_values=255) for p, pad in zip(parts, pads, strict=True)], axis=1)


def _text_size(width: int) -> int:
  """Pixels of letters that have 8 points when `width` is printed on 7 inches."""
  return max(11, round(width / 7 * 8 / 72))


def _words(cell: Cell) -> list[str]:
  return [text for text in (cell.above, cell.under) if text]


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  """The letters of the plots."""
  path = pathlib.Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'
  return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _line(font: ImageFont.FreeTypeFont) -> int:
  return round(font.size * 1.2)


def _fitting(texts: Sequence[tuple[str, int]], size: int) -> ImageFont.FreeTypeFont:
  """The largest font, down to two thirds of `size`, in which texts fit their widths in two lines."""
  least = max(9, size * 2 // 3)
  for smaller in range(size, least, -1):
    font = _font(smaller)
    if all('…' not in ''.join(_wrapped(text, font, width)) for text, width in texts):
      return font
  return _font(least)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 2) -> list[str]:
  """Lines that fit `width`, broken at spaces, '_' and '-'; what does not fit ends with an ellipsis."""
  lines = []
  for part in re.split(r'(?<=[\s_-])', text):
    if lines and font.getlength(f'{lines[-1]}{part}'.rstrip()) <= width:
      lines[-1] += part
    elif part:
      lines.append(part)
  if len(lines) > most:
    lines = [*lines[: most - 1], ''.join(lines[most - 1 :])]
  return [_cut(line.strip(), font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
  if font.getlength(line) <= width:
    return line
  while line and font.getlength(f'{line}…') > width:
    line = line[:-1]
  return f'{line}…'
