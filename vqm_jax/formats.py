"""Tables and numbers as text."""

from collections.abc import Iterable, Sequence


def markdown_table(cells: Sequence[Sequence[str]], notes: Iterable[str] = (), right: Iterable[int] = ()) -> str:
  """Write cells, the header first, as an aligned Markdown table.

  The columns in `right`, counted from 0, are set to the right; notes stand below as a list.
  """
  right = set(right)
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  pads = [str.rjust if k in right else str.ljust for k in range(len(widths))]
  lines = [[pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)] for row in cells]
  lines.insert(1, ['-' * (width - 1) + (':' if k in right else '-') for k, width in enumerate(widths)])
  return '\n'.join([f'| {" | ".join(line)} |' for line in lines] + [''] + [f'- {n}' for n in notes]).rstrip() + '\n'


def format_params(count: int) -> str:
  """Write a number of parameters as tables have it: '19.76M', '114.4k' or '0'."""
  if count >= 1_000_000:
    return f'{count / 1e6:.2f}M'
  return f'{count / 1e3:.1f}k' if count >= 1000 else str(count)


def columns(rows: Sequence[Sequence[str]]) -> str:
  """Rows in columns of equal width."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
  )
