"""Tables and JSON of results."""

import csv
import dataclasses
import io

import pytest
import summaries

from vqm_jax.evaluation import results
from vqm_jax.summary import Column


def scores(psnr, ssim):
  return {'psnr': psnr, 'ssim': ssim}


NET = dict(params=114_413, seconds=0.0211, device='2-core CPU, 320x180')
ROWS = [
  results.Row('ecnu (step 8704)', scores(29.2281, 0.85123), 0.2283, (0.1, 0.3), **NET, frames=72, clips=3),
  results.Row('a|b', scores(29.03, None), 0.03, frames=72, clips=3),
  results.Row('No processing', scores(28.99984, 0.847), 0.0, frames=72, clips=3),
]
COLUMNS = {'psnr': Column('PSNR (dB)'), 'ssim': Column('SSIM')}


def cells_of(line):
  return [cell.strip() for cell in line.strip('|').split(' | ')]


def test_markdown_is_an_aligned_table():
  lines = results.markdown(ROWS, COLUMNS, ['one note', 'another'], missing=['ssim']).splitlines()
  assert cells_of(lines[0]) == ['Method', 'PSNR (dB)', 'SSIM', 'Gain (dB)', 'Parameters', 's / frame', 'Frames / clips']
  assert len({len(line) for line in lines[:5]}) == 1
  time = '0.0211 (2-core CPU, 320x180)'
  gain = '+0.228 [+0.100, +0.300]'
  assert cells_of(lines[2]) == ['ecnu (step 8704)', '29.228', '0.851', gain, '114.4k', time, '72 / 3']
  assert r'a\|b' in lines[3] and 'n/a' in lines[3]
  assert lines[4].startswith('| No processing ') and '29.000' in lines[4]
  assert lines[6:] == ['- one note', '- another']


def test_column_of_gains_is_left_out_where_there_are_none():
  rows = [results.Row('a', {'colour': 1.234})]
  head = results.markdown(rows, {'colour': Column('Colour', decimals=1)}).splitlines()[0]
  assert cells_of(head) == ['Method', 'Colour', 'Parameters', 's / frame', 'Frames / clips']


def test_csv_has_full_precision():
  read = list(csv.DictReader(io.StringIO(results.csv_text(ROWS), newline='')))
  assert read[0]['psnr'] == '29.2281' and read[0]['device'] == '2-core CPU, 320x180'
  assert (read[0]['gain_low'], read[0]['gain_high']) == ('0.1', '0.3')
  assert read[1]['params'] == '' and read[1]['ssim'] == '' and len(read) == 3
  assert results.csv_text(ROWS).endswith('\r\n')


def summary(protocol='ntire', no_processing=True, **more):
  def side(psnr, ssim):
    def table(value):
      per_frame = {'a': [value - 1, value - 1], 'b': [value + 1, value + 1]}
      return {'mean': value, 'per_clip': {'a': value - 1, 'b': value + 1}, 'per_frame': per_frame}

    means = {'psnr': psnr, 'ssim': ssim}
    means |= {} if protocol == 'ntire' else {'psnr_y601': psnr + 2, 'ssim_y601': ssim + 0.01}
    return {name: table(value) for name, value in means.items()}

  output = side(31.0, 0.9)
  labels = {name: {'label': name, 'better': 'higher', 'decimals': 3} for name in output}
  given = {
    'method': 'net',
    'params': 12,
    'protocol': protocol,
    'measures': labels,
    'n_frames': 4,
    'n_clips': 2,
    'timing': {'seconds_per_frame': 0.5, 'device': 'X', 'frame_size': [180, 320]},
    'metrics': output,
    'no_processing': side(30.5, 0.88) if no_processing else None,
    'frame_indices': {'a': [0, 1], 'b': [9, 19]},
    'category': {'a': 'cats', 'b': ''},
  }
  return summaries.make(**given | more)


def test_rows_of_a_summary():
  net, unprocessed = results.rows(summary())
  counts = dict(frames=4, clips=2)
  how = dict(params=12, seconds=0.5, device='X, 320x180')
  assert net == results.Row('net', scores(31.0, 0.9), 0.5, (0.5, 0.5), **how, **counts)
  assert unprocessed == results.Row('No processing', scores(30.5, 0.88), 0.0, **counts)
  assert results.rows(summary('y601'))[0].scores == {'psnr_y601': 33.0, 'ssim_y601': pytest.approx(0.91)}
  (alone,) = results.rows(summary(no_processing=False, timing=None))
  assert alone.gain is None and alone.seconds is None and alone.device == ''


def test_rows_of_two_cameras_have_source_and_target_and_no_gain():
  def table(value):
    return {'mean': value, 'per_clip': {'a': value}, 'per_frame': {'a': [value]}}

  measured = {'colour': table(3.0), 'flicker': table(0.2)}
  labels = {name: {'label': name, 'decimals': 2} for name in ('colour', 'flicker', 'lpips_alex')}
  sides = {'metrics': measured, 'no_processing': measured, 'target': {'flicker': table(0.1)}}
  rows = results.rows(summary(aligned=False, measures=labels, missing={'lpips_alex': 'no weights'}, **sides))
  assert [row.method for row in rows] == ['net', 'Source', 'Target']
  assert [row.gain for row in rows] == [None, None, None]
  assert rows[2].scores == {'colour': None, 'flicker': 0.1, 'lpips_alex': None}


def test_clips_and_frames_as_csv():
  flicker = {'mean': 0.2, 'per_clip': {'a': 0.1, 'b': 0.3}, 'per_frame': {'a': [0.1], 'b': [0.3]}}
  pairs = {'mean': 2.0, 'per_clip': {'a': 1.0, 'b': 3.0}, 'per_frame': {'a': [1.0], 'b': [3.0]}}
  others = {'flicker': flicker, 'fd': {'mean': 1}}
  whole = summary(metrics=dataclasses.asdict(summary())['metrics'] | others)
  clips = list(csv.DictReader(io.StringIO(results.clips_csv(whole), newline='')))
  assert clips[0] == {
    'clip': 'a', 'category': 'cats', 'psnr': '30.0', 'ssim': '-0.09999999999999998', 'flicker': '0.1',
    'psnr_input': '29.5', 'ssim_input': '-0.12',
  }  # fmt: skip
  tof = pairs | {'per_frame': {'a': [0.5, 1.5], 'b': [3.0, 3.0]}}
  whole = summary(
    frame_indices={'a': [0, 1, 2], 'b': [9, 19, 29]}, metrics={'tof': tof, 'flicker': flicker}, no_processing=False
  )
  frames = list(csv.DictReader(io.StringIO(results.frames_csv(whole), newline='')))
  assert [(f['clip'], f['frame'], f['tof']) for f in frames[:3]] == [
    ('a', '0', ''),
    ('a', '1', '0.5'),
    ('a', '2', '1.5'),
  ]
  assert 'flicker' not in frames[0]


def test_report_is_written(tmp_path):
  paths = results.write_report(tmp_path / 'test', summary(), results.rows(summary()))
  names = ['table.md', 'table.csv', 'clips.csv', 'frames.csv', 'summary.json']
  assert [path.name for path in paths] == names
  assert all(path.stat().st_size for path in paths)
  assert len(list((tmp_path / 'test').iterdir())) == len(names)
