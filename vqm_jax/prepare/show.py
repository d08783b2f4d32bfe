"""Shows what was built: some windows or frames beside their targets, as one picture.

python -m vqm_jax.prepare.show --dataset=mine --config=tiles_t1p256 --data_dir=data/ --output=sheet.png

Windows are shown by their middle frame; a line for each is printed with where it comes from, and the PSNR where pixels
correspond. Of two cameras, weak pairs are shown beside each other, with a frame around what the source window shows,
and windows of one camera by themselves (--split=train_source, the default, or train_target).
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from vqm_jax import cli, data, errors, metrics, pictures
from vqm_jax.data.records import DataSource, Records, open_builder
from vqm_jax.data.segments import FIELDS
from vqm_jax.video import remux

_DATASET = flags.DEFINE_string('dataset', None, 'Name of a prepared data set.', required=True)
_CONFIG = flags.DEFINE_string('config', 'tiles', 'Config of the data set.')
_SPLIT = flags.DEFINE_string('split', None, 'Split to look at; default train for windows, else the first there is.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where records are; default $TFDS_DATA_DIR, else that of TFDS.')
_OUTPUT = flags.DEFINE_string('output', 'contact_sheet.png', 'Picture to write.')
_COUNT = flags.DEFINE_integer('count', 12, 'How many windows or frames.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Chooses among windows; frames are spread evenly.', lower_bound=0)

_COLUMNS = 2
_LARGEST = 480  # pixels of width of a frame in the picture; larger ones are reduced

# The line to print and the picture of what a record holds.
Row = tuple[str, np.ndarray]


def windows(source: DataSource, count: int, seed: int) -> Iterator[Row]:
  """The middle frames of some windows, drawn by `seed`, in the order of the records."""
  features = source.dataset_info.features
  strips = [side for side in ('lq', 'hq', 'frames') if side in features]
  weak = ['dt', 'dyx', 'offset', 'ncc'] if 'dt' in features else []
  records = Records(source, ('video', 'scene', 'start', 'yx', *weak, *strips))
  chosen = np.random.default_rng(seed).permutation(len(records))[:count]
  for index in sorted(map(int, chosen)):
    record = records[index]
    y, x = record['yx']
    text = f'{record["video"].decode()} scene {record["scene"]} frame {record["start"]} at {y},{x}'
    shown = [record[side][len(record[side]) // 2] for side in strips]
    if weak:
      yield weak_pair(text, record, *shown)
    elif len(shown) == 2:
      yield pair(text, *shown)
    else:
      yield text, _titled(text, [_reduced(shown[0])], [''])


def stretches(source: DataSource, count: int, seed: int) -> Iterator[Row]:
  """The middle frames of some segments."""
  records = Records(source, ('video', 'scene', 'start', *FIELDS))
  for index in sorted(map(int, np.random.default_rng(seed).permutation(len(records))[:count])):
    record = records[index]
    middle = int(record['num_frames']) // 2
    places = {side: middle + int(record[f'{side}_skip']) for side in ('lq', 'hq')}
    shown = [remux.decode(record[side], t, t + 1)[0] for side, t in places.items()]
    text = f'{record["video"].decode()} scene {record["scene"]} frame {record["start"] + middle}'
    yield pair(f'{text} of a segment of {record["num_frames"]}', *shown)


def weak_pair(text: str, record: Mapping[str, Any], lq: np.ndarray, hq: np.ndarray) -> Row:
  """A source window, and the target window with a frame where the draw at building has put the source's."""
  (dy, dx), margin = record['dyx'], (hq.shape[0] - lq.shape[0]) // 2
  text = f'{text}, offset {record["offset"]:+d} (ncc {record["ncc"]:.2f})'
  draw = f'drawn {record["dt"]:+d} frames, {dy:+d},{dx:+d} px'
  target = hq.copy()
  if margin:
    edge = np.zeros(target.shape[:2], bool)
    edge[margin - 1 : 1 - margin, margin - 1 : 1 - margin] = True
    edge[margin:-margin, margin:-margin] = False
    target[edge] = 255
  padded = np.full_like(hq, 255)
  padded[margin : margin + lq.shape[0], margin : margin + lq.shape[1]] = lq
  text = f'{text}, {draw}'
  return text, _titled(text, [padded, target], ['source', 'target'])


def frames(source: DataSource, count: int) -> Iterator[Row]:
  """Frames spread evenly over all clips of a split."""
  reader = data.ClipReader(source)
  places = [(name, t) for name, clip in reader.clips.items() for t in range(clip.num_frames)]
  for k in range(min(count, len(places))):
    name, t = places[(2 * k + 1) * len(places) // (2 * min(count, len(places)))]
    lq, hq = next(reader.frames(name, t, t + 1))
    yield pair(f'{name} frame {t}', lq, hq)


def pair(text: str, lq: np.ndarray, hq: np.ndarray | None) -> Row:
  """Input, target and error, with the PSNR; the target is None where it is withheld."""
  if hq is None:
    text = f'{text}, target withheld'
    return text, _titled(text, [_reduced(lq)], ['input'])
  text = f'{text}, {float(metrics.psnr(lq, hq)):.2f} dB'
  panels = map(_reduced, (lq, hq, pictures.error(lq, hq)))
  return text, _titled(text, list(panels), ['input', 'target', 'error x4'])


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
  """Pictures, uint8 (H, W, 3) of any sizes, in two columns on white."""
  height, width = (max(picture.shape[axis] for picture in rows) for axis in (0, 1))
  lines = -(-len(rows) // _COLUMNS)
  out = np.full((lines * height, min(_COLUMNS, len(rows)) * (width + 8) - 8, 3), 255, np.uint8)
  for k, picture in enumerate(rows):
    y, x = k // _COLUMNS * height, k % _COLUMNS * (width + 8)
    out[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
  return out


def _titled(text: str, panels: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
  return pictures.titled(text, pictures.side_by_side(panels, labels))


def _reduced(frame: np.ndarray) -> np.ndarray:
  height, width, _ = frame.shape
  if width <= _LARGEST:
    return frame
  size = _LARGEST, round(height * _LARGEST / width)
  return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def main(_: Sequence[str]) -> None:
  """Write the picture and print a line for each pair."""
  output = pathlib.Path(_OUTPUT.value)
  if output.suffix.lower() != '.png':
    raise errors.ConfigError(f'--output={output}: expected a name that ends in .png.')
  builder = open_builder(_DATASET.value, _CONFIG.value, _DATA_DIR.value)
  split = _SPLIT.value or next(iter(builder.info.splits))
  source = data.open_source(_DATASET.value, _CONFIG.value, split, _DATA_DIR.value)
  features = source.dataset_info.features
  if 'clip' in features:
    shown = frames(source, _COUNT.value)
  else:
    shown = (stretches if 'lq_skip' in features else windows)(source, _COUNT.value, _SEED.value)
  lines, rows = zip(*shown, strict=True)
  pictures.save_png(output, sheet(rows))
  print(*lines, f'{len(source)} records in split {split}; picture in {output}', sep='\n')


if __name__ == '__main__':
  cli.run(main)
