import csv

import numpy as np
import pytest
from prepare import generated_video

from vqm_jax import errors
from vqm_jax.prepare.pairs import degradation, footage, making
from vqm_jax.prepare.pairs.degradation import Coding, Degradation
from vqm_jax.video import VideoFile, compression_of

CODED = (Coding({'crf': 24.0}, 'veryfast'), Coding({'crf': 33.0}, 'ultrafast', 'h265'))


@pytest.fixture(scope='module')
def video(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  generated_video.write(folder / 'a.mp4', generated_video.frames(1, height=96, width=128), fps=25, crf=8.0)
  return folder / 'a.mp4'


def planes(frame):
  return frame.to_ndarray().astype(float)


def test_is_told_in_order():
  assert (
    str(Degradation(CODED, scale=1.5, grain=0.7)) == 'scale=1.5 grain=0.7 h264:veryfast:crf=24 h265:ultrafast:crf=33'
  )
  assert str(Degradation(CODED[:1])) == 'h264:veryfast:crf=24'
  assert str(Coding({'bitrate': 500000.0})) == 'h264:medium:bitrate=500000'


def test_sizes_are_even_and_not_enlarged():
  assert Degradation(CODED).size(96, 128) == (96, 128)
  assert Degradation(CODED, scale=1.5).size(96, 128) == (64, 86)
  assert Degradation(CODED, scale=1.001).size(96, 128) == (96, 128)


def test_original_is_reduced_without_a_shift(video):
  frame = next(VideoFile(video).yuv_frames())
  reduced = Degradation(CODED, scale=2.0).original(frame, 0)
  assert (reduced.height, reduced.width, reduced.format.name) == (48, 64, 'yuv420p')
  assert reduced.colorspace == frame.colorspace and reduced.color_range == frame.color_range
  luma, full = planes(reduced)[:48], planes(frame)[:96]
  means = full.reshape(48, 2, 64, 2).mean((1, 3))
  assert np.corrcoef(luma.ravel(), means.ravel())[0, 1] > 0.99
  for shifted in (np.roll(means, 1, 0), np.roll(means, -1, 1)):
    assert np.abs(luma - means).mean() < np.abs(luma - shifted).mean()


def test_grain_has_its_strength_and_belongs_to_the_frame(video):
  frame = next(VideoFile(video).yuv_frames())
  grainy = Degradation(CODED, grain=2.0, seed=3)
  noise = planes(grainy.original(frame, 0)) - planes(frame)
  assert noise[:96].std() == pytest.approx(2.0, rel=0.1) and noise[96:].std() == pytest.approx(1.0, rel=0.2)
  assert abs(noise.mean()) < 0.1
  np.testing.assert_array_equal(planes(grainy.original(frame, 0)) - planes(frame), noise)
  for other in (grainy.original(frame, 1), Degradation(CODED, grain=2.0, seed=4).original(frame, 0)):
    assert abs(np.corrcoef((planes(other) - planes(frame)).ravel(), noise.ravel())[0, 1]) < 0.1
  assert Degradation(CODED).original(frame, 0) is frame


def test_web_draws_by_name_and_holds_what_it_says():
  drawn = [degradation.web('clip', copy, 0, 720, 1280) for copy in range(400)]
  assert drawn[7] == degradation.web('clip', 7, 0, 720, 1280) != degradation.web('other', 7, 0, 720, 1280)
  last = [one.codings[-1] for one in drawn]
  crf = np.array([coding.rate['crf'] for coding in last])
  assert 8 <= crf.min() < 10 and 40 < crf.max() <= 41
  shares = [np.mean(x) for x in (crf < 18, [c.codec == 'h265' for c in last], [len(d.codings) == 2 for d in drawn],
                                 [d.scale > 1 for d in drawn], [d.grain > 0 for d in drawn])]  # fmt: skip
  np.testing.assert_allclose(shares, [0.15, 0.125, 0.2, 0.35, 0.2], atol=0.06)
  assert {c.preset for c in last} == set(degradation._PRESETS)
  assert max(d.scale for d in drawn) <= 2.0
  # Small videos stay large enough for windows of 256.
  assert max(degradation.web('clip', copy, 0, 300, 400).scale for copy in range(100)) <= 300 / 288


def test_copies_of_a_video_are_pairs_of_their_own(video, tmp_path, monkeypatch):
  drawn = [Degradation(CODED, scale=1.5, grain=1.0), Degradation(CODED[:1])]
  monkeypatch.setitem(degradation.MIXES, 'web', lambda name, copy, *_: drawn[copy])
  settings = making.Settings(mix='web', copies=2, clip_frames=12, counts=dict(val=0, test=0))
  rows = making.run(video.parent, tmp_path / 'out', settings)
  assert [row['clip'] for row in rows] == ['a@0', 'a@1']
  assert [row['degradation'] for row in rows] == [str(one) for one in drawn]
  assert [(row['height'], row['width'], row['crf']) for row in rows] == [('64', '86', '33.0'), ('96', '128', '24.0')]
  for row, what in zip(rows, drawn, strict=True):
    lq, hq = (VideoFile(tmp_path / 'out' / row[side]) for side in ('lq', 'hq'))
    assert (lq.height, lq.num_frames) == (hq.height, hq.num_frames) == (int(row['height']), 20)
    assert lq.codec == what.codings[-1].codec.replace('h265', 'hevc')
    assert row['qp'] == f'{compression_of(lq).qp:.2f}'
    # The original of a pair is exactly what was coded.
    for index, (source, kept) in enumerate(zip(VideoFile(video).yuv_frames(), hq.yuv_frames(), strict=True)):
      np.testing.assert_array_equal(planes(what.original(source, index)), planes(kept))
  assert (tmp_path / 'out' / rows[1]['hq']).read_bytes() == video.read_bytes()


def test_csv_says_how_many_copies(video, tmp_path):
  table = tmp_path / 'split.csv'
  with table.open('w', newline='') as file:
    csv.writer(file).writerows([('video', 'split', 'copies', 'licence'), ('a.mp4', 'holdout', 3, 'CC0')])
  settings = making.Settings(mix='web', split_csv=str(table), clip_frames=12)
  rows = making.run(video.parent, tmp_path / 'out', settings)
  assert [(row['split'], row['clip']) for row in rows] == [('holdout', f'a@{k}') for k in range(3)]
  assert len({row['degradation'] for row in rows}) == 3
  for text in ('0', '1.5', '²', 'many'):
    with pytest.raises(errors.ConfigError, match='copies of a is .* expected a number from 1'):
      footage.checked_copies({'a': text}, 'split.csv')


@pytest.mark.parametrize(
  'fields, told',
  [
    (dict(mix='web', rate='crf=33'), 'set one of --rate'),
    (dict(mix='films'), '--mix=films: unknown, expected one of web'),
    (dict(rate='crf=33', copies=2), '--copies=2: expected 1'),
    (dict(mix='web', copies=0), '--copies=0: expected 1'),
  ],
)
def test_settings_that_do_not_fit(fields, told):
  with pytest.raises(errors.ConfigError, match=told):
    making.Settings(**fields)


def test_pairs_of_before_the_mix_go_on(video, tmp_path):
  settings = making.Settings(rate='crf=33', counts=dict(val=0, test=0))
  described = making._described(settings, footage.find(video.parent))
  assert not {'mix', 'copies'} & described.keys()
  assert making._described(making.Settings(rate='crf=28:38', copies=2), {})['copies'] == 2
