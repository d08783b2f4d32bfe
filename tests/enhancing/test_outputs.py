"""Where outputs go, and what is refused before the work."""

import numpy as np
import pytest

from vqm_jax import errors, video
from vqm_jax.enhancing import outputs


def test_names_beside_an_output(tmp_path):
  assert outputs.compare_path(tmp_path / 'a.mkv').name == 'a_compare.mkv'
  assert outputs.compare_path(tmp_path / 'frames').name == 'frames_compare.mp4'
  assert outputs.reference_path(tmp_path / 'a.b.mp4').name == 'a.b_reference.png'
  assert outputs.suffix_for(tmp_path / 'a.MOV') == '.mov' and outputs.suffix_for(tmp_path / 'a.avi') == '.mkv'


def test_images_give_a_folder_and_one_image_an_image(tmp_path):
  (tmp_path / 'clip').mkdir()
  for number in range(2):
    video.write_png(tmp_path / 'clip' / f'{number}.png', np.zeros((16, 16, 3), np.uint8))
  folder = video.open_video(tmp_path / 'clip')
  assert outputs.default_output(folder, tmp_path / 'clip') == tmp_path / 'clip_enhanced'
  alone = tmp_path / 'clip' / '0.png'
  assert outputs.default_output(video.open_video(alone), alone) == tmp_path / 'clip' / '0_enhanced.png'


def test_pages_and_places(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'there.html').touch()
  for page, message in (
    ('folder', 'is a folder; give --preview the name of a file, for example'),
    ('page.pdf', 'expected the name of a page, for example --preview=page.html'),
    ('there.html', 'exists already; choose another --preview or add --overwrite'),
    ('nowhere/page.html', 'the folder .*nowhere does not exist; create it first'),
  ):
    with pytest.raises(errors.VideoError, match=message):
      outputs.check_page(tmp_path / page, overwrite=False)
  outputs.check_page(tmp_path / 'there.html', overwrite=True)


def test_input_and_output_apart(tmp_path):
  for one, other in ((tmp_path, tmp_path / 'x.mp4'), (tmp_path / 'frames' / 'a.mp4', tmp_path / 'frames')):
    with pytest.raises(errors.VideoError, match='one of input and output lies within the other'):
      outputs.check_apart(one, other)
  outputs.check_apart(tmp_path / 'a', tmp_path / 'ab')
