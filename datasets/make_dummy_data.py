"""Writes datasets/intvid/dummy_data: a miniature of the challenge's folders, for the tests of the builder.

python datasets/make_dummy_data.py [FOLDER]

Four training pairs (three as PNG, one as mp4), a validation pair with flat file names and a validation clip without
target; 10 frames of 96x64 each. Run it again after changing it and commit what it writes: a test compares them.
"""

import pathlib
import shutil
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from vqm_jax import cli, video

NUM_FRAMES, HEIGHT, WIDTH = 10, 64, 96
FPS = Fraction(25)


def frames(index: int) -> list[np.ndarray]:
  """The frames of one clip, uint8 (H, W, 3): coloured waves that drift, smooth so that PNG is small."""
  rng = np.random.default_rng(index)
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  waves = [(rng.uniform(-0.12, 0.12, 2), rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.2, 0.6)) for _ in range(3)]
  clip = []
  for t in range(NUM_FRAMES):
    light = sum(np.sin((dy * y + dx * x + speed * t)[..., None] + phase) for (dy, dx), phase, speed in waves)
    # Steps of 8 levels, which PNG packs well.
    clip.append(np.uint8(np.rint((128 + 36 * light) / 8) * 8))
  return clip


def degrade(frame: np.ndarray) -> np.ndarray:
  """The mean of each block of 4x4 pixels in its place."""
  means = frame.reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean((1, 3))
  return np.uint8(np.rint(means)).repeat(4, 0).repeat(4, 1)


def make(folder: pathlib.Path) -> None:
  """Writes all clips below `folder`."""
  for index in range(3):
    hq = frames(index)
    for side, clip in (('Source', map(degrade, hq)), ('Target', hq)):
      write_images(folder / f'Training{side}Domain' / f'{index:03d}', '{:06d}.png', clip)
  hq = frames(3)
  write_video(folder / 'TrainingSourceDomain' / '003.mp4', hq, crf=36)
  write_video(folder / 'TrainingTargetDomain' / '003.mp4', hq, crf=14)
  hq = frames(60)
  write_images(folder / 'ValidationSource', '060_{:03d}.png', map(degrade, hq))
  write_images(folder / 'ValidationTarget', '060_{:03d}.png', hq)
  write_images(folder / 'ValidationSource', '061_{:03d}.png', map(degrade, frames(61)))


def write_images(folder: pathlib.Path, name: str, clip) -> None:
  """Writes images numbered from 1; `name` has a place for the number."""
  folder.mkdir(parents=True, exist_ok=True)
  for number, frame in enumerate(clip, start=1):
    video.write_png(folder / name.format(number), frame)


def write_video(path: pathlib.Path, clip: Sequence[np.ndarray], crf: float) -> None:
  """Writes an H.264 file."""
  colour = video.Colour('bt709')
  video.encode((video.rgb_to_yuv(frame, colour) for frame in clip), path, fps=FPS, colour=colour, crf=crf)


def main(argv: Sequence[str]) -> None:
  """Replaces the folder and prints its size."""
  folder = pathlib.Path(argv[1] if argv[1:] else cli.ROOT / 'datasets' / 'intvid' / 'dummy_data')
  shutil.rmtree(folder, ignore_errors=True)
  make(folder)
  files = [path for path in folder.rglob('*') if path.is_file()]
  print(f'{len(files)} files, {sum(path.stat().st_size for path in files) / 1e3:.0f} kB in {folder}')


if __name__ == '__main__':
  cli.run(main)
