"""A forest plot: estimates of methods with their intervals, as PNG and SVG."""

import io
import math
import pathlib
from collections.abc import Mapping

from vqm_jax import errors, files

_INK, _FAINT = '#1f2933', '#c3cad2'


def save(
  folder: pathlib.Path, estimates: Mapping[str, tuple[float, float, float]], label: str, neutral: float | None = None
) -> list[pathlib.Path]:
  """Write `forest.png` and `forest.svg`; the same numbers give the same bytes.

  Args:
    folder: made if needed.
    estimates: (value, low, high) by method, from the top down; nan for bounds that there are not.
    label: of the axis.
    neutral: where a line is drawn.

  Raises:
    DataError: matplotlib is not installed.
  """
  try:
    import matplotlib
    from matplotlib.figure import Figure
  except ImportError as error:
    raise errors.DataError('The plot needs matplotlib; install it, or ask for none with --noplot.') from error
  shown = {method: values for method, values in estimates.items() if not math.isnan(values[0])}
  # Fonts that come with matplotlib, and no salt of the day in the ids of the SVG.
  style = {'svg.hashsalt': 'vqm_jax', 'font.family': 'DejaVu Sans', 'font.size': 10, 'text.color': _INK}
  with matplotlib.rc_context(style):
    figure = Figure(figsize=(6.4, 1.1 + 0.42 * len(shown)), layout='constrained')
    axes = figure.add_subplot()
    if neutral is not None:
      axes.axvline(neutral, color=_FAINT, linewidth=1, zorder=0)
    for place, (value, low, high) in enumerate(shown.values()):
      if not math.isnan(low):
        axes.plot([low, high], [place, place], color=_INK, linewidth=1.8, solid_capstyle='butt')
      axes.plot([value], [place], 's', color=_INK, markersize=6)
      text = f'{value:.2f}' + ('' if math.isnan(low) else f'  [{low:.2f}, {high:.2f}]')
      axes.text(1.03, place, text, transform=axes.get_yaxis_transform(), va='center', fontsize=9)
    axes.set_yticks(range(len(shown)), [_literal(method) for method in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.margins(x=0.06)
    axes.grid(axis='x', color=_FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis='y', length=0)
    for side in ('top', 'right', 'left'):
      axes.spines[side].set_visible(False)
    paths = [folder / 'forest.png', folder / 'forest.svg']
    for path, options in zip(
      paths, ({'dpi': 200, 'metadata': {'Software': None}}, {'metadata': {'Date': None}}), strict=True
    ):
      buffer = io.BytesIO()
      figure.savefig(buffer, format=path.suffix[1:], **options)
      with files.replacing(path) as partial:
        partial.write_bytes(buffer.getvalue())
  return paths


def _literal(text: str) -> str:
  """A label that matplotlib does not read as a formula."""
  return text.replace('$', r'\$')
