"""Writes a test scene of vqm_demo as two videos, to try `vqm_jax.enhance` on: compressed and original.

python -m vqm_jax.prepare.demo_videos --photo=coffee --output=demo/videos
"""

import pathlib

from absl import flags

from vqm_jax import cli, errors
from vqm_jax.prepare.demo import rendered

_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the two videos; made if absent.')
_PHOTO = flags.DEFINE_enum('photo', 'coffee', rendered.PHOTOGRAPHS['test'], 'Photograph to film.')
_FRAMES = flags.DEFINE_integer('frames', 48, 'Length at 25 frames per second.', lower_bound=1)


def main(argv: list[str]) -> None:
  del argv
  if not _OUTPUT.value:
    raise errors.ConfigError('--output is required; see --help.')
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  index = rendered.PHOTOGRAPHS['test'].index(_PHOTO.value)
  scene = rendered.Scene(_PHOTO.value, 'test', _PHOTO.value, index, num_frames=_FRAMES.value)
  print(*rendered.write_pair(scene, folder), sep='\n')


if __name__ == '__main__':
  cli.run(main)
