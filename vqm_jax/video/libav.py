"""The fence around PyAV: what its calls can end in, and how that becomes an error of ours.

Nothing else of this package says which exceptions those are, so that no place knows fewer of them than another.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import av

from vqm_jax import errors

# libav's own errors; what PyAV refuses before libav is asked (arguments, encodings, streams that are not there, numbers
# beyond C's); what the file itself says.
ERRORS: Final = (av.FFmpegError, OSError, ValueError, LookupError, OverflowError, NotImplementedError)
# A muxer that does not take a stream or a packet. What else it raises is of the disk.
REFUSALS: Final = (av.error.InvalidDataError, av.error.ArgumentError, ValueError)
# A filter that wants more frames before it gives one, or has given all.
NOTHING_YET: Final = (av.error.BlockingIOError, av.error.EOFError)


def reason(error: BaseException) -> str:
  """Return what libav says of an error, to stand within a line."""
  return errors.one_line(getattr(error, 'strerror', None) or errors.reason(error))


@contextlib.contextmanager
def fenced(message: Callable[[str], str], of: tuple[type[Exception], ...] = ERRORS) -> Iterator[None]:
  """Turn what PyAV raises in this context into a VideoError.

  Args:
    message: makes its message of libav's reason.
    of: the exceptions that are meant; others, and errors of ours, pass.
  """
  try:
    yield
  except of as error:
    raise errors.VideoError(message(reason(error))) from error


def damaged(path: object, why: str) -> str:
  """Return the message for a file that cannot be read or decoded any further."""
  return f'{path}: damaged, cannot be read ({why}); copy or download the file again'
