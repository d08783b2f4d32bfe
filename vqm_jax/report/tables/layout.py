"""Tables of cells as Markdown and LaTeX, and the marks of the best of them."""

import dataclasses
import math
from collections.abc import Container, Iterable, Sequence

from vqm_jax.formats import markdown_table

# Columns of words stand to the left, all others to the right.
WORDS = {'', 'metric', 'category', 'method', 'a', 'b', 'train_hardware', 'test_hardware', 'extra_data'}


@dataclasses.dataclass
class Cell:
  """A cell of a table; `value`, where there is one, is what marks are given for."""

  text: str = ''
  value: float | None = None
  mark: str = ''  # 'bold' or 'underline'


@dataclasses.dataclass
class Table:
  """One block to print: headings by column, a cell by column for each row, notes below.

  `singles`, where there is one, has the single seeds behind the rows.
  """

  title: str
  columns: dict[str, str]
  rows: list[dict[str, Cell]]
  notes: list[str] = dataclasses.field(default_factory=list)
  singles: 'Table | None' = None


def mark(tables: Sequence[Table], keys: Iterable[str], depth: int, higher: Container[str] = ()) -> None:
  """Mark the best numbers of columns over all tables: the best bold, the others underlined.

  Args:
    tables: what is ranked together.
    keys: of the columns.
    depth: how many distinct numbers get a mark; numbers are as printed, to three decimals.
    higher: the columns where more is better; in all others less is.
  """
  for key in keys:
    cells = [row[key] for table in tables for row in table.rows if key in row and row[key].value is not None]
    cells = [(cell, float(f'{cell.value:.3f}')) for cell in cells if not math.isnan(cell.value)]
    best = sorted({shown for _, shown in cells}, reverse=key in higher)[:depth]
    for cell, shown in cells:
      if shown in best:
        cell.mark = 'underline' if best.index(shown) else 'bold'


def markdown(title: str, tables: Sequence[Table], otherwise: str = '') -> str:
  """A page of tables under their titles; `otherwise` stands where there is none."""
  parts = [f'# {title}', *([otherwise] if otherwise and not tables else [])]
  for table in tables:
    parts += [f'## {table.title}', _markdown_table(table)]
    if table.singles:
      parts += [f'<details><summary>{table.singles.title}</summary>', _markdown_table(table.singles), '</details>']
  return '\n\n'.join(part.rstrip('\n') for part in parts) + '\n'


def _markdown_table(table: Table) -> str:
  def shown(cell: Cell) -> str:
    text = cell.text.replace('|', '\\|').replace('<', '&lt;')
    return {'bold': f'**{text}**', 'underline': f'<u>{text}</u>'}.get(cell.mark, text)

  cells = [list(table.columns.values())] + [[shown(row[key]) for key in table.columns] for row in table.rows]
  return markdown_table(cells, table.notes, right=[k for k, key in enumerate(table.columns) if key not in WORDS])


_LATEX = {character: f'\\{character}' for character in '&%$#_{}'} | {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  '|': r'\textbar{}',
  '"': r'\textquotedbl{}',
  '×': r'$\times$',
  '≈': r'$\approx$',
  '±': r'$\pm$',
  '↑': r'$\uparrow$',
  '↓': r'$\downarrow$',
  'é': r'\'e',
}


def latex_text(text: str) -> str:
  """`text` so that LaTeX prints it as it is."""
  return ''.join(_LATEX.get(character, character) for character in text)


def latex(track: str, tables: Sequence[Table]) -> str:
  """The tables as floats of their own for \\input; without the single seeds."""

  def shown(cell: Cell) -> str:
    command = {'bold': r'\textbf', 'underline': r'\underline'}.get(cell.mark)
    text = latex_text(cell.text)
    # A row must not begin with a bracket: \\ would take it for its own argument.
    text = f'{{}}{text}' if text.startswith(('[', '*')) else text
    return f'{command}{{{text}}}' if command else text

  lines = [
    r'% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}. Single seeds are in the CSV and Markdown files.'
  ]
  for table in tables:
    kinds = ''.join('l' if key in WORDS else 'r' for key in table.columns)
    lines += ['', r'\begin{table*}', r'  \centering', rf'  \caption{{{latex_text(f"{track}. {table.title}.")}}}']
    lines += [r'  \footnotesize', rf'  \begin{{tabular}}{{{kinds}}}', r'    \toprule']
    lines += [f'    {" & ".join(map(latex_text, table.columns.values()))} \\\\', r'    \midrule']
    lines += [f'    {" & ".join(shown(row[key]) for key in table.columns)} \\\\' for row in table.rows]
    lines += [r'    \bottomrule', r'  \end{tabular}']
    if table.notes:
      lines += [r'  \par\medskip', r'  \begin{minipage}{\linewidth}']
      lines += [rf'    {latex_text(note)}\par' for note in table.notes] + [r'  \end{minipage}']
    lines.append(r'\end{table*}')
  return '\n'.join(lines) + '\n'
