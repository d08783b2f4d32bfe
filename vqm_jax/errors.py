"""The exceptions that users see.

Each message is one line that names the file or field, what was expected, what was found and what to do. The binaries
print it without a traceback (`--debug` shows it) and leave with `exit_code`.
"""


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
