"""The exceptions that users see.

Each message is one line that names the file or field, what was expected, what was found and what to do. The binaries
print it without a traceback (`--debug` shows it) and leave with `exit_code`.
"""

import difflib
import re
from collections.abc import Iterable

LONGEST = 500  # characters of a message
_TAIL = 200  # of them are kept of its end, where the remedy stands
_HEAD = 120  # and so many of its beginning, even where the remedy is a long command


class VqmError(Exception):
  """Something that the user can mend."""

  exit_code = 1


class ConfigError(VqmError):
  """A flag or a config field is wrong: unknown, of another type, or out of range."""

  exit_code = 2


class DataError(VqmError):
  """Records, folders or pairs of frames are missing, damaged or do not fit each other."""


class VideoError(VqmError):
  """A video or an image cannot be read or written, or its format is not supported."""


class DiskFullError(VideoError):
  """There is no room for what is to be written."""


class CheckpointError(VqmError):
  """A workdir or checkpoint is missing, damaged or belongs to another run."""


class DivergenceError(VqmError):
  """Training produced a loss or gradient that is not a number."""


class MissingWeightsError(VqmError):
  """Weights that users bring themselves, of a feature network, are not where they are looked for."""


class BusyError(VqmError):
  """Another process is at work on the same thing."""


def reason(error: BaseException, longest: int = 160) -> str:
  """Return the message of another library's exception for use within a line: its first line, or else its type."""
  lines = str(error).strip().splitlines()
  return one_line(lines[0], longest) if lines and lines[0].strip() else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Return "did you mean 'ecnu'? " for a name that is none of those known; '' if none is spelled nearly alike."""
  spelled = {one.lower(): one for one in known}
  near = difflib.get_close_matches(name[:_TAIL].lower(), spelled, n=1)
  return f'did you mean {spelled[near[0]]!r}? ' if near else ''


def one_line(text: str, longest: int = LONGEST) -> str:
  """A message as it is shown: a line of at most `longest` characters, of which the middle is left out.

  Without bytes that are no text, addresses of objects and the hidden names that files have until they are whole.
  """
  text = re.sub(r'<(?:[\w.]+\.)?(\w+)(?: [^<>]*)? at 0x[0-9a-fA-F]+>', r'\1', text)
  text = re.sub(r'(^|[/\'"\s])\.([^/\s]+?)\.\d+\.(?:partial|part)\b', r'\1\2', text)
  text = re.sub(r'(?:\\x[0-9a-fA-F]{2}){2,}', '?', text)
  text = ' '.join(''.join(c if c.isprintable() or c.isspace() else '?' for c in text).split())
  if len(text) <= longest:
    return text
  tail = min(_TAIL, longest // 3)
  if command := re.search(r'`[^`]+`[^`]*$', text):  # half a command is none
    tail = min(max(tail, len(command[0])), max(tail, longest - _HEAD))
  return f'{text[: longest - tail - 5].rstrip()} ... {text[-tail:].lstrip()}'
