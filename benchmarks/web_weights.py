"""Measures the gain of weights on web video: in PSNR over the compressed input, clip by clip, beside simple filters.

python benchmarks/web_weights.py --clips=FOLDER --match='davis|birds' [--weights=web-small,runs/mine] [--crf=20,30,35]

Every clip of the folder is coded with H.264 at each CRF, decoded and restored; PSNR is that of RGB frames, as
everywhere in this project. `--weights` are names of weights that ship, or workdirs; the strength is that which
`enhance` takes by the QP. Beside them: a linear 5x5 filter, fitted on the records that `--data_dir` has of the data
set `web`, and filters of libavfilter. Clips must be ones that no weights were trained on. Also prints the time
of a frame of --size. Scores of a method and clip are kept in --out and not made again. Seconds to minutes for each
clip.
"""

import json
import pathlib
import re
import subprocess
import time

import av
import numpy as np
from absl import flags

from vqm_jax import cli, data, files, inference, metrics, video
from vqm_jax.evaluation import filter_scores, filters
from vqm_jax.metrics import statistics

_CLIPS = flags.DEFINE_string('clips', None, 'Folder of original videos.', required=True)
_MATCH = flags.DEFINE_string('match', '', 'Only clips in whose name this regex is found.')
_WEIGHTS = flags.DEFINE_list('weights', [], 'Names of weights that ship, or workdirs.')
_CRF = flags.DEFINE_list('crf', ['20', '30', '35'], 'Rates to code at.')
_PRESET = flags.DEFINE_string('preset', 'medium', 'Preset of x264.')
_FILTERS = flags.DEFINE_list('filters', ['nlmeans=s=2'], 'Filters of libavfilter to compare with.')
_FFMPEG = flags.DEFINE_string('ffmpeg', None, 'The ffmpeg program to run --filters by, in place of PyAV.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where records of the data set `web` are, to fit the linear filter.')
_FRAMES = flags.DEFINE_integer('frames', 48, 'First frames of each clip.', lower_bound=1)
_EVERY = flags.DEFINE_integer('every', 8, 'Score every n-th of them.', lower_bound=1)
_SIZE = flags.DEFINE_string('size', '720x1280', 'Frame to take the time of; empty for none.')
_OUT = flags.DEFINE_string('out', 'runs/web_weights', 'Folder of the scores.')
_DOCS = flags.DEFINE_string('docs', None, 'Also write the tables to this file.')


def libav_filter(description: str):
  """A function from frames, uint8 (H, W, 3), to the frames that a filter of libavfilter makes of them."""
  name, _, args = description.partition('=')

  def restore(frames):
    graph = None
    for frame in frames:
      coded = video.rgb_to_yuv(frame, video.default_colour(len(frame)))
      if graph is None:
        graph = av.filter.Graph()
        source = graph.add_buffer(width=coded.width, height=coded.height, format=coded.format, time_base='1/25')
        filtered = graph.add(name, args)
        source.link_to(filtered)
        filtered.link_to(graph.add('buffersink'))
        graph.configure()
      coded.pts = None
      graph.push(coded)
      yield video.yuv_to_rgb(graph.pull(), video.default_colour(len(frame)))

  return restore


def program_filter(description: str):
  """The same by the ffmpeg program, which has filters that PyAV's libavfilter lacks."""

  def restore(frames):
    coded = [video.rgb_to_yuv(frame, video.default_colour(len(frame))) for frame in frames]
    height, width = coded[0].height, coded[0].width
    raw = ['-f', 'rawvideo', '-pix_fmt', 'yuv420p']
    command = [_FFMPEG.value, '-v', 'error', *raw, '-s', f'{width}x{height}', '-i', '-', '-vf', description, *raw, '-']
    pixels = b''.join(frame.reformat(format='yuv420p').to_ndarray().tobytes() for frame in coded)
    done = subprocess.run(command, input=pixels, capture_output=True, check=True).stdout
    for planes in np.frombuffer(done, np.uint8).reshape(-1, height * 3 // 2, width):
      frame = av.VideoFrame.from_ndarray(planes, format='yuv420p')
      yield video.yuv_to_rgb(frame, video.default_colour(height))

  return restore


def methods():
  """Returns all methods: {name: a function from frames and their QP to every `--every`-th, restored}."""
  every = _EVERY.value

  def single(restore):
    return lambda frames, qp: restore(frame for index, frame in enumerate(frames, 1) if index % every == 0)

  def trained(run):
    return lambda frames, qp: inference.restore_frames(run.network, frames, every=every, strength=run.strength_at(qp))

  found = {'no processing': single(lambda frames: frames)}
  if _DATA_DIR.value:
    weights = filters.fit_linear(
      filter_scores.training_pairs(data.open_training('web', 'tiles_t1p128', _DATA_DIR.value))
    )
    linear = filter_scores.frame_by_frame(lambda frames: filters.linear(frames, weights), every)
    found['linear 5x5, fitted'] = lambda frames, qp: linear(frames)
  by = program_filter if _FFMPEG.value else libav_filter
  found |= {name: single(by(name)) for name in _FILTERS.value if name}
  return found | {name: trained(inference.open_run(name)) for name in _WEIGHTS.value}


def scores(path: pathlib.Path, crf: float, restores) -> dict[str, list[float]]:
  """PSNR in dB of the frames of one clip at one rate, by method."""
  clip = video.VideoFile(path)
  stop = min(_FRAMES.value, clip.num_frames)
  kept = pathlib.Path(_OUT.value) / f'{path.stem}_crf{crf:g}_{_PRESET.value}_{stop}_{_EVERY.value}.json'
  found = json.loads(kept.read_text()) if kept.exists() else {}
  missing = {name: restore for name, restore in restores.items() if name not in found}
  if missing:
    coded = pathlib.Path(_OUT.value) / f'{path.stem}_crf{crf:g}.mp4'
    video.encode(clip.yuv_frames(0, stop), coded, fps=clip.fps, colour=clip.colour, crf=crf, preset=_PRESET.value)
    lq, qp = list(video.VideoFile(coded).frames()), video.compression_of(video.VideoFile(coded)).qp
    coded.unlink()
    hq = list(clip.frames(0, stop))[_EVERY.value - 1 :: _EVERY.value]
    for name, restore in missing.items():
      found[name] = [float(metrics.psnr(a, b)) for a, b in zip(restore(iter(lq), qp), hq, strict=True)]
      files.write_json(kept, found)
  return {name: found[name] for name in restores}


def seconds_per_frame(restore, height: int, width: int) -> float:
  """Of one frame of noise, compilation left out."""
  frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  count = 2 * _EVERY.value
  for _ in range(2):
    start = time.perf_counter()
    restored = len(list(restore(iter([frame] * count), None)))
  return (time.perf_counter() - start) / restored


def main(argv: list[str]) -> None:
  del argv
  cli.share_cores()  # as `enhance` does
  pathlib.Path(_OUT.value).mkdir(parents=True, exist_ok=True)
  clips = [path for name, path in video.list_videos(_CLIPS.value).items() if re.search(_MATCH.value, name)]
  restores, lines = methods(), []
  for crf in map(float, _CRF.value):
    table = {
      path.stem: scores(path, crf, restores) for path in cli.progress(clips, len(clips), f'CRF {crf:g}', 'clips')
    }
    base = {clip: np.mean(found['no processing']) for clip, found in table.items()}
    lines += [f'CRF {crf:g}: {len(clips)} clips, input {np.mean(list(base.values())):.2f} dB', '']
    lines += ['| | Gain, dB | 95 % of clips drawn | Lowest clip | Highest |', '| --- | ---: | --- | --- | --- |']
    for name in list(restores)[1:]:
      gains = {clip: np.mean(found[name]) - base[clip] for clip, found in table.items()}
      low, high = statistics.bootstrap_interval(list(gains.values()))
      ends = [f'{gains[clip]:+.3f} {clip}' for clip in (min(gains, key=gains.get), max(gains, key=gains.get))]
      mean = np.mean(list(gains.values()))
      lines.append(f'| {name} | {mean:+.3f} | {low:+.3f} to {high:+.3f} | {ends[0]} | {ends[1]} |')
    lines.append('')
  if _SIZE.value:
    height, width = map(int, _SIZE.value.split('x'))
    lines += [f'| | Seconds for a frame of {width}x{height} |', '| --- | ---: |']
    lines += [f'| {name} | {seconds_per_frame(restores[name], height, width):.2f} |' for name in list(restores)[1:]]
  text = '\n'.join(lines)
  print(text)
  if _DOCS.value:
    files.write_text(pathlib.Path(_DOCS.value), text + '\n')


if __name__ == '__main__':
  cli.run(main)
