"""Clips of small frames, packed as submissions."""

import struct
import zlib

import numpy as np
from PIL import Image

from vqm_jax.report import frame_folders
from vqm_jax.report.submission import archive

LINES = (
  'runtime per frame [s] : 1.23\nCPU[1] / GPU[0] : 0\nExtra Data [1] / No Extra Data [0] : 0\n'
  'Other description : one H100, JAX\n'
)
README = archive.Readme(1.23, cpu=False, extra_data=False, other='one H100, JAX')


def save(path, frame):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(frame).save(path)
  return path


def make_clips(folder, clips=('076', '077'), frames=20, size=(24, 32), start=0, noise=0):
  """Folders of numbered frames; the picture of a place is the same wherever it is made, but for noise."""
  for clip in clips:
    for k in range(frames):
      rng = np.random.default_rng([int(clip), k])
      frame = rng.integers(0, 256, (*size, 3)).astype(int)
      frame = np.clip(frame + np.random.default_rng([1, k]).integers(-noise, noise + 1, frame.shape), 0, 255)
      save(folder / clip / f'{k + start:06d}.png', frame.astype(np.uint8))
  return folder


def packed(tmp_path, step=10, pattern=None, name='a.zip', **options):
  clips = frame_folders.find(make_clips(tmp_path / 'frames', **options), '--frames')
  frames = archive.chosen(clips, step)
  names = archive.entry_names(frames, pattern)
  archive.pack(tmp_path / name, {n: frames[clip][number] for n, (clip, number) in names.items()}, README)
  return tmp_path / name


def png(array=None, *, bits=8, colour=2, extra=b''):
  """A PNG file with any head, made by hand: Pillow writes no 16-bit RGB."""

  def chunk(kind, content):
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

  size = struct.pack('>IIBBBBB', 4, 4, bits, colour, 0, 0, 0)
  rows = b''.join(b'\0' + bytes(4 * {0: 1, 2: 3, 6: 4}[colour] * bits // 8) for _ in range(4))
  body = chunk(b'IHDR', size) + extra + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + body
