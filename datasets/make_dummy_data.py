"""Writes datasets/{intvid,vid3oc}/dummy_data: miniatures of the challenge's folders, for the tests of the builders.

python datasets/make_dummy_data.py

intvid: four training pairs (three as PNG, one as mp4), a validation pair with flat file names and a validation clip
without target; 10 frames of 96x64 each. vid3oc: two training pairs (one as PNG; one as mp4, the target at another rate
and size), a validation pair and a test clip without target. Run it again after changing it and commit what it writes:
tests compare them.
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


def make_intvid(folder: pathlib.Path) -> None:
  """Writes all clips below `folder`."""
  for index in range(3):
    hq = frames(index)
    for side, clip in (('Source', map(degrade, hq)), ('Target', hq)):
      write_images(folder / f'Training{side}Domain' / f'{index:03d}', '{:06d}.png', clip, first=0)
  hq = frames(3)
  write_video(folder / 'TrainingSourceDomain' / '003.mp4', hq, crf=36)
  write_video(folder / 'TrainingTargetDomain' / '003.mp4', hq, crf=14)
  hq = frames(60)
  write_images(folder / 'ValidationSource', '060_{:06d}.png', map(degrade, hq), first=0)
  write_images(folder / 'ValidationTarget', '060_{:06d}.png', hq, first=0)
  write_images(folder / 'ValidationSource', '061_{:06d}.png', map(degrade, frames(61)), first=0)


def make_vid3oc(folder: pathlib.Path) -> None:
  """Writes all clips below `folder`."""
  for split, index in (('train', 0), ('val', 50)):
    hq = frames(index)
    write_images(folder / split / 'ZED' / f'{index:03d}', '{:06d}.png', map(film_badly, hq))
    write_images(folder / split / 'Canon' / f'{index:03d}', '{:06d}.png', hq)
  hq = frames(1)
  write_video(folder / 'train' / 'ZED' / '001.mp4', [film_badly(frame) for frame in hq], crf=26)
  larger = [frame.repeat(2, 0).repeat(2, 1) for frame in hq for _ in range(2)]
  write_video(folder / 'train' / 'Canon' / '001.mp4', larger, crf=20, fps=2 * FPS)
  write_images(folder / 'test' / 'ZED' / '066', '{:06d}.png', map(film_badly, frames(66)))


def film_badly(frame: np.ndarray) -> np.ndarray:
  """Less contrast, another white, and a few pixels to the side."""
  picture = 40 + 0.6 * np.roll(frame, 4, axis=1) * (1.0, 0.95, 0.85)
  return np.uint8(np.rint(picture / 8) * 8)


def write_images(folder: pathlib.Path, name: str, clip, first: int = 1) -> None:
  """Writes images numbered from `first`; `name` has a place for the number."""
  folder.mkdir(parents=True, exist_ok=True)
  for number, frame in enumerate(clip, start=first):
    video.write_png(folder / name.format(number), frame)


def write_video(path: pathlib.Path, clip: Sequence[np.ndarray], crf: float, fps: Fraction = FPS) -> None:
  """Writes an H.264 file."""
  colour = video.Colour('bt709')
  video.encode((video.rgb_to_yuv(frame, colour) for frame in clip), path, fps=fps, colour=colour, crf=crf)


MAKERS = {'intvid': make_intvid, 'vid3oc': make_vid3oc}


def main(_: Sequence[str]) -> None:
  """Replaces the folders and prints their sizes."""
  for dataset, make in MAKERS.items():
    folder = cli.ROOT / 'datasets' / dataset / 'dummy_data'
    shutil.rmtree(folder, ignore_errors=True)
    make(folder)
    files = [path for path in folder.rglob('*') if path.is_file()]
    print(f'{len(files)} files, {sum(path.stat().st_size for path in files) / 1e3:.0f} kB in {folder}')


if __name__ == '__main__':
  cli.run(main)
