"""Shows what was built: some windows or frames beside their targets with their PSNR, as one picture.

python -m vqm_jax.prepare.show --dataset=mine --config=tiles_t1p256 --data_dir=data/ --output=sheet.png

Windows are shown by their middle frame; a line for each is printed with where it comes from.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags
from PIL import Image

from vqm_jax import cli, data, errors, metrics
from vqm_jax.data.records import DataSource, Records
from vqm_jax.report import pictures

_DATASET = flags.DEFINE_string('dataset', None, 'Name of a prepared data set.', required=True)
_CONFIG = flags.DEFINE_string('config', 'tiles', 'Config of the data set.')
_SPLIT = flags.DEFINE_string('split', None, 'Split to look at; default train for windows, val for frames.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where records are; default $TFDS_DATA_DIR, else that of TFDS.')
_OUTPUT = flags.DEFINE_string('output', 'contact_sheet.png', 'Picture to write.')
_COUNT = flags.DEFINE_integer('count', 12, 'How many windows or frames.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Chooses among windows; frames are spread evenly.', lower_bound=0)

_COLUMNS = 2
_LARGEST = 480  # pixels of width of a frame in the picture; larger ones are reduced

# What is said of a pair, input and target; the target is None where it is withheld.
Shown = tuple[str, np.ndarray, np.ndarray | None]


def windows(source: DataSource, count: int, seed: int) -> Iterator[Shown]:
  """The middle frames of some windows, drawn by `seed`, in the order of the records."""
  records = Records(source, ('video', 'scene', 'start', 'yx', 'lq', 'hq'))
  chosen = np.random.default_rng(seed).permutation(len(records))[:count]
  for index in sorted(map(int, chosen)):
    record = records[index]
    lq, hq = (record[side][len(record[side]) // 2] for side in ('lq', 'hq'))
    y, x = record['yx']
    yield f'{record["video"].decode()} scene {record["scene"]} frame {record["start"]} at {y},{x}', lq, hq


def frames(source: DataSource, count: int) -> Iterator[Shown]:
  """Frames spread evenly over all clips of a split."""
  reader = data.ClipReader(source)
  places = [(name, t) for name, clip in reader.clips.items() for t in range(clip.num_frames)]
  for k in range(min(count, len(places))):
    name, t = places[(2 * k + 1) * len(places) // (2 * min(count, len(places)))]
    lq, hq = next(reader.frames(name, t, t + 1))
    yield f'{name} frame {t}', lq, hq


def row(text: str, lq: np.ndarray, hq: np.ndarray | None) -> tuple[str, np.ndarray]:
  """The line to print and the picture of one pair."""
  if hq is None:
    return f'{text}  target withheld', pictures.side_by_side([_reduced(lq)], [text])
  psnr = f'{float(metrics.psnr(lq, hq)):.2f} dB'
  panels = map(_reduced, (lq, hq, pictures.error(lq, hq)))
  return f'{text}  {psnr}', pictures.side_by_side(list(panels), [text, 'target', f'{psnr}, error x4'])


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
  """Pictures, uint8 (H, W, 3) of any sizes, in two columns on white."""
  height, width = (max(picture.shape[axis] for picture in rows) for axis in (0, 1))
  lines = -(-len(rows) // _COLUMNS)
  out = np.full((lines * height, min(_COLUMNS, len(rows)) * (width + 8) - 8, 3), 255, np.uint8)
  for k, picture in enumerate(rows):
    y, x = k // _COLUMNS * height, k % _COLUMNS * (width + 8)
    out[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
  return out


def _reduced(frame: np.ndarray) -> np.ndarray:
  height, width, _ = frame.shape
  if width <= _LARGEST:
    return frame
  size = _LARGEST, round(height * _LARGEST / width)
  return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def main(_: Sequence[str]) -> None:
  """Writes the picture and prints a line for each pair."""
  output = pathlib.Path(_OUTPUT.value)
  if output.suffix.lower() != '.png':
    raise errors.ConfigError(f'--output={output}: expected a name that ends in .png.')
  split = _SPLIT.value or ('val' if _CONFIG.value.rpartition('micro_')[2].startswith('frames') else 'train')
  source = data.open_source(_DATASET.value, _CONFIG.value, split, _DATA_DIR.value)
  in_frames = 'clip' in source.dataset_info.features
  shown = frames(source, _COUNT.value) if in_frames else windows(source, _COUNT.value, _SEED.value)
  lines, rows = zip(*(row(*pair) for pair in shown), strict=True)
  pictures.save_png(output, sheet(rows))
  print(*lines, f'{len(source)} records in split {split}; picture in {output}', sep='\n')


if __name__ == '__main__':
  cli.run(main)
