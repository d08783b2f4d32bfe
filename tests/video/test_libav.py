"""One place knows what PyAV raises, and all that open, decode or write turn it into one line."""

import ast
import pathlib

import av
import numpy as np
import pytest

import vqm_jax
from vqm_jax import errors
from vqm_jax.video import compression, decoding, libav, open_video, open_writer, remux, segments

PACKAGE = pathlib.Path(vqm_jax.__file__).parent
# Each as PyAV has been seen to raise it.
RAISED = [
  av.error.InvalidDataError(1094995529, 'Invalid data found when processing input', 'a.mp4'),
  av.error.EOFError(541478725, 'End of file'),
  av.error.UndefinedError(1, 'Operation not permitted'),
  FileNotFoundError(2, 'No such file or directory', 'a.mp4'),
  ValueError('Unexpected None in\nan argument'),
  UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'),
  IndexError('list index out of range'),
  KeyError('no_such_option'),
  OverflowError('value too large to convert to int'),
  NotImplementedError('this packet'),
]


def kind(error):
  return type(error).__name__


@pytest.mark.parametrize('error', RAISED, ids=kind)
def test_whatever_pyav_raises_becomes_one_line(error):
  with (
    pytest.raises(errors.VideoError, match='cannot be read') as caught,
    libav.fenced(lambda why: f'cannot be read ({why})'),
  ):
    raise error
  assert '\n' not in str(caught.value)
  assert caught.value.__cause__ is error


def test_errors_of_ours_pass():
  found = errors.VideoError('clip.mp4: frame 3 is damaged')
  with pytest.raises(errors.VideoError) as caught, libav.fenced(lambda why: why):
    raise found
  assert caught.value is found


def test_what_is_no_refusal_passes_where_only_refusals_are_meant():
  with pytest.raises(OSError), libav.fenced(lambda why: why, libav.REFUSALS):
    raise av.error.OSError(28, 'No space left on device')


@pytest.fixture
def clip(tmp_path):
  path = tmp_path / 'clip.mp4'
  write(path)
  return path


def write(path):
  with open_writer(path, fps=25, height=48, width=64) as writer:
    for k in range(4):
      writer.write(np.full((48, 64, 3), 40 * k, np.uint8))


CALLS = {
  'open': lambda path, video: open_video(path),
  'compression': lambda path, video: list(compression._traced(video, None, 4)),
  'segment of records': lambda path, video: remux.decode(b'', 0, 1),
  'segment': lambda path, video: segments._packets(path),
  'write': lambda path, video: write(path.with_name('other.mp4')),
}


@pytest.mark.parametrize('error', RAISED, ids=kind)
@pytest.mark.parametrize('call', CALLS)
def test_every_place_that_opens_a_file_takes_all_of_them(clip, monkeypatch, call, error):
  video = open_video(clip)

  def fails(*args, **kwargs):
    raise error

  monkeypatch.setattr(av, 'open', fails)
  with pytest.raises(errors.VideoError):
    CALLS[call](clip, video)


@pytest.mark.parametrize('error', RAISED, ids=kind)
def test_a_decoder_that_fails_is_told_of_the_file(clip, monkeypatch, error):
  video = open_video(clip)

  def fails(*args, **kwargs):
    raise error
    yield

  monkeypatch.setattr(decoding, '_frames_of', fails)
  with pytest.raises(errors.VideoError, match='clip.mp4'):
    list(video.frames())


def test_no_other_place_names_them():
  found = []
  for path in sorted(PACKAGE.rglob('*.py')):
    if path.name == 'libav.py':
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ExceptHandler) and node.type is not None:
        names = {f'{ast.unparse(each)}' for each in ast.walk(node.type) if isinstance(each, ast.Attribute)}
        found += [f'{path.name}:{node.lineno}: {name}' for name in names if name.startswith('av.')]
  assert not found
