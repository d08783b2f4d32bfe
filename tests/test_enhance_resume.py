"""`enhance` as users start it: killed, told to stop, started twice at once."""

import random
import re
import signal
import time

import numpy as np
import pytest
from test_enhance import packets

from vqm_jax import video

FRAMES = 560  # two segments of 250 and a rest


@pytest.fixture
def arguments(tmp_path):
  import test_enhance

  count, test_enhance.COUNT = test_enhance.COUNT, FRAMES
  try:
    source = test_enhance.make(tmp_path / 'in.mp4', 48, 64)
  finally:
    test_enhance.COUNT = count

  def arguments(output):
    return [
      *('enhance', f'--input={source}', f'--output={tmp_path / output}'),
      *('--weights=web-small', '--crf=20', '--strength=1', '--self_ensemble=8'),  # slow enough to be killed at work
    ]

  return arguments


def finished(process):
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return output


def decoded(path):
  return np.stack(list(video.open_video(path).frames()))


def wait_for(path, process):
  while not path.exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['out.mp4', 'out'])
def test_killed_twice_at_random(tmp_path, arguments, binary, name):
  finished(binary(*arguments(f'whole_{name}')))
  chance, parts = random.Random(1), tmp_path / f'.{name}.parts'
  for number in ('000000', '000001'):
    process = binary(*arguments(name))
    wait_for(parts / f'{number}.json', process)
    time.sleep(chance.uniform(0.0, 0.2))
    process.kill()
    process.wait()
  output = finished(binary(*arguments(name)))
  found = re.search(r'going on behind frame (\d+) of 560, which an earlier run has finished', output)
  assert int(found[1]) >= (20 if name == 'out' else 500) and f', {found[1]} by an earlier run, written to' in output
  np.testing.assert_array_equal(decoded(tmp_path / name), decoded(tmp_path / f'whole_{name}'))
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted(['in.mp4', name, f'whole_{name}'])
  if name != 'out':
    assert packets(tmp_path / name) == packets(tmp_path / f'whole_{name}')


@pytest.mark.slow
def test_sigterm_and_a_second_process(tmp_path, arguments, binary):
  process = binary(*arguments('out.mp4'))
  wait_for(tmp_path / '.out.mp4.parts' / '000000.json', process)
  process.send_signal(signal.SIGSTOP)  # at work for as long as the second one takes to start
  second = binary(*arguments('out.mp4'))
  output, _ = second.communicate(timeout=60)
  assert second.returncode == 1
  assert re.search(
    rf'^error: \S*out.mp4: process {process.pid} on \S+ is at work on it; wait until it ends', output, re.M
  )
  process.send_signal(signal.SIGTERM)
  process.send_signal(signal.SIGCONT)
  output = finished(process)
  assert 'SIGTERM received: leaving after this frame; finished segments are kept.' in output
  assert re.search(r'stopped after frame \d+ of 560; the same command goes on behind frame 250$', output, re.M)
  assert 'going on behind frame 250 of 560' in finished(binary(*arguments('out.mp4')))
  assert len(decoded(tmp_path / 'out.mp4')) == FRAMES
