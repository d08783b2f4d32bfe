"""Where outputs go, and whether they may."""

import os
import pathlib

from vqm_jax import errors, video


def compare_path(output: pathlib.Path) -> pathlib.Path:
  """Where `--compare` puts the side-by-side video, or image, of an output."""
  # Its sound must fit, too.
  return output.with_name(f'{output.stem}_compare{output.suffix or ".mp4"}')


def reference_path(output: pathlib.Path) -> pathlib.Path:
  """Where `--reference` puts the picture of an output's middle frame beside the original."""
  return output.with_name(f'{output.stem}_reference.png')


def default_output(source: video.VideoSource, path: pathlib.Path) -> pathlib.Path:
  """Beside the input, `in_enhanced.mp4` of `in.mp4`; Matroska or PNG where we do not write the input's kind of file."""
  suffix = suffix_for(path) if isinstance(source, video.VideoFile) else ''
  if not suffix and source.num_frames == 1 and path.is_file():
    suffix = path.suffix.lower() if path.suffix.lower() in video.IMAGE_SUFFIXES else '.png'
  return path.parent / f'{source.name}_enhanced{suffix}'


def suffix_for(path: pathlib.Path) -> str:
  """That of a video file's output: its own, or that of Matroska, which holds any sound."""
  suffix = path.suffix.lower()
  return suffix if suffix in video.OUTPUT_SUFFIXES else '.mkv'


def check_output(source: pathlib.Path, output: pathlib.Path, overwrite: bool) -> None:
  """Raises VideoError if `output` is the input, exists without leave, or cannot be written to."""
  if output.suffix and output.suffix.lower() not in (*video.OUTPUT_SUFFIXES, *video.IMAGE_SUFFIXES):
    raise errors.VideoError(
      f'{output}: video is written to {", ".join(video.OUTPUT_SUFFIXES)}, one image to '
      f'{", ".join(video.IMAGE_SUFFIXES)}, several to a folder without a suffix'
    )
  if output.suffix and output.is_dir():
    raise errors.VideoError(
      f'{output}: is a folder; give --output the name of a file, for example {output / output.name}'
    )
  if output.resolve() == source.resolve() or (output.exists() and source.exists() and output.samefile(source)):
    raise errors.VideoError(f'{output}: is the input itself; choose another --output')
  check_apart(source, output)
  check_place(output, 'output', overwrite)


def check_apart(source: pathlib.Path, output: pathlib.Path) -> None:
  """Raises VideoError if one of two paths lies within the other."""
  if source.resolve() in output.resolve().parents or output.resolve() in source.resolve().parents:
    raise errors.VideoError(f'{output}: one of input and output lies within the other; choose another --output')


def check_page(page: pathlib.Path, overwrite: bool) -> None:
  """Raises VideoError if `page` is not HTML by its name, is a folder, exists without leave, or cannot be written to."""
  if page.is_dir():
    raise errors.VideoError(f'{page}: is a folder; give --preview the name of a file, for example {page / "page.html"}')
  if page.suffix.lower() not in ('.html', '.htm'):
    raise errors.VideoError(f'{page}: expected the name of a page, for example --preview={page.stem}.html')
  check_place(page, 'preview', overwrite)


def check_place(path: pathlib.Path, flag: str, overwrite: bool) -> None:
  """Raises VideoError if `path`, given as --`flag`, exists without leave, or its folder cannot be written to."""
  if path.exists() and not overwrite:
    raise errors.VideoError(f'{path}: exists already; choose another --{flag} or add --overwrite')
  if not path.parent.is_dir():
    raise errors.VideoError(f'{path}: the folder {path.parent} does not exist; create it first')
  if not os.access(path.parent, os.W_OK):
    raise errors.VideoError(f'{path}: the folder {path.parent} is not writable; choose another --{flag}')
