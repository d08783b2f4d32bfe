"""The whole path of `enhance` on generated video, with restorers simple enough to know the result."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
from fractions import Fraction

import av
import coded_video
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shipped_weights
from absl import flags
from absl.testing import flagsaver
from flax import nnx
from inference.whole import assert_same
from PIL import Image
from report.parsed_page import Parsed, pixels

from vqm_jax import enhance, enhancers, errors, inference, metrics, pictures, restorers, video
from vqm_jax.enhancing import clip, outputs
from vqm_jax.enhancing import task as tasks
from vqm_jax.inference import shipped, streaming
from vqm_jax.restorers.ecnu import C2CNet

COUNT = 24


def identity(frames):
  yield from frames


def negative(frames):
  """Three frames late, as a network with a window is."""
  waiting = []
  for frame in frames:
    waiting.append(255 - frame)
    if len(waiting) > 3:
      yield waiting.pop(0)
  yield from waiting


def enhance_video(stream, source, output, **options):
  """The number of frames that `clip.enhance_video` writes with what turns an iterator of frames into one of as many."""

  def restore(read, first, cuts):
    with contextlib.closing(read(first)) as source:
      originals, frames = itertools.tee(source)
      for restored in stream(frames):
        yield next(originals), restored

  report = clip.enhance_video(restore, source, output, **options)
  assert (report.frames, report.before) == (report.total, 0) and report.complete
  return report.frames


def picture(t, height=48, width=64):
  y, x = np.mgrid[:height, :width]
  return (120 + 80 * np.stack([np.sin(x / 9 + t), np.cos(y / 8 - t), np.sin((x + y) / 9 + t)], -1)).astype(np.uint8)


def make(path, height=48, width=64, sound='aac', times=None, matrix=5):
  """A video with stereo noise and one subtitle (where the container can hold it)."""
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('libx264', rate=Fraction(24000, 1001), options={'crf': '8'})
    stream.height, stream.width = height, width
    stream.pix_fmt = 'yuv444p' if height % 2 or width % 2 else 'yuv420p'
    stream.codec_context.colorspace = matrix
    stream.codec_context.color_range = 1
    if times:
      stream.codec_context.time_base = Fraction(1, 1000)
    audio = output.add_stream(sound, rate=48000, layout='stereo') if sound else None
    text = None
    if path.suffix == '.mp4':
      text = output.add_stream('mov_text')
      text.codec_context.subtitle_header = b'[Script Info]\n'
    colour = video.Colour('bt709' if matrix == 1 else 'bt601')
    for t in range(COUNT):
      frame = video.rgb_to_yuv(picture(t, height, width), colour)
      frame.pts = times[t] if times else t
      output.mux(stream.encode(frame))
    noise = np.random.default_rng(0).integers(-9999, 9999, (1, 2048), dtype=np.int16)
    for k in range(47 if audio else 0):
      samples = av.AudioFrame.from_ndarray(noise, 's16', 'stereo')
      samples.sample_rate, samples.pts = 48000, 1024 * k
      output.mux(audio.encode(samples))
    if text:
      packet = av.Packet(b'\x00\x05hello')
      packet.stream, packet.time_base = text, Fraction(1, 1000)
      packet.pts, packet.dts, packet.duration = 200, 200, 500
      output.mux(packet)
    output.mux(stream.encode(None))
    if audio:
      output.mux(audio.encode(None))
  return path


def packets(path):
  with av.open(str(path)) as container:
    return [(p.stream.type, p.pts, bytes(p)) for p in container.demux() if p.size and p.stream.type != 'video']


def psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


@pytest.mark.parametrize('size', [(48, 64), (47, 64), (48, 63), (35, 51)])
@pytest.mark.parametrize('matrix', [1, 5])
def test_identity_keeps_everything(tmp_path, size, matrix):
  source = video.open_video(make(tmp_path / 'in.mp4', *size, matrix=matrix))
  output = tmp_path / 'out.mp4'
  assert enhance_video(identity, source, output) == COUNT
  result = video.open_video(output)
  assert (result.height, result.width, result.num_frames) == (*size, COUNT)
  assert (result.fps, result.timestamps, result.time_base) == (source.fps, source.timestamps, source.time_base)
  assert (result.colour, result.tags) == (source.colour, source.tags)
  assert {kind for kind, _, _ in packets(output)} == {'audio', 'subtitle'}
  assert sorted(packets(output)) == sorted(packets(source.path))
  assert psnr(list(result.frames()), list(source.frames())) > 36
  assert sorted(entry.name for entry in tmp_path.iterdir()) == ['in.mp4', 'out.mp4']


@pytest.mark.parametrize('suffix', ['.mkv', '.mov'])
@pytest.mark.parametrize('codec', ['h264', 'h265'])
def test_other_containers_and_codecs(tmp_path, suffix, codec):
  source = video.open_video(make(tmp_path / 'in.mp4'))
  output = tmp_path / f'out{suffix}'
  enhance_video(negative, source, output, codec=codec, crf=5)
  result = video.open_video(output)
  assert (result.num_frames, result.codec) == (COUNT, {'h264': 'h264', 'h265': 'hevc'}[codec])
  assert psnr([255 - frame for frame in result.frames()], list(source.frames())) > 38
  sound = [(kind, data) for kind, _, data in packets(output) if kind == 'audio']
  assert sound == [(kind, data) for kind, _, data in packets(source.path) if kind == 'audio']


def test_uneven_time_stamps_are_kept(tmp_path):
  times = [40 * t + (25 if t % 3 else 0) for t in range(COUNT)]
  source = video.open_video(make(tmp_path / 'in.mkv', times=times), variable_rate=True)
  enhance_video(identity, source, tmp_path / 'out.mp4')
  result = video.open_video(tmp_path / 'out.mp4', variable_rate=True)
  seconds = [[t * clip.time_base for t in clip.timestamps] for clip in (source, result)]
  assert seconds[0] == seconds[1]


@pytest.mark.parametrize(
  ('before', 'pix_fmt', 'after', 'codec'),
  [
    ('libx265', 'yuv420p10le', '.mp4', 'hevc'),
    ('libx264', 'yuv420p10le', '.mkv', 'h264'),
    ('libx264', 'yuv422p10le', '.mov', 'h264'),
    ('ffv1', 'yuv422p10le', '.mp4', 'hevc'),
    ('libx264', 'yuv422p', '.mp4', 'h264'),
    ('libx264', 'yuv444p', '.mp4', 'h264'),
    ('libx265', 'yuv444p', '.mkv', 'h264'),
  ],
)
def test_bits_and_chroma_come_out_as_they_went_in(tmp_path, before, pix_fmt, after, codec):
  path = tmp_path / 'in.mkv'
  steps = np.linspace(0, 1, 256)
  deep = np.stack(np.broadcast_arrays(steps[None, :], 1 - steps[None, :], np.linspace(0, 1, 64)[:, None]), -1)
  with av.open(str(path), 'w') as output:
    options = {'crf': '4', 'x265-params': 'log-level=none'} if before != 'ffv1' else {}
    stream = output.add_stream(before, rate=25, options=options)
    stream.height, stream.width, stream.pix_fmt = 64, 256, pix_fmt
    for t in range(3):
      rgb = np.round(65535 * (1 - 0.05 * t) * deep).astype(np.uint16)
      frame = video.rgb_to_yuv(rgb, video.Colour('bt601'), pix_fmt)
      frame.pts = t
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  source = video.open_video(path, deep=True)
  output, compare = tmp_path / f'out{after}', tmp_path / f'compare{after}'
  network = restorers.create('none', rngs=nnx.Rngs(0))
  enhance_video(lambda frames: inference.restore_frames(network, frames), source, output, compare=compare, crf=4)
  found = video.open_video(output, deep=True)
  assert (found.codec, found.pixel_format) == (codec, pix_fmt)
  assert video.open_video(compare).pixel_format == pix_fmt
  assert found.dtype == (np.uint16 if '10' in pix_fmt else np.uint8)
  scale = np.iinfo(found.dtype).max
  errors_found = [np.mean((a / scale - b / scale) ** 2) for a, b in zip(source.frames(), found.frames(), strict=True)]
  assert -10 * np.log10(np.mean(errors_found)) > 43
  if '10' in pix_fmt:
    # Finer than 8 bits: the ramp has more steps than those have.
    assert len(np.unique(next(found.frames())[..., 0])) > 400


@pytest.mark.parametrize('output', ['out.mp4', 'out.mkv', 'out'])
def test_turned_video(tmp_path, output):
  """A video stays as it is coded and keeps its matrix; images cannot keep one and are turned."""
  path = tmp_path / 'in.mp4'
  with av.open(str(path), 'w') as file:
    stream = file.add_stream('libx264', rate=25, options={'crf': '8'})
    stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
    stream.set_display_rotation(90)
    file.mux(stream.encode(video.rgb_to_yuv(picture(0), video.Colour('bt601'))))
    file.mux(stream.encode(None))
  source = video.open_video(path)
  enhance_video(identity, source, tmp_path / output)
  found = video.open_video(tmp_path / output)
  if output == 'out':
    assert metrics.psnr(next(found.frames()), np.rot90(picture(0))) > 30
  else:
    assert found.display_matrix == source.display_matrix
    assert metrics.psnr(next(found.frames()), picture(0)) > 30


def test_compare(tmp_path):
  source = video.open_video(make(tmp_path / 'in.mp4', 48, 64))
  compare = outputs.compare_path(tmp_path / 'out.mp4')
  assert compare.name == 'out_compare.mp4'
  enhance_video(negative, source, tmp_path / 'out.mp4', compare=compare, crf=1)
  both = video.open_video(compare)
  assert (both.height, both.width, both.num_frames) == (48, 130, COUNT)
  for pair, before in zip(both.frames(), source.frames(), strict=True):
    assert psnr(pair[:, :60], before[:, :60]) > 33
    assert psnr(pair[:, 70:], 255 - before[:, 4:]) > 33
  assert sorted(packets(compare)) == sorted(packets(source.path))


def test_images_to_images_keep_their_names(tmp_path):
  (tmp_path / 'in').mkdir()
  for t in (8, 9, 10):
    video.write_png(tmp_path / 'in' / f'{t}.png', picture(t))
  output = tmp_path / 'out'
  assert enhance_video(negative, video.open_video(tmp_path / 'in'), output) == 3
  assert [file.name for file in video.open_video(output).files] == ['8.png', '9.png', '10.png']
  np.testing.assert_array_equal(list(video.open_video(output).frames()), [255 - picture(t) for t in (8, 9, 10)])


def test_video_to_images(tmp_path):
  source = video.open_video(make(tmp_path / 'in.mp4'))
  enhance_video(identity, source, tmp_path / 'out')
  np.testing.assert_array_equal(list(video.open_video(tmp_path / 'out').frames()), list(source.frames()))


def test_memory_is_bounded(tmp_path):
  """However slow the restorer, the reader does not run away."""
  source = video.open_video(make(tmp_path / 'in.mp4'))
  read = []

  class Counted:
    num_frames, fps, height, width = COUNT, source.fps, 48, 64

    def frames(self, start):
      for frame in source.frames(start):
        read.append(frame)
        yield frame

  ahead = []

  def slow(frames):
    for k, frame in enumerate(frames):
      if k == 5:
        threading.Event().wait(0.3)
        ahead.append(len(read) - k)
      yield frame

  enhance_video(slow, Counted(), tmp_path / 'out.mp4')
  assert ahead[0] <= 10


@pytest.mark.parametrize('where', ['reader', 'restorer', 'lost frame'])
def test_errors_surface_and_leave_nothing(tmp_path, where):
  path = make(tmp_path / 'in.mp4')
  if where == 'reader':
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(content)

  def restore(frames):
    for k, frame in enumerate(frames):
      if where == 'restorer' and k == 9:
        raise errors.DataError('out of luck')
      if where != 'lost frame' or k != 9:
        yield frame

  source = video.open_video(path)
  threads = threading.active_count()
  with pytest.raises(errors.VqmError, match='damaged|out of luck|23 frames were given, the source has 24'):
    enhance_video(restore, source, tmp_path / 'out.mp4', compare=tmp_path / 'both.mp4')
  assert [entry.name for entry in tmp_path.iterdir()] == ['in.mp4']
  assert threading.active_count() == threads


def test_check_output(tmp_path):
  source = make(tmp_path / 'in.mp4', sound=None)
  (tmp_path / 'there.mp4').write_text('')
  (tmp_path / 'hard.mp4').hardlink_to(source)
  (tmp_path / 'soft.mp4').symlink_to(source)

  def refused(output, match, overwrite=True):
    with pytest.raises(errors.VideoError, match=match):
      outputs.check_output(source, tmp_path / output, overwrite)

  for same in ('in.mp4', 'hard.mp4', 'soft.mp4', '../' + tmp_path.name + '/in.mp4'):
    refused(same, 'is the input itself')
  (tmp_path / 'folder.mp4').mkdir()
  refused(
    'folder.mp4', r'folder.mp4: is a folder; give --output the name of a file, for example .*folder.mp4/folder.mp4'
  )
  refused('there.mp4', 'add --overwrite', overwrite=False)
  refused('none/out.mp4', 'does not exist')
  refused('out.avi', 'written to .mp4, .mkv, .mov')
  refused('.', 'within the other')
  outputs.check_output(source, tmp_path / 'there.mp4', True)
  outputs.check_output(source, tmp_path / 'out', False)
  with pytest.raises(errors.VideoError, match='within the other'):
    outputs.check_output(tmp_path, tmp_path / 'out.mp4', False)


class Running(enhancers.RecurrentGenerator):
  """Adds what it has seen so far."""

  size_multiple = 4

  def init_carry(self, frame):
    return jnp.zeros_like(frame)

  def step(self, carry, frame):
    carry = 0.5 * carry + 0.0937 * frame  # rarely ends in the middle between two levels
    return carry, frame + carry


class Brighter(restorers.base.Restorer):
  """The centre of a window of three, brighter."""

  num_frames, size_multiple = 3, 4

  def encode(self, frames):
    return frames[:, 0]

  def restore(self, features):
    return features[:, 1] + 0.09


STREAMS = {
  'whole frames': {},
  'ensemble': {'self_ensemble': 8},
  'tiles': {'tile': (8, 12), 'overlap': 4},
  'three devices, every second': {'devices': 3, 'every': 2},
  'recurrent': {},
  'recurrent, cuts, ensemble': {'find_cuts': video.mark_cuts, 'self_ensemble': 8},
}


@pytest.mark.parametrize('kind', STREAMS)
def test_strength_scales_the_correction(kind):
  network = C2CNet(width=4, mapping_width=4, num_blocks=1, rngs=nnx.Rngs(0))
  network = Running() if kind.startswith('recurrent') else network
  options = dict(STREAMS[kind])
  options['devices'] = jax.devices()[: options.get('devices', 1)]
  frames = [picture(t, 17, 23) for t in range(5)]
  shown = np.stack(frames[options.get('every', 1) - 1 :: options.get('every', 1)])

  def restored(**more):
    return np.stack(list(inference.restore_frames(network, iter(frames), **options, **more)))

  exact = np.stack([np.asarray(one) for one in inference.stream_frames(network, iter(frames), **options)])
  np.testing.assert_array_equal(restored(strength=0), shown)
  np.testing.assert_array_equal(restored(strength=1), np.rint(np.clip(exact, 0, 1) * 255).astype(np.uint8))
  np.testing.assert_array_equal(restored(strength=1), restored())
  inputs = shown.astype(np.float32) / 255
  for strength in (0.25, 1.5):
    want = inputs + np.float32(strength) * (exact - inputs)
    assert_same(restored(strength=strength), np.rint(np.clip(want, 0, 1) * 255).astype(np.uint8))
  assert np.abs(restored(strength=1.5).astype(int) - restored()).max() > 3


def test_strengths_share_one_program():
  frames, network = [picture(0, 13, 29)], Running()
  for strength in (0.3, 0, 0.7, 1.5):
    before = streaming._blend._cache_size()
    list(inference.restore_frames(network, frames, strength=strength))
    assert streaming._blend._cache_size() - before == (1 if strength == 0.3 else 0)


@pytest.mark.parametrize('strength', [-0.1, 1.6, float('nan')])
def test_strength_out_of_range(strength):
  with pytest.raises(errors.ConfigError, match=rf'^--strength={strength:g}: expected 0 .* to 1.5, .* choose a number'):
    next(inference.restore_frames(Running(), [picture(0)], strength=strength))


@pytest.fixture
def run(monkeypatch):
  """`main` with the flags given; without another `network` one that changes nothing."""
  monkeypatch.setattr(enhance.inference, 'open_run', lambda *args: pytest.fail('work was begun'))
  monkeypatch.setattr(enhance.cli, 'enable_compilation_cache', lambda: None)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def call(network=None, **values):
    network = network or restorers.create('none', rngs=None)
    opened = inference.Run(network, {'system': 'none'}, pathlib.Path('runs/none'), 7, 7, True, 0, None)
    if not values.pop('refused', False):
      monkeypatch.setattr(enhance.inference, 'open_run', lambda *args: opened)
    with flagsaver.flagsaver(**({'workdir': 'runs/none'} | values)):
      enhance.main(None)

  return call


def test_main(tmp_path, run, capsys):
  source, output = make(tmp_path / 'in.mp4', 35, 51), tmp_path / 'out.mp4'
  run(input=str(source), output=str(output), dry_run=True, compare=True)
  out = capsys.readouterr().out
  assert 'out.mp4' in out and 'out_compare.mp4' in out and 's per frame' in out
  assert [entry.name for entry in tmp_path.iterdir()] == ['in.mp4']
  run(input=str(source), output=str(output), compare=True)
  assert '24 frames in' in capsys.readouterr().out
  assert psnr(list(video.open_video(output).frames()), list(video.open_video(source).frames())) > 36
  with pytest.raises(errors.VideoError, match='exists already'):
    run(input=str(source), output=str(output))
  before = output.stat().st_size
  run(input=str(source), output=str(output), overwrite=True, crf=45.0)
  assert output.stat().st_size < before
  with pytest.raises(errors.ConfigError, match='--output is required'):
    run(input=str(source))
  with pytest.raises(errors.ConfigError, match='self_ensemble=3'):
    run(input=str(source), output=str(output), overwrite=True, self_ensemble=3)
  with pytest.raises(errors.ConfigError, match='^--strength=2: expected'):
    run(input=str(source), output=str(output), overwrite=True, strength=2.0)


@pytest.mark.parametrize('dry_run', [False, True])
def test_damage_is_found_before_the_work(tmp_path, run, dry_run):
  source = coded_video.damage(make(tmp_path / 'in.mkv', sound=None), 13)
  with pytest.raises(errors.VideoError, match='damaged, frame .* --keep_going'):
    run(refused=True, input=str(source), output=str(tmp_path / 'out.mkv'), dry_run=dry_run)
  assert os.listdir(tmp_path) == ['in.mkv']


@pytest.mark.parametrize('suffix', ['mkv', 'mp4'])
def test_keep_going(tmp_path, run, capsys, suffix):
  source, output = make(tmp_path / f'in.{suffix}'), tmp_path / f'out.{suffix}'
  times = video.open_video(source).timestamps
  coded_video.damage(source, 13)
  run(input=str(source), output=str(output), keep_going=True, crf=0.0)
  told = capsys.readouterr().out.splitlines()[-1]
  found = re.fullmatch(
    rf'.*in.{suffix}: (\d+) of 24 frames are damaged and replaced by the last good one: (\S+.*)', told
  )
  result = video.open_video(output)
  frames = list(result.frames())
  first = int(re.match(r'\d+', found[2])[0])
  assert 1 <= int(found[1]) <= 4 and np.abs(frames[first].astype(int) - frames[first - 1]).max() <= 3
  assert len(frames) == 24 and result.timestamps == times
  run(input=str(source), output=str(output), keep_going=True, dry_run=True, overwrite=True)
  assert 'frames are damaged' in capsys.readouterr().out


def test_sound_stays_in_step_where_the_clock_begins_again(tmp_path, run):
  once, twice = make(tmp_path / 'once.ts'), tmp_path / 'twice.ts'
  twice.write_bytes(2 * once.read_bytes())
  for source in once, twice:
    run(input=str(source), output=str(source.with_suffix('.mkv')))
  times = {}
  for name in 'once', 'twice':
    with av.open(str(tmp_path / f'{name}.mkv')) as container:
      packets = [(p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.size]
    for kind in 'video', 'audio':
      times[name, kind] = [time for found, time in packets if found == kind]
  for kind in 'video', 'audio':
    first, second = np.split(np.sort(times['twice', kind]), 2)
    np.testing.assert_allclose(first, np.sort(times['once', kind]), atol=2e-3)
    np.testing.assert_allclose(second - first, 24 / (24000 / 1001), atol=2e-3)


@pytest.mark.parametrize('name', ['12:30:05.mp4', '-out.mp4', 'a%03d.mkv', ' a b .mp4', 'new\nline.mkv'])
def test_any_path(tmp_path, run, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  source = pathlib.Path('in', name)
  source.parent.mkdir()
  make(tmp_path / 'made.mp4').rename(source)
  run(input=str(source), output=name)
  run(input=f'in/{name}', output=str(tmp_path / f'again{name}'), compare=True)
  for output in name, f'again{name}', str(outputs.compare_path(pathlib.Path(f'again{name}'))):
    assert video.open_video(output).num_frames == 24
  assert len(os.listdir(tmp_path)) == 4


def test_main_at_a_strength(tmp_path, run):
  source = make(tmp_path / 'in.mp4', sound=None)
  run(Brighter(), input=str(source), output=str(tmp_path / 'out'), strength=1.5)
  for before, after in zip(video.open_video(source).frames(), video.open_video(tmp_path / 'out').frames(), strict=True):
    assert_same(after, np.rint(np.clip(before / 255 + 0.135, 0, 1) * 255).astype(np.uint8))


def test_preview(tmp_path, run, capsys):
  source, page = make(tmp_path / 'a"<b> in.mp4', 35, 51), tmp_path / 'page.html'
  run(Brighter(), input=str(source), preview=str(page), tile='32', crf=20.0)
  out = capsys.readouterr().out
  assert re.search(
    r'page.html: 6 frames before and after, 0.\d MB\nestimate: \S+ s per frame, 0 h 00 min \d\d s for 24', out
  )
  assert {entry.name for entry in tmp_path.iterdir()} == {source.name, page.name}
  parsed = Parsed(page.read_text(encoding='utf-8'))
  assert 'Preview of a"<b> in.mp4' in parsed.text and 'none, step 7' in parsed.text
  frames = list(video.open_video(source).frames())
  assert [still['frame'] for still in parsed.data['stills']] == [2, 6, 10, 14, 18, 22]
  for still in parsed.data['stills']:
    before, *after = map(pixels, still['pictures'])
    np.testing.assert_array_equal(before, frames[still['frame']])
    for picture, strength in zip(after, (0.5, 1, 1.5), strict=True):
      assert_same(picture, np.rint(np.clip(before / 255 + 0.09 * strength, 0, 1) * 255).astype(np.uint8))
  given = ['--workdir=runs/none', f'--input={source}', '--tile=32', '--crf=20.0', '--strength=1']
  output = f'--output={source.with_name(source.stem)}_enhanced.mp4'
  command = out.splitlines()[-1].partition(': ')[2]
  assert shlex.split(command) == ['python', '-m', 'vqm_jax.enhance', *given, output] and command in parsed.text


def test_preview_of_a_strength_of_its_own_and_of_few_frames(tmp_path, run, capsys):
  (tmp_path / 'in').mkdir()
  for t in (8, 9):
    video.write_png(tmp_path / 'in' / f'{t}.png', picture(t))
  page = tmp_path / 'page.html'
  run(Running(), input=str(tmp_path / 'in'), preview=str(page), strength=0.8, output='out', compare=True, ema=False)
  parsed = Parsed(page.read_text(encoding='utf-8'))
  data = parsed.data
  assert data['sides'] == ['Input', 'Strength 0.5', 'Strength 0.8', 'Strength 1', 'Strength 1.5'] and data['first'] == 2
  assert [still['frame'] for still in data['stills']] == [0, 1]
  whole = list(inference.restore_frames(Running(), [picture(t) for t in (8, 9)], strength=0.8))
  np.testing.assert_array_equal([pixels(still['pictures'][2]) for still in data['stills']], whole)
  assert capsys.readouterr().out.endswith('/in --noema --compare --strength=0.8 --output=out\n')


def test_what_is_left_out_is_told_before_the_work(tmp_path, run, caplog):
  source = tmp_path / 'in.mkv'
  with av.open(str(make(tmp_path / 'plain.mkv'))) as container, av.open(str(source), 'w') as output:
    copies = [output.add_stream_from_template(stream) for stream in container.streams]
    output.add_attachment('font.ttf', 'application/x-truetype-font', bytes(100))
    for packet in container.demux():
      if packet.size:
        packet.stream = copies[packet.stream_index]
        output.mux_one(packet)
  for name, told in {
    'a.mkv': '',
    'a.mp4': 'attachment .*.mkv could hold it',
    'a': 'audio aac .*images hold no',
  }.items():
    caplog.clear()
    run(input=str(source), output=str(tmp_path / name))
    said = [record.getMessage() for record in caplog.records if 'left out' in record.getMessage()]
    assert len(said) == bool(told) and re.search(told, ''.join(said))


def test_a_preview_says_what_a_dry_run_says_of_the_input(tmp_path, run, capsys, caplog, monkeypatch):
  source = coded_video.damage(make(tmp_path / 'in.mkv'), 13)
  page = str(tmp_path / 'page.html')
  with pytest.raises(errors.VideoError, match='damaged, frame .* --keep_going'):
    run(refused=True, input=str(source), preview=page)
  run(input=str(source), preview=page, keep_going=True)
  out = capsys.readouterr().out
  assert re.search(r'streams kept: audio aac', out) and re.search('of 24 frames are damaged', out)
  whole = make(tmp_path / 'whole.mp4')
  monkeypatch.setattr(tasks, '_GLANCE', -1.0)
  run(input=str(whole), preview=page, overwrite=True)
  assert 'whole.mp4: looked for damage in the first 0 frames only; --dry_run looks at all of it' in caplog.text


def test_preview_is_refused_before_the_work(tmp_path, run):
  source = make(tmp_path / 'in.mp4', sound=None)
  (tmp_path / 'page.html').write_text('old')

  def refused(page, match, kind=errors.VideoError, **values):
    with pytest.raises(kind, match=match):
      run(input=str(source), preview=str(tmp_path / page), refused=True, **values)

  refused('page.html', 'page.html: exists already; choose another --preview or add --overwrite$')
  refused('none/page.html', 'the folder .*none does not exist; create it first$')
  refused('.', 'is a folder; give --preview the name of a file, for example .*page.html$')
  refused('in.mp4', 'in.mp4: expected the name of a page, for example --preview=in.html$', overwrite=True)
  refused('new.html', '^--preview and --dry_run exclude each other', errors.ConfigError, dry_run=True)
  refused('new.html', '^--strength=-1: expected', errors.ConfigError, strength=-1.0)
  assert sorted(entry.name for entry in tmp_path.iterdir()) == ['in.mp4', 'page.html']
  run(input=str(source), preview=str(tmp_path / 'page.html'), overwrite=True)
  assert (tmp_path / 'page.html').read_text().startswith('<!doctype html>')


@pytest.fixture
def ships(monkeypatch, tmp_path):
  """Weights for either kind of device, and the input video."""
  shipped_weights.empty(monkeypatch, tmp_path / 'checkout')
  shipped_weights.add('web-small', 'ecnu')
  shipped_weights.add('web-tcl', device='gpu')
  return make(tmp_path / 'in.mp4', 32, 40, sound=None)


def test_weights_that_ship(tmp_path, run, ships, capsys):
  output = tmp_path / 'out'
  run(workdir=None, weights='web-small', input=str(ships), output=str(output), refused=True)
  assert re.match(r'24 frames in .* written to', capsys.readouterr().out)
  frames = video.open_video(ships).frames()
  wanted = inference.restore_frames(shipped.open_weights('web-small').network, frames)
  for found, want in zip(video.open_video(output).frames(), wanted, strict=True):
    np.testing.assert_array_equal(found, want)


def test_a_preview_repeats_the_weights(tmp_path, run, ships, capsys, caplog, monkeypatch):
  caplog.set_level('INFO')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  page = tmp_path / 'page.html'
  for given, used in (('web-small', 'web-small'), (None, 'web-tcl')):
    run(workdir=None, weights=given, input=str(ships), preview=str(page), overwrite=True, refused=True)
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(': ')[2])
    assert command[:5] == ['python', '-m', 'vqm_jax.enhance', f'--weights={used}', f'--input={ships}']
    assert not any(word.startswith('--workdir') for word in command)
  assert 'web-tcl (tcl_unet), step 0' in Parsed(page.read_text(encoding='utf-8')).text
  assert '--weights=web-tcl is taken: JAX runs on GPU here, and they are made for GPUs' in caplog.text


def test_weights_are_refused_before_the_work(tmp_path, run, ships):
  def refused(message, workdir=None, **values):
    with pytest.raises(errors.ConfigError, match=message):
      run(workdir=workdir, input=str(ships), output=str(tmp_path / 'out'), refused=True, **values)

  refused('^--workdir=runs/a and --weights=web-small exclude each other', 'runs/a', weights='web-small')
  refused("^weights='web-smal' is unknown; did you mean 'web-small'", weights='web-smal')
  refused('^--step=3 chooses among what a --workdir holds', weights='web-small', step='3')
  refused('^--noema chooses among what a --workdir holds', ema=False)
  assert not (tmp_path / 'out').exists()


def test_without_weights_a_workdir_is_required(tmp_path, run, monkeypatch, capsys):
  source = make(tmp_path / 'in.mp4', sound=None)
  shipped_weights.empty(monkeypatch, tmp_path / 'checkout')
  with pytest.raises(errors.ConfigError, match='^--workdir is required: no weights ship with this version'):
    run(workdir=None, input=str(source), output=str(tmp_path / 'out.mp4'), refused=True)
  run(workdir=None, list_weights=True, refused=True)
  assert capsys.readouterr().out.startswith('no weights ship with this version of the package')


def test_input_outside_of_what_the_weights_were_trained_on(tmp_path, run, ships, caplog):
  caplog.set_level('INFO')
  shipped_weights.add('strong', 'ecnu', trained_on={'qp': [40, 46]})
  for name, warned in (('web-small', False), ('strong', True)):
    caplog.clear()
    run(workdir=None, weights=name, input=str(ships), output=str(tmp_path / name), refused=True)
    assert 'input: h264, compressed at QP ' in caplog.text
    assert bool([r for r in caplog.records if r.levelname == 'WARNING' and 'trained on QP 40' in r.message]) == warned


def test_strength_by_qp(tmp_path, run, ships, caplog):
  caplog.set_level('INFO')
  by_qp = [[0, 0.0], [10, 0.25], [51, 0.75]]
  shipped_weights.add('by-qp', 'ecnu', strength_by_qp=by_qp)
  qp = video.compression_of(video.open_video(ships)).qp
  wanted = round(float(np.interp(qp, *zip(*by_qp, strict=True))), 2)
  for given, used in ((None, wanted), (1.5, 1.5)):
    output = tmp_path / ('asked' if given else 'by_qp')
    run(workdir=None, weights='by-qp', input=str(ships), output=str(output), strength=given, refused=True)
    network, frames = shipped.open_weights('by-qp').network, video.open_video(ships).frames()
    restored = inference.restore_frames(network, frames, strength=used)
    for found, want in zip(video.open_video(output).frames(), restored, strict=True):
      np.testing.assert_array_equal(found, want)
  assert f'--strength={wanted:g} is taken, which suits this QP best' in caplog.text
  opened = shipped.open_weights('by-qp')
  assert [opened.strength_at(value) for value in (None, 30, 60)] == [1.0, 0.49, 0.75]
  assert shipped.open_weights('web-small').strength_at(30) == 1.0
  # As of a run that began with these weights and went on with strong compression alone.
  tuned = dataclasses.replace(opened, trained_on={'qp': [36, 42]})
  assert (
    tuned.strength_at(36) == opened.strength_at(36) and tuned.strength_at(10) == 0.12 and opened.strength_at(20) == 0.37
  )
  assert opened.strength_at(33) * 0.74 < tuned.strength_at(33) < opened.strength_at(33) * 0.76


def test_reference(tmp_path, run, ships, capsys):
  original, output = tmp_path / 'original', tmp_path / 'out'
  original.mkdir()
  frames = list(video.open_video(ships).frames())
  for index, frame in enumerate(frames):
    video.write_png(original / f'{index:03d}.png', np.clip(frame.astype(int) + 3, 0, 255).astype(np.uint8))
  given = dict(workdir=None, weights='web-small', input=str(ships), output=str(output), refused=True)
  run(reference=str(original), **given)
  restored = np.stack(list(video.open_video(output).frames()))
  wanted = np.stack(list(video.open_video(original).frames()))
  before, after = (metrics.mean_psnr(metrics.psnr(a, wanted))[0] for a in (np.stack(frames), restored))
  told = f'{before:.2f} dB before, {after:.2f} dB after, {after - before:+.2f} dB; picture: '
  assert told in capsys.readouterr().out
  panel = np.asarray(Image.open(tmp_path / 'out_reference.png'))
  middle = pictures.comparison(frames[12], restored[12], wanted[12])
  np.testing.assert_array_equal(panel[20:], middle[20:])  # below the labels
  with pytest.raises(errors.VideoError, match='out_reference.png: exists already'):
    run(reference=str(original), **given | {'output': str(tmp_path / 'out.mp4')})
  (original / '023.png').unlink()
  with pytest.raises(errors.VideoError, match='^--reference=original: has 23 frames of 40x32, expected 24 frames'):
    run(reference=str(original), overwrite=True, **given)


def test_list_weights(run, ships, capsys):
  run(workdir=None, list_weights=True, refused=True)
  out = capsys.readouterr().out
  assert out == shipped.table() and '| web-small | CPU ' in out and '| web-tcl   | GPU ' in out


def test_output_by_default(tmp_path):
  clip = video.open_video(make(tmp_path / 'in.mkv', sound=None))
  for name, want in (('x/in.mkv', 'x/in_enhanced.mkv'), ('in.MP4', 'in_enhanced.mp4'), ('in.avi', 'in_enhanced.mkv')):
    assert outputs.default_output(clip, pathlib.Path(name)) == pathlib.Path(want)
  (tmp_path / 'in').mkdir()
  video.write_png(tmp_path / 'in' / '0.png', picture(0))
  assert outputs.default_output(video.open_video(tmp_path / 'in'), tmp_path / 'in') == tmp_path / 'in_enhanced'


@pytest.mark.parametrize('told', [{}, {'XLA_FLAGS': '--xla_force_host_platform_device_count=3'}])
def test_cores_share_the_frames(told):
  program = 'import jax; from vqm_jax import cli; print(cli.share_cores(), jax.local_device_count())'
  environment = (
    {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'} | {'JAX_PLATFORMS': 'cpu'} | told
  )
  done = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True, check=True)
  cores = min(len(os.sched_getaffinity(0)), 4)
  assert done.stdout.split() == (['1', '3'] if told else [str(cores), str(cores)])
