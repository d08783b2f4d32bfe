"""Shows which clips a folder with the challenge's data holds, and everything that is wrong with it, before a build.

python -m vqm_jax.prepare.check --dataset=intvid --manual_dir=downloads/

Folders and zips are recognised by their names, such as TrainingSourceDomain, train/lq or ZED/val; a manifest.csv
(split,clip_id,lq,hq,fps,category) wins over them. Exit status 1 if there are problems; warnings are for you to judge.

For paired_videos, your own pairs, every frame of both sides is decoded to see whether LQ frame t shows what HQ frame t
shows, at the same place. What is found is kept in checked.json beside the pairs, where a build finds it.

For vid3oc it then estimates how the recordings of both cameras belong together, which decodes the training clips once,
and keeps that in pairing.json beside them, where a build finds it. Where an offset in frames is wrong (target frame
t + offset shows what source frame t shows), write yours into offsets.csv (clip,offset): it has the last word.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from vqm_jax import cli, errors
from vqm_jax.formats import columns
from vqm_jax.prepare.challenge import findings, packing

_PAIRS = 'paired_videos'
_DATASET = flags.DEFINE_enum('dataset', None, (*packing.DATASETS, _PAIRS), 'Whose layout is expected.', required=True)
_MANUAL_DIR = flags.DEFINE_string('manual_dir', None, 'Folder with the data as downloaded.', required=True)
_SOURCE_SUFFIX = flags.DEFINE_string(
  'source_suffix', '', 'Which source folders to take where several differ in their bitrate, such as 500k.'
)
_PAIRING = flags.DEFINE_bool('pairing', True, 'Whether to estimate how two cameras belong together (vid3oc).')


def main(_: Sequence[str]) -> None:
  """Print what is found. Raises DataError if there are problems."""
  folder = pathlib.Path(_MANUAL_DIR.value).expanduser()
  if _DATASET.value == _PAIRS:
    _check_pairs(folder)
    return
  found = packing.resolve(folder, _DATASET.value, source_suffix=_SOURCE_SUFFIX.value)
  print(f'{_DATASET.value} in {found.root}')
  if found.clips:
    print('\n' + columns([findings.SPLIT_HEADER, *findings.split_rows(found)]))
    print('\n' + columns([findings.CLIP_HEADER, *(findings.clip_row(found, clip) for clip in found.clips)]))
  for kind, lines in (('Warnings', found.warnings), ('Problems', found.problems)):
    if lines:
      print(f'\n{kind}:', *lines, sep='\n  ')
  _refuse(found.root, found.problems)
  if _DATASET.value == 'vid3oc' and _PAIRING.value:
    print('\n' + columns([findings.PAIRING_HEADER, *findings.pairing_rows(found)]))
  _say_what_is_next(folder)


def _refuse(root: pathlib.Path, problems: Sequence[str]) -> None:
  if problems:
    raise errors.DataError(
      f'{root}: {len(problems)} problem{"s" if len(problems) > 1 else ""}, listed above, must be mended before a build.'
    )


def _say_what_is_next(folder: pathlib.Path) -> None:
  print(f'\nNo problems. Next: python -m vqm_jax.prepare.build --dataset={_DATASET.value} --manual_dir={folder}')


_PAIR_HEADER = ('split', 'clip', 'frames', 'size', 'fps', 'scenes', 'offset', 'down, right', 'remarks')


def _check_pairs(folder: pathlib.Path) -> None:
  """Look at pairs of the user's own that nobody has looked at yet, and print what is known of all."""
  from vqm_jax.prepare.pairs import checked  # TFDS takes a while to start
  from vqm_jax.prepare.pairs import folder as folders
  from vqm_jax.prepare.records import configs

  problems: list[str] = []

  def attempt(where, function, *args):
    try:
      return function(*args)
    except errors.VqmError as error:
      problems.append(f'{where}: {error}')
      return None

  pairs = []
  for split in folders.SPLITS:
    for listed in attempt(split, folders.listed, split, folder) or ():
      where = f'{split}/{listed.name}'
      pair = attempt(where, folders.opened, listed, folder)
      unequal = attempt(where, configs.unequal, pair) if pair else None
      problems += [f'{where}: {problem}' for problem in unequal or ()]
      if unequal == []:
        pairs.append((split, pair))
  if not pairs and not problems:
    raise errors.DataError(f'{folder}: no pairs, expected {{{",".join(folders.SPLITS)}}}/{{lq,hq}}/<clip>.')
  memory, rows = checked.Memory(folder), []
  for split, pair in cli.progress(pairs, desc='checked', unit='pair'):
    where = f'{split}/{pair.clip_id}'
    if (found := memory.get(pair)) is None:
      if (found := attempt(where, checked.look, pair)) is None:
        continue
      memory.put(pair, found)
    problems += [f'{where}: {found.problem}'] if found.problem else []
    facts = str(pair.lq.num_frames), findings.size(pair.lq), findings.rate(pair.lq), str(1 + len(found.cuts))
    fits = found.alignment
    offset = f'{fits.offset:+d}' if fits.offset else '0' if fits.moving else 'still'
    shift = ', '.join(f'{pixels:+.1f}' for pixels in fits.shift)
    rows.append((split, pair.clip_id, *facts, offset, shift, 'does not fit' if found.problem else '-'))
  print(f'{_PAIRS} in {folder}\n\n' + columns([_PAIR_HEADER, *rows]))
  if problems:
    print('\nProblems:', *problems, sep='\n  ')
  _refuse(folder, problems)
  _say_what_is_next(folder)


if __name__ == '__main__':
  cli.run(main)
