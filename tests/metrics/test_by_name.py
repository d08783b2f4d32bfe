"""The table of metrics: names, what they need, what they refuse, and that their scorers give the functions' values."""

import importlib.util
import sys

import numpy as np
import pytest
from absl import flags

from vqm_jax import cli, errors, metrics
from vqm_jax.metrics import by_name
from vqm_jax.perceptual.weights import convert, random_source

CHEAP = [name for name in by_name.NAMES if not name.startswith(('lpips', 'tlp'))]
NEIGHBOURS = ['tof', 'tlp_alex', 'warping', 'tdpsnr']


@pytest.fixture(scope='module')
def empty(tmp_path_factory):
  return tmp_path_factory.mktemp('empty')


def clip(frames=3, seed=0, size=(40, 48)):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(60, 200, (size[0] // 4, size[1] // 4, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
  return [np.roll(coarse, t, axis=1) for t in range(frames)]


def noisy(frames, seed=1):
  rng = np.random.default_rng(seed)
  return [(frame + rng.integers(-9, 10, frame.shape)).clip(0, 255).astype(np.uint8) for frame in frames]


def values(metric, *candidates, target, source=None):
  scorer = metric.start()
  for t, y in enumerate(target):
    scorer.add([frames[t] for frames in candidates], y, (source or target)[t])
  return scorer.values()


@pytest.mark.parametrize('name', [*CHEAP, 'lpips_alex', 'tlp_alex'])
def test_every_metric_of_a_clip(name, empty):
  metric = metrics.create(name, perceptual_dir=empty, allow_random=True)
  assert metric.name == name and metric.label and metric.reference in ('target', 'input', '')
  target = clip()
  output, worse, same = values(metric, noisy(target), noisy(noisy(target), 2), target, target=target)
  frames = {'tof': 2, 'tlp_alex': 2, 'warping': 2, 'tdpsnr': 2, 'flicker': 1, 'colour': 1, 'colour_ab': 1}.get(name, 3)
  assert len(output) == len(worse) == len(same) == frames
  assert all(isinstance(value, float) for value in output)
  # The target is the best there is.
  if metric.better == 'higher':
    assert np.mean(same) > np.mean(output) > np.mean(worse)
  else:
    assert np.mean(np.abs(same)) < np.mean(np.abs(output))
  if not metric.floor:
    best = np.inf if 'psnr' in name else 1 if name == 'ssim' else 0
    assert same == [pytest.approx(best, abs=1e-6)] * frames
  # Scorers of other clips begin anew, and values can be read again.
  assert values(metric, noisy(target), target=target) == [output]
  assert metric.consecutive == (name in (*NEIGHBOURS, 'flicker'))
  assert metric.aligned == (name in (*NEIGHBOURS, 'psnr', 'ssim', 'lpips_alex'))


@pytest.mark.parametrize('name', CHEAP)
def test_input_as_the_reference(name):
  metric = metrics.create(name, reference='input')
  source = clip()
  target, output = noisy(source, 5), noisy(source, 6)
  if name not in (*NEIGHBOURS, 'change'):
    assert metric.reference == ('' if name == 'flicker' else 'target')
    expected = values(metrics.create(name), output, target=target)
    assert values(metric, output, target=target, source=source) == expected
    return
  assert (metric.reference, metric.aligned, metric.floor) == ('input', False, False)
  expected = values(metrics.create(name), output, source, target=source)
  assert values(metric, output, source, target=[None] * 3, source=source) == expected


def test_values_are_those_of_the_functions(empty):
  target, output = clip(), noisy(clip())
  for name, function in (('psnr', metrics.psnr), ('ssim', metrics.ssim)):
    for protocol in metrics.PROTOCOLS:
      expected = [float(function(*pair, protocol)) for pair in zip(output, target, strict=True)]
      for metric in (metrics.create(f'{name}_{protocol}'), metrics.create(name, protocol=protocol)):
        assert values(metric, output, target=target) == [expected]
        assert metric.name == (name if protocol == 'ntire' else f'{name}_{protocol}')
  assert metrics.create('psnr_y601').label == 'PSNR y601 (dB)' and metrics.create('ssim').label == 'SSIM'
  # A suffix is more particular than the option.
  assert metrics.create('psnr_ntire_b1', protocol='y601').name == 'psnr_ntire_b1'
  metric = metrics.create('lpips_alex', perceptual_dir=empty, allow_random=True)
  weights = metrics.lpips_weights('alex', empty, allow_random=True)
  expected = metrics.lpips(np.stack(output), np.stack(target), weights)
  assert values(metric, output, target=target) == [pytest.approx(expected, rel=1e-5)]


def test_weights_of_learned_metrics(tmp_path):
  assert metrics.create('psnr').weights == ''
  assert metrics.create('tlp_alex', perceptual_dir=tmp_path, allow_random=True).weights is None
  for name, needs in (('lpips_vgg', 'vgg16'), ('tlp_squeeze', 'squeezenet')):
    with pytest.raises(errors.MissingWeightsError, match=f'needs the ImageNet weights {needs}.*--perceptual_dir'):
      metrics.create(name, perceptual_dir=tmp_path, setting='--perceptual_dir')
  found = {}
  for net in ('alexnet', 'lpips-alex'):
    np.savez(tmp_path / 'x.npz', **random_source(net))
    found[net] = convert(net, tmp_path / 'x.npz', tmp_path / f'{net}.npz')['sha256']
  assert metrics.create('lpips_alex', perceptual_dir=tmp_path).weights == found['alexnet']


def test_floors():
  floors = {name for name in CHEAP if metrics.create(name).floor}
  assert floors == {'warping', 'flicker'}


@pytest.mark.parametrize(
  'name, near',
  [
    ('pnsr', 'psnr'),
    ('lpips_alexnet', 'lpips_alex'),
    ('ssim_y60', 'ssim_y601'),
    ('color', 'colour'),
    ('tlp_alexnet', 'tlp_alex'),
    ('tOF', 'tof'),
  ],
)
def test_unknown_names_are_told_the_nearest(name, near):
  with pytest.raises(errors.ConfigError, match=f"'{name}' is unknown; did you mean '{near}'.*choose from psnr, ssim"):
    metrics.create(name)


def test_bad_options_are_told():
  with pytest.raises(errors.ConfigError, match="protocol: expected one of .*'ntire'.* found 'rgb'"):
    metrics.create('psnr', protocol='rgb')
  with pytest.raises(errors.ConfigError, match="reference: expected 'target' or 'input', found 'source'"):
    metrics.create('tof', reference='source')
  with pytest.raises(errors.ConfigError, match='choose from'):
    metrics.create('tof_y601')


def test_labels():
  assert [metrics.label(name) for name in ('lpips_vgg', 'tlp_alex', 'tof', 'fd_lpips', 'psnr', 'what')] == [
    'LPIPS (vgg)', 'tLP (alex)', 'tOF (px)', 'FD (LPIPS alex)', 'PSNR (dB)', 'what',
  ]  # fmt: skip
  assert len({metrics.label(name) for name in by_name.NAMES}) == len(by_name.NAMES)


# Bad frames


@pytest.mark.parametrize('name', [*CHEAP, 'lpips_alex', 'tlp_alex'])
def test_bad_frames_are_refused(name, empty):
  metric = metrics.create(name, perceptual_dir=empty, allow_random=True)
  (frame,) = clip(1)
  alpha = np.concatenate([frame, frame[..., :1]], axis=-1)
  for bad, message in (
    (alpha, r'found uint8 \(40, 48, 4\); drop the alpha channel first'),
    (frame.astype(np.float32), r'must be uint8 RGB \(H, W, 3\), found float32'),
    (frame[..., 0], r'found uint8 \(40, 48\)'),
    (frame[None], r'found uint8 \(1, 40, 48, 3\)'),
  ):
    with pytest.raises(errors.DataError, match=message):
      metric.start().add([bad], bad, bad)
    with pytest.raises(errors.DataError, match=message):
      metric.start().add([frame, bad], frame, frame)
  with pytest.raises(errors.DataError, match=r'one shape, found \(40, 48, 3\) and \(40, 47, 3\)'):
    metric.start().add([frame, frame[:, :47]], frame, frame)


@pytest.mark.parametrize('name', CHEAP)
def test_clips_that_change_on_the_way_are_refused(name):
  (frame,) = clip(1)
  scorer = metrics.create(name).start()
  scorer.add([frame, frame], frame, frame)
  with pytest.raises(errors.DataError, match='expected 2 versions of each frame as before, found 1'):
    scorer.add([frame], frame, frame)
  with pytest.raises(errors.DataError, match='one shape, found'):
    scorer.add([frame[:20]] * 2, frame[:20], frame[:20])


@pytest.mark.parametrize('name', CHEAP)
def test_a_reference_that_is_not_there_is_told(name):
  (frame,) = clip(1)
  metric = metrics.create(name)
  if not metric.reference:
    metric.start().add([frame], None, None)
    return
  others = {'target': (None, frame), 'input': (frame, None)}[metric.reference]
  with pytest.raises(errors.DataError, match=f'{name} compares with the {metric.reference}, which was not given'):
    metric.start().add([frame], *others)


@pytest.mark.parametrize('name', [*NEIGHBOURS, 'tlp_alex'])
def test_one_frame_has_no_neighbours(name, empty):
  metric = metrics.create(name, perceptual_dir=empty, allow_random=True)
  with pytest.raises(errors.DataError, match=f'{name} compares neighbouring frames: .* at least two, found 1'):
    values(metric, clip(1), target=clip(1))


@pytest.mark.parametrize('name', ['ssim', 'lpips_alex', 'warping'])
def test_frames_that_are_too_small_are_told(name, empty):
  metric = metrics.create(name, perceptual_dir=empty, allow_random=True)
  tiny = clip(2, size=(8, 44))
  with pytest.raises(errors.DataError, match='at least (11|31|16) pixels a side, found 8x44'):
    values(metric, tiny, target=tiny)


# The benchmark


@pytest.fixture
def benchmark(monkeypatch):
  spec = importlib.util.spec_from_file_location('benchmark_metrics', cli.ROOT / 'benchmarks' / 'metrics.py')
  module = importlib.util.module_from_spec(spec)
  monkeypatch.setitem(sys.modules, spec.name, module)
  before = set(flags.FLAGS)
  spec.loader.exec_module(module)
  yield module
  flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)


@pytest.mark.parametrize('name', ['tof', 'change', 'tlp_alex', 'fd_lpips'])
def test_a_metric_is_timed(benchmark, name):
  first, seconds, growth = benchmark.measure(name, 64, 64, 3)
  assert first > 0 and 0 < seconds and (growth >= 0 or np.isnan(growth))
  words = benchmark.line(name, 64, 64, first, seconds, growth).split()
  assert words[:2] == [name, '64x64'] and len(words) == 5


def test_benchmark_clips_move(benchmark):
  (_, first), (candidate, second) = benchmark.clip(64, 48, 2)
  np.testing.assert_array_equal(second[:, 2:], first[:, :-2])
  assert candidate.shape == (48, 64, 3) and candidate.dtype == np.uint8
  assert 0 < (candidate.astype(int) - second).max() < 8
