"""Marks of the best and second best."""

from vqm_jax.report.tables import layout


def test_marks_go_by_what_is_printed_and_ties_share_them():
  values = [0.1764, 0.1761, 0.18, 0.177, 0.19, None, float('nan')]
  table = layout.Table('', {}, [{'lpips': layout.Cell('', value)} for value in values])
  layout.mark([table], ['lpips'], 3)
  marks = [row['lpips'].mark for row in table.rows]
  assert marks == ['bold', 'bold', 'underline', 'underline', '', '', '']
  other = layout.Table('', {}, [{'psnr': layout.Cell('', value)} for value in (30, 31, 29)])
  layout.mark([other], ['psnr'], 2, higher={'psnr'})
  assert [row['psnr'].mark for row in other.rows] == ['underline', 'bold', '']
