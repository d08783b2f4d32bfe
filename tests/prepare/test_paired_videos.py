import csv
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from paired_videos import paired_videos_dataset_builder
from vqm_jax import errors, video
from vqm_jax.data import open_source
from vqm_jax.data.clips import ClipReader
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.configs import TilesConfig

COLOUR = video.Colour('bt709')


def frames(name, num_frames=10, height=64, width=96):
  """A textured picture that drifts by two pixels per frame."""
  rng = np.random.default_rng(list(name.encode()))
  wide = rng.integers(0, 255, (height // 8, width // 4, 3), np.uint8)
  wide = np.asarray(Image.fromarray(wide).resize((2 * width, height), Image.BICUBIC))
  return [wide[:, 2 * t : 2 * t + width] for t in range(num_frames)]


def write_mp4(path, name, crf, fps=24, **kwargs):
  path.parent.mkdir(parents=True, exist_ok=True)
  planes = (video.rgb_to_yuv(frame, COLOUR) for frame in frames(name, **kwargs))
  video.encode(planes, path, fps=Fraction(fps), colour=COLOUR, crf=crf)


def write_pair(root, split, name, **kwargs):
  write_mp4(root / split / 'lq' / f'{name}.mp4', name, 36, **kwargs)
  write_mp4(root / split / 'hq' / f'{name}.mp4', name, 12, **kwargs)


def write_pngs(root, split, name, num_frames=10):
  for side, step in (('lq', 16), ('hq', 1)):
    folder = root / split / side / name
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames(name, num_frames)):
      Image.fromarray(frame // step * step).save(folder / f'{t:06d}.png')


def write_manifest(root, *rows, columns=('split', 'clip', 'fps', 'category', 'crf', 'scenes')):
  with (root / 'manifest.csv').open('w', newline='') as file:
    csv.writer(file).writerows([columns, *rows])


def built(root, data_dir, config='frames', **changes):
  chosen = {c.name: c for c in paired_videos_dataset_builder.Builder.BUILDER_CONFIGS}
  small = TilesConfig(name='tiles', num_frames=5, size=32, per_video=12)
  cls = driver.variant(
    paired_videos_dataset_builder.Builder, 'mine', small if config == 'tiles' else chosen[config], changes
  )
  driver.build(cls(data_dir=data_dir), root)
  return str(data_dir)


def psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


def test_videos_with_a_manifest(tmp_path):
  root = tmp_path / 'pairs'
  for split, name in (('train', 'a'), ('train', 'b'), ('val', 'c'), ('test', 'd')):
    write_pair(root, split, name)
  write_manifest(root, ('train', 'a', '30000/1001', 'city', '33.5', '0-6;6-10'), ('val', 'c', '', 'talk', '', ''))
  data_dir = built(root, tmp_path / 'data', 'tiles')
  seen = set()
  for record in open_source('mine', 'tiles', 'train', data_dir):
    seen.add(record['video'])
    assert 20 < psnr(record['lq'], record['hq']) < 45
    if record['video'] == b'a':
      assert record['category'] == b'city' and record['crf'] == 33.5
      assert record['fps'] == np.float32(30000 / 1001)
      assert (record['scene'], record['start']) in ((0, 0), (0, 1))  # the second shot has 4 frames only
    else:
      assert record['category'] == b'' and np.isnan(record['crf']) and record['fps'] == 24
  assert seen == {b'a', b'b'}
  built(root, tmp_path / 'data', 'frames')
  source = open_source('mine', 'frames', 'val', data_dir)
  assert set(source.dataset_info.splits) == {'val', 'test'}
  (clip,) = ClipReader(source).clips.values()
  assert (clip.name, clip.category, clip.fps, clip.num_frames) == ('c', 'talk', 24, 10)
  hq = [pair[1] for pair in ClipReader(source).frames('c')]
  np.testing.assert_array_equal(hq, list(video.open_video(root / 'val/hq/c.mp4').frames()))


def test_images_are_stored_as_they_are(tmp_path):
  root = tmp_path / 'pairs'
  write_pngs(root, 'test', 'stills', num_frames=3)
  grey = root / 'test' / 'lq' / 'stills' / '000001.png'
  Image.open(grey).convert('L').save(grey)
  data_dir = built(root, tmp_path / 'data')
  files = (tmp_path / 'data/mine/frames/1.0.0').glob('*test*')
  stored = b''.join(path.read_bytes() for path in files)
  for t in range(3):
    assert (root / f'test/hq/stills/{t:06d}.png').read_bytes() in stored
  assert grey.read_bytes() not in stored
  reader = ClipReader(open_source('mine', 'frames', 'test', data_dir))
  lq = [pair[0] for pair in reader.frames('stills')]
  np.testing.assert_array_equal(lq, list(video.open_video(root / 'test/lq/stills').frames()))


def test_paths_of_the_manifest(tmp_path):
  root = tmp_path / 'pairs'
  for crf, name in ((40, 'bad'), (10, 'good')):
    write_mp4(root / 'files' / f'{name}.mp4', 'x', crf)
  write_manifest(root, ('val', 'x', 'files/bad.mp4', 'files/good.mp4'), columns=('split', 'clip', 'lq', 'hq'))
  reader = ClipReader(open_source('mine', 'frames', 'val', built(root, tmp_path / 'data')))
  assert list(reader.clips) == ['x']


def test_holdout_is_kept_out_of_the_tiles(tmp_path):
  root = tmp_path / 'pairs'
  for name in ('a', 'b', 'c'):
    write_pair(root, 'train', name)
  data_dir = built(root, tmp_path / 'data', 'tiles', holdout=1)
  built(root, tmp_path / 'data', 'frames', holdout=1)
  trained = {r['video'].decode() for r in open_source('mine', 'tiles', 'train', data_dir)}
  held = set(ClipReader(open_source('mine', 'frames', 'holdout', data_dir)).clips)
  assert len(trained) == 2 and len(held) == 1 and not trained & held


def test_a_clip_without_its_other_side(tmp_path):
  root = tmp_path / 'pairs'
  write_pair(root, 'val', 'a')
  write_mp4(root / 'val/lq/alone.mp4', 'b', 30)
  write_manifest(root, ('val', 'ghost', '', '', '', ''))
  with pytest.raises(errors.DataError, match='missing: val/hq/alone, val/lq/ghost, val/hq/ghost'):
    built(root, tmp_path / 'data')


def test_lengths_and_sizes_must_match(tmp_path):
  root = tmp_path / 'pairs'
  write_pair(root, 'val', 'a')
  write_mp4(root / 'val/lq/a.mp4', 'a', 30, num_frames=9)
  write_pair(root, 'test', 'b')
  write_mp4(root / 'test/hq/b.mp4', 'b', 30, width=80)
  with pytest.raises(errors.DataError) as caught:
    built(root, tmp_path / 'data')
  assert 'val/a: LQ 9 frames 96x64, HQ 10 frames 96x64' in str(caught.value)
  assert 'test/b: LQ 10 frames 96x64, HQ 10 frames 80x64' in str(caught.value)


@pytest.mark.parametrize(
  'columns, row, message',
  [
    (('split', 'clip', 'fps'), ('val', 'a', 'fast'), "clip a: fps='fast' is not understood"),
    (('split', 'clip', 'fps'), ('val', 'a', '1/0'), "fps='1/0' is not understood"),
    (('split', 'clip', 'scenes'), ('val', 'a', '0:5'), "scenes='0:5' is not understood"),
    (('split', 'clip', 'scenes'), ('val', 'a', '0-50'), 'val/a: scene 0-50 of 10 frames'),
    (('part', 'clip'), ('val', 'a'), 'line 2: expected columns split, clip'),
  ],
)
def test_manifest_errors(tmp_path, columns, row, message):
  root = tmp_path / 'pairs'
  write_pair(root, 'val', 'a')
  write_manifest(root, row, columns=columns)
  with pytest.raises(errors.DataError, match=message):
    built(root, tmp_path / 'data')


def test_fingerprint_follows_the_input(tmp_path):
  root = tmp_path / 'pairs'
  write_pair(root, 'train', 'a')
  builder = paired_videos_dataset_builder.Builder(config='tiles', data_dir=tmp_path / 'data')
  before = builder.fingerprint('train', root)
  write_pair(root, 'val', 'b')
  assert builder.fingerprint('train', root) == before
  write_manifest(root, ('train', 'a', '', 'city', '', ''))
  labelled = builder.fingerprint('train', root)
  assert labelled != before
  write_pair(root, 'train', 'c')
  assert builder.fingerprint('train', root) != labelled


def test_description_citation_and_tags():
  for name in ('vqm_demo', 'paired_videos'):
    cls = driver.find_builder(name)
    metadata = cls.get_metadata()
    assert '`frames`' in metadata.description and metadata.citation.startswith('@')
    assert metadata.tags and '# Relates' not in ''.join(metadata.tags)
    from tensorflow_datasets.core import dataset_metadata

    assert set(metadata.tags) <= {tag.split(' ')[0] for tag in dataset_metadata.valid_tags()}
