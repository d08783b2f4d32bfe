"""Tiles: what they cover, that they give back the whole frame, and what they refuse."""

import jax
import numpy as np
import pytest
from flax import nnx

from vqm_jax import errors, restorers
from vqm_jax.inference import parse_tile, restore_frames, stream_frames
from vqm_jax.inference.streaming import _tiles

NETWORK = dict(width=4, num_front=1, num_blocks=1, groups=2, num_frames=3)


def network():
  """A small EDVR; its receptive field without offsets is about 100 pixels to each side."""
  edvr = restorers.create('tcl_edvr', rngs=nnx.Rngs(0), **NETWORK)
  last = edvr.tail.last.kernel  # fresh it is zero, and the network the identity
  last[...] = 0.1 * jax.random.normal(jax.random.key(0), last.shape)
  return edvr


def clip(height, width, frames=3):
  return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.mark.parametrize('size', [1, 40, 64, 100, 1080])
@pytest.mark.parametrize(('tile', 'overlap', 'multiple'), [(32, 0, 16), (64, 40, 16), (544, 64, 4)])
def test_every_pixel_is_kept_once_and_tiles_begin_on_the_grid(size, tile, overlap, multiple):
  tiles = _tiles(size, tile, overlap, multiple)
  kept = [p for t in tiles for p in range(t.keep_start, t.keep_stop)]
  assert kept == list(range(size))
  for t in tiles:
    assert t.start % multiple == 0 and t.start <= t.keep_start and t.keep_stop <= t.stop <= size
    assert t.keep_start - t.start >= min(overlap, t.keep_start)


@pytest.mark.slow
def test_a_tile_as_large_as_the_frame_changes_nothing():
  one = jax.devices()[:1]
  a, b = (list(stream_frames(network(), clip(40, 56), tile=t, devices=one)) for t in (None, (48, 64)))
  np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_tiles_with_enough_overlap_give_the_whole_frame():
  one, frames = jax.devices()[:1], clip(48, 200, 2)
  whole = np.stack(list(stream_frames(network(), frames, devices=one)))
  errors_ = [
    np.abs(np.stack(list(stream_frames(network(), frames, tile=(48, 64), overlap=n, devices=one))) - whole).max()
    for n in (0, 128)
  ]
  assert errors_[1] < 1e-5 < errors_[0]


def test_tiles_and_self_ensemble_work_together():
  one, frames = jax.devices()[:1], clip(32, 48, 1)
  single = restorers.create('ecnu', width=4, mapping_width=4, num_blocks=1, rngs=nnx.Rngs(0))
  whole = np.stack(list(restore_frames(single, frames, self_ensemble=8, devices=one)))
  tiled = np.stack(list(restore_frames(single, frames, self_ensemble=8, tile=(16, 16), overlap=32, devices=one)))
  assert np.abs(whole.astype(int) - tiled).max() <= 1


def test_wrong_tiles_are_refused():
  with pytest.raises(errors.ConfigError, match='tile=40x64, overlap=64: the sides must be multiples of 16'):
    list(restore_frames(network(), clip(32, 32), tile=(40, 64)))
  assert parse_tile('512') == (512, 512) and parse_tile('540x960') == (540, 960) and parse_tile(None) is None
  for text in ('big', '0', '1x2x3', '-5', '64x'):
    with pytest.raises(errors.ConfigError, match=f'--tile={text}'):
      parse_tile(text)


@pytest.mark.parametrize(
  ('frames', 'message'),
  [
    (np.zeros((2, 16, 16), np.uint8), r'Frame 0 is uint8 \(16, 16\), expected RGB as uint8 or uint16 \(H, W, 3\)'),
    (np.zeros((2, 16, 16, 4), np.uint8), r'Frame 0 is uint8 \(16, 16, 4\)'),
    (np.zeros((2, 16, 16, 3), np.float32), 'Frame 0 is float32'),
  ],
)
def test_frames_of_another_kind_are_refused(frames, message):
  with pytest.raises(errors.DataError, match=message):
    list(restore_frames(network(), frames))


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (5, 7)])
def test_frames_smaller_than_the_size_multiple_are_mirrored_until_they_fit(size):
  single = restorers.create('ecnu', width=4, mapping_width=4, num_blocks=1, r=8, rngs=nnx.Rngs(0))
  frames = clip(*size, 1)
  (restored,) = stream_frames(single, frames, devices=jax.devices()[:1])
  padded = np.pad(frames[0], ((0, 8 - size[0]), (0, 8 - size[1]), (0, 0)), mode='reflect')
  expected = single(padded[None, None].astype(np.float32) / 255)[0, : size[0], : size[1]]
  np.testing.assert_allclose(restored, expected, atol=1e-5)
