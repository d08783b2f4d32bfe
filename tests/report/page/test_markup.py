"""The text of the results page: names, structure, table, plots."""

import json
import re

import pytest
from report.page.runs import EVIL, ODD, frames_of, psnr

from vqm_jax.report.page import markup
from vqm_jax.report.tables import layout


def test_nothing_is_loaded(parsed):
  everything = [value or '' for _, attributes in parsed.elements for value in attributes.values()] + parsed.scripts
  assert not [text[:80] for text in everything if re.search(r'https?:|\bftp:|["\'(]\s*//\w|@import|url\((?!#)', text)]
  loaded = [attributes[name] for _, attributes in parsed.elements for name in ('src', 'href') if name in attributes]
  assert all(value.startswith(('data:', '#')) for value in loaded) and len(loaded) > 20
  assert not {'iframe', 'object', 'embed', 'base', 'form'} & {tag for tag, _ in parsed.elements}
  [policy] = [one['content'] for tag, one in parsed.elements if one.get('http-equiv') == 'Content-Security-Policy']
  assert policy.startswith("default-src 'none'; img-src data:;")


def test_script_finds_all_that_it_uses(parsed):
  script = next(text for text in parsed.scripts if "'use strict'" in text)
  used = set(re.findall(r"\$\('([\w-]+)'\)|getElementById\('([\w-]+)'\)", script))
  used = {name for pair_of_names in used for name in pair_of_names if name} | {'left', 'right'}
  assert len(used) > 25 and used <= set(parsed.ids)
  assert len(set(parsed.ids)) == len(parsed.ids)
  pointers = {name for _, one in parsed.elements for key in ('aria-labelledby', 'aria-describedby') if key in one
              for name in one[key].split()}  # fmt: skip
  links = {one['href'][1:] for tag, one in parsed.elements if tag in ('a', 'use')}
  assert pointers | links <= set(parsed.ids)
  assert '</' not in script.replace('</kbd>', '')


def test_names_survive(parsed, pair):
  assert parsed.data['sides'][2] == EVIL and parsed.data['clips'][1] == ODD
  assert len([tag for tag, _ in parsed.elements if tag == 'script']) == 2 and not {'i', 'alert'} & {
    tag for tag, _ in parsed.elements
  }
  assert EVIL in parsed.text and f'clip {ODD}, frame' in parsed.text and 'no <weights>' in parsed.text
  value = {'x': '</script><!-- \u2028 &', 'y': [1.5, None]}
  text = markup.json_block(value)
  assert json.loads(text) == value and text.isascii() and not set('<>&') & set(text)


def test_everything_has_a_name(parsed):
  pictured = [one for tag, one in parsed.elements if tag == 'img' or one.get('role') in ('img', 'region', 'slider')]
  canvas = [one for one in pictured if one.get('id') == 'picture']  # named by the script
  assert all(one.get('alt') or one.get('aria-label') for one in pictured if one not in canvas)
  assert sum(tag == 'h1' for tag, _ in parsed.elements) == 1
  assert [one['content'] for tag, one in parsed.elements if one.get('name') == 'viewport']
  assert parsed.text.startswith('Results on demo/frames:1.0.0')
  for fact in ('Splittest', 'Protocolntire', 'Clips2', 'Frames8 (all)', 'Evaluated26 November 2026'):
    assert fact in parsed.text


def test_table_with_gains_and_numbers_to_sort_by(parsed):
  heads, first, second, last = parsed.rows[:4]
  assert heads == ['Method', 'Gain (dB)', '↑PSNR', '↓LPIPS (alex)', 'TestReq', 'TestTime', 'Parameters']
  assert [row[0] for row in (first, second, last)] == [EVIL, 'ecnu (step 9)', 'No processing']
  assert re.fullmatch(r'\+\d\.\d{3} \[\+\d\.\d{3}, \+\d\.\d{3}\]', first[1]) and last[1] == ''
  assert second[3] == 'n/a (1)' and '(1) LPIPS (alex): no <weights>' in parsed.text
  cells = [one for tag, one in parsed.elements if tag in ('td', 'th')][7:14]
  assert cells[0]['data-value'] == EVIL and float(cells[5]['data-value']) == 0.3 and cells[6]['data-value'] == '57721.0'
  assert float(cells[2]['data-value']) == pytest.approx(psnr(frames_of(6))['mean']) and 'data-value' not in cells[3]
  starts = [one['data-first'] for tag, one in parsed.elements if 'data-first' in one][:7]
  assert starts[1:6] == ['descending', 'descending', 'ascending', 'ascending', 'ascending']
  assert ['BossGao', '+1.866', '32.419', '0.905', '0.177'] in [row[:5] for row in parsed.rows]


def test_cells():
  row = {'method': layout.Cell('<a>'), 'x': layout.Cell('1.0', 1.0, 'bold'), 'parameters': layout.Cell('≈22.75M')}
  table = layout.Table('t', {'method': 'Method', 'x': '↓X', 'parameters': 'P', 'empty': 'E'}, [row])
  row['empty'] = layout.Cell()
  text = markup.html_table(table, {}, 'a "t"')
  assert '<th scope="row" class="word" data-value="&lt;a&gt;">&lt;a&gt;</th>' in text
  assert (
    '<td data-value="1.0" data-head="↓X"><b>1.0</b></td><td data-value="22.75" data-head="P">≈22.75M</td></tr>' in text
  )
  assert 'aria-label="a &quot;t&quot;"' in text and '>E<' not in text
  assert markup._sort_value('psnr', layout.Cell('nan', float('nan')), None) is None


def test_plots_stand_beside_each_other(parsed):
  svgs = [one for tag, one in parsed.elements if tag == 'svg']
  labels = [one['aria-label'].partition(':')[0] for one in svgs]
  assert labels == [title for title in ('PSNR along frames', 'Training', 'Quality against cost') for _ in range(2)]
  widths = [float(one['width'].removesuffix('pt')) for one in svgs]
  assert widths[::2] == [504.0] * 3 and widths[1::2] == [244.8] * 3  # two columns, and one for phones
  svg = '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "http://x"><svg xmlns:xlink="http://y" xmlns="http://z" width="3pt">'
  svg += (
    '<metadata>http://w</metadata><defs><style type="text/css">*{a: b}</style></defs><g id="g" clip-path="url(#g)">'
  )
  svg += '<use xlink:href="#g"/></g></svg>\n'
  want = '<svg width="3pt"><defs></defs><g id="p-g" clip-path="url(#p-g)"><use href="#p-g"/></g></svg>'
  assert markup.inline_svg(svg, 'p') == want
