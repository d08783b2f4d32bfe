"""The paper's results: Tables 1 and 2 of the NTIRE 2020 challenge on video quality mapping, as printed.

The paper marks in Table 1 the best in bold, second and third best underlined; in Table 2 the best in bold, the second
best underlined. Equal numbers share a mark. `rendering` finds the marks by these rules; the tests hold them against the
paper's own.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Track1:
  """One line of Table 1.

  Attributes:
    team: as the paper calls it.
    psnr, ssim, lpips: means over the test sequences, which are not public.
    train_hardware, train_time, test_hardware, test_time: as printed; '' where nothing is.
    parameters: as printed.
    extra_data: 'Yes', 'No' or ''.
    systems: what the line is called here; the first is the whole entry, others are parts of it.
  """

  team: str
  psnr: float
  ssim: float
  lpips: float
  train_hardware: str
  train_time: str
  test_hardware: str
  test_time: str
  parameters: str
  extra_data: str
  systems: tuple[str, ...]

  @property
  def seconds(self) -> float | None:
    """`test_time`, per frame, as a number."""
    return float(self.test_time.removesuffix('s')) if self.test_time else None

  @property
  def params(self) -> int | None:
    """`parameters` as a number; None where the paper has none."""
    if not self.parameters.endswith('M'):
      return None
    return round(float(self.parameters.strip('≈M')) * 1e6)


@dataclasses.dataclass(frozen=True)
class Track2:
  """One column of Table 2.

  Attributes:
    method: as the paper calls it.
    lpips: mean over the test sequences, against targets that are only roughly aligned.
    systems: what the method is called here.
  """

  method: str
  lpips: float
  systems: tuple[str, ...]


_BOSS = ('boss', 'boss_f1', 'boss_f2', 'boss_f3', 'boss_f4')
_TCL = ('tcl', 'tcl_edvr', 'tcl_unet')

TRACK1 = (
  Track1('BossGao', 32.419, 0.905, 0.177, '8×V100', '5-10d', '1×V100', '4s', 'n/a', 'No', _BOSS),
  Track1('JOJO-MVIG', 32.167, 0.901, 0.182, '2×1080Ti', '≈ 4d', '1×1080Ti', '2.07s', '≈22.75M', 'No', ('jojo',)),
  Track1('GTQ', 32.126, 0.900, 0.187, '2×2080Ti', '≈ 5d', '1×2080Ti', '9.74s', '19.76M', 'No', ('gtq',)),
  Track1('ECNU', 31.719, 0.896, 0.198, '2×1080Ti', '2-3d', '1×1080Ti', '1.1s', 'n/a', 'No', ('ecnu',)),
  Track1('TCL', 31.701, 0.897, 0.193, '2×1080Ti', '≈ 3d', '1×1080Ti', '25s', '≈8.92M', 'No', _TCL),
  Track1('GIL', 31.579, 0.894, 0.195, '1×970Ti', '≈ 6d', '1×970Ti', '11.37s', '3.60M', 'No', ('gil',)),
  Track1('7-th team', 30.598, 0.878, 0.176, 'n/a', '4d', 'n/a', '0.5s', '≈7.92M', 'Yes', ('seventh',)),
  Track1('No processing', 30.553, 0.877, 0.176, '', '', '', '', '', '', ('none',)),
)

TRACK2 = (
  Track2('Source', 0.590, ()),
  Track2('WESPE', 0.755, ('wespe',)),
  Track2('DPE', 0.793, ('dpe',)),
  Track2('DACAL', 0.750, ('dacal',)),
)

# The test set of Track 1: 16 sequences, 076 to 091, of 120 frames; the table's own row of the unprocessed input.
TRACK1_CLIPS = tuple(f'{number:03d}' for number in range(76, 92))
TRACK1_FRAMES = 120
NO_PROCESSING = TRACK1[-1]
