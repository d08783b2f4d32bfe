import dataclasses
import json
import pathlib
from fractions import Fraction

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vqm_jax import errors
from vqm_jax.data import open_source
from vqm_jax.prepare.challenge import weak
from vqm_jax.prepare.challenge.two_cameras import (
  Pairing,
  Reduced,
  Resampled,
  StoredPairings,
  TwoCameras,
  UnpairedTilesConfig,
  WeakTilesConfig,
  estimate,
)
from vqm_jax.prepare.demo import rendered
from vqm_jax.prepare.records import driver
from vqm_jax.prepare.records.builder import VqmBuilder


class Camera:
  """A source in memory whose pixels say where they are: (frame, y, x) as R, G and B."""

  def __init__(self, num_frames=40, height=60, width=80, fps=25, flat=False):
    self.name, self.fps = 'camera', Fraction(fps)
    self.num_frames, self.height, self.width = num_frames, height, width
    self.flat, self.read = flat, 0

  def frames(self, start=0, stop=None):
    y, x = np.mgrid[: self.height, : self.width]
    for t in range(start, self.num_frames if stop is None else min(stop, self.num_frames)):
      self.read = t
      yield np.stack([np.full_like(y, t), *((0 * y, 0 * x) if self.flat else (y * 3 % 256, x * 3 % 256))], -1).astype(
        np.uint8
      )


MATRIX = np.array([[1.5, 0, 6.0], [0, 1.5, 3.0], [0, 0, 1.0]])
PAIRING = Pairing(weak.Offset(5, 0.9, drift=weak.Drift(slope=0.25)), weak.Homography(MATRIX, 60, 0.8))
WEAK = WeakTilesConfig(
  name='weak_tiles', num_frames=3, size=16, margin=4, per_video=8, draws=3, jitter_frames=4, jitter_pixels=6
)
UNPAIRED = UnpairedTilesConfig(name='unpaired_tiles', num_frames=2, size=16, scale=2, per_video=9)


def clip(name='a', lq=None, hq=None, **kwargs):
  lq, hq = lq or Camera(), hq or Camera(num_frames=50, height=100, width=140)
  return TwoCameras(clip_id=name, lq=lq, hq=hq, **(dict(known=PAIRING) | kwargs))


def built(tmp_path, config, clips, **changes):
  """Builds the clips as training clips and returns the data dir."""

  class Small(VqmBuilder, skip_registration=True):
    name = 'small'
    VERSION = tfds.core.Version('1.0.0')
    pkg_dir_path = pathlib.Path(__file__).parent
    BUILDER_CONFIGS = [config]

    def clips(self, split, manual_dir):
      return clips if split == 'train' else []

  assert driver.build(driver.variant(Small, 'small', config, changes)(data_dir=tmp_path), None) == []
  return str(tmp_path)


def test_a_weak_pair_is_what_its_fields_say(tmp_path):
  source = open_source('small', 'weak_tiles', 'train', built(tmp_path, WEAK, [clip(), clip('b')]))
  records = list(source)
  assert len(records) == 2 * 8 * 3
  for record in records:
    (y, x), (hq_y, hq_x), (dy, dx) = record['yx'], record['hq_yx'], record['dyx']
    assert record['lq'].shape == (3, 16, 16, 3) and record['hq'].shape == (3, 24, 24, 3)
    for side, start, top, left in (('lq', record['start'], y, x), ('hq', record['hq_start'], hq_y, hq_x)):
      assert [int(frame[0, 0, 0]) for frame in record[side]] == list(range(start, start + 3))
      assert tuple(record[side][0, 0, 0, 1:]) == (top * 3 % 256, left * 3 % 256)
    assert abs(record['dt']) <= 4 and max(abs(dy), abs(dx)) <= 6
    np.testing.assert_allclose(record['H'], MATRIX)
    assert record['offset'] == 5 and record['ncc'] == pytest.approx(0.9)
    # Time and place follow from pairing and draw, within the video.
    assert record['hq_start'] == np.clip(record['start'] + 5 + record['dt'], 0, 50 - 3)
    centre = (MATRIX @ (x + 7.5, y + 7.5, 1))[1::-1] + (dy, dx)
    np.testing.assert_allclose((hq_y + 11.5, hq_x + 11.5), np.clip(centre, 11.5, (88.5, 128.5)), atol=0.51)


def test_draws_of_a_place_share_its_source_window_and_differ(tmp_path):
  source = open_source('small', 'weak_tiles', 'train', built(tmp_path, WEAK, [clip()]))
  drawn = set()
  for first in range(0, len(source), 3):
    draws = [source[first + k] for k in range(3)]
    assert [int(record['draw']) for record in draws] == [0, 1, 2]
    assert all(np.array_equal(record['lq'], draws[0]['lq']) for record in draws)
    drawn |= {(int(r['dt']), *map(int, r['dyx'])) for r in draws}
  assert len(drawn) >= 20  # of 24, by chance some may be equal


def test_the_metadata_tell_the_pairing_and_where_records_are(tmp_path):
  truth = dict(offset=6, matrix=np.eye(3).tolist())
  source = open_source('small', 'weak_tiles', 'train', built(tmp_path, WEAK, [clip(), clip('b', truth=truth)]))
  entries = source.dataset_info.metadata['videos']['train']
  assert entries['a'] == dict(first_record=0, num_records=24) | PAIRING.to_json()
  assert entries['b']['first_record'] == 24 and entries['b']['truth'] == truth
  assert entries['a']['drift_per_minute'] == 0.25
  assert source[24]['video'] == b'b' and source[23]['video'] == b'a'


def test_cameras_are_read_along_with_each_other(tmp_path):
  lq, hq = Camera(num_frames=200), Camera(num_frames=200, height=100, width=140)
  config = dataclasses.replace(WEAK, per_video=60)
  ahead = [hq.read - lq.read for _ in config.examples(clip(lq=lq, hq=hq), 'train')]
  assert len(ahead) == 180 and max(map(abs, ahead)) <= 5 + 2 * 4 + 3 + 4


def test_flat_targets_are_left_out(tmp_path):
  flat = Camera(num_frames=50, height=100, width=140, flat=True)
  data_dir = built(tmp_path, WEAK, [clip(), clip('b', hq=flat)])
  entries = open_source('small', 'weak_tiles', 'train', data_dir).dataset_info.metadata['videos']['train']
  assert entries['a']['num_records'] == 24 and entries['b']['num_records'] < 12


def test_what_is_too_small_is_refused(tmp_path):
  small = clip('b', lq=Camera(height=12), hq=Camera(height=20))
  with pytest.raises(errors.DataError, match=r'2 problems.*train/b: source: .*80x12.*16x16; train/b: target: .*24x24'):
    built(tmp_path, WEAK, [clip(), small])
  with pytest.raises(errors.DataError, match='no scene of the 1 training videos has 3 frames'):
    built(tmp_path, WEAK, [clip(hq=Camera(num_frames=2, height=100, width=140))])


def test_a_source_that_ends_early_is_named(tmp_path):
  class Short(Camera):
    def frames(self, start=0, stop=None):
      yield from super().frames(start, 20)

  with pytest.raises(errors.DataError, match='camera: ends before frame .* expected 50 frames'):
    built(tmp_path, WEAK, [clip(hq=Short(num_frames=50, height=100, width=140))])


def test_windows_of_each_camera_by_itself(tmp_path):
  data_dir = built(tmp_path, UNPAIRED, [clip(), clip('b')])
  places = {}
  for split, height, width in (('train_source', 30, 40), ('train_target', 50, 70)):
    source = open_source('small', 'unpaired_tiles', split, data_dir)
    records = list(source)
    entries = source.dataset_info.metadata['videos'][split]
    assert entries == {name: dict(first_record=k * 9, num_records=9) for k, name in enumerate('ab')}
    for record in records:
      y, x = record['yx']
      assert record['frames'].shape == (2, 16, 16, 3) and y <= height - 16 and x <= width - 16
      # The mean of a block of 2x2: of the values 3y and 3y + 3, rounded.
      assert int(record['frames'][0, 0, 0, 0]) == record['start']
      expected = [np.mean([3 * k % 256, (3 * k + 3) % 256]) for k in (2 * y, 2 * x)]
      assert np.abs(record['frames'][0, 0, 0, 1:] - expected).max() <= 0.5
    places[split] = {(r['video'], int(r['start']), *map(int, r['yx'])) for r in records}
  assert len(places['train_source'] & places['train_target']) < 3


@pytest.mark.parametrize(('fps', 'wanted', 'expected'), [
  (50, 25, [0, 2, 4, 6, 8]), (25, 50, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]),
  (30, 25, [0, 1, 2, 4, 5, 6, 7, 8]),
])  # fmt: skip
def test_resampling_takes_the_nearest_frame(fps, wanted, expected):
  video = Resampled(Camera(num_frames=10, fps=fps), Fraction(wanted))
  assert video.num_frames == len(expected) and video.fps == wanted
  assert [int(frame[0, 0, 0]) for frame in video.frames()] == expected
  assert [int(frame[0, 0, 0]) for frame in video.frames(2, 5)] == expected[2:5]
  assert list(video.frames(5, 5)) == []


def test_reduction_is_the_mean_of_blocks():
  camera = Camera(num_frames=2, height=13, width=9)
  frame, whole = next(Reduced(camera, 4).frames(1, 2)), next(camera.frames(1, 2))
  assert frame.shape == (3, 2, 3)
  blocks = np.stack([whole[:12, :8, c].reshape(3, 4, 2, 4).mean((1, 3)) for c in range(3)], -1)
  assert np.abs(frame.astype(float) - blocks).max() <= 0.5


def test_estimate_finds_the_cameras_of_a_rig():
  scene = rendered.Scene('a', 'train', 'stereo_motorcycle', 1, num_frames=96, height=180, width=320)
  (rig,) = rendered.rig_clips([scene])
  assert rig.pairing.offset.frames == rig.truth['offset'] and rig.pairing.offset.reason == ''
  corners = np.array([[0, 319, 0, 319], [0, 0, 179, 179], [1, 1, 1, 1]])
  found, true = ((m @ corners)[:2] / (m @ corners)[2] for m in (rig.pairing.homography.matrix, rig.truth['matrix']))
  assert np.abs(found - true).max() < 1
  given = estimate(rig.lq, rig.hq, offset=3)
  assert given.offset.frames == 3 and 'given' in given.offset.reason
  with pytest.raises(errors.DataError, match='offset of 99 frames nothing is filmed by both.*correct offsets.csv'):
    estimate(rig.lq, rig.hq, offset=99)


def test_estimates_are_kept_until_files_or_offset_change(tmp_path, caplog):
  pair = clip(digest='1', known=dataclasses.replace(PAIRING, offset=weak.Offset(5, 0.9)))  # no drift: NaN
  StoredPairings(tmp_path).put(pair)
  stored = StoredPairings(tmp_path)
  assert stored.get(pair).to_json() == pair.pairing.to_json()
  assert np.isnan(stored.get(pair).offset.drift.slope)
  for changed in (dict(digest='2'), dict(offset=4), dict(clip_id='b')):
    assert stored.get(dataclasses.replace(pair, **changed)) is None
  (tmp_path / 'pairing.json').rename(tmp_path / 'moved')
  (tmp_path / 'pairing.json').mkdir()
  stored.put(pair)
  assert 'estimates are not kept' in caplog.text


@pytest.mark.parametrize('text', ['', '[]', '{"a": 1}', '{"a": {"digest": "", "pairing": {"offset": 1}}}', '\0\xff'])
def test_a_damaged_file_of_estimates_is_named(tmp_path, text):
  (tmp_path / 'pairing.json').write_text(text)
  with pytest.raises(errors.DataError, match='pairing.json: .*remove it'):
    StoredPairings(tmp_path)


def test_pairings_survive_json():
  value = json.loads(json.dumps(PAIRING.to_json()))
  assert Pairing.from_json(value).to_json() == PAIRING.to_json()
