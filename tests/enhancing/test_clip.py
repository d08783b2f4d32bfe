"""A video that is interrupted goes on to the same frames, comparison and scores."""

import functools
import signal
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from test_enhance import COUNT, make, packets

from vqm_jax import enhancers, errors, inference, restorers, stopping, video
from vqm_jax.enhancing import clip
from vqm_jax.inference.reference import AgainstOriginal
from vqm_jax.video import segments


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
  monkeypatch.setattr(segments._Coded, 'length', 5)
  monkeypatch.setattr(segments._Images, 'length', 1)


class Window(restorers.base.Restorer):
  num_frames, size_multiple = 5, 4

  def encode(self, frames):
    return frames[:, 0]

  def restore(self, features):
    return jnp.tensordot(features, jnp.array([0.3, 0.1, 0.6, 0.1, -0.1]), (1, 0))


class Running(enhancers.RecurrentGenerator):
  size_multiple = 4

  def init_carry(self, frame):
    return jnp.zeros_like(frame)

  def step(self, carry, frame):
    carry = 0.9 * carry + 0.0937 * frame
    return carry, carry


class Interrupted(Exception):
  pass


def restoring(network, after=None, then=None):
  """`restore` of `enhance_video`; after so many frames of a run something happens."""

  def restore(read, first, cuts):
    pairs = inference.restore_from(network, read, first, cuts=cuts, reach=video.CUT_REACH + 1, find_cuts=find_cuts)
    for count, pair in enumerate(pairs):
      if count == after:
        then()
      yield pair

  return restore


def find_cuts(frames):
  """A frame tells itself whether it starts a scene."""
  for frame in frames:
    yield frame, bool(frame[0, 0, 0] > 130)


def interrupt(*segments_of_both):
  """Once these segments are written, which happens in the background."""
  deadline = time.monotonic() + 20
  while not all(path.exists() for path in segments_of_both) and time.monotonic() < deadline:
    time.sleep(0.01)
  raise Interrupted


def run(network, source, output, after=None, then=interrupt, **options):
  return clip.enhance_video(restoring(network, after, then), source, output, job={'a': 1}, **options)


@pytest.fixture
def source(tmp_path):
  return video.open_video(make(tmp_path / 'in.mp4'))


@pytest.mark.parametrize('network', [Window(), Running()], ids=['window', 'recurrent'])
@pytest.mark.parametrize('name', ['out.mp4', 'out'])
def test_interrupted_twice(tmp_path, source, network, name):
  original = video.open_video(make(tmp_path / 'original.mp4', sound=None))
  results, lengths = [], ((name, 5 if '.' in name else 1), ('both.mp4', 5))
  for folder, stops in (('whole', [None]), ('parts', [(4, 0), (9, 5), (8, 10), None])):
    output = tmp_path / folder / name
    output.parent.mkdir()
    for stop in stops:
      against = AgainstOriginal(source, original)
      options = dict(compare=output.with_name('both.mp4'), against=against)
      if stop is None:
        report = run(network, source, output, **options)
      else:
        with pytest.raises(Interrupted):
          count, done = stop
          records = [f'.{each}.parts/{done // length - 1:06d}.json' for each, length in lengths]
          then = functools.partial(interrupt, *(output.parent / record for record in records if done))
          run(network, source, output, count, then, **options)
    assert report.complete and report.before + report.frames == COUNT
    assert sorted(path.name for path in output.parent.iterdir()) == sorted([name, 'both.mp4'])
    frames = [np.stack(list(video.open_video(path).frames())) for path in (output, output.with_name('both.mp4'))]
    results.append((frames, against.before, against.after))
  assert report.before == 10
  for whole, parts in zip(results[0][0], results[1][0], strict=True):
    np.testing.assert_array_equal(parts, whole)
  assert results[0][1:] == results[1][1:] and len(against.after) == COUNT
  assert sorted(packets(tmp_path / 'parts' / 'both.mp4')) == sorted(packets(source.path))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path, source, number):
  output = tmp_path / 'out.mp4'
  with stopping.StopRequest('x') as stop:
    report = run(Window(), source, output, 12, lambda: signal.raise_signal(number), stop=stop)
  assert not report.complete and (report.frames, report.before, report.kept) == (13, 0, 10)
  assert not output.exists()
  report = run(Window(), source, output)
  assert report.complete and report.before == 10
  assert len(list(video.open_video(output).frames())) == COUNT


def test_a_signal_behind_the_last_frame_comes_too_late(tmp_path, source):
  with stopping.StopRequest('x') as stop:
    report = run(
      Window(), source, tmp_path / 'out.mp4', COUNT - 1, lambda: signal.raise_signal(signal.SIGTERM), stop=stop
    )
  assert report.complete and (tmp_path / 'out.mp4').exists()


def test_the_report_says_what_bounds_the_run(tmp_path, source):
  report = run(Window(), source, tmp_path / 'out.mp4')
  assert list(report.busy) == ['decoding', 'network', 'encoding'] and min(report.busy.values()) > 0
  bound = max(report.busy, key=report.busy.get)
  assert report.shares().startswith('time at work, side by side: decoding ') and report.shares().endswith(
    f'; {bound} bounds the run'
  )


def test_a_second_run_on_the_same_output_is_refused(tmp_path, source):
  def second():
    with pytest.raises(errors.BusyError, match='out.mp4: process .* is at work on it'):
      run(Window(), source, tmp_path / 'out.mp4')

  assert run(Window(), source, tmp_path / 'out.mp4', 3, second).complete


def test_all_stages_are_at_work_at_once(tmp_path, source, monkeypatch):
  """Each waits for all others at one of its frames: decoding, the way to RGB, the network, the way back, encoding."""
  meeting, met = threading.Barrier(5), []

  def meet(stage, index, at):
    if index == at:
      meeting.wait(timeout=60)
      met.append(stage)

  def jobs(source, first):
    def convert(index, job):
      meet('conversion', index, 7)
      return job()

    for index, job in enumerate(source.jobs(first)):
      meet('decoding', index, 11)
      yield functools.partial(convert, index, job)

  def restore(read, first, cuts):
    for index, frame in enumerate(read(first)):
      meet('network', index, 3)
      yield frame, frame

  def prepare(self, index, rgb):
    meet('conversion back', index, 2)
    return prepare_as_it_is(self, index, rgb)

  def append(self, prepared):
    meet('encoding', self._position, 0)
    append_as_it_is(self, prepared)

  output = segments.SegmentedOutput
  prepare_as_it_is, append_as_it_is = output.prepare, output.append
  monkeypatch.setattr(clip.video, 'frame_jobs', jobs)
  monkeypatch.setattr(output, 'prepare', prepare)
  monkeypatch.setattr(output, 'append', append)
  assert clip.enhance_video(restore, source, tmp_path / 'out.mp4').complete
  assert sorted(met) == ['conversion', 'conversion back', 'decoding', 'encoding', 'network']


@pytest.mark.parametrize('name', ['out.mp4', 'out'])
def test_what_goes_wrong_in_a_thread_beside_is_told(tmp_path, source, name):
  def restore(read, first, cuts):
    for index, frame in enumerate(read(first)):
      yield frame, frame[:, :8] if index == 7 else frame

  with pytest.raises(errors.VideoError, match=rf'{name}: frame 7 is uint8 \(48, 8, 3\), expected uint8 \(48, 64, 3\)'):
    clip.enhance_video(restore, source, tmp_path / name)
  assert [path.name for path in tmp_path.iterdir()] == ['in.mp4']
