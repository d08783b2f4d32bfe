"""Figures: exact pixels of profiles, crops and errors, finding frames, curves, bad input, files, the binary."""

import json
import os
import re

import numpy as np
import pytest
import summaries
from PIL import Image
from report.evaluated import Clips

from vqm_jax import errors, files, metrics, pictures
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.figures import draw, plots

CLIPS = Clips('a', 'b')
TARGETS, INPUTS, frames_of, psnr, scores = CLIPS.targets, CLIPS.inputs, CLIPS.noisy, CLIPS.psnr, summaries.scores


def workdir(folder, outputs, *args, train=True, **changes):
  return CLIPS.workdir(folder, outputs, *args, train=train, **changes)


def read(*folders):
  return saved_frames.read_results(map(str, folders))


def saved(*folders):
  return saved_frames.SavedFrames(*read(*folders))


def places(picture, part):
  """How often `part` stands in `picture`, pixel by pixel."""
  height, width, _ = part.shape
  corners = np.argwhere((picture == part[0, 0]).all(axis=2))
  return sum(np.array_equal(picture[y : y + height, x : x + width], part) for y, x in corners)


# Arrays.


def test_profile_is_one_column_of_every_frame():
  frames = np.zeros((4, 3, 5, 3), dtype=np.uint8)
  frames[:, :, 2, 0] = np.arange(12).reshape(4, 3)  # 3 t + y
  found = panels.profile(frames, 2)
  np.testing.assert_array_equal(found[..., 0], [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
  assert found.shape == (3, 4, 3) and not found[..., 1:].any() and not panels.profile(frames, 1).any()


def test_busiest_column_varies_most_outside_the_borders():
  frames = np.full((4, 6, 40, 3), 100, dtype=np.uint8)
  frames[::2, :, 11] += 9
  frames[::2, :3, 30] += 15
  frames[::2, :, [0, 1, 38, 39]] = 255
  assert panels.busiest_column(frames) == 11
  assert panels.busiest_column(iter(frames[1:2])) == 2  # nothing moves: the first


def test_enlarged_and_reduced_by_whole_factors():
  frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
  np.testing.assert_array_equal(panels.enlarged(frame, 3, 2), frame.repeat(2, axis=0).repeat(3, axis=1))
  np.testing.assert_array_equal(panels.resized(frame, 9), panels.enlarged(frame, 2))
  np.testing.assert_array_equal(panels.resized(frame, 2)[..., 0], [[8, 14]])  # means of 0, 3, 12, 15 and so on
  assert panels.resized(frame, 3) is frame


def test_crops_where_methods_differ_and_random_ones():
  one = np.full((80, 100, 3), 90, dtype=np.uint8)
  other = one.copy()
  other[30:50, 40:60] = 120
  other[0:20, 0:20] = 100
  crops = panels.choose_crops([one, other], 2, seed=3)
  assert [crop.how for crop in crops] == ['variance', 'variance', 'random', 'random']
  assert (crops[0].x, crops[0].y, crops[0].size) == (40, 30, 20) and (crops[1].x, crops[1].y) == (0, 0)
  assert crops == panels.choose_crops([one, other], 2, seed=3) != panels.choose_crops([one, other], 2, seed=4)
  covered = np.zeros((80, 100), dtype=int)
  for crop in crops:
    crop.of(covered)[...] += 1
  assert covered.max() == 1 and covered.sum() == 4 * 20 * 20
  assert len(panels.choose_crops([one[:16, :40], other[:16, :40]], 9)) == 2  # no room for more
  assert panels.choose_crops([np.zeros((600, 900, 3), np.uint8)] * 2, 1)[0].size == 128


def test_errors_in_levels_and_colours():
  target = np.full((1, 3, 3), 100, dtype=np.uint8)
  frame = target + np.array([[[0, 0, 0], [3, 0, 0], [90, 90, 90]]], dtype=np.uint8)
  np.testing.assert_array_equal(panels.error_map(frame, target), [[0, 1, 90]])
  np.testing.assert_array_equal(panels.error_map(target, frame), [[0, 1, 90]])
  black, dark, bright = panels.error_colours(panels.error_map(frame, target))[0].astype(int).sum(axis=1)
  assert black < 10 and black < dark < 60 and bright > 500
  np.testing.assert_array_equal(panels.error_colours(np.array([[63.75, 64, 200]])).std(axis=1), 0)


# Figures of pixels.


@pytest.fixture
def pair(tmp_path):
  """Two evaluated runs."""
  one = workdir(tmp_path / 'one', frames_of(12))
  return one, workdir(tmp_path / 'two', frames_of(6), 'gil (step 7)', params=57_721)


def test_profiles_stand_side_by_side(pair):
  frames = saved(*pair)
  assert [side.label for side in frames.sides] == ['Input', 'ecnu', 'gil', 'Target']
  picture, caption = panels.profiles(frames, 'a', '7')
  for clips in (INPUTS, frames_of(12), frames_of(6), TARGETS):
    assert places(picture, panels.enlarged(panels.profile(clips['a'], 7), 79, 9)) == 1
  assert caption.startswith('Temporal profiles of clip a: the pixels at x = 7 (chosen by hand) of 4 frames, time')
  assert f'x = {panels.busiest_column(TARGETS["a"])} (the column' in panels.profiles(frames, 'a', 'auto')[1]
  with pytest.raises(errors.ConfigError, match='^--column=60: expected auto or 0 to 59, as a is 60 wide'):
    panels.profiles(frames, 'a', '60')


def test_many_profiles_take_several_rows():
  column = np.full((50, 10, 3), 7, dtype=np.uint8)
  pictures_of = [
    panels.profile_figure(np.full((50, 80, 3), 9, np.uint8), 3, {f'method {k}': column for k in range(count)}, 'a')
    for count in (8, 9)
  ]
  assert pictures_of[1].shape[0] > 1.9 * pictures_of[0].shape[0]


def test_comparison_holds_every_crop(pair):
  block, raw = read(*pair)
  frames = saved_frames.SavedFrames(block, raw)
  picture, caption, record = panels.comparison(frames, block, 'b', 2, '3,4,16;30,20,16', seed=0)
  for clips in (INPUTS, frames_of(12), frames_of(6), TARGETS):
    for x, y in ((3, 4), (30, 20)):
      inside = clips['b'][2, y + 1 : y + 15, x + 1 : x + 15]  # the border lies on the outermost pixels
      assert places(picture, panels.enlarged(inside, 17)) == 1
  crop = slice(4, 20), slice(3, 19)
  want = metrics.psnr(frames_of(6)['b'][2][crop], TARGETS['b'][2][crop])
  assert record['frame'] == 2 and record['crops'][0]['psnr']['gil'] == pytest.approx(float(want))
  assert record['crops'][1] | {'psnr': None} == {'x': 30, 'y': 20, 'size': 16, 'how': 'given', 'psnr': None}
  assert '1: x 3, y 4, given' in caption and 'PSNR' in caption
  _, caption, record = panels.comparison(frames, block, 'b', 2, 'auto:1', seed=5)
  assert [crop['how'] for crop in record['crops']] == ['variance', 'random'] and record['crops'][1]['seed'] == 5
  assert '2: random (seed 5)' in caption
  assert len(panels.comparison(frames, block, 'b', 2, 'auto', seed=5)[2]['crops']) == 4


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('45,1,16', r'--crops: 45,1,16 is not within the frame, which is 60x40'),
    ('1,25,16', r'--crops: 1,25,16 is not within the frame'),
    ('1,2', r"--crops=1,2: expected auto, auto:N or x,y,size;x,y,size;..., found '1,2'"),
    ('auto:0', r'--crops=auto:0: expected auto'),
    ('1,1,8;1,1,9', 'expected one size for all'),
  ],
)
def test_bad_crops(pair, text, message):
  block, raw = read(*pair)
  with pytest.raises(errors.ConfigError, match=message):
    panels.comparison(saved_frames.SavedFrames(block, raw), block, 'a', 0, text, seed=0)


def test_error_maps_of_input_and_methods(pair):
  block, raw = read(*pair)
  picture, caption = panels.error_maps(saved_frames.SavedFrames(block, raw), block, 'a', 1)
  for clips in (INPUTS, frames_of(12), frames_of(6)):
    colours = panels.error_colours(panels.error_map(clips['a'][1], TARGETS['a'][1]))
    assert places(picture, panels.enlarged(colours, 10)) == 1
  assert 'frame 1 of clip a' in caption and picture.shape[1] == 3 * 600 + 2 * 7


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


def test_labels_shrink_before_they_are_cut():
  picture = np.zeros((20, 100, 3), dtype=np.uint8)
  assert panels._fitting([('short', 100)], 20).size == 20
  assert 13 < panels._fitting([('several words here', 100)], 20).size <= 20
  assert panels._fitting([('averylongnamewithoutspaces', 100)], 20).size == 13
  assert panels._wrapped('a_long-name', panels._font(20), 80) == ['a_long-', 'name']
  assert panels._wrapped('averylongnamewithoutspaces', panels._font(13), 100)[0].endswith('…')
  figure = panels.grid([[panels.Cell(picture, 'one', '1 dB'), panels.Cell(picture, 'two')]], 12)
  assert places(figure, picture) == 2 and figure.shape[1] == 204 and (figure[:10, :100] < 99).any()


# Finding frames.


def test_frames_of_scored_folders(tmp_path):
  summary = json.loads((workdir(tmp_path / 'x', INPUTS, keep=False) / 'eval/test/summary.json').read_text())
  for clip in TARGETS:
    for index in range(4):
      pictures.save_png(tmp_path / 'folders' / clip / f'im{index + 8}.png', TARGETS[clip][index])
      pictures.save_png(tmp_path / 'groups' / f'{clip}_{index + 8}.png', INPUTS[clip][index])
  summary['folders'] = {'output': str(tmp_path / 'groups'), 'target': str(tmp_path / 'folders')}
  summary['frame_indices'] = {'a': [1, 3], 'b': [1, 3]}
  files.write_json(tmp_path / 's' / 'summary.json', summary)
  frames = saved(tmp_path / 's')
  assert [side.label for side in frames.sides] == ['ecnu', 'Target'] and frames.input is None
  at = frames.at('b', 3)
  np.testing.assert_array_equal(at['ecnu'], INPUTS['b'][3])
  np.testing.assert_array_equal(at['Target'], TARGETS['b'][3])
  np.testing.assert_array_equal(list(frames.read(frames.target, 'a')), TARGETS['a'][[1, 3]])
  summary['frame_indices'] = {'a': list(range(5)), 'b': [1]}
  files.write_json(tmp_path / 's' / 'summary.json', summary)
  with pytest.raises(errors.DataError, match='groups: of clip a there are no 1 of 5 frames'):
    saved(tmp_path / 's').check(['a'])


def test_a_single_clip_needs_no_name_and_no_video(tmp_path):
  one = {'psnr': scores({'a': [30.0] * 4})}
  for index in range(4):
    pictures.save_png(tmp_path / 'here' / f'{index}.png', INPUTS['a'][index])
    pictures.save_png(tmp_path / 'there' / 'other' / f'{index}.png', TARGETS['a'][index])
  folders = {'output': str(tmp_path / 'here'), 'target': str(tmp_path / 'there')}
  changes = {'metrics': one, 'no_processing': None, 'frame_indices': {'a': [0, 1, 2, 3]}, 'folders': folders}
  frames = saved(workdir(tmp_path / 'x', INPUTS, keep=False, **changes))
  np.testing.assert_array_equal(frames.at('a', 2)['Target'], TARGETS['a'][2])
  (tmp_path / 'video' / 'a').mkdir(parents=True)
  (tmp_path / 'video' / 'a.mp4').touch()
  for place, message in (('video', 'clip a is no folder of images, and'), ('none', 'no frames of clip a are there')):
    folders['output'] = str(tmp_path / place)
    with pytest.raises(errors.DataError, match=message):
      saved(workdir(tmp_path / 'x', INPUTS, keep=False, **changes)).check(['a'])


def test_bad_results(tmp_path, pair):
  other = workdir(tmp_path / 'other', frames_of(6), split='val')
  with pytest.raises(errors.DataError) as caught:
    read(pair[0], other)
  assert all(str(folder) in str(caught.value) for folder in (pair[0], other))
  assert re.search('demo/frames:1.0.0, test, .* and .*frames:1.0.0, val, .* different test sets', str(caught.value))
  with pytest.raises(errors.DataError, match='summary.json: its frames were not kept; run .* with --save_frames'):
    saved(pair[0], workdir(tmp_path / 'bare', frames_of(6), 'bare', keep=False))
  block, _ = read(*pair)
  assert saved_frames.choose_clips(block, ['b']) == ['b'] and saved_frames.choose_clips(block, ['all']) == ['a', 'b']
  with pytest.raises(errors.ConfigError, match="^Clip 'bb' was not scored; did you mean 'b'[?] There are a, b"):
    saved_frames.choose_clips(block, ['bb'])
  frames = saved(*pair)
  assert saved_frames.choose_frame(frames, 'a', None) == 2 and saved_frames.choose_frame(frames, 'a', 3) == 3
  with pytest.raises(errors.ConfigError, match='^--frame=9 of a was not scored; there are 4 from 0 to 3, the nearest'):
    saved_frames.choose_frame(frames, 'a', 9)


def test_lost_frames_are_named(pair):
  kept = pair[1] / 'eval' / 'f00d' / 'test'
  (kept / 'output' / 'b' / '000001.png').unlink()
  (kept / 'output' / 'b' / '000003.png').unlink()
  frames = saved(*pair)
  frames.check(['a'])
  with pytest.raises(errors.DataError, match='output: of clip b there are no 000001.png, 000003.png; evaluate again'):
    frames.check(['b'])
  pictures.save_png(kept / 'output' / 'a' / '000000.png', TARGETS['a'][0][:30])
  with pytest.raises(errors.DataError, match='Frame 0 of a: the sizes differ .*gil 60x30, Target 60x40'):
    frames.at('a', 0)
  (kept / 'output' / 'a' / '000000.png').write_bytes(b'no image')
  with pytest.raises(errors.DataError, match='000000.png is damaged: not a readable image'):
    frames.at('a', 0)


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


# Curves.


def test_frames_without_error_leave_a_gap(pair):
  perfect = frames_of(6)
  perfect['a'][1] = TARGETS['a'][1]
  block, raw = read(workdir(pair[0].parent / 'three', perfect, 'three', keep=False), pair[0])
  name, curves = plots.along_frames(block, raw, ['a', 'b'])
  assert name == 'psnr' and list(curves['a']) == ['Input', 'three', 'ecnu']
  np.testing.assert_array_equal(np.isnan(curves['a']['three'][1]), [False, True, False, False])
  figure = plots.frames(name, curves)
  assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 3
  assert figure.axes[0].get_ylabel() == 'PSNR (dB)' and figure.axes[1].get_title(loc='left') == 'b'


def test_training_curves_of_seeds():
  curves = {'val/psnr': [{10: 30.0, 20: 31.0}, {10: 32.0, 20: 33.0, 30: 40.0}], 'val/gain': [{10: 1.0}, {10: 3.0}]}
  steps, mean, std = plots._over_seeds(curves['val/psnr'])
  np.testing.assert_allclose([steps, mean, std], [[10, 20], [31, 32], [2**0.5] * 2])
  runs = [plots.Run('two', curves, 'l2'), plots.Run('one', {'val/psnr': [{5: 30.5}], 'train/loss': [{5: 0.1}]}, 'l2')]
  assert plots._unprocessed(runs, 'val/psnr') == 29.0
  figure = plots.training(runs)
  assert figure.axes[0].get_ylabel() == 'Validation PSNR (dB)' and len(figure.axes[0].collections) == 1
  assert figure.axes[1].get_ylabel() == 'Loss (l2)' and figure.axes[1].get_yscale() == 'log'
  colours = [plots.Run('wespe', {'val/colour': [{1: 3.0}], 'val/colour_source': [{1: 4.0}], 'train/loss': [{1: -2.0}]})]
  assert plots._unprocessed(colours, 'val/colour') == 4.0
  figure = plots.training(colours)
  assert figure.axes[0].get_ylabel() == 'Validation colour distance' and figure.axes[1].get_yscale() == 'linear'


def test_loss_of_few_steps_is_joined_with_its_neighbours():
  found = plots._evened({100: 4.0, 200: 2.0, 202: 8.0, 300: 1.0, 301: 5.0})
  assert list(found) == [100, 200, 301] and found[200] == 2.0
  assert found[301] == pytest.approx((2 * 8 + 98 * 1 + 5) / 101)


def test_metrics_are_read(pair):
  block, _ = read(*pair)
  (run, _) = plots.runs(block.results)
  assert (run.label, run.loss) == ('ecnu', 'l2') and run.curves['val/psnr'] == [{301: 30.5}]
  assert list(run.curves['train/loss'][0]) == [100, 200, 301]
  path = pair[0] / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"step": 400, "val/ps')  # killed while writing
  assert plots.runs(block.results)[0].curves == run.curves
  path.write_text('{"step"\n' + path.read_text())
  with pytest.raises(errors.DataError, match='metrics.jsonl: line 1 is damaged .*; remove it'):
    plots.runs(block.results)
  for folder in pair:
    (folder / 'metrics.jsonl').unlink()
  with pytest.raises(plots.Unavailable, match='no metrics.jsonl lies in the workdir of any result'):
    plots.runs(block.results)


def test_published_points_share_axes_on_their_own_test_set_only(pair):
  own = plots.points(read(*pair)[0])
  assert [(point.label, point.params) for point in own] == [('ecnu', 114_413), ('gil', 57_721)]
  assert own[0].gain == pytest.approx(psnr(frames_of(12))['mean'] - psnr(INPUTS)['mean']) and own[0].seconds == 0.02
  paper = plots.published_points()
  assert len(paper) == 7 and paper[0].gain == pytest.approx(1.866) and paper[0].params is None
  apart, together = plots.tradeoff(own, False), plots.tradeoff(own, True)
  assert len(apart.axes) == 4 and len(together.axes) == 2
  names = [[text.get_text() for text in axes.texts] for axes in (*apart.axes, *together.axes)]
  assert [len(one) for one in names] == [2, 2, 7, 5, 9, 7] and names[0] == ['ecnu', 'gil'] and 'BossGao' in names[4]
  boxes = [text.get_window_extent() for text in apart.axes[2].texts]
  assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_files_have_the_same_bytes_every_time(tmp_path, pair):
  block, raw = read(*pair)
  for k in range(2):
    plots.save(tmp_path / str(k) / 'frames.of', plots.frames(*plots.along_frames(block, raw, ['a'])))
  names = sorted(path.name for path in (tmp_path / '0').iterdir())
  assert names == ['frames.of.png', 'frames.of.svg']
  for name in names:
    assert (tmp_path / '0' / name).read_bytes() == (tmp_path / '1' / name).read_bytes()
  svg = (tmp_path / '0' / 'frames.of.svg').read_text()
  assert '<dc:date>' not in svg and Image.open(tmp_path / '0' / 'frames.of.png').width == 1020


# From start to end.


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
