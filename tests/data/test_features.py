import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vqm_jax import errors
from vqm_jax.data import FrameStrip


def frames(num_frames, height=13, width=9):
  rng = np.random.default_rng(num_frames)
  return rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('codec', ['webp', 'png', 'raw'])
@pytest.mark.parametrize('num_frames', [1, 5, 7])
def test_round_trip_is_exact(codec, num_frames):
  feature = FrameStrip(num_frames, 13, 9, codec=codec)
  strip = frames(num_frames)
  decoded = feature.decode_example_np(feature.encode_example(strip))
  assert decoded.dtype == np.uint8
  np.testing.assert_array_equal(decoded, strip)


def test_views_are_stored_as_they_look():
  feature = FrameStrip(3, 9, 9)
  view = frames(3, 9, 9)[:, ::-1].swapaxes(1, 2)
  np.testing.assert_array_equal(feature.decode_example_np(feature.encode_example(view)), view)


def test_compresses_pictures():
  noise = frames(5, 64, 64).astype(int) % 5
  picture = (np.arange(64)[:, None, None] + noise).astype(np.uint8)
  feature = FrameStrip(5, 64, 64)
  assert len(feature.encode_example(picture)) < 0.5 * picture.size


@pytest.mark.parametrize('codec', ['webp', 'png', 'raw'])
def test_json_and_pickle_keep_the_feature(codec):
  feature = FrameStrip(5, 13, 9, codec=codec)
  stored = json.loads(json.dumps(tfds.features.FeaturesDict({'lq': feature}).to_json()))
  assert tfds.features.FeatureConnector.from_json(stored)['lq'] == feature
  assert pickle.loads(pickle.dumps(feature)) == feature
  assert feature != FrameStrip(5, 13, 10, codec=codec)
  assert feature.from_json_content(value=feature.to_json_content()) == feature
  assert repr(feature) == f"FrameStrip(5, 13, 9, codec='{codec}')"


@pytest.mark.parametrize('bad', [frames(4), frames(5).astype(np.float32), frames(5)[..., :1]])
def test_other_arrays_are_refused(bad):
  with pytest.raises(errors.DataError, match=r'expected uint8 \(5, 13, 9, 3\), got'):
    FrameStrip(5, 13, 9).encode_example(bad)


@pytest.mark.parametrize('codec', ['webp', 'png', 'raw'])
@pytest.mark.parametrize('keep', [0, 20, 0.5])
def test_damaged_bytes(codec, keep):
  feature = FrameStrip(5, 13, 9, codec=codec)
  data = feature.encode_example(frames(5))
  with pytest.raises(errors.DataError, match=f'not a whole {codec} strip'):
    feature.decode_example_np(data[: int(keep if keep >= 1 else keep * len(data))])


def test_strip_of_another_size_is_damage():
  data = FrameStrip(5, 13, 9).encode_example(frames(5))
  with pytest.raises(errors.DataError, match='not a whole webp strip'):
    FrameStrip(5, 9, 13).decode_example_np(data)


def test_too_large_for_webp_names_another_codec():
  with pytest.raises(errors.ConfigError, match="16800x64.*16383.*codec='png'"):
    FrameStrip(7, 2400, 64)
  FrameStrip(7, 2400, 64, codec='png')
  FrameStrip(1, 16383, 64)


def test_unknown_codec():
  with pytest.raises(errors.ConfigError, match='webp'):
    FrameStrip(1, 8, 8, codec='jpeg')


READ = """
import sys
from importlib.machinery import PathFinder
import numpy as np

find = PathFinder.find_spec
missing = ('av', 'cv2', 'tensorflow', 'vqm_tiny')
PathFinder.find_spec = lambda name, *rest: None if name.split('.')[0] in missing else find(name, *rest)
from vqm_jax import data

for config in ('tiles', 'tiles_t7p40'):  # stored as WebP and as PNG
  source = data.open_source('vqm_tiny', config, 'train', sys.argv[1])
  for record in source:
    np.testing.assert_array_equal(record['hq'], 255 - record['lq'])
  print(len(source), record['lq'].shape)
with data.train_batches(source, num_frames=3, crop=8, batch_size=2, seed=0) as batches:
  print(next(batches)['lq'].shape)
reader = data.ClipReader(data.open_source('vqm_tiny', 'frames', 'val', sys.argv[1]))
print(sum(1 for _ in reader.frames('b')))
"""


def test_reads_without_builder_opencv_pyav_tensorflow(data_dir):
  done = subprocess.run([sys.executable, '-c', READ, str(data_dir)], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == ['11 (5, 24, 24, 3)', '11 (7, 40, 40, 3)', '(2, 3, 8, 8, 3)', '12']
