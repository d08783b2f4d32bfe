"""Programs on a disk that is nearly full: one line that names the file, nothing half-made, the same command goes on.

On a small disk of its own, which takes root; elsewhere these are skipped.
"""

import pytest
from full_disk import leave, small_disk

BUILD = ['prepare.build', '--dataset=vqm_demo', '--config=micro_tiles']


@pytest.fixture
def disk(tmp_path):
  with small_disk(tmp_path / 'disk') as mounted:
    if not mounted:
      pytest.skip('a small disk cannot be mounted here')
    yield tmp_path / 'disk'


def said(done) -> str:
  """The error that a program ended with, the only thing of its kind that it printed."""
  assert done.returncode == 1 and 'Traceback' not in done.output, done.output
  assert done.output.count('error: ') == 1, done.output
  return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_build_stops_at_any_place_and_goes_on(command, disk):
  args = [*BUILD, f'--data_dir={disk / "data"}']
  for room in (0, 300_000, 490_000, 528_000, 534_000, 538_000):
    leave(disk, room)
    done = command(*args)
    if done.returncode:
      message = said(done)
      assert message.startswith(f'error: {disk / "data" / "vqm_demo"}') and ' free' in message, message
    assert not list(disk.rglob('incomplete.*')) and not list(disk.rglob('*.part')) and not list(disk.rglob('.lock'))
  (disk / 'filler').unlink()
  assert command(*args).returncode == 0


@pytest.mark.slow
def test_training_names_the_file_and_resumes(command, micro_data, disk):
  flags = dict(data_dir=micro_data, dataset_config='micro_tiles', val_config='micro_frames', crop=16, batch_size=8,
               steps=2, log_every=1, save_every=1, eval_every=2, eval_frames=1)  # fmt: skip
  args = ['train', '--config=ecnu:tiny', f'--workdir={disk / "run"}', *(f'--config.{k}={v}' for k, v in flags.items())]
  args += ['--config.system_args.width=4', '--config.system_args.mapping_width=8', '--config.system_args.num_blocks=1']
  for room in (0, 8_000, 100_000, 420_000):
    leave(disk, room)
    message = said(command(*args))
    assert str(disk / 'run') in message and ' are free' in message and 'ake room' in message, message
  (disk / 'filler').unlink()
  done = command(*args)
  assert done.returncode == 0 and 'Finished 2 steps' in done.output, done.output
