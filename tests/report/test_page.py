"""The results page without a browser: which frames, exact pixels, size, escaping, structure, what is refused."""

import json
import re

import numpy as np
import pytest
from report.evaluated import Clips
from report.parsed_page import Parsed, pixels

from vqm_jax import errors, files, metrics
from vqm_jax.report import panels, saved_frames
from vqm_jax.report.figures import plots
from vqm_jax.report.page import build, markup, media
from vqm_jax.report.tables import layout

ODD = 'b<i>"&\' ü'  # a clip, which is a folder
EVIL = '</script><script>alert("1")</script>&amp;'
CLIPS = Clips('a', ODD)
TARGETS, INPUTS, frames_of, psnr, workdir = CLIPS.targets, CLIPS.inputs, CLIPS.noisy, CLIPS.psnr, CLIPS.workdir


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """Two evaluated runs."""
  folder = tmp_path_factory.mktemp('runs')
  one = workdir(folder / 'one', frames_of(12), 'ecnu (step 9)', missing={'lpips_alex': 'no <weights>'})
  timing = {'seconds_per_frame': 0.3, 'device': 'CPU', 'frame_size': [40, 60]}
  return one, workdir(folder / 'two', frames_of(6), EVIL, params=57_721, timing=timing)


@pytest.fixture
def no_plots(monkeypatch):
  """They take most of the time."""
  monkeypatch.setattr(build, '_plots', lambda *_: ([], []))


def read(*folders):
  return saved_frames.read_results(map(str, folders))


def make(out, *folders, **options):
  build.write(out, [str(folder) for folder in folders], **options)
  return Parsed(out.read_text(encoding='utf-8'))


# Which frames.


def test_frames_are_spread_over_a_clip():
  assert media.spread(range(24), 3) == [4, 12, 20] and media.spread(range(10, 34), 1) == [22]
  assert media.spread([3, 13], 5) == [3, 13]
  assert media.parse_frames('3') == 3 and media.parse_frames('at:9, 0,9') == [0, 9]
  for text in ('0', 'at:', '1,2', 'at:x', '-1', 'every:10'):
    with pytest.raises(errors.ConfigError, match=f'^--frames={text}: expected how many'):
      media.parse_frames(text)


def test_worst_and_best_frames():
  base = {'a': dict.fromkeys(range(12), 30.0), 'b': dict.fromkeys(range(100, 112), 20.0)}
  gains = {'a': [0, -5, -4, 1, 1, 1, 1, 1, 1, 1, 9, 8], 'b': [-3, 1, 1, 1, np.inf, 1, 1, 7, 1, 1, 1, 1]}
  scores = {
    'Input': base,
    'm': {c: {k: base[c][k] + gain for k, gain in zip(base[c], gains[c], strict=True)} for c in base},
  }
  found = media.find_extremes(scores, ['a', 'b'], 2)
  # Frame 2 of a and frame 11 are next to others of their kind; the infinite one is none.
  assert [(one.kind, one.clip, one.frame, one.gain) for one in found] == [
    ('worst', 'a', 1, -5.0), ('worst', 'b', 100, -3.0), ('best', 'a', 10, 9.0), ('best', 'b', 107, 7.0),
  ]  # fmt: skip
  assert [one.clip for one in media.find_extremes(scores, ['b'], 1)] == ['b', 'b']
  assert not media.find_extremes({'m': scores['m']}, ['a'], 2) and not media.find_extremes({}, ['a'], 2)
  both = media.find_extremes({'Input': {'a': {0: 1.0}}, 'm': {'a': {0: 2.0}}}, ['a'], 3)
  assert [one.kind for one in both] == ['worst']  # one frame is not both


def test_scores_and_gains_of_frames(pair):
  block, raw = read(*pair)
  saved = saved_frames.SavedFrames(block, raw)
  scores = media.frame_scores(saved, block, raw)
  assert list(scores) == ['Input', 'ecnu', EVIL]
  want = metrics.psnr(frames_of(6)['a'], TARGETS['a'])
  np.testing.assert_allclose(list(scores[EVIL]['a'].values()), want)
  found = media.find_extremes(scores, list(TARGETS), 1)
  gains = {(c, k): scores['ecnu'][c][k] - scores['Input'][c][k] for c in TARGETS for k in range(4)}
  assert (found[0].clip, found[0].frame) == min(gains, key=gains.get)
  assert (found[1].clip, found[1].frame) == max(gains, key=gains.get)
  media.check_frames(saved, ['a'], [0, 3])
  with pytest.raises(errors.ConfigError, match='^--frames: frame 9 of a was not scored; there are 4 from 0 to 3, the'):
    media.check_frames(saved, ['a'], [0, 9])


# Pixels and sizes.


def test_frames_are_exact(no_plots, tmp_path, pair):
  data = make(tmp_path / 'x.html', *pair, frames='at:2', extremes=0).data
  assert data['sides'] == ['Input', 'ecnu', EVIL, 'Target'] and data['clips'] == ['a', ODD]
  assert [(one['clip'], one['frame']) for one in data['stills']] == [(0, 2), (1, 2)]
  for still, clip in zip(data['stills'], TARGETS, strict=True):
    sides = [INPUTS, frames_of(12), frames_of(6), TARGETS]
    for uri, frames in zip(still['pictures'], sides, strict=True):
      np.testing.assert_array_equal(pixels(uri), frames[clip][2])
    assert len(still['errors']) == 3 and (still['width'], still['height']) == (60, 40)
    for uri, frames in zip(still['errors'], sides, strict=False):
      colours = panels.error_colours(panels.error_map(frames[clip][2], TARGETS[clip][2])).astype(int)
      assert np.abs(pixels(uri) - colours).mean() < 25  # noise with loss
    scores = [float(metrics.psnr(frames[clip][2], TARGETS[clip][2])) for frames in sides[:3]]
    assert still['scores'] == [f'{score:.2f} dB' for score in scores] + ['']
  [first, second] = data['motion']
  assert first['frames'] == [0, 1, 2, 3] and [len(side) for side in second['pictures']] == [4] * 4
  assert pixels(first['pictures'][3][1]).shape == (40, 60, 3)


def test_frames_that_equal_their_targets(no_plots, tmp_path):
  run = workdir(tmp_path / 'x', TARGETS, 'perfect')
  parsed = make(tmp_path / 'x.html', run)
  assert {still['scores'][1] for still in parsed.data['stills']} == {'identical'}
  assert 'There are no worst and best frames' in parsed.text and 'NaN' not in ''.join(parsed.scripts[1:2])


def test_page_keeps_its_size(no_plots, tmp_path, pair):
  out = tmp_path / 'x.html'
  full = make(out, *pair)
  whole = out.stat().st_size
  assert len(full.data['stills']) == 8 and 'exact (lossless WebP)' in full.text and 'To stay' not in full.text
  sizes = [whole * part for part in (0.8, 0.5, 0.35)]
  for size in sizes:
    parsed = make(out, *pair, max_mb=size / 1e6)
    assert out.stat().st_size <= size
    assert 'MB, the page has frames to compare with loss instead of exact ones' in parsed.text
  assert len(parsed.data['stills']) < 8 and 'instead of 4 worst and best ones of each method' in parsed.text
  before = out.read_text()
  with pytest.raises(
    errors.ConfigError, match=r'^--max_mb=0.06 is too small: the page needs 0.\d+ MB with the'
  ) as caught:
    make(out, *pair, max_mb=0.06)
  with pytest.raises(errors.ConfigError, match='^--max_mb=0.001 is too small: without any picture'):
    make(out, *pair, max_mb=0.001)
  assert out.read_text() == before
  make(out, *pair, max_mb=float(re.search(r'needs (\S+) MB', str(caught.value))[1]))  # as promised
  assert [path.name for path in tmp_path.iterdir()] == ['x.html']


def test_what_is_given_up_first():
  first, *_, last = rungs = media.rungs(3, 4)
  assert first == media.Rung(3, 4) and last == media.Rung(1, 1, 75, 4) and len(set(rungs)) == len(rungs)
  assert {rung.frames for rung in media.rungs([1, 5, 9, 11], 0)} == {4}
  moving = media.motion_rungs(24, 9)
  assert moving[0].clips == 9 and moving[-1].clips == 1
  assert [one.frames for one in moving] == sorted((one.frames for one in moving), reverse=True)
  assert media._middle(range(100, 110), 4) == (103, 104, 105, 106)


def test_shrunk_frames_are_means(pair):
  block, raw = read(*pair)
  still = media.Maker(saved_frames.SavedFrames(block, raw), True).still('a', 1, None, 4)
  assert (still.width, still.height) == (15, 10)
  np.testing.assert_array_equal(pixels(still.pictures[3]), panels.resized(TARGETS['a'][1], 15))


# The file.


@pytest.fixture(scope='module')
def parsed(pair, tmp_path_factory):
  """A page with all that there is."""
  for folder in pair:
    lines = [{'step': step, 'time': 1.0, 'train/loss': 1 / step, 'val/psnr': 30.0 + step / 99} for step in (10, 20)]
    files.write_text(folder / 'metrics.jsonl', ''.join(json.dumps(line) + '\n' for line in lines))
  return make(tmp_path_factory.mktemp('page') / 'page.html', *pair)


def test_nothing_is_loaded(parsed):
  everything = [value or '' for _, attributes in parsed.elements for value in attributes.values()] + parsed.scripts
  assert not [text[:80] for text in everything if re.search(r'https?:|\bftp:|["\'(]\s*//\w|@import|url\((?!#)', text)]
  loaded = [attributes[name] for _, attributes in parsed.elements for name in ('src', 'href') if name in attributes]
  assert all(value.startswith(('data:', '#')) for value in loaded) and len(loaded) > 20
  assert not {'iframe', 'object', 'embed', 'base', 'form'} & {tag for tag, _ in parsed.elements}
  [policy] = [one['content'] for tag, one in parsed.elements if one.get('http-equiv') == 'Content-Security-Policy']
  assert policy.startswith("default-src 'none'; img-src data:;")


def test_script_finds_all_that_it_uses(parsed):
  script = next(text for text in parsed.scripts if "'use strict'" in text)
  used = set(re.findall(r"\$\('([\w-]+)'\)|getElementById\('([\w-]+)'\)", script))
  used = {name for pair_of_names in used for name in pair_of_names if name} | {'left', 'right'}
  assert len(used) > 25 and used <= set(parsed.ids)
  assert len(set(parsed.ids)) == len(parsed.ids)
  pointers = {name for _, one in parsed.elements for key in ('aria-labelledby', 'aria-describedby') if key in one
              for name in one[key].split()}  # fmt: skip
  links = {one['href'][1:] for tag, one in parsed.elements if tag in ('a', 'use')}
  assert pointers | links <= set(parsed.ids)
  assert '</' not in script.replace('</kbd>', '')


def test_names_survive(parsed, pair):
  assert parsed.data['sides'][2] == EVIL and parsed.data['clips'][1] == ODD
  assert len([tag for tag, _ in parsed.elements if tag == 'script']) == 2 and not {'i', 'alert'} & {
    tag for tag, _ in parsed.elements
  }
  assert EVIL in parsed.text and f'clip {ODD}, frame' in parsed.text and 'no <weights>' in parsed.text
  value = {'x': '</script><!-- \u2028 &', 'y': [1.5, None]}
  text = markup.json_block(value)
  assert json.loads(text) == value and text.isascii() and not set('<>&') & set(text)


def test_everything_has_a_name(parsed):
  pictured = [one for tag, one in parsed.elements if tag == 'img' or one.get('role') in ('img', 'region', 'slider')]
  canvas = [one for one in pictured if one.get('id') == 'picture']  # named by the script
  assert all(one.get('alt') or one.get('aria-label') for one in pictured if one not in canvas)
  assert sum(tag == 'h1' for tag, _ in parsed.elements) == 1
  assert [one['content'] for tag, one in parsed.elements if one.get('name') == 'viewport']
  assert parsed.text.startswith('Results on demo/frames:1.0.0')
  for fact in ('Splittest', 'Protocolntire', 'Clips2', 'Frames8 (all)', 'Evaluated26 November 2026'):
    assert fact in parsed.text


def test_table_with_gains_and_numbers_to_sort_by(parsed):
  heads, first, second, last = parsed.rows[:4]
  assert heads == ['Method', 'Gain (dB)', '↑PSNR', '↓LPIPS (alex)', 'TestReq', 'TestTime', 'Parameters']
  assert [row[0] for row in (first, second, last)] == [EVIL, 'ecnu (step 9)', 'No processing']
  assert re.fullmatch(r'\+\d\.\d{3} \[\+\d\.\d{3}, \+\d\.\d{3}\]', first[1]) and last[1] == ''
  assert second[3] == 'n/a (1)' and '(1) LPIPS (alex): no <weights>' in parsed.text
  cells = [one for tag, one in parsed.elements if tag in ('td', 'th')][7:14]
  assert cells[0]['data-value'] == EVIL and float(cells[5]['data-value']) == 0.3 and cells[6]['data-value'] == '57721.0'
  assert float(cells[2]['data-value']) == pytest.approx(psnr(frames_of(6))['mean']) and 'data-value' not in cells[3]
  starts = [one['data-first'] for tag, one in parsed.elements if 'data-first' in one][:7]
  assert starts[1:6] == ['descending', 'descending', 'ascending', 'ascending', 'ascending']
  assert ['BossGao', '+1.866', '32.419', '0.905', '0.177'] in [row[:5] for row in parsed.rows]


def test_cells():
  row = {'method': layout.Cell('<a>'), 'x': layout.Cell('1.0', 1.0, 'bold'), 'parameters': layout.Cell('≈22.75M')}
  table = layout.Table('t', {'method': 'Method', 'x': '↓X', 'parameters': 'P', 'empty': 'E'}, [row])
  row['empty'] = layout.Cell()
  text = markup.html_table(table, {}, 'a "t"')
  assert '<th scope="row" class="word" data-value="&lt;a&gt;">&lt;a&gt;</th>' in text
  assert (
    '<td data-value="1.0" data-head="↓X"><b>1.0</b></td><td data-value="22.75" data-head="P">≈22.75M</td></tr>' in text
  )
  assert 'aria-label="a &quot;t&quot;"' in text and '>E<' not in text
  assert markup._sort_value('psnr', layout.Cell('nan', float('nan')), None) is None


def test_plots_stand_beside_each_other(parsed):
  svgs = [one for tag, one in parsed.elements if tag == 'svg']
  assert [one['aria-label'].partition(':')[0] for one in svgs] == [
    'PSNR along frames', 'Training', 'Quality against cost',
  ]  # fmt: skip
  svg = '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "http://x"><svg xmlns:xlink="http://y" xmlns="http://z" width="3pt">'
  svg += (
    '<metadata>http://w</metadata><defs><style type="text/css">*{a: b}</style></defs><g id="g" clip-path="url(#g)">'
  )
  svg += '<use xlink:href="#g"/></g></svg>\n'
  want = '<svg width="3pt"><defs></defs><g id="p-g" clip-path="url(#p-g)"><use href="#p-g"/></g></svg>'
  assert markup.inline_svg(svg, 'p') == want


def test_dates():
  assert build.dates(['2026-11-26T03:37:05+00:00', None, 'x']) == '26 November 2026'
  assert build.dates([None]) == ''
  assert build.dates(['2026-11-26', '2026-02-01T00:00:00']) == '1 February 2026 to 26 November 2026'


# Other results, and bad ones.


def test_two_cameras(no_plots, tmp_path):
  values = {clip: [-0.1, 0.2, 0.0, 0.1] for clip in TARGETS}
  sharpness = {'sharpness': {'mean': 0.05, 'per_clip': dict.fromkeys(TARGETS, 0.05), 'per_frame': values}}
  sides = {'metrics': sharpness, 'no_processing': sharpness}
  run = workdir(tmp_path / 'x', frames_of(6), 'wespe', aligned=False, **sides)
  parsed = make(tmp_path / 'x.html', run)
  data = parsed.data
  assert data['sides'] == ['Input', 'wespe', 'target (not aligned)'] and not data['errors']
  assert all(still['errors'] == [] and set(still['scores']) == {''} for still in data['stills'])
  assert 'not aligned. Errors and PSNR against them would mean nothing' in parsed.text
  assert 'There are no worst and best frames: targets are not aligned' in parsed.text
  assert 'extremes' not in parsed.ids and 'PSNR' not in parsed.rows[0] and 'weakly aligned' in parsed.text


def test_without_inputs_there_is_no_gain(no_plots, tmp_path, pair):
  summary = json.loads((pair[0] / 'eval/test/summary.json').read_text())
  folders = {side: path for side, path in summary['folders'].items() if side != 'input'}
  run = workdir(tmp_path / 'x', frames_of(6), 'm', no_processing=None, folders=folders)
  parsed = make(tmp_path / 'x.html', run)
  assert parsed.data['sides'] == ['m', 'Target'] and 'extremes' not in parsed.ids
  assert 'no gain of single frames is known' in parsed.text


def test_several_seeds_show_the_first(no_plots, tmp_path):
  runs = [
    workdir(tmp_path / str(seed), frames_of(6, seed), f'ecnu (step {seed})', seed=seed, experiment='e')
    for seed in (5, 4)
  ]
  parsed = make(tmp_path / 'x.html', *runs, frames='1')
  assert parsed.data['sides'] == ['Input', 'ecnu, seed 4', 'Target']
  assert 'Of several seeds of one experiment, frames are shown of the first.' in parsed.text
  want = metrics.psnr(frames_of(6, 4)['a'][2], TARGETS['a'][2])
  [still] = [one for one in parsed.data['stills'] if (one['clip'], one['frame']) == (0, 2)]
  assert still['scores'][1] == f'{want:.2f} dB'


def test_bad_input(no_plots, tmp_path, pair):
  out = tmp_path / 'x.html'
  bare = workdir(tmp_path / 'bare', frames_of(6), 'bare', keep=False)
  with pytest.raises(errors.DataError, match='its frames were not kept; run .* --save_frames .* --nopictures makes'):
    make(out, bare)
  other = workdir(tmp_path / 'other', frames_of(6), 'other', keep=False, split='val')
  with pytest.raises(errors.DataError, match='are results of different test sets'):
    make(out, pair[0], other)
  with pytest.raises(errors.ConfigError, match="^Clip 'aa' was not scored; did you mean 'a'"):
    make(out, pair[0], clips=['aa'])
  with pytest.raises(errors.ConfigError, match='^--frames: frame 7 of a was not scored'):
    make(out, pair[0], frames='at:7')
  with pytest.raises(errors.ConfigError, match='is a folder; give the name of a file'):
    make(tmp_path, pair[0])
  lost = workdir(tmp_path / 'lost', frames_of(6), 'lost')
  (lost / 'eval/f00d/test/output/a/000001.png').unlink()
  with pytest.raises(errors.DataError, match='output: of clip a there are no 000001.png; evaluate again'):
    make(out, lost)
  assert not out.exists()
  assert make(out, lost, clips=[ODD]).data['clips'] == [ODD]
  parsed = make(out, bare, pictures=False)
  assert parsed.data == {} and not {'compare', 'motion', 'extremes'} & set(parsed.ids) and len(parsed.rows) > 3


def test_plots_that_cannot_be_drawn_say_why(tmp_path, monkeypatch):
  monkeypatch.setattr(plots, 'save', lambda *_: pytest.fail('nothing can be drawn'))
  whole = {'psnr': {'mean': 30.0, 'per_clip': dict.fromkeys(TARGETS, 30.0), 'per_frame': {}}}
  run = workdir(tmp_path / 'x', frames_of(6), 'm', keep=False, metrics=whole, no_processing=None)
  parsed = make(tmp_path / 'x.html', run, pictures=False)
  assert 'plots' not in parsed.ids and parsed.text.count('No plot "') == 3
  assert 'No plot "Training": no metrics.jsonl lies in the workdir' in parsed.text and str(tmp_path) not in parsed.text


# From start to end.


def test_binary(binary, tmp_path, pair):
  out = tmp_path / 'some folder' / 'page.html'
  blocked = ['av', 'cv2', 'tensorflow', 'tensorflow_datasets', 'flax', 'selenium']
  process = binary(
    'report.page', f'--results={pair[0]},{pair[1]}', f'--out={out}', '--frames=2', '--clips=a', '--motion=2',
    '--extremes=0', blocked=blocked,
  )  # fmt: skip
  output = process.communicate(timeout=100)[0]
  assert process.returncode == 0, output
  assert re.search(r'page.html: 2 frames to compare, 1 moving clips, \d+\.\d MB', output)
  data = Parsed(out.read_text(encoding='utf-8')).data
  assert [one['frame'] for one in data['stills']] == [1, 3] and data['motion'][0]['frames'] == [1, 2]
