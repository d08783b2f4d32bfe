"""What is read of strangers: of each kind of file a valid set, made by the project itself, and how programs read it.

A target reads as far as a program would: images and videos to the last frame, results into tables, weights into a
network. Where damage that is accepted must not change what is read, because checksums are kept, it raises `Wrong`.
"""

import functools
import io
import itertools
import json
import pathlib
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
import jax
import networks
import numpy as np
import orbax.checkpoint  # noqa: F401 (before forks)
from flax import nnx
from fuzz import mutations
from PIL import Image

from vqm_jax import checkpoints, data, errors, files, inference, metrics, names, restorers, summary, video, workdir
from vqm_jax.data import records, sampling
from vqm_jax.evaluation import folders as scored_folders
from vqm_jax.evaluation import results, scoring, stored_scores
from vqm_jax.inference import basicsr, exporting, shipped
from vqm_jax.inference.run import abstract_network
from vqm_jax.perceptual import weight_files
from vqm_jax.perceptual import weights as perceptual_weights
from vqm_jax.prepare.challenge import packing, two_cameras, weak
from vqm_jax.prepare.pairs import checked, footage, making
from vqm_jax.prepare.pairs import folder as pair_folders
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.configs import FramesConfig, TilesConfig
from vqm_jax.prepare.records.segments import SegmentsConfig
from vqm_jax.report import frame_folders, saved_frames, summaries
from vqm_jax.report.figures import plots
from vqm_jax.report.study import making as study_making
from vqm_jax.report.study import ratings, trials
from vqm_jax.report.study import rendering as study_rendering
from vqm_jax.report.submission import archive
from vqm_jax.report.tables import rendering
from vqm_jax.training import writer
from vqm_jax.video import remux, segments

SIZE = 24, 32  # of frames, height and width


class Wrong(Exception):
  """What was read is not what was written, without a word."""


class Target(NamedTuple):
  """One kind of file.

  Attributes:
    make: writes a valid set of files into an empty folder.
    read: reads it as a program does; the random numbers choose among its ways.
    victims: pattern of the files that are damaged, one in a trial.
    mutate: how; by default as `mutations.mutate`.
    after: what is done to the files when one is damaged, before they are read.
  """

  make: Callable[[pathlib.Path], Any]
  read: Callable[[pathlib.Path, random.Random], Any]
  victims: str = '*'
  mutate: Callable[[bytes, str, random.Random], bytes | None] | None = None
  after: Callable[[pathlib.Path], Any] | None = None


def picture(t: int = 0, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
  """uint8 (height, width, 3): blocks that move with t."""
  blocks = np.random.default_rng(5).integers(0, 256, (height // 8 + 1, width // 8 + 9, 3), np.uint8)
  large = blocks.repeat(8, axis=0).repeat(8, axis=1)
  start = t % 64
  return np.ascontiguousarray(large[:height, start : start + width])


def exhaust(frames: Iterator[Any]) -> int:
  """Reads all of them; returns how many there were."""
  return sum(1 for _ in itertools.islice(frames, 2000))


# Images.


def _save(path: pathlib.Path, frame: np.ndarray, **options) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(frame).save(path, **options)
  return path


def make_png(folder):
  _save(folder / 'rgb.png', picture())
  Image.fromarray(picture()).convert('P').save(folder / 'palette.png')
  Image.fromarray(picture()).convert('L').save(folder / 'grey.png', optimize=True)


def make_jpeg(folder):
  exif = Image.Exif()
  exif[0x0112] = 6
  _save(folder / 'plain.jpg', picture())
  _save(folder / 'turned.jpg', picture(), progressive=True, exif=exif)


def make_tiff(folder):
  for name in ('raw', 'tiff_lzw', 'tiff_deflate', 'jpeg', 'packbits'):
    _save(folder / f'{name}.tif', picture(), compression=name)


def make_webp(folder):
  _save(folder / 'lossless.webp', picture(), lossless=True)
  _save(folder / 'lossy.webp', picture())


def make_bmp(folder):
  _save(folder / 'rgb.bmp', picture())
  Image.fromarray(picture()).convert('P').save(folder / 'palette.bmp')


def make_animation(folder):
  frames = [Image.fromarray(picture(t)) for t in range(4)]
  options = dict(save_all=True, append_images=frames[1:], duration=40)
  frames[0].save(folder / 'a.png', **options)
  frames[0].save(folder / 'a.webp', lossless=True, **options)
  frames[0].save(folder / 'pages.tif', save_all=True, append_images=frames[1:])


def read_images(box, rng):
  for path in sorted(box.iterdir()):
    opened = video.open_video(path, lossy=True, fps=rng.choice((None, Fraction(25))))
    exhaust(opened.frames())


def make_frames(folder):
  for t in range(4):
    _save(folder / 'clip' / f'{t:06d}.png', picture(t))


def read_frames(box, rng):
  """A folder of frames, for enhancing, scoring, packing and figures."""
  way = rng.randrange(4)
  if way == 0:
    exhaust(video.open_video(box / 'clip').frames())
  elif way == 1:
    for clip in video.list_videos(box).values():
      exhaust(video.open_video(clip).frames())
  elif way == 2:
    for clip in frame_folders.find(box, '--frames').values():
      for path in clip:
        frame_folders.decode(path.read_bytes(), str(path))
  else:
    for path in sorted((box / 'clip').iterdir()):
      saved_frames._read(path)


# Videos.


_FORMATS = {'gif': 'rgb8', 'mjpeg': 'yuvj420p'}


def _code(
  path: pathlib.Path, codec: str, count: int = 10, sound: str | None = None, first: int = 0, **options: str
) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(codec, rate=25, options=options)
    output.metadata.update(title='Fjäll', comment='x' * 300)
    stream.metadata['language'] = 'swe'
    stream.width, stream.height, stream.pix_fmt = 64, 48, _FORMATS.get(codec, 'yuv420p')
    track = output.add_stream(sound, rate=48000, layout='mono') if sound else None
    for t in range(count):
      frame = av.VideoFrame.from_ndarray(picture(first + t, 48, 64), format='rgb24').reformat(format=stream.pix_fmt)
      frame.pts = t
      output.mux(stream.encode(frame))
      if track:
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), 'fltp', 'mono')
        samples.sample_rate, samples.pts = 48000, 1920 * t
        output.mux(track.encode(samples))
    output.mux(stream.encode(None))
    if track:
      output.mux(track.encode(None))
  return path


def make_mp4(folder):
  _code(folder / 'a.mp4', 'libx264', sound='aac', g='4')
  _code(folder / 'b.mov', 'libx265', **{'x265-params': 'log-level=none:keyint=5'})


def make_mkv(folder):
  _code(folder / 'a.mkv', 'libx264', sound='aac', bf='2')
  _code(folder / 'b.webm', 'libvpx-vp9', **{'cpu-used': '8', 'deadline': 'realtime'})


def make_avi(folder):
  _code(folder / 'a.avi', 'mpeg4', sound='mp2')
  _code(folder / 'b.avi', 'mjpeg')


def make_streams(folder):
  _code(folder / 'a.ts', 'mpeg2video', sound='mp2')
  _code(folder / 'b.h264', 'libx264', bf='0')
  _code(folder / 'c.gif', 'gif', count=4)


def read_videos(box, rng):
  options = dict(variable_rate=True, keep_going=rng.random() < 0.5, deinterlace=rng.random() < 0.3)
  options['deep'] = rng.random() < 0.3
  for path in sorted(box.iterdir()):
    source = video.open_video(path, **options)
    if rng.random() < 0.5:
      video.examine(source)
    (source.fps, source.num_frames, video.describe(source))
    if isinstance(source, video.VideoFile):
      (source.timestamps, source.keyframes, source.constant_rate, remux.problem(source))
    start = rng.randrange(source.num_frames + 1)
    exhaust(source.frames(start))
    exhaust(source.frames())


def read_folder_of_videos(box, rng):
  for clip in video.list_videos(box).values():
    exhaust(video.open_video(clip, variable_rate=True, lossy=True).frames())


# Zip archives.


def _zipped(path: pathlib.Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(path, 'w', method) as packed:
    for name, content in entries.items():
      packed.writestr(name, content)
  return path


def _png(frame: np.ndarray) -> bytes:
  out = io.BytesIO()
  Image.fromarray(frame).save(out, format='PNG')
  return out.getvalue()


def make_zip(folder):
  _zipped(folder / 'a.zip', {f'{t:03d}.png': _png(picture(t)) for t in range(3)})
  _zipped(folder / 'b.zip', {f'clip/{t:03d}.png': _png(picture(t)) for t in range(3)}, zipfile.ZIP_STORED)


def read_zip(box, rng):
  if rng.random() < 0.5:
    for path in sorted(box.iterdir()):
      exhaust(video.open_video(path).frames())
    return
  clips, _ = scored_folders.folder_clips(str(box), str(box))
  for clip in clips:
    exhaust(clip.frames())


def make_submission(folder):
  make_frames(folder / 'frames')
  frames = archive.chosen(frame_folders.find(folder / 'frames' / 'clip', '--frames'), 1)
  entries = {name: frames[clip][number] for name, (clip, number) in archive.entry_names(frames, None).items()}
  readme = archive.Readme(1.23, cpu=False, extra_data=False, other='one GPU')
  archive.pack(folder / 'submission.zip', entries, readme)
  shutil.rmtree(folder / 'frames')


def read_submission(box, rng):
  pictures = archive.verify(box / 'submission.zip')
  exhaust(archive.frames(box / 'submission.zip', pictures))


def make_challenge(folder):
  frames = {f'{clip}/{t:06d}.png': _png(picture(t)) for clip in ('000', '001') for t in range(3)}
  _zipped(folder / 'TrainingSourceDomain.zip', frames)
  _zipped(folder / 'TrainingTargetDomain.zip', frames)
  _zipped(folder / 'ValidationSource.zip', {f'060_{t:06d}.png': _png(picture(t)) for t in range(3)})


def read_challenge(box, rng):
  layout = packing.resolve(box, 'intvid')
  layout.verify()
  for split in packing.SPLITS:
    layout.digest(split)
  for clip in layout.clips:
    for source in clip.sources.values():
      exhaust(source.frames())


def make_challenge_manifest(folder):
  for clip in ('000', '001'):
    for side in ('source', 'target'):
      for t in range(2):
        _save(folder / side / clip / f'{t:06d}.png', picture(t))
  rows = [('split', 'clip_id', 'lq', 'hq', 'fps', 'category')]
  rows += [('train', '000', 'source/000', 'target/000', '25', 'city')]
  rows += [('val', '001', 'source/001', 'target/001', '30000/1001', '')]
  files.write_text(folder / 'manifest.csv', '\n'.join(map(','.join, rows)) + '\n')


# Records.


def _variant(config):
  builder = driver.find_builder('paired_videos')
  return driver.variant(builder, 'mine', config, {})


def make_pairs(folder):
  """Two pairs of videos with a manifest."""
  for clip in ('a', 'b'):
    _code(folder / f'train/lq/{clip}.mp4', 'libx264', count=12, crf='35', g='4')
    _code(folder / f'train/hq/{clip}.mp4', 'libx264', count=12, crf='10', g='6')
  for split, clip in (('val', 'c'), ('test', 'd')):
    _code(folder / f'{split}/lq/{clip}.mp4', 'libx264', count=12, crf='35')
    _code(folder / f'{split}/hq/{clip}.mp4', 'libx264', count=12, crf='10')
  rows = [('split', 'clip', 'fps', 'category', 'crf', 'qp', 'scenes')]
  rows += [('train', 'a', '25', 'city', '35', '36.5', '0-6;6-12'), ('train', 'b', '30000/1001', '', '35', '', '')]
  rows += [('val', 'c', '', 'sea', '', '', '')]
  files.write_text(folder / 'manifest.csv', '\n'.join(map(','.join, rows)) + '\n')


def _make_records(folder, config):
  pairs = folder / 'pairs'
  make_pairs(pairs)
  driver.build(_variant(config)(data_dir=folder), pairs)
  shutil.rmtree(pairs)


def make_tiles(folder):
  _make_records(folder, TilesConfig(name='tiles', num_frames=3, size=16, per_video=4))
  files.write_json(folder / 'digest.json', _digests_of('tiles', folder))


def make_clips(folder):
  _make_records(folder, FramesConfig(name='frames'))
  files.write_json(folder / 'digest.json', _digests_of('frames', folder))


def make_segments(folder):
  _make_records(folder, SegmentsConfig(name='segments', min_frames=3, max_frames=8))


def _records(config: str, folder: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
  """The frames of all records under names that do not change."""
  if config == 'frames':
    reader = data.ClipReader(data.open_source('mine', config, 'val', str(folder)))
    for name, clip in reader.clips.items():
      for t, (lq, hq) in enumerate(reader.frames(name, 0, clip.num_frames)):
        yield f'{name} {t}', np.stack([lq, hq])
    return
  source = data.open_training('mine', config, str(folder))
  sampling.check_records(source, num_frames=2, crop=8)
  sampling.trained_on([source])
  for index, record in enumerate(records.Records(source, ('video', 'start', 'lq', 'hq'))):
    yield f'{record["video"]} {record["start"]} {index}', np.stack([record['lq'], record['hq']])


def _digests_of(config, folder):
  return {name: int(frames.astype(np.int64).sum()) for name, frames in _records(config, folder)}


def _read_records(config):
  def read(box, rng):
    written = json.loads((box / 'digest.json').read_text())
    for name, frames in _records(config, box):
      if written.get(name) != int(frames.astype(np.int64).sum()):
        raise Wrong(f'record {name} is not what was written')

  return read


def read_segments(box, rng):
  source = data.open_training('mine', 'segments', str(box))
  with data.train_batches(source, num_frames=2, crop=16, batch_size=4, seed=rng.randrange(100)) as batches:
    for _ in range(3):
      next(batches)


def make_unfinished(folder):
  """A build that was stopped: one of its files is there."""
  make_pairs(folder / 'pairs')
  driver.build(_variant(FramesConfig(name='frames'))(data_dir=folder / 'data'), folder / 'pairs', part=(0, 2))


def read_unfinished(box, rng):
  driver.build(_variant(FramesConfig(name='frames'))(data_dir=box / 'data'), box / 'pairs')
  for name, _ in _records('frames', box / 'data'):
    name.encode()


# Runs.


SYSTEM, SYSTEM_ARGS = 'ecnu', {'width': 4, 'mapping_width': 4, 'num_blocks': 1}


@functools.cache
def _network() -> nnx.Module:
  return networks.random(functools.partial(restorers.create, SYSTEM, **SYSTEM_ARGS))


def _config():
  from experiments import ecnu

  config = ecnu.get_config('tiny')
  config.system_args.update(SYSTEM_ARGS)
  config.update(val_config='frames', data_dir='data')
  return config


def make_run(folder):
  """The folder of a run of two checkpoints, with records of training and an evaluation."""
  workdir.claim(folder, _config(), trained_on={'crf': [16, 42]}, strength_by_qp=[[20.0, 0.5], [30.0, 1.0]])
  params = nnx.to_pure_dict(nnx.state(_network(), nnx.Param))
  state = {'params': params, 'ema': params}
  meta = {'updates': 2, 'seconds': 1.5, 'hardware': ['a CPU']}
  with checkpoints.Checkpoints(folder / 'checkpoints') as saver:
    for step in (2, 4):
      saver.save(step, state, {'step': step, **meta}, psnr=30.0 + step)
      saver.wait()
  workdir.add_rollback(folder, [], 2, 3, errors.DivergenceError('The loss is nan at step 3.'))
  lines = [{'step': k, 'time': 1.5, 'train/loss': 0.5 / k, 'val/psnr': 30.0 + k} for k in range(1, 6)]
  files.write_text(folder / 'metrics.jsonl', ''.join(json.dumps(line) + '\n' for line in lines))
  make_summary(folder / 'eval' / 'test')


def read_config(box, rng):
  """What a second start, an evaluation and tables read."""
  config = workdir.read_config(box)
  (workdir.read_trained_on(box), workdir.read_strength_by_qp(box))
  if rng.random() < 0.3:
    try:
      abstract_network(config)
    except errors.ConfigError as error:  # as `open_run` does, which reads the weights first
      raise errors.CheckpointError(f'{box / "config.json"}: {error}') from error
  elif rng.random() < 0.3:
    inference.open_run(box)
  else:
    workdir.claim(box, _config())


def read_history(box, rng):
  """Rollbacks and metrics.jsonl: resumed, and drawn."""
  workdir.rollbacks(box)
  if rng.random() < 0.5:
    path = box / 'eval' / 'test' / summary.NAME
    (block,) = summaries.blocks({str(path): summary.read_summary(path)})
    plots.training(plots.runs(block.results))
  with writer.Writer(box, 4):
    pass


def read_checkpoint(box, rng):
  """Arrays are those that were written, of whichever checkpoint is intact."""
  directory = box / 'checkpoints'
  expected = checkpoints.flatten(nnx.to_pure_dict(nnx.state(_network(), nnx.Param)))
  step = checkpoints.select(directory, rng.choice(('best', 'latest', 2, 4)))
  meta = checkpoints.read_meta(directory, step)
  arrays = checkpoints.read_arrays(directory, step, 'ema')
  if meta.get('step') != step or any(not np.array_equal(arrays[name], expected[name]) for name in expected):
    raise Wrong(f'checkpoint {step} is not what was written')


def resume(box, rng):
  params = nnx.to_pure_dict(nnx.state(_network(), nnx.Param))
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), params)
  with checkpoints.Checkpoints(box / 'checkpoints') as saver:
    restored = saver.restore_latest({'params': abstract, 'ema': abstract})
  if restored is None:
    raise Wrong('training begins anew although there were checkpoints')
  found, expected = (checkpoints.flatten(tree) for tree in (restored[0]['params'], params))
  if any(not np.array_equal(found[name], expected[name]) for name in expected):
    raise Wrong('the state is not what was written')


def redigest(box):
  """Makes the digests fit the damage: what is read then is up to Orbax."""
  for step in checkpoints.steps(box / 'checkpoints'):
    folder = box / 'checkpoints' / str(step)
    (folder / checkpoints.DIGESTS).write_text(json.dumps(checkpoints._digests(folder)))


def read_redigested(box, rng):
  step = checkpoints.select(box / 'checkpoints', rng.choice(('best', 'latest', 2)))
  checkpoints.read_meta(box / 'checkpoints', step)
  inference.open_run(box, step)


# Results.


def _scores(values: dict[str, list[float]]) -> dict[str, Any]:
  means = {clip: float(np.mean(column)) for clip, column in values.items()}
  return {'mean': float(np.mean(list(means.values()))), 'per_clip': means, 'per_frame': values}


def make_summary(folder):
  sides = {
    side: {
      'psnr': _scores({'a': [30.0 + gain, 31.0], 'b': [33.0, 34.0 + gain]}),
      'ssim': _scores({'a': [0.9, 0.91], 'b': [0.92, 0.93]}),
    }
    for side, gain in (('metrics', 0.5), ('no_processing', 0.0))
  }
  measures = {name: {'label': name.upper(), 'better': 'higher', 'decimals': 3} for name in ('psnr', 'ssim')}
  content = {
    'schema_version': summary.SCHEMA_VERSION, 'dataset': 'demo/frames:1.0.0', 'split': 'test', 'method': 'x (step 9)',
    'system': 'ecnu', 'step': 9, 'params': 114_413, 'created': '2026-11-26T03:37:05+00:00', 'seed': 0, 'n_frames': 4,
    'timing': {'seconds_per_frame': 0.02, 'device': 'CPU', 'frame_size': [40, 60]}, 'n_clips': 2, **sides,
    'train': {'hardware': 'CPU', 'seconds': 3.0, 'extra_data': False, 'notes': ['short']}, 'measures': measures,
    'frame_indices': {'a': [0, 1], 'b': [0, 1]}, 'category': {'a': 'cats', 'b': ''}, 'gain': {'psnr': 0.25},
    'experiment': 'abc', 'missing': {'lpips_alex': 'no weights'}, 'fingerprint': 'f', 'data_fingerprint': 'd',
  }  # fmt: skip
  summary.write_summary(folder / summary.NAME, summary.summary_of(content))


def make_summaries(folder):
  make_summary(folder / 'one')
  make_summary(folder / 'two')
  path = folder / 'two' / summary.NAME
  path.write_text(path.read_text().replace('x (step 9)', 'y').replace('"seed": 0', '"seed": 1'))


def read_summaries(box, rng):
  found = summaries.find([str(path) for path in sorted(box.iterdir())])
  blocks = summaries.blocks({str(path): summary.read_summary(path) for path in found})
  rendering.write(box / 'out', rendering.documents(blocks))
  if rng.random() < 0.2:
    for path in found:
      one = summary.read_summary(path)
      results.write_report(box / 'report', one, results.rows(one))


def _clip_frames(name: str) -> scoring.ClipFrames:
  def frames():
    for t in range(3):
      yield picture(t), picture(t) // 2 * 2, picture(t)

  return scoring.ClipFrames(name, range(3), 'city', frames)


def make_scores(folder):
  stored_scores.score_resumably([_clip_frames('a'), _clip_frames('b')], folder)


def read_scores(box, rng):
  measures = [metrics.create('psnr')] if rng.random() < 0.5 else None
  found = stored_scores.score_resumably([_clip_frames('a'), _clip_frames('b')], box, measures)
  summary.summary_of({'dataset': 'd', 'method': 'm', **scoring.summarise(found)})


def make_timing(folder):
  content = {'seconds_per_frame': 0.02, 'device': '2-core CPU', 'frame_size': [24, 32]}
  files.write_json(folder / 'timing.json', content)


def read_timing(box, rng):
  class Reader:
    clips = {'a': None}

    def frames(self, *_):
      yield picture(), picture()

  found = stored_scores.timing(box / 'timing.json', lambda frames, devices: iter(frames), Reader())
  height, width = found['frame_size']
  f'{found["seconds_per_frame"]:.3g} ({found["device"]}, {width}x{height})'


# Studies.


def _study_key() -> dict[str, Any]:
  methods, clips = ['a', 'b', 'c'], ['x', 'y', 'z']
  made = trials.orders(methods, clips, 'pair', 'c', 4, 0, 12)
  stimuli = sorted({(m, t.clip) for order in made for t in order for m in (t.left, t.right) if m})
  tokens, asked = {stimulus: f't{k}' for k, stimulus in enumerate(stimuli)}, ('main', 'repeat', 'obvious')
  return {
    'format': study_making.KEY, 'version': study_making.FORMAT, 'study': 'demo', 'mode': 'pair', 'question': 'Which?',
    'methods': methods, 'target': None, 'clips': clips,
    'media': {token: {'method': method, 'clip': clip} for (method, clip), token in tokens.items()},
    'orders': [
      [{'kind': t.kind, 'media': [tokens[m, t.clip] for m in (t.left, t.right) if m]} for t in order if t.kind in asked]
      for order in made
    ],
  }  # fmt: skip


def make_study(folder):
  key = _study_key()
  files.write_text(folder / 'key.json', json.dumps(key))
  for name in ('P1', 'P2', 'P3'):
    slot = trials.slot_of(name, len(key['orders']))
    order = key['orders'][slot]
    answers = [
      {'trial': k, 'media': trial['media'], 'answer': ratings.CHOICES[k % 3], 'ms': 3000 + k, 'plays': 1}
      for k, trial in enumerate(order)
    ]
    digest = trials.order_digest('demo', slot, [trial['media'] for trial in order])
    export = {
      'format': study_making.ANSWERS, 'version': study_making.FORMAT, 'study': 'demo', 'mode': 'pair',
      'participant': name, 'slot': slot, 'answers': answers, 'started': '', 'finished': '', 'screen': None,
      'browser': '', 'order': digest, 'digest': trials.answers_digest('demo', name, digest, answers),
    }  # fmt: skip
    files.write_text(folder / 'answers' / f'{name}.json', json.dumps(export))


def read_study(box, rng):
  key = ratings.read_key(box / 'key.json')
  raters = ratings.screened(ratings.read(key, ratings.find([str(box / 'answers')])), 0.25, 1.0)
  texts, found = study_rendering.documents(key, raters, 20, 0)
  for name, text in texts.items():
    files.write_text(box / 'out' / name, text)
  files.write_json(box / 'out' / 'study.json', found['numbers'])


# Pairs.


def read_pairs(box, rng):
  memory = checked.Memory(box)
  for split in pair_folders.SPLITS:
    for listed in pair_folders.listed(split, box):
      pair = pair_folders.opened(listed, box)
      memory.get(pair)
      str((pair.lq.num_frames, pair.lq.fps))


def make_checked(folder):
  make_pairs(folder)
  pairs = [pair_folders.opened(one, folder) for one in pair_folders.listed('train', folder)]
  checked.checked(folder, pairs)


def read_checked(box, rng):
  pairs = [pair_folders.opened(one, box) for one in pair_folders.listed('train', box)]
  for pair, found in zip(pairs, checked.checked(box, pairs), strict=True):
    checked.with_scenes(pair, found)
    str(found.problem)


def make_degraded(folder):
  for k, name in enumerate('abc'):
    _code(folder / 'videos' / f'{name}.mp4', 'libx264', count=24, first=k, crf='10')
  settings = making.Settings(rate='crf=35', preset='ultrafast', counts={'val': 1, 'test': 0}, clip_frames=20)
  making.run(folder / 'videos', folder / 'pairs', settings)


def read_degraded(box, rng):
  settings = making.Settings(rate='crf=35', preset='ultrafast', counts={'val': 1, 'test': 0}, clip_frames=20)
  making.run(box / 'videos', box / 'pairs', settings)
  making.summary(box / 'pairs')


def make_columns(folder):
  rows = [('video', 'split', 'category', 'copies'), ('a.mp4', 'train', 'city', '1'), ('x/b.mp4', 'val', 'sea', '2')]
  files.write_text(folder / 'splits.csv', '\n'.join(map(','.join, rows)) + '\n')
  files.write_text(folder / 'offsets.csv', 'clip,offset\n000,3\n001,-2\n')


def read_columns(box, rng):
  found = {name: pathlib.Path(f'{name}.mp4') for name in ('a', 'x/b')}
  path = str(box / 'splits.csv')
  footage.checked_splits(footage.column(path, 'split', found), list(found), path)
  footage.column(path, 'category', found)
  footage.checked_copies(footage.column(path, 'copies', found, optional=True), path)
  weak.read_offsets(box / 'offsets.csv')


def make_pairing(folder):
  offset = weak.Offset(3, 0.9, '', weak.Drift(slope=0.1))
  pairing = two_cameras.Pairing(offset, weak.Homography(np.eye(3), 40, 0.8, ''))
  entries = {name: {'digest': 'abc', 'pairing': pairing.to_json()} for name in ('000', '001')}
  files.write_json(folder / 'pairing.json', entries)


class Rate(NamedTuple):
  """As much of a source as digests ask for."""

  fps: Fraction = Fraction(25)


def read_pairing(box, rng):
  class Pair(NamedTuple):
    clip_id: str
    digest: str = 'x'
    lq: Any = Rate()
    offset: int | None = None

  stored = two_cameras.StoredPairings(box)
  for clip in ('000', '001', 'ä'):
    stored.get(Pair(clip))


# Weights.


def make_safetensors(folder):
  for dtype in ('float32', 'float16'):
    path = folder / f'{dtype}.safetensors'
    exporting.save_safetensors(_network(), path, system=SYSTEM, system_args=SYSTEM_ARGS, dtype=dtype)


def read_safetensors(box, rng):
  for path in sorted(box.iterdir()):
    _, meta = exporting.read_safetensors(path)
    (meta.get('step') or 0, bool(meta.get('ema')))


def make_shipped(folder):
  weights = folder / 'vqm_jax' / 'weights'
  files.write_json(weights / 'index.json', {'schema_version': 1, 'weights': {}})
  files.write_text(folder / 'docs' / 'card.md', '# A card\n')
  with _shipped_in(folder):
    for name, device in (('web-a', 'cpu'), ('web-b', 'gpu')):
      exporting.save_safetensors(_network(), folder / 'x', system=SYSTEM, system_args=SYSTEM_ARGS, dtype='float16')
      shipped.add(
        name, folder / 'x', device=device, description='a small one', trained_on={'crf': [16, 42], 'qp': [14, 46]},
        licence='Apache-2.0', model_card='docs/card.md', strength_by_qp=[[20, 0.5], [30, 1.0]], pixels_per_second=1e6,
      )  # fmt: skip
  (folder / 'x').unlink()


class _shipped_in:
  """Has `shipped` look for weights in a folder."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder / 'vqm_jax' / 'weights'

  def __enter__(self):
    self.before, shipped.FOLDER = shipped.FOLDER, self.folder

  def __exit__(self, *_):
    shipped.FOLDER = self.before


def read_shipped(box, rng):
  with _shipped_in(box):
    (shipped.table(), shipped.default('cpu'), shipped.choices('web'))
    for name in ('web-a', 'web-b'):
      run = inference.open_run(name)
      run.strength_at(rng.choice((None, 10.0, 25.0)))
      found, expected = (checkpoints.flatten(nnx.to_pure_dict(nnx.state(net))) for net in (run.network, _network()))
      if any(np.abs(found[path] - expected[path]).max() > 1e-3 for path in expected):
        raise Wrong('weights are not those that were entered')


def _pickled(tree: Any, arrays: list[np.ndarray]) -> bytes:
  """The opcodes of torch.save for a nested dict of arrays, which it appends to `arrays`."""
  if isinstance(tree, dict):
    return b'}(' + b''.join(f'V{key}\n'.encode() + _pickled(value, arrays) for key, value in tree.items()) + b'u'
  strides = [step // tree.itemsize for step in tree.strides]
  shape, steps = (''.join(f'I{n}\n' for n in numbers) for numbers in (tree.shape, strides))
  text = f'ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV{len(arrays)}\nVcpu\nI{tree.size}\n'
  text += f'tQI0\n({shape}t({steps}t\x89ccollections\nOrderedDict\n)RtR'
  arrays.append(tree)
  return text.encode('latin1')


def _edvr() -> dict[str, np.ndarray]:
  """A small EDVR under BasicSR's names."""
  args = dict(width=4, num_frames=3, num_front=1, num_blocks=1, groups=1, tail_width=8, input_mean=0.0)
  params = networks.by_path(nnx.state(networks.random(functools.partial(restorers.create, 'tcl_edvr', **args))))
  first = ('conv_first_1', 'feature_extraction.0', 'reconstruction.0')
  modules = basicsr._modules({f'{name}.weight': None for name in first})
  theirs = {ours: name for name, ours in modules.items()}
  state = {}
  for path, array in params.items():
    module, _, kind = path.rpartition('/')
    array = np.asarray(array)
    name = f'{theirs[module]}.{"weight" if kind == "kernel" else kind}'
    state[name] = np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array
  return state


def make_pth(folder):
  arrays: list[np.ndarray] = []
  state = b'\x80\x02' + _pickled({'params': _edvr()}, arrays) + b'.'
  parts = {f'net/data/{k}': array.tobytes() for k, array in enumerate(arrays)}
  _zipped(folder / 'new.pth', {'net/data.pkl': state, 'net/byteorder': b'little', **parts}, zipfile.ZIP_STORED)
  head = weight_files._LEGACY_MAGIC, weight_files._LEGACY_PROTOCOL, {'protocol_version': 1001, 'little_endian': True}
  keys = pickle.dumps([str(k) for k in range(len(arrays))], 2)
  buffers = b''.join(struct.pack('<q', array.size) + array.tobytes() for array in arrays)
  (folder / 'old.pth').write_bytes(b''.join(pickle.dumps(value, 2) for value in head) + state + keys + buffers)


def read_pth(box, rng):
  for path in sorted(box.iterdir()):
    (basicsr.load_edvr if rng.random() < 0.3 else basicsr.read_edvr)(path)


def make_npz(folder):
  np.savez(folder / 'source.npz', **perceptual_weights.random_source('lpips-alex'))
  perceptual_weights.convert('lpips-alex', folder / 'source.npz', folder / 'lpips-alex.npz')


def read_npz(box, rng):
  perceptual_weights.load('lpips-alex', box)
  perceptual_weights.convert('lpips-alex', box / 'source.npz', box / 'again' / 'lpips-alex.npz')


# Outputs that are continued.


def _enhancing(box: pathlib.Path, output: str):
  source = video.open_video(box / 'in.mp4')
  return segments.SegmentedOutput(
    box / output, source, height=source.height, width=source.width, job={'what': 'a trial'},
    notes=lambda start, stop: {'damaged': [start]},
  )  # fmt: skip


def make_parts(folder):
  _code(folder / 'in.mp4', 'libx264', count=50)
  for output in ('out', 'out.mp4'):
    with _enhancing(folder, output) as writing:
      for frame in itertools.islice(video.open_video(folder / 'in.mp4').frames(), 30):
        writing.write(frame)


def read_parts(box, rng):
  with _enhancing(box, 'out') as writing:
    for frame in video.open_video(box / 'in.mp4').frames(writing.done):
      writing.write(frame)
    writing.join()
    segments.publish([writing])
  both = (video.open_video(box / name).frames() for name in ('out', 'in.mp4'))
  for kept, frame in zip(*both, strict=True):
    if not np.array_equal(kept, frame):
      raise Wrong('a frame is not what was written')


# Names.


def make_name(folder):
  files.write_json(folder / 'name.json', {'name': 'clip_00'})


def mutate_name(content, name, rng):
  texts = [*mutations.TEXTS, 'clip_00']
  text = ''.join(rng.choice(texts) for _ in range(rng.choice((1, 1, 2, 3))))
  if rng.random() < 0.5:
    text = ''.join(chr(rng.randrange(rng.choice((128, 0x3000, 0x110000)))) for _ in text[:50])
  return json.dumps({'name': text}).encode()


def read_name(box, rng):
  """A name that is accepted names files in the folder that it is for, and nothing else."""
  name = json.loads((box / 'name.json').read_text())['name']
  names.check([name], str(box / 'name.json'))
  folder = box / 'out'
  for suffix in ('.json', '.png', ''):
    path = folder / f'{name}{suffix}'
    files.write_text(path, 'x')
    if [entry.name for entry in folder.iterdir()] != [f'{name}{suffix}'] or path.resolve().parent != folder.resolve():
      raise Wrong(f'{name!r} leads elsewhere')
    path.unlink()


TARGETS: dict[str, Target] = {
  'png': Target(make_png, read_images),
  'jpeg': Target(make_jpeg, read_images),
  'tiff': Target(make_tiff, read_images),
  'webp': Target(make_webp, read_images),
  'bmp': Target(make_bmp, read_images),
  'animations': Target(make_animation, read_images),
  'frames': Target(make_frames, read_frames, 'clip/*'),
  'mp4': Target(make_mp4, read_videos),
  'mkv': Target(make_mkv, read_videos),
  'avi': Target(make_avi, read_videos),
  'streams': Target(make_streams, read_videos),
  'folder of videos': Target(make_mp4, read_folder_of_videos),
  'zip of frames': Target(make_zip, read_zip),
  'submission': Target(make_submission, read_submission),
  'zips of the challenge': Target(make_challenge, read_challenge),
  'manifest of the challenge': Target(make_challenge_manifest, read_challenge, 'manifest.csv'),
  'records tiles': Target(make_tiles, _read_records('tiles'), 'mine/*/*/*'),
  'records frames': Target(make_clips, _read_records('frames'), 'mine/*/*/*'),
  'records segments': Target(make_segments, read_segments, 'mine/*/*/*'),
  'unfinished build': Target(make_unfinished, read_unfinished, 'data/*/*/*/*'),
  'config': Target(make_run, read_config, 'config.json'),
  'history': Target(make_run, read_history, '*.json*'),
  'checkpoint': Target(make_run, read_checkpoint, 'checkpoints/**/*'),
  'checkpoint resumed': Target(make_run, resume, 'checkpoints/**/*'),
  'checkpoint redigested': Target(make_run, read_redigested, 'checkpoints/**/*', after=redigest),
  'summary': Target(make_summaries, read_summaries, '*/summary.json'),
  'stored scores': Target(make_scores, read_scores, '*.json'),
  'timing': Target(make_timing, read_timing),
  'study key': Target(make_study, read_study, 'key.json'),
  'study answers': Target(make_study, read_study, 'answers/*'),
  'manifest of pairs': Target(make_pairs, read_pairs, 'manifest.csv'),
  'checked pairs': Target(make_checked, read_checked, 'checked.json'),
  'degrade.json': Target(make_degraded, read_degraded, 'pairs/*.*'),
  'columns': Target(make_columns, read_columns),
  'pairing': Target(make_pairing, read_pairing),
  'safetensors': Target(make_safetensors, read_safetensors),
  'shipped weights': Target(make_shipped, read_shipped, 'vqm_jax/weights/*'),
  'pth': Target(make_pth, read_pth),
  'npz': Target(make_npz, read_npz),
  'parts of an output': Target(make_parts, read_parts, '.out.parts/**/*'),
  'names': Target(make_name, read_name, mutate=mutate_name),
}
