"""Figures as files: which, of what, by command and from Python."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from report.runs import TARGETS, frames_of, read, saved, scores, workdir

from vqm_jax import errors, metrics
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.figures import draw, plots


def test_two_cameras_are_labelled_and_not_scored(tmp_path):
  sharpness = scores({clip: [-0.1, 0.2, 0.0, 0.1] for clip in TARGETS})
  sides = {'metrics': {'sharpness': sharpness}, 'no_processing': {'sharpness': sharpness}}
  block, raw = read(workdir(tmp_path, frames_of(6), 'wespe', aligned=False, **sides))
  frames = saved_frames.SavedFrames(block, raw)
  assert [side.label for side in frames.sides] == ['Input', 'wespe', 'target (not aligned)']
  _, caption, record = panels.comparison(frames, block, 'a', 0, 'auto', seed=0)
  assert 'PSNR' not in caption and 'not aligned' in caption and {crop['psnr'] for crop in record['crops']} == {None}
  assert plots.along_frames(block, raw, ['a'])[0] == 'sharpness'
  with pytest.raises(plots.Unavailable, match='no method has a gain'):
    plots.points(block)


def test_several_seeds_show_the_first(tmp_path):
  runs = [
    workdir(tmp_path / str(seed), frames_of(6, seed), f'ecnu (step {seed})', seed=seed, experiment='e')
    for seed in (5, 4)
  ]
  block, raw = read(*runs)
  frames = saved_frames.SavedFrames(block, raw)
  assert [side.label for side in frames.methods] == ['ecnu, seed 4']
  np.testing.assert_array_equal(frames.at('a', 0)['ecnu, seed 4'], frames_of(6, 4)['a'][0])
  _, curves = plots.along_frames(block, raw, ['a'])
  want = (metrics.psnr(frames_of(6, 4)['a'], TARGETS['a']) + metrics.psnr(frames_of(6, 5)['a'], TARGETS['a'])) / 2
  np.testing.assert_allclose(curves['a']['ecnu (2 seeds)'][1], want)
  (run,) = plots.runs(block.results)
  assert run.label == 'ecnu (2 seeds)' and len(run.curves['val/psnr']) == 2


@pytest.mark.slow
def test_binary(binary, tmp_path, pair):
  out = tmp_path / 'out'
  blocked = ['av', 'cv2', 'tensorflow', 'tensorflow_datasets', 'flax']
  process = binary('report.figures', f'--results={pair[0]},{pair[1]}', f'--out={out}', '--seed=2', blocked=blocked)
  output = process.communicate(timeout=100)[0]
  assert process.returncode == 0, output
  pixels = [f'{name}_a.{kind}' for name in ('profile', 'comparison', 'errors') for kind in ('png', 'txt')]
  curves = [f'{name}.{kind}' for name in ('frames', 'training', 'tradeoff') for kind in ('png', 'svg', 'txt')]
  assert output.splitlines()[-16:] == [str(out / name) for name in (*pixels, 'crops.json', *curves)]
  assert sorted(os.listdir(out)) == sorted([*pixels, 'crops.json', *curves])
  crops = json.loads((out / 'crops.json').read_text())
  assert list(crops) == ['a'] and {crop.get('seed') for crop in crops['a']['crops']} == {None, 2}
  block, raw = read(*pair)
  picture, caption, _ = panels.comparison(saved_frames.SavedFrames(block, raw), block, 'a', 2, 'auto', seed=2)
  np.testing.assert_array_equal(np.asarray(Image.open(out / 'comparison_a.png')), picture)
  assert (out / 'comparison_a.txt').read_text() == caption + '\n'


def test_binary_says_what_is_wrong(command, tmp_path):
  bare = workdir(tmp_path / 'bare', frames_of(6), keep=False, train=False)
  done = command('report.figures', f'--results={bare}', f'--out={tmp_path / "out"}')
  output = done.output
  assert done.returncode == 1 and len(output.splitlines()) == 1 and not (tmp_path / 'out').exists()
  assert '--save_frames' in output and 'Without frames there are --kinds=frames,training,tradeoff.' in output


def test_figures_from_python(pair, tmp_path):
  out = tmp_path / 'figures'
  written = draw(pair, out, kinds=['profile', 'frames'], clips=['b'], column=7)
  assert [path.name for path in written] == [
    'profile_b.png', 'profile_b.txt', 'frames.png', 'frames.svg', 'frames.txt',
  ]  # fmt: skip
  assert sorted(out.iterdir()) == sorted(written)
  assert (out / 'profile_b.txt').read_text() == panels.profiles(saved(*pair), 'b', '7')[1] + '\n'

  # Left to itself it draws what can be drawn; what is asked for has to be there.
  bare = workdir(tmp_path / 'bare', frames_of(6), train=False)
  assert {path.stem for path in draw([bare], tmp_path / 'all')} == {
    'profile_a', 'comparison_a', 'errors_a', 'crops', 'frames', 'tradeoff',
  }  # fmt: skip
  with pytest.raises(errors.DataError, match='no metrics.jsonl lies in the workdir'):
    draw([bare], tmp_path / 'more', kinds=['training'])
  with pytest.raises(errors.ConfigError, match="--kinds: 'pie' is unknown; choose from profile, comparison"):
    draw([bare], tmp_path / 'more', kinds=['pie'])
  assert not (tmp_path / 'more').exists()
