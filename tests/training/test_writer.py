import json
import struct
import sys
import threading
import types

import numpy as np
import pytest
from full_disk import no_file_beyond
from PIL import Image
from tensorboardX.proto import event_pb2

from vqm_jax import errors
from vqm_jax.training.writer import Writer


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_lines_after_the_restored_step_and_torn_ones_are_dropped(tmp_path):
  with Writer(tmp_path) as writer:
    for step in (1, 2, 3):
      writer.scalars(step, {'train/loss': step / 2})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "tra')
  with Writer(tmp_path, last_step=2) as writer:
    writer.scalars(3, {'train/loss': np.inf})
  assert [(line['step'], line['train/loss']) for line in lines(tmp_path)] == [(1, 0.5), (2, 1.0), (3, 'inf')]
  assert list(tmp_path.glob('events.out.tfevents.*'))


def events(path):
  """What an event file holds: records of length, checksum, event, checksum."""
  content, found = path.read_bytes(), []
  while content:
    (size,) = struct.unpack('<Q', content[:8])
    found.append(event_pb2.Event.FromString(content[12 : 12 + size]))
    content = content[16 + size :]
  return found


def test_tensorboard_gets_scalars_and_pictures_and_is_told_where_a_run_went_on(tmp_path):
  with Writer(tmp_path) as writer:
    writer.scalars(1, {'a/x': 1.5})
    writer.picture(1, 'clip', np.zeros((4, 6, 3), np.uint8))
  with Writer(tmp_path, last_step=1) as writer:
    writer.scalars(2, {'a/x': 2.5, 'a/y': np.inf})
  first, second = sorted(tmp_path.glob('events.out.tfevents.*'), key=lambda path: path.suffix)
  version, scalar, picture = events(first)
  assert version.file_version == 'brain.Event:2' and scalar.step == picture.step == 1
  assert (scalar.summary.value[0].tag, scalar.summary.value[0].simple_value) == ('a/x', 1.5)
  assert picture.summary.value[0].tag == 'samples/clip' and picture.summary.value[0].image.width == 6
  _, _, start, x, y = events(second)
  assert start.step == 2 and start.session_log.status == event_pb2.SessionLog.START
  assert x.summary.value[0].simple_value == 2.5 and y.summary.value[0].simple_value == np.inf


@pytest.mark.parametrize('what', ['metrics.jsonl', 'events.out.tfevents', '0000002.png'])
def test_a_full_disk_is_told_by_the_file_and_nothing_waits(tmp_path, what):
  noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
  before = threading.active_count()
  with (
    pytest.raises(errors.DiskFullError, match=f'{what}: no room to write this; .* are free'),
    Writer(tmp_path) as writer,
  ):
    writer.scalars(1, {'a/x': 1.0})
    if what == 'events.out.tfevents':
      writer.picture(1, 'clip', noise)  # the event file is the largest by now
    with no_file_beyond(400 if what != 'events.out.tfevents' else 12_000):
      if what == '0000002.png':
        writer.picture(2, 'clip', noise)
      for step in range(2, 1000):
        writer.scalars(step, {f'{"metric" * (5 if what == "metrics.jsonl" else 1)}/{k}': 1.0 for k in range(4)})
  assert threading.active_count() == before


def test_pictures_are_png(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  with Writer(tmp_path) as writer:
    writer.picture(7, 'clip', picture)
  np.testing.assert_array_equal(Image.open(tmp_path / 'samples' / 'clip' / '0000007.png'), picture)


def test_wandb_gets_the_same_scalars(tmp_path, monkeypatch):
  logged = []
  run = types.SimpleNamespace(
    log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append('end')
  )
  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=lambda **kwargs: run))
  with Writer(tmp_path, wandb_project='vqm') as writer:
    writer.scalars(5, {'train/loss': 1.0})
  assert logged == [(5, {'train/loss': 1.0}), 'end']


def test_wandb_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(errors.ConfigError, match=r'\[wandb\]'):
    Writer(tmp_path, wandb_project='vqm')
