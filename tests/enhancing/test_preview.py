"""The page of `--preview` from Python; what it holds is in `report/page/test_preview.py`."""

import pathlib

import numpy as np
from report.parsed_page import Parsed, pixels

from vqm_jax import inference, restorers, video
from vqm_jax.enhancing import preview, restoring, task


def test_frames_before_and_after_with_the_command_for_the_whole(tmp_path, capsys):
  frames = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)
  (tmp_path / 'in').mkdir()
  for number, frame in enumerate(frames):
    video.write_png(tmp_path / 'in' / f'{number}.png', frame)
  run = inference.Run(restorers.create('none', rngs=None), {'system': 'none'}, pathlib.Path('x'), 7, 7, True, 0, None)
  given = task.Task(video.open_video(tmp_path / 'in'), tmp_path / 'out', task.Options(preview=True))
  network = restoring.Restoring(run)
  preview.write(tmp_path / 'page.html', network, given, 0.75, lambda strength: f'enhance at {strength:g}')
  page = Parsed((tmp_path / 'page.html').read_text(encoding='utf-8'))
  assert [still['frame'] for still in page.data['stills']] == [0, 1, 2]
  for still, frame in zip(page.data['stills'], frames, strict=True):
    assert len(still['pictures']) == 5  # before, after at 0.5, 0.75, 1, 1.5
    np.testing.assert_array_equal(pixels(still['pictures'][0]), frame)
  assert capsys.readouterr().out.splitlines()[-1] == 'the whole video: enhance at 0.75'
