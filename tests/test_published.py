"""The figures of the paper and their marks, against its own text."""

import re

import pytest

from vqm_jax import published, restorers
from vqm_jax.report.tables import rendering

# As printed, with its marks: PSNR, SSIM, LPIPS, TrainingReq, TrainingTime, TestReq, TestTime, Parameters, ExtraData.
TABLE1 = """
BossGao | **32.419** | **0.905** | <u>0.177</u> | 8×V100 | 5-10d | 1×V100 | 4s | n/a | No
JOJO-MVIG | <u>32.167</u> | <u>0.901</u> | <u>0.182</u> | 2×1080Ti | ≈ 4d | 1×1080Ti | 2.07s | ≈22.75M | No
GTQ | <u>32.126</u> | <u>0.900</u> | 0.187 | 2×2080Ti | ≈ 5d | 1×2080Ti | 9.74s | 19.76M | No
ECNU | 31.719 | 0.896 | 0.198 | 2×1080Ti | 2-3d | 1×1080Ti | 1.1s | n/a | No
TCL | 31.701 | 0.897 | 0.193 | 2×1080Ti | ≈ 3d | 1×1080Ti | 25s | ≈8.92M | No
GIL | 31.579 | 0.894 | 0.195 | 1×970Ti | ≈ 6d | 1×970Ti | 11.37s | 3.60M | No
7-th team | 30.598 | 0.878 | **0.176** | n/a | 4d | n/a | 0.5s | ≈7.92M | Yes
No processing | 30.553 | 0.877 | **0.176** | | | | | |
"""
TABLE2 = """
 | Source | WESPE | DPE | DACAL
LPIPS↓ | **0.590** | 0.755 | 0.793 | <u>0.750</u>
"""


def cells(text):
  return [[cell.strip() for cell in line.split('|')] for line in text.strip('\n').splitlines()]


def rendered(name):
  """Header and rows of the published block."""
  lines = [line for line in rendering.documents([])[name].splitlines() if line.startswith('|')]
  return cells('\n'.join(line[1:-1] for line in lines[:1] + lines[2:]))


def test_table1_is_as_printed():
  printed = cells(re.sub(r'\*\*|</?u>', '', TABLE1))
  ours = [
    [
      line.team,
      *(f'{score:.3f}' for score in (line.psnr, line.ssim, line.lpips)),
      *(line.train_hardware, line.train_time, line.test_hardware, line.test_time, line.parameters, line.extra_data),
    ]
    for line in published.TRACK1
  ]
  assert ours == printed


def test_rendered_tables_have_the_marks_of_the_paper():
  header, *lines = rendered('table1.md')
  gain = header.index('Gain (dB)')  # ours
  assert [line[:gain] + line[gain + 1 :] for line in lines] == cells(TABLE1)
  assert header[:gain] + header[gain + 1 :] == (
    'Method ↑PSNR ↑SSIM ↓LPIPS TrainingReq TrainingTime TestReq TestTime Parameters ExtraData'.split()
  )
  assert [line[gain] for line in lines] == ['+1.866', '+1.614', '+1.573', '+1.166', '+1.148', '+1.026', '+0.045', '']
  assert rendered('table2.md') == cells(TABLE2)


@pytest.mark.parametrize(('name', 'table'), [('table1.tex', TABLE1), ('table2.tex', TABLE2)])
def test_latex_has_the_marks_of_the_paper(name, table):
  text = rendering.documents([])[name]
  assert re.findall(r'textbf\{(.+?)\}', text) == re.findall(r'\*\*(.+?)\*\*', table)
  assert re.findall(r'underline\{(.+?)\}', text) == re.findall('<u>(.+?)</u>', table)


def test_table2_is_as_printed():
  assert {line.method: line.lpips for line in published.TRACK2} == {
    'Source': 0.590,
    'WESPE': 0.755,
    'DPE': 0.793,
    'DACAL': 0.750,
  }


def test_the_test_set():
  assert (
    len(published.TRACK1_CLIPS) == 16 and published.TRACK1_CLIPS[0] == '076' and published.TRACK1_CLIPS[-1] == '091'
  )
  assert published.NO_PROCESSING.team == 'No processing'


def test_numbers_of_what_is_printed():
  by_team = {line.team: line for line in published.TRACK1}
  assert {team: line.seconds for team, line in by_team.items()} == {
    'BossGao': 4.0,
    'JOJO-MVIG': 2.07,
    'GTQ': 9.74,
    'ECNU': 1.1,
    'TCL': 25.0,
    'GIL': 11.37,
    '7-th team': 0.5,
    'No processing': None,
  }
  assert {team: line.params for team, line in by_team.items()} == {
    'BossGao': None,
    'JOJO-MVIG': 22_750_000,
    'GTQ': 19_760_000,
    'ECNU': None,
    'TCL': 8_920_000,
    'GIL': 3_600_000,
    '7-th team': 7_920_000,
    'No processing': None,
  }


def test_every_system_belongs_to_one_line():
  systems = [system for line in published.TRACK1 for system in line.systems]
  mixtures = {name for name, members in restorers.MIXTURES.items() if members}
  assert sorted(systems) == sorted(restorers.NETWORKS.keys() | mixtures)
