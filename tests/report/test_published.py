"""The figures of the paper, against its own text."""

from vqm_jax import restorers
from vqm_jax.report import published

# Table 1 as printed: PSNR, SSIM, LPIPS, TrainingReq, TrainingTime, TestReq, TestTime, Parameters, ExtraData.
TABLE1 = """
BossGao | 32.419 | 0.905 | 0.177 | 8×V100 | 5-10d | 1×V100 | 4s | n/a | No
JOJO-MVIG | 32.167 | 0.901 | 0.182 | 2×1080Ti | ≈ 4d | 1×1080Ti | 2.07s | ≈22.75M | No
GTQ | 32.126 | 0.900 | 0.187 | 2×2080Ti | ≈ 5d | 1×2080Ti | 9.74s | 19.76M | No
ECNU | 31.719 | 0.896 | 0.198 | 2×1080Ti | 2-3d | 1×1080Ti | 1.1s | n/a | No
TCL | 31.701 | 0.897 | 0.193 | 2×1080Ti | ≈ 3d | 1×1080Ti | 25s | ≈8.92M | No
GIL | 31.579 | 0.894 | 0.195 | 1×970Ti | ≈ 6d | 1×970Ti | 11.37s | 3.60M | No
7-th team | 30.598 | 0.878 | 0.176 | n/a | 4d | n/a | 0.5s | ≈7.92M | Yes
No processing | 30.553 | 0.877 | 0.176 | | | | | |
"""


def test_table1_is_as_printed():
  printed = [[cell.strip() for cell in line.split('|')] for line in TABLE1.replace('7-th', '7th').strip().splitlines()]
  ours = [
    [
      line.team,
      *(f'{score:.3f}' for score in (line.psnr, line.ssim, line.lpips)),
      *(line.train_hardware, line.train_time, line.test_hardware, line.test_time, line.parameters, line.extra_data),
    ]
    for line in published.TRACK1
  ]
  assert ours == printed


def test_numbers_of_what_is_printed():
  by_team = {line.team: line for line in published.TRACK1}
  assert {team: line.seconds for team, line in by_team.items()} == {
    'BossGao': 4.0,
    'JOJO-MVIG': 2.07,
    'GTQ': 9.74,
    'ECNU': 1.1,
    'TCL': 25.0,
    'GIL': 11.37,
    '7th team': 0.5,
    'No processing': None,
  }
  assert {team: line.params for team, line in by_team.items()} == {
    'BossGao': None,
    'JOJO-MVIG': 22_750_000,
    'GTQ': 19_760_000,
    'ECNU': None,
    'TCL': 8_920_000,
    'GIL': 3_600_000,
    '7th team': 7_920_000,
    'No processing': None,
  }


def test_every_system_belongs_to_one_line():
  systems = [system for line in published.TRACK1 for system in line.systems]
  mixtures = {name for name, members in restorers.MIXTURES.items() if members}
  assert sorted(systems) == sorted(restorers.NETWORKS.keys() | mixtures)
