"""How well can be told how strongly a video was compressed? Source of the constants of vqm_jax/video/compression.py.

python benchmarks/compression_estimate.py --clips=FOLDER[,FOLDER] [--measured=codecs|pixels] [--max_clips=12]

FOLDER holds nearly clean videos; those whose own QP is above 22 are left out. The middle 384x256 pixels of the first
frames of each are coded again.

codecs: with x264 at six CRFs, and with every other codec that we read, twice. A line takes what the other stream states
to the QP of x264 at the same PSNR, and is fitted over all clips; its error is that on clips left out of the fit, one
after the other.

pixels: x264 at five CRFs from 16 to 42. Ridge regression of the mean QP on what decoded luma shows of it: the energies
of bands of the 8x8 cosine transform, on the grid of the blocks and 4 pixels beside it, empty bands, jumps at the grid,
equal neighbours. Scored on clips left out of the fit. What it found is why `compression_of` says nothing of images.
"""

import os
import pathlib
import tempfile
from fractions import Fraction

import av
import numpy as np
from absl import flags, logging

from vqm_jax import cli, errors, video
from vqm_jax.video import colour, compression

_CLIPS = flags.DEFINE_list('clips', None, 'Folders of nearly clean videos.')
_PART = flags.DEFINE_enum('measured', 'codecs', ['codecs', 'pixels'], 'What is measured.')
_MAX_CLIPS = flags.DEFINE_integer('max_clips', 0, 'Take so many clips, spread over the folders; 0 for all.')
_FRAMES = flags.DEFINE_integer('frames', 24, 'Frames of each clip.', lower_bound=2)

CLEAN_QP = 22
HEIGHT, WIDTH = 256, 384
CRFS = {'codecs': (16, 22, 28, 34, 40, 46), 'pixels': (16, 22.5, 29, 35.5, 42)}
# Codec as we call it: encoder, suffix, options, and the two values that some of them take.
CODECS = {
  'hevc': ('libx265', '.mkv', {'preset': 'fast', 'x265-params': 'log-level=none'}, ('crf',), (24, 34)),
  'vp8': ('libvpx', '.webm', {'b:v': '20M', 'cpu-used': '4'}, ('crf', 'qmin', 'qmax'), (12, 40)),
  'vp9': ('libvpx-vp9', '.webm', {'b:v': '0', 'cpu-used': '5'}, ('crf',), (26, 46)),
  'av1': ('libsvtav1', '.mkv', {'preset': '10'}, ('crf',), (26, 50)),
  'mpeg4': ('mpeg4', '.mkv', {'b:v': '90M'}, ('qmin', 'qmax'), (3, 12)),
  'mpeg2video': ('mpeg2video', '.mkv', {'b:v': '90M'}, ('qmin', 'qmax'), (3, 12)),
}
_U, _V = np.mgrid[:8, :8]
_DCT = np.cos((2 * _V + 1) * _U * np.pi / 16) * np.where(_U == 0, np.sqrt(1 / 8), 0.5)
BANDS = [(_U + _V >= low) & (_U + _V <= high) for low, high in ((1, 2), (3, 5), (6, 8), (9, 14))]


def read(path: pathlib.Path) -> list[np.ndarray] | None:
  """The middle of the first frames, uint8 (256, 384, 3); None if the clip is small, short or not clean."""
  source = video.open_video(path, variable_rate=True)
  found = compression.compression_of(source)
  if found is None or found.qp > CLEAN_QP or source.height < HEIGHT or source.width < WIDTH:
    return None
  top, left = (source.height - HEIGHT) // 2, (source.width - WIDTH) // 2
  frames = source.frames(0, min(source.num_frames, _FRAMES.value))
  return [frame[top : top + HEIGHT, left : left + WIDTH].copy() for frame in frames]


def code(frames: list[np.ndarray], folder: str, encoder: str, suffix: str, options: dict[str, str]) -> video.VideoFile:
  """The frames coded, as a file."""
  path = pathlib.Path(folder) / f'coded{suffix}'
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(encoder, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
    for k, rgb in enumerate(frames):
      frame = colour.rgb_to_yuv(rgb, colour.Colour('bt709'))
      frame.pts, frame.time_base = k, Fraction(1, 25)
      output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
  return video.VideoFile(path, fps=Fraction(25))


def luma(source: video.VideoFile) -> list[np.ndarray]:
  """float64 (H, W) of each frame."""
  return [frame.to_ndarray()[:HEIGHT].astype(float) for frame in source.yuv_frames()]


def psnr(source: video.VideoFile, frames: list[np.ndarray]) -> float:
  """Mean PSNR of luma in dB."""
  references = (colour.rgb_to_yuv(rgb, colour.Colour('bt709')).to_ndarray()[:HEIGHT] for rgb in frames)
  mse = [np.mean((coded - clean) ** 2) for coded, clean in zip(luma(source), references, strict=True)]
  return float(np.mean(10 * np.log10(255**2 / np.maximum(mse, 1e-3))))


def fit(features: np.ndarray, qp: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
  """Weights and offset of the line for features (N, F)."""
  mean = features.mean(0)
  centred = features - mean
  spread = centred.std(0) + 1e-9
  scaled = centred / spread
  weights = np.linalg.solve(scaled.T @ scaled + ridge * np.eye(len(mean)), scaled.T @ (qp - qp.mean())) / spread
  return weights, qp.mean() - mean @ weights


def left_out(features: np.ndarray, qp: np.ndarray, clips: np.ndarray, ridge: float) -> np.ndarray:
  """Errors in QP of each row by the fit without its clip."""
  found = np.empty(len(qp))
  for clip in set(clips):
    weights, offset = fit(features[clips != clip], qp[clips != clip], ridge)
    found[clips == clip] = features[clips == clip] @ weights + offset
  return found - qp


def show(y: np.ndarray) -> list[float]:
  """Measures signs of compression in luma (H, W)."""
  said = []
  energies = []
  for shift in (0, 4):
    part = y[shift : HEIGHT - 8 + shift, shift : WIDTH - 8 + shift]
    blocks = part.reshape(-1, 8, part.shape[1] // 8, 8).swapaxes(1, 2)
    squares = (_DCT @ blocks @ _DCT.T) ** 2
    energies.append([squares[..., band] for band in BANDS])
  for on, beside in zip(*energies, strict=True):
    logs = [np.log(side.mean(-1) + 0.02) for side in (on, beside)]
    empty = [np.mean(side.max(-1) < 1) for side in (on, beside)]
    said += [*np.percentile(logs[0], (10, 50)), logs[0].mean(), np.log(on.mean() + 0.02)]
    said += [logs[0].mean() - logs[1].mean(), np.log((on.mean() + 0.02) / (beside.mean() + 0.02))]
    said += [empty[0], empty[0] - empty[1]]
  for picture in (y, y.T):
    steps = np.abs(np.diff(picture))
    excess = 2 * steps[:, 1:-1] - steps[:, :-2] - steps[:, 2:]
    place = np.arange(2, steps.shape[1]) % 16  # of the pixel behind the step
    said += [excess[:, np.isin(place, at)].mean() / (steps.mean() + 0.05) for at in ((0,), (8,), (4, 12))]
    said.append(np.mean(steps == 0))
  laplacian = np.diff(np.diff(y, 2, 0), 2, 1)
  return [*said, np.mean(laplacian == 0), np.log(np.median(np.abs(laplacian)) + 0.5), y.mean() / 255]


def codecs(clips: dict[str, list[np.ndarray]]) -> None:
  """Prints the lines of `compression.SCALES`."""
  rows = {name: [] for name in CODECS}
  with tempfile.TemporaryDirectory() as folder:
    for clip, frames in clips.items():
      curve = []
      for crf in CRFS['codecs']:
        coded = code(frames, folder, 'libx264', '.mp4', {'crf': str(crf)})
        curve.append((psnr(coded, frames), compression.stated(coded, len(frames))))
      curve.sort()
      for name, (encoder, suffix, options, keys, values) in CODECS.items():
        for value in values:
          coded = code(frames, folder, encoder, suffix, options | dict.fromkeys(keys, str(value)))
          quality = psnr(coded, frames)
          if curve[0][0] <= quality <= curve[-1][0]:
            stated = compression.stated(coded, len(frames))
            rows[name].append((clip, stated, float(np.interp(quality, *zip(*curve, strict=True)))))
      logging.info('%s: QP %s', clip, ' '.join(f'{qp:.1f}' for _, qp in curve))
  print('codec       files  offset   slope  mean |error|  largest')
  for name, found in rows.items():
    names, stated, qp = (np.array(column) for column in zip(*found, strict=True))
    (slope,), offset = fit(stated[:, None], qp, 0)
    off = np.abs(left_out(stated[:, None], qp, names, 0))
    print(f'{name:10s} {len(qp):6d} {offset:7.2f} {slope:7.4f} {off.mean():13.2f} {off.max():8.2f}')


def pixels(clips: dict[str, list[np.ndarray]]) -> None:
  """Prints how far estimates from pixels are off."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for clip, frames in clips.items():
      for crf in CRFS['pixels']:
        coded = code(frames, folder, 'libx264', '.mp4', {'crf': str(crf)})
        shown = np.mean([show(y) for y in luma(coded)[4::5]], 0)
        rows.append((clip, compression.stated(coded, len(frames)), shown))
      logging.info('%s', clip)
  names, qp, shown = (np.array(column) for column in zip(*rows, strict=True))
  off = min((left_out(shown, qp, names, ridge) for ridge in (1, 3, 10, 30)), key=lambda off: np.abs(off).mean())
  print(f'{len(clips)} clips, QP {qp.min():.0f} to {qp.max():.0f}, {shown.shape[1]} features')
  print(f'mean |error| {np.abs(off).mean():.2f}, of nine in ten below {np.percentile(np.abs(off), 90):.1f}, ', end='')
  print(f'of the median QP for all {np.abs(qp - np.median(qp)).mean():.2f}')
  for low, high in ((0, 24), (24, 32), (32, 40), (40, 52)):
    inside = (low <= qp) & (qp < high)
    if inside.any():
      print(f'QP {low} to {high}: |error| {np.abs(off[inside]).mean():.2f}, bias {off[inside].mean():+.2f}')


def main(argv: list[str]) -> None:
  del argv
  if not _CLIPS.value:
    print('Nothing measured: --clips names no folder of nearly clean videos.')
    return
  os.environ.setdefault('SVT_LOG', '1')  # errors alone
  paths = [path for folder in _CLIPS.value for path in video.list_videos(folder).values()]
  if _MAX_CLIPS.value:
    paths = paths[:: max(1, len(paths) // _MAX_CLIPS.value)][: _MAX_CLIPS.value]
  clips = {path.stem: frames for path in paths if (frames := read(path))}
  if len(clips) < 2:
    raise errors.DataError(f'--clips={",".join(_CLIPS.value)}: {len(clips)} clean clips, expected 2 or more.')
  {'codecs': codecs, 'pixels': pixels}[_PART.value](clips)


if __name__ == '__main__':
  cli.run(main)
