"""Tables and JSON of results."""

import csv
import io
import json

import pytest

from vqm_jax.report import results

ROWS = [
  results.Row('ecnu (step 8704)', 29.2281, 0.85123, 0.2283, 114_413, 0.0211, '2-core CPU, 320x180', 72, 3),
  results.Row('a|b', 29.03, 0.85, 0.03, frames=72, clips=3),
  results.Row('No processing', 28.99984, 0.847, 0.0, frames=72, clips=3),
]


def test_markdown_is_an_aligned_table():
  lines = results.markdown(ROWS, ['one note', 'another']).splitlines()
  assert [cell.strip() for cell in lines[0].split('|')[1:-1]] == [
    'Method',
    'PSNR (dB)',
    'SSIM',
    'Gain (dB)',
    'Parameters',
    's / frame',
    'Frames / clips',
  ]
  assert len({len(line) for line in lines[:5]}) == 1
  cells = [cell.strip() for cell in lines[2].strip('| ').split(' | ')]
  assert cells == [
    'ecnu (step 8704)',
    '29.228',
    '0.851',
    '+0.228',
    '114.4k',
    '0.0211 (2-core CPU, 320x180)',
    '72 / 3',
  ]
  assert r'a\|b' in lines[3]
  assert lines[4].startswith('| No processing ') and '29.000' in lines[4]
  assert lines[6:] == ['- one note', '- another']


def test_csv_has_full_precision():
  read = list(csv.DictReader(io.StringIO(results.csv_text(ROWS), newline='')))
  assert read[0]['psnr'] == '29.2281' and read[0]['device'] == '2-core CPU, 320x180'
  assert read[1]['params'] == '' and len(read) == 3
  assert results.csv_text(ROWS).endswith('\r\n')


@pytest.mark.parametrize(
  ('count', 'text'),
  [(0, '0'), (228, '228'), (114_413, '114.4k'), (19_760_000, '19.76M')],
)
def test_format_params(count, text):
  assert results.format_params(count) == text


def test_json_names_what_json_lacks_and_is_atomic(tmp_path):
  path = tmp_path / 'new' / 'a.json'
  value = {'psnr': [float('inf'), 1.5], 'b': (float('nan'), -float('inf'), None, 3)}
  results.write_json(path, value)
  text = path.read_text()
  assert json.loads(text) == {'psnr': ['inf', 1.5], 'b': ['nan', '-inf', None, 3]}
  with pytest.raises(TypeError):
    results.write_json(path, {'bad': object()})
  assert path.read_text() == text
  assert [p.name for p in path.parent.iterdir()] == ['a.json']


def summary(protocol='ntire', no_processing=True):
  def side(psnr, ssim):
    means = {'psnr': psnr, 'ssim': ssim, 'psnr_y601': psnr + 2, 'ssim_y601': ssim + 0.01}
    return {name: {'mean': value} for name, value in means.items()}

  return {
    'method': 'net',
    'params': 12,
    'protocol': protocol,
    'n_frames': 8,
    'n_clips': 2,
    'timing': {'seconds_per_frame': 0.5, 'device': 'X', 'frame_size': [180, 320]},
    'metrics': side(31.0, 0.9),
    'no_processing': side(30.5, 0.88) if no_processing else None,
  }


def test_rows_of_a_summary():
  net, unprocessed = results.rows(summary())
  assert net == results.Row('net', 31.0, 0.9, 0.5, 12, 0.5, 'X, 320x180', 8, 2)
  assert unprocessed == results.Row('No processing', 30.5, 0.88, 0.0, frames=8, clips=2)
  assert results.rows(summary('y601'))[0].psnr == 33.0
  (alone,) = results.rows(summary(no_processing=False) | {'timing': None})
  assert alone.gain is None and alone.seconds is None and alone.device == ''


def test_report_writes_three_files(tmp_path):
  paths = results.write_report(tmp_path / 'test', summary(), ROWS)
  assert [path.name for path in paths] == ['table.md', 'table.csv', 'summary.json']
  assert all(path.stat().st_size for path in paths)
  assert len(list((tmp_path / 'test').iterdir())) == 3
