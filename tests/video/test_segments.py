"""Outputs in segments: whole, resumed, killed, damaged, on a full disk."""

import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from vqm_jax import errors, video
from vqm_jax.video import segments
from vqm_jax.video.segments import SegmentedOutput

COUNT, LENGTH = 23, 5
JOB = {'network': 'x', 'strength': 0.5}


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
  for kind in (segments._Coded, segments._Images):
    monkeypatch.setattr(kind, 'length', LENGTH)


def frame(t, height=48, width=64):
  y, x = np.mgrid[:height, :width]
  return (120 + 80 * np.stack([np.sin(x / 9 + t), np.cos(y / 8 - t), np.sin((x + y) / 9 + t)], -1)).astype(np.uint8)


def make(path, count=COUNT, times=None):
  """A video with sound; `times` are in milliseconds."""
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('libx264', rate=25, options={'crf': '8'})
    stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
    stream.codec_context.time_base = Fraction(1, 1000)
    audio = output.add_stream('aac', rate=48000, layout='stereo')
    noise = np.random.default_rng(0).integers(-9999, 9999, (1, 2048), dtype=np.int16)
    for t in range(count):
      picture = video.rgb_to_yuv(frame(t), video.Colour('bt601'))
      picture.pts = times[t] if times else 40 * t
      output.mux(stream.encode(picture))
      samples = av.AudioFrame.from_ndarray(noise, 's16', 'stereo')
      samples.sample_rate, samples.pts = 48000, 1024 * t
      output.mux(audio.encode(samples))
    output.mux(stream.encode(None))
    output.mux(audio.encode(None))
  return video.open_video(path, variable_rate=True)


def work(source, output, until=None, job=JOB, **options):
  """Writes frames up to `until`, or all and the output; returns at which frame it began."""
  size = dict(height=source.height, width=source.width)
  with SegmentedOutput(output, source, job=job, **size, **options) as writer:
    start = writer.done
    for t in range(start, COUNT if until is None else until):
      writer.write(frame(t))
    if until is None:
      segments.publish([writer])
  return start


def decoded(path):
  return np.stack(list(video.open_video(path, variable_rate=True).frames()))


def sound(path):
  with av.open(str(path)) as container:
    return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(audio=0) if p.size]


def listed(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
  ('name', 'codec'), [('out.mp4', 'h264'), ('out.mkv', 'h264'), ('out.mov', 'h265'), ('out', 'h264')]
)
def test_resumed_equals_undisturbed(tmp_path, name, codec):
  source = make(tmp_path / 'in.mp4', times=[40 * t + 7 * (t % 3) for t in range(COUNT)])
  (tmp_path / 'whole').mkdir()
  (tmp_path / 'parts').mkdir()
  assert work(source, tmp_path / 'whole' / name, codec=codec) == 0
  output = tmp_path / 'parts' / name
  starts = [work(source, output, until, codec=codec) for until in (3, 7, 7, 19, 22, None)]
  assert starts == [0, 0, 5, 5, 15, 20]
  assert listed(output.parent) == [name]
  whole = decoded(tmp_path / 'whole' / name)
  np.testing.assert_array_equal(decoded(output), whole)
  assert np.abs(whole.astype(int) - [frame(t) for t in range(COUNT)]).mean() < 4
  if '.' in name:
    result = video.open_video(output, variable_rate=True)
    step = source.timestamps[0] * source.time_base - result.timestamps[0] * result.time_base
    for before, after in zip(source.timestamps, result.timestamps, strict=True):
      assert abs(before * source.time_base - after * result.time_base - step) < Fraction(1, 900)
    assert [data for _, data in sound(output)] == [data for _, data in sound(source.path)]


@pytest.mark.parametrize(('count', 'codec'), [(1, 'h264'), (2, 'h264'), (6, 'h264'), (1, 'h265')])
def test_few_frames(tmp_path, count, codec):
  source = make(tmp_path / 'in.mp4', count)
  with SegmentedOutput(tmp_path / 'out.mp4', source, height=48, width=64, codec=codec) as writer:
    for t in range(count):
      writer.write(frame(t))
    segments.publish([writer])
  result = video.open_video(tmp_path / 'out.mp4')
  assert (result.num_frames, len(list(result.frames()))) == (count, count)
  assert result.timestamps == source.timestamps and sound(result.path) == sound(source.path)


def test_it_is_what_an_unsegmented_writer_gives(tmp_path):
  """But for the coding of the pictures."""
  source = make(tmp_path / 'in.mp4')
  work(source, tmp_path / 'out.mp4')
  with video.open_writer(tmp_path / 'one.mp4', fps=source.fps, height=48, width=64, source=source) as writer:
    for t in range(COUNT):
      writer.write(frame(t))
  for a, b in zip(*(video.open_video(tmp_path / name).frames() for name in ('out.mp4', 'one.mp4')), strict=True):
    assert np.abs(a.astype(int) - b).mean() < 3

  def facts(name):
    with av.open(str(tmp_path / name)) as container:
      streams = [(s.type, s.time_base, s.average_rate if s.type == 'video' else None) for s in container.streams]
      times = sorted((p.stream_index, p.pts, p.duration) for p in container.demux() if p.size)
      extradata = container.streams.video[0].codec_context.extradata
      return streams, times, extradata, container.streams.video[0].codec_context.codec_tag, container.duration

  assert facts('out.mp4') == facts('one.mp4')


def test_notes_come_back(tmp_path):
  source = make(tmp_path / 'in.mp4')
  seen = dict(notes=lambda start, stop: {'squares': [t * t for t in range(start, stop)]})
  work(source, tmp_path / 'out.mp4', 12, **seen)
  with SegmentedOutput(tmp_path / 'out.mp4', source, height=48, width=64, job=JOB) as writer:
    assert [square for note in writer.notes for square in note['squares']] == [t * t for t in range(10)]
    assert writer.rewind(9) == 5
    assert len(writer.notes) == 1 and not (writer.folder / '000001.nut').exists()


@pytest.mark.parametrize('name', ['out.mp4', 'out'])
@pytest.mark.parametrize('other', [{'network': 'y'}, {'network': 'x', 'strength': 0.25}])
def test_what_another_job_left_is_removed_and_told(tmp_path, caplog, name, other):
  source = make(tmp_path / 'in.mp4')
  work(source, tmp_path / name, 12)
  folder = tmp_path / f'.{name}.parts'
  assert len([path for path in folder.rglob('*') if path.suffix in ('.nut', '.png')]) == (10 if name == 'out' else 2)
  assert work(source, tmp_path / name, 7, job=other) == 0
  assert f'{folder}: what another job, or another version, has left there is removed' in caplog.text
  assert work(source, tmp_path / name, job=other) == 5
  assert listed(tmp_path) == sorted(['in.mp4', name])


def test_other_coding_is_another_job(tmp_path):
  source = make(tmp_path / 'in.mp4')
  work(source, tmp_path / 'out.mp4', 12, crf=20)
  assert work(source, tmp_path / 'out.mp4', 12, crf=21) == 0
  assert work(source, tmp_path / 'out.mp4', 12, crf=21, codec='h265') == 0


def test_without_a_job_nothing_is_kept(tmp_path):
  source = make(tmp_path / 'in.mp4')
  work(source, tmp_path / 'out.mp4', 12, job=None)
  with pytest.raises(ValueError), SegmentedOutput(tmp_path / 'out', source, height=48, width=64) as writer:
    for t in range(12):
      writer.write(frame(t))
    raise ValueError
  assert listed(tmp_path) == ['in.mp4']


@pytest.mark.parametrize('name', ['out.mp4', 'out'])
@pytest.mark.parametrize('damage', ['shorter', 'other bytes', 'gone', 'no record', 'half a record', 'empty record'])
def test_damaged_segments_are_made_anew(tmp_path, name, damage):
  source = make(tmp_path / 'in.mp4')
  work(source, tmp_path / name, 19)
  folder = tmp_path / f'.{name}.parts'
  file, record = folder / ('000001.nut' if '.' in name else 'images/000006.png'), folder / '000001.json'
  if damage == 'shorter':
    os.truncate(file, file.stat().st_size - 1)
  elif damage == 'other bytes':
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)
  elif damage == 'gone':
    file.unlink()
  elif damage == 'no record':
    record.unlink()
  else:
    os.truncate(record, 20 if damage == 'half a record' else 0)
  assert work(source, tmp_path / name) == 5
  work(source, tmp_path / f'whole_{name}')
  np.testing.assert_array_equal(decoded(tmp_path / name), decoded(tmp_path / f'whole_{name}'))


def test_leftovers_of_a_kill_are_removed(tmp_path):
  source = make(tmp_path / 'in.mp4')
  work(source, tmp_path / 'out.mp4', 12)
  folder = tmp_path / '.out.mp4.parts'
  for name in ('.000002.123.part.nut', '.000001.json.77.partial', 'joined.mp4', '000002.nut', '000007.json'):
    (folder / name).write_text('x')
  (folder / 'deep' / 'er').mkdir(parents=True)
  (folder / 'deep' / 'er' / 'x').write_text('x')
  assert work(source, tmp_path / 'out.mp4', 12) == 10
  assert listed(folder) == ['000000.json', '000000.nut', '000001.json', '000001.nut', 'job.json', 'lock']


def test_a_second_process_is_refused(tmp_path):
  source = make(tmp_path / 'in.mp4')
  with SegmentedOutput(tmp_path / 'out.mp4', source, height=48, width=64, job=JOB) as writer:
    for t in range(7):
      writer.write(frame(t))
    with pytest.raises(errors.BusyError, match=f'out.mp4: process {os.getpid()} on .* is at work on it'):
      work(source, tmp_path / 'out.mp4')
    assert (writer.folder / '000000.nut').exists()


def test_wrong_frames(tmp_path):
  source = make(tmp_path / 'in.mp4')
  with SegmentedOutput(tmp_path / 'out.mp4', source, height=48, width=64, job=JOB) as writer:
    with pytest.raises(
      errors.VideoError, match=r'out.mp4: frame 0 is uint8 \(48, 40, 3\), expected uint8 \(48, 64, 3\)'
    ):
      writer.write(frame(0, 48, 40))
    with pytest.raises(errors.VideoError, match='0 frames were given, the source has 23'):
      segments.publish([writer])
    for t in range(COUNT):
      writer.write(frame(t))
    with pytest.raises(errors.VideoError, match='more frames were given than the source has, 23'):
      writer.write(frame(0))


class Killed(BaseException):
  pass


@pytest.mark.parametrize('name', ['out.mp4', 'out'])
@pytest.mark.parametrize('there', [False, True])
def test_a_kill_in_the_last_moment(tmp_path, monkeypatch, name, there):
  """Before every step of moving two finished outputs to their places, where something is replaced or not."""
  source, names = make(tmp_path / 'in.mp4', 6), (name, 'both.mp4')
  steps = 0

  def allowing(count):
    def step(do, *args, **options):
      nonlocal count
      if count == 0:
        raise Killed
      count -= 1
      return do(*args, **options)

    return lambda do: lambda *args, **options: step(do, *args, **options)

  def begin():
    return [SegmentedOutput(tmp_path / each, source, height=48, width=64, job=JOB) for each in names]

  killed = True
  while killed:
    for path in (tmp_path / each for each in names):
      shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
      if there:
        path.write_text('old') if path.suffix else path.mkdir()
    outputs = begin()
    with outputs[0], outputs[1]:
      for writer in outputs:
        for t in range(6):
          writer.write(frame(t))
        writer.join()
        monkeypatch.setattr(writer, 'join', lambda: None)
      with monkeypatch.context() as patched:
        step = allowing(steps)
        for owner, called in ((os, 'replace'), (pathlib.Path, 'unlink'), (pathlib.Path, 'rmdir'), (shutil, 'rmtree')):
          patched.setattr(owner, called, step(getattr(owner, called)))
        try:
          segments.publish(outputs)
          killed = False
        except Killed:
          marked = (outputs[0].folder / 'complete').exists()
    if killed:
      assert segments.settle(tmp_path / name) == marked
      if (outputs[0].folder / 'job.json').exists():
        outputs = begin()
        with outputs[0], outputs[1]:
          assert [writer.done for writer in outputs] == [6, 6]
          segments.publish(outputs)
    steps += 1
    assert [len(decoded(tmp_path / each)) for each in names] == [6, 6]
    assert {path.name for path in tmp_path.iterdir() if any(path.rglob('*')) or path.is_file()} == {'in.mp4', *names}
  assert steps > 8


@pytest.fixture
def file_limit():
  """Sets how large files may become, in bytes; a full disk is the same to whoever writes."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('name', ['out.mp4', 'out.mkv', 'out'])
def test_full_disk(tmp_path, file_limit, name):
  source = make(tmp_path / 'in.mp4')
  noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
  with pytest.raises(errors.DiskFullError) as caught:
    with SegmentedOutput(tmp_path / name, source, height=48, width=64, job=JOB) as writer:
      for t in range(COUNT):
        if t == 12:
          file_limit(2000)
        writer.write(frame(t) if t < 12 else noise)
  message = str(caught.value)
  assert message.startswith(f'{tmp_path / name}: File too large: about ') and '\n' not in message
  assert 'kB more are needed, ' in message and f' are free in {tmp_path}; make room there' in message
  assert message.endswith('the same command goes on behind frame 10 of 23')
  file_limit(resource.RLIM_INFINITY)
  assert work(source, tmp_path / name) == 10
  work(source, tmp_path / f'whole_{name}')
  np.testing.assert_array_equal(decoded(tmp_path / name), decoded(tmp_path / f'whole_{name}'))


def test_full_disk_while_it_is_joined(tmp_path, file_limit):
  source = make(tmp_path / 'in.mp4')
  with pytest.raises(errors.DiskFullError, match='goes on behind frame 23 of 23'):
    with SegmentedOutput(tmp_path / 'out.mp4', source, height=48, width=64, job=JOB) as writer:
      for t in range(COUNT):
        writer.write(frame(t))
      file_limit(max(path.stat().st_size for path in writer.folder.iterdir()))
      segments.publish([writer])
  assert listed(tmp_path) == ['.out.mp4.parts', 'in.mp4']
  file_limit(resource.RLIM_INFINITY)
  assert work(source, tmp_path / 'out.mp4') == COUNT
  assert len(decoded(tmp_path / 'out.mp4')) == COUNT


def test_full_disk_from_the_start(tmp_path, file_limit):
  source = make(tmp_path / 'in.mp4')
  file_limit(3)
  with pytest.raises(errors.DiskFullError, match='behind frame 0 of 23'):
    work(source, tmp_path / 'out.mp4')
  assert listed(tmp_path) == ['in.mp4']


_WORKER = """
import sys, time
sys.path[:0] = sys.argv[3:]
from vqm_jax import video
from video import test_segments
from vqm_jax.video import segments
segments._Coded.length = segments._Images.length = test_segments.LENGTH
source = video.open_video(sys.argv[1], variable_rate=True)
with segments.SegmentedOutput(__import__('pathlib').Path(sys.argv[2]), source, height=48, width=64, job={}) as writer:
  print('start', writer.done, flush=True)
  for t in range(writer.done, source.num_frames):
    time.sleep(0.02)
    writer.write(test_segments.frame(t))
  segments.publish([writer])
print('end', flush=True)
"""


@pytest.mark.parametrize('name', ['out.mp4', pytest.param('out', marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path, name):
  source = make(tmp_path / 'in.mp4')
  work(source, tmp_path / f'whole_{name}')
  chance, starts = random.Random(0), []
  for kill in (True, True, False):
    tests = pathlib.Path(__file__).parent.parent
    args = [sys.executable, '-c', _WORKER, source.path, tmp_path / name, tests, tests.parent]
    process = subprocess.Popen(list(map(str, args)), stdout=subprocess.PIPE, text=True)
    try:
      starts.append(int(process.stdout.readline().split()[1]))
      if kill:
        time.sleep(chance.uniform(0.1, 0.5))
        process.kill()
        process.wait()
      else:
        assert process.stdout.readline() == 'end\n'
    finally:
      process.kill()
      process.wait()
  assert starts == sorted(starts)
  np.testing.assert_array_equal(decoded(tmp_path / name), decoded(tmp_path / f'whole_{name}'))
  assert listed(tmp_path) == sorted(['in.mp4', name, f'whole_{name}'])
