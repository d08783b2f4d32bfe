"""The gallery: its grid, its animation, what it refuses."""

import numpy as np
import pytest
import summaries
from PIL import Image

from vqm_jax import pictures
from vqm_jax.report import panels

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 30, 50, 3), dtype=np.uint8)


def scored(folder, name, frames):
  """A scored folder of one clip; returns its summary's path."""
  for side, values in (('output', frames), ('target', FRAMES)):
    for index, frame in enumerate(values):
      pictures.save_png(folder / name / side / 'clip' / f'{index:06d}.png', frame)
  psnr = summaries.scores({'clip': [30.0] * 3})
  sides = {'output': 'output', 'target': 'target'}
  return summaries.write(folder / name, method=name, metrics={'psnr': psnr}, folders=sides)


def test_grid_of_frames():
  frames = {name: FRAMES[k % 3] for k, name in enumerate('abcde')}
  picture = panels.frames_figure(frames, {'a': '31.25 dB'})
  assert picture.shape[1] == 3 * 600 + 2 * 7 and picture.dtype == np.uint8
  top = next(y for y in range(200) if np.array_equal(picture[y, :600], panels.enlarged(FRAMES[0], 12)[0]))
  np.testing.assert_array_equal(picture[top : top + 360, 607:1207], panels.enlarged(FRAMES[1], 12))
  assert (picture[-300:, 1214:] == 255).all()  # no sixth


@pytest.mark.parametrize(('count', 'columns'), [(1, 1), (3, 3), (4, 2), (5, 3), (6, 3), (8, 4), (12, 4), (16, 4)])
def test_columns(count, columns):
  assert panels._columns(count) == columns


def test_binary(binary, tmp_path):
  paths = [scored(tmp_path, 'one', FRAMES), scored(tmp_path, 'two', FRAMES // 2)]
  out = tmp_path / 'out'
  given = [f'--results={paths[0]},{paths[1]}', f'--out={out}']
  blocked = ['av', 'cv2', 'tensorflow', 'tensorflow_datasets', 'flax']
  process = binary('report.gallery', *given, '--clip=clip', '--frame=1', '--animate=2', '--fps=10', blocked=blocked)
  output = process.communicate(timeout=100)[0]
  assert process.returncode == 0, output
  assert output.splitlines()[-2:] == [str(out / 'gallery_clip.png'), str(out / 'gallery_clip.webp')]
  with Image.open(out / 'gallery_clip.webp') as animation:
    assert animation.n_frames == 2 and animation.info['loop'] == 0 and animation.width == 3 * 600 + 2 * 7
  frames = {'one': FRAMES[1], 'two': FRAMES[1] // 2, 'Target': FRAMES[1]}
  picture = np.asarray(Image.open(out / 'gallery_clip.png'))
  assert picture.shape[0] > panels.frames_figure(frames, {}).shape[0]  # with the PSNR under each
