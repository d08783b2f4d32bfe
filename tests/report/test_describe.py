"""The table of systems, from plain numbers."""

import json

import pytest

from vqm_jax.report import describe

COST = dict(window=5, size_multiple=4, unit_frames=1, macs_naive=1234.5e9, macs_cached=99.6e9)
COSTS = {
  'new': COST | {'params': 7},
  'none': COST | {'params': 0},
  'tcl_edvr': COST | {'params': 4_112_547},
  'gil, share_stages=False': COST | {'params': 7_200_000},
  'gtq': COST | {'params': 19_755_067},
  'tcl': COST | {'params': 8_927_190},
}


def test_rows_come_in_the_order_of_the_paper_with_its_figures():
  table = {row['system']: row for row in describe.rows(COSTS)}
  assert list(table) == ['gtq', 'tcl', 'tcl_edvr', 'gil, share_stages=False', 'none', 'new']
  assert [row['team'] for row in table.values()] == ['GTQ', 'TCL', 'TCL', 'GIL', 'No processing', '']
  assert table['gtq'] == COSTS['gtq'] | {
    'system': 'gtq',
    'team': 'GTQ',
    'paper_parameters': '19.76M',
    'params_difference': pytest.approx(-0.00025, abs=1e-5),
    'paper_seconds': 9.74,
    'paper_hardware': '1×2080Ti',
  }
  assert table['gil, share_stages=False']['params_difference'] == 1.0
  # The paper's figures are not those of a part.
  assert table['tcl_edvr']['paper_parameters'] is table['tcl_edvr']['paper_seconds'] is None


def test_markdown_is_an_aligned_table():
  lines = describe.markdown(describe.rows(COSTS), ['one note']).splitlines()
  assert len({len(line) for line in lines[:8]}) == 1 and lines[8:] == ['', '- one note']
  cells = [cell.strip() for cell in lines[2].strip('|').split('|')]
  expected = ['gtq', 'GTQ', '19,755,067', '19.76M', '-0.02 %', '5', '4', '1,234', '100', '9.74 (1×2080Ti)']
  assert cells == expected
  # Numbers to the right.
  assert '|          7 |' in lines[7] and lines[1].startswith('| -') and lines[1].split('|')[3] == ' ---------: '


def test_files(tmp_path):
  table = describe.rows(COSTS)
  written = describe.write(tmp_path / 'new', table, 480, 640)
  assert [path.name for path in written] == ['describe.md', 'describe.json']
  assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == ['describe.json', 'describe.md']
  stored = json.loads(written[1].read_text())
  assert stored['systems'] == table and stored['frame_size'] == [480, 640]
  text = written[0].read_text()
  assert text == describe.markdown(table, stored['notes']) and 'one restored frame of 640x480' in text
