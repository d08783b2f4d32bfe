"""Every restorer at the smallest size that still has all of its parts."""

_EDVR = dict(width=4, num_frames=3, num_front=1, num_blocks=1, groups=2)
_RDN = dict(growth=4, num_convs=2)
TINY = {
  'gtq': dict(width=4, num_frames=3, num_extraction=1, num_stages=2, groups=2, num_rrdb=1, growth=2),
  'ecnu': dict(width=4, mapping_width=8, num_blocks=2),
  'gil': dict(width=4),
  'tcl_edvr': _EDVR,
  'tcl_unet': dict(width=4, depth=2),
  'jojo': _EDVR,
  'boss_f1': _EDVR,
  'boss_f2': _EDVR | _RDN,
  'boss_f3': _EDVR | _RDN,
  'boss_f4': _EDVR | _RDN,
  'seventh': dict(width=4, num_blocks=1),
  'none': {},
}
