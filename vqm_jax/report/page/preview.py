"""A preview of an enhanced video: one HTML file with a few frames before and after, at several strengths.

It looks and works like the results page (`report.page`), opens anywhere and loads nothing. A page has at most `MAX_MB`
megabytes; where frames do not fit, they are compressed more, then shrunk, and the page says so.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vqm_jax import errors, files
from vqm_jax.report.page import markup, media

MAX_MB = 20.0  # of 10^6 bytes: what can be sent by mail

# What to try, the best first: quality of WebP (None is lossless), by what both sides are divided.
_RUNGS = ((None, 1), (94, 1), (85, 1), (85, 2), (75, 4), (75, 8))
_AROUND = 1000  # bytes for what stands around the pictures of a frame
_INPUT = 'Input'


@dataclasses.dataclass(frozen=True)
class Preview:
  """The content of a page.

  Attributes:
    video: its name.
    network: what enhanced it.
    num_frames: of the whole video.
    indices: of the frames that are shown.
    before: these frames, uint8 (H, W, 3).
    after: the same by strength.
    strength: the one that is shown first, a key of `after`.
    seconds: that a frame takes.
    commands: that enhance the whole video, by strength; the keys of `after`.
  """

  video: str
  network: str
  num_frames: int
  indices: Sequence[int]
  before: Sequence[np.ndarray]
  after: Mapping[float, Sequence[np.ndarray]]
  strength: float
  seconds: float
  commands: Mapping[float, str]


def duration(seconds: float) -> str:
  """'1 h 2 min 3 s'; what is zero in front is left out."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  parts = {'h': hours, 'min': minutes, 's': rest}
  while len(parts) > 1 and not next(iter(parts.values())):
    del parts[next(iter(parts))]
  return ' '.join(f'{value} {unit}' for unit, value in parts.items())


def write(out: pathlib.Path, preview: Preview, max_mb: float = MAX_MB) -> None:
  """Write the page. Raises ConfigError when not even the smallest frames fit into `max_mb`."""
  files.write_text(out, render(preview, max_mb))


def render(preview: Preview, max_mb: float = MAX_MB) -> str:
  """Return the page as text. Raises ConfigError when not even the smallest frames fit into `max_mb`."""
  room = max_mb * 1e6 - len(_document(preview, [], []).encode())

  def stills(rung: tuple[int | None, int]) -> Iterator[media.Still]:
    for k in range(len(preview.indices)):
      yield _still(preview, k, *rung)

  exact = len(media.data_uri(preview.before[0], None)) * len(preview.indices) * (1 + len(preview.after))
  tried = _RUNGS[exact > room :]  # exact ones take seconds each: too long to make many in vain
  best, least = media.first_that_fits(tried, stills, room - _AROUND * len(preview.indices))
  if best is None:
    raise errors.ConfigError(
      f'The page would have {max_mb + (least - room) / 1e6:.2f} MB with the smallest frames, at most {max_mb:g} are '
      'allowed; make the video smaller first.'
    )
  (quality, shrink), made = best
  return _document(preview, made, _notes(preview, made, quality, shrink))


def _still(preview: Preview, k: int, quality: int | None, shrink: int) -> media.Still:
  frames = [preview.before[k], *(frames[k] for frames in preview.after.values())]
  small = [media.shrunk(frame, shrink) for frame in frames]
  height, width, _ = small[0].shape
  pictures = [media.data_uri(frame, quality) for frame in small]
  thumbnails = {_INPUT: media.thumbnail(preview.before[k])}
  return media.Still(preview.video, preview.indices[k], pictures, [], thumbnails, width, height)


def _notes(preview: Preview, stills: Sequence[media.Still], quality: int | None, shrink: int) -> list[str]:
  size = f', and shrunk {shrink} times to {stills[0].width}x{stills[0].height} pixels' if shrink > 1 else ''
  return [
    f'The frames are {media.coding(quality)}{size}.',
    'Strength scales the correction of the network: 0 is the input, 1 what the network gives, more goes past it.',
    f'The time is that of the machine which made this page, without decoding and encoding: {preview.num_frames} '
    f'times {preview.seconds:.3g} s.',
  ]


def _document(preview: Preview, stills: Sequence[media.Still], notes: Sequence[str]) -> str:
  names = [_INPUT, *(f'Strength {strength:g}' for strength in preview.after)]
  height, width, _ = preview.before[0].shape
  facts = {
    'Size': f'{width}x{height}',
    'Frames': f'{len(preview.indices)} of {preview.num_frames}',
    'Time per frame': f'{preview.seconds:.3g} s',
    'Whole video': f'about {duration(preview.seconds * preview.num_frames)}',
  }
  sections = {
    'compare': markup.compare(first=_strengths(preview), below=_thumbnails(stills)),
    'command': ('Whole video', markup.section('command', 'Enhance the whole video', _commands(preview))),
    'notes': ('Notes', markup.section('notes', 'Notes', markup.listed(notes))),
  }
  title = f'Preview of {preview.video}'
  return markup.document(title, title, preview.network, facts, sections, _data(preview, names, stills))


def _data(preview: Preview, names: Sequence[str], stills: Sequence[media.Still]) -> dict[str, Any]:
  shown = media.Choice(names, stills, [], [], {}, [])
  return markup.script_data(shown, [preview.video], fps=0.0) | {'first': _side(preview, preview.strength)}


def _side(preview: Preview, strength: float) -> int:
  """Where the script has the pictures of a strength: behind the input."""
  return 1 + list(preview.after).index(strength)


def _strengths(preview: Preview) -> str:
  buttons = ''.join(
    f'<button type="button" data-side="{_side(preview, strength)}" aria-pressed="false">{strength:g}</button>'
    for strength in preview.after
  )
  return f'<span class="group" role="group" aria-label="Strength"><span class="small">Strength</span>{buttons}</span>'


def _thumbnails(stills: Sequence[media.Still]) -> str:
  items = ''.join(
    f'<li><button type="button" data-still="{k}" aria-pressed="false"><img src="{still.thumbnails[_INPUT]}" alt="">'
    f'<span>Frame {still.frame}</span></button></li>'
    for k, still in enumerate(stills)
  )
  return f'<ul class="thumbnails strip">{items}</ul>'


def _commands(preview: Preview) -> str:
  def words(command: str) -> str:
    return ' '.join(f'<span>{markup.escape(word)}</span>' for word in command.split(' '))

  return '\n'.join(
    f'<div data-of-side="{_side(preview, strength)}"><p>At strength {strength:g}:</p>'
    f'<pre tabindex="0">{words(command)}</pre></div>'
    for strength, command in preview.commands.items()
  )
