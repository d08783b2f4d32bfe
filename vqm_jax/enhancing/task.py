"""The work on one video, from the first check to the last line."""

import contextlib
import dataclasses
import pathlib
from fractions import Fraction
from typing import Any, Self

from absl import logging

from vqm_jax import errors, pictures, stopping, video
from vqm_jax.enhancing import forecast as forecasts
from vqm_jax.enhancing import outputs
from vqm_jax.enhancing.clip import Report, enhance_video
from vqm_jax.enhancing.restoring import Restoring, identity
from vqm_jax.inference.reference import AgainstOriginal
from vqm_jax.video import segments

# Seconds for which a preview, which should be quick, looks for damage.
_GLANCE = 10.0
STOPPING = 'leaving after this frame; finished segments are kept.'


@dataclasses.dataclass(frozen=True)
class Options:
  """Of all videos of a run.

  Attributes:
    reading: options of `video.open_video`.
    compare: whether to write input and output side by side, too.
    codec: of the output; None for what suits the input.
    crf: of the output; None for delivery quality.
    reference: the original of the input.
    overwrite: whether outputs may be there.
    preview: whether a few frames are shown only; pictures of a page have 8 bits.
  """

  reading: dict[str, Any] = dataclasses.field(default_factory=dict)
  compare: bool = False
  codec: str | None = None
  crf: float | None = None
  reference: str | None = None
  overwrite: bool = False
  preview: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
  """A video that was opened, and an output that may be written."""

  source: video.VideoSource
  output: pathlib.Path
  options: Options
  against: AgainstOriginal | None = None

  @classmethod
  def open(cls, path: str, output: pathlib.Path | None, options: Options) -> Self:
    """Open input and reference and look at the output, by default beside the input; read no more than it must.

    Raises VideoError for whatever is wrong with one of them.
    """
    # Time stamps are carried over, so that frames need not be evenly spaced.
    source = video.open_video(path, variable_rate=True, deep=not options.preview, lossy=True, **options.reading)
    _check_rate(path, source, options.reading.get('fps'))
    output = output or outputs.default_output(source, pathlib.Path(path))
    against = None
    if options.reference:
      outputs.check_place(outputs.reference_path(output), 'output', options.overwrite)
      against = AgainstOriginal(source, video.open_video(options.reference, variable_rate=True))
    video.examine(source, _GLANCE if options.preview else None)
    video.check_one_frame(output, source)
    logging.info('input: %s: %s', path, video.describe(source))
    return cls(source, output, options, against)

  @property
  def compare(self) -> pathlib.Path | None:
    """Where the comparison goes, if there is to be one."""
    return outputs.compare_path(self.output) if self.options.compare else None

  def forecast(self, restoring: Restoring) -> forecasts.Forecast:
    """Print what the work would take, and return it."""
    forecasts.other_streams(self.source, self.output)  # says what does not fit before the work
    logging.info('timing the first frames ...')
    restore = restoring.at(restoring.strength_for(self.source))
    found = forecasts.forecast(restore, self.source, self.output, self.options.codec, self.options.crf)
    print(f'would write {", ".join(map(str, filter(None, (self.output, self.compare))))}')
    for line in forecasts.lines(found, self.source, self.output):
      print(line)
    self.print_damage()
    return found

  def run(self, restoring: Restoring, stop: stopping.StopRequest | None = None) -> Report:
    """Write the output and print how that went."""
    if left_out := forecasts.other_streams(self.source, self.output)[1]:
      logging.warning('%s: left out of %s: %s', self.source.path, self.output.name, '; '.join(left_out))
    strength = restoring.strength_for(self.source)
    restore = restoring.at(strength)
    job = restoring.job(self.source, strength) | {'deinterlace': self.options.reading.get('deinterlace', False)}
    if self.options.reference:
      job['reference'] = identity(self.against.original)
    report = enhance_video(
      restore, self.source, self.output, compare=self.compare, codec=self.options.codec, crf=self.options.crf, job=job,
      stop=stop, against=self.against,
    )  # fmt: skip
    if not report.complete:
      print(
        f'stopped after frame {report.before + report.frames} of {report.total}; the same command goes on behind frame '
        f'{report.kept}'
      )
      return report
    earlier = f', {report.before} by an earlier run' if report.before else ''
    rate = report.frames / report.seconds
    print(
      f'{report.frames} frames in {report.seconds:.1f} s ({rate:.3g} per second){earlier}, written to {self.output}'
    )
    if report.frames:
      print(report.shares())
    if self.compare:
      print(f'comparison: {self.compare}')
    if self.against:
      self._print_scores(restore)
    self.print_damage()
    return report

  def print_damage(self) -> None:
    """Say which frames are concealed, if any are."""
    if concealed := video.concealed(self.source):
      print(concealed)

  def _print_scores(self, restore) -> None:
    against, picture = self.against, outputs.reference_path(self.output)
    if against.picture is None:  # an earlier run had the frame
      with contextlib.closing(restore(self.source.frames, against.middle, [])) as pairs:
        against.show(*next(pairs))
    pictures.save_png(picture, against.picture)
    print(f'{against}; picture: {picture}')


def check(path: str, output: pathlib.Path, options: Options, dry_run: bool = False) -> bool:
  """Whether there is something to do; False if an earlier run finished the output and was killed right then.

  Raises VideoError if an output cannot be written.
  """
  if not dry_run and segments.settle(output) and not options.overwrite:
    print(f'{output}: was finished by a run that was killed in its last moment; add --overwrite to make it anew')
    return False
  wanted = [output, outputs.compare_path(output)] if options.compare else [output]
  for each in wanted:
    outputs.check_output(pathlib.Path(path), each, options.overwrite)
  return True


def parse_fps(text: str | None) -> Fraction | None:
  """The rate of --fps, None where it is left out; raises ConfigError for anything but a rate."""
  if not text:
    return None
  try:
    fps = Fraction(text)
  except (ValueError, ZeroDivisionError):
    fps = Fraction(0)
  if not 0 < fps <= 1000:
    raise errors.ConfigError(f'--fps={text}: expected frames per second, for example 24 or 24000/1001.')
  return fps


def _check_rate(path, source, fps):
  if fps and isinstance(source, video.VideoFile):
    raise errors.ConfigError(f'--fps={fps} is for images; {path} tells its time itself: leave it out.')
  if not fps and not isinstance(source, video.VideoFile) and source.num_frames > 1:
    logging.info('--fps=%g is taken: images do not tell how fast they follow each other', source.fps)
