"""From the key and the answers of a study to its files."""

import json

import numpy as np
from report.study.answers import export, make_key, rate, save


def test_binary(binary, tmp_path):
  key = make_key('mos', ['a', 'b'], 'target')
  rng = np.random.default_rng(0)
  quality = {'a': 3.6, 'b': 2.4, 'target': 4.6}
  save(tmp_path / 'answers', [export(key, f'P{k}', rate(quality, rng)) for k in range(5)])
  (tmp_path / 'key.json').write_text(json.dumps(key))
  given = f'--key={tmp_path}/key.json', f'--exports={tmp_path}/answers', f'--out={tmp_path}/out'
  process = binary('report.study_results', *given, blocked=['av', 'cv2', 'tensorflow', 'tensorflow_datasets'])
  output = process.communicate(timeout=120)[0]
  assert process.returncode == 0, output
  names = ['study.md', 'study.tex', 'study.csv', 'raters.csv', 'votes.csv', 'study.json', 'forest.png', 'forest.svg']
  assert output.splitlines()[-8:] == [f'{tmp_path}/out/{name}' for name in names]
  assert sorted(names) == sorted(path.name for path in (tmp_path / 'out').iterdir())
  assert 'target (hidden reference)' in output and 'DMOS' in output
  assert list(json.loads((tmp_path / 'out' / 'study.json').read_text())['methods']) == ['target', 'a', 'b']
