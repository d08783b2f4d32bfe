"""Rules for the names of clips, methods and raters: they come out of data and end in names of files, so no paths."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from vqm_jax import errors

LONGEST = 120  # bytes in UTF-8: file systems take 255, and names are prolonged by suffixes
# Control characters, among them those that hide what a name ends in; halves of characters, separators of lines.
_UNSEEN = {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}
_JOINERS = '\u200c\u200d'  # within words of some scripts and within emoji
# Devices of Windows, with any suffix; and what an evaluation calls a file of its own beside those of clips.
_RESERVED = re.compile(r'(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?|timing', re.IGNORECASE)


def problem(name: Any) -> str | None:
  """Say why this is no name for a clip, method or rater, 'is empty' for example; None if it is one."""
  if not isinstance(name, str):
    return f'is no text but {type(name).__name__}'
  if unseen := label_problem(name):
    return unseen
  if '/' in name or '\\' in name or re.match('[A-Za-z]:', name):
    return 'is a path'
  if name in ('.', '..') or _RESERVED.fullmatch(name):
    return 'is reserved'
  if len(name.encode()) > LONGEST:
    return f'has {len(name.encode())} bytes, at most {LONGEST} are allowed'
  return None


def label_problem(text: str) -> str | None:
  """Say why this text, which may be a path, cannot be shown; None if it can."""
  if not text.strip():
    return 'is empty'
  if any(unicodedata.category(letter) in _UNSEEN and letter not in _JOINERS for letter in text):
    return 'has control characters'
  return None


def check(names: Iterable[Any], where: str, kind: str = 'clip') -> None:
  """Raises DataError for the first of `names` that a `kind` of thing may not have; `where` is the file it is from."""
  for name in names:
    if found := problem(name):
      raise errors.DataError(f'{where}: {refusal(name, found, kind)}')


def refusal(name: Any, found: str, kind: str = 'clip') -> str:
  """The words of `check`: ``clip '../x' is a path; expected a plain name, rename it``."""
  shown = repr(name) if len(repr(name)) <= 80 else f'{repr(name)[:60]}...'
  return f'{kind} {shown} {found}; expected a plain name of at most {LONGEST} bytes, so rename it.'
