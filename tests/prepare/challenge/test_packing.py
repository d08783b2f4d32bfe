import csv
import io
import pathlib
import re
import shutil
import tarfile
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from prepare import generated_video

from vqm_jax import errors
from vqm_jax.prepare.challenge import packing
from vqm_jax.video import open_video


def picture(number=0, height=12, width=16) -> bytes:
  """A PNG file that tells its number in red."""
  pixels = np.full((height, width, 3), (number, 90, 200), np.uint8)
  pixels[::2] //= 2
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue()


def numbered(names='{:06d}.png', first=1, count=3, **size) -> dict[str, bytes]:
  """Files of one clip; `names` has a place for the number."""
  return {names.format(first + k): picture(k, **size) for k in range(count)}


def folder(path: pathlib.Path, files: dict[str, bytes]) -> None:
  for name, data in files.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)


def zipped(path: pathlib.Path, files: dict[str, bytes]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(path, 'w') as archive:
    for name, data in files.items():
      archive.writestr(name, data)


def pair(root, lq='train/lq/a', hq='train/hq/a', **kwargs) -> None:
  """The same images on both sides."""
  for place in (lq, hq):
    folder(root / place, numbered(**kwargs))


def resolved(root, dataset='intvid', **kwargs) -> packing.Layout:
  return packing.resolve(root, dataset, **kwargs)


def found(root, *args, **kwargs) -> list[tuple]:
  """(split, clip, has a source, has a target) of each clip; there must be no problem."""
  result = resolved(root, *args, **kwargs)
  assert not result.problems
  return [(clip.split, clip.clip_id, clip.lq is not None, clip.hq is not None) for clip in result.clips]


def the_problem(root, *args, **kwargs) -> str:
  (problem,) = resolved(root, *args, **kwargs).problems
  assert '\n' not in problem and not problem.endswith('.')
  return problem


# Names that mean the same, for each split and side, in one name and nested both ways.
ALIASES = [
  ('train', 'TrainingSourceDomain', 'TrainingTargetDomain'),
  ('train', 'train/lq', 'train/hq'),
  ('train', 'training-source domain', 'TRAINING_TARGET_DOMAIN'),
  ('train', 'TrainInput', 'TrainGT'),
  ('train', 'train_compressed', 'train_label'),
  ('train', 'ZED/Training', 'Canon/Training'),
  ('train', 'TrainingSource_500k', 'TrainingHR'),
  ('val', 'ValidationSource', 'ValidationTarget'),
  ('val', 'Valid/LQ', 'Valid/HQ'),
  ('val', 'LQ/val', 'HQ/val'),
  ('val', 'validation/ValidationSource1M', 'validation/ValidationTarget'),
  ('test', 'TestSource', 'TestTarget'),
  ('test', 'Testing/ZED', 'Testing/canon'),
]


@pytest.mark.parametrize('split, lq, hq', ALIASES)
def test_names_of_folders(tmp_path, split, lq, hq):
  pair(tmp_path, f'{lq}/000', f'{hq}/000')
  assert found(tmp_path) == [(split, '000', True, True)]
  (clip,) = resolved(tmp_path).clips
  assert (clip.lq, clip.hq) == (tmp_path / lq / '000', tmp_path / hq / '000')
  assert clip.found == f'{lq}, {hq}'


@pytest.mark.parametrize('lq', ['Trainer/lq', 'Source2020x', 'TrainingDomain', 'trainlqx', 'my_train/lq'])
def test_names_that_mean_nothing(tmp_path, lq):
  pair(tmp_path, f'{lq}/000', 'train/hq/000')
  result = resolved(tmp_path)
  assert any('no source for any clip' in problem for problem in result.problems)
  assert all(clip.lq is None for clip in result.clips)


@pytest.mark.parametrize('inner', ['intvid', 'IntVid', 'int_vid'])
def test_the_folder_of_the_data_set_in_the_one_given(tmp_path, inner):
  pair(tmp_path / inner)
  assert found(tmp_path) == found(tmp_path / inner) == [('train', 'a', True, True)]
  assert resolved(tmp_path).root == tmp_path / inner
  assert resolved(tmp_path, 'vid3oc').problems


def test_kinds_of_clips_side_by_side(tmp_path):
  for side in ('lq', 'hq'):
    root = tmp_path / 'val' / side
    folder(root / '2', numbered())
    folder(root, numbered('10_{:03d}.png', first=0))
    zipped(root / '3.zip', numbered())
    generated_video.write(root / '1.mp4', generated_video.scene(0, 4, 16, 32), fps=24)
  result = resolved(tmp_path)
  assert not result.problems
  assert [clip.clip_id for clip in result.clips] == ['1', '2', '3', '10']
  assert [clip.fps for clip in result.clips] == [24, None, None, None]
  assert [clip.first_number for clip in result.clips] == [None, 1, 1, 0]
  assert [clip.sources['hq'].num_frames for clip in result.clips] == [4, 3, 3, 3]
  for clip in result.clips:
    assert open_video(clip.lq).num_frames == clip.sources['lq'].num_frames
  assert any(warning.startswith('3 clips are images') for warning in result.warnings)


def test_images_beside_a_video_have_its_rate(tmp_path):
  frames = generated_video.scene(0, 3, 12, 16)
  generated_video.write(tmp_path / 'test/lq/a.mp4', frames, fps=Fraction(24000, 1001))
  folder(tmp_path / 'test/hq/a', numbered())
  (clip,) = resolved(tmp_path).clips
  assert clip.sources['hq'].fps == clip.sources['lq'].fps == clip.fps == Fraction(24000, 1001)


@pytest.mark.parametrize('inside', ['', 'TrainingSourceDomain/', 'anything/'])
@pytest.mark.parametrize(
  'names, clips',
  [('{}/{{:06d}}.png', ['000']), ('{}/{{:06d}}.png', ['000', '001']), ('{}_{{:03d}}.png', ['000', '001'])],
)
def test_zips_and_what_is_around_their_clips(tmp_path, inside, names, clips):
  files = {}
  for clip in clips:
    files |= numbered(inside + names.format(clip))
    folder(tmp_path / 'TrainingTargetDomain' / clip, numbered())
  files |= {'__MACOSX/000/._000001.png': b'rubbish', '.DS_Store': b'rubbish'}
  zipped(tmp_path / 'TrainingSourceDomain.zip', files)
  assert found(tmp_path) == [('train', clip, True, True) for clip in clips]
  for clip in resolved(tmp_path).clips:
    reds = [int(frame[1, 0, 0]) for frame in clip.sources['lq'].frames()]
    assert reds == [0, 1, 2] and open_video(clip.lq).num_frames == 3


def test_a_zip_with_both_sides_and_a_folder_in_a_folder(tmp_path):
  zipped(tmp_path / 'train.zip', numbered('lq/a/{:03d}.png') | numbered('hq/a/{:03d}.png'))
  folder(tmp_path / 'ValidationSource' / 'ValidationSource', numbered('060_{}.png'))
  assert found(tmp_path) == [('train', 'a', True, True), ('val', '060', True, False)]


def test_an_archive_beside_what_was_unpacked_from_it(tmp_path):
  pair(tmp_path, 'TrainingSourceDomain/a', 'TrainingTargetDomain/a')
  zipped(tmp_path / 'TrainingSourceDomain.zip', numbered('old/{:03d}.png'))
  (tmp_path / 'TrainingTargetDomain.tar.gz').write_bytes(b'rubbish')
  assert found(tmp_path) == [('train', 'a', True, True)]
  ignored = [warning for warning in resolved(tmp_path).warnings if 'there is a folder of that name' in warning]
  assert len(ignored) == 2


@pytest.mark.parametrize('suffix', ['.tar', '.tar.gz', '.tgz'])
def test_tar_archives_must_be_unpacked(tmp_path, suffix):
  pair(tmp_path, 'TrainingSourceDomain/a', 'TrainingTargetDomain/a')
  path = tmp_path / f'ValidationSource{suffix}'
  folder(tmp_path / 'x', numbered('060_{}.png'))
  with tarfile.open(path, 'w:gz' if 'gz' in suffix else 'w') as archive:
    for file in (tmp_path / 'x').iterdir():
      archive.add(file, file.name)
  problem = the_problem(tmp_path)
  # The command does what it promises.
  command = problem.split('unpack it: ')[1]
  target, source = re.fullmatch(r'mkdir "(.+)" && tar -xf "(.+)" -C "\1"', command).groups()
  assert source == str(path)
  pathlib.Path(target).mkdir()
  with tarfile.open(source) as archive:
    archive.extractall(target, filter='data')
  assert found(tmp_path)[1:] == [('val', '060', True, False)]


def test_videos_in_a_zip_must_be_unpacked(tmp_path):
  zipped(tmp_path / 'TestSource.zip', {'TestSource/076.mp4': b'x', 'TestSource/077.mp4': b'x'})
  assert 'holds videos or archives (076, 077)' in the_problem(tmp_path)
  assert f'unzip "{tmp_path}/TestSource.zip"' in the_problem(tmp_path)


def test_targets_may_be_withheld_outside_of_training(tmp_path):
  for split in ('Training', 'Validation', 'Test'):
    folder(tmp_path / f'{split}Source', numbered('a_{}.png') | numbered('b_{}.png'))
  folder(tmp_path / 'TrainingTarget', numbered('a_{}.png') | numbered('b_{}.png'))
  folder(tmp_path / 'ValidationTarget', numbered('b_{}.png'))
  rows = found(tmp_path)
  assert [row[3] for row in rows] == [True, True, False, True, False, False]
  assert 'val: no target for clip a, others have one' in resolved(tmp_path).warnings
  assert not any(warning.startswith('test: no target') for warning in resolved(tmp_path).warnings)


@pytest.mark.parametrize(
  'present, problem',
  [
    ({'train/lq': 'abc', 'train/hq': 'ad'}, ['train: no source for clip d;', 'train: no target for clips b, c;']),
    ({'train/lq': 'abc'}, ['train: no target for any clip, there are 3; add a folder such as train/hq']),
    ({'val/hq': 'ab'}, ['val: no source for any clip, there are 2; add a folder such as val/lq']),
    ({'test/lq': 'a', 'test/hq': 'ab'}, ['test: no source for clip b; both sides must use the same names']),
  ],
)
def test_what_a_side_lacks(tmp_path, present, problem):
  for side, clips in present.items():
    for clip in clips:
      folder(tmp_path / side / clip, numbered())
  problems = resolved(tmp_path).problems
  assert len(problems) == len(problem)
  for text, start in zip(problems, problem, strict=True):
    assert text.startswith(start)


def test_numbers_of_clips(tmp_path):
  for index in range(60):
    folder(tmp_path / 'train', numbered(f'lq/{index}_{{}}.png', count=1) | numbered(f'hq/{index}_{{}}.png', count=1))
  for index in range(16):
    folder(tmp_path / 'val', numbered(f'lq/{index}_{{}}.png', count=1))
    folder(tmp_path / 'test', numbered(f'lq/{index}_{{}}.png', count=1))
  counted = [warning for warning in resolved(tmp_path).warnings if 'the challenge has' in warning]
  assert not counted
  (counted,) = [warning for warning in resolved(tmp_path, 'vid3oc').warnings if 'the challenge has' in warning]
  assert counted.startswith('60 train, 16 val, 16 test clips, the challenge has 50 train')


def test_clips_of_another_length_than_in_the_challenge(tmp_path):
  pair(tmp_path)
  folder(tmp_path / 'val' / 'lq', numbered('a_{}.png', count=120, height=2, width=2) | numbered('b_{}.png'))
  (told,) = [warning for warning in resolved(tmp_path).warnings if '120 frames' in warning]
  assert told.startswith('1 clips of val and test')


def test_several_bitrates(tmp_path):
  for place in ('TrainingSource500k', 'TrainingSource_1M', 'TrainingTarget'):
    folder(tmp_path / place / 'a', numbered())
  problem = the_problem(tmp_path)
  assert problem.startswith('train source: several bitrates, TrainingSource500k, TrainingSource_1M; choose one')
  assert '--source_suffix=500k' in problem
  for suffix, place in (('500k', 'TrainingSource500k'), ('1M', 'TrainingSource_1M'), ('_1m', 'TrainingSource_1M')):
    (clip,) = resolved(tmp_path, source_suffix=suffix).clips
    assert clip.lq == tmp_path / place / 'a'
  assert 'no folder for --source_suffix=2m, found TrainingSource500k' in the_problem(tmp_path, source_suffix='2M')
  # A split whose only folder has no suffix goes with any.
  folder(tmp_path / 'ValidationSource' / 'b', numbered())
  assert [row[1] for row in found(tmp_path, source_suffix='500k')] == ['a', 'b']


def test_two_folders_for_one_side(tmp_path):
  pair(tmp_path)
  pair(tmp_path, 'TrainingTarget/a', 'train/gt/a')
  problem = the_problem(tmp_path)
  assert problem.startswith('train target: expected one folder, found TrainingTarget, train/gt, train/hq')


def test_numbering_from_0_and_from_1(tmp_path):
  pair(tmp_path, 'train/lq/a', 'train/hq/a', first=0)
  pair(tmp_path, 'train/lq/b', 'train/hq/b', first=1)
  assert [clip.first_number for clip in resolved(tmp_path).clips] == [0, 1]
  assert not any('numbered' in warning for warning in resolved(tmp_path).warnings)
  folder(tmp_path / 'train/lq/c', numbered(first=0))
  folder(tmp_path / 'train/hq/c', numbered(first=1))
  result = resolved(tmp_path)
  assert not result.problems
  assert any('train/c: source images are numbered from 0, target images from 1' in text for text in result.warnings)
  # Other frames than those of the other side: no convention explains that.
  folder(tmp_path / 'train/lq/d', numbered(first=4))
  folder(tmp_path / 'train/hq/d', numbered(first=5))
  assert 'train/d: source images are numbered from 4, target images from 5' in the_problem(tmp_path)
  shutil.rmtree(tmp_path / 'train/lq/d')
  folder(tmp_path / 'train/lq/d', {f'{number}.png': picture() for number in (0, 10, 20)})
  shutil.rmtree(tmp_path / 'train/hq/d')
  folder(tmp_path / 'train/hq/d', numbered(first=1))
  assert 'train/d: source images are numbered from 0, target images from 1' in the_problem(tmp_path)


def test_other_steps_are_other_frames(tmp_path):
  folder(tmp_path / 'val/lq', {f'a_{10 * k}.png': picture() for k in (1, 2, 3)})
  folder(tmp_path / 'val/hq', numbered('a_{}.png'))
  assert 'numbered from 10, target images from 1 or in other steps' in the_problem(tmp_path)
  for path in (tmp_path / 'val/hq').iterdir():
    path.unlink()
  folder(tmp_path / 'val/hq', {f'a_{10 * k:04d}.png': picture() for k in (1, 2, 3)})
  assert found(tmp_path) == [('val', 'a', True, True)]


def test_gaps(tmp_path):
  pair(tmp_path, count=5)
  (tmp_path / 'train/lq/a/000003.png').unlink()
  assert '000002.png: followed by 000004.png, an image is missing in between' in the_problem(tmp_path)


def test_repeated_numbers(tmp_path):
  pair(tmp_path)
  for side in ('lq', 'hq'):
    (tmp_path / 'train' / side / 'a' / '2.png').write_bytes(picture())
  problems = resolved(tmp_path).problems
  assert [problem[:50] for problem in problems] == [
    f'train/a: several {word} images have the number 2; keep one'[:50] for word in ('source', 'target')
  ]


def test_a_number_that_counts_something_else(tmp_path):
  pair(tmp_path, names='{:03d}x4.png')
  pair(tmp_path, 'train/lq/b', 'train/hq/b', names='im_{}.png')
  assert len(found(tmp_path)) == 2


def test_frames_and_sizes_must_agree_where_pixels_are_compared(tmp_path):
  folder(tmp_path / 'val/lq/a', numbered())
  folder(tmp_path / 'val/hq/a', numbered(count=4))
  folder(tmp_path / 'val/lq/b', numbered(height=14))
  folder(tmp_path / 'val/hq/b', numbered())
  first, second = resolved(tmp_path).problems
  assert first == (
    'val/a: the source has 3 frames 16x12, the target 4 frames 16x12; both sides must show the same frames'
  )
  assert '3 frames 16x14, the target 3 frames 16x12' in second
  weak = resolved(tmp_path, 'vid3oc')
  assert not weak.problems and sum('the target' in warning for warning in weak.warnings) == 2


def test_other_rates_are_a_warning(tmp_path):
  frames = generated_video.scene(0, 4, 16, 32)
  for side, fps in (('lq', 24), ('hq', 30)):
    generated_video.write(tmp_path / 'train' / side / 'a.mp4', frames, fps=fps)
  result = resolved(tmp_path)
  assert not result.problems and 'train/a: the source has 24 frames per second, the target 30' in result.warnings


def test_two_files_for_one_clip(tmp_path):
  pair(tmp_path)
  zipped(tmp_path / 'train/lq/a.zip', numbered())
  assert "several files or folders stand for clip 'a'" in the_problem(tmp_path)


def test_folders_without_images(tmp_path):
  pair(tmp_path)
  for side in ('lq', 'hq'):
    (tmp_path / 'train' / side / 'b').mkdir()
  folder(tmp_path / 'train/lq/c', {'1.jpg': b'x'})
  (tmp_path / 'val/lq').mkdir(parents=True)
  problems = resolved(tmp_path).problems
  assert [re.sub(f'{tmp_path}/|,.*|;.*', '', problem) for problem in problems] == [
    'train/hq/b: holds no images',
    'train/lq/b: holds no images',
    'train/lq/c: holds no images',
    'val/lq: holds no clips',
  ]


def test_images_of_a_clip_without_a_name(tmp_path):
  folder(tmp_path / 'TestSource', numbered())
  assert 'images of a clip without a name; move them into a sub-folder' in the_problem(tmp_path)


def test_sides_without_split_and_splits_without_side(tmp_path):
  folder(tmp_path / 'Source' / '000', numbered())
  folder(tmp_path / 'val' / '060', numbered())
  first, second = resolved(tmp_path).problems
  assert 'Source: the name tells no split and it holds no train, val or test' in first
  assert 'val: the name tells no side and it holds no lq or hq' in second


def test_a_name_that_contradicts_the_folder_around_is_ignored(tmp_path):
  pair(tmp_path)
  folder(tmp_path / 'train' / 'ValidationSource' / '060', numbered())
  assert found(tmp_path) == [('train', 'a', True, True)]
  assert (
    f'{tmp_path}/train: ValidationSource ignored, the name tells no split or side that fits'
    in resolved(tmp_path).warnings
  )


def test_nothing_to_find(tmp_path):
  assert 'no clips, found nothing; expected folders or zips such as TrainingSourceDomain' in the_problem(tmp_path)
  (tmp_path / 'holiday').mkdir()
  assert 'no clips, found holiday;' in the_problem(tmp_path)
  assert f'{tmp_path}/nowhere: no such folder' in the_problem(tmp_path / 'nowhere')
  with pytest.raises(errors.ConfigError, match='dataset=reds: layout unknown, expected one of intvid, vid3oc'):
    resolved(tmp_path, 'reds')


def manifest(root, *rows, columns=('split', 'clip_id', 'lq', 'hq', 'fps', 'category')):
  with (root / 'manifest.csv').open('w', newline='') as file:
    csv.writer(file).writerows([columns, *rows])


def test_a_manifest_wins(tmp_path):
  pair(tmp_path, 'any/where/1', 'any/where/2')
  folder(tmp_path / 'flat', numbered('x_{}.png') | numbered('y_{}.png'))
  # Would be problems if anybody asked for them.
  folder(tmp_path / 'TrainingSource' / 'b', numbered())
  (tmp_path / 'TestSource.tar').write_bytes(b'')
  manifest(
    tmp_path,
    ('validation', '7', 'flat/x_*.png', '', '', ''),
    ('train', 'night', 'any/where/1', 'any/where/2', '24000/1001', 'city'),
  )
  assert found(tmp_path) == [('train', 'night', True, True), ('val', '7', True, False)]
  clip = resolved(tmp_path).clips[0]
  assert (clip.fps, clip.category, clip.found) == (Fraction(24000, 1001), 'city', 'manifest.csv, line 3')
  assert clip.sources['lq'].fps == clip.fps


def test_a_manifest_that_names_clips_of_the_folders(tmp_path):
  for clip in 'abc':
    pair(tmp_path, f'train/lq/{clip}', f'train/hq/{clip}')
  manifest(tmp_path, ('train', 'b', '25'), ('train', 'a', ''), columns=('split', 'clip_id', 'fps'))
  text = (tmp_path / 'manifest.csv').read_text()
  (tmp_path / 'manifest.csv').write_text(text, encoding='utf-8-sig')  # as spreadsheets write it
  assert [row[1] for row in found(tmp_path)] == ['b', 'a']
  assert resolved(tmp_path).clips[0].sources['hq'].fps == 25
  assert '1 clips of the folders are not in manifest.csv and are left out' in resolved(tmp_path).warnings


def test_everything_wrong_in_a_manifest(tmp_path):
  pair(tmp_path)
  manifest(
    tmp_path,
    ('train', 'a', 'train/lq/a', 'train/hq/a', '25', ''),
    ('train', 'a', '', '', '', ''),
    ('holiday', 'b', '', '', '', ''),
    ('val', '', '', '', '', ''),
    ('val', 'c', 'train/lq/a', '', '1/0', ''),
    ('val', 'd', 'train/lq/a', '', '-3', ''),
    ('test', 'e', 'nowhere', '', '', ''),
    ('test', 'f', '', '', '', ''),
  )
  problems = resolved(tmp_path).problems
  expected = ['line 3: clip train/a a second', 'line 4: split=', 'line 5: split=', "line 6: fps='1/0'"]
  expected += ["line 7: fps='-3'", 'test: no source for clip f', 'nowhere: no such file']
  assert len(problems) == len(expected)
  for text, part in zip(problems, expected, strict=True):
    assert part in text


@pytest.mark.parametrize(
  'data', [b'', b'split;clip_id\n', b'split,clip_id\n', b'\xff\xfe\x00rubbish\x00', b'a,b\n"x\n']
)
def test_manifests_that_are_none(tmp_path, data):
  pair(tmp_path)
  (tmp_path / 'manifest.csv').write_bytes(data)
  assert 'manifest.csv' in the_problem(tmp_path)


def test_the_digest_follows_the_files(tmp_path):
  pair(tmp_path)
  zipped(tmp_path / 'ValidationSource.zip', numbered('a/{}.png'))
  first = {split: resolved(tmp_path).digest(split) for split in packing.SPLITS}
  assert len(set(first.values())) == 3
  (tmp_path / 'train/hq/a/000002.png').write_bytes(picture() + b'some more')
  second = {split: resolved(tmp_path).digest(split) for split in packing.SPLITS}
  assert second['train'] != first['train'] and second['val'] == first['val']
  zipped(tmp_path / 'ValidationSource.zip', numbered('a/{}.png') | {'a/2.png': picture() + b'some more'})
  assert resolved(tmp_path).digest('val') != first['val']
  manifest(tmp_path, ('train', 'a', 'city'), columns=('split', 'clip_id', 'category'))
  assert resolved(tmp_path).digest('train') != second['train']


def test_verify_lists_all_problems(tmp_path):
  pair(tmp_path)
  resolved(tmp_path).verify()
  (tmp_path / 'train/lq/a/000001.png').write_bytes(b'rubbish')
  (tmp_path / 'val.zip').write_bytes(b'rubbish')
  with pytest.raises(errors.DataError, match=r'2 problems: \(1\) .*val.zip: .* \(2\) .*000001.png: not a readable'):
    resolved(tmp_path).verify()


def every_kind(root) -> list[pathlib.Path]:
  """A folder with files of every kind, and those that can be damaged."""
  pair(root, 'train/lq/a', 'train/hq/a')
  for side in ('lq', 'hq'):
    generated_video.write(root / 'train' / side / 'b.mp4', generated_video.scene(1, 6, 16, 32))
    zipped(root / 'train' / side / 'c.zip', numbered())
  zipped(root / 'ValidationSource.zip', numbered('ValidationSource/060_{}.png'))
  folder(root / 'TestSource', numbered('076_{:03d}.png'))
  manifest(
    root,
    *(('train', clip, '', '', '', '') for clip in 'abc'),
    ('val', '060', '', '', '25', 'city'),
    ('test', '076', 'TestSource/076_*.png', '', '', ''),
  )
  assert not resolved(root).problems
  first = [root / 'train/lq/a/000001.png', root / 'TestSource/076_001.png', root / 'train/hq/b.mp4']
  return [*first, root / 'train/lq/c.zip', root / 'ValidationSource.zip', root / 'manifest.csv']


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
  """The file cut short, made of random bytes, or with some bytes changed."""
  kind = rng.integers(4)
  if kind == 0:
    return data[: rng.integers(len(data))]
  if kind == 1:
    return rng.bytes(len(data))
  changed = bytearray(data)
  # Where file formats keep what readers trust, and anywhere.
  reach = 60 if kind == 2 else len(data)
  for place in rng.integers(0, min(reach, len(data)), 12):
    changed[place if rng.random() < 0.5 else -1 - place] = rng.integers(256)
  return bytes(changed)


def test_damaged_files_are_problems_and_nothing_worse(tmp_path):
  files = every_kind(tmp_path)
  whole = {path: path.read_bytes() for path in files}
  rng = np.random.default_rng(7)
  noticed = 0
  for _ in range(25):
    for path in files:
      path.write_bytes(damaged(whole[path], rng))
    result = resolved(tmp_path)
    noticed += len(result.problems)
    assert result.problems and all(problem.isprintable() for problem in result.problems)
    for split in packing.SPLITS:
      result.digest(split)
  assert noticed > 75


def test_each_damaged_file_is_named(tmp_path):
  files = every_kind(tmp_path)
  for path in files:
    whole = path.read_bytes()
    path.write_bytes(np.random.default_rng(1).bytes(len(whole)))
    problems = resolved(tmp_path).problems
    assert any(path.name in problem for problem in problems), path
    path.write_bytes(whole[: len(whole) // 2] if path.suffix != '.csv' else b'')
    problems = resolved(tmp_path).problems
    assert any(path.name in problem for problem in problems), path
    path.write_bytes(whole)
  for path in files:
    path.write_bytes(b'')
  named = ' '.join(resolved(tmp_path).problems)
  for path in files:
    assert path.name in named or path.name.startswith('076')
