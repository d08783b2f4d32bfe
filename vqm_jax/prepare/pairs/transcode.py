"""One source video becomes one pair: coded, checked, scored. Runs in worker processes."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from vqm_jax import metrics
from vqm_jax.prepare.pairs import align, scenes
from vqm_jax.prepare.pairs.degradation import Degradation
from vqm_jax.prepare.pairs.footage import Footage
from vqm_jax.video import VideoFile, colour, compression_of, encode

# H.264 without loss: the very samples, 3 to 16 times smaller than PNG on 19 real clips.
_LOSSLESS = {'crf': 0.0, 'preset': 'veryfast'}
# Splits whose clips are whole videos; the others hold a window of each video.
WHOLE = ('train', 'holdout')
_SCORED = 40  # frames of a clip, about


@dataclasses.dataclass(frozen=True)
class Job:
  """One pair to make."""

  path: pathlib.Path
  source: str
  name: str
  split: str
  category: str
  degradation: Degradation
  clip_frames: int
  footage: Footage


def make(job: Job, output: pathlib.Path) -> tuple[dict[str, Any], align.Alignment]:
  """Write <split>/{lq,hq}/<name> below `output`; return the row of the manifest and how the sides fit.

  LQ is coded from the samples of HQ. A whole video keeps its file as HQ, if that is 4:2:0 and of even size. A window is
  cut out of the coded scene, because a clip coded by itself would begin with a better frame, the key frame; its two
  sides, and HQ that cannot stay as it is, are stored as H.264 without loss. Where the rate varies, all keep the times
  of the frames.
  Raises DataError if the pair is out of step, VideoError if the source has become unreadable.
  """
  footage, whole = job.footage, job.split in WHOLE
  video = VideoFile(job.path, variable_rate=True)
  scene, (start, stop) = _extent(job)
  work = output / '.work' / job.name
  work.mkdir(parents=True, exist_ok=True)
  coded = _code(job, video, scene, work)
  fits = align.check(job.source, map(_luma, hq_frames(video, *scene, job.degradation)), map(_luma, coded.yuv_frames()))
  compression = compression_of(coded)
  kbps = [
    8e-3 * path.stat().st_size * float(video.fps) / count
    for path, count in ((coded.path, coded.num_frames), (job.path, footage.num_frames))
  ]
  if whole:
    lq = coded.path
  else:
    frames = coded.yuv_frames(start - scene[0], stop - scene[0])
    lq = _store(frames, video, start, stop, work / 'lq.mp4')
  if whole and footage.as_is and job.degradation.keeps_original:
    hq = work / f'hq{job.path.suffix.lower()}'
    shutil.copyfile(job.path, hq)
  else:
    hq = _store(hq_frames(video, start, stop, job.degradation), video, start, stop, work / 'hq.mp4')
  sides = [(side.yuv_frames(), side.colour) for side in (VideoFile(path, variable_rate=True) for path in (lq, hq))]
  psnr = _psnr(*sides, step=_step(stop - start) if whole else 1)
  height, width = job.degradation.size(footage.height, footage.width)
  paths = {}
  for side, path in (('lq', lq), ('hq', hq)):
    paths[side] = pathlib.Path(job.split, side, job.name + path.suffix)
    (output / paths[side]).parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, output / paths[side])
  shutil.rmtree(work)
  row = dict(
    split=job.split,
    clip=job.name,
    lq=paths['lq'].as_posix(),
    hq=paths['hq'].as_posix(),
    fps=footage.fps,
    category=job.category,
    crf=job.degradation.codings[-1].rate.get('crf', float('nan')),
    qp=f'{compression.qp:.2f}' if compression else '',
    scenes=scenes.to_text(footage.scenes if whole else ((0, stop - start),)),
    frames=stop - start,
    height=height,
    width=width,
    psnr=f'{psnr:.4f}',
    sha256=footage.sha256,
    source=job.source,
    start=start,
    lq_kbps=f'{kbps[0]:.1f}',
    hq_kbps=f'{kbps[1]:.1f}',
    degradation=str(job.degradation),
  )
  return row, fits


def score(job: Job, output: pathlib.Path) -> float:
  """Mean PSNR in dB of about 40 frames of the window of `job`, coded as `make` would; leaves no file."""
  video = VideoFile(job.path, variable_rate=True)
  scene, (start, stop) = _extent(dataclasses.replace(job, split='val'))
  work = output / '.work' / f'{job.name}.probe'
  work.mkdir(parents=True, exist_ok=True)
  coded = _code(job, video, scene, work)
  lq = coded.yuv_frames(start - scene[0], stop - scene[0])
  hq = hq_frames(video, start, stop, job.degradation)
  psnr = _psnr((lq, coded.colour), (hq, video.colour), step=_step(stop - start))
  shutil.rmtree(work)
  return psnr


def hq_frames(
  video: VideoFile, start: int = 0, stop: int | None = None, degradation: Degradation | None = None
) -> Iterator:
  """Yield libav frames of the original as they are coded: 4:2:0, cropped to even size, tagged.

  With a `degradation`, reduced and grainy as it has its originals.
  """
  for index, frame in enumerate(video.yuv_frames(start, stop), start):
    if frame.height % 2 or frame.width % 2:
      frame = _even(frame)
    frame = colour.to_coded(frame, video.colour)
    yield degradation.original(frame, index) if degradation else frame


def _even(frame):
  """`frame`, of a planar format, without its last row or column where their number is odd."""
  cropped = type(frame)(frame.width // 2 * 2, frame.height // 2 * 2, frame.format.name)
  for new, old in zip(cropped.planes, frame.planes, strict=True):
    samples = np.frombuffer(old, np.uint8).reshape(-1, old.line_size)
    into = np.frombuffer(new, np.uint8).reshape(-1, new.line_size)
    into[: new.height, : new.width] = samples[: new.height, : new.width]
  return cropped


def _extent(job: Job) -> tuple[scenes.Scene, scenes.Scene]:
  """(frames to code, frames to keep)."""
  if job.split in WHOLE:
    return ((0, job.footage.num_frames),) * 2
  return scenes.window(job.footage.scenes, job.clip_frames)


def _code(job: Job, video: VideoFile, extent: scenes.Scene, work: pathlib.Path) -> VideoFile:
  """The last generation of the scene, in `work`."""
  frames = hq_frames(video, *extent, job.degradation)
  for generation, coding in enumerate(job.degradation.codings):
    path = work / f'coded_{generation}.mp4'
    options = coding.rate | _times(video, *extent)
    encode(frames, path, fps=video.fps, colour=video.colour, codec=coding.codec, preset=coding.preset, **options)
    coded = VideoFile(path, variable_rate=True)
    frames = coded.yuv_frames()
  return coded


def _store(frames, video: VideoFile, start: int, stop: int, path: pathlib.Path) -> pathlib.Path:
  encode(frames, path, fps=video.fps, colour=video.colour, **_LOSSLESS, **_times(video, start, stop))
  return path


def _times(video: VideoFile, start: int, stop: int) -> dict[str, Any]:
  """When these frames are shown, counted from the first of them, for `encode`; nothing where the rate says it."""
  if video.constant_rate or not video.timestamps:
    return {}
  times = video.timestamps[start:stop]
  return {'time_base': video.time_base, 'timestamps': [time - times[0] for time in times]}


def _luma(frame) -> np.ndarray:
  plane = frame.planes[0]
  return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _step(num_frames: int) -> int:
  # Odd, so that it does not fall in with the usual distances between kinds of coded frames.
  return max(1, num_frames // _SCORED) | 1


def _psnr(lq, hq, step: int) -> float:
  """Mean PSNR of every `step`-th frame; a side is (libav frames, their colour)."""
  (lq_frames, lq_colour), (original_frames, hq_colour) = lq, hq
  pairs = enumerate(zip(lq_frames, original_frames, strict=True))
  scores = [
    metrics.psnr(colour.yuv_to_rgb(a, lq_colour), colour.yuv_to_rgb(b, hq_colour))
    for index, (a, b) in pairs
    if index % step == 0
  ]
  return metrics.mean_psnr(np.array(scores))[0]
