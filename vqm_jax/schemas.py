"""Checks JSON and CSV files once, where they are read: dataclasses say the shape.

Files come from strangers: cut off, of another program, edited, hostile. Whatever does not fit ends in a `Misfit` that
names the field, what was expected and what was found; callers add the file and the remedy. Plain dataclasses do:
the shapes are few, and a library would be one more that has to be installed for training.
"""

import csv
import dataclasses
import functools
import io
import json
import math
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, TypeVar

T = TypeVar('T')

_DEPTH = 64  # levels of nesting; what we write has six
_SHOWN = 60  # characters of a value that a message quotes
_LARGEST = 2**63  # integers that numpy and JAX take are below


class Misfit(ValueError):
  """A value that is not what a file of this kind holds. The message names field, expected and found, on one line."""


class Null:
  """Marks a number that may be null, which is then nan: `Annotated[float, Null]`."""


class Least(typing.NamedTuple):
  """Marks the least value of a number: `Annotated[int, Least(0)]`."""

  low: float


Count = Annotated[int, Least(0)]
# A number that may be unknown: files have null, "nan" or "inf", for JSON has no such numbers.
Score = Annotated[float, Null]


def load(path: pathlib.Path, kind: type[T], *, paths: bool = False) -> T:
  """Read a JSON file as `kind`.

  Args:
    path: of UTF-8, or of UTF-16 or 32 with a byte order mark.
    kind: a type that `check` knows: a dataclass, `dict[str, list[int]]`, `Count` ...
    paths: whether texts may be paths whose bytes are no UTF-8.

  Raises:
    FileNotFoundError: there is none.
    Misfit: it holds something else, or cannot be read.
  """
  return check(parse(content_of(path), paths=paths), kind)


def parse(content: bytes | str, *, paths: bool = False) -> Any:
  """Parse JSON (RFC 8259) into dicts, lists, strings, numbers, booleans and None.

  Args:
    content: the text, or its bytes in UTF-8, 16 or 32.
    paths: whether texts may be paths whose bytes are no UTF-8, for which Python has halves of surrogate pairs.

  Raises:
    Misfit: no JSON, invalid bytes, a number beyond float64, half a surrogate pair, a name that stands twice in an
      object, or more than 64 levels of nesting.
  """
  try:
    text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
    value = json.loads(text, parse_float=_number, parse_constant=_constant, object_pairs_hook=_object)
  except Misfit:
    raise
  except UnicodeDecodeError as error:
    raise Misfit(f'expected JSON in UTF-8, found {_bytes(error)}') from error
  except RecursionError as error:
    raise Misfit(f'expected at most {_DEPTH} levels of nesting, found more') from error
  except ValueError as error:
    # Python refuses to make integers of more than 4300 digits.
    long = 'int_max_str_digits' in str(error)
    found = 'a number of thousands of digits' if long else ' '.join(str(error).split())[:120]
    raise Misfit(f'expected JSON, found {found}') from error
  _check_nesting(value, 'surrogateescape' if paths else 'strict')
  return value


def load_lines(path: pathlib.Path, read: Callable[[Any], T]) -> tuple[list[tuple[bytes, T]], str]:
  """Read a file that is written line by line, each of them JSON, by a program that may be killed at any moment.

  Args:
    path: of UTF-8; blank lines are left out.
    read: what a line stands for, by the value that JSON gives; raises Misfit for other values.

  Returns:
    Every line as it is, without its end, beside what it stands for; and what is wrong with the last one, which is left
    out then: it was cut off by a kill, or is still being written. '' if it is whole.

  Raises:
    FileNotFoundError: there is none.
    Misfit: it cannot be read, or a line before the last one is damaged; names that line.
  """
  lines = content_of(path).split(b'\n')
  filled = [number for number, line in enumerate(lines, start=1) if line.strip()]
  found = []
  for number in filled:
    line = lines[number - 1]
    try:
      found.append((line, read(parse(line))))
    except Misfit as error:
      told = f'line {number} is damaged ({error})'
      if number == filled[-1]:
        return found, told
      raise Misfit(told) from error
  return found, ''


def check(value: Any, kind: Any, where: str = '') -> Any:
  """Hold a value that JSON gave to a type and return it as such.

  Args:
    value: of `parse`.
    kind: bool, int, float, str, None, Any, `X | Y`, `Literal`, list[X], tuple[X, Y], tuple[X, ...], dict[str, X],
      Mapping[str, X], Sequence[X], a dataclass of these, or Annotated with `Least` or `Null`. Of dataclasses, fields
      without a default are needed, null stands for the default of a field that has one, and fields that it does not
      have are refused, unless its attribute `FOREIGN` says True.
    where: the field, for messages.

  Raises:
    Misfit: the value does not fit.
  """
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if kind is Any:
    return value
  if origin is Annotated:
    return _check_marked(value, args[0], args[1:], where)
  if origin in (typing.Union, types.UnionType):
    return _check_union(value, args, where)
  if origin is typing.Literal:
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in args):
      raise _misfit(where, ' or '.join(map(repr, args)), value)
    return value
  if dataclasses.is_dataclass(kind):
    return _check_fields(value, kind, where)
  if kind is None or kind is type(None):
    if value is not None:
      raise _misfit(where, 'null', value)
    return None
  if (origin or kind) in (list, Sequence):
    return _check_list(value, args[0] if args else Any, where)
  if origin is tuple:
    return _check_tuple(value, args, where)
  if (origin or kind) in (dict, Mapping):
    if not isinstance(value, dict):
      raise _misfit(where, 'an object', value)
    of = args[1] if args else Any
    return {key: check(item, of, _below(where, key)) for key, item in value.items()}
  return _check_plain(value, kind, where)


class Row(dict[str, str]):
  """The fields of a line of a CSV file by column, and the number of that line, from 1 on."""

  def __init__(self, fields: Mapping[str, str], line: int):
    super().__init__(fields)
    self.line = line


def read_csv(path: pathlib.Path, columns: Sequence[str] = (), *, delimiter: str = ',') -> list[Row]:
  """Read a CSV file with a header.

  Args:
    path: of UTF-8, with or without a byte order mark, or UTF-16 with one.
    columns: that have to be there; others may.
    delimiter: between the fields.

  Returns:
    Every line: all columns, as text. Blank lines are left out.

  Raises:
    FileNotFoundError: there is none.
    Misfit: it cannot be read; columns are missing or stand twice; a line has more or fewer fields than columns.
  """
  (_, header), *rows = read_table(path, delimiter=delimiter) or [(1, [])]
  if lost := [name for name in columns if name not in header]:
    raise Misfit(f'expected columns {", ".join(columns)}, found no {", ".join(lost)} in {_quoted(",".join(header))}')
  if (twice := _twice(header)) is not None:
    raise Misfit(f'expected columns with different names, found {_quoted(twice)} twice')
  for line, fields in rows:
    if len(fields) != len(header):
      raise Misfit(f'line {line}: expected {len(header)} fields, found {len(fields)}')
  return [Row(zip(header, fields, strict=True), line) for line, fields in rows]


def read_table(path: pathlib.Path, *, delimiter: str = ',') -> list[tuple[int, list[str]]]:
  """Read the lines of a CSV file, each with its number from 1 on, the header among them; blank ones are left out.

  Arguments are those of `read_csv`.

  Raises:
    FileNotFoundError: there is none.
    Misfit: it cannot be read, or has another encoding, NUL characters, fields over 128 KiB, or quotes that do not end.
  """
  reader = csv.reader(io.StringIO(_text_of(content_of(path)), newline=''), delimiter=delimiter, strict=True)
  try:
    return [(reader.line_num, fields) for fields in reader if fields]
  except csv.Error as error:
    raise Misfit(f'line {reader.line_num}: expected CSV, found {error}') from error


def rate(text: str) -> Fraction:
  """The frames per second that a field tells: 25, 23.976 or 30000/1001. Raises ValueError for anything else."""
  # Fraction itself takes 1e999999999, and computes it.
  if not re.fullmatch(r'[0-9]{1,9}(\.[0-9]{0,9}|/[0-9]{1,9})?', text.strip()):
    raise ValueError('no rate')
  numerator, _, denominator = text.strip().partition('/')
  if not int(denominator or 1) or not (value := Fraction(numerator) / int(denominator or 1)):
    raise ValueError('no rate')
  return value


def content_of(path: pathlib.Path) -> bytes:
  """Read a file whole. Raises FileNotFoundError where there is none, Misfit where it is a folder or unreadable."""
  try:
    return path.read_bytes()
  except FileNotFoundError:
    raise
  except IsADirectoryError as error:
    raise Misfit('expected a file, found a folder') from error
  except OSError as error:
    raise Misfit(f'expected a file that can be read, found: {error.strerror}') from error


def _text_of(content: bytes) -> str:
  encoding = 'utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
  try:
    text = content.decode(encoding)
  except UnicodeDecodeError as error:
    raise Misfit(f'expected text in UTF-8, found {_bytes(error)}') from error
  if '\0' in text:
    line = text[: text.index('\0')].count('\n') + 1
    raise Misfit(f'expected text in UTF-8, found a NUL character in line {line}')
  return text


def _bytes(error: UnicodeDecodeError) -> str:
  if error.start >= len(error.object):
    return 'its end in the middle of a character'
  return f'byte 0x{error.object[error.start]:02x} in line {error.object[: error.start].count(10) + 1}'


def _check_marked(value: Any, kind: Any, marks: Sequence[Any], where: str) -> Any:
  if value is None and Null in marks:
    return math.nan
  value = check(value, kind, where)
  for mark in marks:
    if isinstance(mark, Least) and not value >= mark.low:
      raise _misfit(where, f'at least {mark.low:g}', value)
  return value


def _check_union(value: Any, kinds: Sequence[Any], where: str) -> Any:
  problems = []
  for kind in kinds:
    try:
      return check(value, kind, where)
    except Misfit as error:
      problems.append((kind, error))
  # Which of them was meant: the one that is no null, if there is a single one.
  meant = [error for kind, error in problems if kind is not type(None)]
  if len(meant) == 1 and value is not None:
    raise meant[0]
  raise _misfit(where, ' or '.join(_name(kind) for kind, _ in problems), value)


def _check_fields(value: Any, kind: type, where: str) -> Any:
  if not isinstance(value, dict):
    raise _misfit(where, 'an object', value)
  fields, kinds, given = dataclasses.fields(kind), _hints(kind), {}
  for field in fields:
    optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    if field.name in value and not (value[field.name] is None and optional):
      given[field.name] = check(value[field.name], kinds[field.name], _below(where, field.name))
    elif not optional:
      found = 'null' if field.name in value else 'none'
      raise Misfit(f'{_below(where, field.name)}: expected {_name(kinds[field.name])}, found {found}')
  foreign = [name for name in value if name not in kinds]
  if foreign and not getattr(kind, 'FOREIGN', False):
    known = ', '.join(field.name for field in fields)
    raise Misfit(f'{_below(where, foreign[0])}: expected one of {known[:200]}, found this unknown field')
  return kind(**given)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
  names = {field.name for field in dataclasses.fields(kind)}
  return {name: hint for name, hint in typing.get_type_hints(kind, include_extras=True).items() if name in names}


def _check_list(value: Any, of: Any, where: str) -> list[Any]:
  if not isinstance(value, list):
    raise _misfit(where, 'a list', value)
  if of is float and set(map(type, value)) <= {float}:  # scores of every frame: many, and nearly always so
    return value
  return [check(item, of, f'{where}[{k}]') for k, item in enumerate(value)]


def _check_tuple(value: Any, kinds: Sequence[Any], where: str) -> tuple[Any, ...]:
  if len(kinds) == 2 and kinds[1] is Ellipsis:
    return tuple(_check_list(value, kinds[0], where))
  if not isinstance(value, list) or len(value) != len(kinds):
    raise _misfit(where, f'a list of {len(kinds)}', value)
  return tuple(check(item, kind, f'{where}[{k}]') for k, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _check_plain(value: Any, kind: type, where: str) -> Any:
  if kind is float:
    if isinstance(value, str) and value in ('inf', '-inf', 'nan'):  # as `files.write_json` writes them
      return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and (isinstance(value, float) or _small(value)):
      return float(value)
  elif kind is int and isinstance(value, int) and not isinstance(value, bool) and _small(value):
    return value
  elif kind not in (float, int) and isinstance(value, kind):
    return value
  raise _misfit(where, _name(kind), value)


def _small(value: int) -> bool:
  return -_LARGEST <= value < _LARGEST


def _misfit(where: str, expected: str, value: Any) -> Misfit:
  return Misfit(f'{where + ": " if where else ""}expected {expected}, found {_quoted(value)}')


_NAMES = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text', type(None): 'null'}


def _name(kind: Any) -> str:
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is Annotated:
    return _name(args[0])
  if origin in (typing.Union, types.UnionType):
    return ' or '.join(map(_name, args))
  if origin is typing.Literal:
    return ' or '.join(map(repr, args))
  if kind in _NAMES:
    return _NAMES[kind]
  return 'a list' if (origin or kind) in (list, tuple, Sequence) else 'an object'


def _below(where: str, name: str) -> str:
  return _plain(f'{where}.{name}' if where else name)


def _plain(text: str) -> str:
  """Text that a terminal shows on one line."""
  text = text if text.isprintable() else text.encode('unicode_escape', 'backslashreplace').decode('ascii')
  return text if len(text) <= 2 * _SHOWN else text[: 2 * _SHOWN] + '...'


_LITERALS = {None: 'null', True: 'true', False: 'false'}


def _quoted(value: Any) -> str:
  """A short form of a value, whatever it is."""
  if isinstance(value, dict):
    text = f'an object of {len(value)} fields'
  elif isinstance(value, list) and len(value) > 8:
    text = f'a list of {len(value)}'
  elif isinstance(value, int) and not _small(value):
    text = 'a number beyond 2^63'
  else:
    text = _LITERALS[value] if value is None or isinstance(value, bool) else repr(value)
    text = text if text.isprintable() else ascii(value)
  return text if len(text) <= _SHOWN else text[:_SHOWN] + '...'


def _number(text: str) -> float:
  value = float(text)
  if math.isinf(value):
    raise Misfit(f'expected numbers that float64 has, found {text[:_SHOWN]}')
  return value


def _constant(text: str) -> Any:
  raise Misfit(f'expected JSON, found {text}, which it lacks')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise Misfit(f'{_plain(_twice(name for name, _ in pairs))}: expected once, found twice in one object')
  return found


def _twice(names: Iterable[str]) -> str | None:
  """The first name that stands there a second time."""
  seen = set()
  return next((name for name in names if name in seen or seen.add(name)), None)


def _check_nesting(value: Any, halves: str) -> None:
  """Refuse what `json` takes, but neither terminals, files nor programs that walk it do."""
  level = [value]
  for _ in range(_DEPTH + 1):
    below = []
    for item in level:
      if isinstance(item, dict):
        below += [*item, *item.values()]
      elif isinstance(item, list):
        below += item
      elif isinstance(item, str) and not item.isascii():
        try:
          item.encode('utf-8', halves)
        except UnicodeEncodeError as error:
          raise Misfit(f'expected text, found half a surrogate pair in {ascii(item)[:_SHOWN]}') from error
    if not below:
      return
    level = below
  raise Misfit(f'expected at most {_DEPTH} levels of nesting, found more')
