"""Checks an archive before it is sent, as far as inputs and targets are at hand."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

from vqm_jax import cli, errors
from vqm_jax.report import frame_folders
from vqm_jax.report.submission import archive


@dataclasses.dataclass(frozen=True)
class Verified:
  """An archive in which no problem was found.

  Attributes:
    frames: how many it holds.
    sizes: (width, height) of these, each once.
    named: whether their names and number are those of inputs or targets; otherwise nobody knows.
    scores: means over all frames as a server would take them, PSNR in dB and SSIM; None without targets.
  """

  frames: int
  sizes: list[tuple[int, int]]
  named: bool
  scores: Mapping[str, float] | None = None


def verify(
  path: pathlib.Path,
  select: str = 'every:20',
  *,
  gt_dir: str | os.PathLike | None = None,
  input_dir: str | os.PathLike | None = None,
  names: str | None = None,
) -> Verified:
  """Check names, counts, sizes and readme of a zip; with targets, score its frames.

  Args:
    path: of the zip, which is not unpacked.
    select: which frames of a clip it has: 'all' or 'every:N'.
    gt_dir: the targets.
    input_dir: the inputs as given, whose names count.
    names: the pattern of names; None for those of the inputs or targets.

  Raises:
    ConfigError: a `select` or `names` that is none.
    DataError: the zip is not as it should be, or the folders are not of the same clips.
  """
  step = archive.every(select)
  given = {'--gt_dir': gt_dir, '--input_dir': input_dir}
  chosen = {flag: archive.chosen(frame_folders.find(p, flag), step) for flag, p in given.items() if p}
  expected = targets = None
  if chosen:
    named = chosen.get('--input_dir') or chosen['--gt_dir']
    places = archive.entry_names(named, names)
    expected = {name: size(named[clip][number]) for name, (clip, number) in places.items()}
  if gt_dir:
    try:
      targets = {name: chosen['--gt_dir'][clip][number] for name, (clip, number) in places.items()}
    except KeyError as error:
      raise errors.DataError(f'--gt_dir lacks {error} of --input_dir; give both of the same clips.') from error
  found = archive.verify(path, expected)
  sizes = sorted({(picture.width, picture.height) for picture in found.values()})
  return Verified(len(found), sizes, bool(chosen), _scores(path, targets) if targets else None)


def check_inputs(
  frames: Mapping[str, Mapping[int, pathlib.Path]], inputs: Mapping[str, Mapping[int, pathlib.Path]]
) -> None:
  """Raises DataError if frames, {clip: {number: file}}, have not the numbers and sizes of their inputs."""
  for clip, numbered in frames.items():
    if numbered.keys() != inputs[clip].keys():
      raise errors.DataError(
        f'clip {clip}: {len(numbered)} frames are chosen, {len(inputs[clip])} of --input_dir; complete the clip.'
      )
    for number, file in numbered.items():
      found, given = (size(path) for path in (file, inputs[clip][number]))
      if found != given:
        raise errors.DataError(
          f'{file} is {found[0]}x{found[1]}, its input {given[0]}x{given[1]}; frames keep the size of their inputs.'
        )


def size(path: pathlib.Path) -> tuple[int, int]:
  """Width and height of a picture; raises DataError for what is none."""
  picture = frame_folders.head(path.read_bytes(), str(path))
  return picture.width, picture.height


def _scores(path: pathlib.Path, targets: dict[str, pathlib.Path]) -> dict[str, float]:
  """PSNR in dB and SSIM as a server would take them: means over all frames, protocol ntire."""
  from vqm_jax import metrics  # packing does without JAX

  values = {'PSNR': [], 'SSIM': []}
  names = cli.progress(sorted(targets), desc='scored', unit='frame')
  for name, frame in archive.frames(path, names):
    target = frame_folders.decode(targets[name].read_bytes(), str(targets[name]))
    values['PSNR'].append(min(float(metrics.psnr(frame, target)), metrics.PSNR_OF_IDENTICAL))
    values['SSIM'].append(float(metrics.ssim(frame, target)))
  return {name: sum(found) / len(found) for name, found in values.items()}
