"""The contact sheet of prepared records."""

import make_dummy_data
import numpy as np
import pytest
from PIL import Image

from vqm_jax.prepare.records import driver


def shown(command, data_dir, *args):
  done = command('prepare.show', '--dataset=vqm_demo', f'--data_dir={data_dir}', *args)
  return done.returncode, done.output


def test_windows_and_frames_with_their_psnr(command, micro_data, tmp_path):
  sheet = tmp_path / 'new' / 'sheet.png'
  code, output = shown(command, micro_data, '--config=micro_tiles', '--count=5', f'--output={sheet}')
  assert code == 0, output
  lines = [line for line in output.splitlines() if line.endswith(' dB')]
  assert (
    len(lines) == 5 and lines[0].startswith('train_0') and f'8 records in split train; picture in {sheet}' in output
  )
  picture = np.asarray(Image.open(sheet))
  # Three rows of two pairs, each of three panels of 48x48 with gaps under lines of text, which is whole.
  title = picture.shape[0] // 3 - (18 + 48 + 4)
  assert title in (32, 48) and picture.shape == (3 * (title + 70), 2 * (3 * 52 - 4) + 8, 3)
  assert picture[title + 18 : title + 66, :48].std() > 5  # a window
  assert picture[-70 - title :, -150:].min() == 255  # no sixth one
  code, output = shown(command, micro_data, '--config=micro_frames', '--count=2', f'--output={sheet}')
  assert code == 0 and 'val_00 frame 2, ' in output and 'val_00 frame 6, ' in output, output


@pytest.mark.parametrize(
  ('args', 'message'),
  [(['--output=sheet.jpg'], 'expected a name that ends in .png'), (['--config=tilez'], "no config 'tilez'")],
)
def test_errors_are_one_line(command, micro_data, args, message):
  code, output = shown(command, micro_data, *args)
  assert code in (1, 2) and message in output and len(output.strip().splitlines()) == 1


def test_records_of_two_cameras(command, tmp_path):
  demo = driver.find_builder('vqm_demo')
  for config in ('micro_weak_tiles', 'micro_unpaired_tiles'):
    driver.build(demo(config=config, data_dir=tmp_path), None)
  sheet = tmp_path / 'sheet.png'
  code, output = shown(command, tmp_path, '--config=micro_weak_tiles', '--count=3', f'--output={sheet}')
  assert code == 0, output
  assert output.count(', offset +0 (ncc 0.00), drawn ') == 3 and ' dB' not in output
  # Two rows of pairs: windows of 32 within the 40 of the target's.
  picture = np.asarray(Image.open(sheet))
  title = picture.shape[0] // 2 - (18 + 40 + 4)
  assert title % 16 == 0 and title > 32 and picture.shape[1] == 2 * 84 + 8
  frame = picture[title + 18 : title + 58, 44:84][3:-3, 3:-3]
  assert (frame[0] == 255).all() and (frame[:, -1] == 255).all() and frame[1:-1, 1:-1].min() < 255
  code, output = shown(command, tmp_path, '--config=micro_unpaired_tiles', '--count=4', f'--output={sheet}')
  assert code == 0 and '12 records in split train_source' in output, output


def test_segments(command, tmp_path):
  for side, crf in (('lq', 36), ('hq', 14)):
    (tmp_path / 'in/train' / side).mkdir(parents=True)
    make_dummy_data.write_video(tmp_path / 'in/train' / side / 'a.mp4', make_dummy_data.frames(3), crf=crf)
  driver.build(driver.find_builder('paired_videos')(config='segments', data_dir=tmp_path), tmp_path / 'in')
  sheet = tmp_path / 'sheet.png'
  args = ['--dataset=paired_videos', '--config=segments', f'--output={sheet}']
  code, output = shown(command, tmp_path, *args)
  assert code == 0 and 'a scene 0 frame 5 of a segment of 10, ' in output and ' dB' in output, output
  height, width, _ = np.asarray(Image.open(sheet)).shape
  assert height - (18 + 64 + 4) in (16, 32) and width == 3 * 100 - 4
