"""Damaged files of prepared records: an error that says so, or records; never another exception, never a hang."""

import collections
import random
import shutil

from vqm_jax import errors
from vqm_jax.data import ClipReader, open_source
from vqm_jax.data.records import Records


def damage(data: bytes, rng: random.Random) -> bytes | None:
  """The bytes cut short, changed in some places, overwritten, replaced or prolonged; None for a file that is gone."""
  kind = rng.choice(['cut', 'flip', 'zero', 'random', 'append', 'delete'])
  damaged = bytearray(data)
  if kind == 'cut':
    return data[: rng.randrange(len(data))]
  if kind == 'flip':
    for _ in range(rng.randint(1, 30)):
      damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  if kind == 'zero':
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randint(1, 4000))
    damaged[start:stop] = bytes(stop - start)
  if kind == 'random':
    damaged = rng.randbytes(rng.randint(0, 5000))
  if kind == 'append':
    damaged += rng.randbytes(100)
  return None if kind == 'delete' else bytes(damaged)


def read_all(data_dir, config):
  if config == 'micro_frames':
    reader = ClipReader(open_source('vqm_demo', config, 'val', data_dir))
    for name, clip in reader.clips.items():
      yield from reader.frames(name, 0, clip.num_frames)
  else:
    yield from Records(open_source('vqm_demo', config, 'train', data_dir), ('video', 'start', 'lq', 'hq'))


def test_damage_is_told(micro_data, tmp_path):
  outcomes = collections.Counter()
  for seed in range(80):
    rng = random.Random(seed)
    config = rng.choice(['micro_tiles', 'micro_frames'])
    folder = tmp_path / str(seed) / 'vqm_demo' / config / '1.0.0'
    shutil.copytree(f'{micro_data}/vqm_demo/{config}/1.0.0', folder)
    victim = rng.choice(sorted(folder.iterdir()))
    damaged = damage(victim.read_bytes(), rng)
    victim.unlink()
    if damaged is not None:
      victim.write_bytes(damaged)
    try:
      outcomes['read'] += sum(1 for _ in read_all(str(tmp_path / str(seed)), config)) > 0
    except errors.DataError:
      outcomes['told'] += 1
  assert outcomes['told'] > 20 and outcomes['read'] > 10
