"""The tables of the report: reading summaries, blocks, marks, gains, files; the binary once from start to end."""

import csv
import io
import pathlib
import re

import pytest
from report.scored import save, scores, summary

from vqm_jax import errors
from vqm_jax.report import summaries
from vqm_jax.report.tables import rendering
from vqm_jax.summary import summary_of

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden'
INTVID = [f'{number:03d}' for number in range(76, 92)]


def weak(method, colour, **changes):
  """A summary of Track 2."""
  metrics = {'lpips_alex': scores(0.6 + colour / 100), 'colour': scores(colour), 'warping': scores(2.7e-4, step=1e-5)}
  return summary(method) | {
    'dataset': 'vid3oc_demo',
    'aligned': False,
    'metrics': metrics
    | {'psnr': scores(20.0), 'fd_lpips': {'mean': colour / 2, 'per_clip': {}}, 'sharpness': scores(colour - 4.5)},
    'no_processing': {'lpips_alex': scores(0.59), 'colour': scores(9.0), 'warping': scores(3e-4, step=1e-5)},
    'target': {'warping': scores(2e-4, step=1e-5), 'flicker': scores(0.5)},
    'category': {},
    **changes,
  }


def blocks(*given):
  return summaries.blocks({f'runs/{k}/eval/test/summary.json': summary_of(value) for k, value in enumerate(given)})


def texts(*given):
  return rendering.documents(blocks(*given))


def rows(markdown):
  """Tables of a Markdown page as lists of dicts."""
  tables, header = [], None
  for line in markdown.splitlines():
    cells = [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
    if not cells:
      header = None
    elif header is None:
      header = cells
      tables.append([])
    elif not set(line) <= set('|-: '):
      tables[-1].append(dict(zip(header, cells, strict=True)))
  return tables


def records(text):
  assert text.endswith('\r\n')
  return list(csv.DictReader(io.StringIO(text, newline='')))


@pytest.mark.parametrize('name', ['table1', 'table2'])
@pytest.mark.parametrize('kind', ['md', 'csv', 'tex'])
def test_published_block_alone(name, kind):
  # To write them again: python -m vqm_jax.report.tables --out=tests/golden, and rename.
  golden = (GOLDEN / f'{name}_published.{kind}').read_bytes().decode()
  assert rendering.documents([])[f'{name}.{kind}'] == golden


def test_without_results_the_other_files_say_so():
  found = texts()
  assert 'No clip has a category.' in found['categories.md'] and 'No two methods' in found['comparison.md']
  assert not records(found['categories.csv']) and not records(found['comparison.csv'])


def test_rows_of_a_measured_block():
  _, [best, second, unprocessed] = rows(texts(summary(), summary('gil (step 10)', 31.5, params=None))['table1.md'])
  assert best['Method'] == 'gil (step 10)' and best['Parameters'] == ''
  assert second == {
    'Method': 'ecnu (step 8704)',
    '↑PSNR': '31.200',
    '↑SSIM': '0.780',
    '↓LPIPS (alex)': '0.188',
    'Gain (dB)': '+1.200 [+1.100, +1.300]',
    'TrainingReq': '1 x NVIDIA H100',
    'TrainingTime': '2h 13min',
    'TestReq': 'NVIDIA H100',
    'TestTime': '0.0211s',
    'Parameters': '1.14M',
    'ExtraData': 'No',
  }
  assert unprocessed['Method'] == 'No processing' and unprocessed['↑PSNR'] == '30.000'
  assert unprocessed['Gain (dB)'] == unprocessed['TestTime'] == ''


def test_other_data_is_never_ranked_with_the_paper():
  given = [summary(f'm{k}', 33 + k) for k in range(2)]
  page = texts(*given)['table1.md']
  assert (
    '## Measured here (data set vqm_demo/frames:1.0.0, test, protocol ntire, 3 clips, all frames, 12 of them)' in page
  )
  assert 'Not comparable with the published numbers' in page
  published, measured = rows(page)
  assert published[0]['↑PSNR'] == '**32.419**' and not any('*' in row['↑PSNR'] for row in measured)  # two are too few
  published, measured = rows(texts(*given, summary('m2', 32.5))['table1.md'])
  assert published[0]['↑PSNR'] == '**32.419**'
  expected = ['**34.000**', '<u>33.000</u>', '<u>32.500</u>', '30.000']
  assert [row['↑PSNR'] for row in measured] == expected
  # The unprocessed input takes part, as in the paper.
  assert [row['↓LPIPS (alex)'] for row in measured] == ['<u>0.160</u>', '<u>0.170</u>', '0.175', '**0.150**']


def original(psnr=32.3, base=30.553, lpips=0.176, **changes):
  given = summary('boss (step 1)', psnr, base, INTVID, frames=120) | {'dataset': 'intvid/frames:1.0.0', **changes}
  given['no_processing']['lpips_alex'] = scores(lpips, INTVID, 120)
  return given


def is_original(given):
  return summaries.is_original_test_set(summary_of(given))


def test_the_original_test_set_is_known_by_clips_frames_and_the_unprocessed_score():
  assert is_original(original())
  assert is_original(original(base=30.572))
  assert not is_original(original(base=30.58))
  assert not is_original(original(protocol='y601'))
  assert not is_original(original() | {'no_processing': None})
  assert not is_original(summary(base=30.553))
  assert not is_original(summary(base=30.553, clips=INTVID, frames=12))
  assert not is_original(summary(base=30.553, clips=[*INTVID[1:], '092'], frames=120))


def test_the_original_test_set_is_ranked_with_the_paper():
  page = texts(original())['table1.md']
  published, measured = rows(page)
  assert [row['↑PSNR'] for row in published[:3]] == ['**32.419**', '<u>32.167</u>', '32.126']
  assert [row['↑PSNR'] for row in measured] == ['<u>32.300</u>', '30.553']
  # Our network scores the input as theirs did, so LPIPS may be ranked, too.
  assert [row['↓LPIPS (alex)'] for row in measured] == ['<u>0.177</u>', '**0.176**']
  assert 'ranked together; in LPIPS, too' in page and 'Not comparable' not in page
  published, measured = rows(texts(original(lpips=0.21))['table1.md'])
  assert [row['↓LPIPS (alex)'] for row in measured] == ['0.177', '0.210']
  assert published[-1]['↓LPIPS'] == '**0.176**'


def test_nothing_is_mixed():
  given = [
    summary(),
    summary(split='validation'),
    summary(frames=2) | {'frames': 'every:2'},
    summary(clips=('a', 'b')),
    summary(dataset='other'),
    weak('wespe', 4.0),
  ]
  assert len(blocks(*given)) == len(given)
  assert len(blocks(summary(), summary('gil'))) == 1


def test_scores_of_another_protocol_are_those_of_the_table():
  given = summary(protocol='y601')
  for side in ('metrics', 'no_processing'):
    given[side] |= {'psnr_y601': scores(33.0 if side == 'metrics' else 32.5), 'ssim_y601': scores(0.9)}
  _, [row, unprocessed] = rows(texts(given)['table1.md'])
  assert (row['↑PSNR'], row['↑SSIM'], row['↓LPIPS (alex)']) == ('33.000', '0.900', '0.188')
  assert row['Gain (dB)'].startswith('+0.500') and unprocessed['↑PSNR'] == '32.500'


def test_shared_rows_have_to_agree():
  other = summary('gil', base=30.00001)
  with pytest.raises(errors.DataError, match='runs/0.*and runs/1.*differ in psnr of no_processing: 30.0000.*again'):
    blocks(summary(), other)
  assert len(blocks(summary(), summary('gil', base=30.0000001))) == 1
  # Those that did not score the input share the row of those that did.
  _, measured = rows(texts(summary(), summary('gil', 30.5, no_processing=None))['table1.md'])
  assert [row['Gain (dB)'][:6] for row in measured] == ['+1.200', '+0.500', '']
  with pytest.raises(errors.DataError, match='n_frames is 12 and 15.*evaluate both'):
    blocks(summary(), summary('gil', frames=5))
  with pytest.raises(errors.DataError, match='data_fingerprint is x and y'):
    blocks(summary(data_fingerprint='x'), summary('gil', data_fingerprint='y'))


def test_what_is_missing_says_why():
  reason = 'the weights are not at ~/vqm_weights/alex.npz'
  with_reason = summary('gil (step 1)', 31.0, missing={'lpips_alex': reason, 'lpips_vgg': 'no weights'})
  del with_reason['metrics']['lpips_alex']
  not_asked = summary('none', 30.1, timing=None, train=None)
  del not_asked['metrics']['lpips_alex']
  page = texts(summary(), with_reason, not_asked)['table1.md']
  _, measured = rows(page)
  assert [row['↓LPIPS (alex)'] for row in measured] == ['<u>0.188</u>', 'n/a (1)', '', '**0.150**']
  assert measured[2]['TestTime'] == measured[2]['TrainingTime'] == measured[2]['ExtraData'] == ''
  assert f'- (1) LPIPS (alex): {reason}' in page and '- (2) LPIPS (vgg): no weights' in page


def test_further_columns_come_when_a_row_has_them():
  given = summary(target={'warping': scores(2.5e-4, step=0)}, frames=2) | {'frames': 'every:10'}
  given['metrics'] |= {'tof': scores(0.45), 'warping': scores(3.1e-4, step=0), 'lpips_vgg': scores(0.3)}
  given['timing'] = {'seconds_per_frame': 123.4, 'device': '2-core CPU', 'frame_size': [180, 320]}
  given['train'] |= {'notes': ['content_loss=pixel'], 'seconds': 3 * 86400.0, 'extra_data': True}
  page = texts(given)['table1.md']
  row = rows(page)[1][0]
  assert row['↓tOF (px)'] == '0.450' and row['Warping error'] == '0.00031' and row['↓LPIPS (vgg)'] == '0.300'
  assert row['TestTime'] == '123s (320x180)' and row['TrainingTime'] == '3.0d' and row['ExtraData'] == 'Yes'
  assert '- Warping error of the targets themselves, the floor: 0.00025.' in page
  assert '- Not all frames were scored: every:10.' in page and '- ecnu (step 8704): content_loss=pixel.' in page
  assert 'tLP' not in page
  only_vgg = summary()
  only_vgg['metrics']['lpips_vgg'] = only_vgg['metrics'].pop('lpips_alex')
  only_vgg['no_processing'].pop('lpips_alex')
  assert rows(texts(only_vgg)['table1.md'])[1][0]['↓LPIPS (vgg)'] == '0.188'


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (None, ''),
    (42.4, '42s'),
    (95, '2min'),
    (3599.9, '1h 00min'),
    (18_720, '5h 12min'),
    (86_399, '1.0d'),
    (2e5, '2.3d'),
  ],
)
def test_duration(seconds, text):
  assert rendering.duration(seconds) == text


def test_one_clip_has_no_interval():
  page = texts(summary(clips=('a',)))['table1.md']
  assert rows(page)[1][0]['Gain (dB)'] == '+1.200' and '1 clip,' in page and 'there is no interval' in page


def test_identical_frames_count_as_100_db():
  given = summary()
  given['metrics']['psnr'] |= {'mean': 'inf', 'per_clip': {'a': 'inf', 'b': 'inf', 'c': 'inf'}}
  assert rows(texts(given)['table1.md'])[1][0]['↑PSNR'] == '100.000'


def test_seeds_of_one_experiment_are_one_row():
  given = [
    summary(f'ecnu (step {100 + seed})', 31 + seed / 10, seed=seed, experiment='e', step=100 + seed, ema=True)
    for seed in (0, 1, 2)
  ]
  other = summary('gil (step 5)', 31.05, seed=0, experiment='f')
  found = texts(*given, other)
  _, measured, singles = rows(found['table1.md'])
  assert [row['Method'] for row in measured] == ['ecnu (3 seeds)', 'gil (step 5)', 'No processing']
  assert measured[0]['↑PSNR'] == '31.100 ± 0.100' and measured[0]['Gain (dB)'].startswith('+1.100 [')
  assert [row['Method'] for row in singles] == [f'ecnu (step {100 + seed}), seed {seed}' for seed in (0, 1, 2)]
  assert [row['↑PSNR'] for row in singles] == ['31.000', '31.100', '31.200'] and 'TestReq' not in singles[0]
  assert '<details><summary>Single seeds</summary>\n\n|' in found['table1.md']
  table = [row for row in records(found['table1.csv']) if row['block'] == 'measured']
  assert [row['kind'] for row in table] == ['seeds', 'seed', 'seed', 'seed', 'method', 'reference']
  assert table[0]['seeds'] == '3' and float(table[0]['psnr_std']) == pytest.approx(0.1) and table[0]['step'] == ''
  assert [row['seed'] for row in table[1:4]] == ['0', '1', '2']
  assert 'seed 0' not in found['table1.tex'] and r'31.100 $\pm$ 0.100' in found['table1.tex']
  with pytest.raises(errors.DataError, match='runs/0.* and runs/2.*same seed 0 beside other seeds'):
    blocks(given[0], given[1], given[0] | {'method': 'ecnu (step 7)'})


def test_a_metric_of_some_seeds_only_is_not_averaged():
  given = [summary('ecnu', seed=seed, experiment='e') for seed in (0, 1)]
  del given[1]['metrics']['lpips_alex']
  page = texts(*given)['table1.md']
  assert rows(page)[1][0]['↓LPIPS (alex)'] == 'n/a (1)'
  assert '(1) LPIPS (alex): measured for 1 of 2 seeds only' in page


def test_equal_labels_are_told_apart():
  [block] = blocks(summary('ecnu'), summary('ecnu', 31.1), summary('No processing', 30.5))
  assert [result.method for result in block.results] == ['ecnu [0]', 'ecnu [1]', 'No processing [2]']


def test_older_summaries():
  old = summary()
  for name in ('schema_version', 'system', 'seed', 'experiment', 'train', 'aligned', 'target', 'missing', 'weights'):
    del old[name]
  old |= {'timing': None, 'params': None}
  _, [row, _] = rows(texts(old)['table1.md'])
  assert row['↑PSNR'] == '31.200' and row['Parameters'] == row['TrainingReq'] == row['ExtraData'] == ''


def test_weakly_aligned_results_go_to_table2_without_psnr():
  found = texts(weak('far', 6.0), weak('near (step 3)', 2.0), weak('middle', 4.0))
  assert len(rows(found['table1.md'])) == 1
  page = found['table2.md']
  published, measured = rows(page)
  assert published == [{'': 'LPIPS↓', 'Source': '**0.590**', 'WESPE': '0.755', 'DPE': '0.793', 'DACAL': '<u>0.750</u>'}]
  assert [row['Method'] for row in measured] == ['Source', 'near (step 3)', 'middle', 'far', 'Target']
  lpips = [row['↓LPIPS (alex, unaligned)'] for row in measured]
  assert lpips == ['**0.590**', '<u>0.620</u>', '0.640', '0.660', '']
  assert [row['↓Colour distance (Lab)'] for row in measured] == ['9.000', '**2.000**', '<u>4.000</u>', '6.000', '']
  assert [row['Sharpness (log2)'] for row in measured[1:4]] == ['-2.500', '**-0.500**', '<u>1.500</u>']  # nearest to 0
  assert [row['Warping error'] for row in measured] == ['0.0003', *['0.00027'] * 3, '0.0002']
  assert [row['Flicker (levels)'] for row in measured] == ['', '', '', '', '0.5'] and 'blur lowers them' in page
  assert measured[1]['↓FD (LPIPS alex)'] == '**1.000**' and measured[0]['↓FD (LPIPS alex)'] == ''
  assert measured[1]['Warping error'] == '0.00027' and measured[1]['TestTime'] == '0.0211s'
  assert not re.search('PSNR|SSIM', page)
  assert 'psnr' not in found['table2.csv'] and 'psnr' not in found['comparison.csv']


def test_categories():
  found = texts(summary(), summary('gil', 31.0))
  [table] = rows(found['categories.md'])
  assert [(row['Category'], row['Clips'], row['Method']) for row in table[:4]] == [
    ('animals', '2', 'ecnu (step 8704)'),
    ('animals', '2', 'gil'),
    ('animals', '2', 'No processing'),
    ('text', '1', 'ecnu (step 8704)'),
  ]
  # Clips a, b, c differ by 0.2 dB, the unprocessed ones by 0.1.
  assert table[0]['↑PSNR'] == '31.100' and table[0]['Gain (dB)'] == '+1.150' and table[3]['↑PSNR'] == '31.400'
  first = records(found['categories.csv'])[0]
  assert float(first['psnr']) == pytest.approx(31.1) and first['category'] == 'animals'


def test_comparison_of_every_two_methods():
  found = texts(summary(), summary('gil', 31.0))
  [table] = rows(found['comparison.md'])
  psnr = [row for row in table if row['Metric'] == '↑PSNR']
  pairs = [('ecnu (step 8704)', 'gil'), ('ecnu (step 8704)', 'No processing'), ('gil', 'No processing')]
  assert [(row['A'], row['B']) for row in psnr] == pairs
  assert psnr[0]['A - B'] == '+0.2000' and psnr[0]['A better / worse / equal'] == '3 / 0 / 0' and psnr[0]['p'] == '0.25'
  assert psnr[1]['95 % interval'] == '[+1.1000, +1.3000]'
  lpips = next(row for row in table if row['Metric'] == '↓LPIPS (alex)')
  assert lpips['A - B'] == '-0.0020' and lpips['A better / worse / equal'] == '3 / 0 / 0'  # lower is better
  first = records(found['comparison.csv'])[0]
  assert float(first['mean_diff']) == pytest.approx(0.2) and first['lower_is_better'] == 'False' and first['n'] == '3'


def test_one_clip_leaves_intervals_empty():
  found = texts(summary(clips=('a',)))
  assert rows(found['comparison.md'])[0][0]['95 % interval'] == ''
  assert records(found['comparison.csv'])[0]['low'] == '' and records(found['table1.csv'])[-2]['gain_low'] == ''


def test_csv_has_full_precision_and_what_is_behind_a_row():
  table = records(texts(summary('a,b "x"', 31 + 1 / 3))['table1.csv'])
  assert [row['block'] for row in table] == ['published'] * 8 + ['measured'] * 2
  assert table[0]['training_time'] == '5-10d' and table[0]['seconds_per_frame'] == '4.0' and table[0]['gain'] == '1.866'
  row = table[8]
  assert row['method'] == 'a,b "x"' and float(row['psnr']) == pytest.approx(31 + 1 / 3, abs=1e-12)
  assert row['lpips'] == '' and row['lpips_alex'] and row['training_seconds'] == '8000.0'
  assert row['path'] == 'runs/0/eval/test/summary.json' and row['frame_size'] == '1920x1080'


def balanced(text):
  text = re.sub(r'\\\\|\\[{}%&$#_]', '', text)  # line ends and characters that print as they are
  depth = 0
  for character in text:
    depth += {'{': 1, '}': -1}.get(character, 0)
    assert depth >= 0
  return depth == 0 and text.count('$') % 2 == 0


def test_latex_is_well_formed():
  hard = summary(r'50% a_b & {c} #1 $x$ ~^ \d <|>', train=None)
  found = texts(hard, weak('wespe_x', 2.0))
  for name in ('table1.tex', 'table2.tex'):
    text = found[name]
    code = '\n'.join(line for line in text.splitlines() if not line.startswith('%'))
    assert balanced(code) and code.isascii()
    begun, ended = re.findall(r'\\begin\{(\w+\*?)\}', code), re.findall(r'\\end\{(\w+\*?)\}', code)
    assert sorted(begun) == sorted(ended) and begun.count('table*') == 2
    for columns, body in re.findall(r'\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}', code, re.S):
      lines = [line for line in body.splitlines() if line.endswith(r'\\')]
      assert lines and all(len(re.findall(r'(?<!\\)&', line)) == len(columns) - 1 for line in lines)
    assert not re.search(r'(?<!\\)[%#]', code)
  assert r'50\% a\_b \& \{c\} \#1 \$x\$ \textasciitilde{}\textasciicircum{} \textbackslash{}d' in found['table1.tex']
  assert r'\textbf{32.419}' in found['table1.tex'] and r'\underline{0.182}' in found['table1.tex']


def test_markdown_cells_cannot_break_the_table():
  row = rows(texts(summary('a|b <u>'))['table1.md'])[1][0]
  assert row['Method'] == r'a\|b &lt;u>'


def test_binary(binary, tmp_path):
  for name, psnr in (('a', 31.0), ('b', 32.0)):
    save(tmp_path / name / 'eval' / 'test' / 'summary.json', summary(name, psnr))
  save(tmp_path / 'c' / 'summary.json', weak('wespe', 3.0))
  out = tmp_path / 'out'
  given = f'--results={tmp_path / "a"},{tmp_path / "b"},{tmp_path / "c"}'
  process = binary('report.tables', given, f'--out={out}', blocked=['av', 'cv2', 'tensorflow', 'tensorflow_datasets'])
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 0, output
  names = [f'table{k}.{kind}' for k in (1, 2) for kind in ('md', 'csv', 'tex')]
  names += [f'{name}.{kind}' for name in ('categories', 'comparison') for kind in ('md', 'csv')]
  assert sorted(path.name for path in out.iterdir()) == sorted(names)
  assert output.splitlines()[-len(names) :] == [str(out / name) for name in names]
  assert (out / 'table1.md').read_text() in output and '+1.000' in output and 'wespe' in output


def test_binary_wants_a_folder(command):
  done = command('report.tables', '--results=nowhere')
  assert done.output == 'error: --out is required; see --help.\n' and done.returncode == 2
