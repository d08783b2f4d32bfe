"""Videos to degrade: their split, and what CSV files say of them."""

import pytest

from vqm_jax import errors
from vqm_jax.prepare.pairs import footage


def test_split_is_by_category_and_seed():
  categories = {f'{kind}_{k:02}': kind for kind in ('city', 'sea', 'talk') for k in range(10)}
  drawn = footage.splits(categories, dict(val=3, test=6, holdout=3), seed=0)
  assert drawn == footage.splits(dict(reversed(categories.items())), dict(val=3, test=6, holdout=3), seed=0)
  assert drawn != footage.splits(categories, dict(val=3, test=6, holdout=3), seed=1)
  for split, per_category in dict(val=1, test=2, holdout=1, train=6).items():
    for kind in ('city', 'sea', 'talk'):
      names = [name for name in drawn if drawn[name] == split and categories[name] == kind]
      assert len(names) == per_category
  assert sorted(footage.splits(dict.fromkeys('ab', ''), {}, 0).values()) == ['train', 'val']
  assert list(footage.splits({'a': ''}, {}, 0).values()) == ['train']
  with pytest.raises(errors.ConfigError, match='only 2 usable videos'):
    footage.splits(dict.fromkeys('ab', ''), dict(val=3), 0)


def test_csv_files(tmp_path):
  files = {'city_a': tmp_path / 'city' / 'a.mp4', 'sea_a': tmp_path / 'sea' / 'a.mp4', 'b': tmp_path / 'b.mp4'}
  path = tmp_path / 'split.csv'
  path.write_text('video,split\ncity/a.mp4,test\nb.mp4,skip\n')
  values = footage.column(str(path), 'split', files)
  assert values == {'city_a': 'test', 'b': 'skip'}
  assert footage.checked_splits(values, list(files), 'x') == {'city_a': 'test', 'sea_a': 'train'}
  for text, message in (
    ('video,split\na.mp4,test\n', 'a.mp4 stands for city_a and sea_a'),
    ('video,split\nbb.mp4,test\n', "no video bb.mp4; did you mean 'b.mp4'[?]"),
    ('video,set\nb.mp4,test\n', 'columns video,split'),
  ):
    path.write_text(text)
    with pytest.raises(errors.ConfigError, match=message):
      footage.column(str(path), 'split', files)
  with pytest.raises(errors.ConfigError, match="split 'tset' is unknown"):
    footage.checked_splits({'b': 'tset'}, list(files), 'x')
  with pytest.raises(errors.ConfigError, match='cannot be read'):
    footage.column(str(tmp_path / 'none.csv'), 'split', files)
