"""A results page as one HTML file: its parts, and what its script is told. Everything that is not ours is escaped."""

import dataclasses
import html
import json
import pathlib
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqm_jax.report import panels
from vqm_jax.report.page.media import Choice, Extreme
from vqm_jax.report.tables.layout import WORDS, Cell, Table

ASSETS = pathlib.Path(__file__).parent / 'assets'

_RAMP = 12  # colours that stand for those of error maps
_HIGH = '↑'  # begins the heading of a column where more is better
_REFERENCES = ('No processing', 'Source', 'Target')


@dataclasses.dataclass(frozen=True)
class Plot:
  """A figure as SVG text, heading and caption; `narrow` is the one of two columns in one, for phones."""

  title: str
  caption: str
  svg: str
  narrow: str = ''


@dataclasses.dataclass(frozen=True)
class Page:
  """The content of a page.

  Attributes:
    title: of the window.
    heading: the data set.
    methods: their labels.
    facts: what stands below the heading, by name.
    tables: the measured one first, others folded away.
    costs: numbers behind the words of the measured table, by column and method, to sort by.
    plots: figures.
    pictures: frames; None for a page without.
    fps: of the moving clips.
    clips: names of the clips that are shown.
    notes: further remarks.
  """

  title: str
  heading: str
  methods: Sequence[str]
  facts: Mapping[str, str]
  tables: Sequence[Table]
  costs: Mapping[str, Mapping[str, float]]
  plots: Sequence[Plot]
  pictures: Choice | None
  fps: float
  clips: Sequence[str]
  notes: Sequence[str]


def render(page: Page) -> str:
  """The whole file."""
  sections = {'results': ('Results', _results(page))}
  pictures = page.pictures
  if pictures and pictures.stills:
    sections['compare'] = compare(
      first='<label>Clip <select id="clip"></select></label>',
      sides=asset('page_sides.html').template,
      scale=asset('page_scale.html').substitute(ramp=_ramp()),
    )
    if pictures.extremes:
      sections['extremes'] = ('Worst and best', _extremes(page))
    if pictures.motion:
      sections['motion'] = ('Clips in motion', asset('page_motion.html').safe_substitute())
  if page.plots:
    sections['plots'] = ('Plots', _plots(page.plots))
  notes = [*(pictures.notes if pictures else ()), *page.notes]
  if notes:
    sections['notes'] = ('Notes', section('notes', 'Notes', listed(notes)))
  data = script_data(pictures, page.clips, page.fps) if pictures else {}
  return document(page.title, page.heading, ', '.join(page.methods), page.facts, sections, data)


def document(
  title: str,
  heading: str,
  under: str,
  facts: Mapping[str, str],
  sections: Mapping[str, tuple[str, str]],
  data: Mapping[str, Any],
) -> str:
  """One HTML file with the look and the script of all our pages.

  Args:
    title, heading, under, facts: plain text: of the window, above all, below it, and by name.
    sections: {id: (title of its link, HTML)}.
    data: what the script is told.
  """
  return asset('page.html').substitute(
    title=escape(title),
    heading=escape(heading),
    under=escape(under),
    facts=''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for name, value in facts.items()),
    links=''.join(f'<a href="#{name}">{link}</a>' for name, (link, _) in sections.items()),
    sections='\n'.join(body for _, body in sections.values()),
    css=asset('page.css').template,
    script=asset('page.js').template,
    data=json_block(data),
  )


def compare(*, first: str = '', sides: str = '', scale: str = '', below: str = '') -> tuple[str, str]:
  """The section with the divider over two pictures and its link, as `document` takes them.

  `first` and `sides` are HTML around the choice of the frame, `scale` right of the buttons, `below` under all.
  """
  body = asset('page_compare.html').substitute(first=first, sides=sides, scale=scale, below=below)
  return 'Before and after', body


def script_data(pictures: Choice, clips: Sequence[str], fps: float) -> dict[str, Any]:
  """Collect the data of the script: names, and pictures as data URIs; `clips` and `fps` are those of `Page`."""
  places = {clip: k for k, clip in enumerate(clips)}
  tags: dict[tuple[str, int], list[str]] = {}
  several = len({one.method for one in pictures.extremes}) > 1
  for one in pictures.extremes:
    tags.setdefault((one.clip, one.frame), []).append(one.kind + (f' of {one.method}' if several else ''))
  return {
    'sides': list(pictures.sides),
    'errors': bool(pictures.stills and pictures.stills[0].errors),
    'clips': list(clips),
    'fps': fps,
    'stills': [
      {
        'clip': places[still.clip],
        'frame': still.frame,
        'width': still.width,
        'height': still.height,
        'tag': ', '.join(tags.get((still.clip, still.frame), [])),
        'scores': [_decibels(pictures.scores, side, still.clip, still.frame) for side in pictures.sides],
        'pictures': list(still.pictures),
        'errors': list(still.errors),
      }
      for still in pictures.stills
    ],
    'motion': [
      {
        'clip': places[motion.clip],
        'frames': list(motion.frames),
        'width': motion.width,
        'height': motion.height,
        'pictures': [list(side) for side in motion.pictures],
      }
      for motion in pictures.motion
    ],
  }


def json_block(value: Any) -> str:
  """JSON that may stand inside of <script>: without any of < > & and in ASCII."""
  text = json.dumps(value, separators=(',', ':'), ensure_ascii=True, allow_nan=False)
  return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def inline_svg(svg: str, prefix: str) -> str:
  """A figure of Matplotlib to stand inside of HTML, its names told apart from those of other figures by `prefix`."""
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  svg = re.sub(r'<style[^>]*>.*?</style>', '', svg, flags=re.DOTALL)  # it would hold for the whole page
  svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', '', svg)  # HTML knows what SVG is
  svg = svg.replace('xlink:href=', 'href=')
  svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
  return re.sub(r'(href="#|url\(#)', rf'\g<1>{prefix}-', svg).strip()


# Parts.


def asset(name: str) -> string.Template:
  """A file of `assets/`."""
  return string.Template((ASSETS / name).read_text(encoding='utf-8'))


def escape(text: str) -> str:
  """Text to stand in HTML, in attributes, too."""
  return html.escape(text, quote=True)


def section(name: str, title: str, body: str) -> str:
  """A part of a page under its heading; `title` and `body` are HTML."""
  return f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{title}</h2>\n{body}\n</section>'


def listed(notes: Sequence[str]) -> str:
  """Notes, plain text, as a list; nothing without any."""
  return '<ul class="notes">' + ''.join(f'<li>{escape(note)}</li>' for note in notes) + '</ul>' if notes else ''


def _results(page: Page) -> str:
  measured, *others = page.tables
  parts = [html_table(measured, page.costs, 'Results'), listed(measured.notes)]
  folded = [*([measured.singles] if measured.singles else []), *others]
  parts += [
    f'<details><summary>{escape(table.title)}</summary>\n{html_table(table, {}, table.title)}\n{listed(table.notes)}'
    '</details>'
    for table in folded
  ]
  return section('results', 'Results', '\n'.join(parts))


def html_table(table: Table, costs: Mapping[str, Mapping[str, float]], label: str) -> str:
  """A table whose headings are buttons to sort by; columns without any word are left out, the gain is second."""
  columns = {key: head for key, head in table.columns.items() if any(row[key].text for row in table.rows)}
  first = next(iter(columns))
  # What one looks for stands second.
  columns = {key: columns[key] for key in dict.fromkeys([first, *(['gain'] if 'gain' in columns else []), *columns])}

  def head(key: str, text: str) -> str:
    start = 'descending' if text.startswith(_HIGH) or key == 'gain' else 'ascending'
    kind = ' class="word"' if key in WORDS else ''
    return f'<th scope="col"{kind} data-first="{start}"><button type="button">{escape(text or "Metric")}</button></th>'

  def cell(key: str, row: Mapping[str, Cell]) -> str:
    found = row[key]
    value = _sort_value(key, found, costs.get(key, {}).get(row[first].text))
    given = '' if value is None else f' data-value="{escape(value)}"'
    given += '' if key == first else f' data-head="{escape(columns[key])}"'
    tag = 'th scope="row"' if key == first else 'td'
    kind = ' class="word"' if key in WORDS else ''
    return f'<{tag}{kind}{given}>{_cell_text(found)}</{tag[:2]}>'

  lines = []
  for row in table.rows:
    kind = ' class="reference"' if row[first].text in _REFERENCES else ''
    lines.append(f'<tr{kind}>{"".join(cell(key, row) for key in columns)}</tr>')
  heads = ''.join(head(key, text) for key, text in columns.items())
  return (
    f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n<table>\n'
    f'<thead><tr>{heads}</tr></thead>\n<tbody>\n' + '\n'.join(lines) + '\n</tbody>\n</table>\n</div>'
  )


def _cell_text(cell: Cell) -> str:
  text = escape(cell.text)
  if match := re.fullmatch(r'(\S+) (\[.*\])', text):  # a number and its interval
    text = f'{match[1]} <span class="interval">{match[2]}</span>'
  tag = {'bold': 'b', 'underline': 'u'}.get(cell.mark)
  return f'<{tag}>{text}</{tag}>' if tag else text


def _sort_value(key: str, cell: Cell, cost: float | None) -> str | None:
  """Return the key that a column is sorted by: a number, a word, or None for a blank."""
  if cost is not None:
    return repr(float(cost))
  if cell.value is not None:
    return repr(float(cell.value)) if np.isfinite(cell.value) else None
  if key in WORDS:
    return cell.text or None
  # The paper prints costs as words: '≈22.75M', '5-10d'.
  match = re.match(r'[≈\s]*([-+]?\d+(?:\.\d+)?)', cell.text)
  return match[1] if match else None


def _plots(plots: Sequence[Plot]) -> str:
  figures = []
  for k, plot in enumerate(plots):
    label = f'<svg role="img" aria-label="{escape(plot.title)}: {escape(plot.caption)}"'
    svg = inline_svg(plot.svg, f'plot{k}').replace('<svg', label, 1)
    kind = ''
    if plot.narrow:
      narrow = inline_svg(plot.narrow, f'narrow{k}').replace('<svg', label, 1)
      svg, kind = f'<div class="broad">{svg}</div>\n<div class="narrow">{narrow}</div>', ' class="whole"'
    figures.append(
      f'<figure{kind}>\n{svg}\n<figcaption><b>{escape(plot.title)}.</b> {escape(plot.caption)}</figcaption>\n</figure>'
    )
  return section('plots', 'Plots', '<div class="plots">\n' + '\n'.join(figures) + '\n</div>')


def _extremes(page: Page) -> str:
  pictures = page.pictures
  places = {(still.clip, still.frame): k for k, still in enumerate(pictures.stills)}
  methods = list(dict.fromkeys(one.method for one in pictures.extremes))
  parts = [
    '<p class="small">Frames with the least and the largest gain over the input; choose one to see it above.</p>'
  ]
  if len(methods) > 1:
    options = ''.join(f'<option value="{k}">{escape(method)}</option>' for k, method in enumerate(methods))
    parts.append(f'<div class="controls"><label>Method <select id="extreme-method">{options}</select></label></div>')
  for k, method in enumerate(methods):
    groups = []
    for kind, title in (('worst', 'Worst'), ('best', 'Best')):
      items = []
      for one in pictures.extremes:
        if (one.method, one.kind) == (method, kind):
          place = places[one.clip, one.frame]
          items.append(_thumbnail(one, place, pictures, list(pictures.sides).index(method)))
      if items:
        groups.append(f'<h3>{title} of {escape(method)}</h3>\n<ul class="thumbnails">{"".join(items)}</ul>')
    parts.append(f'<div class="extremes" data-method="{k}">\n' + '\n'.join(groups) + '\n</div>')
  return section('extremes', 'Worst and best frames', '\n'.join(parts))


def _thumbnail(one: Extreme, place: int, pictures: Choice, side: int) -> str:
  words = f'clip {one.clip}, frame {one.frame}'
  return (
    f'<li><button type="button" data-still="{place}" data-side="{side}">'
    f'<img src="{pictures.stills[place].thumbnails[one.method]}" alt="{escape(one.method)}, {escape(words)}">'
    f'<span><b>{one.gain:+.2f} dB</b>{escape(words)}</span></button></li>'
  )


def _decibels(scores, side: str, clip: str, frame: int) -> str:
  if side not in scores:
    return ''
  value = scores[side][clip][frame]
  return f'{value:.2f} dB' if np.isfinite(value) else 'identical'


def _ramp() -> str:
  """The colours of error maps for CSS, from 0 to the largest."""
  levels = np.linspace(0, 255 / panels.ERROR_GAIN, _RAMP)[None]
  return ', '.join('#{:02x}{:02x}{:02x}'.format(*colour) for colour in panels.error_colours(levels)[0])
